"""Landscapes of two dimensions, and a deep linear network: barriers that are known beforehand."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Findings, Measure, Session
from gradatim.landscape import barrier, layerwise_lines, match_permutation, predict_barrier

from .lines import labelled
from .training import Images

WIDTHS = (16, 16)
"Hidden units of the deep linear network."
EXAMPLES, STEPS, RATE = 200, 300, 3e-3
"Its training images, steps of Adam and their rate."


def product_loss(w: Float[Array, " two"]) -> Float[Array, ""]:
    """(u v - 1)² / 2: minima on the two branches of u v = 1, between them a pass at the origin."""
    return (w[0] * w[1] - 1) ** 2 / 2


class Student(eqx.Module):
    """Two hidden units without biases: v₁ tanh(w₁ x) + v₂ tanh(w₂ x)."""

    layers: tuple[eqx.nn.Linear, eqx.nn.Linear]

    @classmethod
    def of(cls, weights: Float[Array, " two"]) -> Student:
        """With outer weights of one."""
        hidden, out = (eqx.filter_eval_shape(eqx.nn.Linear, m, n, use_bias=False, key=jax.random.key(0)) for m, n in ((1, 2), (2, 1)))
        return cls(
            (
                eqx.tree_at(lambda layer: layer.weight, hidden, weights[:, None]),
                eqx.tree_at(lambda layer: layer.weight, out, jnp.ones((1, 2), weights.dtype)),
            )
        )

    def loss(self) -> Float[Array, ""]:
        """½ E (student - teacher)² for x ~ N(0, 1), the teacher being tanh(x) + tanh(3 x), by 64 nodes of Gauss and Hermite."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(64)
        x, w = (jnp.asarray(array, self.layers[0].weight.dtype) for array in (nodes, weights / weights.sum()))
        outputs = self.layers[1].weight @ jnp.tanh(self.layers[0].weight @ x[None])
        return jnp.sum(w * (outputs[0] - jnp.tanh(x) - jnp.tanh(3 * x)) ** 2) / 2


def run_toys(session: Session) -> Findings:
    """C5: both toys, in double precision."""
    with jax.enable_x64(True):
        found = session.once("toys", _toys)
        ours, theirs = (Student.of(jnp.array(weights)) for weights in ((1.0, 3.0), (3.0, 1.0)))
        matched = match_permutation(ours, theirs).model
        rest = float(_barrier_between(ours, matched))
    predicted = {name: round(float(found[name]), 4) for name in ("integral", "midpoint", "endpoints")}
    session.note(
        f"C5: product landscape, measured {float(found['product']):.7f}, predicted {predicted}; permuted units, "
        f"barrier {float(found['permuted']):.7f} at the middle, {rest:.1e} once they are matched; with one of the two weights exchanged "
        f"alone the loss is {float(found['single']):.7f}, more than on the way of both"
    )
    measures = {
        "C5.product_barrier": Measure.exact(float(found["product"])),
        "C5.permutation_barrier": Measure.exact(float(found["permuted"])),
        "C5.matched_barrier": Measure.exact(rest),
    }
    u = np.linspace(-2, 2, 81)
    w = np.linspace(0, 4, 81)
    variables = {
        "product": (("u", "v"), (u[:, None] * u[None] - 1) ** 2 / 2, "1"),
        "ways": (("step", "way", "axis"), _ways(), "1"),
        "student": (("w1", "w2"), np.asarray(found["student"]), "1"),
        "product_line": ("t", np.asarray(found["product_line"]), "1"),
        "student_line": ("t", np.asarray(found["student_line"]), "1"),
    }
    coordinates = {"u": u, "v": u, "w1": w, "w2": w, "t": np.linspace(0, 1, 21)}
    return Findings(measures, xr.DataTree.from_dict({"toys": labelled(variables, coordinates)}))


@eqx.filter_jit
def _toys() -> dict[str, Array]:
    ones = jnp.ones(2)
    product = barrier(product_loss, ones, -ones)
    ours, theirs = (Student.of(jnp.array(weights)) for weights in ((1.0, 3.0), (3.0, 1.0)))
    student = barrier(Student.loss, ours, theirs)
    w = jnp.linspace(0, 4, 81)
    grid = jnp.stack(jnp.meshgrid(w, w, indexing="ij"), axis=-1).reshape(-1, 2)
    return {
        "product": product.height,
        "product_line": product.line.loss,
        **{name: predict_barrier(product_loss, ones, -ones, method=name) for name in ("integral", "midpoint", "endpoints")},
        "permuted": student.height,
        "student_line": student.line.loss,
        "single": Student.of(jnp.array([3.0, 3.0])).loss(),
        "student": jax.lax.map(lambda weights: Student.of(weights).loss(), grid).reshape(81, 81),
    }


@eqx.filter_jit
def _barrier_between(a: Student, b: Student) -> Array:
    return barrier(Student.loss, a, b).height


def _ways() -> np.ndarray:
    """Steepest descent on the product landscape from four starts: two high up beside the ridge u = -v, two further down."""
    w = np.array([[1.75, -1.65], [1.65, -1.75], [0.3, 0.2], [0.2, 0.3]])
    ways = [w]
    for _ in range(400):
        ways.append(ways[-1] - 0.02 * (ways[-1].prod(axis=1, keepdims=True) - 1) * ways[-1][:, ::-1])
    return np.stack(ways)


def run_linear(images: Images, session: Session, key: PRNGKeyArray, seeds: int) -> Findings:
    """C4: deep linear networks with squared loss, trained from two initialisations, one layer exchanged at a time."""
    n = min(EXAMPLES, len(images.labels))
    inputs, labels = (np.asarray(array[:n]) for array in (images.inputs, images.labels))
    sizes = (inputs.shape[1], *WIDTHS, 10)
    shapes = tuple(zip(sizes[1:], sizes[:-1], strict=True))
    # Drawn flat and in single precision, as everywhere.
    total = sum(m * n for m, n in shapes)
    draws = np.asarray(jax.random.normal(key, (2 * seeds * total,)), np.float64).reshape(2, seeds, total)
    weights, start = [], 0
    for m, n in shapes:
        weights.append(draws[..., start : start + m * n].reshape(2, seeds, m, n) / n**0.5)
        start += m * n
    with jax.enable_x64(True):
        arguments = ([jnp.asarray(w) for w in weights], jnp.asarray(inputs, jnp.float64), jnp.asarray(np.eye(10)[labels]))
        found = session.once("deep linear networks", _linear, *arguments)
    single, whole = (np.asarray(found[name]) for name in ("single", "whole"))
    session.note(
        f"C4: deep linear networks {sizes} after {STEPS} steps, loss {np.asarray(found['loss']).round(4).tolist()}: barriers of whole "
        f"networks {whole.round(4).tolist()}, of single layers at most {single.max():.1e}"
    )
    variables = {
        "single": (("seed", "layer", "default"), single, "1"),
        "whole": ("seed", whole, "1"),
        "loss": (("network", "seed"), np.asarray(found["loss"]), "1"),
    }
    measures = {"C4.linear_net_barrier": Measure.exact(float(single.max()))}
    return Findings(measures, xr.DataTree.from_dict({"linear": labelled(variables, {})}))


@eqx.filter_jit
def _linear(weights: list[Array], inputs: Array, targets: Array) -> dict[str, Array]:
    def loss(layers: list[Array]) -> Array:
        outputs = inputs
        for weight in layers:
            outputs = outputs @ weight.T
        return jnp.mean(jnp.sum((outputs - targets) ** 2, axis=1)) / 2

    optimizer = optax.adam(RATE)

    def step(_: Array, state: tuple[Any, optax.OptState]) -> tuple[Any, optax.OptState]:
        layers, memory = state
        updates, memory = optimizer.update(jax.vmap(jax.vmap(jax.grad(loss)))(layers), memory)
        return optax.apply_updates(layers, updates), memory

    ends, _ = jax.lax.fori_loop(0, STEPS, step, (weights, optimizer.init(weights)))
    firsts, seconds = ([w[i] for w in ends] for i in range(2))

    def one(pair: tuple[list[Array], list[Array]]) -> dict[str, Array]:
        single = layerwise_lines(loss, *pair)
        return {"single": single.barriers, "whole": barrier(loss, *pair).height}

    return {**jax.lax.map(one, (firsts, seconds)), "loss": jax.vmap(jax.vmap(loss))(ends)}
