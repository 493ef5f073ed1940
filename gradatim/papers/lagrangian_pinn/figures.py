"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .training import HARD_SPEED

FIXED, MOVING, LABEL = plots.COLOURS[1], plots.COLOURS[0], plots.COLOURS[2]
NAMES = {"fixed": "fixed coordinates", "moving": "moving coordinates", "label": "moving, diffusion by label"}


def draw(findings: Findings) -> dict[str, Figure]:
    """Errors by speed, fields, characteristics, loss beside error, widths, landscapes."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "errors": _draw_errors(tree),
        "fields": _draw_fields(tree),
        "characteristics": _draw_characteristics(tree),
        "training": _draw_training(tree),
        "widths": _draw_widths(tree["widths"]),
        "landscapes": _draw_landscapes(tree["landscapes"]),
    }


def _main(data: xr.Dataset, equation: str) -> xr.Dataset:
    """The cases of an equation at the rate that all have, with the mean beside the networks."""
    chosen = (data["equation"] == equation) & np.isclose(data["rate"], data["rate"].values[0]) & data["is_raised"]
    return data.isel(case=np.flatnonzero(chosen.values))


def _present(tree: dict[str, xr.Dataset]) -> list[tuple[str, str, str]]:
    """Methods with colours and markers."""
    methods = (("fixed", FIXED, "s"), ("moving", MOVING, "o"), ("label", LABEL, "^"))
    return [method for method in methods if method[0] in tree]


def _at(data: xr.Dataset, equation: str, speed: float) -> xr.Dataset:
    chosen = _main(data, equation)
    return chosen.isel(case=int(np.abs(chosen["speed"].values - speed).argmin()))


def _draw_errors(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.5), sharey=True)
    for ax, equation, title in (
        (axes[0, 0], "convection", "convection and diffusion of a sine"),
        (axes[0, 1], "Burgers", "Burgers, a shock that travels"),
    ):
        for name, colour, marker in _present(tree):
            data = _main(tree[name], equation)
            if data.sizes["case"]:
                _medians(ax, data["speed"].values, data["error"].values, NAMES[name], colour, marker)
        ax.set_yscale("log")
        plots.label(ax, "speed", "relative error of the field", y_unit="%", title=title)
    data = tree["fixed"]
    others = data.isel(case=np.flatnonzero(~np.isclose(data["rate"].values, data["rate"].values[0])))
    for case in range(others.sizes["case"]):
        one = others.isel(case=case)
        places = np.full(one.sizes["seed"], one["speed"].item())
        axes[0, 0].plot(places, one["error"], "_", color=FIXED, ms=9, label="… at other rates" if case == 0 else None)
    for name, colour, marker in _present(tree):
        alone = tree[name].isel(case=np.flatnonzero(~tree[name]["is_raised"].values))
        for case in range(alone.sizes["case"]):
            one = alone.isel(case=case)
            places = np.full(one.sizes["seed"], one["speed"].item())
            axes[0, 1].plot(places, one["error"], marker, color=colour, mfc="none", ms=7, label="… mean learnt, too")
    for remedy, marker in zip(tree["remedies"]["remedy"].values, ("v", "D"), strict=True):
        rows = tree["remedies"]["error"].sel(remedy=remedy).values
        axes[0, 0].plot(np.full(rows.size, HARD_SPEED), rows, marker, color=plots.COLOURS[3], alpha=0.8, label=f"fixed, {remedy}")
    axes[0, 0].axhline(5, color="black", lw=0.8, ls="--")
    axes[0, 0].legend(fontsize=7)
    axes[0, 1].legend(fontsize=7)
    return fig


def _medians(ax: Axes, x: np.ndarray, rows: np.ndarray, name: str, colour: str, marker: str) -> None:
    ax.plot(x, np.median(rows, axis=1), marker=marker, color=colour, label=name)
    for row in rows.T:
        ax.plot(x, row, marker, color=colour, alpha=0.35, ms=3)


def _draw_fields(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(2, 4, panel=(3.3, 2.5))
    fixed, moving = _at(tree["fixed"], "convection", HARD_SPEED), _at(tree["moving"], "convection", HARD_SPEED)
    rows = [(fixed["truth"], "exact"), (fixed["field"], "fixed coordinates"), (moving["field"], "moving coordinates")]
    _row(axes[0], rows, f"convection at {HARD_SPEED:g}")
    speed = tree["moving"]["speed"].values[-1]
    fixed, moving = _at(tree["fixed"], "Burgers", speed), _at(tree["moving"], "Burgers", speed)
    rows = [(fixed["truth"], "spectral"), (fixed["field"], "fixed coordinates"), (moving["field"], "moving coordinates")]
    _row(axes[1], rows, f"Burgers, mean {speed:g}")
    ax = axes[1, 3]
    still = _at(tree["moving"], "Burgers", 0.0)
    ax.plot(still["x"], still["truth"][-1], color="black", label="spectral")
    ax.plot(still["x"], still["field"][-1], color=MOVING, ls="--", label="moving")
    if "label" in tree:
        by_label = _at(tree["label"], "Burgers", 0.0)
        ax.plot(by_label["x"], by_label["field"][-1], color=LABEL, ls=":", label="moving, by label")
    ax.legend(fontsize=6.5)
    plots.label(ax, "x", "w", title="Burgers at rest, t = 1")
    ax = axes[0, 3]
    one, other = (_at(tree[name], "convection", HARD_SPEED) for name in ("fixed", "moving"))
    ax.plot(one["x"], one["truth"][-1], color="black", label="exact")
    ax.plot(one["x"], one["field"][-1], color=FIXED, label="fixed")
    ax.plot(other["x"], other["field"][-1], color=MOVING, ls="--", label="moving")
    ax.legend(fontsize=6.5)
    plots.label(ax, "x", "w", title="convection, t = 1")
    return fig


def _row(axes: np.ndarray, rows: list[tuple[xr.DataArray, str]], what: str) -> None:
    for ax, (field, title) in zip(axes, rows, strict=False):
        ax.pcolormesh(field["x"], field["t"], field.values, vmin=-1, vmax=1, cmap="RdBu_r", shading="nearest", rasterized=True)
        ax.grid(False)
        plots.label(ax, "x", "t", title=f"{what}: {title}" if title in ("exact", "spectral") else title)


def _draw_characteristics(tree: dict[str, xr.Dataset]) -> Figure:
    data = tree["moving"]
    chosen = [_at(data, "convection", HARD_SPEED), _at(data, "Burgers", 0.0), _at(data, "Burgers", data["speed"].values[-1])]
    fig, axes = plots.figure(1, 3, panel=(3.7, 3.4))
    for ax, one in zip(axes[0], chosen, strict=True):
        labels = one["label"].values
        for i in range(0, labels.size, 4):
            exact, learnt = labels[i] + one["true_path"].values[:, i], labels[i] + one["path"].values[:, i]
            ax.plot(exact, one["t"], color="#999999", lw=2.2, label="exact" if i == 0 else None)
            ax.plot(learnt, one["t"], color=MOVING, lw=0.9, label="learnt" if i == 0 else None)
        least = one["least_jacobian"].values.min()
        title = f"{one['equation'].item()} at {one['speed'].item():g}: ∂X/∂ξ ≥ {least:.2g}"
        plots.label(ax, "X", "t", title=title)
        ax.legend(fontsize=7, loc="lower right")
    return fig


def _draw_training(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.4))
    for name, colour in (("fixed", FIXED), ("moving", MOVING)):
        data = _main(tree[name], "convection")
        styles = ("-", "--", "-.", ":")
        for case in range(data.sizes["case"]):
            one = data.isel(case=case)
            style = {"color": colour, "ls": styles[case % 4], "label": f"{name}, {one['speed'].item():g}"}
            axes[0, 0].semilogy(data["step"], np.median(one["watched_loss"], axis=1), **style)
            axes[0, 1].semilogy(data["step"], np.median(one["watched_error"], axis=1), **style)
    plots.label(axes[0, 0], "step", "loss", title="median of seeds")
    plots.label(axes[0, 1], "step", "error", y_unit="%", title="what the loss does not say")
    axes[0, 0].legend(fontsize=6, ncols=2)
    ax = axes[0, 2]
    for name, colour, _ in _present(tree):
        for equation, marker in (("convection", "o"), ("Burgers", "^")):
            data = _main(tree[name], equation)
            if data.sizes["case"]:
                ax.loglog(
                    data["loss"].values.ravel(), data["error"].values.ravel(), marker, color=colour, alpha=0.7, label=f"{name}, {equation}"
                )
    ax.legend(fontsize=6)
    plots.label(ax, "loss at the end", "error", y_unit="%", title="every network")
    return fig


def _draw_widths(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.4))
    for speed, colour in zip(data["speed"].values, plots.COLOURS, strict=False):
        axes[0, 0].semilogy(data["width_Burgers"].sel(speed=speed)[:45], color=colour, label=f"speed {speed:g}")
    axes[0, 0].legend(fontsize=7)
    plots.label(axes[0, 0], "modes n", "width dₙ", title="Burgers, fixed frame")
    for what, colour in zip(data["what"].values, plots.COLOURS, strict=False):
        axes[0, 1].semilogy(data["width_moving"].sel(what=what)[:45], color=colour, label=what, marker=".")
    axes[0, 1].legend(fontsize=7)
    plots.label(axes[0, 1], "modes n", "width dₙ", title="on the characteristics")
    for ax in axes[0, :2]:
        ax.set_ylim(1e-6, 2)
    for name, colour, marker in zip(("Burgers", "Gaussian", "sine"), plots.COLOURS, plots.MARKERS, strict=False):
        axes[0, 2].plot(data["speed"], data[f"modes_{name}"][-1], color=colour, marker=marker, label=name)
    axes[0, 2].legend(fontsize=7)
    plots.label(axes[0, 2], "speed", "modes for an error of 0.001", title="fixed frame")
    return fig


def _draw_landscapes(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 2, panel=(3.9, 3.3))
    for i, method in enumerate(data["frame"].values):
        for j, speed in enumerate(data["speed"].values):
            ax, one = axes[i, j], data.sel(frame=method, speed=speed)
            values = one["slice"].values
            filled = ax.contourf(data["first"], data["second"], np.log10(np.maximum(values.T, 1e-12)), levels=20)
            fig.colorbar(filled, ax=ax, label="log₁₀ loss")
            ax.grid(False)
            first = one["eigenvalue"].values[:, 0].mean()
            plots.label(ax, "along the first eigenvector", "the second", title=f"{method}, speed {speed:g}: λ₁ = {first:.2g}")
    return fig
