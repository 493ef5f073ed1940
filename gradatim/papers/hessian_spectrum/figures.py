"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

from .spectra import NEAR_ZERO, RULES
from .switch import PATHS


def draw(findings: Findings) -> dict[str, Figure]:
    """Sorted spectra, their density, outliers against clusters and overlap, G beside H, and the lines between ends."""
    tree = findings.data
    return {
        "spectra": _draw_spectra(tree),
        "density": _draw_density(tree),
        "outliers": _draw_outliers(tree),
        "gauss_newton": _draw_gauss_newton(tree),
        "lines": _draw_lines(tree),
    }


def _group(tree: xr.DataTree, path: str) -> xr.Dataset:
    node = tree[path]
    assert isinstance(node, xr.DataTree)
    return node.to_dataset()


def _by_width(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    node = tree["width"]
    assert isinstance(node, xr.DataTree)
    return {width: child.to_dataset() for width, child in node.children.items()}


def _draw_spectra(tree: xr.DataTree) -> Figure:
    fig, ((left, right),) = plots.figure(1, 2)
    for ax, when, title in ((left, "start", "At initialisation"), (right, "end", "After training")):
        for colour, (width, node) in zip(plots.COLOURS, _by_width(tree).items(), strict=False):
            values = node[f"hessian_{when}"].values
            name = f"{width} units, {values.shape[1]} parameters"
            for i, row in enumerate(values):
                ax.plot(np.linspace(0, 1, row.size), row / row[0], color=colour, lw=1, alpha=0.6, label=name if i == 0 else None)
        ax.set_yscale("symlog", linthresh=1e-6)
        ax.axhspan(-NEAR_ZERO, NEAR_ZERO, color="#eeeeee", zorder=0)
        ax.set_yticks([-1e-1, -1e-3, -1e-5, 0, 1e-5, 1e-3, 1e-1, 1])
        plots.label(ax, "share of eigenvalues, largest first", "eigenvalue / largest", title=title)
    right.legend(fontsize="small")
    return fig


def _draw_density(tree: xr.DataTree) -> Figure:
    data = _group(tree, "density")
    width, node = list(_by_width(tree).items())[-1]
    values = node["hessian_end"].values[0]
    apart = values > 0.1 * values[0]
    fig, ((ax,),) = plots.figure(panel=(6.4, 3.4))
    grid, density, error = (data[name].values for name in ("grid", "quadrature", "standard_error"))
    floor = 0.05 / (values.size * (grid[1] - grid[0]) * 100)
    ax.fill_between(grid, np.maximum(density - 2 * error, floor), np.maximum(density + 2 * error, floor), alpha=0.25, lw=0)
    ax.plot(grid, np.maximum(density, floor), label="stochastic Lanczos quadrature (± 2 standard errors)")
    ax.plot(grid, np.maximum(data["dense"].values, floor), "--", color=plots.COLOURS[1], lw=1, label="all eigenvalues, same smoothing")
    ax.plot(values[apart], np.full(apart.sum(), floor * 1.5), "v", color=plots.COLOURS[2], label=f"{apart.sum()} outliers above λmax/10")
    ax.plot(values[~apart], np.full((~apart).sum(), floor * 1.5), "|", color=plots.COLOURS[7], label=f"bulk of {(~apart).sum()}")
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    plots.label(ax, "eigenvalue λ", "density", x_unit="loss", y_unit="1/loss", title=f"Hessian after training, {width} units")
    ax.legend(fontsize="small")
    return fig


def _draw_outliers(tree: xr.DataTree) -> Figure:
    fig, ((left, right),) = plots.figure(1, 2)
    count = _group(tree, "clusters")["count"]
    clusters = count["clusters"].values
    for rule, marker, colour in zip(RULES, plots.MARKERS, plots.COLOURS, strict=False):
        plots.interval(left, clusters, count.sel(rule=rule).values.T, name=rule, marker=marker, colour=colour)
    left.plot(clusters, clusters, ":", color="black", label="one each")
    left.set_yscale("log", base=2)
    left.set_ylim(bottom=0.5)
    left.legend(fontsize="small", ncols=2, loc="lower right")
    plots.label(left, "clusters", "outliers", title="More clusters, equal loss")
    overlap = _group(tree, "overlap")
    for name, colour, label in (("top", plots.COLOURS[0], "λmax(H)"), ("loss", plots.COLOURS[1], "loss")):
        for i, row in enumerate(overlap[name].values.T):
            right.plot(overlap["overlap"].values, row, color=colour, marker="o", lw=1, alpha=0.6, label=label if i == 0 else None)
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.legend(fontsize="small")
    plots.label(right, "standard deviation of a cluster", "λmax, loss", title="Less separable, equal steps")
    return fig


def _draw_gauss_newton(tree: xr.DataTree) -> Figure:
    fig, axes = plots.figure(1, 2)
    node = list(_by_width(tree).values())[-1]
    for ax, when, title in zip(axes[0], ("start", "end"), ("At initialisation", "After training"), strict=True):
        h, g, r = (node[f"{name}_{when}"].values[0] for name in ("hessian", "gauss_newton", "residual"))
        n = min(40, h.size)
        index = np.arange(1, n + 1)
        for values, marker, name in ((h, "o", "H"), (g, "x", "G"), (r, ".", "R = H - G")):
            ax.plot(index, values[:n], marker, label=name)
        ax.set_yscale("symlog", linthresh=1e-6 * abs(h[0]))
        plots.label(ax, "index", "eigenvalue", y_unit="loss", title=f"{title}: ‖R‖/‖H‖ = {np.abs(r).max() / np.abs(h).max():.2g}")
    axes[0, 1].legend(fontsize="small")
    return fig


def _draw_lines(tree: xr.DataTree) -> Figure:
    fig, axes = plots.figure(1, 2)
    titles = {"over": "More parameters than examples", "under": "Fewer parameters than examples"}
    names = {
        "continued": "large end → small from there",
        "across": "large going on → the same",
        "forked": "large end → small from the start",
    }
    for ax, (regime, title) in zip(axes[0], titles.items(), strict=True):
        data = _group(tree, f"switch/{regime}")
        tops = data["top"].values[:, :, 0].mean(axis=1)
        top = dict(zip(data["point"].values.tolist(), tops, strict=True))
        for colour, (path, (a, b)) in zip(plots.COLOURS, PATHS.items(), strict=False):
            for i, row in enumerate(data["line"].sel(path=path).values):
                name = f"{names[path]}: λmax {top[a]:.2g}, {top[b]:.2g}"
                ax.plot(data["t"].values, row, color=colour, lw=1.2, alpha=0.7, label=name if i == 0 else None)
        ax.set_yscale("log")
        ax.legend(fontsize="x-small")
        plots.label(ax, "from one end of the line (0) to the other (1)", "training loss", title=title)
    return fig
