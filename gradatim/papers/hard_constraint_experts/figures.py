"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

WORDS = {"penalty": "penalised", "single": "one solve", "blocks": "block by block", "scattered": "points anywhere"}
COLOURS = dict(zip(WORDS, plots.COLOURS, strict=False))
GREY = "#666666"


def draw(findings: Findings) -> dict[str, Figure]:
    """Errors, training, fields, derivatives, the classical solver, and times where they were taken."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    figures = {
        "errors": _draw_errors(tree["training"], tree["interpolation"]),
        "training": _draw_training(tree["training"]),
        "fields": _draw_fields(tree["training"]),
        "derivatives": _draw_derivatives(tree["derivatives"]),
        "classical": _draw_classical(tree["classical"]),
    }
    if "solves" in tree:
        figures["solves"] = _draw_solves(tree["solves"])
    if "turbulence" in tree:
        figures["turbulence"] = _draw_turbulence(tree["turbulence"])
    return figures


def _draw_errors(training: xr.Dataset, interpolation: xr.Dataset) -> Figure:
    last, true = training.isel(step=-1), "interpolated\ntrue values"
    spans = [[(WORDS[arm], last[name].sel(arm=arm).values, COLOURS[arm]) for arm in WORDS] for name in ("error", "far_error")]
    spans[0].append((f"{true}, the\nnearest outside", interpolation["error"].values, GREY))
    between = [
        (WORDS["blocks"], interpolation["network_between_error"].values, COLOURS["blocks"]),
        (true, interpolation["between_error"].values, GREY),
    ]
    panels = {"on the trained span": spans[0], "between its given points": between, "beyond it": spans[1]}
    fig, axes = plots.figure(1, len(panels), panel=(3.9, 3.0))
    for ax, (title, rows) in zip(axes[0], panels.items(), strict=True):
        places = np.arange(len(rows))[::-1]
        ax.barh(places, [values.mean() for _, values, _ in rows], color=[colour for *_, colour in rows])
        for place, (_, values, _) in zip(places, rows, strict=True):
            ax.plot(values, np.full(values.size, place), ".", color="black", ms=4)
        ax.set_yticks(places, [words for words, *_ in rows])
        plots.label(ax, "relative error, held-out states", "network", x_unit="%", title=title)
    return fig


def _draw_training(training: xr.Dataset) -> Figure:
    names = (("error", "relative error", "%"), ("residual", "residual", ""), ("solve_steps", "steps a solve", ""))
    fig, axes = plots.figure(1, len(names), panel=(4.0, 3.1))
    for ax, (name, words, unit) in zip(axes[0], names, strict=True):
        for arm in WORDS if name != "solve_steps" else ("single", "blocks", "scattered"):
            values, is_log = training[name].sel(arm=arm).values, name != "solve_steps"
            plots.interval(ax, training["step"].values, values, name=WORDS[arm], colour=COLOURS[arm], is_log=is_log)
        if name != "solve_steps":
            ax.set_yscale("log")
        plots.label(ax, "step", words, y_unit=unit, title="held-out states")
    axes[0, 0].legend(fontsize=8)
    return fig


def _draw_fields(training: xr.Dataset) -> Figure:
    fig, axes = plots.figure(2, 1 + len(WORDS), panel=(2.7, 2.5), sharex=True, sharey=True)
    truth, t, x = training["truth"].values[0], training["t"].values, training["x"].values
    fields = {arm: training["far_field"].sel(arm=arm).values[0] for arm in WORDS}
    worst = max(float(np.quantile(np.abs(field[1:] - truth[1:]), 0.98)) for field in fields.values())
    trained_until = t[training.attrs["trained_times"] - 1]
    edges = np.linspace(0, 1, training.attrs["blocks"] + 1)[1:-1]
    shown = [("reference", truth, None), *((WORDS[arm], field, field - truth) for arm, field in fields.items())]
    image = error_image = None
    for column, (title, field, error) in zip(axes.T, shown, strict=True):
        image = column[0].pcolormesh(x, t, field, vmin=0, vmax=1, shading="nearest", cmap="cividis")
        plots.label(column[0], "x", "t", y_unit="s", title=title)
        if error is None:
            column[1].set_visible(False)
            continue
        error_image = column[1].pcolormesh(x, t, error, vmin=-worst, vmax=worst, shading="nearest", cmap="RdBu_r")
        plots.label(column[1], "x", "t", y_unit="s", title="less the reference")
        for ax in column:
            ax.axhline(trained_until, color="black", ls=":", lw=1)
            if title in (WORDS["blocks"], WORDS["scattered"]):
                for edge in edges:
                    ax.axvline(edge, color="black", lw=0.5)
    for ax in axes.ravel():
        ax.grid(False)
    if image is not None and error_image is not None:
        fig.colorbar(image, ax=axes[0].tolist(), label="u")
        fig.colorbar(error_image, ax=axes[1].tolist(), label="error")
    return fig


def _draw_derivatives(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.0, 3.2))
    ax, blocks = axes[0, 0], data["block"].values
    for name, words, marker in (("exact", "exact", "o"), ("pseudo_inverse", "pseudo-inverse", "s")):
        if name not in data:
            continue
        off = np.abs(data[name].values / data["differences"].values - 1)
        ax.semilogy(np.tile(blocks, len(off)), np.maximum(off, 1e-16).ravel(), marker, label=words)
    ax.set_xticks(blocks)
    ax.legend()
    plots.label(ax, "block", "relative error of the derivative", title="against central differences")
    ax = axes[0, 1]
    sizes = data["by_rows_of"].max("draw").values
    image = ax.imshow(np.log10(np.maximum(sizes, 1e-16)), vmin=-16, cmap="cividis")
    ax.grid(False)
    ax.set_xticks(blocks)
    ax.set_yticks(blocks)
    fig.colorbar(image, ax=ax, label="log₁₀ of the largest derivative")
    plots.label(ax, "rows of block", "weights of block", title="who depends on whom")
    return fig


def _draw_classical(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(4.6, 2.8))
    ax, methods = axes[0, 0], data["solver"].values.tolist()
    places = np.arange(len(methods))[::-1]
    medians = data["seconds"].median("repeat").values
    ax.barh(places, medians, color=plots.COLOURS[0])
    for place, seconds in zip(places, medians, strict=True):
        ax.text(seconds, place, f" {seconds:.2g} s", va="center", fontsize=8)
    ax.axvline(60, color=GREY, ls="--", lw=1)
    ax.text(60, places[0] + 0.45, "the article's", ha="right", va="bottom", fontsize=8, color=GREY)
    ax.set_yticks(places, [f"{method},\nscaled up" if method == "RK45" else method for method in methods])
    ax.set_xscale("log")
    ax.set_xlim(medians.min() / 3, max(medians.max(), 60) * 4)
    plots.label(ax, "time", "method", x_unit="s", title=f"{data.attrs['cells']} cells, {500} s")
    return fig


def _draw_solves(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.1))
    points, (one, several) = data["points"].values, data["blocks"].values
    for ax, part in zip(axes[0], data["part"].values, strict=False):
        for count, name in ((one, "single"), (several, "blocks")):
            seconds = 1e3 * data["seconds"].sel(part=part, blocks=count).values
            middle, spread = np.median(seconds, axis=1), seconds.std(axis=1)
            ax.loglog(points, middle, marker="o", color=COLOURS[name], label=WORDS[name])
            ax.fill_between(points, np.maximum(middle - spread, middle / 10), middle + spread, color=COLOURS[name], alpha=0.2, linewidth=0)
        ax.legend(fontsize=8)
        plots.label(ax, "constrained points in all", "time", y_unit="ms", title=str(part))
    ax = axes[0, 2]
    for count, name in ((one, "single"), (several, "blocks")):
        steps = data["steps"].sel(blocks=count)
        ax.semilogx(points, steps.mean("repeat").values, marker="o", color=COLOURS[name], label=WORDS[name])
    plots.label(ax, "constrained points in all", "steps of the slowest solve, mean")
    return fig


def _draw_turbulence(data: xr.Dataset) -> Figure:
    arms = data["arm"].values.tolist()
    fig, axes = plots.figure(1, 2 + len(arms), panel=(2.9, 2.8))
    ax = axes[0, 0]
    for arm in arms:
        plots.interval(ax, data["step"].values, data["fine_error"].sel(arm=arm).values, name=WORDS[arm], colour=COLOURS[arm], is_log=True)
    ax.set_yscale("log")
    ax.legend(fontsize=8)
    plots.label(ax, "step", "relative error", y_unit="%", title="on the finer grid")
    limit = float(np.abs(data["truth"].values).max())
    image = None
    for ax, (title, field) in zip(
        axes[0, 1:], [("reference", data["truth"]), *((WORDS[arm], data["field"].sel(arm=arm)) for arm in arms)], strict=True
    ):
        image = ax.imshow(field.values.T, origin="lower", extent=(0, 1, 0, 1), vmin=-limit, vmax=limit, cmap="RdBu_r")
        ax.grid(False)
        plots.label(ax, "x", "y", title=f"{title}, last time")
    if image is not None:
        fig.colorbar(image, ax=axes[0, 1:].tolist(), label="vorticity")
    return fig
