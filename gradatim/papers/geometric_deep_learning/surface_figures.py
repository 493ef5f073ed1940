"""The figures of surfaces and of deformations."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from gradatim.lab import plots

GREY = "#666666"
KINDS = {
    "free": plots.COLOURS[1],
    "polynomial": plots.COLOURS[0],
    "rational": plots.COLOURS[2],
    "polynomial by design": plots.COLOURS[3],
}


def draw_surfaces(dataset: xr.Dataset) -> dict[str, Figure]:
    """The signal and its expansions on the surface; what is measured there; filters on a jittered sphere."""
    return {"expansions": _draw_expansions(dataset), "surfaces": _draw_measures(dataset), "transfer": _draw_transfer(dataset)}


def draw_directions(dataset: xr.Dataset) -> Figure:
    """How often networks tell the direction in which curvature grows."""
    fig, axes = plots.figure(1, 1, panel=(4.6, 3.4))
    ax = axes[0, 0]
    names = dataset["network"].values.tolist()
    for i, (values, colour) in enumerate(zip(dataset["accuracy"].values, plots.COLOURS, strict=False)):
        ax.plot(np.full(len(values), i) + np.linspace(-0.1, 0.1, len(values)), values, "o", color=colour)
        ax.plot([i - 0.25, i + 0.25], [values.mean()] * 2, color=colour)
    ax.axhline(25, color=GREY, lw=1, ls=":")
    ax.set_xticks(range(len(names)), names)
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(0, 100))
    plots.label(ax, "network, one dot a seed", "directions right to 45°", y_unit="%", title="dotted: by chance")
    return fig


def draw_deformations(dataset: xr.Dataset) -> dict[str, Figure]:
    """Changes over stretches, and what is behind them."""
    fig, axes = plots.figure(1, 3, panel=(4.2, 3.3))
    stretches = dataset["stretch"].values
    ax = axes[0, 0]
    for i, xi in enumerate(dataset["frequency"].values):
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        ax.loglog(stretches, dataset["fourier_change"].values[i], "-o", color=colour, label=f"ξ = {xi:g}")
        ax.loglog(stretches, dataset["wavelet_change"].values[i], "--s", color=colour)
    ax.axhline(2**0.5, color=GREY, lw=1, ls=":")
    ax.legend(fontsize=7, title="solid: Fourier, dashed: wavelets", title_fontsize=7)
    plots.label(ax, "stretch ε", "relative change", title="dotted: √2, no overlap")
    judged = float(dataset.attrs["judged"])
    panels = (("modulus", "wavenumber", "frequency"), ("averages", "octave", "centre of the wavelet"))
    for ax, (name, x, words) in zip(axes[0, 1:], panels, strict=True):
        for i in (0, dataset.sizes["frequency"] - 1):
            rows = dataset[name].values[i]
            colour, xi = plots.COLOURS[i % len(plots.COLOURS)], float(dataset["frequency"][i])
            ax.plot(dataset[x].values, rows[0], color=colour, label=f"ξ = {xi:g}")
            ax.plot(dataset[x].values, rows[1], color=colour, ls="--", label=f"stretched by {judged:g}")
        ax.legend(fontsize=7, loc="upper center" if name == "modulus" else "upper left")
        plots.label(ax, words, "modulus" if name == "modulus" else "average modulus", x_unit="rad")
    axes[0, 2].set_xscale("log")
    axes[0, 2].set_ylim(top=1.4 * float(dataset["averages"].max()))
    return {"deformations": fig}


def _draw_expansions(dataset: xr.Dataset) -> Figure:
    names = dataset["picture"].values
    fig, axes = plots.figure(1, len(names), panel=(4.4, 3.4))
    limit = float(np.quantile(np.abs(dataset["signal"].values[0]), 0.98))
    seen = []
    for ax, name, values in zip(axes[0], names, dataset["signal"].values, strict=True):
        seen.append(_seen_from_the_side(ax, dataset["vertices"].values, dataset["faces"].values, values, limit))
        ax.set_title(str(name), loc="left")
    fig.colorbar(seen[0], ax=list(axes[0]), shrink=0.8, label="signal (sulcal depth on the cortex)")
    return fig


def _seen_from_the_side(ax: Axes, vertices: np.ndarray, faces: np.ndarray, values: np.ndarray, limit: float) -> PolyCollection:
    """Faces that look towards negative x, the farthest painted first."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = np.flatnonzero(normals[:, 0] < 0)
    order = towards[np.argsort(-corners[towards, :, 0].mean(axis=1))]
    light = 0.55 + 0.45 * np.abs(normals[order, 0]) / np.linalg.norm(normals[order], axis=1)
    patches = PolyCollection([*corners[order][:, :, 1:]], array=values[faces[order]].mean(axis=1), cmap="RdBu_r", linewidths=0)
    patches.set_clim(-limit, limit)
    patches.update_scalarmappable()
    colours = np.array(patches.get_facecolor())
    colours[:, :3] *= light[:, None]
    shaded = PolyCollection([*corners[order][:, :, 1:]], facecolors=colours, edgecolors=colours, linewidths=0.2)
    ax.add_collection(shaded)
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.set_axis_off()
    return patches


def _draw_measures(dataset: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(4.2, 3.3))
    ax = axes[0, 0]
    levels, errors = dataset["level"].values, dataset["eigenvalue_error"].values
    ax.semilogy(levels, errors, "-o", label="second eigenvalue of the sphere")
    ax.semilogy(levels, errors[0] * 4.0 ** (levels[0] - levels), color=GREY, ls=":", label="a quarter each level")
    ax.set_xticks(levels)
    ax.legend(fontsize=7)
    plots.label(ax, "refinements of the icosahedron", "error", title=f"folding changes K by {dataset.attrs['fold']:.0e}")
    ax = axes[0, 1]
    ax.loglog(dataset["kept"].values, dataset["left"].values, label="what is left out")
    ax.loglog(dataset["kept"].values, dataset["bound"].values, color=GREY, ls="--", label="gradient energy / eigenvalue")
    ax.legend(fontsize=7)
    plots.label(ax, "eigenvectors kept", "share of the signal's square")
    ax = axes[0, 2]
    for i, (name, row) in enumerate(zip(dataset["carried"].values, dataset["gauge_error"].values, strict=True)):
        ax.semilogy(np.arange(1, len(row) + 1), row, "o", color=plots.COLOURS[i], label=str(name))
    ax.axhline(1e-4, color=GREY, lw=1, ls=":")
    ax.set_xticks(np.arange(1, dataset.sizes["turn"] + 1))
    ax.legend(fontsize=7)
    plots.label(ax, "random turn of all frames", "relative error", title="dotted: the claim's bound")
    return fig


def _draw_transfer(dataset: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.4))
    ax = axes[0, 0]
    ax.plot(dataset["sphere_eigenvalues"].values, dataset["free_response"].values, ".", color=KINDS["free"], ms=3, label="free")
    for name, row in zip(dataset["filter"].values, dataset["response"].values, strict=True):
        colour, line = KINDS.get(str(name), "black"), "-" if str(name) in KINDS else ":"
        ax.plot(dataset["eigenvalue"].values, row, color=colour, ls=line, label=str(name))
    ax.axvline(dataset.attrs["top"], color=GREY, lw=1, ls="--")
    ax.set_xscale("log")
    ax.set(xlim=(0.5, None), ylim=(-0.35, 1.1))
    ax.legend(fontsize=7)
    plots.label(ax, "eigenvalue", "response", title="dashed: the largest on the sphere")
    ax = axes[0, 1]
    for i, kind in enumerate(dataset["kind"].values):
        after, before = (dataset[name].values[:, i] for name in ("error_after", "error_before"))
        places = i + np.linspace(-0.1, 0.1, len(after))
        ax.semilogy(places, after, "o", color=KINDS[str(kind)])
        ax.semilogy(places, before, "o", mfc="none", color=KINDS[str(kind)])
    ax.semilogy([], [], "o", mfc="none", color=GREY, label="on the sphere")
    ax.semilogy([], [], "o", color=GREY, label="on jittered spheres")
    ax.set_xticks(range(dataset.sizes["kind"]), [str(kind).replace(" by", "\nby") for kind in dataset["kind"].values])
    ax.legend(fontsize=7)
    moved = float(dataset["uneven_change"].mean())
    plots.label(ax, "", "relative error of the blur", title=f"a filter of random signs moves by {moved:.2f}")
    return fig
