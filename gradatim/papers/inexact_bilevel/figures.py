"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, label

from .penalties import RULES


def draw(findings: Findings) -> dict[str, Figure]:
    """Gap and accuracies along the work, penalties by five rules, the landscape of two parameters, denoised pieces."""
    tree = findings.data
    return {
        "quadratic": _draw_quadratic(tree["quadratic"].to_dataset().isel(draw=0)),
        "well": _draw_well(tree["well"].to_dataset()),
        "penalties": _draw_penalties(tree["penalties"].to_dataset()),
        "landscape": _draw_landscape(tree["landscape"].to_dataset(), tree["denoising"].to_dataset()),
        "denoised": _draw_denoised(tree["denoising"].to_dataset()),
    }


def _draw_quadratic(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3, panel=(3.9, 3.2))
    for i, accuracy in enumerate(data.accuracy.values):
        for way, line in (("adaptive", "-"), ("fixed", "--")):
            one = data.sel(way=way, accuracy=accuracy)
            name = f"first accuracy {accuracy:g}" if way == "adaptive" else f"fixed at {accuracy:g}"
            axes[0, 0].loglog(data.work, one["gap"], line, color=COLOURS[i], label=name)
            if way == "adaptive":
                axes[0, 1].loglog(data.work, one["present_accuracy"], color=COLOURS[i])
                axes[0, 2].loglog(data.work, one["bound_over_gradient"], color=COLOURS[i])
                axes[0, 2].loglog(data.work, one["error_over_bound"] * one["bound_over_gradient"], ":", color=COLOURS[i])
    axes[0, 2].plot([], [], color="grey", label="bound")
    axes[0, 2].plot([], [], ":", color="grey", label="true error")
    axes[0, 2].axhline(0.5, color="black", lw=0.8, ls="--", label="allowed")
    label(axes[0, 0], "lower gradients and products", "gap to the least loss", title="first of the quadratics")
    label(axes[0, 1], "lower gradients and products", "accuracy of the lower solution", title="found by itself")
    label(axes[0, 2], "lower gradients and products", "over the gradient's norm", title="error of the hypergradient")
    axes[0, 0].legend(fontsize=7)
    axes[0, 2].legend(fontsize=7.5)
    return fig


def _draw_well(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2, panel=(4.4, 3.2))
    places = np.arange(data.sizes["arm"])
    colours = [COLOURS[0] if str(arm).startswith("adaptive") else COLOURS[1] for arm in data.arm.values]
    for name, ax in (("lower_gradients", axes[0, 0]), ("final_slope", axes[0, 1])):
        for place, colour in zip(places, colours, strict=True):
            ax.semilogy(np.full(data.sizes["draw"], place), data[name].isel(arm=place), MARKERS[0], color=colour, alpha=0.7)
        ax.set_xticks(places, data.arm.values, rotation=30, ha="right")
    label(axes[0, 0], "", "lower gradients", title="well-conditioned quadratics, each draw a point")
    label(axes[0, 1], "", "true gradient at the end")
    return fig


def _draw_penalties(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3, panel=(3.9, 3.2))
    for i, arm in enumerate(map(str, data.arm.values)):
        rule, _, certified = arm.partition(", ")
        colour, line = COLOURS[i % len(RULES)], "--" if certified else "-"
        one = data.sel(arm=arm)
        for ax, name in ((axes[0, 0], "loss"), (axes[0, 1], "untouched_loss"), (axes[0, 2], "accuracy")):
            values = one[name].mean("shuffle")
            ax.loglog(data.work, values, line, marker=MARKERS[0], ms=3, color=colour, label=rule if not certified else None)
    axes[0, 0].plot([], [], "--", color="grey", label="certified")
    for ax, title in zip(axes[0, :2], ("validation digits", "untouched digits"), strict=True):
        label(ax, "lower gradients and products", "cross-entropy", y_unit="nat", title=title)
    label(axes[0, 2], "lower gradients and products", "accuracy of the lower solution", title="mean over shuffles")
    axes[0, 2].legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _draw_landscape(data: xr.Dataset, denoising: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2, panel=(4.6, 3.4))
    ax = axes[0, 0]
    levels = np.linspace(float(data.psnr.min()), float(data.psnr.max()), 12)
    image = ax.contourf(data.weight, data.rounding, data.psnr.T, levels=levels)
    fig.colorbar(image, ax=ax, label="training images [dB]", format="%.1f")
    ax.plot(data.path[:, 0], data.path[:, 1], "-", marker=MARKERS[0], ms=2, color="white", lw=1)
    ax.plot(*data.path[-1].values, MARKERS[7], color=COLOURS[1], ms=10)
    label(ax, "log of the weight, 2w", "log of the rounding, ν", title="total variation")
    ax = axes[0, 1]
    places = np.arange(denoising.sizes["arm"])
    for repeat in range(denoising.sizes["repeat"]):
        ax.plot(places, denoising.unseen_psnr.isel(repeat=repeat), "-", marker=MARKERS[0], color="#bbbbbb", lw=0.8)
    ax.plot(places, denoising.unseen_psnr.mean("repeat"), "_", ms=16, mew=2.5, color=COLOURS[0], label="total variation")
    ax.axhline(float(denoising.experts_psnr.mean()), color=COLOURS[2], ls="--", lw=1.2, label="field of experts")
    ax.axhline(float(denoising.noisy_psnr.mean()), color="black", ls=":", lw=1.2, label="noisy")
    ax.set_xticks(places, denoising.arm.values, rotation=30, ha="right")
    label(ax, "", "unseen pieces", y_unit="dB", title="equal work; a line for each repeat")
    ax.legend(fontsize=7.5)
    return fig


def _draw_denoised(data: xr.Dataset) -> Figure:
    pieces = min(data.sizes["piece"], 3)
    fig, axes = figure(pieces, data.sizes["kind"], panel=(1.9, 2.05))
    for row in range(pieces):
        clean = data.image.sel(kind="clean")[row].values
        for ax, kind in zip(axes[row], data.kind.values, strict=True):
            shown = data.image.sel(kind=kind)[row].values
            ax.imshow(shown, cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()
            error = np.mean((shown - clean) ** 2)
            ax.set_title(kind if kind == "clean" else f"{kind}, {-10 * np.log10(error):.1f} dB", fontsize=7.5)
    return fig
