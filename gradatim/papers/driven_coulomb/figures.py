"""The figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, interval, label
from gradatim.physics import electrolyte as el


def draw(findings: Findings) -> dict[str, Figure]:
    """Correlations, the field switched on, forces, ions, critical spectra and lives, and the critical field in time."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "structure_factors": _draw_structure(data["correlations"]),
        "correlations_in_space": _draw_space(data["correlations"]),
        "field_switched_on": _draw_switched(data["correlations"]),
        "plate_force": _draw_plates(data["plates"]),
        "settling": _draw_settling(data["settling"]),
        "ions": _draw_ions(data["ions"]),
        "ions_in_time": _draw_ions_in_time(data["ions"]),
        "critical_spectra": _draw_critical(data["line"], data["plane"]),
        "critical_field": _draw_field(data["plane"]),
        "burgers_in_time": _draw_line(data["line"]),
    }


def _clear(ax: Any) -> None:
    """No numbers at minor ticks, which run into each other on short logarithmic axes."""
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())


def _draw_structure(data: xr.Dataset) -> Figure:
    fields = data.field.values
    fig, axes = figure(2, len(fields), panel=(2.6, 2.5), sharex=True, sharey=True)
    image: Any = None
    for column, field in enumerate(fields):
        one = data.isel(field=column)
        for row, name in enumerate(("sampled", "theory")):
            ax = axes[row, column]
            values = one[name].where((abs(data.kx) + abs(data.ky)) > 0)
            image = ax.pcolormesh(data.kx, data.ky, values.T, vmin=0, vmax=1.1, cmap="cividis", rasterized=True)
            label(ax, "kₓ" if row else "", "" if column else "k_y", x_unit="κ" if row else "", y_unit="" if column else "κ")
            ax.set_title(f"{name}, E = {field:g}" if column == 0 else f"E = {field:g}", fontsize=9, loc="left")
            ax.grid(False)
    fig.colorbar(image, ax=axes, label="S_cc / 2C₀", shrink=0.8, pad=0.01)
    return fig


def _draw_space(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3)
    ax = axes[0, 0]
    for direction, colour, marker, sign in zip(("along", "across"), COLOURS, MARKERS, (1, -1), strict=False):
        one = data.sel(direction=direction)
        boxed = (sign * one.correlation_in_box).where(sign * one.correlation_in_box > 0)
        ax.loglog(data.r_box, boxed, marker, color=colour, ms=2.5, alpha=0.5, label=f"{direction}, in a periodic box")
        ax.loglog(data.r, sign * one.correlation_in_space, color=colour, label=f"{'' if sign > 0 else '-'}G {direction} the field")
        ax.loglog(data.r, sign * one.far_theory, color=colour, lw=0.8, ls="--")
    ax.set_ylim(bottom=float(abs(data.far_theory).min()) / 3, top=float(abs(data.far_theory).max()) * 10)
    label(ax, "distance", "|G_cc| / 2C₀", x_unit="1/κ", y_unit="κ³", title="density, d = 3; dashed: r⁻³ far away")
    ax.legend(fontsize=8)
    ax = axes[0, 1]
    for direction, colour in zip(("along", "across"), COLOURS, strict=False):
        one = data.sel(direction=direction)
        ax.loglog(data.r, -one.charge_in_space, color=colour, label=f"-G {direction} the field")
        ax.loglog(data.r, -one.far_charge_theory, color=colour, lw=0.8, ls="--")
    label(ax, "distance", "|G_ρρ| / 2C₀", x_unit="1/κ", y_unit="κ³", title="charge, d = 3; dashed: r⁻⁵ far away")
    ax.legend(fontsize=8)
    ax = axes[0, 2]
    for seed in range(data.sizes["seed"]):
        ax.loglog(data.driven, data.ratio[:, seed], MARKERS[0], color=COLOURS[0], label="smallest modes, sampled" if seed == 0 else None)
    fields = np.geomspace(float(data.driven.min()) / 1.5, float(data.driven.max()) * 1.5, 100)
    ax.loglog(fields, 1 / (1 + fields**2), color="black", lw=1, label="1/(1 + E²)")
    _clear(ax)
    label(ax, "field E", "S_cc along over across", x_unit="k_B T κ/Q", title="anisotropy as k → 0, d = 2")
    ax.legend(fontsize=8)
    return fig


def _draw_switched(data: xr.Dataset) -> Figure:
    n = data.sizes["time"]
    fig, axes = figure(1, n, panel=(2.5, 2.7), sharex=True, sharey=True)
    image: Any = None
    for i, ax in enumerate(axes[0]):
        image = ax.pcolormesh(data.strip[i].T, vmin=-2.5, vmax=2.5, cmap="RdBu_r", rasterized=True)
        label(ax, "x, along the field", "" if i else "y", x_unit="1/κ", y_unit="" if i else "1/κ")
        ax.set_title(f"t = {float(data.time[i]):g}/(Dκ²)", fontsize=9, loc="left")
        ax.set_aspect("equal")
        ax.grid(False)
    fig.colorbar(image, ax=axes, label="density, in its\nroot mean square at t = 0", shrink=0.75, pad=0.01)
    return fig


def _draw_settling(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax, other = axes[0]
    for mode, colour in zip(data.mode.values, COLOURS, strict=False):
        ax.semilogx(data.time[1:], data.structure.sel(mode=mode)[1:], color=colour, label=f"L k/2π = ({mode})")
    ax.axhline(1 / (1 + data.attrs["field"] ** 2), color="black", ls="--", lw=0.8, label="1/(1 + E²)")
    label(ax, "time after switching on", "S_cc", x_unit="1/(Dκ²)", y_unit="2C₀", title="long waves along and across the field")
    ax.legend(fontsize=8)
    for group in range(data.sizes["group"]):
        other.loglog(data.along, data.half_way[group], MARKERS[0], color=COLOURS[0], ms=3)
    guide = np.log(2) / (2 * (1 + data.attrs["field"] ** 2) * data.along**2)
    other.loglog(data.along, guide, "k--", lw=0.8, label="ln 2 / 2(1 + E²)k²")
    _clear(other)
    label(other, "wavenumber along the field", "time to come half of the way", x_unit="κ", y_unit="1/(Dκ²)", title="settling by diffusion")
    other.legend(fontsize=8)
    return fig


def _draw_plates(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3)
    for ax, dim in zip(axes[0], ("3d", "2d"), strict=False):
        cases = [case for case in data.case.values if case.startswith(dim)]
        for case, colour in zip(cases, COLOURS, strict=False):
            one = data.sel(case=case)
            ax.loglog(data.field, one.amplitude, color=colour, label=case[3:])
            ax.loglog(data.field[::6], one.amplitude_by_modes[::6], MARKERS[0], color=colour, ms=3)
        label(ax, "field E", "P Hᵈ", x_unit="k_B T κ/Q", y_unit="k_B T", title=f"d = {dim[0]}: repulsion; dots: mode sum")
        ax.legend(fontsize=8)
    ax = axes[0, 2]
    for field, colour in zip(data.transient_field.values, COLOURS, strict=False):
        ax.loglog(data.time, data.relaxation.sel(transient_field=field), color=colour, label=f"E = {field:g}")
    guide = 0.6 * float(data.relaxation[-1, 0]) * float(data.time[0]) / data.time
    ax.loglog(data.time, guide, "k--", lw=0.8, label="∝ 1/t")
    label(ax, "time after switching on", "P(t) - P(∞)", x_unit="H²/D", y_unit="k_B T/H³", title="settling, d = 3, insulating wall")
    ax.legend(fontsize=8)
    return fig


def _draw_ions(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax = axes[0, 0]
    position = np.arange(data.sizes["mode"])
    for part, colour, marker in zip(("density", "charge", "cross"), COLOURS, MARKERS, strict=False):
        ax.plot(position, data.theory.sel(part=part), "_", color=colour, ms=16, mew=2)
        ax.plot(position, data.structure.sel(part=part).T, marker, color=colour, ms=3.5, alpha=0.7)
        ax.plot([], [], marker, color=colour, label={"density": "S_cc", "charge": "S_ρρ", "cross": "Im S_cρ"}[part])
    ax.set_xticks(position, list(data.mode.values), fontsize=8)
    label(ax, "mode L k/2π, along and across", "structure factor", y_unit="2C₀", title="ions (dots) and linear theory (bars)")
    ax.legend(fontsize=8)
    ax = axes[0, 1]
    shown = data.isel(field=slice(1, None))
    ax.loglog(shown.field, shown.correction, color=COLOURS[0], label="Δ")
    ax.axhline((1 - np.sqrt(0.5)) / 3, color="#888888", lw=0.8, ls="--", label="Onsager, weak field")
    strong = shown.field.values > 1
    ax.loglog(shown.field[strong], 0.25 / shown.field[strong], color=COLOURS[1], lw=0.8, ls=":", label="Wien, 1/(4E)")
    label(ax, "field E", "conductivity lost", x_unit="k_B T κ/Q", y_unit="l_B κ", title="conductivity σ₀(1 - Δ)")
    ax.legend(fontsize=8)
    return fig


def _draw_ions_in_time(data: xr.Dataset) -> Figure:
    n = data.sizes["time"]
    fig, axes = figure(2, n, panel=(2.4, 2.5), sharex=True, sharey=True)
    for row, (what, colours) in enumerate((("density", "RdBu_r"), ("charge", "PuOr_r"))):
        values = data.strip.sel(what=what).values
        size = 2.5 * float(values[0].std())
        image: Any = None
        for i, ax in enumerate(axes[row]):
            image = ax.pcolormesh(values[i].T, vmin=-size, vmax=size, cmap=colours, rasterized=True)
            label(ax, "x, along the field" if row else "", "" if i else "y", x_unit="1/κ" if row else "", y_unit="" if i else "1/κ")
            if row == 0:
                ax.set_title(f"t = {float(data.time[i]):g}/(Dκ²)", fontsize=9, loc="left")
            ax.set_aspect("equal")
            ax.grid(False)
        name = "density - 2C₀" if what == "density" else "charge"
        fig.colorbar(image, ax=axes[row], label=f"{name} [2C₀]", shrink=0.85, pad=0.01)
    return fig


def _draw_critical(line: xr.Dataset, plane: xr.Dataset) -> Figure:
    fig, axes = figure(2, 3)
    for row, (data, dim, control) in enumerate(((line, 1, "no nonlinear term"), (plane, 2, "no nonlinear terms"))):
        exponents = el.critical_exponents(dim)
        ax = axes[row, 0]
        for arm, colour in zip(data.arm.values, COLOURS, strict=False):
            rows = data.structure.sel(arm=arm)
            ax.loglog(data.k, rows.mean("seed"), color=colour, label=arm)
            ax.fill_between(data.k, rows.min("seed"), rows.max("seed"), color=colour, alpha=0.2, linewidth=0)
        low = data.k.values[: max(len(data.k) // 4, 3)]
        start = float(data.structure.isel(arm=0).mean("seed")[1])
        ax.loglog(low, start * (low / float(data.k[1])) ** exponents.structure, "k--", lw=0.8, label=f"k^{exponents.structure:.2g}")
        _clear(ax)
        label(ax, "wavenumber", "S(k)", x_unit="1/dx", title=f"d = {dim}: structure factor")
        ax.legend(fontsize=8)
        ax = axes[row, 1]
        for arm, colour in zip((data.arm.values[0], control), COLOURS[:1] + COLOURS[len(data.arm) - 1 :], strict=False):
            ax.semilogx(data.k_between, data.local_slope.sel(arm=arm), color=colour, marker=".", label=arm)
        ax.axhline(exponents.structure, color="black", ls="--", lw=0.8)
        ax.set_ylim(-1, 2)
        _clear(ax)
        label(ax, "wavenumber", "d ln S / d ln k", x_unit="1/dx", title="local slope; dashed: (4 - d)/3")
        ax = axes[row, 2]
        for lived, colour in zip(data.lived.values, COLOURS[:1] + COLOURS[len(data.arm) - 1 :], strict=False):
            interval(ax, data.k_low.values, data.half_life.sel(lived=lived).values, name=str(lived), colour=colour, marker=".", is_log=True)
        first = data.half_life.sel(lived=data.lived.values[0]).mean("seed").values
        reference = int(np.flatnonzero(np.isfinite(first))[min(2, np.isfinite(first).sum() - 1)])
        guide = first[reference] * (data.k_low.values / float(data.k_low[reference])) ** -exponents.dynamic
        ax.plot(data.k_low, guide, "k--", lw=0.8, label=f"k^-{exponents.dynamic:.3g}")
        ax.set(xscale="log", yscale="log")
        _clear(ax)
        label(ax, "wavenumber", "half-life of modes", x_unit="1/dx", y_unit="dx²/D", title="z; linear: 2")
        ax.legend(fontsize=8)
    return fig


def _draw_field(data: xr.Dataset) -> Figure:
    n = data.sizes["time"]
    fig, axes = figure(2, n, panel=(2.4, 2.5), sharex=True, sharey=True)
    k = 2 * np.pi * np.fft.fftfreq(data.sizes["x"])
    smooth = np.exp(-2 * (k[:, None] ** 2 + k[None, :] ** 2))
    fields = {"density": np.fft.ifft2(smooth * np.fft.fft2(data.density.values)).real, "signal": data.signal.values}
    names = ("density, over 2 dx [1/dx²]", "signal φ [1]")
    for row, (name, values) in enumerate(zip(names, fields.values(), strict=True)):
        size = float(values[-1].std()) * 2.5
        image: Any = None
        for i, ax in enumerate(axes[row]):
            image = ax.pcolormesh(values[i].T, vmin=-size, vmax=size, cmap="RdBu_r" if row == 0 else "PuOr_r", rasterized=True)
            label(ax, "x" if row else "", "" if i else "y", x_unit="dx" if row else "", y_unit="" if i else "dx")
            if row == 0:
                ax.set_title(f"t = {float(data.time[i]):.3g} dx²/D", fontsize=9, loc="left")
            ax.set_aspect("equal")
            ax.grid(False)
        fig.colorbar(image, ax=axes[row], label=name, shrink=0.85, pad=0.01)
    return fig


def _draw_line(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 1, panel=(7.0, 3.4))
    ax = axes[0, 0]
    values = data.space_time.values
    # The slope u = ∂φ of the signal, ρ = -∂u, shows the shocks that ρ is full of.
    slope = -np.cumsum(values, axis=1) * float(data.x[1] - data.x[0])
    modes = np.fft.rfft(slope, axis=1)
    modes[:, 0] = 0
    modes[:, slope.shape[1] // 16 :] = 0
    slope = np.fft.irfft(modes, slope.shape[1], axis=1)
    size = 2.5 * float(slope[-1].std())
    image = ax.pcolormesh(data.look, data.x, slope.T, vmin=-size, vmax=size, cmap="RdBu_r", rasterized=True)
    ax.grid(False)
    label(ax, "time", "x", x_unit="dx²/D", y_unit="dx", title="d = 1: the signal's gradient u in Burgers's equation, long waves")
    fig.colorbar(image, ax=ax, label="u [1/dx]", pad=0.01)
    return fig
