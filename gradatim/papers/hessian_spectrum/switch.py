"""The switch from large to small batches, and the lines between points of equal loss."""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import line_loss

from .config import Config
from .spectra import as_numpy, labelled, lanczos_tops
from .training import Problem, Stopping, descend_in_batches_to, descend_to, initialised, mnist_data, network

PATHS = {"continued": ("large", "continued"), "across": ("gone_on", "continued"), "forked": ("large", "forked")}
"Lines, from where to where. The ends of the last two have equal losses."
FALL = 0.5
"The loss at which continuations of the large batch's end are compared, over the loss there."


def switch_batches(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """Large batches, then small ones from their end and from the start, in both regimes: C6."""
    c, n_seeds = config.switch, config.switch_seeds
    key_initial, key_continued, key_forked, key_probe, key_data = jax.random.split(key, 5)
    inputs, labels = mnist_data(session, key_data, c.examples, n_seeds)
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    tree: dict[str, xr.Dataset] = {}
    regimes = (("over", c.over_width, c.over_rate, c.over_loss), ("under", c.under_width, c.under_rate, c.under_loss))
    for regime, width, rate, loss in regimes:
        template, static = network(inputs.shape[2], 10, width)
        problem = Problem(inputs, labels, static, 10)
        start = initialised(template, jax.random.split(key_initial, n_seeds), std=None)

        def full(origin: PyTree, target: float, words: str, problem: Problem = problem, regime: str = regime) -> Stopping:
            label = f"{regime}: {words}"
            return descend_to(session, problem, origin, steps=c.large_steps, rate=c.large_rate, target=target, label=label)

        def small(
            origin: PyTree, k: PRNGKeyArray, target: float, words: str, problem: Problem = problem, rate: float = rate, regime: str = regime
        ) -> Stopping:
            keys, sizes = jax.random.split(k, n_seeds), {"batch": c.small_batch, "steps": c.small_steps}
            label = f"{regime}: small batch from {words}"
            return descend_in_batches_to(session, problem, origin, keys, **sizes, rate=rate, target=target, label=label)

        large = full(start, loss, "large batch")
        points = {
            "large": large,
            "gone_on": full(large.params, FALL * loss, "large batch going on"),
            "continued": small(large.params, key_continued, FALL * loss, "the large batch's end"),
            "forked": small(start, key_forked, loss, "the start"),
        }
        reached = {name: np.asarray(point.reached) for name, point in points.items()}
        tops = {
            name: as_numpy(session.once(f"{regime} top {name}", lanczos_tops, problem, point.params, key_probe, c.lanczos_steps))
            for name, point in points.items()
        }
        lines = {
            name: as_numpy(session.once(f"{regime} line {name}", _lines, problem, points[a].params, points[b].params, c.points))
            for name, (a, b) in PATHS.items()
        }
        share = barrier_share(lines)
        top = {name: values["hessian"][:, 0] for name, values in tops.items()}
        relative = {name: values["gauss_newton"] / values["loss"] for name, values in tops.items()}
        n_params = sum(leaf.size for leaf in jax.tree.leaves(template))
        session.note(
            f"C6, {n_params} parameters for {c.examples} examples: the large batch and a small one from the start are compared at a loss "
            f"of {loss:g}, what goes on from the large batch's end at {FALL * loss:g}; repetitions of {n_seeds} that get there "
            f"{ {name: int(there.sum()) for name, there in reached.items()} }, loss "
            f"{ {name: np.round(values['loss'], 5).tolist() for name, values in tops.items()} }"
        )
        session.note(
            f"C6, {n_params} parameters: barrier { ({name: np.round(line['barrier'], 5).tolist() for name, line in lines.items()}) }, "
            f"that of continued or across as a share of the range of both {np.round(share, 3).tolist()}, "
            f"λmax { {name: np.round(values, 3).tolist() for name, values in top.items()} }, "
            f"λmax after over before the switch {np.round(top['continued'] / top['large'], 3).tolist()}, "
            f"λmax(G)/loss { {name: np.round(values, 1).tolist() for name, values in relative.items()} }"
        )
        above = np.sum(tops["large"]["hessian"] > 0.1 * top["large"][:, None], axis=1)
        session.note(f"C6, {n_params} parameters: eigenvalues above λmax/10 at the large batch's end, for 10 classes: {above.tolist()}")
        if regime == "over":
            measures, untested = judge_switch(share, top, reached, loss)
        variables = {
            "line": (("path", "seed", "t"), np.stack([line["loss"] for line in lines.values()])),
            "barrier": (("path", "seed"), np.stack([line["barrier"] for line in lines.values()])),
            "top": (("point", "seed", "rank"), np.stack([values["hessian"] for values in tops.values()])),
            "top_gauss_newton": (("point", "seed"), np.stack([values["gauss_newton"] for values in tops.values()])),
            "loss": (("point", "seed"), np.stack([values["loss"] for values in tops.values()])),
            "reached": (("point", "seed"), np.stack(list(reached.values())).astype(np.int8)),
        }
        coordinates = {"path": list(PATHS), "t": np.linspace(0, 1, c.points), "point": list(tops)}
        tree[f"/switch/{regime}"] = data = labelled(variables, coordinates, unit="loss")
        data["reached"].attrs["units"] = ""
    return Findings(measures, xr.DataTree.from_dict(tree), untested)


def barrier_share(lines: Mapping[str, Mapping[str, np.ndarray]]) -> Float[np.ndarray, " seeds"]:
    """The higher barrier of the lines `continued` and `across`, as a share of the range of losses on both.

    Along the first the loss falls from end to end, which may hide a barrier; along the second it cannot.
    """
    both = [lines[name] for name in ("continued", "across")]
    return np.maximum(*(line["barrier"] for line in both)) / np.ptp(np.concatenate([line["loss"] for line in both], axis=1), axis=1)


def judge_switch(
    share: Float[np.ndarray, " seeds"],
    top: Mapping[str, Float[np.ndarray, " seeds"]],
    reached: Mapping[str, Bool[np.ndarray, " seeds"]],
    loss: float,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The parts of C6 whose points have come to the loss at which they are compared, and why the others are not judged."""
    needed = {
        "barrier_share": ("large", "gone_on", "continued"),
        "top_after_switch": ("large", "gone_on", "continued"),
        "large_over_small": ("large", "forked"),
    }
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    for name, points in needed.items():
        missing = [f"{point.replace('_', ' ')}: {int((~reached[point]).sum())}" for point in points if not reached[point].all()]
        if missing:
            untested[f"C6.{name}"] = (
                f"runs that do not come to the loss at which they are compared, {loss:g} or {FALL:g} times that ({', '.join(missing)})"
            )
        elif name == "barrier_share":
            measures[f"C6.{name}"] = Measure.over_seeds(share)
        else:
            ours, control = ("continued", "gone_on") if name == "top_after_switch" else ("large", "forked")
            measures[f"C6.{name}"] = Measure.paired(top[ours], top[control], "log-ratio")
    return measures, untested


@eqx.filter_jit
def _lines(problem: Problem, start: PyTree, end: PyTree, n_points: int) -> dict[str, Array]:
    def one(args: tuple[PyTree, PyTree, Array, Array]) -> dict[str, Array]:
        start, end, inputs, labels = args
        line = line_loss(lambda params: problem.loss(params, (inputs, labels)), start, end, n_points=n_points)
        return {"loss": line.loss, "barrier": line.barrier}

    return jax.lax.map(one, (start, end, problem.inputs, problem.labels))
