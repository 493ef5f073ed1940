"""A flow-matching loss with its gradient, values compared first; flow_matching and torchcfm in peers/torch_kinetic_optimal_paths.py."""

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
import pytest
from environments import python_of

from gradatim.transport import (
    CondOT,
    Trigonometric,
    VariancePreserving,
    flow_matching_loss,
    kinetic_optimal_path,
    separation_of_gap,
)

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("flow", PEERS_FOLDER / "flow.py")
assert _spec is not None
assert _spec.loader is not None
flow = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(flow)

AGREEMENT = 1e-6
ROUND_OFF = 2e-4  # single precision against itself, sums in another order
PATHS = {"straight": CondOT, "trigonometric": Trigonometric, "preserving": VariancePreserving}


def network(layers: Any, t: Any, x: Any) -> Any:
    """One time and one point, or many."""
    h = jnp.concatenate([x, t[..., None]], axis=-1)
    for i, (weight, bias) in enumerate(layers):
        h = h @ weight + bias.reshape((1,) * (h.ndim - 1) + bias.shape)
        h = jax.nn.silu(h) if i + 1 < len(layers) else h
    return h


def given() -> tuple[Any, Any]:
    """The network and the batch, in JAX's own precision."""
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), (flow.layers(), flow.batch()))


def ours(path: Any) -> Callable[[Any, Any], Any]:
    """The loss of the library."""
    return lambda layers, batch: flow_matching_loss(lambda t, x: network(layers, t, x), path, *batch)


def by_hand(layers: Any, batch: Any) -> Any:
    """The straight path written out for the whole batch: what there is to be done."""
    x0, x1, t = batch
    times = t[:, None]
    return jnp.mean((network(layers, t, times * x1 + (1 - times) * x0) - (x1 - x0)) ** 2)


def optimal() -> Any:
    """A path from a table: what the search in it costs."""
    return kinetic_optimal_path(separation_of_gap(lambda s: 1 / (1 + s**4), n_nodes=1024))


ROWS: dict[str, Callable[[], Callable[[Any, Any], Any]]] = {
    "gradatim": lambda: ours(CondOT()),
    "gradatim, optimal path": lambda: ours(optimal()),
    "JAX, written out": lambda: by_hand,
}


@pytest.mark.parametrize("peer", ROWS)
def test_loss_and_gradient(benchmark: Any, peer: str) -> None:
    benchmark.group, benchmark.param = flow.GROUP, peer
    layers, batch = given()
    step: Any = jax.jit(jax.value_and_grad(ROWS[peer]()))
    compiled = step.lower(layers, batch).compile()
    if peer == "gradatim":
        expected: Any = jax.jit(jax.value_and_grad(by_hand))(layers, batch)
        for found, value in zip(jax.tree.leaves(compiled(layers, batch)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, value, rtol=ROUND_OFF, atol=ROUND_OFF * float(abs(value).max()))
    benchmark.extra_info.update({"temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20})
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(layers, batch)), rounds=50, warmup_rounds=3)


def test_agrees_with_flow_matching_and_torchcfm() -> None:
    command = [python_of("torch"), str(PEERS_FOLDER / "torch_kinetic_optimal_paths.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    with jax.enable_x64(True):
        layers, batch = given()
        for who in ("flow_matching", "torchcfm"):
            for name, (points, velocities) in theirs[who].items():
                path = PATHS[name]()
                np.testing.assert_allclose(path.point(*batch), points, rtol=AGREEMENT, atol=AGREEMENT)
                np.testing.assert_allclose(path.conditional_velocity(*batch), velocities, rtol=AGREEMENT, atol=AGREEMENT)
        loss, gradient = jax.jit(jax.value_and_grad(ours(CondOT())))(layers, batch)
        np.testing.assert_allclose(loss, theirs["loss"], rtol=AGREEMENT)
        for found, value in zip(jax.tree.leaves(gradient), theirs["gradient"], strict=True):
            np.testing.assert_allclose(found, value, rtol=AGREEMENT, atol=AGREEMENT)
