"""The switch from large to small batches, and the lines between the ends."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray, PyTree

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import line_loss

from .config import Config
from .spectra import as_numpy, labelled, lanczos_tops
from .training import Problem, descend, descend_in_batches, initialised, mnist_data, network

PATHS = ("continued", "forked")


def switch_batches(config: Config, session: Session, key: PRNGKeyArray) -> Findings:
    """Large batches, then small ones from their end and from the start, in both regimes: C6."""
    c, n_seeds = config.switch, config.switch_seeds
    key_initial, key_continued, key_forked, key_probe, key_data = jax.random.split(key, 5)
    inputs, labels = mnist_data(session, key_data, c.examples, n_seeds)
    measures: dict[str, Measure] = {}
    tree: dict[str, xr.Dataset] = {}
    for regime, width, rate in (("over", c.over_width, c.over_rate), ("under", c.under_width, c.under_rate)):
        template, static = network(inputs.shape[2], 10, width)
        problem = Problem(inputs, labels, static, 10)
        start = initialised(template, jax.random.split(key_initial, n_seeds), std=None)
        large = descend(session, problem, start, steps=c.large_steps, rate=c.large_rate, label=f"{regime}: large batch").state.now
        ends = {
            name: descend_in_batches(
                session, problem, origin, jax.random.split(k, n_seeds), batch=c.small_batch, steps=c.small_steps, rate=rate, label=label
            ).state
            for name, origin, k, label in (
                ("continued", large, key_continued, f"{regime}: small batch from the large batch's end"),
                ("forked", start, key_forked, f"{regime}: small batch from the start"),
            )
        }
        tops = {
            name: as_numpy(session.once(f"{regime} top {name}", lanczos_tops, problem, point, key_probe, c.lanczos_steps))
            for name, point in {"large": large, **ends}.items()
        }
        lines = {
            name: as_numpy(session.once(f"{regime} line {name}", _lines, problem, large, point, c.points)) for name, point in ends.items()
        }
        share = {name: line["barrier"] / np.ptp(line["loss"], axis=1) for name, line in lines.items()}
        relative = {name: values["gauss_newton"] / values["loss"] for name, values in tops.items()}
        n_params = sum(leaf.size for leaf in jax.tree.leaves(template))
        session.note(
            f"C6, {n_params} parameters for {c.examples} examples: barrier as a share of the loss range "
            f"{ {name: np.round(values, 3).tolist() for name, values in share.items()} }, "
            f"λmax { {name: np.round(values['hessian'][:, 0], 3).tolist() for name, values in tops.items()} }, "
            f"λmax(G)/loss { {name: np.round(values, 1).tolist() for name, values in relative.items()} }, "
            f"loss { {name: np.round(values['loss'], 5).tolist() for name, values in tops.items()} }"
        )
        above = np.sum(tops["large"]["hessian"] > 0.1 * tops["large"]["hessian"][:, :1], axis=1)
        session.note(f"C6, {n_params} parameters: eigenvalues above λmax/10 at the large batch's end, for 10 classes: {above.tolist()}")
        if regime == "over":
            top = {name: values["hessian"][:, 0] for name, values in tops.items()}
            measures = {
                "C6.barrier_share": Measure.over_seeds(share["continued"]),
                "C6.top_after_switch": Measure.paired(top["continued"], top["large"], "log-ratio"),
                "C6.large_over_small": Measure.paired(top["large"], top["forked"], "log-ratio"),
            }
        variables = {
            "line": (("path", "seed", "t"), np.stack([lines[path]["loss"] for path in PATHS])),
            "barrier": (("path", "seed"), np.stack([lines[path]["barrier"] for path in PATHS])),
            "top": (("point", "seed", "rank"), np.stack([values["hessian"] for values in tops.values()])),
            "top_gauss_newton": (("point", "seed"), np.stack([values["gauss_newton"] for values in tops.values()])),
            "loss": (("point", "seed"), np.stack([values["loss"] for values in tops.values()])),
        }
        coordinates = {"path": list(PATHS), "t": np.linspace(0, 1, c.points), "point": list(tops)}
        tree[f"/switch/{regime}"] = labelled(variables, coordinates, unit="loss")
    return Findings(measures, xr.DataTree.from_dict(tree))


@eqx.filter_jit
def _lines(problem: Problem, start: PyTree, end: PyTree, n_points: int) -> dict[str, Array]:
    def one(args: tuple[PyTree, PyTree, Array, Array]) -> dict[str, Array]:
        start, end, inputs, labels = args
        line = line_loss(lambda params: problem.loss(params, (inputs, labels)), start, end, n_points=n_points)
        return {"loss": line.loss, "barrier": line.barrier}

    return jax.lax.map(one, (start, end, problem.inputs, problem.labels))
