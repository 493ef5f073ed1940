"""The figures; those of surfaces and deformations are in files of their own."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .surface_figures import draw_deformations, draw_directions, draw_surfaces

GREY = "#666666"
ROUND_OFF = 2.2e-16
"Of double precision; errors of exactly zero are drawn there."


def draw(findings: Findings) -> dict[str, Figure]:
    """The table of symmetries, expressivity, dimensions, and what was trained in this run."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    drawn = {
        "symmetry": lambda: draw_symmetry(tree["symmetry"]),
        "expressivity": lambda: draw_expressivity(tree["expressivity"]),
        "curse": lambda: draw_curse(tree["curse"]),
        "samples": lambda: draw_samples(tree["samples"]),
        "memory": lambda: draw_sequences(tree["memory"], tree["warping"]),
        "homophily": lambda: draw_homophily(tree["homophily"]),
        "directions": lambda: draw_directions(tree["directions"]),
    }
    figures = {name: make() for name, make in drawn.items() if name in tree}
    return figures | draw_surfaces(tree["surfaces"]) | draw_deformations(tree["deformations"])


def draw_symmetry(table: xr.Dataset) -> Figure:
    """Errors of every row of the table, whole and broken, and the counts of generators."""
    fig, axes = plots.figure(1, 2, panel=(5.2, 4.4))
    ax = axes[0, 0]
    rows = table["row"].values.tolist()
    places = np.arange(len(rows))
    for name, colour, marker, word in (
        ("error", plots.COLOURS[0], "o", "as it should be"),
        ("broken_error", plots.COLOURS[1], "s", "broken on purpose"),
    ):
        ax.semilogx(np.maximum(table[name].values, ROUND_OFF), places, marker, color=colour, label=word)
    groups = table["symmetry"].values.tolist()
    words = [row if row.endswith(group) else f"{row}, {group}" for row, group in zip(rows, groups, strict=True)]
    ax.set_yticks(places, words, fontsize=7)
    ax.invert_yaxis()
    ax.axvline(1e-5, color=GREY, ls=":", lw=1)
    ax.axvline(1e-2, color=GREY, ls=":", lw=1)
    ax.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    plots.label(ax, "largest relative error over all elements", "layer and its symmetry")
    ax = axes[0, 1]
    counts = table["generators"]
    for maps, colour, marker in zip(counts["maps"].values.tolist(), plots.COLOURS, plots.MARKERS, strict=False):
        ax.plot(counts["elements"].values, counts.sel(maps=maps).values, color=colour, marker=marker, label=maps)
    ax.set_xticks(counts["elements"].values)
    ax.set_ylim(0, 16.5)
    ax.legend(fontsize=8, loc="center right")
    plots.label(ax, "elements", "linear maps that respect permutations")
    return fig


def draw_expressivity(data: xr.Dataset) -> Figure:
    """How different the embeddings of each pair are, by network, and those of multisets of one mean."""
    fig, axes = plots.figure(1, 2, panel=(5.2, 3.6))
    ax = axes[0, 0]
    names, pairs = data["network"].values.tolist(), data["pair"].values.tolist()
    for i, (name, colour, marker) in enumerate(zip(names, plots.COLOURS, plots.MARKERS, strict=False)):
        values = np.maximum(data["difference"].sel(network=name).values, ROUND_OFF)
        for j in range(len(pairs)):
            shift = 0.13 * (i - (len(names) - 1) / 2)
            ax.semilogy([j + shift] * len(values), values[:, j], marker, color=colour, label=name if j == 0 else None)
    ax.axhline(1e-5, color=GREY, ls=":", lw=1)
    ax.set_xticks(range(len(pairs)), [pair.replace(", ", ",\n") for pair in pairs], fontsize=7.5)
    ax.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    plots.label(ax, "pair that colour refinement confuses", "relative difference of embeddings")
    ax = axes[0, 1]
    sums, means = data["sum_difference"].values, np.maximum(data["mean_difference"].values, ROUND_OFF)
    for values, colour, marker, word in ((sums, plots.COLOURS[2], "o", "sum"), (means, plots.COLOURS[3], "s", "mean")):
        for j in range(len(values)):
            ax.semilogy([j] * len(values[j]), values[j], marker, color=colour, label=word if j == 0 else None)
    ax.set_xticks(range(2), ["{1, 1} and {1}", "{1, 2} and {1, 1, 2, 2}"])
    ax.set_xlim(-0.5, 1.5)
    ax.legend(fontsize=8, loc="center")
    plots.label(ax, "multisets with one mean", "relative difference of embeddings")
    return fig


def draw_curse(data: xr.Dataset) -> Figure:
    """The nearest neighbour's error over examples, and what the symmetries of the square save."""
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.4))
    ax = axes[0, 0]
    examples = data["examples"].values
    for dim, colour, marker in zip(data["dimension"].values.tolist(), plots.COLOURS, plots.MARKERS, strict=False):
        values = data["error"].sel(dimension=dim).values
        slope = float(data["slope"].sel(dimension=dim).mean())
        plots.interval(ax, examples, values, name=f"{dim} dimensions, power {slope:.2f}", colour=colour, marker=marker)
        ax.plot(examples, values[:, 0].mean() * (examples / examples[0]) ** (-1 / dim), color=colour, ls=":", lw=1)
    ax.set(xscale="log", yscale="log")
    ax.legend(fontsize=8)
    plots.label(ax, "examples", "mean error of the nearest neighbour", title="dotted: power -1/dimension")
    ax = axes[0, 1]
    sizes = data["symmetric_examples"].values
    plots.interval(ax, sizes, data["saving"].values, colour=plots.COLOURS[2], marker="o")
    ax.axhline(1, color=GREY, ls="--", lw=1)
    ax.set_xscale("log", base=2)
    ax.set_ylim(bottom=0)
    plots.label(ax, "examples with symmetry", "examples saved over the group's order of 8")
    return fig


def draw_samples(data: xr.Dataset) -> Figure:
    """Accuracy over examples, what is left of the loss on them, and the choice of rates."""
    fig, axes = plots.figure(1, 3, panel=(4.2, 3.6))
    ax = axes[0, 0]
    names = data["network"].values.tolist()
    for name, colour, marker in zip(names, plots.COLOURS, plots.MARKERS, strict=False):
        plots.interval(ax, data["images"].values, data["accuracy"].sel(network=name).values.T, name=name, colour=colour, marker=marker)
    ax.set_xscale("log")
    ax.legend(fontsize=8)
    plots.label(ax, "training images", "accuracy on turned images", y_unit="%")
    ax = axes[0, 1]
    for name, colour, marker in zip(names, plots.COLOURS, plots.MARKERS, strict=False):
        values = data["training_loss"].sel(network=name).values.T
        plots.interval(ax, data["images"].values, values, name=name, colour=colour, marker=marker, is_log=True)
    ax.set(xscale="log", yscale="log")
    plots.label(ax, "training images", "loss on them after training", y_unit="nat")
    ax = axes[0, 2]
    for name, colour, marker in zip(names, plots.COLOURS, plots.MARKERS, strict=False):
        worst = data["accuracy_by_rate"].sel(network=name).min("pilot").values
        ax.semilogx(data["rate"].values, worst, color=colour, marker=marker, label=name)
    plots.label(ax, "learning rate", "accuracy on held-out images", y_unit="%", title="choice of rates: worst pilot")
    return fig


def draw_sequences(memory: xr.Dataset, warping: xr.Dataset) -> Figure:
    """Loss of the repetition over training, and of slowed sequences."""
    fig, axes = plots.figure(1, 2, panel=(4.8, 3.6))
    ax = axes[0, 0]
    baseline = memory.attrs["baseline"]
    for cell, colour in zip(memory["cell"].values.tolist(), plots.COLOURS, strict=False):
        values = memory["history"].sel(cell=cell).values[1:].T
        plots.interval(ax, memory["step"].values[1:], values / baseline, name=cell, colour=colour)
    ax.axhline(1, color=GREY, ls="--", lw=1, label="best without memory")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)
    plots.label(ax, "step", "loss of a batch over that without memory", title="symbols repeated after a long time")
    ax = axes[0, 1]
    kinds = warping["judged"].values.tolist()
    for losses in warping["loss"].values:
        ax.semilogy(range(len(kinds)), losses, color=GREY, lw=0.8, marker="o", ms=4)
    ax.semilogy(range(len(kinds)), np.exp(np.log(warping["loss"].values).mean(axis=0)), color=plots.COLOURS[0], marker="s", lw=2)
    ax.set_xticks(range(len(kinds)), kinds)
    plots.label(ax, "speed and gates", "loss", y_unit="nat", title="which event came first")
    return fig


def draw_homophily(data: xr.Dataset) -> Figure:
    """Accuracy over homophily, and what a layer costs."""
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.4))
    ax = axes[0, 0]
    names = data["layer"].values.tolist()
    for name, colour, marker in zip(names, plots.COLOURS, plots.MARKERS, strict=False):
        plots.interval(ax, data["homophily"].values, data["accuracy"].sel(layer=name).values, name=name, colour=colour, marker=marker)
    ax.legend(fontsize=8)
    plots.label(ax, "share of edges within a class", "accuracy on new graphs", y_unit="%")
    ax = axes[0, 1]
    ax.bar(range(len(names)), data["operations"].values / 1e6, color=plots.COLOURS[: len(names)])
    ax.set_xticks(range(len(names)), names)
    plots.label(ax, "two layers of", "operations a graph", y_unit="10⁶")
    return fig
