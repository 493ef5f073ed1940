"""The figures."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, interval, label, log_ticks

from .boxes import FIREHOSE, LARGEST
from .whistlers import growth_rate

_NAMES = {
    "heat_along": "temperature gradient, field along the box",
    "heat_across": "temperature gradient, oblique",
    "both_across": "both gradients, oblique",
    "shear_across": "velocity gradient, oblique",
}


def draw(findings: Findings) -> dict[str, Figure]:
    """Heat flux, waves by helicity, anisotropy, spectra, the field over space and time, the distribution, and the single particles."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "heat_flux": _draw_flux(tree),
        "waves": _draw_waves(tree),
        "anisotropy": _draw_anisotropy(tree),
        "spectrum": _draw_spectrum(tree["heat_along"], tree["no_force"]),
        "strip": _draw_strips(tree),
        "distribution": _draw_distribution(tree["distribution"]),
        "particles": _draw_particles(tree["motion"], tree["gas"]),
    }


def _draw_flux(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 2, sharey=True)
    for ax, names in zip(axes[0], (("heat_along",), ("heat_across", "both_across")), strict=True):
        for i, name in enumerate(names):
            interval(ax, tree[name].time, tree[name].heat_flux, name=_NAMES[name], colour=COLOURS[i])
        label(ax, "time", "heat flux", x_unit="1/Ωₑ", y_unit="n T v_th")
    free = tree["without_waves"]
    axes[0, 0].plot(free.time, free.heat_flux.mean("seed"), "--", color="#555555", label="the same electrons without waves")
    axes[0, 0].plot(free.time, free.linear, ":", color="black", label="linear growth")
    for ax in axes[0]:
        ax.legend(fontsize=7.5)
    return fig


def _draw_waves(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 2, sharey=True)
    for ax, name in zip(axes[0], ("heat_along", "shear_across"), strict=True):
        for helicity, colour in (("negative", COLOURS[0]), ("positive", COLOURS[1])):
            sense = "left-handed in space" if helicity == "negative" else "right-handed in space"
            interval(ax, tree[name].time, tree[name][f"energy_{helicity}"], name=sense, colour=colour, is_log=True)
        if name == "heat_along":
            quiet = tree["no_force"].energy_negative
            quiet = np.exp(np.log(quiet.where(quiet > 0)).mean("seed", skipna=False))
            ax.plot(quiet.time, quiet, ":", color="#555555", label="no force")
        ax.set_yscale("log")
        label(ax, "time", f"field energy, k ρₑ < {LARGEST:g}", x_unit="1/Ωₑ", y_unit="B₀²", title=_NAMES[name])
        ax.legend(fontsize=7.5)
    return fig


def _draw_anisotropy(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 1, panel=(5.2, 3.4))
    ax = axes[0, 0]
    for name, colour in zip(("shear_across", "both_across", "heat_across", "heat_along"), COLOURS, strict=False):
        one = tree[name]
        interval(ax, one.time, one.parallel_pressure / one.perpendicular_pressure, name=_NAMES[name], colour=colour)
    # p_∥/p_⊥ at the threshold, from Δ = (p_⊥ - p_∥) / p.
    delta = FIREHOSE / tree["shear_across"].attrs["beta"]
    ax.axhline((1 - 2 * delta / 3) / (1 + delta / 3), color="#888888", lw=1, ls="-.", label="firehose threshold, about")
    unchecked = tree["shear_across"].unchecked
    ax.plot(unchecked.time, unchecked, ":", color="black", label="velocity gradient, no waves")
    label(ax, "time", "p∥ / p⊥", x_unit="1/Ωₑ")
    ax.legend(fontsize=7.5)
    return fig


def _draw_spectrum(data: xr.Dataset, quiet: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax = axes[0, 0]
    few = data.sel(wavenumber=slice(0, 6))
    for part, alpha in ((0.4, 0.35), (0.7, 0.6), (1.0, 1.0)):
        row = few.isel(time=int(part * (few.sizes["time"] - 1)))
        ax.semilogy(few.wavenumber, row.spectrum_negative, MARKERS[0] + "-", color=COLOURS[0], alpha=alpha, label=f"Ωₑt = {row.time:.0f}")
        ax.semilogy(few.wavenumber, row.spectrum_positive, MARKERS[1] + ":", color=COLOURS[1], alpha=alpha)
        noise = quiet.spectrum_negative.sel(wavenumber=slice(0, LARGEST)).isel(time=-1)
        grown = noise * np.exp(row.linear_growth.sel(wavenumber=slice(0, LARGEST)))
        ax.semilogy(noise.wavenumber, grown, "--", color="black", lw=1, alpha=alpha, label="noise, grown linearly" if part == 1 else None)
    noise = quiet.sel(wavenumber=slice(0, 6)).isel(time=-1)
    ax.semilogy(noise.wavenumber, noise.spectrum_negative, color="#888888", lw=1, label="no force")
    label(ax, "k ρₑ", "|B_k|²", y_unit="B₀²", title="● whistlers' helicity, ■ the other")
    ax.legend(fontsize=7.5)
    ax = axes[0, 1]
    K = np.linspace(0.02, 3, 300)
    for drive, colour in zip((3.0, 10.0, 20.0), COLOURS, strict=False):
        ax.plot(K, growth_rate(jnp.asarray(K), drive, 0.0), color=colour, label=f"η β = {drive:g}")
    stilled = growth_rate(jnp.asarray(K), 10.0, -5.0)
    ax.plot(K, stilled, "--", color=COLOURS[1], label="η β = 10, Δ β = -5")
    ax.axhline(0, color="black", lw=0.8)
    ax.set_ylim(-2, 4.5)
    label(ax, "k ρₑ", "growth rate × β", y_unit="Ωₑ", title="linear theory")
    ax.legend(fontsize=7.5)
    return fig


def _draw_strips(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 3, sharey=True, panel=(3.6, 3.6))
    for ax, name in zip(axes[0], ("heat_along", "shear_across", "both_across"), strict=True):
        one = tree[name]
        size = float(np.abs(one.strip).max())
        image = ax.pcolormesh(one.x, one.time, one.strip, cmap="RdBu_r", vmin=-size, vmax=size, shading="nearest", rasterized=True)
        ax.grid(visible=False)
        label(ax, "x", "time", x_unit="ρₑ", y_unit="1/Ωₑ", title=_NAMES[name].replace(", ", ",\n"))
        ax.title.set_fontsize(8)
        fig.colorbar(image, ax=ax, label="B_z / B₀")
    return fig


def _draw_distribution(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 1, panel=(5.6, 3.2))
    ax = axes[0, 0]
    size = float(np.abs(data.change).max())
    image = ax.pcolormesh(data.along, data.across, data.change.T, cmap="RdBu_r", vmin=-size, vmax=size, shading="nearest", rasterized=True)
    ax.set_aspect("equal")
    ax.grid(visible=False)
    label(ax, "u along the gradient", "u across", x_unit="√(2θ)", y_unit="√(2θ)", title="f - f_M over f_M(0), at the end")
    fig.colorbar(image, ax=ax, shrink=0.8, label="change")
    return fig


def _draw_particles(motion: xr.Dataset, gas: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax = axes[0, 0]
    for i, scheme in enumerate(motion.scheme.values.tolist()):
        name, splitting = scheme.replace("_", "–").split(", ")
        title = f"{name}{'' if splitting == 'strang' else ', as an effective field'}"
        line = "-" if splitting == "strang" else "--"
        # The pushers' errors are nearly alike: smaller signs lie on larger ones.
        ax.loglog(motion.steps, motion.error[i], MARKERS[i // 2] + line, color=COLOURS[i // 2], ms=8 - i, label=title)
    log_ticks(ax, motion.steps)
    label(ax, "steps", "distance from the analytic motion", y_unit="m c")
    ax.legend(fontsize=7)
    ax = axes[0, 1]
    interval(ax, gas.eta, gas.heat_flux, name="gas without fields", marker="o")
    ax.plot(gas.eta, 1.25 * gas.eta, ":", color="black", label="(5/4) η")
    label(ax, "η = v_th t / L", "heat flux", y_unit="n T v_th")
    ax.legend(fontsize=7.5)
    return fig
