"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradatim.lab import Findings, plots

from .judging import last_regrets, regret_curves, table_of
from .searches import ABLATION, OURS, UNIFORM

COLOUR = {name: plots.COLOURS[i] for i, name in enumerate((OURS, UNIFORM, "softmax", "sparsemax", "Gumbel"))}
COLOUR |= dict.fromkeys(ABLATION.values(), plots.COLOURS[5])
GREY = "#888888"
OPTIONS = {"cell": ("sep 3×3", "sep 5×5", "dil 3×3", "dil 5×5"), "macro": ("smallest", "middle", "largest")}


def draw(findings: Findings) -> dict[str, Figure]:
    """How searches decide, what supernets cost, language models; with a table, regret over time and what inherited weights tell."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    searched = {space: tree[space] for space in OPTIONS if space in tree}
    figures = {
        "entropy": _draw_entropy(searched),
        "costs": _draw_costs(tree["costs"]),
        "inherited": _draw_inherited(searched),
        "language": _draw_language(tree["language"]),
    }
    tabled = {space: data for space, data in searched.items() if "accuracy" in data}
    if tabled:
        figures |= {"regret": _draw_regret(tabled), "architectures": _draw_architectures(tabled)}
    return figures


def _draw_regret(spaces: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(len(spaces), 2, panel=(4.8, 3.5))
    for (over_time, at_end), (space, data) in zip(axes, spaces.items(), strict=True):
        curves = regret_curves(data)
        grid = np.linspace(0, max(np.median(curve.times[:, -1]) for curve in curves.values()), 300)
        looks = dict(zip(curves, (COLOUR[OURS], COLOUR[UNIFORM], plots.COLOURS[4]), strict=True))
        for name, curve in curves.items():
            seeds = zip(curve.times, curve.regrets, strict=True)
            rows = [row[np.maximum(np.searchsorted(times, grid, side="right") - 1, 0)] for times, row in seeds]
            plots.interval(over_time, grid, np.array(rows), name=name, colour=looks[name])
        over_time.legend(fontsize=8)
        title = f"{space} space: current answer, alone on the machine"
        plots.label(over_time, "time", "below the best of the table", x_unit="s", y_unit="points", title=title)
        columns = last_regrets(data)
        for i, (name, values) in enumerate(columns.items()):
            colour = COLOUR.get(name, COLOUR[UNIFORM])
            at_end.plot(np.full(len(values), i) + np.linspace(-0.15, 0.15, len(values)), values, "o", color=colour, alpha=0.6)
            at_end.plot([i - 0.3, i + 0.3], [np.median(values)] * 2, color=colour)
        regrets = table_of(data).regrets
        at_end.axhline(regrets.mean(), color=GREY, ls=":", label="mean of all")
        at_end.axhline(regrets[data["parameters"].values.argmax()], color=GREY, ls="--", label="the largest network")
        at_end.set_xticks(range(len(columns)), [name.replace(", ", ",\n") for name in columns], fontsize=7, rotation=30)
        at_end.set_ylim(top=1.3 * max(regrets.mean(), *(values.max() for values in columns.values())))
        at_end.legend(fontsize=8, loc="upper left", ncols=2)
        title = f"{space} space: answers at the end, one dot a seed"
        plots.label(at_end, "search", "below the best of the table", y_unit="points", title=title)
    return fig


def _draw_architectures(spaces: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(len(spaces), 2, panel=(4.8, 3.4))
    for (by_size, by_option), (space, data) in zip(axes, spaces.items(), strict=True):
        table, sizes, options = table_of(data), data["parameters"].values, data["option"].values
        means = table.accuracies.mean(1)
        for i, column in enumerate(table.accuracies.T):
            by_size.plot(sizes, column, ".", color=GREY, ms=3, alpha=0.6, label="a seed" if i == 0 else None)
        by_size.plot(sizes, means, "o", color=plots.COLOURS[0], ms=4, label="mean of seeds")
        # What has the score of the best at each size.
        order = np.argsort(sizes)
        by_size.plot(sizes[order], (table.means.max() + table.costs)[order], color=plots.COLOURS[1], ls="--", label="as good as the best")
        if space == "macro":
            by_size.set_xscale("log", base=2)
        by_size.legend(fontsize=7)
        plots.label(by_size, "parameters", "test accuracy", y_unit="%", title=f"{space} space: each architecture trained alone")
        for i, name in enumerate(data["choice"].values.tolist()):
            scores = [table.means[options[:, i] == j].mean() for j in range(int(options[:, i].max()) + 1)]
            by_option.plot(range(len(scores)), scores, marker=plots.MARKERS[i % len(plots.MARKERS)], label=name)
        by_option.set_xticks(range(len(OPTIONS[space])), OPTIONS[space])
        by_option.legend(fontsize=7)
        words = {"cell": ("operation", "mean accuracy"), "macro": ("option", "mean accuracy less cost")}[space]
        plots.label(by_option, *words, y_unit="points", title=f"{space} space: marginal means by choice")
    return fig


def _draw_entropy(spaces: dict[str, xr.Dataset]) -> Figure:
    arms = {space: [name for name in data["arm"].values.tolist() if name != UNIFORM] for space, data in spaces.items()}
    fig, axes = plots.figure(len(spaces), max(map(len, arms.values())), panel=(2.9, 2.7), sharex=True, sharey=True)
    for row, (space, data) in zip(axes, spaces.items(), strict=True):
        for ax, name in zip(row, arms[space], strict=True):
            for i, choice in enumerate(data["choice"].values.tolist()):
                values = data["entropy"].sel(arm=name, choice=choice).values.T
                plots.interval(ax, data["row"].values, values, name=choice, colour=plots.COLOURS[i % 8])
            plots.label(ax, "step", "entropy over its largest" if ax is row[0] else "", title=f"{space}: {name}")
        row[0].legend(fontsize=6.5)
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


def _draw_inherited(spaces: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(len(spaces), 2, panel=(4.0, 3.3), sharey=True)
    for row, (space, data) in zip(axes, spaces.items(), strict=True):
        for ax, name in zip(row, data["supernet"].values.tolist(), strict=True):
            values = data["inherited"].sel(supernet=name).values
            if "accuracy" in data:
                alone, words, unit = data["accuracy"].mean("table_seed").values, "test accuracy trained alone", "%"
            else:
                alone, words, unit = np.arange(values.shape[1]), "number of the architecture", ""
            for one in values:
                ax.plot(alone, one, ".", color=COLOUR[name], alpha=0.25)
            ax.plot(alone, values.mean(0), "o", color=COLOUR[name], ms=4, label="mean of seeds")
            ax.legend(fontsize=8)
            plots.label(ax, words, "", x_unit=unit, title=f"{space} space: {name} supernet")
        row[0].set_ylabel("test accuracy, inherited weights [%]")
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
