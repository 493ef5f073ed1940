"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots

SOURCE, TARGET, IMAGE, KNOWN = "#888888", plots.COLOURS[0], plots.COLOURS[1], "#000000"
WORDS = {"none": "fit alone", "gap": "fit and gap"}
ARROWS = 90
"Drawn of each map."


def draw(findings: Findings) -> dict[str, Figure]:
    """Maps, weights, other costs, dimensions, the grid of weights, digits, and what holds without training."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "maps": _draw_maps(tree["plane"]),
        "weights": _draw_weights(tree["plane"]),
        "euclidean": _draw_euclidean(tree["euclidean"]),
        "sphere": _draw_sphere(tree["sphere"]),
        "p_norm": _draw_p_norm(tree["p_norm"]),
        "dimensions": _draw_dimensions(tree["dimensions"]),
        "grid": _draw_grid(tree["grid"]),
        "digits": _draw_digits(tree["digits"]),
        "exact": _draw_exact(tree),
    }


def _middle(plane: xr.Dataset) -> str:
    """The arm with the gap whose weight is nearest to one."""
    names = [name for name in plane["arm"].values.tolist() if name.startswith("gap")]
    return min(names, key=lambda name: abs(np.log(max(float(name.split()[1]), 1e-9))))


def _arrows(ax: Axes, starts: np.ndarray, ends: np.ndarray, colour: str) -> None:
    for start, end in zip(starts[:ARROWS], ends[:ARROWS], strict=True):
        ax.annotate(
            "", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 0.7, "alpha": 0.7, "shrinkA": 0, "shrinkB": 0}
        )


def _draw_maps(plane: xr.Dataset) -> Figure:
    names = plane["arm"].values.tolist()
    strongest = [name for name in names if name.startswith("displacement")][-1]
    panels = [("optimal map", plane["optimal"].values, KNOWN)]
    for name, words in (("none", "fit alone"), (_middle(plane), "fit and gap"), (strongest, strongest)):
        error = float(plane["unexplained"].sel(arm=name).isel(seed=0))
        panels.append((f"{words}: {error:.2g} % error", plane["image"].sel(arm=name).values, IMAGE))
    return _panels_of_arrows(plane, panels)


def _panels_of_arrows(data: xr.Dataset, panels: list[tuple[str, np.ndarray, str]], panel: tuple[float, float] = (3.7, 2.7)) -> Figure:
    fig, axes = plots.figure(1, len(panels), panel=panel, sharex=True, sharey=True)
    for ax, (title, image, colour) in zip(axes[0], panels, strict=True):
        ax.plot(*data["target"].values.T, ".", color=TARGET, ms=3, alpha=0.5, label="target")
        ax.plot(*data["source"].values[:ARROWS].T, ".", color=SOURCE, ms=4, label="source")
        _arrows(ax, data["source"].values, image, colour)
        ax.set_aspect("equal")
        plots.label(ax, "x₁", "x₂" if ax is axes[0, 0] else "", title=title)
    axes[0, 0].set_ylabel("x₂")
    axes[0, 0].legend(fontsize=7)
    return fig


def _draw_weights(plane: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3))
    names = plane["arm"].values.tolist()
    kinds = {
        "gap": ("gap", plots.COLOURS[0], "o"),
        "debiased": ("debiased gap", plots.COLOURS[2], "^"),
        "displacement": ("displacement cost", plots.COLOURS[1], "s"),
    }
    kinds = {kind: looks for kind, looks in kinds.items() if any(arm.startswith(kind) for arm in names)}
    panels = (
        ("unexplained", "unexplained variance", "%", True),
        ("divergence", "divergence of image and target", "", True),
        ("energy", "mean square of the images", "", False),
    )
    for ax, (name, words, unit, is_logarithmic) in zip(axes[0], panels, strict=True):
        for kind, (legend, colour, marker) in kinds.items():
            arms = [arm for arm in names if arm.startswith(kind)]
            weights = np.array([float(arm.split()[1]) for arm in arms])
            rows = plane[name].sel(arm=arms).values
            ax.plot(weights, np.exp(np.log(rows).mean(axis=1)), color=colour, marker=marker, label=legend)
            ax.plot(weights, rows, marker, color=colour, alpha=0.3, ms=3)
        alone = plane[name].sel(arm="none").values
        ax.axhline(np.exp(np.log(alone).mean()), color=KNOWN, ls="--", lw=1, label="fit alone")
        if name == "energy":
            ax.axhline(float(plane["target_energy"].mean()), color=SOURCE, ls=":", label="target")
        ax.set_xscale("log")
        if is_logarithmic:
            ax.set_yscale("log")
        plots.label(ax, "weight", words, y_unit=unit)
    fig.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize="small", frameon=False)
    return fig


def _draw_euclidean(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(5.4, 3.9), sharex=True, sharey=True)
    for ax, (name, words) in zip(axes[0], WORDS.items(), strict=True):
        starts, ends = data["source"].values, data["image"].sel(arm=name).values
        for start, end in zip(starts, ends, strict=True):
            ax.plot(*np.stack([start, end]).T, color=IMAGE, lw=0.5, alpha=0.6)
        ax.plot(*data["target"].values.T, ".", color=TARGET, ms=3, alpha=0.5, label="target")
        ax.plot(*starts.T, ".", color=SOURCE, ms=3, label="source")
        one = data.sel(arm=name).isel(seed=0)
        share = 100 * float(one["gap"]) / float(one["displacement"])
        ax.set_aspect("equal")
        plots.label(ax, "x₁", "x₂", title=f"{words}: gap {share:.2g} %, {int(one['crossings'])} crossings")
    axes[0, 0].legend(fontsize=8)
    return fig


def _great_circle(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    angle = np.arccos(np.clip(start @ end, -1, 1))
    t = np.linspace(0, 1, 20)[:, None]
    return (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / max(np.sin(angle), 1e-6)


def _draw_sphere(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.2, 4.3))
    # Seen from above the equator, between the two targets: the far side is faint.
    towards = np.array([0.35, 0.6, 0.72])
    towards /= np.linalg.norm(towards)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    frame = np.stack([right, np.cross(towards, right), towards])
    for ax, (name, words) in zip(axes[0], WORDS.items(), strict=True):
        ax.add_patch(_disc())
        for start, end in zip(data["source"].values[:ARROWS], data["image"].sel(arm=name).values[:ARROWS], strict=True):
            path = _great_circle(start, end) @ frame.T
            ax.plot(*path[:, :2].T, color=IMAGE, lw=0.7, alpha=0.7)
        for points, colour, legend in ((data["target"].values, TARGET, "target"), (data["source"].values, SOURCE, "source")):
            seen = points @ frame.T
            ax.plot(*seen[seen[:, 2] > 0, :2].T, ".", color=colour, ms=3.5, label=legend)
            ax.plot(*seen[seen[:, 2] <= 0, :2].T, ".", color=colour, ms=3, alpha=0.2)
        one = data.sel(arm=name).isel(seed=0)
        ax.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        ax.grid(False)
        plots.label(ax, "to the right", "upwards", title=f"{words}: gap {float(one['gap']):.2g} of {float(one['displacement']):.2g} rad")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    return fig


def _disc() -> object:
    from matplotlib.patches import Circle

    return Circle((0, 0), 1, facecolor="#f4f4f4", edgecolor="#cccccc")


def _draw_p_norm(data: xr.Dataset) -> Figure:
    one = data.isel(p=-1)
    panels = [(f"optimal map, p = {float(one['p']):g}\n", one["optimal"].values, KNOWN)]
    for name, words in (*WORDS.items(), ("squared gap", "fit and gap of p = 2")):
        of_seed = one.sel(arm=name).isel(seed=0)
        share = 100 * float(of_seed["gap"]) / float(of_seed["displacement"])
        title = f"{words}\ngap {share:.3g} %, {float(of_seed['unexplained']):.3g} % error"
        panels.append((title, one["image"].sel(arm=name).values, IMAGE))
    fig = _panels_of_arrows(one, panels, panel=(3.3, 3.6))
    for ax, (_, image, _) in zip(fig.axes[1:], panels[1:], strict=True):
        misses = np.stack([image, one["optimal"].values])[:, :ARROWS]
        ax.plot(*np.moveaxis(misses, 2, 0), color=KNOWN, lw=0.9, label=["to the optimal image", *[None] * (misses.shape[1] - 1)])
    fig.axes[1].legend(fontsize=7, loc="lower right")
    return fig


def _draw_dimensions(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.7, 3.5))
    ax = axes[0, 0]
    lines = {
        "network": ("network, with the gap", plots.COLOURS[0], "o"),
        "fresh": ("the same, fresh points", plots.COLOURS[5], "P"),
        "plain": ("network, fit alone", plots.COLOURS[1], "s"),
        "entropic": ("entropic map, best ε", plots.COLOURS[2], "^"),
        "gaussian": ("Gaussian map", plots.COLOURS[3], "D"),
        "constant": ("constant map", SOURCE, "v"),
    }
    x = data["dimension"].values
    for name, (legend, colour, marker) in lines.items():
        rows = data[name].values
        ax.plot(x, np.exp(np.log(rows).mean(axis=1)), color=colour, marker=marker, label=legend)
        ax.plot(x, rows, marker, color=colour, alpha=0.3, ms=3)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.legend(fontsize=7)
    plots.label(ax, "dimension", "unexplained variance", y_unit="%", title="known maps of random convex functions")
    ax = axes[0, 1]
    for dim, colour, marker in zip(x, plots.COLOURS, plots.MARKERS, strict=False):
        ax.plot(data["share"], data["by_share"].sel(dimension=dim).mean("seed"), color=colour, marker=marker, label=f"{dim} dimensions")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(fontsize=7)
    plots.label(ax, "ε over the mean cost", "unexplained variance", y_unit="%", title="the entropic map")
    return fig


def _draw_grid(grid: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.3, 3.4))
    for ax, name, words, unit in (
        (axes[0, 0], "unexplained", "unexplained variance", "%"),
        (axes[0, 1], "gap", "exact gap", "1"),
    ):
        values = grid[name].mean("seed").values
        image = ax.imshow(values, aspect="auto", cmap="cividis", origin="lower")
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                dark = value < (values.min() + values.max()) / 2
                ax.text(j, i, f"{value:.3g}", ha="center", va="center", color="white" if dark else "black")
        ax.set_xticks(range(grid.sizes["asymmetry_weight"]), [f"{w:g}" for w in grid["asymmetry_weight"].values])
        ax.set_yticks(range(grid.sizes["gap_weight"]), [f"{w:g}" for w in grid["gap_weight"].values])
        ax.grid(False)
        fig.colorbar(image, ax=ax, label=f"{words} [{unit}]")
        plots.label(ax, "weight of the asymmetry", "weight of the gap", title=words)
    return fig


def _draw_digits(digits: xr.Dataset) -> Figure:
    kinds = {"source": "source", "none": "fit alone", "gap": "fit and gap", "target": "target"}
    pictures = digits["picture"]
    fig, axes = plots.figure(len(kinds), pictures.sizes["image"], panel=(0.9, 0.95))
    for row, (kind, words) in zip(axes, kinds.items(), strict=True):
        for ax, picture in zip(row, pictures.sel(kind=kind).values, strict=True):
            ax.imshow(picture, cmap="gray_r", vmin=0, vmax=float(pictures.max()))
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(False)
        row[0].set_ylabel(words, fontsize=8)
    for ax in axes[-1]:
        ax.set_xlabel("pixels", fontsize=6)
    return fig


def _draw_exact(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.3))
    linear = tree["linear"]
    ax, places = axes[0, 0], np.arange(linear.sizes["map"])
    ax.bar(places, linear["formula"].values, color="#cccccc", label="of the law")
    for i, row in enumerate(linear["gap"].values):
        ax.plot(places, row, ".", color=plots.COLOURS[0], label=None if i else "on a sample")
    ax.set_xticks(places, [name.replace(" by ", "\nby ") for name in linear["map"].values.tolist()], fontsize=8)
    ax.legend(fontsize=8)
    plots.label(ax, "linear map", "gap", title="twice nuclear norm less trace")
    ax = axes[0, 1]
    quarter = float(linear["formula"].sel(map="turn by 90°"))
    plots.interval(ax, linear["size"].values, np.abs(linear["by_size"].values - quarter).T, colour=plots.COLOURS[0], marker="o")
    ax.set_xscale("log")
    ax.set_yscale("log")
    plots.label(ax, "points", "|gap on a sample - of the law|", title="turn by 90°")
    ax = axes[0, 2]
    convexity = tree["convexity"]["excess"]
    for epsilon, colour in zip(convexity["epsilon"].values, plots.COLOURS, strict=False):
        values = np.sort(convexity.sel(epsilon=epsilon).values)
        ax.plot(values, np.linspace(0, 1, len(values)), color=colour, label=f"ε = {epsilon:g}")
    ax.axvline(0, color=KNOWN, lw=0.8)
    ax.legend(fontsize=8)
    plots.label(ax, "gap halfway less mean gap", "share of pairs below", title="convexity in the images")
    return fig
