"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .solving import LEARNED, RTOL, named

COLOURS: dict[str, str] = {
    named(2): plots.COLOURS[1],
    "conjugate gradients": plots.COLOURS[0],
    "Jacobi": plots.COLOURS[5],
    "deflated": plots.COLOURS[2],
    "incomplete Cholesky": plots.COLOURS[3],
    named(0): plots.COLOURS[4],
}
WORDS = {named(2): "learned directions", named(0): "learned, not made conjugate"}
DOMAINS = {"box": "empty box", "disk": "solid disk", "noise": "white noise"}
GREY = "#666666"


def draw(findings: Findings) -> dict[str, Figure]:
    """Residuals along the iterations, grids that grow, time, training, and a direction beside the solution."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    figures = {
        "convergence": _draw_convergence(tree),
        "history": _draw_history(tree),
        "training": _draw_training(tree),
        "time": _draw_time(tree["timing"]),
        "direction": _draw_direction(tree["fields"]),
    }
    if (sizes := _larger(tree)) and len(sizes) > 1:
        figures["grids"] = _draw_grids(tree, sizes)
    return figures


def _larger(tree: dict[str, xr.Dataset]) -> dict[int, xr.Dataset]:
    """Boxes by their side, the one of the training first."""
    trained = tree["fields"].sizes["x"]
    return {trained: tree["box"]} | {int(name[4:]): data for name, data in tree.items() if name.startswith("box_")}


def _draw_convergence(tree: dict[str, xr.Dataset]) -> Figure:
    titles = {"box": "empty box", "disk": "solid disk, not seen in training", "noise": "white noise in the box"}
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3), sharey=True)
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        data = tree[name]
        for method, colour in COLOURS.items():
            curves = data["residual"].sel(solver=method).values.reshape(-1, data.sizes["step"])
            steps = np.arange(curves.shape[1])
            reached = np.isfinite(curves).all(axis=0)
            # The geometric mean, as long as no solve has ended.
            middle = np.exp(np.log(np.maximum(curves[:, reached], 1e-16)).mean(axis=0))
            ax.semilogy(steps[reached], middle, color=colour, label=WORDS.get(method, method), ls=":" if method == "Jacobi" else "-")
            ax.fill_between(steps[reached], *np.quantile(curves[:, reached], (0, 1), axis=0), color=colour, alpha=0.15, linewidth=0)
        ax.axhline(RTOL, color=GREY, ls=":", lw=1)
        plots.label(ax, "iteration", "‖r‖/‖r₀‖", title=title)
    fig.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small", frameon=False)
    return fig


def _draw_history(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.2))
    names = tree["box"]["solver"].values.tolist()
    methods = [name for name in names if name.startswith(LEARNED) and name.rsplit(" ", 1)[1].isdigit()]
    kept = [int(name.rsplit(" ", 1)[1]) for name in methods]
    for ax, rtol in zip(axes[0], tree["box"]["rtol"].values, strict=True):
        for colour, (name, title) in zip(
            plots.COLOURS, {"box": "empty box", "disk": "solid disk", "noise": "white noise"}.items(), strict=False
        ):
            steps = tree[name]["iterations"].sel(rtol=rtol)
            values = steps.sel(solver=methods).mean("rhs").transpose("seed", "solver").values
            plots.interval(ax, range(len(kept)), values, name=title, colour=colour, marker="o")
            gradients = float(steps.sel(solver="conjugate gradients").mean())
            ax.axhline(gradients, color=colour, ls=":", lw=1)
        ax.set_xticks(range(len(kept)), [str(h) for h in kept])
        ax.set_yscale("log")
        plots.label(ax, "earlier directions", "iterations", title=f"to {rtol:g} (dotted: conjugate gradients)")
    axes[0, 0].legend(fontsize=7)
    return fig


def _draw_grids(tree: dict[str, xr.Dataset], sizes: dict[int, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.4))
    sides = sorted(sizes)
    common = [m for m in sizes[sides[-1]]["solver"].values.tolist() if all(m in data["solver"].values for data in sizes.values())]
    counts = {
        m: np.stack([sizes[side]["iterations"].sel(solver=m, rtol=RTOL).mean("rhs").values for side in sides], axis=1) for m in common
    }
    ax = axes[0, 0]
    shown = [m for m in common if m in COLOURS and m != "Jacobi"]
    for m in shown:
        plots.interval(ax, sides, counts[m], name=str(WORDS.get(m, m)), colour=COLOURS[m], marker="o")
    ax.set_yscale("log")
    ax.set_ylim(top=4 * max(counts[m].max() for m in shown))
    plots.log_ticks(ax, sides)
    ax.legend(fontsize=7)
    plots.label(ax, "cells a side", f"iterations to {RTOL:g}", title=f"trained on {sides[0]} cells a side")
    ax = axes[0, 1]
    learned = [m for m in common if m.startswith(LEARNED) and m != named(0)]
    for m, colour in zip(learned, plots.COLOURS, strict=False):
        words = m.removeprefix(f"{LEARNED}, ")
        plots.interval(
            ax, sides, counts[m], name=f"{words} earlier" if words.isdigit() else f"2 earlier, {words}", colour=colour, marker="o"
        )
    ax.set_xticks(sides)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)
    plots.label(ax, "cells a side", f"iterations to {RTOL:g}", title="learned directions")
    return fig


def _draw_training(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.3))
    training, spectrum = tree["training"], tree["spectrum"]
    for colour, boost in zip(plots.COLOURS, training["boost"].values, strict=False):
        losses = training["loss"].sel(boost=boost).transpose("seed", "row").values
        axes[0, 0].semilogy(training["row"].values, losses.T, color=colour, lw=0.6, alpha=0.5)
        axes[0, 0].semilogy(training["row"].values, losses.mean(axis=0), color=colour, label=f"weight {boost:g}")
        axes[0, 1].semilogy(spectrum["value"].values, spectrum["energy"].sel(boost=boost).values, color=colour)
    axes[0, 0].legend(fontsize=8)
    plots.label(axes[0, 0], "step", "loss of the batch", title="training")
    plots.label(axes[0, 1], "Ritz value", "share of the energy", title="right-hand sides for training")
    return fig


def _draw_time(timing: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(5.6, 3.0))
    ax = axes[0, 0]
    seconds = 1e3 * timing["seconds"].median("repeat")
    order = seconds.mean("seed").to_series().sort_values().index.tolist()
    for row, method in enumerate(order):
        values = seconds.sel(solver=method).values
        colour = COLOURS[named(2)] if method == LEARNED else plots.COLOURS[0]
        ax.plot([values.min(), values.max()], [row, row], color=colour)
        ax.plot(values, np.full(values.size, row), "o", color=colour)
    least, most = float(seconds.min()), float(seconds.max())
    plots.log_ticks(ax, [m for m in (d * 10.0**e for e in range(-3, 6) for d in (1, 2, 5)) if least / 2 < m < 2 * most])
    ax.set_yticks(range(len(order)), order)
    plots.label(ax, "time of one solve", "", x_unit="ms", title=f"to {RTOL:g}, warm; a point for each seed")
    ax.set_ylabel("solver")
    return fig


def _draw_direction(fields: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.2, 2.9))
    top = float(np.abs(fields["solution"]).max())
    limits = {"b": float(np.abs(fields["b"]).max()), "solution": top, "direction": top}
    titles = {"b": "right-hand side b", "solution": "solution", "direction": "first step of the network"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=True):
        values = np.ma.masked_where(~fields["is_fluid"].values.astype(bool), fields[name].values)
        ax.set_facecolor("#bbbbbb")
        image = ax.imshow(values.T, origin="lower", cmap="RdBu_r", vmin=-limits[name], vmax=limits[name])
        ax.grid(visible=False)
        fig.colorbar(image, ax=ax, shrink=0.75)
        plots.label(ax, "x", "y", x_unit="cells", y_unit="cells", title=title)
    return fig
