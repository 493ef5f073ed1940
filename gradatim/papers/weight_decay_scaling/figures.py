"""What the experiment shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots
from gradatim.optim import width_slopes

from .plateau import NAMES
from .text import CLASSES

MATRIX_NAMES = {"up": "up matrix", "down": "down matrix"}
LINES = ("-", "--", ":", "-.")
"Of the layers."


def draw(findings: Findings) -> dict[str, Figure]:
    """Singular values over width, spectra by pair and by width, gains over width, losses over rates; of the text singular values and loss
    over width, and slopes of singular values and gains.
    """
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        return {
            "singular_values": _draw_singular_values(data["rules"], data["noise"]),
            "spectra": _draw_spectra(data["pairs"], data["rules"]),
            "gains": _draw_gains(data["rules"]),
            "transfer": _draw_transfer(data["grid"]),
            "vectors": _draw_vectors(data["vectors"]),
            "text_singular_values": _draw_text_singular_values(data["text"]),
            "text_loss_and_gains": _draw_text_loss_and_gains(data["text"]),
        }


def _draw_singular_values(rules: xr.Dataset, noise: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    level = (rules["top"] / rules["root_ratio"]).sel(rule="root")
    lines: dict[str, xr.DataArray] = {MATRIX_NAMES[str(m)]: level.sel(matrix=m) for m in rules.matrix.values}
    lines["noise alone"] = noise["top"].mean("decay")
    for (name, values), marker in zip(lines.items(), plots.MARKERS, strict=False):
        ordered = values.transpose("seed", "width")
        slope = width_slopes(ordered.width.values.tolist(), ordered.transpose("width", "seed").values)[0].mean()
        plots.interval(axes[0, 0], ordered.width.values, ordered.values, name=f"{name}, slope {slope:.2f}", marker=marker)
    _by_width(axes[0, 0], sorted({*rules.width.values.tolist(), *noise.width.values.tolist()}))
    plots.label(axes[0, 0], "width", "top singular value / √(η/λ)", title="λ ∝ √width")
    for rule, colour in zip(NAMES, plots.COLOURS, strict=False):
        for matrix, line in (("up", "-"), ("down", "--")):
            means = rules["top"].sel(rule=rule, matrix=matrix).mean("seed")
            axes[0, 1].plot(rules.width, means, line, color=colour, marker="o", label=f"{NAMES[rule]}, {MATRIX_NAMES[matrix]}")
    _by_width(axes[0, 1], rules.width.values.tolist())
    plots.label(axes[0, 1], "width", "top singular value", title="Three rules")
    axes[0, 0].legend(fontsize="small")
    axes[0, 1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return fig


def _draw_spectra(pairs: xr.Dataset, rules: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, sharey=True)
    for pair, colour in zip(pairs.pair.values, plots.COLOURS, strict=False):
        for matrix, line in (("up", "-"), ("down", "--")):
            spectrum = pairs["spectrum"].sel(pair=pair, matrix=matrix).mean("seed")
            axes[0, 0].plot(pairs.fraction, spectrum, line, color=colour, label=str(pair) if matrix == "up" else None)
    plots.label(axes[0, 0], "rank / number of singular values", "singular value / top", title="Pairs of η and λ at one width")
    for width, colour in zip(rules.width.values, plots.COLOURS, strict=False):
        for matrix, line in (("up", "-"), ("down", "--")):
            spectrum = rules["spectrum"].sel(rule="root", width=width, matrix=matrix).mean("seed")
            axes[0, 1].plot(rules.fraction, spectrum, line, color=colour, label=f"width {width}" if matrix == "up" else None)
    plots.label(axes[0, 1], "rank / number of singular values", "", title="Widths (solid: up, dashed: down)")
    for ax in axes[0]:
        ax.legend(fontsize="small")
    return fig


def _draw_gains(rules: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3)
    panels = {MATRIX_NAMES[str(m)]: rules["gain"].sel(matrix=m) for m in rules.matrix.values} | {"whole sublayer": rules["sublayer_gain"]}
    for ax, (name, gains) in zip(axes[0], panels.items(), strict=True):
        for rule, marker in zip(NAMES, plots.MARKERS, strict=False):
            values = gains.sel(rule=rule).transpose("seed", "width")
            plots.interval(ax, rules.width.values, values.values, name=NAMES[rule], marker=marker)
        _by_width(ax, rules.width.values.tolist())
        plots.label(ax, "width", "gain, rms out / rms in", title=name[0].upper() + name[1:])
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_transfer(grid: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 2, sharey=True)
    for row, (scaled, name) in zip(axes, ((0, "η, λ as at the proxy's width"), (1, "By the rule")), strict=True):
        for ax, along, other in zip(row, ("rate", "decay"), ("decay", "rate"), strict=True):
            for width, marker in zip(grid.width.values, plots.MARKERS, strict=False):
                curve = grid["loss"].sel(scaled=scaled, width=width).min(other).mean("seed")
                ax.semilogx(grid[along], curve, marker=marker, label=f"width {width}")
            words = {"rate": "learning rate at the base width", "decay": "decay at the base width"}
            plots.log_ticks(ax, grid[along])
            plots.label(ax, words[along], "loss", y_unit="nat", title=f"{name}; best {other}")
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_vectors(vectors: xr.Dataset) -> Figure:
    fig, axes = plots.figure()
    ax = axes[0, 0]
    for width, marker in zip(vectors.width.values, plots.MARKERS, strict=False):
        for decay, name in zip(vectors.vector_decay.values, ("no decay", "decayed"), strict=True):
            losses = vectors["loss"].sel(width=width, vector_decay=decay).transpose("seed", "vector_rate").values
            plots.interval(ax, vectors.vector_rate.values, losses, name=f"width {width}, {name}", marker=marker)
    plots.log_ticks(ax, vectors.vector_rate)
    ax.legend()
    plots.label(ax, "learning rate of vectors and read-out", "loss", y_unit="nat", title="The same at every width")
    return fig


def _draw_text_singular_values(text: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 4, panel=(3.3, 2.8))
    widths = text.width.values.tolist()
    for ax, name in zip(axes.ravel(), CLASSES, strict=False):
        for matrix, line in zip((m for m in text.matrix.values if m.split()[0] == name), LINES, strict=False):
            for rule, colour in zip(NAMES, plots.COLOURS, strict=False):
                means = text["top"].sel(rule=rule, matrix=matrix).mean("seed")
                ax.plot(widths, means, line, color=colour, marker="o", label=f"{NAMES[rule]}, layer {matrix.split()[1]}")
        _by_width(ax, widths)
        plots.label(ax, "width", "top singular value", title=f"{name[0].upper()}{name[1:]} matrices")
    axes[-1, -1].remove()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="center", bbox_to_anchor=(0.88, 0.25), handlelength=3.5)
    return fig


def _draw_text_loss_and_gains(text: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    widths = text.width.values.tolist()
    for rule, marker, colour in zip(NAMES, plots.MARKERS, plots.COLOURS, strict=False):
        values = text["loss"].sel(rule=rule).transpose("seed", "width").values
        plots.interval(axes[0, 0], widths, values, name=NAMES[rule], marker=marker, colour=colour)
        top, gain = (
            width_slopes(widths, text[name].sel(rule=rule).mean("seed").transpose("width", "matrix").values)[0] for name in ("top", "gain")
        )
        axes[0, 1].plot(top, gain, marker, color=colour, label=NAMES[rule])
    axes[0, 0].set_xscale("log", base=2)
    axes[0, 0].set_xticks(widths, [str(w) for w in widths])
    plots.label(axes[0, 0], "width", "validation loss", y_unit="nat a character", title="Shakespeare")
    plots.label(axes[0, 1], "slope of the top singular value", "slope of the gain", title="Matrices of the decoder, over width")
    for ax in axes[0]:
        ax.legend(fontsize="small")
    return fig


def _by_width(ax: Any, widths: list[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(widths, [str(w) for w in widths])
    ax.minorticks_off()
    low, high = ax.get_ylim()
    ticks = (np.array([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8])[None] * 10.0 ** np.arange(-3, 4)[:, None]).ravel()
    inside = ticks[(ticks >= low) & (ticks <= high)]
    inside = inside[:: 1 + len(inside) // 12]
    ax.set_yticks(inside, [f"{t:g}" for t in inside])
