"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradatim.lab import Findings, plots

from .judging import regret_curves
from .searches import ARMS, OURS, UNIFORM, UNSHARED
from .table import Table

COLOUR = {name: plots.COLOURS[i] for i, name in enumerate((OURS, UNIFORM, "softmax", "sparsemax", "Gumbel", UNSHARED))}
GREY = "#888888"


def draw(findings: Findings) -> dict[str, Figure]:
    """How searches decide, what supernets cost, language models; with a table, regret over time and what inherited weights tell."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    figures = {
        "entropy": _draw_entropy(tree["searches"]),
        "costs": _draw_costs(tree["costs"]),
        "inherited": _draw_inherited(tree),
        "language": _draw_language(tree["language"]),
    }
    if "table" in tree:
        figures |= {"regret": _draw_regret(tree), "architectures": _draw_architectures(tree)}
    return figures


def _draw_regret(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.8, 3.5))
    curves = regret_curves(tree)
    end = max(times[-1] for times, _ in curves.values())
    grid = np.linspace(0, end, 300)
    ax = axes[0, 0]
    looks = dict(zip(curves, (COLOUR[OURS], COLOUR[UNIFORM], plots.COLOURS[4]), strict=True))
    for name, (times, values) in curves.items():
        at = np.maximum(np.searchsorted(times, grid, side="right") - 1, 0)
        plots.interval(ax, grid, values[:, at], name=name, colour=looks[name])
    ax.legend(fontsize=8)
    plots.label(ax, "time", "below the best of the table", x_unit="s", y_unit="points", title="current answer, alone on the machine")
    ax = axes[0, 1]
    searches, regrets = tree["searches"], Table(tree["table"]["accuracy"].values).regrets
    last = searches["incumbent"].isel(row=-1)
    columns = {name: regrets[last.sel(arm=name).values] for name in ARMS if name != UNIFORM}
    for stage in searches["stage"].values.tolist():
        columns[f"{UNIFORM}, {stage}"] = regrets[searches["second_incumbent"].sel(stage=stage).values[:, -1]]
    for i, (name, values) in enumerate(columns.items()):
        colour = COLOUR.get(name, COLOUR[UNIFORM])
        ax.plot(np.full(len(values), i) + np.linspace(-0.15, 0.15, len(values)), values, "o", color=colour, alpha=0.6)
        ax.plot([i - 0.3, i + 0.3], [np.median(values)] * 2, color=colour)
    ax.axhline(regrets.mean(), color=GREY, ls=":", label="mean of all")
    ax.set_xticks(range(len(columns)), [name.replace(", ", ",\n") for name in columns], fontsize=7, rotation=30)
    ax.legend(fontsize=8)
    plots.label(ax, "search", "below the best of the table", y_unit="points", title="answers at the end, one dot a seed")
    return fig


def _draw_architectures(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.8, 3.3))
    table, options = Table(tree["table"]["accuracy"].values), tree["table"]["option"].values
    order = np.argsort(-table.means)
    ax = axes[0, 0]
    for column in table.accuracies.T:
        ax.plot(np.arange(len(order)) + 1, column[order], ".", color=GREY, ms=3)
    ax.plot(np.arange(len(order)) + 1, table.means[order], color=plots.COLOURS[0], label="mean of seeds")
    ax.legend(fontsize=8)
    plots.label(ax, "rank", "test accuracy", y_unit="%", title="each architecture trained alone")
    ax = axes[0, 1]
    names = tree["searches"]["choice"].values.tolist()
    words = ("sep 3×3", "sep 5×5", "dil 3×3", "dil 5×5")
    for i, name in enumerate(names):
        means = [table.means[options[:, i] == j].mean() for j in range(int(options[:, i].max()) + 1)]
        ax.plot(range(len(means)), means, marker=plots.MARKERS[i % len(plots.MARKERS)], label=name)
    ax.set_xticks(range(len(words)), words)
    ax.legend(fontsize=7)
    plots.label(ax, "operation", "mean test accuracy", y_unit="%", title="marginal means by edge")
    return fig


def _draw_entropy(searches: xr.Dataset) -> Figure:
    arms = [name for name in ARMS if name != UNIFORM]
    fig, axes = plots.figure(1, len(arms), panel=(2.9, 2.7), sharex=True, sharey=True)
    for ax, name in zip(axes[0], arms, strict=True):
        for i, choice in enumerate(searches["choice"].values.tolist()):
            plots.interval(
                ax,
                searches["row"].values,
                searches["entropy"].sel(arm=name, choice=choice).values.T,
                name=choice,
                colour=plots.COLOURS[i % 8],
            )
        plots.label(ax, "step", "entropy over its largest" if ax is axes[0, 0] else "", title=name)
    axes[0, 0].legend(fontsize=6.5)
    return fig


def _draw_costs(costs: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(3.8, 3.1))
    x = np.arange(costs.sizes["space"])
    for ax, values, words, unit in (
        (axes[0, 0], costs["memory"] / 2**20, "temporary memory of a step", "MiB"),
        (axes[0, 1], 1e3 * costs["seconds"].median("repeat"), "time of a step", "ms"),
    ):
        for i, mixing in enumerate(costs["mixing"].values.tolist()):
            ax.bar(x + 0.38 * (i - 0.5), values.sel(mixing=mixing).values, 0.36, color=plots.COLOURS[i], label=f"{mixing} mixed")
        ax.set_xticks(x, costs["space"].values.tolist())
        plots.label(ax, "space", words, y_unit=unit)
    axes[0, 0].legend(fontsize=8)
    return fig


def _draw_inherited(tree: dict[str, xr.Dataset]) -> Figure:
    inherited = tree["searches"]["inherited"]
    names = inherited["supernet"].values.tolist()
    fig, axes = plots.figure(1, len(names), panel=(4.0, 3.3), sharex=True, sharey=True)
    for ax, name in zip(axes[0], names, strict=True):
        rows = inherited.sel(supernet=name).values
        if "table" in tree:
            alone, words = tree["table"]["accuracy"].mean("table_seed").values, "test accuracy trained alone"
            unit = "%"
        else:
            alone, words, unit = np.arange(rows.shape[1]), "number of the architecture", ""
        for row in rows:
            ax.plot(alone, row, ".", color=COLOUR[name], alpha=0.25)
        ax.plot(alone, rows.mean(0), "o", color=COLOUR[name], ms=4, label="mean of seeds")
        ax.legend(fontsize=8)
        plots.label(ax, words, "", x_unit=unit, title=f"{name} supernet")
    axes[0, 0].set_ylabel("test accuracy, inherited weights [%]")
    return fig


def _draw_language(language: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.3))
    ax = axes[0, 0]
    names = language["network"].values.tolist()
    kinds = {"random": GREY, "largest": plots.COLOURS[2], "found": COLOUR[OURS]}
    for kind, colour in kinds.items():
        chosen = [name for name in names if name.startswith(kind)]
        ax.plot(
            language["parameters"].sel(network=chosen).values.ravel(),
            language["loss"].sel(network=chosen).values.ravel(),
            "o" if kind == "found" else ".",
            color=colour,
            alpha=0.7,
            label=kind,
        )
    ax.set_xscale("log")
    # Those of a decade would run into each other.
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(fontsize=8)
    plots.label(ax, "parameters", "loss on held-out works", y_unit="nat a character", title="trained alone")
    ax = axes[0, 1]
    for i, choice in enumerate(language["choice"].values.tolist()):
        plots.interval(ax, language["row"].values, language["entropy"].sel(choice=choice).values.T, name=choice, colour=plots.COLOURS[i])
    ax.legend(fontsize=8)
    plots.label(ax, "step", "entropy over its largest", title="the search")
    return fig
