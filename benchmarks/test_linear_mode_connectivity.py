"""The loss on a line, the curvature along it, and a training with forks, beside the ways one would write them: results compared first.

PyTorch and loss-landscapes are in peers/torch_mode_connectivity.py, on the same weights, data and orders.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import python_of

from gradatim.landscape import chord_derivatives, fork_training, forked_orders, interpolate, line_loss, quadrature
from gradatim.numerics import HessianOperator

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("mlp", PEERS_FOLDER / "mlp.py")
assert _spec is not None
assert _spec.loader is not None
mlp = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mlp)

SIZE, POINTS, NODES = "105k", 21, 32
# As in peers/torch_mode_connectivity.py.
WIDTH, FORKS, STEPS, BATCH, RATE, DECAY = 128, (0, 10, 20, 40, 80), 100, 50, 0.05, 0.9
ROUND_OFF = 2e-5  # single precision, sums in another order
CURVED = 2e-3  # the same of second derivatives, which are differences of larger numbers
DRIFT = 1e-3  # a hundred steps of single precision, of weights of order a tenth

Layers = list[tuple[jax.Array, jax.Array]]


def network(width: int, steps: int) -> Layers:
    """Weights after so many steps of the shared training."""
    return [(jnp.asarray(weight), jnp.asarray(bias)) for weight, bias in mlp.trained(width, steps=steps)]


def loss_of(layers: Layers, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean softmax cross-entropy of a tanh network."""
    x, labels = batch
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias[None]
        x = jnp.tanh(x) if i + 1 < len(layers) else x
    return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()


def data() -> tuple[jax.Array, jax.Array]:
    """Inputs and labels."""
    inputs, labels = mlp.data()
    return jnp.asarray(inputs, jnp.result_type(float)), jnp.asarray(labels)


@jax.jit
def ours(a: Layers, b: Layers, batch: Any) -> jax.Array:
    """One compiled program for all points."""
    return line_loss(lambda layers: loss_of(layers, batch), a, b, n_points=POINTS).loss


@jax.jit
def at_one(a: Layers, b: Layers, batch: Any, t: Any) -> jax.Array:
    """The loss at one point."""
    return loss_of(jax.tree.map(lambda x, y: (1 - t) * x + t * y, a, b), batch)


def one_by_one(a: Layers, b: Layers, batch: Any) -> Any:
    """A compiled call for each point."""
    return jnp.stack([at_one(a, b, batch, t) for t in np.linspace(0, 1, POINTS, dtype=np.float32)])


@jax.jit
def all_at_once(a: Layers, b: Layers, batch: Any) -> jax.Array:
    """All points as one batch of networks."""
    return jax.vmap(lambda t: at_one(a, b, batch, t))(jnp.linspace(0, 1, POINTS))


LINES: dict[str, Callable[..., Any]] = {"gradatim": ours, "JAX, a call for each point": one_by_one, "JAX, vmap": all_at_once}


@pytest.mark.parametrize("peer", LINES)
def test_line(benchmark: Any, peer: str) -> None:
    benchmark.param, benchmark.group = peer, f"loss at {POINTS} points of a line, {SIZE} parameters"
    a, b = (network(mlp.WIDTHS[SIZE], steps) for steps in (10, 100))
    batch, call = data(), LINES[peer]
    np.testing.assert_allclose(call(a, b, batch), one_by_one(a, b, batch), rtol=ROUND_OFF)
    benchmark.pedantic(lambda: jax.block_until_ready(call(a, b, batch)), rounds=7, warmup_rounds=1)


@jax.jit
def curved(a: Layers, b: Layers, batch: Any) -> jax.Array:
    """Two forward differentiations along the line."""
    nodes = jnp.asarray(quadrature(n_nodes=NODES // 2)[0], batch[0].dtype)
    return chord_derivatives(lambda layers: loss_of(layers, batch), a, b, nodes).curvature


@jax.jit
def with_products(a: Layers, b: Layers, batch: Any) -> jax.Array:
    """A product with the Hessian at each node."""
    nodes = jnp.asarray(quadrature(n_nodes=NODES // 2)[0], batch[0].dtype)
    d = jax.tree.map(jnp.subtract, b, a)

    def one(t: jax.Array) -> jax.Array:
        product = HessianOperator(loss_of, interpolate(a, b, t), batch).mv(d)
        return sum((jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(d), jax.tree.leaves(product), strict=True)), jnp.zeros(()))

    return jax.lax.map(one, nodes)


CURVATURES: dict[str, Callable[..., Any]] = {"gradatim": curved, "JAX, Hessian-vector products": with_products}


@pytest.mark.parametrize("peer", CURVATURES)
def test_curvature(benchmark: Any, peer: str) -> None:
    benchmark.param, benchmark.group = peer, f"curvature at {NODES} points of a line, {SIZE} parameters"
    a, b = (network(mlp.WIDTHS[SIZE], steps) for steps in (10, 100))
    batch, call = data(), CURVATURES[peer]
    expected = np.asarray(with_products(a, b, batch))
    np.testing.assert_allclose(call(a, b, batch), expected, rtol=CURVED, atol=CURVED * abs(expected).max())
    benchmark.pedantic(lambda: jax.block_until_ready(call(a, b, batch)), rounds=7, warmup_rounds=1)


def orders() -> tuple[jax.Array, jax.Array]:
    """Rows of the batches of the trunk and of two branches."""
    rows = np.random.default_rng(0).integers(0, mlp.EXAMPLES, (3, STEPS, BATCH))
    return jnp.asarray(rows[0]), jnp.asarray(rows[1:])


def make_step(batch: Any) -> Callable[[Any, Any], Any]:
    """Heavy-ball momentum on the rows of a batch."""
    optimizer = optax.sgd(RATE, momentum=DECAY)

    def step(state: Any, rows: Any) -> Any:
        layers, memory = state
        updates, memory = optimizer.update(jax.grad(loss_of)(layers, (batch[0][rows], batch[1][rows])), memory)
        return optax.apply_updates(layers, updates), memory

    return step


def first_state() -> Any:
    """Initial weights and no momentum."""
    layers = network(WIDTH, 0)
    return layers, optax.sgd(RATE, momentum=DECAY).init(layers)


def forked() -> Callable[[], Any]:
    """All children as one batch of runs."""
    step, state = make_step(data()), first_state()
    trunk, branches = orders()
    return lambda: fork_training(step, state, trunk, branches, FORKS).ends[0]


def after_one_another() -> Callable[[], Any]:
    """Every child by itself, through one compiled loop."""
    step, state = make_step(data()), first_state()
    every = forked_orders(*orders(), FORKS).reshape(-1, STEPS, BATCH)
    run = jax.jit(lambda order: jax.lax.fori_loop(0, STEPS, lambda i, state: step(state, order[i]), state)[0])

    def call() -> Any:
        ends = [run(order) for order in every]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves).reshape(len(FORKS), 2, *leaves[0].shape), *ends)

    return call


TRAININGS: dict[str, Callable[[], Callable[[], Any]]] = {"gradatim": forked, "JAX, one after another": after_one_another}


@pytest.mark.parametrize("peer", TRAININGS)
def test_forks(benchmark: Any, peer: str) -> None:
    benchmark.param, benchmark.group = peer, f"{2 * len(FORKS)} children of {len(FORKS)} forks, {STEPS} steps"
    call = TRAININGS[peer]()
    for found, expected in zip(jax.tree.leaves(call()), jax.tree.leaves(after_one_another()()), strict=True):
        np.testing.assert_allclose(found, expected, atol=DRIFT)
    benchmark.pedantic(lambda: jax.block_until_ready(call()), rounds=5, warmup_rounds=1)


def test_agrees_with_torch_and_loss_landscapes() -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_mode_connectivity.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        a, b = (jax.tree.map(lambda x: x.astype(jnp.float64), network(mlp.WIDTHS[SIZE], steps)) for steps in (10, 100))
        line = np.asarray(ours(a, b, data()))
        np.testing.assert_allclose(line, theirs["line"], rtol=1e-10)
        # It walks by adding up its steps in single precision or double, whichever the model has.
        np.testing.assert_allclose(line[1:], theirs["landscapes"], rtol=1e-6)
        for values in theirs["curvature"].values():
            np.testing.assert_allclose(curved(a, b, data()), values, rtol=1e-8)
        step, (layers, memory) = make_step(data()), first_state()
        state = jax.tree.map(lambda x: x.astype(jnp.float64), (layers, memory))
        ends = fork_training(step, state, *orders(), FORKS).ends[0]
        for i in range(len(FORKS)):
            for j in range(2):
                flat = [array[i, j] for layer in ends for array in layer]
                for found, expected in zip(flat, theirs["ends"][i][j], strict=True):
                    np.testing.assert_allclose(found, expected, atol=1e-10)
