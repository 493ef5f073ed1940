"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots


def draw(findings: Findings) -> dict[str, Figure]:
    """Four regimes, spectra and losses of images, exponents, the exchange, dimensions, networks, classes."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "regimes": _draw_regimes(tree["gaussian"]),
        "spectra": _draw_spectra(tree["images"]),
        "exponents": _draw_exponents(tree["images"]),
        "exchange": _draw_exchange(tree["images"]),
        "dimensions": _draw_dimensions(tree["students"]),
        "networks": _draw_networks(tree["widths"], tree["samples"]),
        "classes": _draw_classes(tree["labels"]),
    }


def _logarithmic(ax: Axes, ticks: np.ndarray | None = None) -> None:
    """Both axes; the sizes themselves mark the first, where the numbers of a decade would overlap."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    if ticks is not None:
        plots.log_ticks(ax, ticks, fontsize="x-small")


def _guide(ax: Axes, x: np.ndarray, at: float, exponent: float, name: str) -> None:
    """A power law through the first point."""
    ax.plot(x, at * (x / x[0]) ** -exponent, color="black", ls=":", lw=1, label=name)


def _draw_regimes(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 2, panel=(4.0, 3.1))
    few, size, long = data.attrs["few"], data["size"].values, data["long_size"].values
    for ax, name, letter in ((axes[0, 0], "samples", "D"), (axes[0, 1], "features", "P")):
        excess, limit = data[f"excess_{name}"].values, data[f"limit_{name}"].values
        ax.plot(long, excess.mean(axis=0) / limit.mean(), "o", label="mean of draws")
        ax.plot(long, few / (long - few - 1), color="black", lw=1, label=f"exact: {few}/({letter} - {few + 1})")
        _logarithmic(ax, long)
        other = "P" if letter == "D" else "D"
        plots.label(ax, f"{letter}, at {other} = {few}", "excess loss over its limit", title=f"variance limits, in {name}")
        ax.legend(fontsize="x-small")
    for ax, name, letter in ((axes[1, 0], "samples", "D"), (axes[1, 1], "features", "P")):
        rows = data[name].values
        ax.errorbar(size, rows.mean(axis=0), 2 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5, fmt="o", label="mean of draws")
        ax.plot(size, data["theory"], color=plots.COLOURS[1], label="theory of the spectrum")
        _guide(ax, size, data["theory"].values[0], data.attrs["exponent"], f"exponent {data.attrs['exponent']:g}")
        _logarithmic(ax, size)
        plots.label(ax, letter, "loss, times 2S", title=f"resolution limits, in {name}")
        ax.legend(fontsize="x-small")
    return fig


def _draw_spectra(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.7, 3.3))
    panels = (("spectrum", "rank", "eigenvalue of the covariance"), ("samples", "size", "loss L(D)"), ("features", "size", "loss L(P)"))
    for ax, (name, axis, words) in zip(axes[0], panels, strict=True):
        for side, colour in zip(data["resolution"].values, plots.COLOURS, strict=False):
            rows = data[name].sel(resolution=side).values
            # Ranks beyond the pixels of coarse images fall off a cliff.
            mean = np.exp(np.log(rows).mean(axis=0))
            shown = mean > mean[0] * 1e-9
            ax.plot(data[axis].values[shown], mean[shown], color=colour, marker="" if name == "spectrum" else "o", label=f"{side} × {side}")
        ax.axvspan(data.attrs["first"], data.attrs["last"], color="#eeeeee", zorder=0)
        _logarithmic(ax, None if name == "spectrum" else data[axis].values[::2])
        plots.label(ax, {"spectrum": "rank", "samples": "samples D", "features": "student features P"}[name], words)
    axes[0, 0].legend(fontsize="x-small", title="pixels")
    axes[0, 1].set_title("grey: what is fitted", loc="left")
    return fig


def _draw_exponents(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.0, 3.5))
    ax = axes[0, 0]
    spectrum = data["exponent_spectrum"].values
    for name, letter, marker in (("samples", "D", "o"), ("features", "P", "s")):
        ax.plot(spectrum.ravel(), data[f"exponent_{name}"].values.ravel(), marker, alpha=0.8, label=f"in {name} {letter}")
    everything = np.concatenate([data[f"exponent_{name}"].values.ravel() for name in ("spectrum", "samples", "features")])
    ends = np.array([everything.min() - 0.05, everything.max() + 0.05])
    ax.plot(ends, ends, color="black", lw=1)
    ax.fill_between(ends, ends - 0.15, ends + 0.15, color="#eeeeee", zorder=0)
    plots.label(ax, "exponent of the spectrum", "exponent of the loss", title="one point a resolution and seed")
    ax.legend(fontsize="x-small")
    ax = axes[0, 1]
    side = data["resolution"].values
    for name, words in (("spectrum", "spectrum"), ("samples", "loss in D"), ("features", "loss in P")):
        ax.plot(side, data[f"exponent_{name}"].mean("seed"), marker="o", label=words)
    ax.plot(side, 1 / data["dimension"].values, color="black", ls=":", marker="x", label="1 / dimension of the images")
    ax.set_xticks(side)
    plots.label(ax, "pixels a side", "exponent", title="finer images, shallower laws")
    ax.legend(fontsize="x-small")
    return fig


def _draw_exchange(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.4))
    medians = data["exchange"].median(["layer", "draw"]).values
    D, P = data["D"].values, data["P"].values
    for i, colour in zip(range(len(P)), plots.COLOURS, strict=False):
        axes[0, 0].plot(D, medians[:, i], color=colour, marker="o", label=f"P = {P[i]}")
        axes[0, 0].plot(P, medians[i], color=colour, ls="--", marker="x", lw=1)
    _logarithmic(axes[0, 0], D)
    plots.label(axes[0, 0], "the other size", "median loss", title="over D at P; dashed: over P at D")
    axes[0, 0].legend(fontsize="x-small")
    upper = np.triu_indices(len(D), 1)
    means = data["exchange"].mean(["layer", "draw"]).values
    for found, name, marker in ((means, "mean", "o"), (medians, "median", "x")):
        axes[0, 1].plot(found[upper], found[upper] / found.T[upper], marker, label=name)
    axes[0, 1].axhline(1, color="black", lw=1)
    axes[0, 1].axhspan(0.95, 1.05, color="#eeeeee", zorder=0)
    plots.label(axes[0, 1], "L(D, P), D < P", "L(D, P) / L(P, D)", title="exchanged")
    axes[0, 1].legend(fontsize="x-small")
    return fig


def _draw_dimensions(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.4))
    size = data["size"].values
    for dimension, colour in zip(data["dimension"].values, plots.COLOURS, strict=False):
        one = data.sel(dimension=dimension)
        mean = np.exp(np.log(one["test_loss"].values).mean(axis=0))
        axes[0, 0].plot(size, mean, color=colour, label=f"{dimension} dimensions")
        limits = one["train_share"].values > data.attrs["trained"]
        axes[0, 0].plot(size[~limits], mean[~limits], "o", color=colour)
        axes[0, 0].plot(size[limits], mean[limits], "o", color=colour, mfc="white")
        for row in one["test_loss"].values:
            axes[0, 0].plot(size, row, ".", color=colour, alpha=0.4)
        _guide(axes[0, 0], size, float(mean[0]), 4 / dimension, "exponent 4/dimension" if colour == plots.COLOURS[0] else "")
    axes[0, 0].set_title("hollow: training limits", loc="left")
    _logarithmic(axes[0, 0], size)
    plots.label(axes[0, 0], "samples", "test loss over the teacher's variance")
    axes[0, 0].legend(fontsize="x-small")
    found = 4 / data["exponent"].values
    for row, dimension in zip(found, data["dimension"].values, strict=True):
        axes[0, 1].plot(np.full(len(row), dimension), row, "o", color=plots.COLOURS[0], alpha=0.7)
    ends = np.array([data["dimension"].values.min() - 0.5, data["dimension"].values.max() + 0.5])
    axes[0, 1].plot(ends, ends, color="black", lw=1)
    axes[0, 1].fill_between(ends, 0.6 * ends, 1.4 * ends, color="#eeeeee", zorder=0)
    axes[0, 1].set_xticks(data["dimension"].values)
    plots.label(axes[0, 1], "dimension", "4 / exponent", title="one point a seed")
    return fig


def _draw_networks(widths: xr.Dataset, samples: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.4))
    width = widths["width"].values
    excess = (widths["network"] - widths["linearised"]).mean("sign").transpose("pair", "width").values
    mean, error = np.abs(excess.mean(axis=0)), excess.std(axis=0, ddof=1) / len(excess) ** 0.5
    axes[0, 0].errorbar(width, mean, 2 * error, fmt="o", label="mean of pairs of initialisations")
    _guide(axes[0, 0], width, float(mean[0]), 1, "exponent 1")
    _logarithmic(axes[0, 0], width)
    plots.label(axes[0, 0], "width", "|test loss - that of the linearised network|")
    axes[0, 0].legend(fontsize="x-small")
    size = samples["size"].values
    for objective, colour in zip(samples["objective"].values, plots.COLOURS, strict=False):
        one = samples.sel(objective=objective)
        rows = (one["loss"] - one["first_order"] - one["limit"]).transpose("seed", "draw", "size").values.reshape(-1, len(size))
        sign = np.sign(rows[:, 0].mean())
        mean, error = sign * rows.mean(axis=0), rows.std(axis=0, ddof=1) / len(rows) ** 0.5
        name = f"{objective}, {'above' if sign > 0 else 'below'}"
        axes[0, 1].errorbar(size, mean, 2 * error, fmt="o", color=colour, label=name)
        _guide(axes[0, 1], size, float(mean[0]), 1, "exponent 1" if colour == plots.COLOURS[0] else "")
    _logarithmic(axes[0, 1], size)
    plots.label(axes[0, 1], "samples", "|mean loss - that of infinite samples|")
    axes[0, 1].legend(fontsize="x-small")
    return fig


def _draw_classes(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.4), sharey=True)
    size = data["size"].values
    for target, colour in zip(data["target"].values, plots.COLOURS, strict=False):
        rows = data["loss"].isel(noise=0).sel(target=target).values
        axes[0, 0].plot(
            size,
            rows.mean(axis=0),
            color=colour,
            marker="o",
            label=f"{target}: {float(data['exponent'].isel(noise=0).sel(target=target).mean()):.2f}",
        )
    for noise, colour in zip(data["noise"].values, plots.COLOURS, strict=False):
        rows = data["loss"].isel(target=0).sel(noise=noise).values
        axes[0, 1].plot(
            size,
            rows.mean(axis=0),
            color=colour,
            marker="s",
            label=f"noise {noise:g}: {float(data['exponent'].isel(target=0).sel(noise=noise).mean()):.2f}",
        )
    for ax, title in zip(axes[0], ("classes joined: exponents", "noise on every pixel: exponents"), strict=True):
        _logarithmic(ax, size)
        plots.label(ax, "training images", "test loss", title=title)
        ax.legend(fontsize="x-small")
    return fig
