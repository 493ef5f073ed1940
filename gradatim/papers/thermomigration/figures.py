"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, interval, label, log_ticks

from .simulation import ramp


def draw(findings: Findings) -> dict[str, Figure]:
    """Profiles against theory, speeds against theory, areas of pairs, many particles in time, and their centre of mass."""
    tree = findings.data
    return {
        "profiles": _draw_bars(tree["bars"].to_dataset()),
        "velocities": _draw_velocities(tree["slabs"].to_dataset(), tree["discs"].to_dataset()),
        "pairs": _draw_pairs(tree["pairs"].to_dataset()),
        "many_particles": _draw_many(tree["many"].to_dataset()),
        "centre_of_mass": _draw_centre(tree["many"].to_dataset()),
    }


def _draw_bars(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2, sharey=True)
    for ax, solute, colour in zip(axes[0], ("carbon", "nitrogen"), COLOURS, strict=False):
        one = data.sel(solute=solute)
        for time in (0.05, 0.2, 0.6):
            row = one.sel(time=time, method="nearest")
            ax.plot(data.temperature, row.concentration, color=colour, alpha=0.35, lw=1)
            ax.annotate(
                f"{float(row.time):.2g} τ", (float(data.temperature[-1]), float(row.concentration[-1])), fontsize=7, color="#555555"
            )
        step = max(data.sizes["x"] // 24, 1)
        ax.plot(data.temperature, one.theory, color="black", lw=1, label="at rest, theory")
        ax.plot(data.temperature[::step], one.concentration[-1, ::step], MARKERS[0], color=colour, label="at rest, simulated")
        label(ax, "temperature", "composition over its mean", x_unit="K", title=f"{solute} in α iron")
        ax.margins(x=0.09)
        ax.legend()
    return fig


def _draw_velocities(slabs: xr.Dataset, discs: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax = axes[0, 0]
    names = [*dict.fromkeys(slabs.case.values.tolist())]
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        chosen = slabs.isel(run=np.flatnonzero(slabs.case.values == name))
        ax.plot(1e4 * chosen.theory, 1e4 * chosen.velocity, marker, color=colour, label=name, alpha=0.8)
    ax.plot(1e4 * discs.theory, 1e4 * discs.velocity, "*", color="black", ms=7, label="discs")
    ends = np.array([min(slabs.theory.min(), 0), max(slabs.theory.max(), discs.theory.max())]) * 1e4
    ax.plot(ends, ends, color="#888888", lw=0.8, zorder=0)
    label(ax, "speed in theory", "speed in the field", x_unit="10⁻⁴ dx/t", y_unit="10⁻⁴ dx/t", title="towards the hot side: positive")
    ax.legend(fontsize=7.5, ncols=2)
    ax = axes[0, 1]
    chosen = slabs.isel(run=np.flatnonzero(slabs.case.values == "reversal"))
    ax.plot(chosen.heat_difference, 1e4 * chosen.theory, color="#888888", label="theory")
    ax.plot(chosen.heat_difference, 1e4 * chosen.velocity, MARKERS[0], color=COLOURS[1], label="slab")
    ax.axhline(0, color="black", lw=0.8)
    label(ax, "Q* of the precipitate minus the matrix's", "speed", y_unit="10⁻⁴ dx/t", title="thermal against chemical drive")
    ax.legend()
    return fig


def _draw_pairs(data: xr.Dataset) -> Figure:
    fig, axes = figure(2, 2)
    gap = float(data.gap[0])
    chosen = data.isel(run=np.flatnonzero(data.gap.values == gap))
    steps = sorted({abs(float(g)) for g in chosen.gradient})
    for ax, particle in zip(axes[0], ("small", "large"), strict=True):
        for i in range(chosen.sizes["run"]):
            gradient = float(chosen.gradient[i])
            colour = "black" if gradient == 0 else COLOURS[steps.index(abs(gradient)) - 1]
            area = chosen.area.isel(run=i).sel(particle=particle)
            name = f"{1e3 * gradient:.1f}" if gradient >= 0 else None
            ax.plot(data.time, area / area[0], color=colour, ls="--" if gradient < 0 else "-", label=name)
        label(ax, "time", "area over its first value", x_unit="t", title=f"the {particle} particle")
    axes[0, 0].legend(title="G [10⁻³ T₀/dx]\ndashed: small one cold", fontsize=7.5, title_fontsize=7.5)
    ax = axes[1, 0]
    for i, (distance, colour, marker) in enumerate(zip(data.distance.values, COLOURS, MARKERS, strict=False)):
        runs = data.isel(run=np.flatnonzero((data.gap.values == distance) & (data.gradient.values >= 0)))
        late = (runs.area[-1] - runs.area[data.sizes["time"] // 2]).sel(particle="small") / runs.area[0].sel(particle="small")
        ax.plot(1e3 * runs.gradient, 100 * late, marker=marker, color=colour, label=f"gap {distance:g} dx")
        if np.isfinite(data.threshold[i]):
            ax.axvline(1e3 * float(data.threshold[i]), color=colour, lw=0.7, ls=":")
    ax.axhline(0, color="black", lw=0.8)
    label(ax, "gradient", "late growth of the small one", x_unit="10⁻³ T₀/dx", y_unit="%", title="ripening turns around")
    ax.legend()
    ax = axes[1, 1]
    ax.loglog(data.distance, 1e3 * data.threshold, MARKERS[0], color=COLOURS[0], label="measured")
    ax.loglog(data.distance, 1e3 * data.threshold_estimate, "--", color="#888888", label="(γ/Δc)(1/r - 1/R) / (|θ| gap)")
    log_ticks(ax, data.distance)
    ax.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
    ax.set_yticks([], minor=True)
    label(ax, "gap between the particles", "gradient of the turn", x_unit="dx", y_unit="10⁻³ T₀/dx", title="against the simple balance")
    ax.legend()
    return fig


def _draw_many(data: xr.Dataset) -> Figure:
    times = [int(abs(data.time.values - time).argmin()) for time in data.snapshot.values]
    nx, ny = data.sizes["x"], data.sizes["y"]
    fig, axes = figure(2, len(times), panel=(2.9, 2.9 * ny / nx + 0.55), sharex=True, sharey=True)
    image = None
    for row, gradient in enumerate(data.gradient.values):
        T = np.asarray(ramp(nx, float(gradient)))
        for column, (ax, i) in enumerate(zip(axes[row], times, strict=True)):
            image = ax.pcolormesh(data.x, data.y, data.concentration[column, row].T, vmin=0.1, vmax=0.9, cmap="cividis", rasterized=True)
            if gradient > 0:
                lines = ax.contour(data.x, data.y, np.broadcast_to(T, (ny, nx)), levels=5, colors="#D55E00", linewidths=0.8)
                ax.clabel(lines, fmt="%.2f T₀", fontsize=6)
            # How far the solute of the precipitates has come.
            for when, style in ((0, ":"), (i, "-")):
                ax.axvline(float(data.centre[when, row, 0]), color="white", lw=1, ls=style)
            label(ax, "x" if row else "", "" if column else "y", x_unit="dx" if row else "", y_unit="" if column else "dx")
            what = "no gradient" if gradient == 0 else f"G = {gradient:g}, hot →"
            ax.set_title(f"{what}, t = {float(data.time[i]):g}: {int(data.particles[i, row])} particles", fontsize=8)
            ax.set_aspect("equal")
            ax.grid(False)
    if image is not None:
        fig.colorbar(image, ax=axes, label="composition", shrink=0.8, pad=0.01)
    return fig


def _draw_centre(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    for row, (gradient, colour) in enumerate(zip(data.gradient.values, ("#000000", COLOURS[1]), strict=True)):
        moved = (data.centre[:, row] - data.centre[0, row]).values.T
        name = "no gradient" if gradient == 0 else f"G = {gradient:g} T₀/dx"
        interval(axes[0, 0], data.time.values, moved, name=name, colour=colour)
        axes[0, 1].plot(data.time, data.mean_radius[:, row], color=colour, label=name)
    label(axes[0, 0], "time", "shift of the centre of mass", x_unit="t", y_unit="dx", title="precipitates, towards the hot side")
    label(axes[0, 1], "time", "mean radius", x_unit="t", y_unit="dx", title="coarsening, first arrangement")
    axes[0, 0].legend()
    return fig
