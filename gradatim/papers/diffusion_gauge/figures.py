"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .fields import COVARIANCE, SPHERE_FIELDS, WORDS
from .networks import KINDS, SURFACES

GREY = "#666666"
COLOURS = {"free": plots.COLOURS[1], "gradient": plots.COLOURS[0]}


def draw(findings: Findings) -> dict[str, Figure]:
    """Flows of normal data, likelihoods and Euler's steps, the sphere, networks, their fields, and the penalty."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    figures = {
        "ellipses": _draw_ellipses(tree["flows"]),
        "exactness": _draw_exactness(tree),
        "sphere": _draw_sphere(tree),
        "parts": _draw_parts(tree),
    }
    if any(name.startswith("reading_") for name in tree):
        figures |= {"networks": _draw_networks(tree), "dimensions": _draw_dimensions(tree)}
    return figures


def _draw_ellipses(flows: xr.Dataset) -> Figure:
    cases = {"gauge 0": "score alone", "gauge 0.5": "with the gauge field J ∇log p / 2", "rotation 0.5": "with the rotation Jx / 2"}
    fig, axes = plots.figure(1, len(cases), panel=(3.7, 3.5), sharex=True, sharey=True)
    turn = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    for ax, (case, words) in zip(axes[0], cases.items(), strict=True):
        x, values = flows["x"].sel(case=case).values, flows["singular_values"].sel(case=case).values[-1]
        for path in x:
            ax.plot(*path.T, color=plots.COLOURS[0], lw=0.8, alpha=0.8)
            ax.plot(*path[0], "o", color=GREY, ms=3)
            ax.plot(*path[-1], "o", color=plots.COLOURS[1], ms=4)
        for size in (1, 2):
            ax.plot(*(size * circle), color=GREY, ls=":", lw=0.8)
            ax.plot(*(size * np.linalg.cholesky(COVARIANCE) @ circle), color=plots.COLOURS[1], ls="--", lw=0.8)
        ax.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal")
        error = float(flows["covariance_error"].sel(case=case)[-1])
        plots.label(ax, "x₁", "x₂")
        ax.set_title(f"{words}\nσ = {values[0]:.3f}, {values[1]:.3f}; covariance off by {error:.0e}", fontsize=8, loc="left")
    return fig


def _draw_exactness(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.0, 3.3))
    likelihoods, euler, samples = tree["likelihoods"], tree["euler"], tree["samples"]
    ax = axes[0, 0]
    exact = likelihoods["exact"].values
    styles = {"gauge 0": "o", "gauge 0.5": "s", "gauge 2": "^", "rotation 2": "x", "wrong gradient": "+"}
    names = ("score alone", "0.5 J ∇log p", "2 J ∇log p", "2 J x", "score of the\nturned density")
    for (case, marker), name, colour in zip(styles.items(), names, plots.COLOURS, strict=False):
        filled = {} if marker in "x+" else {"mfc": "none"}
        ax.plot(exact, likelihoods["log_density"].sel(case=case).values, marker, color=colour, ms=5, label=name, **filled)
    ends = np.array([exact.min(), exact.max()])
    ax.plot(ends, ends, color=GREY, lw=0.8)
    ax.set_ylim(ends[0] - 6, ends[1] + 1)
    ax.legend(fontsize=7)
    plots.label(ax, "exact log density", "log density by the flow", x_unit="nat", y_unit="nat")
    ax = axes[0, 1]
    for c, colour in zip(euler["gauge"].values, plots.COLOURS, strict=False):
        ax.loglog(euler["steps"].values, euler["error"].sel(gauge=c).values, "o-", color=colour, label=f"c = {c:g}")
    steps = euler["steps"].values.astype(float)
    ax.loglog(steps, float(euler["error"].sel(gauge=0)[0]) * steps[0] / steps, color=GREY, ls=":", label="slope -1")
    plots.log_ticks(ax, steps)
    ax.legend(fontsize=7)
    plots.label(ax, "Euler steps", "relative error of the covariance", title="c J ∇log p in discrete time")
    ax = axes[0, 2]
    places = np.arange(len(SPHERE_FIELDS))
    for i, (way, colour) in enumerate(zip(samples["way"].values, plots.COLOURS, strict=False)):
        values = samples["distance"].sel(way=way).values
        at = places + 0.2 * (i - 0.5)
        ax.errorbar(at, values.mean(axis=1), values.std(axis=1), fmt="o", color=colour, capsize=3, label=str(way))
    floor = float(samples["data_distance"].mean())
    ax.axhline(floor, color=GREY, ls="--", lw=1, label="two samples of the data")
    ax.set_xticks(places, SPHERE_FIELDS, fontsize=8)
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=7)
    plots.label(ax, "gauge part", "sliced distance to the sphere")
    return fig


def _trajectories(ax: object, left: np.ndarray, values: np.ndarray, *, colour: str) -> None:
    """Medians over points, and the middle four fifths: (point, time, index)."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    for i in range(values.shape[-1]):
        ax.loglog(left, middle[:, i], color=colour)  # pyright: ignore[reportAttributeAccessIssue]
        ax.fill_between(left, low[:, i], high[:, i], color=colour, alpha=0.2, lw=0)  # pyright: ignore[reportAttributeAccessIssue]


def _draw_sphere(tree: dict[str, xr.Dataset]) -> Figure:
    names = [name for name in tree if name.startswith("sphere_")]
    fig, axes = plots.figure(len(names), len(SPHERE_FIELDS), panel=(3.1, 2.8), sharex=True, sharey=True)
    for row, name in zip(axes, names, strict=True):
        last = name == names[-1]
        data = tree[name]
        left = 1 - data["time"].values
        for i, (ax, field, colour) in enumerate(zip(row, SPHERE_FIELDS, plots.COLOURS, strict=False)):
            _trajectories(ax, left, data["singular_values"].sel(field=field).values, colour=colour)
            if i == 0:
                ax.loglog(left, np.median(data["expected"].values, axis=0), color="black", ls=":", lw=1)
            share = float((data["by_slope"].sel(field=field) == 2).mean())
            ax.set_title(f"{WORDS[field]}: {100 * share:.0f} % read 2", fontsize=7.5, loc="left")
            ax.set_xlabel("1 - t" if last else "")
            ax.set_ylabel(f"singular values, D = {name.split('_')[1]}" if i == 0 else "")
    axes[0, 0].invert_xaxis()
    return fig


def _draw_networks(tree: dict[str, xr.Dataset]) -> Figure:
    names = [name for name in tree if name.startswith("reading_")]
    fig, axes = plots.figure(len(names) * len(SURFACES), len(KINDS), panel=(3.9, 2.4), sharex=True, sharey=True)
    rows = [(name, surface) for name in names for surface in SURFACES]
    for row, (name, surface) in zip(axes, rows, strict=True):
        data = tree[name].sel(surface=surface)
        left = 1 - data["time"].values
        for ax, kind in zip(row, KINDS, strict=True):
            chosen = data.sel(kind=kind)
            values = chosen["singular_values"].transpose("seed", "shown", "time", "index").values
            _trajectories(ax, left, values.reshape(-1, *values.shape[2:]), colour=COLOURS[kind])
            share = float((chosen["by_slope"] == 2).mean())
            ax.set_title(f"{surface}, D = {name.split('_')[1]}, {kind} network: {100 * share:.0f} % read 2", fontsize=8, loc="left")
            ax.set_xlabel("1 - t" if (name, surface) == rows[-1] else "")
        row[0].set_ylabel("singular values")
    axes[0, 0].invert_xaxis()
    axes[0, 0].set_ylim(1e-4, 10)
    return fig


def _draw_dimensions(tree: dict[str, xr.Dataset]) -> Figure:
    names = [name for name in tree if name.startswith("reading_")]
    rules = {
        "by_slope": "slopes of the flow",
        "by_gap": "gap of the flow",
        "normal_space": "scores around a datum",
        "fokker_planck": "FLIPD",
    }
    sets = [(name, surface) for name in names for surface in SURFACES]
    fig, axes = plots.figure(1, len(sets), panel=(2.9, 3.2), sharey=True)
    for i, (ax, (name, surface)) in enumerate(zip(axes[0], sets, strict=True)):
        data = tree[name].sel(surface=surface)
        for j, kind in enumerate(KINDS):
            for k, rule in enumerate(rules):
                share = (data[rule].sel(kind=kind).round() == 2).mean("start").values
                at = k + 0.2 * (j - 0.5)
                ax.plot(np.full(share.size, at), share, ".", color=COLOURS[kind], ms=4)
                ax.plot(at, share.mean(), "_", color=COLOURS[kind], ms=12, mew=2, label=f"{kind} network" if k == 0 else "")
        local = float((data["local_components"] == 2).mean())
        ax.axhline(local, color=GREY, ls="--", lw=1, label="local components of the data")
        ax.set_xticks(range(len(rules)), [words.replace(" ", "\n") for words in rules.values()], fontsize=7)
        plots.label(ax, "rule", "" if i else "share of points that read 2", title=f"{surface}, D = {name.split('_')[1]}")
        ax.set_ylim(-0.05, 1.05)
    axes[0, -1].legend(fontsize=7, loc="lower left")
    return fig


def _draw_parts(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3))
    names = [name for name in tree if name.startswith("parts_")]
    ax, other = axes[0, 0], axes[0, 1]
    levels = tree[names[0]]["level"].values
    for name, marker in zip(names, plots.MARKERS, strict=False):
        for surface, line in zip(SURFACES, ("-", "--"), strict=True):
            data = tree[name].sel(surface=surface)
            title = f"{surface}, D = {name.split('_')[1]}"
            free = data.sel(kind="free")
            share = (free["remainder"] / free["field"]).mean("seed")
            ax.loglog(levels, share.values, line, marker=marker, color=COLOURS["free"], label=title)
            for kind in KINDS:
                error = (data["error"] / data["field"]).sel(kind=kind).mean("seed")
                other.loglog(
                    levels, error.values, line, marker=marker, color=COLOURS[kind], label=kind if title == f"{SURFACES[0]}, D = 3" else ""
                )
    ax.legend(fontsize=7, handlelength=4)
    other.legend(fontsize=7)
    plots.label(ax, "1 - t", "share of the gauge part", title="free network, upper bound")
    plots.label(other, "1 - t", "relative error of the score", title="dashed: sphere")
    penalised = tree["penalised"]
    for arm, colour in zip(penalised["arm"].values, plots.COLOURS, strict=False):
        values = penalised["statistic"].sel(arm=arm).values
        plots.interval(axes[0, 2], levels, values, name=f"{arm} the penalty", colour=colour, marker="o")
    axes[0, 2].set_xscale("log")
    axes[0, 2].set_yscale("log")
    axes[0, 2].legend(fontsize=7)
    plots.label(axes[0, 2], "1 - t", "weak gauge statistic of r", title="two-part field on the sphere")
    return fig
