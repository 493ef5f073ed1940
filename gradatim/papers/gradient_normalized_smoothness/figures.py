"""Gaps over iterations and solves, radii, the map of rates, rates on worst cases, counts over designs, and starts that arrive."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

COLOURS = {
    "exact": plots.COLOURS[0],
    "weighted": plots.COLOURS[1],
    "Gauss–Newton": plots.COLOURS[1],
    "Fisher term": plots.COLOURS[1],
    "Fisher": plots.COLOURS[1],
    "zero": plots.COLOURS[2],
}


def draw(findings: Findings) -> dict[str, Figure]:
    """One figure for each question."""
    problems = {name: node.to_dataset() for name, node in findings.data["problems"].children.items()}
    baselines = (findings.data[f"baselines/{name}"].to_dataset() for name in ("log_sum_exp", "chains"))
    return {
        "gap_over_iterations": _panels(problems, "step", "gap", "iterations", "f - f*"),
        "gap_over_solves": _panels(problems, "solves", "gap", "linear solves", "f - f*"),
        "radius": _panels(problems, "step", "radius", "iterations", "radius γ"),
        "phase_diagram": _phase_diagram(findings.data["waves"].to_dataset()),
        "worst_cases": _worst_cases(findings.data["waves"].to_dataset(), findings.data["chains"].to_dataset()),
        "designs": _designs(findings.data["designs"].to_dataset()),
        "starts": _starts(findings.data["starts"].to_dataset()),
        "baselines": _baselines(*baselines),
    }


def _panels(problems: dict[str, xr.Dataset], x: str, y: str, x_name: str, y_name: str) -> Figure:
    columns = min(4, len(problems))
    rows = -(-len(problems) // columns)
    fig, axes = plots.figure(rows, columns, panel=(3.3, 2.6))
    for ax, data in zip(axes.flat, problems.values(), strict=False):
        for hessian in data.hessian.values:
            one = data.sel(hessian=hessian)
            values = one[y].where(one[y] > 0)
            ax.plot(one[x] if x == "step" else one[x].values, values, color=COLOURS[str(hessian)], label=str(hessian), linewidth=1.3)
        ax.set_yscale("log")
        if data.sizes["step"] > 500:
            ax.set_xscale("log")
        plots.label(ax, x_name, y_name, title=str(data.attrs["name"]))
        ax.legend(fontsize="x-small")
    for ax in axes.flat[len(problems) :]:
        ax.remove()
    return fig


def _phase_diagram(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.6), sharey=True)
    data = data.mean("phase")
    low, high = min(float(data.slope.min()), float(data.theory.min())), max(float(data.slope.max()), float(data.theory.max()))
    image = None
    for ax, name, title in zip(
        axes[0], ("slope", "theory"), ("measured, mean over phases", "theory: the larger degree decides"), strict=True
    ):
        image = ax.imshow(data[name].values.T, origin="lower", vmin=low, vmax=high, cmap="cividis")
        for i in range(data.sizes["smoothness"]):
            for j in range(data.sizes["approximation"]):
                value = float(data[name][i, j])
                ink = "white" if value < (low + high) / 2 else "black"
                ax.text(i, j, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=ink)
        ax.set_xticks(range(data.sizes["smoothness"]), [f"{a:g}" for a in data.smoothness.values])
        ax.set_yticks(range(data.sizes["approximation"]), [f"{b:g}" for b in data.approximation.values])
        ax.grid(False)
        plots.label(ax, "degree of smoothness α", "degree of approximation β" if name == "slope" else "", title=title)
    if image is not None:
        fig.colorbar(image, ax=axes, label="slope of min ‖∇f‖ over k, log–log", shrink=0.8)
    return fig


def _worst_cases(waves: xr.Dataset, chains: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 3.1))
    k = waves.look.values
    for arm, bound, colour in zip(waves.arm.values, (-2 / 3, -1 / 2), plots.COLOURS, strict=False):
        least = waves.least_gradient.sel(arm=arm).values
        axes[0, 0].loglog(k, least, color=colour, label=str(arm))
        axes[0, 0].loglog(k, least[-1] * (k / k[-1]) ** bound, color=colour, linestyle="--", linewidth=0.9)
    plots.label(axes[0, 0], "iterations", "min ‖∇f‖", title="waves, valley; dashed k^(-2/3), k^(-1/2)")
    axes[0, 0].legend()
    for power, bound, colour in zip(chains.power.values, (-1, -2), plots.COLOURS, strict=False):
        gap = chains.gap.sel(power=power)
        steps = np.arange(1, chains.sizes["step"])
        axes[0, 1].loglog(steps, gap[1:], color=colour, label=f"power {power}")
        axes[0, 1].loglog(steps, float(gap[1]) * steps ** float(bound), color=colour, linestyle="--", linewidth=0.9)
    axes[0, 1].set_ylim(bottom=float(chains.gap.where(chains.gap > 0).min()) / 3)
    plots.label(axes[0, 1], "iterations", "f - f*", title="slack chain; dashed k^(-1), k^(-2)")
    axes[0, 1].legend()
    return fig


def _baselines(log_sum_exp: xr.Dataset, chains: xr.Dataset) -> Figure:
    powers = chains.power.values
    fig, axes = plots.figure(2, 2, panel=(4.2, 2.9))
    looks = dict(zip(log_sum_exp.arm.values, zip(plots.COLOURS, ("-", "-", "--", "--", "-.", "-."), strict=False), strict=False))
    for ax, x, x_name in zip(axes[0], ("step", "gradients"), ("iterations", "gradients, Hessians not counted"), strict=True):
        for arm in log_sum_exp.arm.values:
            one = log_sum_exp.sel(arm=arm)
            colour, dashes = looks[arm]
            ax.plot(one[x].values, one.gap.where(one.gap > 0), color=colour, linestyle=dashes, label=str(arm), linewidth=1.3)
        ax.set_xscale("log")
        ax.set_yscale("log")
        plots.label(ax, x_name, "f - f*", title=str(log_sum_exp.attrs["name"]))
    for ax, power in zip(axes[1], powers, strict=True):
        for arm in chains.arm.values:
            gap = chains.gap.sel(power=power, arm=arm)
            colour, dashes = looks[arm]
            ax.loglog(chains.step.values[1:], gap.where(gap > 0).values[1:], color=colour, linestyle=dashes, linewidth=1.3)
        plots.label(ax, "iterations", "f - f*", title=f"slack chain, power {power}")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return fig


def _designs(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 1.2 + 0.2 * data.sizes["arm"]), sharey=True)
    places = np.arange(data.sizes["arm"])
    for ax, count, x_name in zip(axes[0], ("steps", "solves"), ("iterations", "linear solves"), strict=True):
        for design, values in enumerate(data[count].values.T):
            ax.plot(values, places, "o", color=plots.COLOURS[0], markersize=4, alpha=0.6, label="" if design else "random designs")
        ax.plot(data[f"authors_{count}"].values, places, "x", color=plots.COLOURS[1], label="the authors' data")
        plots.log_ticks(ax, [10, 30, 100, 300, 1000])
        plots.label(ax, x_name, "")
    axes[0, 0].set_yticks(places, data.arm.values, fontsize="small")
    axes[0, 0].invert_yaxis()
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return fig


def _starts(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, data.sizes["system"], panel=(4.2, 3.1))
    for ax, system in zip(axes[0], data.system.values, strict=True):
        # Systems take times of their own.
        longest = 1.05 * float(data.steps.sel(system=system).max())
        for hessian in data.hessian.values:
            one = data.sel(system=system, hessian=hessian)
            steps = np.sort(np.where(one.reached.values > 0, one.steps.values, np.inf))
            share = np.arange(1, steps.size + 1) / steps.size
            ended = np.isfinite(steps)
            x = np.concatenate([steps[ended], [longest]])
            y = np.concatenate([share[ended], [ended.mean()]])
            ax.step(x, y, where="post", color=COLOURS[str(hessian)], label=f"{hessian}: {int(one.failures.sum())} failed factorisations")
        plots.label(ax, "iterations", "share of starts at the minimum", title=str(system))
        ax.set_ylim(0, 1.25)
        ax.legend(fontsize="small", loc="upper left")
    return fig
