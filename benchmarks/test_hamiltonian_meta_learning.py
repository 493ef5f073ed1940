"""An outer gradient of MAML on a Hamiltonian network, values compared first; PyTorch in peers/torch_hamiltonian_meta_learning.py.

There `torch.func` and `create_graph` stand for learn2learn, whose last release, 0.2.0, does not compile for Python 3.11: the C sources in
it include a header, longintrepr.h, that is no longer there.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import python_of

from gradatim.sciml import MAML, FieldPoints, HamiltonianMLP, Tasks, log_cosh_field_loss, mish

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("meta", PEERS_FOLDER / "meta.py")
assert _spec is not None
assert _spec.loader is not None
meta = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(meta)

AGREEMENT = 1e-9
ROUND_OFF = 5e-4  # single precision, products in another order
Outer = Callable[[Any, Any], Any]


def given(activation: Any = mish) -> tuple[Any, Tasks]:
    """The network and the tasks, in JAX's own precision."""
    dtype = jnp.result_type(float)
    network: Any = HamiltonianMLP(4, meta.WIDTH, 2, activation, key=jax.random.key(0))
    (w1, b1), (w2, b2), (w3, b3) = (tuple(jnp.asarray(p, dtype) for p in layer) for layer in meta.layers())
    network = eqx.tree_at(lambda n: (n.weights, n.biases, n.readout, n.readout_bias), network, ((w1, w2), (b1, b2), w3[0], b3[0]))
    states, rates, query, query_rates = (jnp.asarray(part, dtype) for part in meta.tasks())
    return network, Tasks(FieldPoints(states, rates), FieldPoints(query, query_rates))


def ours(*, first_order: bool = False) -> Outer:
    """The loss of the library."""
    maml = MAML(optax.sgd(meta.INNER_RATE), n_steps=meta.INNER_STEPS, first_order=first_order)
    return lambda network, tasks: maml.meta_loss(network, log_cosh_field_loss, tasks)


def unrolled(network: Any, tasks: Any) -> Any:
    """Reverse over reverse through the inner loop, as it is usually written."""
    moved, rest = eqx.partition(network, eqx.is_inexact_array)

    def loss(moved: Any, points: Any) -> Any:
        return log_cosh_field_loss(eqx.combine(moved, rest), points)

    def one(task: Any) -> Any:
        def step(moved: Any, _: None) -> Any:
            return jax.tree.map(lambda p, g: p - meta.INNER_RATE * g, moved, jax.grad(loss)(moved, task.support)), None

        return loss(jax.lax.scan(step, moved, length=meta.INNER_STEPS)[0], task.query)

    return jax.vmap(one)(tasks).mean()


ROWS: dict[str, tuple[Outer, Any]] = {
    "gradatim": (ours(), mish),
    "gradatim, jax.nn.mish": (ours(), jax.nn.mish),
    "gradatim, first order": (ours(first_order=True), mish),
    "JAX, reverse over reverse": (unrolled, mish),
    "JAX, reverse over reverse, jax.nn.mish": (unrolled, jax.nn.mish),
}


def in_peers_order(gradient: Any) -> list[Any]:
    """Weights and biases by turns."""
    (w1, w2), (b1, b2) = gradient.weights, gradient.biases
    return [w1, b1, w2, b2, gradient.readout[None], gradient.readout_bias[None]]


@pytest.mark.parametrize("peer", ROWS)
def test_outer_gradient(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = meta.GROUP, peer
    outer, activation = ROWS[peer]
    network, tasks = given(activation)
    moved, rest = eqx.partition(network, eqx.is_inexact_array)
    gradient: Any = jax.jit(jax.grad(lambda moved, tasks: outer(eqx.combine(moved, rest), tasks)))
    compiled = gradient.lower(moved, tasks).compile()
    if peer == "gradatim":
        expected: Any = jax.jit(jax.grad(lambda moved, tasks: unrolled(eqx.combine(moved, rest), tasks)))(moved, tasks)
        for found, value in zip(jax.tree.leaves(compiled(moved, tasks)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, value, rtol=ROUND_OFF, atol=ROUND_OFF * float(abs(value).max()))
    benchmark.extra_info.update({"temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(moved, tasks)), rounds=50, warmup_rounds=3)


def test_agrees_with_pytorch() -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_hamiltonian_meta_learning.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        network, tasks = given()
        gradient = in_peers_order(eqx.filter_jit(eqx.filter_grad(ours()))(network, tasks))
        for values in theirs.values():
            for found, value in zip(gradient, values, strict=True):
                np.testing.assert_allclose(found, value, rtol=AGREEMENT, atol=AGREEMENT)
