"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, label

WAY_COLOURS = {"implicit": COLOURS[0], "unrolled": COLOURS[1]}


def draw(findings: Findings) -> dict[str, Figure]:
    """Jacobians along a descent, all kinds of conditions, memory and time, ten images, codes, soft discs."""
    tree = findings.data
    return {
        "jacobians": _draw_ridge(tree["ridge"].to_dataset()),
        "conditions": _draw_mappings(tree["mappings"].to_dataset()),
        "costs": _draw_costs(tree["machine"].to_dataset()),
        "distillation": _draw_distillation(tree["distillation"].to_dataset(), tree["distillation_times"].to_dataset()),
        "dictionary": _draw_dictionary(tree["dictionary"].to_dataset()),
        "spheres": _draw_spheres(tree["spheres"].to_dataset()),
    }


def _draw_ridge(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    names = {"bound": "bound of theorem 1", "implicit": "implicit", "unrolled": "unrolled", "one_step": "one step"}
    colours = {"bound": "black", "implicit": COLOURS[0], "unrolled": COLOURS[1], "one_step": COLOURS[2]}
    for name, text in names.items():
        style = {"color": colours[name], "ls": "--" if name == "bound" else "-", "label": text}
        axes[0, 0].loglog(data.iterate[1:], data[name][1:], **style)
        axes[0, 1].semilogy(data.step[1:], data[name][1:], **style)
    label(axes[0, 0], "error of the iterate", "error of the Jacobian", title="ridge regression, diabetes data")
    label(axes[0, 1], "gradient steps", "error of the Jacobian", title="operator norm")
    axes[0, 0].legend()
    return fig


def _draw_mappings(data: xr.Dataset) -> Figure:
    order = np.argsort(data.error.values)
    fig, axes = figure(1, 1, panel=(6.2, 3.4))
    ax = axes[0, 0]
    ax.set_xscale("log")
    rows = np.arange(len(order))
    ax.hlines(rows, 1e-17, data.error.values[order], color=COLOURS[0], alpha=0.4)
    ax.plot(data.error.values[order], rows, MARKERS[0], color=COLOURS[0])
    ax.axvline(1e-4, color=COLOURS[1], ls="--", lw=1)
    ax.annotate("criterion", (1e-4, rows[-1]), xytext=(-4, 0), textcoords="offset points", ha="right", fontsize=8, color=COLOURS[1])
    ax.set_yticks(rows, data.mapping.values[order])
    label(ax, "relative error of the Jacobian against its closed form", "", title="kinds of conditions")
    return fig


def _draw_costs(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3, panel=(3.9, 3.2))
    ax = axes[0, 0]
    for i, solver in enumerate(data.descent.values):
        for way, colour in WAY_COLOURS.items():
            values = data.memory.sel(descent=solver, way=way) / 2**20
            ax.loglog(data.steps, values, MARKERS[i], ls="-" if i == 0 else ":", color=colour, label=f"{solver}, {way}")
    label(ax, "inner steps", "peak memory", y_unit="MiB", title=f"{int(data.features[-1])} features")
    ax.legend(fontsize=7)
    ax = axes[0, 1]
    for i, solver in enumerate(data.solver.values):
        for way, colour in WAY_COLOURS.items():
            values = data.seconds.sel(solver=solver, way=way).median("build")
            ax.loglog(data.features, values, MARKERS[i], ls="-" if way == "implicit" else "--", color=colour, label=f"{solver}, {way}")
    label(ax, "features", "time of a hypergradient", y_unit="s", title="support-vector machine")
    handles = ax.get_legend_handles_labels()
    ax = axes[0, 2]
    for i, solver in enumerate(data.solver.values):
        for way, colour in WAY_COLOURS.items():
            values = np.maximum(data.hypergradient_error.sel(solver=solver, way=way), 1e-16)
            ax.loglog(data.features, values, MARKERS[i], ls="-" if way == "implicit" else "--", color=colour)
    label(ax, "features", "error of that hypergradient", title="relative to the converged one")
    ax.legend(*handles, fontsize=6.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _draw_distillation(data: xr.Dataset, times: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3, panel=(3.9, 3.2))
    pixels = data.images.sel(way="implicit").values
    side = int(np.sqrt(pixels.shape[1]))
    tiles = pixels.reshape(2, 5, side, side)
    tiles = np.pad(tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    ax = axes[0, 0]
    bound = np.abs(pixels).max()
    ax.imshow(tiles.transpose(0, 2, 1, 3).reshape(2 * (side + 2), -1), cmap="RdBu_r", vmin=-bound, vmax=bound)
    for i in range(10):
        ax.annotate(str(i), ((i % 5) * (side + 2) + 0.2, (i // 5) * (side + 2) + 1.2), fontsize=7, color="black")
    ax.set_axis_off()
    best = {way: int(np.argmin(data.loss.sel(way=way)[-1].mean("seed").values)) for way in WAY_COLOURS}
    accuracy = float(data.accuracy.sel(way="implicit")[best["implicit"]].mean())
    ax.set_title(f"ten images that train to {100 * accuracy:.0f} %", loc="left")
    ax = axes[0, 1]
    for way, colour in WAY_COLOURS.items():
        chosen = data.loss.sel(way=way).isel(rate=best[way])
        ax.plot(
            data.step, chosen.mean("seed"), color=colour, ls="-" if way == "implicit" else "--", label=f"{way}, rate {float(chosen.rate):g}"
        )
    label(ax, "outer steps", "loss of all training digits", y_unit="nat", title="mean over seeds")
    ax.legend()
    ax = axes[0, 2]
    for way, colour in WAY_COLOURS.items():
        ax.loglog(times.inner_steps, times.seconds.sel(way=way).median("repeat"), MARKERS[0], ls="-", color=colour, label=way)
    ax.axvline(float(times.asked[0]), color="black", lw=0.8, ls=":", label="asked for by the tolerance")
    label(ax, "inner steps", "time of one outer gradient", y_unit="s")
    ax.legend(fontsize=7.5)
    return fig


def _draw_dictionary(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 1, panel=(5.4, 3.3))
    ax = axes[0, 0]
    places = np.arange(data.sizes["arm"])
    for split in range(data.sizes["split"]):
        ax.plot(places, data.area.isel(split=split), color="#bbbbbb", lw=0.8, zorder=1)
    for place, colour, arm in zip(places, COLOURS, data.arm.values, strict=False):
        values = data.area.sel(arm=arm)
        ax.plot(np.full(values.size, place), values, "o", color=colour, alpha=0.6)
        ax.hlines(values.mean(), place - 0.25, place + 0.25, color=colour, lw=2.5)
    ax.set_xticks(places, data.arm.values)
    label(ax, "", "area under the curve", y_unit="points", title="a line for each split, bars for means")
    return fig


def _draw_spheres(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3, panel=(3.9, 3.6))
    side, position = float(data.side), data.position[0].values
    titles = {"implicit": "implicit", "unrolled": f"unrolled, {int(data.look[0])} steps"}
    for ax, way in zip(axes[0, :2], ("implicit", "unrolled"), strict=True):
        for shift in np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1).reshape(-1, 2) * side:
            size = data.diameter.values
            discs = EllipseCollection(
                size, size, np.zeros(size.size), units="xy", offsets=position + shift, offset_transform=ax.transData,
                facecolor=np.where((size < 1)[:, None], [[0.85, 0.93, 0.98, 1.0]], [[0.95, 0.95, 0.95, 1.0]]), edgecolor="#999999", lw=0.6,
            )  # fmt: skip
            ax.add_collection(discs)
        arrows = (data.implicit if way == "implicit" else data.unrolled.isel(look=0))[0].values
        # Long enough to be seen, whatever the size.
        length = np.linalg.norm(arrows, axis=1)
        scale = 1.2 / max(float(np.quantile(length, 0.95)), 1e-12)
        ax.quiver(
            position[:, 0], position[:, 1], *(scale * arrows.T), color=WAY_COLOURS[way], angles="xy", scale_units="xy", scale=1, width=0.008
        )
        ax.set(xlim=(0, side), ylim=(0, side), aspect="equal")
        ax.grid(False)
        label(ax, "x", "y", x_unit="diameters", y_unit="diameters", title=f"{titles[way]}: up to {length.max():.2g} per θ")
    ax = axes[0, 2]
    for name, text in (("implicit_error", "implicit"), ("unrolled_error", "unrolled")):
        colour = WAY_COLOURS[text]
        ax.semilogy(data.look, data[name].T, color=colour, lw=0.7, alpha=0.5)
        ax.semilogy(data.look, data[name].median("packing"), MARKERS[0], ls="-", color=colour, label=f"{text}, median")
    ax.axhline(1e-2, color="black", lw=0.8, ls=":", label="not converged above, at the last step")
    label(ax, "steps of FIRE", "error against central differences", title="relative, a line for each packing")
    ax.legend(fontsize=7.5)
    return fig
