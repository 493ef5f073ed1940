"""The figures, from the findings alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .training import NAMES, TARGET
from .wells import BOLTZMANN, two_wells

COLOURS = dict(zip(NAMES, plots.COLOURS, strict=False))
WELLS = {"spsa": "signs, two-point", "gaussian": "Gaussian, two-point", "sgd": "gradient", "silent": "no noise"}


def draw(findings: Findings) -> dict[str, Figure]:
    """Accuracy by evaluations, estimates by dimension, quality by kind, learners by noise, time in the flat well."""
    data = {name: node.to_dataset() for name, node in findings.data.children.items()}
    with plots.style():
        return {
            "training": _draw_training(data["training"]),
            "dimensions": _draw_dimensions(data["moments"], data["descents"]),
            "quality": _draw_quality(data["quality"]),
            "learners": _draw_learners(data["learners"]),
            "wells": _draw_wells(data["wells"]),
        }


def _draw_training(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(panel=(6.4, 4.0))
    ax = axes[0, 0]
    for arm in data.arm.values:
        # Nothing has been paid at the first look, which a logarithmic axis cannot show.
        curves = data.sel(arm=arm).dropna("look", how="any").isel(look=slice(1, None))
        accuracy = curves["accuracy"].transpose("seed", "look").values
        plots.interval(ax, curves.evaluations.values, accuracy, name=NAMES[str(arm)], colour=COLOURS[str(arm)])
    ax.axhline(TARGET, color="black", linewidth=0.8, linestyle=":")
    least = data.evaluations.where(data.evaluations > 0).min()
    ax.set_xscale("log")
    ax.set_xlim(float(least), float(data.evaluations.max()))
    ax.set_ylim(0, 1)
    ax.legend(fontsize="small", loc="lower right")
    plots.label(ax, "cost in forward passes", "test accuracy", title="At the rate that suits the others best, mean and 95 % interval")
    return fig


def _draw_dimensions(moments: xr.Dataset, descents: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    left, right = axes[0]
    d = moments.dimension.values
    left.loglog(d, moments["cosine"].mean("group"), "o", color=plots.COLOURS[0], label="measured")
    theory = [math.exp(math.lgamma(n / 2) - math.lgamma((n + 1) / 2)) / math.sqrt(math.pi) for n in d]
    left.loglog(d, theory, color="black", linewidth=0.8, label="Γ(d/2) / (√π Γ((d+1)/2))")
    left.legend()
    plots.label(left, "dimension d", "mean cosine to the gradient", title="One random direction")
    right.loglog(d, descents["steps"].mean("group"), "o", color=plots.COLOURS[0], label="two losses a step, rate 1/(d + 2)")
    right.loglog(d, descents["gradient_descent"], "s", color=plots.COLOURS[1], label="gradient descent, rate 1/3")
    right.loglog(d, -math.log(0.01) * (d + 2), color="black", linewidth=0.8, label="(d + 2) ln 100")
    right.legend(fontsize="small")
    plots.label(right, "dimension d", "steps to a hundredth of f", title="A round quadratic")
    return fig


def _draw_quality(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, sharey=True)
    order = data.arm.values[np.argsort(data["second_moment"].mean("net").values)]
    for place, arm in enumerate(order):
        for ax, name in zip(axes[0], ("second_moment", "cosine"), strict=True):
            values = data[name].sel(arm=arm).values
            ax.plot(values, np.full(len(values), place), "o", color=COLOURS[str(arm)])
    axes[0, 0].set_yticks(range(len(order)), [NAMES[str(arm)] for arm in order])
    axes[0, 0].set_xscale("log")
    axes[0, 1].set_xlim(0, None)
    plots.label(axes[0, 0], "second moment over squared gradient", "", title="At the start; a dot a network")
    plots.label(axes[0, 1], "mean cosine to the gradient", "")
    return fig


def _draw_learners(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    left, right = axes[0]
    returns = data["reward"].isel(time=-1)
    best = data.noise.values[1 + int(returns.mean("learner").values[1:-1].argmax())]
    for i in range(data.sizes["shown"]):
        left.plot(data.time, data["parameter"].sel(noise=best).isel(shown=i), color=plots.COLOURS[5], linewidth=0.6)
        left.plot(data.time, data["mean"].sel(noise=best).isel(learner=i), color=plots.COLOURS[0], linewidth=1.2)
    left.plot([], [], color=plots.COLOURS[5], label="parameter θ")
    left.plot([], [], color=plots.COLOURS[0], label="mean μ")
    left.axhline(1.0, color="black", linestyle=":", linewidth=0.8, label="target")
    left.legend()
    plots.label(left, "time", "value", title=f"Three learners, noise {best:g}")
    low, mid, high = np.percentile(returns.values, [5, 50, 95], axis=1)
    right.errorbar(data.noise, mid, [mid - low, high - mid], marker="o", capsize=3, color=plots.COLOURS[0])
    plots.label(right, "noise σ", "return", title="Median and 5 to 95 % of learners")
    return fig


def _draw_wells(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2)
    left, right = axes[0]
    x: Any = np.linspace(-2.2, 0.5, 300)
    left.plot(x, np.asarray(two_wells(x)), color=plots.COLOURS[0])
    plots.label(left, "x", "loss", title="Curvatures 1 and 25")
    for place, arm in enumerate(data.arm.values):
        values = data["flat_share"].sel(arm=arm).values
        right.plot(values, np.full(len(values), place), "o", color=plots.COLOURS[place])
    right.axvline(BOLTZMANN, color="black", linewidth=0.8, linestyle="--")
    right.set_yticks(range(data.sizes["arm"]), [WELLS[str(arm)] for arm in data.arm.values])
    right.set_xlim(0.4, 1.0)
    plots.label(right, "share of time in the flat well", "", title="A dot a group; dashed: Boltzmann")
    return fig
