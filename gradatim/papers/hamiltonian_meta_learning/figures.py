"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

COLOURS = {"meta": plots.COLOURS[0], "pooled": plots.COLOURS[1], "random": plots.COLOURS[2], "true": "#000000"}
WORDS = {"meta": "meta-trained", "pooled": "pooled data", "random": "random start", "true": "true"}
CHAOTIC = (2, 3)


def draw(findings: Findings) -> dict[str, Figure]:
    """Adaptation, orbits, energies, representations, few points, variants and limits, and training."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "adaptation": _draw_adaptation(tree["adaptation"], "error", "field error"),
        "orbits": _draw_orbits(tree["paths"]),
        "along_time": _draw_along_time(tree["paths"]),
        "representation": _draw_adaptation(tree["adaptation"], "change", "1 - CKA of the last layer"),
        "comparisons": _draw_comparisons(tree),
        "training": _draw_training(tree["training"]),
    }


def _draw_adaptation(data: xr.Dataset, name: str, words: str) -> Figure:
    """Median over tasks and seeds, and quartiles, against steps."""
    fig, axes = plots.figure(1, data.sizes["system"], panel=(3.0, 3.0))
    for ax, system in zip(axes[0], data.system.values.tolist(), strict=True):
        for arm in data.arm.values.tolist():
            # A network has not changed before its first step.
            values = data[name].sel(arm=arm, system=system).isel(adapt_step=slice(int(name == "change"), None))
            rows = values.values.reshape(-1, values.sizes["adapt_step"])
            steps = np.arange(rows.shape[1]) + int(name == "change")
            low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
            ax.plot(steps, middle, color=COLOURS[arm], label=WORDS[arm])
            ax.fill_between(steps, low, high, color=COLOURS[arm], alpha=0.2, linewidth=0)
        ax.set_yscale("log")
        ax.xaxis.get_major_locator().set_params(integer=True)
        plots.label(ax, "step of adaptation", words if ax is axes[0, 0] else "", title=f"{system} held out")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return fig


def _draw_orbits(data: xr.Dataset) -> Figure:
    """Two systems of one degree of freedom in phase space, two of two degrees in the plane; one trajectory each."""
    systems = data.system.values.tolist()
    fig, axes = plots.figure(len(systems), 4, panel=(2.7, 2.5))
    for row, (system, i) in zip(axes, zip(systems, range(len(systems)), strict=True), strict=True):
        pair = (0, 1) if i in CHAOTIC else (0, 2)
        shown = data["shown"].sel(system=system)
        true = shown.sel(what="true").values[:, pair]
        for ax, what in zip(row, ("true", "meta", "pooled", "random"), strict=True):
            found = shown.sel(what=what).values[:, pair]
            if what != "true":
                ax.plot(*true.T, color="#bbbbbb", lw=1.0)
            ax.plot(*found.T, color=COLOURS[what], lw=1.2)
            ax.plot(*found[0], "o", color=COLOURS[what], ms=4)
            half, centre = 0.75 * np.ptp(true, axis=0).max() + 1e-6, (true.max(axis=0) + true.min(axis=0)) / 2
            ax.set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half), aspect="equal")
            plots.label(ax, "q₁", "q₂" if i in CHAOTIC else "p₁", title=system if what == "true" else WORDS[what])
    return fig


def _draw_along_time(data: xr.Dataset) -> Figure:
    """Geometric means over seeds, tasks and trajectories."""
    fig, axes = plots.figure(2, data.sizes["system"], panel=(3.0, 2.6))
    for row, (name, words) in zip(axes, (("state_curve", "error of the state"), ("energy_curve", "error of the true energy")), strict=True):
        for ax, system in zip(row, data.system.values.tolist(), strict=True):
            for arm in data.arm.values.tolist():
                ax.plot(data["later"], data[name].sel(arm=arm, system=system), color=COLOURS[arm], label=WORDS[arm])
            ax.set_yscale("log")
            title = f"{system} held out" if name == "state_curve" else ""
            plots.label(ax, "time", words if ax is row[0] else "", x_unit="unit times", title=title)
    axes[0, 0].legend(fontsize="small")
    return fig


def _draw_comparisons(tree: dict[str, xr.Dataset]) -> Figure:
    """Few points, variants, and the two limits."""
    fig, axes = plots.figure(1, 4, panel=(3.4, 3.1))
    few, full, special = tree["few_points"], tree["adaptation"], tree["special"]
    last = full["error"].isel(adapt_step=-1)
    ax = axes[0, 0]
    points = [*few.points.values.tolist(), 2 * max(few.points.values.tolist())]
    for arm in full.arm.values.tolist():
        rows = [few["error"].sel(arm=arm, points=n) for n in points[:-1]] + [last.sel(arm=arm)]
        ax.plot(points, [_geometric(part) for part in rows], color=COLOURS[arm], marker="o", label=WORDS[arm])
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(points, [*map(str, points[:-1]), "all"])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    plots.label(ax, "points of support", "field error after adaptation", title="few points")
    arms = {"mish": last.sel(arm="meta"), **{str(a): tree["variants"]["error"].sel(arm=a) for a in tree["variants"].arm.values}}
    _dots(axes[0, 1], {("mish,\nlog cosh" if a == "mish" else a): v for a, v in arms.items()})
    plots.label(axes[0, 1], "trained with", "field error after adaptation", title="activation and loss")
    _dots(axes[0, 2], {WORDS[a]: special["damped_error"].sel(arm=a) for a in special.arm.values.tolist()})
    axes[0, 2].axhline(float(special["damped_floor"]), color="black", ls="--", lw=1, label="what no energy can produce")
    axes[0, 2].legend(fontsize="small")
    plots.label(axes[0, 2], "start", "field error", title="damped oscillator")
    ax = axes[0, 3]
    for arm in special.arm.values.tolist():
        values = special["two_body_error"].sel(arm=arm).values
        ax.plot(np.exp(np.log(values).mean(axis=tuple(range(values.ndim - 1)))), color=COLOURS[arm], label=WORDS[arm])
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_yscale("log")
    plots.label(ax, "step of adaptation", "field error", title="two bodies, graph network")
    return fig


def _dots(ax: Axes, groups: dict[str, xr.DataArray]) -> None:
    """Every seed's geometric mean."""
    for i, values in enumerate(groups.values()):
        logs: xr.DataArray = xr.apply_ufunc(np.log, values)
        by_seed = np.exp(logs.mean([dim for dim in values.dims if dim != "seed"]).values)
        ax.plot(np.full(len(by_seed), i), by_seed, plots.MARKERS[i], color=plots.COLOURS[i], alpha=0.8)
    ax.set_xticks(range(len(groups)), list(groups), fontsize="small")
    ax.set_xlim(-0.5, len(groups) - 0.5)


def _draw_training(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, data.sizes["system"], panel=(3.0, 2.9), sharey=True)
    for ax, system in zip(axes[0], data.system.values.tolist(), strict=True):
        for arm, colour in zip(data.arm.values.tolist(), plots.COLOURS, strict=False):
            logs: xr.DataArray = xr.apply_ufunc(np.log, data["loss"].sel(arm=arm, system=system))
            values = np.exp(logs.mean("seed").values)
            name = {"meta": "mish, log cosh", "pooled": "pooled, no inner steps"}.get(arm, arm)
            ax.plot(data["outer_step"], values, color=colour, label=name)
        ax.set_yscale("log")
        plots.label(ax, "outer step", "loss of a step" if ax is axes[0, 0] else "", title=f"without {system}")
    axes[0, 0].legend(fontsize="x-small")
    return fig


def _geometric(values: xr.DataArray) -> float:
    return float(np.exp(np.log(values).mean()))
