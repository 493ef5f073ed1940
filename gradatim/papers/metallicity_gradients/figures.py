"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .judging import LINEAR, kept_by_the_beam, pulls_of

BLUE, ORANGE, GREEN, PINK = plots.COLOURS[:4]
NAMES = {"pp04-n2": "PP04", "m13-n2": "M13", "b18-n2": "B18", "pp04-n2-cubic": "PP04, cubic", "c20-n2": "C20"}
SIGNAL = 2.0
"Signal to noise of both lines from which a pixel's abundance is drawn."


def draw(findings: Findings) -> dict[str, Figure]:
    """Three galaxies, gradients against mass, the beam, pulls, rotation, calibrations, and the real spectrum."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "galaxies": _draw_galaxies(tree["maps"]),
        "population": _draw_population(tree["surveys"], tree["population"]),
        "beam": _draw_beam(tree["surveys"]),
        "coverage": _draw_coverage(tree["population"]),
        "rotation": _draw_rotation(tree["surveys"]),
        "calibrations": _draw_calibrations(tree["calibrations"]),
        "spectrum": _draw_spectrum(tree["spectrum"], tree["lines"]),
    }


def _draw_galaxies(maps: xr.Dataset) -> Figure:
    fig, axes = plots.figure(3, maps.sizes["galaxy"], panel=(4.0, 3.1))
    x = maps["x"].values
    half = abs(x[0]) + (x[1] - x[0]) / 2
    extent = (-half, half, -half, half)
    bright = (maps["signal"] > SIGNAL).all("line").values
    abundance = np.where(bright, maps["metallicity"].values, np.nan)
    low, high = np.nanpercentile(abundance, [5, 95]) if bright.any() else (8.0, 8.8)
    for i in range(maps.sizes["galaxy"]):
        one = maps.isel(galaxy=i)
        image = axes[0, i].imshow(abundance[i], origin="lower", extent=extent, vmin=low, vmax=high, cmap="cividis")
        fig.colorbar(image, ax=axes[0, i], label="12 + log(O/H)", shrink=0.8)
        title = f"simulated, log M = {float(one['log_mass']):.2f}"
        plots.label(axes[0, i], "x", "y", x_unit="arc seconds", y_unit="arc seconds", title=title)
        velocity = one["velocity"].values
        top = np.nanpercentile(np.abs(velocity), 98) if np.isfinite(velocity).any() else 1.0
        image = axes[1, i].imshow(velocity, origin="lower", extent=extent, vmin=-top, vmax=top, cmap="RdBu_r")
        fig.colorbar(image, ax=axes[1, i], label="velocity [km/s]", shrink=0.8)
        plots.label(axes[1, i], "x", "y", x_unit="arc seconds", y_unit="arc seconds")
        for ax in axes[:2, i]:
            ax.grid(False)
            ax.set(xlim=(-0.7 * half, 0.7 * half), ylim=(-0.7 * half, 0.7 * half))
        ax = axes[2, i]
        ax.errorbar(one["ring_radius"], one["ring_metallicity"], one["ring_error"], fmt="o", color=ORANGE, label="rings, beam left in")
        r = np.linspace(0, float(np.nanmax(one["ring_radius"])) * 1.05, 50)
        z0, g, error = (float(one[name]) for name in ("central_metallicity", "gradient", "gradient_error"))
        ax.plot(r, z0 + g * r, color=BLUE, label=f"fitted through the beam: {g:.3f} ± {error:.3f}")
        true_centre = 8.45 + 0.15 * (float(one["log_mass"]) - 10)
        ax.plot(r, true_centre + float(one["truth"]) * r, color="black", ls="--", lw=1, label=f"truth: {float(one['truth']):.3f} dex/kpc")
        ends = true_centre + float(one["truth"]) * r[[0, -1]]
        ax.set_ylim(ends.min() - 0.3, ends.max() + 0.25)
        ax.legend(fontsize=6.5, loc="lower left")
        plots.label(ax, "radius in the disc", "12 + log(O/H)", x_unit="kpc")
    return fig


def _draw_population(surveys: xr.Dataset, population: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.5))
    ax, other = axes[0]
    mass = population["measured_mass"].values[0]
    ax.errorbar(mass, surveys["gradient"].values[0], surveys["gradient_error"].values[0], fmt="o", color=BLUE, lw=0.8, label="one survey")
    grid = np.linspace(mass.min() - 0.1, mass.max() + 0.1, 50)
    a, b, s = population["surveys"].sel(quantile=0.5).values[0]
    line = a + b * (grid - 10)
    ax.plot(grid, line, color=BLUE)
    ax.fill_between(grid, line - s, line + s, color=BLUE, alpha=0.2, lw=0, label=f"fit and its scatter of {s:.3f}")
    true = population["truth"].values
    ax.plot(grid, true[0] + true[1] * (grid - 10), "k--", lw=1, label="truth")
    ax.axhline(0, color="#888888", lw=0.8)
    ax.legend(fontsize="x-small")
    plots.label(ax, "log stellar mass", "gradient", x_unit="solar masses", y_unit="dex/kpc", title="simulated galaxies")
    slopes = {
        "with a slope": (population["with_slope"], BLUE),
        "without": (population["without_slope"], ORANGE),
    }
    edges = np.linspace(-0.05, 0.05, 41)
    for name, (data, colour) in slopes.items():
        values = data.sel(parameter="slope", quantile=0.5).values
        other.hist(np.clip(values, *edges[[0, -1]]), edges, color=colour, alpha=0.5, density=True, label=f"population step alone, {name}")
    for i, value in enumerate(population["surveys"].sel(parameter="slope", quantile=0.5).values):
        other.axvline(value, 0, 0.12, color="black", lw=1.2, label="surveys from cubes" if i == 0 else None)
    other.axvline(true[1], color="black", ls="--", lw=1, label="truth")
    other.legend(fontsize="x-small")
    plots.label(other, "slope with mass", "density", x_unit="dex/kpc per dex")
    return fig


def _draw_beam(surveys: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.4))
    valid = surveys["is_valid"].values.astype(bool)
    true = surveys["truth"].values[valid]
    ends = np.array([true.min(), true.max()])
    rows = (("naive_gradient", "rings, beam left in", ORANGE), ("gradient", "fitted through the beam", BLUE))
    for ax, (name, words, colour) in zip(axes[0], rows, strict=False):
        error = surveys["naive_error" if name == "naive_gradient" else "gradient_error"].values[valid]
        ax.errorbar(true, surveys[name].values[valid], error, fmt=".", color=colour, alpha=0.5, lw=0.6)
        kept = kept_by_the_beam(surveys, name)
        ax.plot(ends, kept * ends, color=colour, label=f"{words}: keeps {kept:.2f}")
        ax.plot(ends, ends, "k--", lw=1, label="truth")
        ax.set_ylim(2.5 * ends[0], 2.5 * ends[1])
        ax.legend(fontsize="x-small")
        plots.label(ax, "true gradient", "found", x_unit="dex/kpc", y_unit="dex/kpc")
    ax = axes[0, 2]
    bins = np.linspace(-4.5, 4.5, 28)
    for naive, words, colour in ((True, "beam left in", ORANGE), (False, "through the beam", BLUE)):
        pulls = pulls_of(surveys, naive=naive)
        name = f"{words}: {pulls.mean():.2f} ± {pulls.std(ddof=1):.2f}"
        ax.hist(np.clip(pulls, bins[0], bins[-1]), bins, density=True, color=colour, alpha=0.5, label=name)
    ax.plot(bins, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), "k--", lw=1, label="honest errors")
    ax.legend(fontsize="x-small")
    plots.label(ax, "(found - true) / error", "density")
    return fig


def _draw_coverage(population: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.6, 3.2))
    data, truth = population["with_slope"], population["truth"].values
    units = {"intercept": "dex/kpc", "slope": "dex/kpc per dex", "scatter": "dex/kpc"}
    for ax, name, true in zip(axes[0], population["parameter"].values, truth, strict=True):
        rows = data.sel(parameter=name).values
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), 60)).astype(int)]
        rows = rows[np.argsort(rows[:, 1])]
        holds = (rows[:, 0] <= true) & (true <= rows[:, 2])
        for inside, colour, words in ((True, BLUE, "hold the truth"), (False, ORANGE, "do not")):
            where = np.flatnonzero(holds == inside)
            ax.vlines(where, rows[where, 0], rows[where, 2], color=colour, lw=1.5, label=words)
        ax.axhline(true, color="black", ls="--", lw=1)
        low, high = data.sel(parameter=name, quantile=0.16).values, data.sel(parameter=name, quantile=0.84).values
        share = ((low <= true) & (true <= high)).mean()
        plots.label(ax, "repeat, sorted", str(name), y_unit=units[str(name)], title=f"68 % intervals: {100 * share:.0f} % hold it")
    axes[0, 0].legend(fontsize="x-small")
    return fig


def _draw_rotation(surveys: xr.Dataset) -> Figure:
    fig, ((ax, other),) = plots.figure(1, 2, panel=(4.2, 3.4))
    ratio, gradient = surveys["rotation_over_dispersion"].values, surveys["gradient"].values
    mass = np.broadcast_to(surveys["log_mass"].values, gradient.shape)
    image = ax.scatter(ratio, gradient, c=mass, s=10, cmap="cividis")
    fig.colorbar(image, ax=ax, label="log stellar mass [solar masses]")
    plots.label(ax, "rotation over dispersion at 1.5 effective radii", "gradient", y_unit="dex/kpc", title="all simulated surveys")
    each = [np.corrcoef(g, v)[0, 1] for g, v in zip(gradient, ratio, strict=True)]
    other.plot(each, "o", color=BLUE, label="simulated surveys")
    other.axhline(np.mean(each), color=BLUE, label=f"their mean, {np.mean(each):.2f}")
    other.axhline(-0.43, color=ORANGE, ls="--", label="of the companion study, 21 galaxies")
    other.axhline(0, color="#888888", lw=0.8)
    other.set_ylim(min(-0.75, min(each) - 0.05), max(each) + 0.4)
    other.legend(fontsize="x-small", loc="upper left")
    other.xaxis.get_major_locator().set_params(integer=True)
    plots.label(other, "survey", "correlation of gradient with it")
    return fig


def _draw_calibrations(data: xr.Dataset) -> Figure:
    fig, ((ax, other),) = plots.figure(1, 2, panel=(4.4, 3.4))
    first = data["naive"].sel(calibration="pp04-n2").values
    order = np.argsort(first)
    for (name, words), colour, marker in zip(NAMES.items(), plots.COLOURS, plots.MARKERS, strict=False):
        values = data["naive"].sel(calibration=name).values
        ax.plot(first[order], values[order], marker=marker, ls="", color=colour, label=words)
        if name in LINEAR:
            ax.plot(first[order], first[order] * LINEAR[name] / LINEAR["pp04-n2"], color=colour, lw=0.8)
    ax.legend(fontsize="x-small")
    plots.label(ax, "gradient by PP04", "by another calibration", x_unit="dex/kpc", y_unit="dex/kpc", title="the same noiseless maps")
    mass = data["log_mass"].values
    slopes = [np.polyfit(mass, data["naive"].sel(calibration=name).values, 1)[0] for name in NAMES]
    other.bar(range(len(slopes)), slopes, color=BLUE)
    other.set_xticks(range(len(slopes)), list(NAMES.values()), fontsize=7)
    other.axhline(0, color="black", lw=0.8)
    plots.label(other, "calibration", "slope of gradient with mass", y_unit="dex/kpc per dex")
    return fig


def _draw_spectrum(spectrum: xr.Dataset, lines: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.0, 3.3))
    for ax, name in zip(axes[0], spectrum["complex"].values, strict=False):
        one = spectrum.sel(complex=name)
        ax.step(one["wavelength"], one["observed"], where="mid", color="black", lw=0.9, label="SDSS spectrum of SHOC 579")
        ax.step(one["wavelength"], one["model"], where="mid", color=ORANGE, lw=1, label="fit of Gaussians")
        ax.set_yscale("symlog", linthresh=20)
        plots.label(ax, "wavelength in vacuum", "flux density", x_unit="Å", y_unit="10⁻¹⁷ erg/s/cm²/Å", title=f"{name} and neighbours")
    axes[0, 0].legend(fontsize="x-small")
    ax = axes[0, 2]
    image = ax.pcolormesh(lines["abundance"], lines["dust"], lines["density"].values.T, cmap="cividis")
    fig.colorbar(image, ax=ax, label="probability")
    ax.set(xlim=(8.0, 8.6), ylim=(0.3, 1.0))
    ax.grid(False)
    plots.label(ax, "12 + log(O/H)", "attenuation A_V", y_unit="mag", title="from its four lines")
    return fig
