"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .paths import WORDS

COLOURS = dict(zip(WORDS, plots.COLOURS, strict=False))
GREY = "#666666"


def draw(findings: Findings) -> dict[str, Figure]:
    """What is known of data in noise, paths, energies, dimensions, the checkerboard and the solver."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "separation": _draw_separation(tree),
        "paths": _draw_paths(tree["images"]),
        "dimension": _draw_dimension(tree["images"]),
        "energies": _draw_energies(tree),
        "checkerboard": _draw_checkerboard(tree["checkerboard"]),
        "steps": _draw_steps(tree["checkerboard"]),
    }


def _separation(images: xr.Dataset, name: str) -> np.ndarray:
    gamma = (images["root_gamma"].sel(set=name) ** 2).mean("replicate").values
    return 1 - (1 - gamma) * np.cos(images["angle"].values) ** 2


def _draw_separation(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.8, 3.6), sharey=True)
    images, views, lines = tree["images"], tree["views"], tree["lines"]
    degrees = np.degrees(images["angle"].values)
    names = images["set"].values.tolist()
    for ax, kind in zip(axes[0], ("digits", "patches"), strict=True):
        chosen = [name for name in names if name.startswith(kind)]
        for name, colour in zip(chosen, plots.COLOURS, strict=False):
            ax.plot(degrees, _separation(images, name), color=colour, label=name)
        ax.plot(degrees, np.sin(np.radians(degrees)) ** 2, color="black", ls=":", label="standard Gaussian")
        plots.label(ax, "angle θ = arctan(a / m)", "λ", x_unit="°")
    ax = axes[0, 0]
    kept = views["left_out"].values > -0.1
    ax.plot(
        np.degrees(views["angle"].values)[kept],
        views["left_out"].values[kept],
        color=plots.COLOURS[2],
        ls="--",
        label="8 × 8, leave one out",
    )
    two = 1 - lines["gap"].sel(set="two points").values
    ax.plot(np.degrees(lines["angle"].values), two, color=GREY, ls="-.", label="two points on a line")
    for ax, title in zip(axes[0], ("digits", "patches of photographs"), strict=True):
        ax.set_title(title, loc="left")
        ax.legend(fontsize=7, loc="lower right")
    return fig


def _draw_paths(images: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.6))
    t = images["time"].values
    turn = np.linspace(0, np.pi / 2, 100)
    for ax, kind in zip(axes[0], ("digits", "patches"), strict=True):
        chosen = [name for name in images["set"].values.tolist() if name.startswith(kind)]
        for name, colour in zip(chosen, plots.COLOURS, strict=False):
            a, m = (images[part].sel(set=name).mean("replicate").values for part in ("a", "m"))
            ax.plot(m, a, color=colour, label=name)
            ax.plot(m[:: len(t) // 10], a[:: len(t) // 10], ".", color=colour, ms=4)
        ax.plot(1 - t, t, color="black", ls="--", lw=1, label="straight")
        ax.plot(np.cos(turn), np.sin(turn), color="black", ls=":", lw=1, label="trigonometric, preserving")
        ax.set_aspect("equal")
        ax.legend(fontsize=7)
        plots.label(ax, "noise m", "data a", title=f"optimal paths, {kind}")
    return fig


def _draw_dimension(images: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.3))
    t = images["time"]
    apart = (((images["a"] - t) ** 2 + (images["m"] - (1 - t)) ** 2) ** 0.5).max("time")
    names, dimension = np.array(images["set"].values.tolist()), images["dimension"].values
    for ax, values, words in (
        (axes[0, 0], images["area"], "area between λ and one"),
        (axes[0, 1], apart, "distance from the straight path"),
    ):
        for kind, colour, marker in (("digits", plots.COLOURS[0], "o"), ("patches", plots.COLOURS[1], "s")):
            chosen = np.array([name.startswith(kind) for name in names])
            plots.interval(ax, dimension[chosen], values.values[chosen].T, name=kind, colour=colour, marker=marker)
        ax.set_xscale("log", base=2)
        ax.set_ylim(bottom=0)
        plots.label(ax, "dimension", words)
    axes[0, 0].axhline(0.819, color=GREY, ls="--", lw=1, label="straight = trigonometric")
    axes[0, 0].legend(fontsize=8)
    return fig


def _draw_energies(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3))
    digits, board, solver = tree["images"].sel(set="digits 8 × 8"), tree["checkerboard"], tree["solver"]
    places, names = np.arange(len(WORDS)), list(WORDS)
    colours = [COLOURS[name] for name in names]
    ax = axes[0, 0]
    ax.bar(places, digits["energy"].mean("replicate").values, color=colours)
    ax.errorbar(places, digits["sampled"].values, 1.96 * digits["sampled_error"].values, fmt="o", color="black", ms=3, label="Monte Carlo")
    ax.plot(places, digits["conditional"].mean("replicate").values, "_", color=GREY, ms=18, label="conditional")
    ax.legend(fontsize=7)
    plots.label(ax, "", "kinetic energy", title="digits: by formula")
    ax = axes[0, 1]
    ax.bar(places, board["energy"].mean("seed").values, color=colours)
    for row in board["energy"].values:
        ax.plot(places, row, ".", color="black", ms=4)
    ax.plot(places, board["formula"].mean("seed").values, "_", color=GREY, ms=18, label="by formula")
    ax.legend(fontsize=7)
    plots.label(ax, "", "kinetic energy", title="checkerboard: trained fields")
    ax = axes[0, 2]
    counts = solver["evaluations"].mean("sample").values
    ax.bar(places, counts.mean(axis=0), color=colours)
    for row in counts:
        ax.plot(places, row, ".", color="black", ms=4)
    plots.label(ax, "", "evaluations", title="digits: exact velocity, adaptive solver")
    for ax in axes[0]:
        ax.set_xticks(places, [WORDS[name].replace(" ", "\n") for name in names], fontsize=7)
        ax.set_xlabel("path")
    return fig


def _draw_checkerboard(board: xr.Dataset) -> Figure:
    steps = [n for n in board["steps"].values.tolist() if n <= 10]
    fig, axes = plots.figure(len(WORDS), len(steps) + 1, panel=(2.3, 2.3), sharex=True, sharey=True)
    for i, (row, (name, words)) in enumerate(zip(axes, WORDS.items(), strict=True)):
        panels = [(f"{n} steps", board["ends"].sel(path=name, steps=n).values) for n in steps] + [("data", board["data"].values)]
        for ax, (title, points) in zip(row, panels, strict=True):
            ax.plot(*points.T, ",", color=COLOURS[name] if title != "data" else "black", alpha=0.6)
            ax.set(xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
            ax.grid(False)
            plots.label(ax, "x₁" if i == len(WORDS) - 1 else "", "", title="" if i else title)
        row[0].set_ylabel(f"{words}\nx₂")
    return fig


def _draw_steps(board: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.5, 3.4))
    for name, words in WORDS.items():
        plots.interval(
            axes[0, 0], board["steps"].values, board["distance"].sel(path=name).values, name=words, colour=COLOURS[name], marker="o"
        )
        loss = board["loss"].sel(path=name).values.T
        plots.interval(axes[0, 1], board["row"].values, loss, name=words, colour=COLOURS[name])
    ax = axes[0, 0]
    ax.axhline(float(board["data_distance"].mean()), color=GREY, ls="--", lw=1, label="two samples of the data")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(board["steps"].values, [str(n) for n in board["steps"].values])
    ax.legend(fontsize=7)
    plots.label(ax, "Euler steps", "sliced distance to held-out points")
    axes[0, 1].set_yscale("log")
    plots.label(axes[0, 1], "training step", "loss, not comparable between paths")
    return fig
