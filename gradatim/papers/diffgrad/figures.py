"""The figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, Measure, plots

from .arms import COLOURS, NAMES, OBJECTIVES


def draw(findings: Findings) -> dict[str, Figure]:
    """Paths and basins in one dimension, regret, accuracy by optimiser, by rate and by activation, friction by layer."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        figures = {
            "descent": _draw_descent(data["descent"]),
            "basins": _draw_basins(data["descent"]),
            "regret": _draw_regret(data["regret"]),
            "accuracy": _draw_accuracy(data["accuracy"]),
            "activations": _draw_activations(data["activations"]),
            "friction": _draw_friction(data["friction"]),
        }
        if "tuning" in data:
            figures["rates"] = _draw_rates(data["tuning"])
    return figures


def _draw_descent(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3)
    for ax, (name, objective) in zip(axes[0], OBJECTIVES.items(), strict=True):
        for minimum in objective.minima:
            ax.axhline(minimum, color="black", linewidth=0.8, linestyle="--" if minimum == objective.minima[0] else ":")
        for arm in data.arm.values:
            ax.plot(data.step, data["x"].sel(arm=arm, function=name), color=COLOURS[arm], label=NAMES[arm])
        plots.label(ax, "step", "x", title=f"{name.upper()} (dashed: global minimum)")
    axes[0, 0].legend()
    return fig


def _draw_basins(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, sharey=True)
    fraction = data["at_global_minimum"].mean("start")
    places = np.arange(data.sizes["rate"])
    for ax, name in zip(axes[0], OBJECTIVES, strict=True):
        for shift, arm in enumerate(("adam", "diffgrad", "adam_half")):
            ax.bar(places + 0.27 * (shift - 1), fraction.sel(arm=arm, function=name), 0.25, color=COLOURS[arm], label=NAMES[arm])
        ax.set_xticks(places, [f"{rate:g}" for rate in data.rate.values])
        plots.label(ax, "learning rate", "starts that end at the global minimum" if name == "f1" else "", title=name.upper())
        ax.set_ylim(0, 1)
    axes[0, 1].legend(loc="upper right")
    return fig


def _draw_regret(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    titles = {"random_losses": "|x - z|, z = ±1 at random", "periodic_losses": "C x every third round, -x else"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        for arm, line in (("adam", "-"), ("diffgrad", "--")):
            curve = data[name].sel(arm=arm)
            curve = curve.mean("group") if "group" in curve.dims else curve
            ax.loglog(data["round"], curve, line, color=COLOURS[arm], label=NAMES[arm])
        ax.loglog(data["round"], np.sqrt(data["round"]), color="black", linewidth=0.8, linestyle=":", label="√T")
        plots.label(ax, "round T", "regret", title=title)
    axes[0, 0].legend()
    return fig


def _draw_accuracy(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(5.2, 3.6))
    curves = data["accuracy"].isel(rate=0).dropna("step", how="all")
    final = curves.isel(step=-1)
    order = final.mean("seed").sortby(final.mean("seed")).arm.values
    for place, arm in enumerate(order):
        values = final.sel(arm=arm).values
        _dots(axes[0, 0], place, values, COLOURS.get(arm, "#777777"))
    axes[0, 0].set_yticks(range(len(order)), [NAMES[arm] for arm in order])
    plots.label(axes[0, 0], "test accuracy after the last epoch", "", x_unit="%", title="Seeds as dots, mean and 95 % interval")
    colours = iter(plots.COLOURS[3:] * 2)
    for arm in order[::-1]:
        colour = COLOURS.get(arm) or next(colours)
        axes[0, 1].plot(curves.step, curves.sel(arm=arm).mean("seed"), color=colour, label=NAMES[arm])
    low, high = float(curves.isel(step=slice(1, None)).min()), float(curves.max())
    axes[0, 1].set_ylim(low - 2, high + 2)
    axes[0, 1].legend(fontsize="small", ncols=2)
    plots.label(axes[0, 1], "step", "test accuracy", y_unit="%", title="Means, each optimiser at its best rate")
    return fig


def _dots(ax: Any, place: float, values: np.ndarray, colour: str) -> None:
    if np.isfinite(values).all():
        measure = Measure.over_seeds(values)
        ax.plot([measure.low, measure.high], [place, place], color=colour, linewidth=2, alpha=0.5)
        ax.plot(measure.value, place, "|", color=colour, markersize=12, markeredgewidth=2)
    ax.plot(values, np.full(len(values), place), "o", color=colour, markersize=4)


def _draw_rates(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.6, 3.8))
    colours = iter(plots.COLOURS[3:] * 2)
    final = data["accuracy"].isel(step=-1).mean("seed", skipna=False)
    for arm, marker in zip(data.arm.values, plots.MARKERS, strict=False):
        axes[0, 0].semilogx(data.rate, final.sel(arm=arm), marker=marker, label=NAMES[arm], color=COLOURS.get(arm) or next(colours))
    plots.label(axes[0, 0], "rate over the optimiser's customary rate", "validation accuracy", y_unit="%", title="The choice of rates")
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_activations(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.2, 3.4))
    names = data.activation.values
    for shift, arm in ((-0.14, "diffgrad"), (0.14, "adam_half")):
        for place, name in enumerate(names):
            _dots(axes[0, 0], place + shift, data["accuracy"].sel(arm=arm, activation=name).values, COLOURS[arm])
        axes[0, 0].plot([], [], "o", color=COLOURS[arm], label=NAMES[arm])
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].legend()
    plots.label(axes[0, 0], "test accuracy after the last epoch", "", x_unit="%", title="diffGrad's rate, and half of it for Adam")
    return fig


def _draw_friction(data: xr.Dataset) -> Figure:
    from matplotlib import colormaps

    fig, axes = plots.figure(panel=(6.4, 3.6))
    shades = colormaps["cividis"](np.linspace(0, 0.9, data.sizes["layer"]))
    for layer, shade in zip(data.layer.values, shades, strict=True):
        axes[0, 0].plot(data.step, data["friction"].sel(layer=layer), color=shade, label=str(layer), linewidth=1.2)
    axes[0, 0].axhline(0.5, color="black", linestyle="--", linewidth=0.8)
    axes[0, 0].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.label(axes[0, 0], "step", "mean friction ξ", title="Dashed: Adam at half the rate")
    return fig
