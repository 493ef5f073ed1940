"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .judging import at_best, best_rate
from .training import ANGLES, FORWARD

LAYERS = {"in->l1": "first layer", "l1->l2": "second layer", "l2->out": "output"}
LOWEST = 1e-15


def draw(findings: Findings) -> dict[str, Figure]:
    """Both biases over the nudge, gradients and accuracy over the angle, training with and without the loss, the loop, and the rates."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "nudging": _draw_nudging(tree["nudging"]),
        "angles": _draw_angles(tree["angles"]),
        "homeostasis": _draw_homeostasis(tree["homeostasis"]),
        "loop": _draw_loop(tree["loop"]),
        "rates": _draw_rates(tree),
    }


def _draw_nudging(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.6))
    radii = data.radius.values
    ax = axes[0, 0]
    for points, colour, marker in zip(data.points.values, plots.COLOURS, plots.MARKERS, strict=False):
        rows = np.maximum(data["response_error"].sel(points=points).values, LOWEST)
        ax.loglog(
            radii, np.exp(np.log(rows).mean(axis=0)), marker, ls="-", color=colour, label=f"{points} point{'s' if points > 1 else ''}"
        )
    ax.axvline(float(data["convergence"].sel(angle=45).mean()), color="#888888", ls=":", lw=1, label="radius of convergence")
    ax.set_ylim(LOWEST, 10)
    ax.legend(fontsize=8, loc="lower right")
    plots.label(ax, "radius of the nudge", "error of the response, relative", title="45 degrees: the nudge's own error")
    ax = axes[0, 1]
    for angle, colour, marker in zip(data.angle.values, plots.COLOURS, plots.MARKERS, strict=False):
        rows = np.maximum(data["gradient_error"].sel(angle=angle).values, LOWEST)
        name = "symmetric" if angle == 0 else f"{angle:g} degrees at the start"
        ax.loglog(radii, np.exp(np.log(rows).mean(axis=0)), marker, ls="-", color=colour, label=name)
    ax.legend(fontsize=8, loc="lower right")
    plots.label(ax, "nudge, one phase", "error of the gradient, relative", title="what asymmetry leaves stays")
    return fig


def _draw_angles(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.5))
    ax = axes[0, 0]
    for layer, (connection, words) in enumerate(LAYERS.items()):
        colour, marker = plots.COLOURS[layer], plots.MARKERS[layer]
        rows = np.stack([at_best(data, f"EP {angle:g}", "cosine")[:, FORWARD.index(connection)] for angle in ANGLES], axis=1)
        _points(ax, ANGLES, rows, words, colour, marker)
        first = data["cosine"].sel(arm=[f"EP {angle:g}" for angle in ANGLES], connection=connection).isel(rate=0, epoch=0)
        ax.plot(ANGLES, first.mean("seed"), ls=":", color=colour, label="before training" if layer == 0 else None)
    ax.set_ylim(-0.15, 1.05)
    ax.legend(fontsize=8, loc="lower left")
    plots.label(ax, "angle at the start", "cosine of estimated and true gradient", x_unit="degrees", title="equilibrium propagation")
    ax = axes[0, 1]
    for name, words, colour, marker in (
        ("RBP", "recurrent backpropagation", plots.COLOURS[0], "o"),
        ("EP", "equilibrium propagation", plots.COLOURS[1], "s"),
    ):
        _points(ax, ANGLES, np.stack([at_best(data, f"{name} {a:g}", "accuracy") for a in ANGLES], axis=1), words, colour, marker)
    ax.legend(fontsize=8, loc="lower left")
    plots.label(ax, "angle at the start", "test accuracy", x_unit="degrees", y_unit="%", title="each at its best rate")
    for ax in axes[0]:
        ax.set_xticks(ANGLES)
    return fig


def _points(ax: Axes, x: tuple[float, ...], rows: np.ndarray, name: str, colour: str, marker: str) -> None:
    """Mean over seeds as a line, and every seed."""
    ax.plot(x, rows.mean(axis=0), color=colour, marker=marker, label=name)
    for row in rows:
        ax.plot(x, row, marker, color=colour, alpha=0.35, ms=3)


def _draw_homeostasis(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 3, panel=(3.6, 2.8))
    panels = (("accuracy", "test accuracy", "%"), ("cosine", "first-layer cosine", ""), ("score", "symmetry score", ""))
    for row, angle in zip(axes, ("90", "0"), strict=True):
        rate = best_rate(data, f"{angle}, without")
        for ax, (name, words, unit) in zip(row, panels, strict=True):
            name = "angle" if angle == "0" and name == "score" else name
            words, unit = ("angle of the weights", "degrees") if name == "angle" else (words, unit)
            for word, colour in (("without", plots.COLOURS[1]), ("with", plots.COLOURS[0])):
                values = data[name].sel(arm=f"{angle}, {word}", rate=rate)
                values = values.isel(connection=0) if name == "cosine" else values
                plots.interval(ax, data.epoch.values, values.values, name=f"{word} the loss", colour=colour, marker="o")
            title = f"{angle} degrees at the start, rate {rate:g}" if ax is row[0] else ""
            plots.label(ax, "epoch", words, y_unit=unit, title=title)
            ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(fontsize=8)
    return fig


def _draw_loop(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.6, 2.9))
    rate = best_rate(data, "without")
    panels = (
        ("accuracy", "test accuracy", "%"),
        ("antisymmetric", "norm of the antisymmetric part", ""),
        ("score", "symmetry score", ""),
    )
    names = {"without": "neither", "with": "homeostatic loss", "decay": "weight decay as strong"}
    for ax, (name, words, unit) in zip(axes[0], panels, strict=True):
        for (arm, text), colour, style in zip(names.items(), (plots.COLOURS[1], plots.COLOURS[0], "#000000"), ("-", "-", ":"), strict=True):
            plots.interval(ax, data.epoch.values, data[name].sel(arm=arm, rate=rate).values, name=text, colour=colour)
            ax.lines[-1].set_linestyle(style)
        plots.label(ax, "epoch", words, y_unit=unit, title=f"a loop, rate {rate:g}" if name == "accuracy" else "")
        ax.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(fontsize=8)
    return fig


def _draw_rates(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.0), sharey=True)
    titles = {"angles": "by angle, SGD", "homeostasis": "homeostasis, AdamW", "loop": "loop, SGD"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        data = tree[name]
        for arm, colour, marker in zip(data.arm.values, plots.COLOURS, plots.MARKERS, strict=False):
            ax.semilogx(data.rate, data["accuracy"].sel(arm=arm).isel(epoch=-1).mean("seed"), color=colour, marker=marker, label=arm)
        plots.log_ticks(ax, data.rate)
        ax.legend(fontsize=7)
        plots.label(ax, "learning rate", "test accuracy" if name == "angles" else "", y_unit="%" if name == "angles" else "", title=title)
        ax.set_ylabel("test accuracy [%]")
    return fig
