"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .exact import DATA_STD

_SAMPLERS = ("log", "space", "additive", "evenly weighted", "from noised data", "ramped")
COLOURS: dict[str, str] = dict(zip(_SAMPLERS, plots.COLOURS, strict=False))
WORDS = {
    "log": "sign preserving",
    "space": "in the space itself",
    "evenly weighted": "sign preserving,\nlevels alike",
    "ramped": "sign preserving,\nslow noise, levels alike",
    "from noised data": "sign preserving,\nfrom noised data",
    "additive": "additive",
}
GREY = "#666666"


def draw(findings: Findings) -> dict[str, Figure]:
    """The motion, both samplers, images on their way, spirals, distances, losses and weights."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    figures = {
        "motion": _draw_motion(tree["motion"]),
        "samplers": _draw_samplers(tree),
        "images": _draw_images(tree["images"]),
        "distances": _draw_distances(tree),
        "training": _draw_training(tree),
        "weights": _draw_weights(tree["regression"]),
    }
    if "spirals" in tree:
        figures["spirals"] = _draw_spirals(tree["spirals"])
    return figures


def _normal(x: np.ndarray, mean: float, std: float) -> np.ndarray:
    return np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))


def _draw_motion(motion: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.4))
    for i, t in enumerate(motion["time"].values):
        colour, one = plots.COLOURS[i], motion.sel(time=t)
        mean, std = float(one["mean"]), float(one["variance"]) ** 0.5
        y = np.linspace(mean - 4 * std, mean + 4 * std, 200)
        words = f"t = {t:g}, p = {float(one['p_value']):.2f}"
        ax = axes[0, 0]
        ax.hist(one["log"].values, 60, density=True, color=colour, alpha=0.35)
        ax.plot(y, _normal(y, mean, std), color=colour, label=words)
        ax = axes[0, 1]
        ax.hist(np.exp(one["log"].values), np.linspace(0, 5, 80).tolist(), density=True, color=colour, alpha=0.35)
        ax.plot(np.exp(y), _normal(y, mean, std) / np.exp(y), color=colour)
        ax.set_xlim(0, 5)
    axes[0, 0].legend(fontsize=7)
    plots.label(axes[0, 0], "log X", "density", title="simulated in the space, and its law")
    plots.label(axes[0, 1], "X", "density", title="the same, log-normal")
    return fig


def _draw_samplers(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.0, 3.3))
    samplers, recursion, mirror = tree["samplers"], tree["recursion"], tree["mirror"]
    steps, n = samplers["steps"].values, samplers.attrs["samples"]
    ax = axes[0, 0]
    ax.loglog(recursion["count"].values, recursion["error"].values, color=COLOURS["log"], label="sign preserving, exactly")
    for name, marker in (("log", "o"), ("space", "s")):
        error = np.abs(samplers[f"{name}_variance"].values - DATA_STD**2)
        bars = 1.96 * samplers[f"{name}_error"].values
        ax.errorbar(steps, error, bars, fmt=marker, color=COLOURS[name], capsize=2, label=f"{WORDS[name]}, sampled")
    ends = np.array([recursion["count"].values[0], recursion["count"].values[-1]])
    ax.loglog(ends, 0.5 * float(recursion["error"][0]) * ends[0] / ends, color=GREY, ls=":", label="slope -1")
    ax.legend(fontsize=7)
    plots.label(ax, "steps", "|error| of the log-variance", title="exact score")
    ax = axes[0, 1]
    for name, marker in (("log", "o"), ("space", "s")):
        ax.plot(steps, samplers[f"{name}_crossings"].values / n, marker=marker, color=COLOURS[name], label=WORDS[name])
    ax.set_xscale("log")
    # Linear below a single one.
    ax.set_yscale("symlog", linthresh=1 / n)
    ax.set_ylim(bottom=-0.1 / n)
    plots.log_ticks(ax, steps)
    ax.legend(fontsize=7)
    plots.label(ax, "steps", "changes of sign a sample", title="crossing zero")
    ax = axes[0, 2]
    ax.plot(mirror["step"].values, mirror["path"].values)
    ax.plot(mirror["step"].values, mirror["path"].values, color="black", ls=":", lw=1)
    ax.set_yscale("log")
    worst = float(mirror["difference"].max())
    plots.label(ax, "step", "X", title=f"dotted: mirrored, off by {worst:.0e}")
    return fig


def _draw_images(images: xr.Dataset) -> Figure:
    shown, side = images["shown"], round(images.sizes["coordinate"] ** 0.5)
    ends = [(name, shown.sel(sampler=name).values[-1]) for name in ("log", "space", "evenly weighted", "ramped", "additive")]
    rows = [(f"t = {t:g}", shown.sel(sampler="log").values[i]) for i, t in enumerate(images["frame"].values[:-1])]
    rows += [(WORDS[name], points) for name, points in ends] + [("held out", images["data"].values)]
    fig, axes = plots.figure(len(rows), 1, panel=(8.4, 0.85))
    for (ax,), (words, points) in zip(axes, rows, strict=True):
        # As they are, on the scale of the data: what lies beyond is white or black.
        framed = np.pad(points.reshape(-1, side, side), ((0, 0), (0, 0), (0, 1)), constant_values=2)
        ax.imshow(np.concatenate(list(framed), axis=1), cmap="gray", vmin=1, vmax=2)
        ax.grid(False)
        ax.set(xticks=[], yticks=[])
        ax.set_ylabel(words.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=7)
    return fig


def _draw_spirals(spirals: xr.Dataset) -> Figure:
    names = ("log", "space", "evenly weighted", "ramped", "additive")
    fig, axes = plots.figure(2, len(names) + 1, panel=(2.7, 2.7), sharex="row", sharey="row")  # pyright: ignore[reportArgumentType]
    for j, name in enumerate(names):
        for ax, frame in ((axes[0, j], 0), (axes[1, j], -1)):
            points = spirals["shown"].sel(sampler=name).isel(frame=frame).values
            ax.plot(*points.T, ",", color=COLOURS[name])
        axes[0, j].set_title(WORDS[name].replace("\n", " "), loc="left", fontsize=8)
        axes[0, j].set(xlim=(0, 20), ylim=(0, 20))
    data = spirals["data"].values
    for ax in axes[:, -1]:
        ax.plot(*data.T, ",", color="black")
    axes[0, -1].set_title("held out", loc="left", fontsize=8)
    for ax in axes[1]:
        ax.set(xlim=(3, 7), ylim=(3, 7))
    for ax in axes.ravel():
        ax.grid(False)
        plots.label(ax, "x₁", "x₂")
    return fig


def _draw_distances(tree: dict[str, xr.Dataset]) -> Figure:
    sets = [name for name in ("spirals", "images") if name in tree]
    fig, axes = plots.figure(1, len(sets) + 1, panel=(4.2, 3.4))
    for ax, name in zip(axes[0], sets, strict=False):
        data = tree[name]
        names = data["sampler"].values.tolist()
        places = np.arange(len(names))[::-1]
        ax.barh(places, data["distance"].mean("seed").values, color=[COLOURS[sampler] for sampler in names])
        for values in data["distance"].values.T:
            ax.plot(values, places, ".", color="black", ms=4)
        ax.axvline(float(data["floor"]), color=GREY, ls="--", lw=1, label="training points")
        ax.set_yticks(places, [WORDS[sampler] for sampler in names], fontsize=7)
        ax.legend(fontsize=7)
        plots.label(ax, "sliced distance to held-out points", "sampler", title=name)
    ax, images = axes[0, -1], tree["images"]
    held_out = images["nearest_held_out"].values
    bins = np.linspace(0, 1.3 * float(np.nanquantile(images["nearest"].values, 0.99)), 50).tolist()
    ax.hist(held_out, bins, density=True, color="black", alpha=0.25, label="held out")
    for name in ("log", "space", "additive"):
        values = images["nearest"].sel(sampler=name).dropna("seed").values.ravel()
        ax.hist(values, bins, density=True, histtype="step", color=COLOURS[name], lw=1.4, label=WORDS[name])
    ax.legend(fontsize=7)
    plots.label(ax, "distance to the nearest training image", "density", title="images")
    return fig


def _draw_training(tree: dict[str, xr.Dataset]) -> Figure:
    sets = [name for name in ("spirals", "images") if name in tree]
    fig, axes = plots.figure(1, len(sets), panel=(4.6, 3.3))
    for ax, name in zip(axes[0], sets, strict=True):
        data = tree[f"{name}_training"]
        for arm in data["arm"].values:
            loss = data["loss"].sel(arm=arm).dropna("seed").values.T
            plots.interval(ax, data["row"].values, loss, name=str(arm), colour=COLOURS["log" if arm == "multiplicative" else str(arm)])
        ax.set_yscale("log")
        ax.legend(fontsize=7)
        plots.label(ax, "training step", "held-out loss, each its own", title=name)
    return fig


def _draw_weights(regression: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.0, 3.3))
    colours = dict(zip(regression["descent"].values, plots.COLOURS, strict=False))
    ax = axes[0, 0]
    for descent, colour in colours.items():
        logs = np.log(np.abs(regression["weight"].sel(descent=descent).values) + 1e-30)
        ax.hist(logs, np.linspace(-8, 1.5, 96).tolist(), density=True, histtype="step", lw=1.4, color=colour, label=descent)
    logs = np.log(np.abs(regression["weight"].sel(descent="exponentiated").values) + 1e-30)
    y = np.linspace(-8, 1.5, 300)
    ax.plot(y, _normal(y, float(logs.mean()), float(logs.std())), color="black", ls=":", label="normal, fitted to the first")
    ax.axvline(float(np.log(regression["start"])), color=GREY, ls="--", lw=1, label="start")
    ax.legend(fontsize=7)
    plots.label(ax, "log |weight|", "density", title="weights in the end")
    ax = axes[0, 1]
    bins = np.linspace(-4, 4, 60).tolist()
    for descent, colour in colours.items():
        values = np.clip(regression["skewness"].sel(descent=descent).values, -4, 4)
        ax.hist(values, bins, color=colour, alpha=0.6, label=descent)
    ax.axvline(0, color=GREY, lw=1)
    ax.legend(fontsize=7)
    plots.label(ax, "skewness of log |weight|", "runs", title="run by run, beyond ±4 at the edge")
    ax = axes[0, 2]
    for descent, colour in colours.items():
        ax.semilogy(regression["row"].values, regression["loss"].sel(descent=descent).values + 1e-16, color=colour, label=descent)
    ax.legend(fontsize=7)
    plots.label(ax, "step", "loss, mean over runs")
    return fig
