"""The figures."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradatim.lab import Findings, plots
from gradatim.landscape import critical_train_fraction

BLUE, RED, GREEN = plots.COLOURS[:3]


def draw(findings: Findings) -> dict[str, Figure]:
    """Grokking, the phase diagram, energies, features, the lazy stage, tables, rates, optimisers, ways to begin."""
    tree = {name: node.to_dataset() for name, node in findings.data.children.items()}
    return {
        "grokking": _draw_grokking(tree["decays"], tree["grams"]),
        "phase": _draw_phase(tree["phase"]),
        "energies": _draw_energies({name: data for name, data in tree.items() if name.startswith("maxima_") and "energy" in data}),
        "features": _draw_features(tree["decays"]),
        "lazy": _draw_lazy(tree["lazy"], tree["simple_form"]),
        "tables": _draw_tables(tree["tables"], tree["maxima_single_answer"]),
        "rates": _draw_rates(tree["window"]),
        "optimisers": _draw_optimisers(tree["few"], tree["collection"]),
        "beginnings": _draw_beginnings(tree),
    }


def _draw_grokking(data: xr.Dataset, grams: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.9, 3.2))
    step = data["step"].values
    # From the first look on: a logarithmic axis has no zero.
    shown = step > 0
    for arm, colour in zip(data["arm"].values, (BLUE, RED), strict=True):
        one = data.sel(arm=arm)
        for row in one["train_accuracy"].values.T:
            axes[0, 0].plot(step[shown], row[shown], color=colour, ls=":", lw=1)
        for i, row in enumerate(one["test_accuracy"].values.T):
            axes[0, 0].plot(step[shown], row[shown], color=colour, lw=1.3, label=f"{arm}: test" if i == 0 else None)
        for row in one["feature_gradient"].values.T:
            axes[0, 1].plot(step[shown], row[shown], color=colour, lw=1.3)
    axes[0, 0].plot([], [], color="#666666", ls=":", lw=1, label="training")
    axes[0, 0].legend(fontsize="x-small")
    for ax in axes[0, :2]:
        ax.set_xscale("log")
    axes[0, 1].set_yscale("log")
    title = f"{data.attrs['order']} elements, {data.attrs['width']} nodes"
    plots.label(axes[0, 0], "epoch", "accuracy", title=title)
    plots.label(axes[0, 1], "epoch", "norm of the features' gradient", title="what reaches the first layer")
    ax = axes[0, 2]
    for i, colour in enumerate((GREEN, BLUE)):
        rows, width = grams["off_diagonal"].values[i], grams["width"].values[i]
        plots.interval(ax, grams["step"].values, rows.T, name=f"{grams.attrs['order']} elements, {width} nodes", colour=colour)
    with_decay = data.sel(arm="with decay")
    rows = np.maximum(with_decay["off_diagonal_nodes"].values, with_decay["off_diagonal_samples"].values)
    beside = step <= grams["step"].values[-1]
    plots.interval(ax, step[beside], rows[beside].T, name=title, colour=RED)
    ax.axhline(0.08, color="black", ls="--", lw=1, label=f"criterion, for {grams.attrs['order']} elements")
    ax.legend(fontsize="x-small")
    plots.label(ax, "epoch", "off-diagonal over diagonal", title="the larger of both Gram matrices")
    return fig


def _draw_phase(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(4.9, 3.7))
    order, constant, accuracy = data["order"].values, data["constant"].values, data["accuracy"].mean("seed").values
    n = data.attrs["n_cyclic"]
    ax = axes[0, 0]
    scale = np.log(order) / order
    dots = None
    for i in range(len(order)):
        marker = "o" if i < n else "D"
        dots = ax.scatter(
            np.full(len(constant), order[i]), constant * scale[i], c=accuracy[i], marker=marker, vmin=0, vmax=1, s=55, edgecolors="#444444",
            linewidths=0.5, cmap="cividis",
        )  # fmt: skip
    m = np.arange(max(order.min() - 3, 3), order.max() + 4)
    ax.plot(m, [critical_train_fraction(int(x)) for x in m], color="black", lw=1, label="2.7482 log M / M")
    ax.scatter([], [], marker="o", color="white", edgecolors="#444444", label="cyclic")
    ax.scatter([], [], marker="D", color="white", edgecolors="#444444", label="dihedral")
    ax.legend(fontsize="x-small")
    if dots is not None:
        fig.colorbar(dots, ax=ax, label="test accuracy, mean over seeds")
    plots.label(ax, "order of the group M", "fraction of pairs learned from")
    ax = axes[0, 1]
    for i, name in enumerate(data["group"].values):
        colour = plots.COLOURS[i % len(plots.COLOURS)]
        ax.plot(constant, accuracy[i], color=colour, marker="o" if i < n else "D", ls="-" if i < n else "--", label=name)
        ax.plot(constant, data["accuracy"].values[i].T, ".", color=colour, alpha=0.35, ms=4)
    ax.axvline(2.7482, color="black", lw=1, ls="--")
    ax.legend(fontsize="x-small")
    plots.label(ax, "fraction over log M / M", "test accuracy", title="one curve for all orders?")
    return fig


def _draw_energies(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 1, panel=(6.4, 3.2))
    ax = axes[0, 0]
    names = [name.removeprefix("maxima_").replace("_", " ") for name in tree]
    for row, data in enumerate(tree.values()):
        levels, counts = np.unique(data["energy"].values.round(4), return_counts=True)
        share = counts / counts.sum()
        ax.scatter(levels, np.full(len(levels), row), s=30 + 250 * share, color=BLUE, alpha=0.8, zorder=3)
        for level, part in zip(levels, share, strict=True):
            if part >= 0.02:
                ax.annotate(f"{100 * part:.0f} %", (level, row), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=7)
        expected = np.unique(data["expected"].values.round(6))
        ax.plot(expected, np.full(len(expected), row), "|", color="black", ms=22, label="derived" if row == 0 else None)
        ax.plot(expected / 4, np.full(len(expected), row), "x", color=RED, ms=6, label="as printed" if row == 0 else None)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.3)
    ax.set_xlim(0, 0.58)
    ax.legend(fontsize="x-small", loc="lower right")
    plots.label(ax, "energy at the end of an ascent", "group", x_unit="order", title="random starts, squared activation, all pairs")
    return fig


def _draw_features(data: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 2, panel=(5.2, 3.6))
    weights, order = data["shown"].values, data.attrs["order"]
    ax = axes[0, 0]
    elements = np.arange(order)
    for i, colour in zip(range(min(4, weights.shape[1])), plots.COLOURS, strict=False):
        u, v = weights[:order, i], weights[order:, i]
        size = max(abs(weights[:, i]).max(), 1e-9)
        ax.plot(elements, u / size - 2.3 * i, color=colour, label="first element" if i == 0 else None)
        ax.plot(elements, v / size - 2.3 * i, color=colour, ls="--", label="second element" if i == 0 else None)
    ax.set_yticks([-2.3 * i for i in range(min(4, weights.shape[1]))], [f"node {i + 1}" for i in range(min(4, weights.shape[1]))])
    ax.legend(fontsize="x-small", loc="upper right")
    plots.label(ax, "element", "weights, each over its largest", title="the longest nodes, trained with decay")
    ax = axes[0, 1]
    power = np.sum([abs(np.fft.rfft(half, axis=0)) ** 2 for half in (weights[:order], weights[order:])], axis=0)
    image = ax.imshow((power / power.sum(axis=0)).T, aspect="auto", vmin=0, vmax=1, cmap="cividis")
    ax.grid(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    fig.colorbar(image, ax=ax, label="share of the squared weights")
    plots.label(ax, "frequency", "node", title="sixteen nodes, one frequency each")
    return fig


def _draw_lazy(data: xr.Dataset, form: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.1))
    ax = axes[0, 0]
    for decay, colour in zip(data["decay"].values, (RED, BLUE, GREEN), strict=True):
        ax.loglog(data["time"], np.maximum(data["norm"].sel(decay=decay), 1e-12), color=colour, label=f"{decay:g}")
    ax.set_ylim(bottom=1e-6)
    ax.legend(fontsize="x-small", title="weight decay")
    plots.label(ax, "time", "norm of the gradient", x_unit="1/largest curvature", title="features fixed, targets within reach")
    ax = axes[0, 1]
    time = data["look_time"].values
    shown = time > 0
    ax.plot(time[shown], data["descended"].sel(way="closed form").values[shown], color="black", lw=1, label="closed form")
    rows = data["descended"].sel(way="descent").values
    ax.plot(time[shown][::5], rows[shown][::5], "o", color=BLUE, ms=3.5, label="gradient descent")
    ax.set_xscale("log")
    ax.legend(fontsize="x-small")
    plots.label(ax, "time", "norm of the gradient", x_unit="1/largest curvature", title="few nodes, with decay")
    ax = axes[0, 2]
    for width, colour in zip(form["width"].values, (GREEN, BLUE), strict=False):
        rows = form["cosine"].isel(width=int(np.argmax(form["width"].values == width))).values
        plots.interval(ax, form["relative_decay"].values, rows, name=f"{width} nodes", colour=colour, marker="o")
    ax.axhline(0.9, color="black", ls="--", lw=1, label="criterion")
    ax.axvline(form.attrs["own"], color="#888888", lw=0.8)
    ax.set_xscale("log")
    ax.legend(fontsize="x-small")
    plots.label(ax, "weight decay over that of training", "cosine", title="late gradient and its simple form")
    return fig


def _draw_tables(data: xr.Dataset, answer: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.1))
    ax = axes[0, 0]
    words = {"free": "free phases", "inverse": "v = ±u at the inverse", "same": "v = ±u"}
    for way, colour, marker in zip(data["way"].values, (BLUE, RED, GREEN), plots.MARKERS, strict=False):
        ax.semilogy(data["nodes"], np.maximum(data["residual"].sel(way=way), 1e-16), color=colour, marker=marker, label=words[str(way)])
    ax.legend(fontsize="x-small")
    plots.label(ax, "real nodes a frequency", "relative residual", title=f"table of {data.attrs['order']} elements")
    ax = axes[0, 1]
    frequency, left = data["frequency"].values, np.maximum(data["energy_left"].values, 1e-16)
    learned = np.isin(frequency, data.attrs["learned"])
    for mask, colour, name in ((learned, RED, "learned"), (~learned, BLUE, "not yet")):
        ax.bar(frequency[mask], left[mask], color=colour, label=name, bottom=1e-17)
    ax.set_yscale("log")
    ax.legend(fontsize="x-small")
    plots.label(ax, "frequency", "energy left, over before", title="once two frequencies are learned")
    ax = axes[0, 2]
    order = np.argsort(-answer["probability"].values)
    place = np.arange(len(order))
    for name, colour, marker, words_ in (("square", BLUE, "o", "squares"), ("rectifier", RED, "s", "rectifier")):
        ax.plot(place, answer[name].values.mean(axis=0)[order], marker, color=colour, label=f"{words_}: ascended")
        ax.plot(place, answer[f"{name}_known"].values[order], "-", color=colour, lw=1, label=f"{words_}: known")
    ax.set_xticks(place, [f"{p:.2f}" for p in answer["probability"].values[order]], fontsize="x-small")
    ax.legend(fontsize="x-small")
    plots.label(ax, "probability of the pair", "sum of its weights", title="one answer only")
    return fig


def _draw_rates(data: xr.Dataset) -> Figure:
    n = data.sizes["constant"]
    fig, axes = plots.figure(1, n + 1, panel=(3.8, 3.1))
    step = data["step"].values
    for ax, constant in zip(axes[0], data["constant"].values, strict=False):
        for rate, colour in zip(data["rate"].values, (BLUE, RED), strict=True):
            for i, row in enumerate(data["curve"].sel(constant=constant, rate=rate).values.T):
                ax.plot(step, row, color=colour, lw=1.1, label=f"rate {rate:g}" if i == 0 else None)
        ax.set_ylim(-0.02, 1.02)
        plots.label(ax, "epoch", "test accuracy", title=f"{constant:g} log M / M of the pairs, M = {data.attrs['order']}")
    axes[0, 0].legend(fontsize="x-small")
    ax = axes[0, n]
    for rate, colour in zip(data["rate"].values, (BLUE, RED), strict=True):
        one = data.sel(rate=rate)
        for i, marker in zip(range(n), plots.MARKERS, strict=False):
            name = f"rate {rate:g}, {data['constant'].values[i]:g} log M / M"
            ax.plot(one["accuracy"].values[i], one["energy"].values[i], marker, color=colour, label=name)
    ax.legend(fontsize="x-small")
    plots.label(ax, "test accuracy at the end", "mean energy of the nodes", y_unit="order", title="memory stands higher?")
    return fig


def _draw_optimisers(data: xr.Dataset, collection: xr.Dataset) -> Figure:
    fig, axes = plots.figure(1, 3, panel=(3.8, 3.1))
    ax = axes[0, 0]
    for arm, colour, marker in zip(data["arm"].values, (RED, BLUE), plots.MARKERS, strict=False):
        one, name = data.sel(arm=arm), "Muon" if arm == "muon" else "Adam"
        rows, ends = (one[kind].isel(step=-1).values for kind in ("pilot_loss", "test_loss"))
        ax.loglog(one["rate"], rows.mean(axis=1), color=colour, marker=marker, label=f"{name}, pilots")
        ax.plot(np.repeat(one["rate"].values, rows.shape[1]), rows.ravel(), ".", color=colour, alpha=0.4)
        # Beside the pilots, on an axis of logarithms.
        ax.plot(np.full(len(ends), 1.15 * float(one["best_rate"])), ends, "x", ms=4, color=colour, label=f"{name}, judged")
    ax.legend(fontsize="x-small")
    plots.label(ax, "learning rate", "test loss at the end", title=f"{data.attrs['order']} elements, {data.attrs['width']} nodes")
    ax = axes[0, 1]
    for name, colour, words in (("step_alignment", RED, "step, with momentum and decay"), ("alignment", BLUE, "factor of the gradient")):
        rows = data[name].values
        ax.plot(data["step"], rows, color=colour, lw=0.6, alpha=0.5)
        ax.plot([], [], color=colour, label=words)
    ax.axhline(0, color="black", lw=0.8)
    ax.legend(fontsize="x-small")
    plots.label(ax, "epoch", "cosine with the gradient", title="Muon against the gradient")
    ax = axes[0, 2]
    place = np.arange(collection.sizes["tail"])
    ax.bar(place - 0.2, collection["equal_chances"], 0.4, color=RED, label="independent nodes")
    ax.bar(place + 0.2, collection["simulated"], 0.4, color=BLUE, label="what is held weakened")
    ax.plot(place + 0.2, collection["predicted"], "_", color="black", ms=22, label="formula")
    ax.plot(place - 0.2, np.full(len(place), collection.attrs["known"]), "_", color="black", ms=22)
    ax.axhline(collection.attrs["features"], color="black", ls=":", lw=1)
    ax.set_xticks(place, [f"{tail:g}" for tail in collection["tail"].values])
    ax.set_ylim(top=1.45 * collection.attrs["known"])
    ax.legend(fontsize="x-small")
    plots.label(ax, "tail index of the starts", "nodes to collect all", title=f"{collection.attrs['features']} features")
    return fig


def _draw_beginnings(tree: dict[str, xr.Dataset]) -> Figure:
    fig, axes = plots.figure(1, 4, panel=(3.3, 3.0), sharey=True)
    for ax, name in zip(axes[0], ("scarce", "ample"), strict=False):
        data = tree[f"starts_{name}"]
        for arm, colour in zip(data["arm"].values, (RED, BLUE), strict=True):
            _all_seeds(ax, data["step"].values, data["test_accuracy"].sel(arm=arm).values, colour, f"{arm} start")
        title = f"{name}: {100 * data.attrs['fraction']:g} % of the pairs"
        plots.label(ax, "epoch", "test accuracy" if ax is axes[0, 0] else " ", title=title)
    for ax, name in zip(axes[0, 2:], ("small", "large"), strict=True):
        data = tree[f"solved_{name}"]
        for way, colour in zip(data["way"].values, (BLUE, RED), strict=True):
            _all_seeds(ax, data["step"].values, data["test_accuracy"].sel(way=way).values, colour, f"read-out by {way}")
        plots.label(ax, "epoch", " ", title=f"{data.attrs['order']} elements")
    for ax in (axes[0, 0], axes[0, 2]):
        ax.legend(fontsize="x-small")
    return fig


def _all_seeds(ax: Axes, x: np.ndarray, rows: np.ndarray, colour: str, name: str) -> None:
    for i, row in enumerate(rows.T):
        ax.plot(x, row, color=colour, lw=1.2, label=name if i == 0 else None)
