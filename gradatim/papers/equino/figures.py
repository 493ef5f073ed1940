"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

OURS, LABELS, THEIRS, SPLINE = plots.COLOURS[0], plots.COLOURS[1], plots.COLOURS[2], plots.COLOURS[3]


def draw(findings: Findings) -> dict[str, Figure]:
    """Fields with their errors, errors by snapshots, training, speed, the membrane, and errors by the size of the strain."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "fields": _draw_fields(tree["fields"]),
        "snapshots": _draw_snapshots(tree),
        "training": _draw_training(tree),
        "speed": _draw_speed(tree),
        "membrane": _draw_membrane(tree["membrane"]),
        "sizes": _draw_sizes(tree["sizes"]),
    }


def _draw_fields(fields: xr.Dataset) -> Figure:
    fig, axes = plots.figure(3, 4, panel=(3.4, 2.6))
    for row, component in zip(axes, fields["component"].values, strict=True):
        one = fields.sel(component=component)
        truth = one["solved"]
        limit = float(abs(truth).max())
        # Of the errors: most of the cell must be told apart, not the one worst point.
        off = float(np.quantile(abs(one["variational"] - truth), 0.99))
        panels = [(truth, limit, "solved"), (one["equilibrium"], limit, "EquiNO")]
        panels += [
            (one[name] - truth, off, f"{title} less solved") for name, title in (("equilibrium", "EquiNO"), ("variational", "VPIONet"))
        ]
        for ax, (values, most, title) in zip(row, panels, strict=True):
            image = ax.pcolormesh(
                one["x"], one["y"], values.values, vmin=-most, vmax=most, cmap="RdBu_r", shading="nearest", rasterized=True
            )
            ax.grid(False)
            bar = fig.colorbar(image, ax=ax)
            bar.ax.tick_params(labelsize=6.5)
            plots.label(ax, "x", "y", x_unit="mm", y_unit="mm", title=f"σ_{component}, MPa: {title}" if title == "solved" else title)
    return fig


def _draw_snapshots(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.5))
    counts = tree["projection"]["snapshots"].values
    for ax, name, title in ((axes[0, 0], "tensor", "stress inside the cell"), (axes[0, 1], "average", "averaged stress")):
        for kind, colour, marker, words in (("equilibrium", OURS, "o", "consistency"), ("regression", LABELS, "s", "labels")):
            # Networks one by one: not every number of snapshots has as many.
            rows = [tree[f"{kind}_{count}"][name].mean("test").values for count in counts]
            ax.plot(counts, [row.mean() for row in rows], label=words, color=colour)
            ax.plot(np.repeat(counts, [len(row) for row in rows]), np.concatenate(rows), marker, color=colour, alpha=0.6)
        ax.set_yscale("log")
        plots.log_ticks(ax, counts)
        plots.label(ax, "solved cells", "relative error", y_unit="%", title=title)
    axes[0, 0].plot(counts, tree["projection"]["tensor"].mean("seed"), "--", color="#777777", label="projection on the modes")
    mark = float(tree["variational"]["tensor"].mean())
    axes[0, 0].axhline(mark, color=THEIRS, ls=":", label="VPIONet, no solved cell")
    baselines = tree["baselines"]
    axes[0, 1].plot(int(baselines["solves"]), float(baselines["grid_average"].mean()), "D", color=SPLINE, label="cubic, on a grid")
    axes[0, 1].plot(counts[-1], float(baselines["radial_average"].mean()), "P", color=plots.COLOURS[4], label="radial functions")
    axes[0, 1].axhline(float(tree["variational"]["average"].mean()), color=THEIRS, ls=":", label="VPIONet, no solved cell")
    for ax in axes[0]:
        ax.legend(fontsize=7)
    return fig


def _draw_training(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.4, 3.4))
    main = tree[max((name for name in tree if name.startswith("equilibrium_")), key=lambda name: int(name.rsplit("_", 1)[1]))]
    _history(axes[0, 0], main, OURS)
    if "all_points" in tree:
        _history(axes[0, 0], tree["all_points"], plots.COLOURS[4])
    axes[0, 0].set_yscale("log")
    title = "EquiNO: magic points blue, all orange" if "all_points" in tree else "EquiNO on magic points, each seed"
    plots.label(axes[0, 0], "steps of Adam, then of L-BFGS", "consistency loss", y_unit="MPa²", title=title)
    # Energies of batches differ far more than those of networks.
    for row in tree["variational"]["lbfgs_loss"].values:
        axes[0, 1].plot(row, color=THEIRS)
    plots.label(axes[0, 1], "steps of L-BFGS", "energy", y_unit="MPa", title="VPIONet after Adam, each seed")
    return fig


def _history(ax: Axes, data: xr.Dataset, colour: str) -> None:
    adam, lbfgs = data["adam_loss"].values, data["lbfgs_loss"].values
    # A batch's loss jumps about: every point is the mean of some.
    block = max(adam.shape[1] // 50, 1)
    kept = adam[:, : adam.shape[1] // block * block].reshape(len(adam), -1, block).mean(axis=2)
    steps = block * (np.arange(kept.shape[1]) + 0.5)
    for one, other in zip(kept, lbfgs, strict=True):
        ax.plot(steps, one, color=colour, alpha=0.45, lw=1)
        ax.plot(adam.shape[1] + np.arange(other.size), other, color=colour, lw=1.3)
    ax.axvline(adam.shape[1], color="black", lw=0.8, ls="--")


def _draw_speed(tree: dict[str, xr.Dataset]) -> Figure:
    panels = [("speed", "one strain, the operator in a batch"), ("simulation", "the membrane")]
    panels = [(name, title) for name, title in panels if name in tree]
    fig, axes = plots.figure(1, len(panels), panel=(4.6, 3.2))
    looks = {"solved": ("finite elements", plots.COLOURS[7]), "operator": ("EquiNO", OURS), "interpolated": ("cubic, on a grid", SPLINE)}
    for ax, (name, title) in zip(axes[0], panels, strict=True):
        seconds = tree[name]["seconds"].median("repeat").values
        names, colours = zip(*(looks[str(way)] for way in tree[name]["way"].values), strict=True)
        ax.bar(names, seconds, color=colours, width=0.6)
        for i, value in enumerate(seconds):
            ax.text(i, value, f"{value:.2g} s", ha="center", va="bottom", fontsize=8)
        ax.set_yscale("log")
        ax.set_ylim(seconds.min() / 4, seconds.max() * 4)
        plots.label(ax, "way to averaged stress and tangent", "time", y_unit="s", title=title)
    return fig


def _draw_membrane(membrane: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.6, 3.8))
    ax = axes[0, 0]
    factor = 0.1 * float(membrane["place"].max()) / float(abs(membrane["displacement"]).max())
    for name, style in (
        ("", {"color": "#bbbbbb", "lw": 0.8, "label": "unloaded"}),
        ("displacement", {"color": "black", "lw": 2.4, "label": "both scales solved"}),
        ("operator_displacement", {"color": OURS, "lw": 1.0, "ls": "--", "label": "with EquiNO"}),
    ):
        moved = membrane["place"].values + (factor * membrane[name].values if name else 0)
        loops = membrane["corners"].values[:, [0, 1, 2, 3, 0]]
        for i, loop in enumerate(loops):
            ax.plot(*moved[:, loop], **{**style, "label": style["label"] if i == 0 else None})
    ax.set_aspect("equal")
    ax.legend(fontsize=7, loc="lower right")
    plots.label(ax, "x", "y", x_unit="mm", y_unit="mm", title=f"displacement × {factor:.0f}")
    ax = axes[0, 1]
    arms = [str(arm) for arm in membrane["arm"].values]
    for i, arm in enumerate(arms):
        for name, marker, shift in (("displacement_error", "o", -0.1), ("reaction_error", "^", 0.1)):
            values = membrane[name].sel(arm=arm).values
            colour = LABELS if arm.startswith("regression") else OURS
            ax.plot(np.full(values.size, i + shift), values, marker, color=colour, alpha=0.7)
    for j, law in enumerate(membrane["law"].values):
        for name, marker, shift in (("displacement_error", "o", -0.1), ("reaction_error", "^", 0.1)):
            ax.plot(len(arms) + j + shift, float(membrane[f"baseline_{name}"].sel(law=law)), marker, color=SPLINE)
    ax.axhline(2, color="black", lw=0.8, ls="--")
    ax.set_yscale("log")
    ax.set_xticks(range(len(arms) + 2), [*(_title(arm) for arm in arms), "cubic,\non a grid", "straight\nline"], fontsize=7)
    plots.label(ax, "law", "relative error", y_unit="%", title="circles: displacement, triangles: reaction")
    return fig


def _title(arm: str) -> str:
    kind, count = arm.rsplit(" ", 1)
    return {"equilibrium": "EquiNO", "regression": "labels"}.get(kind, kind).replace(" ", "\n") + f"\n{count}"


def _draw_sizes(sizes: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(6.4, 3.8))
    ax, size = axes[0, 0], sizes["size"].values
    for arm, colour, marker in zip(sizes["arm"].values, plots.COLOURS, plots.MARKERS, strict=False):
        rows = sizes["operator"].sel(arm=arm).values
        ax.plot(size, np.nanmean(rows, axis=0), marker=marker, color=colour, label=_title(str(arm)).replace("\n", " "))
        for row in rows:
            ax.plot(size, row, color=colour, alpha=0.3, lw=0.8)
    for name, style in (("interpolation", "--"), ("straight_line", ":")):
        ax.plot(size, sizes[name].values, style, color="#777777", label={"interpolation": "cubic, on a grid"}.get(name, "straight line"))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    plots.label(ax, "largest component of the average strain", "error of the averaged stress", y_unit="%")
    return fig
