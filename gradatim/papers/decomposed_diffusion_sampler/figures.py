"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

_ARMS = ("dds", "dps", "projection", "variation", "least squares", "dds, mixture", "exploding")
COLOURS: dict[str, str] = dict(zip(_ARMS, plots.COLOURS, strict=False))
WORDS = {
    "dds": "decomposed",
    "dps": "back-propagation",
    "projection": "pseudo-inverse",
    "variation": "total variation",
    "least squares": "no prior",
    "dds, mixture": "decomposed, mixture prior",
    "exploding": "decomposed, exploding",
    "dds, slice by slice": "decomposed, slice by slice",
}
TASKS = {"one_coil": "one coil", "coils": "several coils, noise", "projections": "few projections", "volumes": "quarter turn, volumes"}


def draw(findings: Findings) -> dict[str, Figure]:
    """Reconstructions, their quality, the way there, and what is exact."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    tasks = [name for name in TASKS if name in tree]
    return {
        "exact": _draw_exact(tree),
        "quality": _draw_quality(tree, tasks),
        "images": _draw_images(tree, tasks),
        "way": _draw_way(tree, tasks),
    }


def _draw_exact(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.0, 3.2))
    leak, tangent, recursion = tree["leak"], tree["tangent"], tree["recursion"]
    ax = axes[0, 0]
    for name, word in (("contained", "plane of low frequencies"), ("tilted", "plane at random")):
        plots.interval(ax, leak["steps"].values, leak[name].values, name=word, marker="o")
    ax.set_yscale("log")
    ax.legend(fontsize=7)
    plots.label(ax, "steps of conjugate gradients", "share of the update outside the plane")
    ax = axes[0, 1]
    places = np.arange(tangent.sizes["level"])
    for i, update in enumerate(tangent["update"].values):
        values = tangent["share"].sel(update=update).values
        ax.bar(places + 0.27 * (i - 1), values.mean(axis=1), 0.25, color=plots.COLOURS[i], label=update)
        for j in places:
            ax.plot(np.full(values.shape[1], j + 0.27 * (i - 1)), values[j], ".", color="black", ms=3)
    ax.set_xticks(places, [str(int(level)) for level in tangent["level"].values])
    ax.set_ylim(0, 1)
    ax.legend(fontsize=7)
    plots.label(ax, "training step of the noise", "squared share in leading directions", title="mixture prior")
    ax = axes[0, 2]
    ax.plot(recursion["exact"].values)
    ax.plot([recursion.sizes["level"] - 1], [float(recursion["end"])], "o", color=plots.COLOURS[1], label="sampler, single precision")
    ax.legend(fontsize=7)
    plots.label(ax, "level", "x", title="a standard normal number, from 1")
    return fig


def _draw_quality(tree: dict[str, xr.Dataset], tasks: list[str]) -> Figure:
    with_speed = "speed" in tree
    fig, axes = plots.figure(1, max(len(tasks) + with_speed, 1), panel=(3.8, 3.6))
    for ax, name in zip(axes[0], tasks, strict=False):
        ratio = tree[name]["ratio"]
        arms = [arm for arm in WORDS if arm in ratio["arm"].values]
        places = np.arange(len(arms))[::-1]
        for place, arm in zip(places, arms, strict=True):
            values = ratio.sel(arm=arm).values
            colour = COLOURS.get(arm, plots.COLOURS[5])
            ax.barh(place, np.median(values), color=colour, alpha=0.6)
            ax.plot(np.median(values, axis=1), np.full(len(values), place), ".", color="black", ms=4)
            if f"{arm}, fine" in ratio["arm"].values:
                ax.plot(np.median(ratio.sel(arm=f"{arm}, fine").values), place, "D", color="white", mec="black", ms=5)
        ax.set_yticks(places, [WORDS[arm] for arm in arms], fontsize=7)
        plots.label(ax, "median ratio of signal to noise", "sampler", x_unit="dB", title=TASKS[name])
    if with_speed:
        _draw_speed(axes[0, -1], tree)
    return fig


def _draw_speed(ax: object, tree: dict[str, xr.Dataset]) -> None:
    from matplotlib.axes import Axes

    assert isinstance(ax, Axes)
    speed = tree["speed"]
    ratio = tree[speed.attrs["task"].replace(" ", "_")]["ratio"].median(("set", "image"))
    whole = speed.attrs["pairs"] / speed.attrs["timed_pairs"]
    for sampler, factor, value, marker in (
        ("dds", 1.0, float(ratio.sel(arm="dds")), "o"),
        ("dps", 1.0, float(ratio.sel(arm="dps")), "s"),
        ("pairs", speed.attrs["quality_pairs"] / speed.attrs["timed_pairs"], float(speed["pairs_ratio"].median()), "^"),
    ):
        seconds = factor * float(speed["seconds"].sel(sampler=sampler).median())
        word = WORDS.get(sampler, f"{speed.attrs['quality_pairs']} predictor-corrector pairs")
        ax.plot(seconds, value, marker, color=COLOURS.get(sampler, plots.COLOURS[4]), ms=8, label=word)
    ax.axvline(
        whole * float(speed["seconds"].sel(sampler="pairs").median()),
        color="#666666",
        ls=":",
        label=f"time of {speed.attrs['pairs']} pairs",
    )
    ax.set_xscale("log")
    ax.legend(fontsize=7)
    plots.label(ax, "time", "median ratio of signal to noise", x_unit="s", y_unit="dB", title=f"{speed.attrs['images']} images")


def _draw_images(tree: dict[str, xr.Dataset], tasks: list[str]) -> Figure:
    arms = ("least squares", "variation", "projection", "dps", "dds, slice by slice", "dds")
    fig, axes = plots.figure(max(len(tasks), 1), len(arms) + 2, panel=(1.5, 1.65))
    for row, name in zip(axes, tasks, strict=False):
        one = tree[name]
        pictures = [("truth", one["truth"].values), ("adjoint of the data", one["back"].values)]
        pictures += [(WORDS[arm], one["shown"].sel(arm=arm).values) if arm in one["arm"].values else ("", None) for arm in arms]
        for ax, (words, picture) in zip(row, pictures, strict=True):
            ax.grid(False)
            ax.set(xticks=[], yticks=[])
            if picture is None:
                ax.set_axis_off()
                continue
            # Of the back-projection, whose size is its own, only the shape is shown.
            low, high = (-1, 1) if words != "adjoint of the data" else (picture.min(), picture.max())
            ax.imshow(picture, cmap="gray", vmin=low, vmax=high)
            ax.set_title(words, fontsize=6.5)
        row[0].set_ylabel(TASKS[name], fontsize=7)
    return fig


def _draw_way(tree: dict[str, xr.Dataset], tasks: list[str]) -> Figure:
    training = [name for name in tree if name.startswith("training_")]
    fig, axes = plots.figure(1, max(len(tasks) + bool(training), 1), panel=(3.8, 3.2))
    for ax, name in zip(axes[0], tasks, strict=False):
        for i, (arm, word) in enumerate({**WORDS, "dds, 1 inner": "decomposed, 1 inner step"}.items()):
            if f"misfit of {arm}" in tree[name]:
                values = np.maximum(tree[name][f"misfit of {arm}"].values, 1e-8)
                colour = COLOURS.get(arm, plots.COLOURS[5 if i < len(WORDS) else 6])
                ax.semilogy(np.linspace(0, 1, len(values)), values, color=colour, label=word)
        ax.legend(fontsize=7)
        plots.label(ax, "share of the levels done", "misfit of the estimate over the data", title=TASKS[name])
    for name, colour in zip(training, plots.COLOURS, strict=False):
        plots.interval(
            axes[0, -1], tree[name]["step"].values, tree[name]["loss"].values, colour=colour, name=name.removeprefix("training_")
        )
    if training:
        axes[0, -1].legend(fontsize=7)
        plots.label(axes[0, -1], "training step", "held-out loss", title="networks")
    return fig
