"""The figures of the experiment on Drop-Muon, from its findings alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gradatim.lab import Findings, plots

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

NAMES = {
    "muon": "Muon",
    "uniform": "uniform starts",
    "shift": "shallow to deep",
    "reversed": "deep to shallow",
    "independent": "independent layers",
    "deep": "deep throughout",
    "full": "every layer",
}
COLOURS = dict(zip(("muon", "uniform", "shift", "reversed", "independent", "deep"), plots.COLOURS, strict=False))


def draw(findings: Findings) -> dict[str, Figure]:
    """Accuracy by steps and by the clock, seconds of a step, costs and rates beside the theory."""
    trees = findings.data
    race = trees["race"].to_dataset()
    steps = trees["steps"].to_dataset()
    figures = {
        "accuracy": _accuracy(race, steps),
        "steps": _steps(steps),
        "cost": _cost(trees["cost"].to_dataset()),
        "rate": _rate(trees["rate"].to_dataset()),
        "descent": _descent(trees["descent"].to_dataset()),
    }
    if "tuning" in trees.children:
        figures["rates"] = _rates(trees["tuning"].to_dataset())
    return figures


def _accuracy(race: xr.Dataset, steps: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 2)
    seconds = steps["seconds"].median("repeat")
    for arm in race.arm.values:
        curves = race.sel(arm=arm).isel(rate=0)
        clock = _clock(arm, race, seconds)
        for row, split in enumerate(("train", "test")):
            plots.interval(axes[row, 0], race.step.values, curves[split].values, name=NAMES[arm], colour=COLOURS[arm])
            plots.interval(axes[row, 1], clock, curves[split].values, name=NAMES[arm], colour=COLOURS[arm])
    for row, split in enumerate(("training", "test")):
        top = float(race["train" if row == 0 else "test"].max())
        for ax, x, unit in zip(axes[row], ("step", "training time"), ("", "s"), strict=True):
            plots.label(ax, x, f"{split} accuracy", x_unit=unit, y_unit="%")
            ax.set_ylim(top - 25, top + 1)
    axes[0, 0].legend()
    return fig


def _clock(arm: str, race: xr.Dataset, seconds: xr.DataArray) -> np.ndarray:
    """Seconds of training at each look, mean over seeds."""
    names = str(race["variants"].sel(arm=arm).values).split()
    each = seconds.sel(active=names).values[race["variant"].sel(arm=arm).values]
    total = np.concatenate([np.zeros((len(each), 1)), each.cumsum(1)], axis=1).mean(0)
    return total[race.step.values]


def _steps(steps: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    medians = steps["seconds"].median("repeat")
    spread = steps["seconds"].quantile([0.25, 0.75], "repeat")
    at = np.arange(medians.size)
    errors = np.abs(spread.values - medians.values)
    axes[0, 0].bar(at, 1e3 * medians.values, yerr=1e3 * errors, color=plots.COLOURS[0], capsize=3)
    axes[0, 0].set_xticks(at, [str(name) for name in medians.active.values])
    plots.label(axes[0, 0], "layers updated", "time of a step", y_unit="ms")
    operations = steps["operations"]
    by_start = medians.sel(active=operations.start.values)
    relative = {"operations": operations / operations[0], "seconds": by_start / by_start[0]}
    for k, (name, values) in enumerate(relative.items()):
        axes[0, 1].bar(np.arange(values.size) + 0.4 * k - 0.2, values.values, width=0.4, label=name, color=plots.COLOURS[k])
    axes[0, 1].set_xticks(np.arange(operations.size), [str(1 + i) for i in range(operations.size)])
    plots.label(axes[0, 1], "first layer updated", "over Muon's")
    axes[0, 1].legend()
    return fig


def _cost(cost: xr.Dataset) -> Figure:
    fig, axes = plots.figure()
    ax = axes[0, 0]
    for k, problem in enumerate(("layered", "first largest")):
        rows = [name for name in cost.scheme.values if name.startswith(problem)]
        measured = cost["measured"].sel(scheme=rows)
        ax.errorbar(
            cost["predicted"].sel(scheme=rows), measured.mean("group"), yerr=measured.std("group"),
            fmt=plots.MARKERS[k], color=plots.COLOURS[k], label=f"constants {('1, 4, 2', '3, 1, 2')[k]}",
        )  # fmt: skip
    ends = [float(cost["predicted"].min()) * 0.9, float(cost["predicted"].max()) * 1.1]
    ax.plot(ends, ends, color="black", linewidth=0.8)
    plots.label(ax, "cost by the theory", "cost measured", x_unit="of full updates", y_unit="of full updates")
    ax.legend()
    return fig


def _rate(rate: xr.Dataset) -> Figure:
    fig, axes = plots.figure()
    ax = axes[0, 0]
    for k, arm in enumerate(rate.arm.values):
        plots.interval(
            ax, rate.horizon.values, rate["dual_norm"].sel(arm=arm).values.T, name=NAMES[arm], colour=plots.COLOURS[k], marker="o"
        )
    horizons = rate.horizon.values
    guide = float(rate["dual_norm"].isel(horizon=0).mean()) * (horizons / horizons[0]) ** -0.25
    ax.plot(horizons, guide, color="black", linestyle="--", linewidth=0.8, label="exponent -1/4")
    ax.set_xscale("log")
    ax.set_yscale("log")
    plots.label(ax, "number of steps K", "mean dual norm of the gradient")
    ax.legend()
    return fig


def _descent(descent: xr.Dataset) -> Figure:
    fig, axes = plots.figure()
    ax = axes[0, 0]
    for k, problem in enumerate(descent.problem.values):
        ax.plot(
            descent.step, -descent["excess"].sel(problem=problem), label=str(problem), color=plots.COLOURS[k], linestyle=("-", "--")[k % 2]
        )
    ax.set_yscale("symlog", linthresh=1e-9)
    plots.label(ax, "step", "descent beyond the bound", y_unit="of the loss")
    ax.legend()
    return fig


def _rates(tuning: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(6.4, 3.2))
    ax = axes[0, 0]
    for arm in tuning.arm.values:
        final = tuning["train"].sel(arm=arm).isel(step=-1).mean("seed")
        ax.plot(tuning.rate, final, marker="o", label=NAMES[arm], color=COLOURS[arm])
    plots.log_ticks(ax, tuning.rate)
    plots.label(ax, "learning rate", "training accuracy, mean over pilots", y_unit="%")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig
