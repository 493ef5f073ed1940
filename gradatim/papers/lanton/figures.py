"""Figures, from findings alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .config import ARMS
from .language import NAMES
from .testbed import FIXED, VARIANTS

COLOURS = dict(zip(ARMS, plots.COLOURS, strict=False))


def draw(findings: Findings) -> dict[str, Figure]:
    """Loss by base rate and over steps on layers of known noise; noise and rates by layer; loss over tokens; seconds of a step."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        figures = {
            "rates": _draw_rates(data["testbed"]),
            "descent": _draw_descent(data["testbed"]),
            "lengths": _draw_lengths(data["lengths"]),
            "noise": _draw_noise(data["report"]),
            "layers": _draw_layers(data["along"]),
            "tokens": _draw_tokens(data["curves"], data.get("tuning")),
            "time": _draw_time(data["time"]),
        }
    return figures


def _arm_colours(arms: Any) -> dict[str, str]:
    return {arm: plots.COLOURS[7] if arm == FIXED else colour for arm, colour in zip(arms, (None, *plots.COLOURS), strict=False)}  # pyright: ignore[reportReturnType]


def _draw_rates(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, sharey=True)
    final, colours = data["loss"].isel(step=-1), _arm_colours(data.arm.values)
    for ax, variant in zip(axes[0], VARIANTS, strict=True):
        for arm, marker in zip(data.arm.values, plots.MARKERS, strict=False):
            values = final.sel(arm=arm, variant=variant).transpose("seed", "rate").values
            plots.interval(ax, data.rate.values, values, name=str(arm), colour=colours[arm], marker=marker, is_log=True)
        ax.set(xscale="log", yscale="log")
        plots.label(ax, "base rate", "last loss" if variant == VARIANTS[0] else "", title=f"Layers differ in {variant}")
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_descent(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, sharey=True)
    colours = _arm_colours(data.arm.values)
    for ax, variant in zip(axes[0], VARIANTS, strict=True):
        for arm in data.arm.values:
            curves = data["loss"].sel(arm=arm, variant=variant)
            best = curves.isel(rate=int(curves.isel(step=-1).mean("seed").argmin("rate")))
            name, values = f"{arm}, rate {float(best.rate):g}", best.transpose("seed", "step").values
            plots.interval(ax, data.step.values, values, name=name, colour=colours[arm], is_log=True)
        ax.set_yscale("log")
        ax.legend(fontsize="small")
        plots.label(ax, "step", "loss" if variant == VARIANTS[0] else "", title=f"Best rates, layers differ in {variant}")
    return fig


def _draw_lengths(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure()
    means, colours = data["mean_dual_norm"], _arm_colours(data.arm.values)
    for arm, marker in zip(data.arm.values, plots.MARKERS, strict=False):
        one = means.sel(arm=arm)
        tuned = one.isel(rate=one.mean("seed").argmin("rate")).transpose("seed", "length")
        plots.interval(axes[0, 0], data.length.values, tuned.values, name=str(arm), colour=colours[arm], marker=marker, is_log=True)
    first = float(means.sel(arm=FIXED).isel(length=0).mean("seed").min())
    axes[0, 0].plot(
        data.length, first * (data.length / data.length[0]) ** -0.25, color="black", linewidth=0.8, linestyle=":", label="T^(-1/4)"
    )
    axes[0, 0].set(xscale="log", yscale="log")
    plots.log_ticks(axes[0, 0], data.length)
    axes[0, 0].legend(fontsize="small")
    plots.label(axes[0, 0], "steps T", "mean dual norm of the gradient", title="Rates tuned at each length")
    return fig


def _draw_noise(data: xr.Dataset) -> Figure:
    names = [str(layer) for layer in data.layer.values]
    fig, axes = plots.figure(panel=(max(4.2, 0.26 * len(names)), 3.8))
    places = np.arange(len(names))
    for when, colour, marker in zip(data.when.values, plots.COLOURS, plots.MARKERS, strict=False):
        sigma = data["sigma"].sel(when=when, part="value").transpose("seed", "layer")
        for row in sigma.values:
            axes[0, 0].plot(places, row, marker, color=colour, markersize=3, alpha=0.6)
        axes[0, 0].plot(places, sigma.mean("seed"), color=colour, label=str(when), linewidth=1)
    axes[0, 0].set_xticks(places, names, rotation=90, fontsize="x-small")
    axes[0, 0].set_yscale("log")
    axes[0, 0].legend()
    plots.label(axes[0, 0], "hidden matrix", "noise σ", y_unit="nat", title="Seeds as dots, mean as line")
    return fig


def _draw_layers(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.4))
    shades = colormaps["cividis"](np.linspace(0, 0.95, data.sizes["layer"]))
    for name, ax, title in (("noise", axes[0, 0], "√H along the run"), ("factor", axes[0, 1], "Its rate over the base rate")):
        for layer, shade in zip(data.layer.values, shades, strict=True):
            ax.plot(data.step, data[name].sel(layer=layer).mean("seed"), color=shade, label=str(layer), linewidth=1)
        plots.label(ax, "step", "noise √H" if name == "noise" else "factor", y_unit="nat" if name == "noise" else "", title=title)
    axes[0, 0].set_yscale("log")
    axes[0, 1].legend(fontsize="xx-small", ncols=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _draw_tokens(curves: xr.Dataset, tuning: xr.Dataset | None) -> Figure:
    fig, axes = plots.figure(1, 1 if tuning is None else 2, panel=(4.6, 3.4))
    for arm in curves.arm.values:
        values = curves["loss"].sel(arm=arm).transpose("seed", "step").values
        plots.interval(axes[0, 0], curves.tokens.values, values, name=NAMES[arm], colour=COLOURS[arm])
    low, start = float(curves["loss"].min()), float(curves["loss"].isel(step=0).mean())
    axes[0, 0].set_ylim(low - 0.05 * (start - low), start)
    axes[0, 0].legend()
    plots.label(axes[0, 0], "characters", "validation loss", y_unit="nat", title="Each at its best rate")
    if tuning is not None:
        for arm, marker in zip(tuning.arm.values, plots.MARKERS, strict=False):
            means = tuning["loss"].sel(arm=arm).mean("seed", skipna=False)
            axes[0, 1].semilogx(tuning.rate, means, color=COLOURS[arm], marker=marker, label=NAMES[arm])
        plots.log_ticks(axes[0, 1], tuning.rate)
        plots.label(
            axes[0, 1], "rate over the customary rate", "last validation loss", y_unit="nat", title="The choice of rates, mean over pilots"
        )
    return fig


def _draw_time(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.6, 2.8))
    for place, way in enumerate(data.way.values):
        seconds = 1e3 * data["seconds"].sel(way=way).values
        axes[0, 0].plot(seconds, np.full(len(seconds), place), "o", color=plots.COLOURS[0], markersize=4, alpha=0.6)
        axes[0, 0].plot(np.median(seconds), place, "|", color=plots.COLOURS[1], markersize=14, markeredgewidth=2)
    axes[0, 0].set_yticks(range(data.sizes["way"]), [NAMES.get(way, f"LANTON, {way}") for way in data.way.values])
    axes[0, 0].set_xlim(left=0)
    plots.label(axes[0, 0], "a training step", "", x_unit="ms", title="Calls as dots, median as bar")
    return fig
