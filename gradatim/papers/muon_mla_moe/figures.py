"""The figures, from findings alone."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .training import ARMS, NAMES

COLOURS = {"adamw": plots.COLOURS[0], "muon": plots.COLOURS[1]}


def draw(findings: Findings) -> dict[str, Figure]:
    """Loss over tokens, the ratio over batch sizes, the choice of rates, all kinds of models, norms of the weights, descents."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        figures = {
            "loss": _draw_loss(data["curves"]),
            "combinations": _draw_combinations(data["combinations"]),
            "norms": _draw_norms(data["norms"]),
            "descents": _draw_descents(data["descents"]),
        }
        if "tuning" in data:
            figures["rates"] = _draw_rates(data["tuning"])
    return figures


def _draw_loss(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, data.sizes["batch_size"] + 1)
    for ax, batch_size in zip(axes[0], data.batch_size.values, strict=False):
        part = data.sel(batch_size=batch_size).dropna("look")
        for arm in ARMS:
            plots.interval(
                ax,
                part["progress"].values,
                part["loss"].sel(arm=arm).transpose("seed", "look").values,
                name=NAMES[arm],
                colour=COLOURS[arm],
            )
        last = float(part["loss"].sel(arm="adamw").isel(look=-1).mean())
        ax.axhline(last, color=COLOURS["adamw"], linestyle=":", linewidth=0.9)
        ax.set_ylim(top=float(part["loss"].isel(look=slice(2, None)).max()) + 0.05)
        plots.label(ax, "share of the tokens", "validation loss", y_unit="nat", title=f"Batch {batch_size}")
    axes[0, 0].legend()
    ax = axes[0, -1]
    ratio = data["token_ratio"]
    for seed in ratio.seed.values:
        ax.semilogx(data.batch_size, ratio.sel(seed=seed), "o", color=COLOURS["muon"], markersize=4)
    ax.semilogx(data.batch_size, ratio.mean("seed"), color=COLOURS["muon"])
    ax.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    plots.log_ticks(ax, data.batch_size)
    ax.set_ylim(0, 1.1)
    plots.label(ax, "batch size", "tokens to AdamW's last loss", y_unit="AdamW's", title="Token ratio, each seed and mean")
    return fig


def _draw_rates(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, data.sizes["batch_size"], sharey=True)
    for ax, batch_size in zip(axes[0], data.batch_size.values, strict=True):
        for arm, marker in zip(ARMS, plots.MARKERS, strict=False):
            ax.semilogx(data.rate, data["loss"].sel(batch_size=batch_size, arm=arm), marker=marker, color=COLOURS[arm], label=NAMES[arm])
        plots.label(ax, "learning rate", "validation loss", y_unit="nat", title=f"Choice of rates, batch {batch_size}")
    axes[0, 0].legend()
    return fig


def _draw_combinations(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.6, 3.1))
    kinds = [str(kind) for kind in data.kind.values]
    places = np.arange(len(kinds))
    for shift, arm in ((0.14, "adamw"), (-0.14, "muon")):
        values = np.exp(data["loss"].sel(arm=arm).transpose("kind", "seed").values)
        axes[0, 0].plot(values, np.repeat((places + shift)[:, None], values.shape[1], 1), "o", color=COLOURS[arm], markersize=4)
        axes[0, 0].plot(values.mean(1), places + shift, "|", color=COLOURS[arm], markersize=13, markeredgewidth=2, label=NAMES[arm])
    axes[0, 0].set_yticks(places, kinds)
    axes[0, 0].legend()
    plots.label(axes[0, 0], "perplexity of a character", "", title="Works held out: seeds and mean")
    axes[0, 1].barh(places, data["cache_bytes"] / 1024, color=plots.COLOURS[2], height=0.6)
    axes[0, 1].set_yticks(places, kinds)
    plots.label(axes[0, 1], "cache of a full context", "", x_unit="KiB", title="Cache while decoding")
    ways = [str(way) for way in data.way.values]
    seconds = 1e6 * data["decode_seconds"]
    axes[0, 2].barh(np.arange(len(ways)), seconds.median("repeat"), color=plots.COLOURS[4], height=0.6)
    axes[0, 2].set_yticks(np.arange(len(ways)), ways)
    plots.label(axes[0, 2], "time of a decoded character", "", x_unit="µs", title="Median")
    return fig


def _draw_norms(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.4, 3.4))
    ax = axes[0, 0]
    for arm in (arm for arm in ARMS if arm in data):
        ax.plot(data.step, data[arm].transpose("step", "matrix"), color=COLOURS[arm], linewidth=0.7, alpha=0.5)
        ax.plot(data.step, data[arm].max("matrix"), color=COLOURS[arm], label=f"{NAMES[arm]}, largest")
    ax.plot(data.step, data["bound"].min("matrix"), color="black", linestyle="--", label="Muon's bound, lowest")
    ax.legend()
    plots.label(ax, "step", "spectral norm of a matrix", title="Norms of the weights")
    return fig


def _draw_descents(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(5.0, 3.4))
    ax = axes[0, 0]
    best = data["mean_norm"].min("factor")
    for problem in range(best.sizes["problem"]):
        ax.loglog(data.length, best.isel(problem=problem), color=COLOURS["muon"], linewidth=0.8, alpha=0.6)
    ax.loglog(data.length, best.mean("problem"), "o-", color=COLOURS["muon"], label="best rate, problems and mean")
    ax.loglog(data.length, data["bound"].mean("problem"), "--", color="black", label="bound √(2 L (f₀ - f*) / T)")
    ax.legend()
    plots.label(ax, "steps T", "mean nuclear norm of the gradient", title="Steepest descent under the spectral norm")
    return fig
