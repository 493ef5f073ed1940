"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

BLUE, RED, GREEN, PINK = plots.COLOURS[:4]
RATIO_TICKS, WIDTH_TICKS = (0.25, 0.5, 1.0, 2.0, 4.0), (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
SHOWN = (0.5, 1.0, 2.0)
"Ratios of which the errors are drawn."


def draw(findings: Findings) -> dict[str, Figure]:
    """Errors over time, the map, stopping and ridge, the spectrum and what follows from it, deep modes, students, bounds, networks."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "dynamics": _draw_dynamics(tree["linear"]),
        "map": _draw_map(tree["map"], tree["stopping"]),
        "stopping": _draw_stopping(tree["stopping"], tree["late"]),
        "spectrum": _draw_spectrum(tree["linear"]),
        "weights": _draw_weights(tree["linear"], tree["modes"]),
        "students": _draw_students(tree["students"], tree["scaled"]),
        "hidden_layer": _draw_hidden_layer(tree["spectra"]),
        "bounds": _draw_bounds(tree["students"]),
        "networks": _draw_networks(tree["digits"], tree["trained"]),
    }


def _draw_dynamics(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.7, 3.2), sharey=True)
    # The start and the end have no place on a logarithmic axis.
    data = data.isel(time=slice(1, -1))
    for ax, ratio in zip(axes[0], SHOWN, strict=True):
        one = data.sel(ratio=ratio)
        for name, colour, words in (("test", RED, "test"), ("train", BLUE, "training")):
            ax.plot(one["time"], one[f"{name}_theory"], color=colour, label=f"{words}, theory")
            ax.plot(one["time"], one[name].mean("draw"), "o", color=colour, ms=3.5, label=f"{words}, mean of {one.sizes['draw']} draws")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_ylim(2e-3, 40)
        plots.label(ax, "time", "error", x_unit="time constants", y_unit="noise variance", title=f"{ratio:g} samples per parameter")
    axes[0, 0].legend(fontsize="x-small", loc="lower left")
    return fig


def _draw_map(surface: xr.Dataset, stopping: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(5.6, 4.0))
    ax = axes[0, 0]
    values = np.log10(surface["test"].values.T)
    image = ax.pcolormesh(surface["ratio"], surface["time"], values, shading="nearest", vmax=1.3, rasterized=True)
    best = stopping.sel(snr=5.0)
    ax.plot(best["ratio"], best["time"], color="white", ls="--", label="best time to stop")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(False)
    ax.legend(labelcolor="white", frameon=False)
    plots.label(ax, "samples per parameter", "time", y_unit="time constants", title="test error in theory, SNR 5")
    fig.colorbar(image, ax=ax, label="log₁₀ test error [noise variance]")
    return fig


def _draw_stopping(stopping: xr.Dataset, late: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.2))
    one = stopping.sel(snr=5.0)
    for name, colour, words, style in (
        ("end", RED, "trained to the end", "-"),
        ("stopped", BLUE, "stopped at the best time", "-"),
        ("ridge", "#000000", "best ridge penalty", ":"),
    ):
        values = one[name].where(np.isfinite(one[name]))
        axes[0, 0].plot(one["ratio"], values, style, color=colour, label=words)
    axes[0, 0].axvline(1, color=RED, lw=0.8, ls="--")
    axes[0, 0].set_ylim(0, 10)
    plots.log_ticks(axes[0, 0], RATIO_TICKS)
    plots.label(axes[0, 0], "samples per parameter", "test error", y_unit="noise variance", title="SNR 5; ∞ at 1 in the end")
    axes[0, 0].legend(fontsize="x-small")
    for snr, colour, marker in zip(stopping["snr"].values, plots.COLOURS, plots.MARKERS, strict=False):
        over = (stopping["stopped"] / stopping["ridge"]).sel(snr=snr)
        axes[0, 1].plot(stopping["ratio"], over, color=colour, marker=marker, label=f"SNR {snr:g}")
    plots.log_ticks(axes[0, 1], RATIO_TICKS)
    plots.label(axes[0, 1], "samples per parameter", "early stopping over ridge", title="never better than ridge")
    axes[0, 1].legend(fontsize="x-small")
    for ratio, colour in zip(late["ratio"].values, plots.COLOURS, strict=False):
        axes[0, 2].loglog(late["time"], late["test"].sel(ratio=ratio), color=colour, label=f"{ratio:g} samples per parameter")
    plots.label(axes[0, 2], "time", "test error", x_unit="time constants", y_unit="noise variance", title="late growth, theory")
    axes[0, 2].legend(fontsize="x-small")
    return fig


def _draw_spectrum(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.7, 3.0))
    for ax, ratio in zip(axes[0], (0.25, 1.0, 4.0), strict=True):
        values = data["spectrum"].sel(ratio=ratio).values
        root = ratio**0.5
        low, high = (root - 1) ** 2, (root + 1) ** 2
        grid = np.linspace(max(low, high * 1e-3), high, 400)
        density = np.sqrt(np.maximum((high - grid) * (grid - low), 0)) / (2 * np.pi * grid)
        zero = float(np.mean(values == 0))
        positive = values[values > 0]
        ax.hist(positive, bins=30, weights=np.full(positive.size, 1 / values.size) * 30 / np.ptp(positive), color=BLUE, alpha=0.5)
        ax.plot(grid, density, color=RED, label="Marchenko and Pastur")
        ax.set_ylim(0, min(1.2 * density[grid > low + 0.05 * (high - low)].max(), 1.5))
        words = f"{ratio:g} samples per parameter" + (f", {100 * zero:.0f} % zero" if zero else "")
        plots.label(ax, "eigenvalue", "density", title=words)
    axes[0, 2].legend(fontsize="x-small")
    return fig


def _draw_weights(data: xr.Dataset, modes: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.1))
    variances = np.concatenate([[0.0], data["initial_variance"].values])
    for ratio, colour, marker in zip((0.25, 0.5, 2.0), plots.COLOURS, plots.MARKERS, strict=False):
        rise = np.concatenate([np.zeros((data.sizes["draw"], 1)), data["rise"].sel(ratio=ratio).values], axis=1)
        plots.interval(axes[0, 0], variances, rise, name=f"{ratio:g} samples per parameter", colour=colour, marker=marker)
    plots.label(
        axes[0, 0],
        "initial variance",
        "rise of the final test error",
        x_unit="noise variance",
        y_unit="noise variance",
        title="frozen directions",
    )
    axes[0, 0].legend(fontsize="x-small")
    inner = data.isel(time=slice(1, -1))
    for ratio, colour in zip(SHOWN, plots.COLOURS, strict=False):
        axes[0, 1].plot(inner["time"], inner["weight_norm_theory"].sel(ratio=ratio), color=colour)
        axes[0, 1].plot(inner["time"], inner["weight_norm"].sel(ratio=ratio).mean("draw"), "o", color=colour, ms=3.5, label=f"{ratio:g}")
    axes[0, 1].set_xscale("log")
    axes[0, 1].set_yscale("log")
    axes[0, 1].legend(fontsize="x-small", title="samples per parameter")
    plots.label(axes[0, 1], "time", "|w|² per weight", x_unit="time constants", y_unit="noise variance", title="draws (dots) and theory")
    for depth, colour in zip(modes["depth"].values, plots.COLOURS, strict=False):
        for mode, style in (("strong", "-"), ("weak", "--")):
            ax = axes[0, 2]
            times = modes["time"].sel(depth=depth, mode=mode)
            ax.plot(times, modes["share"], style, color=colour, label=f"{depth} layers" if mode == "strong" else None)
    axes[0, 2].set_xscale("log")
    axes[0, 2].set_xlim(left=0.05)
    axes[0, 2].legend(fontsize="x-small")
    plots.label(axes[0, 2], "time", "share of the mode's end", x_unit="time constants", title="strong (line) and weak mode (dashes)")
    return fig


def _draw_students(data: xr.Dataset, scaled: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3))
    width = data["width"]
    for name, colour, marker, words in (("test", RED, "o", "trained to the end"), ("stopped", BLUE, "s", "stopped at the best time")):
        low, middle, high = np.quantile(data[name].values, [0.25, 0.5, 0.75], axis=0)
        axes[0, 0].plot(width, middle, color=colour, marker=marker, label=words)
        axes[0, 0].fill_between(width, low, high, color=colour, alpha=0.2, lw=0)
    plots.label(axes[0, 0], "hidden units per sample", "test error", title="median and quartiles of trials")
    for name, colour, marker, words in (
        ("approximation", GREEN, "^", "approximation"),
        ("null_space", PINK, "D", "null space"),
        ("overfitting", RED, "o", "over-fitting"),
    ):
        axes[0, 1].plot(width, np.maximum(np.median(data[name], axis=0), 1e-4), color=colour, marker=marker, label=words)
    for name, line, words in (("test", ":", "test error"), ("gaussian", "--", "the same with Gaussian noise")):
        axes[0, 1].plot(width, np.median(data[name], axis=0), color="#000000", ls=line, label=words)
    axes[0, 1].set_ylim(bottom=1e-3)
    plots.label(axes[0, 1], "hidden units per sample", "part of the test error", title="medians")
    for samples, colour, marker in zip(scaled["samples"].values, plots.COLOURS, plots.MARKERS, strict=False):
        values = np.median(scaled["test"].sel(samples=samples), axis=0)
        axes[0, 2].plot(scaled["width"], values, color=colour, marker=marker, label=f"{samples} samples")
    plots.label(axes[0, 2], "hidden units per sample", "test error", title="more samples, medians")
    for ax, ticks in zip(axes[0], (WIDTH_TICKS, WIDTH_TICKS, (0.5, 1.0, 2.0)), strict=True):
        plots.log_ticks(ax, ticks)
        ax.set_yscale("log")
        ax.axvline(1, color="#888888", lw=0.8, ls="--")
        ax.legend(fontsize="x-small")
    return fig


def _draw_hidden_layer(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.1))
    for ax, (name, title) in zip(axes[0], (("equal", "as many units as samples"), ("twice", "twice as many units")), strict=True):
        values = data[name].values
        is_zero = values <= 1e-12 * values.max(axis=1, keepdims=True)
        top = values.max(axis=1)
        bulk = values[~is_zero & (values < 0.5 * top.min())]
        ax.hist(bulk, bins=50, weights=np.full(bulk.size, 1 / values.size), color=BLUE)
        beyond = float((values >= 0.5 * top.min()).sum(axis=1).mean())
        words = f"{title}: {100 * is_zero.mean():.0f} % zero, {beyond:.0f} at {top.mean():.3g}"
        plots.label(ax, "eigenvalue", "share of eigenvalues", title=words)
    return fig


def _draw_bounds(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(5.0, 3.4))
    ax = axes[0, 0]
    for name, colour, marker, words in (
        ("norm_bound", GREEN, "^", "bound by a norm that any weights may have"),
        ("refined_bound", BLUE, "s", "bound by the norm that training comes to"),
    ):
        ax.plot(data["width"], np.median(data[name], axis=0), color=colour, marker=marker, label=words)
    ax.plot(data["width"], np.sqrt(np.median(data["test"], axis=0)), color=RED, marker="o", label="root of the test error")
    plots.log_ticks(ax, WIDTH_TICKS)
    ax.set_yscale("log")
    ax.legend(fontsize="x-small")
    plots.label(ax, "hidden units per sample", "error", y_unit="teacher's output", title="medians of trials")
    return fig


def _draw_networks(digits: xr.Dataset, trained: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.2))
    for name, colour, marker, words in (("test", RED, "o", "trained to the end"), ("stopped", BLUE, "s", "stopped early")):
        rows = digits[name].values
        axes[0, 0].plot(digits["width"], np.exp(np.log(rows).mean(axis=0)), color=colour, marker=marker, label=words)
        axes[0, 0].plot(digits["width"], rows.T, ".", color=colour, alpha=0.4, ms=3)
    axes[0, 0].axvline(1, color="#888888", lw=0.8, ls="--")
    axes[0, 0].set_yscale("log")
    axes[0, 0].legend(fontsize="x-small")
    plots.label(axes[0, 0], "hidden units per image", "squared test error", title="images, random first layer")
    widths = trained["width"].values
    for name, colour, marker in (("test", RED, "o"), ("train", BLUE, "s")):
        plots.interval(
            axes[0, 1], widths, trained[name].isel(step=-1), name=name.replace("train", "training"), colour=colour, marker=marker
        )
    axes[0, 1].legend(fontsize="x-small")
    plots.label(axes[0, 1], "hidden units", "final error", title="both layers trained")
    for width, colour in zip(widths, plots.COLOURS, strict=False):
        rows = trained["test"].sel(width=width)
        axes[0, 2].plot(rows["step"].values[1:], rows.mean("seed").values[1:], color=colour, label=f"{width} units")
    axes[0, 2].legend(fontsize="x-small")
    plots.label(axes[0, 2], "step", "test error", title="both layers trained")
    plots.log_ticks(axes[0, 0], (0.2, 0.5, 1.0, 2.0, 4.0))
    for ax in axes[0, 1:]:
        ax.set_xscale("log")
    return fig
