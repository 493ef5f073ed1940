"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

ARMS = {"relu": "ReLU", "tanh": "tanh"}
INDEPENDENT = "#000000"
FLOOR = 1e-7
"Heights are drawn from here on, nat."


def draw(findings: Findings) -> dict[str, Figure]:
    """Lines, barriers against forks, the ways apart, layers, predictions, the plane of a fork, and the toys."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "lines": _draw_lines(tree),
        "barriers": _draw_barriers(tree),
        "ways": _draw_ways(tree),
        "layers": _draw_layers(tree),
        "prediction": _draw_prediction(tree),
        "plane": _draw_plane(tree["plane"]),
        "toys": _draw_toys(tree["toys"]),
    }


def _colours(data: xr.Dataset) -> dict[str, str]:
    pairs = data["pair"].values.tolist()
    return {**dict(zip(pairs[:-1], plots.COLOURS, strict=False)), pairs[-1]: INDEPENDENT}


def _name(pair: str) -> str:
    return "other initialisation" if pair == "independent" else f"fork at epoch {pair.split()[1]}"


def _draw_lines(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.6))
    for ax, (arm, title) in zip(axes[0], ARMS.items(), strict=True):
        data = tree[arm]
        for pair, colour in _colours(data).items():
            for i, row in enumerate(data["line"].sel(pair=pair).values):
                ax.plot(data["t"], row, color=colour, lw=1.2, alpha=0.75, label=_name(pair) if i == 0 else None)
        ax.set_yscale("log")
        plots.label(ax, "from one end (0) to the other (1)", "training loss", y_unit="nat", title=title)
    axes[0, 0].legend(fontsize="x-small")
    return fig


def _draw_barriers(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.4), sharey=True)
    for ax, (arm, title) in zip(axes[0], ARMS.items(), strict=True):
        data = tree[arm]
        forks, n = data["fork"].values, data.sizes["fork"]
        for name, values, colour, marker in (
            ("loss at the fork", data["fork_loss"].values, plots.COLOURS[2], "^"),
            ("crest: highest loss on the line", data["crest"].values[:, :n], plots.COLOURS[1], "s"),
            ("barrier (at the bottom: none)", data["barrier"].values[:, :n], plots.COLOURS[0], "o"),
        ):
            _spread(ax, forks, values, name=name, colour=colour, marker=marker)
        _level(ax, data["barrier"].values[:, -1], "barrier to another initialisation")
        ax.set_yscale("log")
        ax.set_xticks(forks)
        plots.label(ax, "fork", "loss", x_unit="epoch", y_unit="nat", title=title)
    axes[0, 1].legend(fontsize="x-small")
    return fig


def _spread(ax: Axes, x: np.ndarray, rows: np.ndarray, *, name: str, colour: str, marker: str) -> None:
    """Geometric mean over seeds as a line and every seed as a point: an interval would reach below zero on a logarithmic axis."""
    seen = np.maximum(rows, FLOOR)
    ax.plot(x, np.exp(np.log(seen).mean(axis=0)), color=colour, label=name, marker=marker)
    for row in seen:
        ax.plot(x, row, marker, color=colour, alpha=0.3, ms=3)


def _level(ax: Axes, values: np.ndarray, name: str) -> None:
    ax.axhline(values.mean(), color=INDEPENDENT, ls="--", lw=1, label=name)


def _draw_ways(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(2, 3, panel=(3.7, 2.9))
    panels = (
        ("watched_distance", "distance between the two", "", False),
        ("watched_angle", "angle at the fork", "degrees", False),
        ("watched_middle", "height of the middle", "nat", True),
    )
    for row, (arm, title) in zip(axes, ARMS.items(), strict=True):
        data = tree[arm]
        epochs = data["epoch"].values
        for ax, (name, words, unit, is_logarithmic) in zip(row, panels, strict=True):
            for (pair, colour), rows in zip(_colours(data).items(), np.moveaxis(data[name].values, -1, 0), strict=False):
                # Forks that have not come yet are nowhere.
                seen = np.where(epochs[:, None] > (0 if pair == "independent" else int(pair.split()[1])), rows, np.nan)
                if is_logarithmic:
                    seen = np.where(seen > FLOOR, seen, np.nan)
                for i, values in enumerate(seen.T):
                    ax.plot(epochs, values, color=colour, lw=1, alpha=0.75, label=_name(pair) if i == 0 else None)
            if is_logarithmic:
                ax.set_yscale("log")
            ax.xaxis.get_major_locator().set_params(integer=True)
            plots.label(ax, "epoch", words, y_unit=unit, title=title if ax is row[0] else "")
    axes[0, 0].legend(fontsize=6)
    return fig


def _draw_layers(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.0))
    image = None
    for ax, (arm, title) in zip(axes[0], ARMS.items(), strict=True):
        layers = tree[f"{arm}_layers"]
        names = layers["layer"].values.tolist()
        rows, labels = [], []
        for case, words in (("fork 0", "fork 0"), ("independent", "other init.")):
            one = layers.sel(case=case)
            rows += [one[name].values.mean(axis=0).max(axis=1) for name in ("single", "cumulative")]
            labels += [f"{words}: this layer alone", f"{words}: all up to this one"]
        values = np.maximum(np.stack(rows), FLOOR)
        image = ax.imshow(np.log10(values), aspect="auto", vmin=np.log10(FLOOR), vmax=0.5, cmap="cividis")
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                text = f"{value:.2g}" if value > FLOOR else "none"
                ax.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if value < 1e-3 else "black")
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(labels)), labels if ax is axes[0, 0] else [""] * len(labels), fontsize=8)
        ax.grid(False)
        plots.label(ax, "", "", title=f"{title}: barrier [nat]")
        ax.set_xlabel("layer, from the input")
    axes[0, 0].set_ylabel("what is exchanged")
    axes[0, 1].set_ylabel(" ")
    if image is not None:
        fig.colorbar(image, ax=axes, label="log₁₀ barrier [nat]", shrink=0.9)
    return fig


def _draw_prediction(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.5))
    names = {
        "integral": "integral along the chord",
        "endpoints": "Hessians at the ends",
        "midpoint": "Hessian at the middle",
        "fork": "Hessian at the fork",
    }
    for ax, (arm, title) in zip(axes[0], ARMS.items(), strict=False):
        data = tree[arm]
        middle = data["middle"].values
        for (method, words), colour, marker in zip(names.items(), plots.COLOURS, plots.MARKERS, strict=False):
            predicted = data["prediction"].sel(estimate=method).values
            shown = (middle > FLOOR) & (predicted > FLOOR)
            left_out = int((np.isfinite(predicted) & ~shown).sum())
            name = f"{words} ({left_out} not above zero)" if left_out else words
            ax.plot(middle[shown], predicted[shown], marker, color=colour, alpha=0.75, label=name)
        ends = np.array([max(middle[middle > FLOOR].min(initial=1), FLOOR), max(middle.max(), 10 * FLOOR)])
        ax.plot(ends, ends, color="#888888", lw=0.8, zorder=0)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(bottom=ax.get_ylim()[0] / 300)
        ax.legend(fontsize=6.5, loc="lower right")
        plots.label(ax, "measured height of the middle", "predicted", x_unit="nat", y_unit="nat", title=title)
    ax, data = axes[0, 2], tree["tanh"]
    kernel = np.minimum(data["s"].values, 1 - data["s"].values) / 2
    for (pair, colour), rows in zip(_colours(data).items(), np.moveaxis(data["curvature"].values, 1, 0), strict=True):
        if pair != "independent":
            mean = (-kernel * rows).mean(axis=0)
            ax.plot(data["s"], mean / np.abs(mean).max(), color=colour, label=_name(pair))
    ax.axhline(0, color="black", lw=0.8)
    ax.legend(fontsize=6.5)
    plots.label(ax, "place on the chord", "- kernel × curvature / its largest", title="tanh: what lifts the middle")
    return fig


def _draw_plane(data: xr.Dataset) -> Figure:
    loss, (width, height) = data["loss"].values, (float(np.ptp(data[axis].values)) for axis in ("x", "y"))
    fig, ((ax,),) = plots.figure(panel=(7.0, 5.4 * height / width + 0.9))
    levels = np.geomspace(loss.min(), loss.max(), 22)
    filled = ax.contourf(data["x"], data["y"], loss.T, levels=levels, norm="log", cmap="cividis")
    ticks = 10.0 ** np.arange(np.ceil(np.log10(levels[0])), np.floor(np.log10(levels[-1])) + 1)
    fig.colorbar(filled, ax=ax, label="training loss [nat]", ticks=ticks)
    path = data["path"].values
    for child, colour in zip(range(2), (plots.COLOURS[1], plots.COLOURS[5]), strict=True):
        ax.plot(*path[:, child].T, color=colour, marker="o", ms=2.5, lw=1.2, label=f"child {child + 1}, every epoch")
    ax.plot(*path[-1].T, color="white", ls="--", lw=1, label="line between the ends")
    ax.plot(*path[0, 0], marker="*", color="white", ms=10, ls="", label="fork at the start")
    ax.legend(fontsize=7, labelcolor="white", facecolor="#00224e", framealpha=0.6, frameon=True)
    ax.set_aspect("equal")
    ax.grid(False)
    plots.label(ax, "away from the start, towards one end", "towards the other", title="tanh: the plane of the fork and its two ends")
    return fig


def _draw_toys(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.5))
    ax = axes[0, 0]
    levels = np.geomspace(1e-3, 15, 18)
    ax.contourf(data["u"], data["v"], np.clip(data["product"].values.T, levels[0], levels[-1]), levels=levels, norm="log", cmap="cividis")
    for way in range(data.sizes["way"]):
        one = data["ways"].isel(way=way).values
        ax.plot(*one.T, color=plots.COLOURS[1] if way < 2 else plots.COLOURS[5], lw=1.4)
        ax.plot(*one[0], "o", color="white", ms=4)
    ax.plot([-2, 2], [2, -2], ":", color="white", lw=1, label="ridge")
    ax.plot([1, -1], [1, -1], "--", color="white", lw=1, label="line of the barrier")
    ax.legend(fontsize=7, labelcolor="white", facecolor="#00224e", framealpha=0.7, frameon=True, loc="upper left")
    plots.label(ax, "u", "v", title="(u v - 1)² / 2, descents")
    ax = axes[0, 1]
    levels = np.geomspace(1e-4, 0.5, 18)
    ax.contourf(data["w1"], data["w2"], np.clip(data["student"].values.T, levels[0], levels[-1]), levels=levels, norm="log", cmap="cividis")
    ax.plot([1, 3], [3, 1], "--o", color="white", ms=4)
    ax.plot([1, 3, 3], [3, 3, 1], ":", color="white", label="one weight after the other")
    ax.legend(fontsize=7, labelcolor="white", facecolor="#00224e", framealpha=0.7, frameon=True, loc="upper right")
    plots.label(ax, "w₁", "w₂", title="two units exchanged")
    for ax in axes[0, :2]:
        ax.set_aspect("equal")
        ax.grid(False)
    ax = axes[0, 2]
    for name, words, colour in (("product_line", "product", plots.COLOURS[0]), ("student_line", "exchanged units", plots.COLOURS[1])):
        line = data[name].values
        ax.plot(data["t"], line / line.max(), color=colour, label=f"{words}: height {line.max():.4f}")
    ax.legend(fontsize=7)
    plots.label(ax, "from one end (0) to the other (1)", "loss over its largest", title="along the line")
    return fig
