"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gradatim.lab import Findings
from gradatim.lab.plots import COLOURS, MARKERS, figure, label, log_ticks


def draw(findings: Findings) -> dict[str, Figure]:
    """The densities, errors with their slopes, the fall onto the manifold, entropy, waves, and peaks around the critical mass."""
    tree = findings.data
    return {
        "aggregation": _draw_square(tree["patterns/square"].to_dataset()),
        "strips": _draw_line(tree["patterns/line"].to_dataset()),
        "rates": _draw_rates({name: tree[f"rates/{name}"].to_dataset() for name in ("ill", "well", "joint", "spreading", "ball")}),
        "layer": _draw_layer(tree["layer"].to_dataset()),
        "entropy": _draw_entropy(tree["entropy"].to_dataset()),
        "waves": _draw_waves(tree["waves"].to_dataset()),
        "critical_mass": _draw_balls({name: tree[f"balls/{name}"].to_dataset() for name in ("4d", "4d_quarter", "2d")}),
    }


_SYSTEMS = {
    "full": "full system, ε = {eps:g}, τ = {tau:g}",
    "indirect": "indirect limit, ε = 0, τ = {tau:g}",
    "direct": "direct limit, ε = τ = 0",
}


def _name(data: xr.Dataset, system: str) -> str:
    return _SYSTEMS[system].format(eps=data.attrs["eps"], tau=data.attrs["tau"])


def _norm(data: xr.Dataset) -> LogNorm:
    mean = float(data.cells[0, 0].mean())
    return LogNorm(mean / 100, max(float(data.cells.max()), 2 * mean))


def _held(data: xr.Dataset, row: int, time: float) -> bool:
    return bool(data.flag[row].sel(time=time, method="nearest") != 0)


def _draw_square(data: xr.Dataset) -> Figure:
    shown = range(1, data.sizes["snapshot"])
    fig, axes = figure(data.sizes["system"], len(shown), panel=(1.75, 1.9), sharex=True, sharey=True)
    image = None
    for row, system in enumerate(data.system.values):
        for ax, column in zip(axes[row], shown, strict=True):
            time = float(data.snapshot[column])
            field = np.maximum(data.cells[row, column].values.T, 1e-30)
            image = ax.pcolormesh(data.x, data.y, field, norm=_norm(data), cmap="inferno", rasterized=True)
            held = ", grid scale" if _held(data, row, time) else ""
            ax.set_title(f"t = {time:.2g}{held}", fontsize=8)
            ax.set_aspect("equal")
            ax.grid(False)
            if row == data.sizes["system"] - 1:
                ax.set_xlabel("x")
        axes[row, 0].set_ylabel(_name(data, system).replace(", ", "\n", 1) + "\ny", fontsize=8)
    if image is not None:
        fig.colorbar(image, ax=axes, label="density of cells", shrink=0.8, pad=0.01)
    return fig


def _draw_line(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, data.sizes["system"], panel=(3.4, 3.4), sharex=True, sharey=True)
    image = None
    for row, (ax, system) in enumerate(zip(axes[0], data.system.values, strict=True)):
        field = np.maximum(data.cells[row].values, 1e-30)
        image = ax.pcolormesh(data.x, data.snapshot, field, norm=_norm(data), cmap="inferno", rasterized=True)
        label(ax, "x", "" if row else "time", title=_name(data, system))
        ax.title.set_fontsize(8.5)
        ax.grid(False)
    if image is not None:
        fig.colorbar(image, ax=axes, label="density of cells", pad=0.01)
    return fig


def _slope(ax, x: np.ndarray, y: np.ndarray, order: float) -> None:
    """A thin line of that order below the last point."""
    ax.plot(x, 0.8 * y[-1] * (x / x[-1]) ** order, color="#888888", lw=0.8, ls="--", zorder=0)
    ax.annotate(f"order {order:g}", (x[0], 0.8 * y[-1] * (x[0] / x[-1]) ** order), fontsize=7.5, color="#555555", ha="right", va="top")


def _draw_rates(data: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 3, panel=(3.8, 3.3))
    titles = {"ill": "elliptic limit, with an initial layer", "well": "elliptic limit, well prepared"}
    lines = {"cells": "n, largest", "attractant": "c, square-integrated", "signal": "w, square-integrated", "cells_at_end": "n at the end"}
    for ax, (name, title) in zip(axes[0], titles.items(), strict=False):
        one = data[name]
        eps = one.eps.values
        for (norm, text), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
            ax.loglog(eps, one[norm], marker=marker, color=colour, label=text)
        _slope(ax, eps, one.cells_at_end.values, 1.0)
        if name == "ill":
            _slope(ax, eps, one.signal.values, 0.5)
        log_ticks(ax, eps)
        label(ax, "time scale ε", "L² error", title=title)
        ax.legend(fontsize=7.5)
    ax = axes[0, 2]
    small = float(data["spreading"].eps[0])
    for (name, text), colour, marker in zip(
        {"joint": "ε = τ", "spreading": f"τ alone, ε = {small:g}"}.items(), COLOURS, MARKERS, strict=False
    ):
        ax.loglog(data[name].tau, data[name].cells, marker=marker, color=colour, label=f"direct limit: {text}")
    _slope(ax, data["spreading"].tau.values, data["spreading"].cells.values, 1.0)
    ball = data["ball"]
    ax.loglog(ball.eps, ball.cells / float(ball.cells[0]) * float(data["spreading"].cells[-1]), MARKERS[2], color=COLOURS[2], ls="-")
    ax.plot([], [], MARKERS[2], color=COLOURS[2], ls="-", label="elliptic limit in the 4-ball: ε, scaled")
    label(ax, "parameter", "largest L² error of n", title="direct limit; four dimensions")
    ax.legend(fontsize=7.5)
    return fig


def _draw_layer(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2, sharey=True)
    names = {"signal": "‖τ∇²w - w + n‖", "attractant": "‖∇²c - c + w‖"}
    for ax, (name, title) in zip(axes[0], names.items(), strict=True):
        for k, colour in zip(range(data.sizes["eps"]), COLOURS, strict=False):
            scaled = data.time / data.eps[k]
            seen = scaled <= 40
            ax.semilogy(scaled[seen], data[name][k][seen], color=colour, label=f"ε = {float(data.eps[k]):g}")
        s = np.linspace(0.5, 12, 200)
        first = data[name][0].values
        mean = {"signal": np.exp(-s), "attractant": np.interp(s, data.time / data.eps[0], data.algebraic[0]) * np.exp(-s)}[name]
        at = int(np.argmin(np.abs((data.time / data.eps[0]).values - 3)))
        ax.semilogy(s, mean * first[at] / np.interp(3, s, mean), color="black", lw=0.8, ls="--", label="mean mode, exact")
        label(ax, "t / ε", "L² distance from the manifold" if name == "signal" else "", title=title)
        ax.legend()
    return fig


def _draw_entropy(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    for k, colour in zip(range(data.sizes["eps"]), COLOURS, strict=False):
        eps = float(data.eps[k])
        name = f"ε = {eps:g}" if eps else "elliptic limit"
        least = data.entropy[-1].values[-1]
        axes[0, 0].semilogy(data.time[:-1], np.maximum(data.entropy[k, :-1] - least, 1e-6), color=colour, label=name)
        axes[0, 1].semilogy(data.time, data.dissipation[k], color=colour, label=name)
        rate = -np.diff(data.entropy[k]) / np.diff(data.time)
        axes[0, 1].semilogy((data.time[1:].values + data.time[:-1].values) / 2, rate, color=colour, ls=":", lw=2.5, alpha=0.5)
    label(axes[0, 0], "time", "entropy over the limit's last", title="it falls in every step")
    label(axes[0, 1], "time", "rate", title="dissipation; dotted: the entropy's slope")
    for ax in axes[0]:
        ax.legend()
    return fig


def _draw_waves(data: xr.Dataset) -> Figure:
    fig, axes = figure()
    ax = axes[0, 0]
    for k, (colour, marker) in enumerate(zip(COLOURS, MARKERS, strict=False)):
        if k == data.sizes["eps"]:
            break
        eps = float(data.eps[k])
        ax.plot(data.theory_density, data.theory[k], color=colour, lw=1)
        ax.plot(data.density, data.rate[k], marker, color=colour, label=f"ε = {eps:g}" if eps else "elliptic limit")
    ax.axhline(0, color="black", lw=0.8)
    label(ax, "mean density", "growth rate of the first cosine", title="one threshold for every ε; lines: theory")
    ax.legend()
    return fig


def _draw_balls(data: dict[str, xr.Dataset]) -> Figure:
    fig, axes = figure(1, 3, panel=(3.6, 3.3))
    for ax, one in zip(axes[0], data.values(), strict=True):
        for k, colour in zip(range(one.sizes["share"]), COLOURS, strict=False):
            regular = one.flag[k].values == 0
            ax.semilogy(one.time[regular], one.peak[k][regular], color=colour, label=f"{float(one.share[k]):g}")
            if not regular.all():
                last = int(np.flatnonzero(regular)[-1])
                ax.semilogy(one.time[last], one.peak[k][last], "x", color=colour, ms=7)
        unit = "8π" if one.attrs["dimension"] == 2 else "64π²τ"
        what = "direct" if one.attrs["tau"] == 0 else f"τ = {one.attrs['tau']:g}"
        label(ax, "time", "peak density over mass", title=f"{one.attrs['dimension']} dimensions, {what}")
        ax.legend(title=f"mass [{unit}]; ×: collapse", fontsize=7.5, title_fontsize=7.5, ncols=2, loc="upper right")
    return fig
