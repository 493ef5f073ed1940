"""A step of Drop-Muon with uniform starts beside one of Muon: three convolutions, 16, 32 and 64 channels, 500 images.

One round is a start of each kind in turn, so that its mean is that of uniform sampling. `optax.masked` around Muon is what optax offers: a
program of its own for each mask, from which XLA drops the gradients that nobody reads; `compile` says how long these take, beside ours.
"""

from __future__ import annotations

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import layer_indices
from gradatim.optim import drop_muon, drop_step, every_layer, muon, muon_dimension_numbers, uniform_starts
from gradatim.papers.drop_muon.config import Images
from gradatim.papers.drop_muon.training import ThreeConvolutions, loss

RATE, ADAM_RATE, MOMENTUM = 0.05, 0.003, 0.9
STARTS = uniform_starts(3).variants
ROUND_OFF = 1e-4  # weights after one step in single precision


def problem() -> tuple[Any, Any, Any]:
    images = Images()
    net = ThreeConvolutions(images, 28, key=jax.random.key(0))
    batch = (jax.random.uniform(jax.random.key(1), (images.batch_size, 28, 28, 1)), jnp.arange(images.batch_size) % 10)
    return net, layer_indices(net, net.convolutions), batch


def ours(variants: Any) -> tuple[list[Any], Any]:
    net, layers, batch = problem()
    numbers = muon_dimension_numbers(net)
    optimizer = drop_muon(RATE, layers, beta=MOMENTUM, adam_learning_rate=ADAM_RATE, muon_weight_dimension_numbers=lambda _: numbers)
    state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))
    steps = [eqx.filter_jit(drop_step(loss, optimizer, layers, active)) for active in variants]
    return [lambda step=step: step(net, state, batch)[0] for step in steps], batch


def masked(variants: Any) -> tuple[list[Any], Any]:
    net, layers, batch = problem()
    numbers = muon_dimension_numbers(net)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    steps = []
    for active in variants:
        flags = (*active, True)
        keep = jax.tree.map(lambda leaf, n, flags=flags: flags[n - 1 if n else -1], params, _numbered(params, layers))
        frozen = jax.tree.map(lambda flag: not flag, keep)
        inner = muon(RATE, beta=MOMENTUM, nesterov=False, adam_learning_rate=ADAM_RATE, muon_weight_dimension_numbers=lambda _: numbers)
        optimizer = optax.chain(
            optax.masked(inner, lambda _, keep=keep: keep), optax.masked(optax.set_to_zero(), lambda _, frozen=frozen: frozen)
        )

        def step(params: Any, state: Any, batch: Any, optimizer: Any = optimizer) -> Any:
            gradient = jax.grad(lambda params: loss(eqx.combine(params, static), batch))(params)
            updates, state = optimizer.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        steps.append((jax.jit(step), optimizer.init(params)))
    return [lambda step=step, state=state: eqx.combine(step(params, state, batch)[0], static) for step, state in steps], batch


def _numbered(params: Any, layers: Any) -> Any:
    return jax.tree.map(lambda leaf, number: number or 0, params, layers, is_leaf=lambda leaf: leaf is None)


PEERS = {
    "gradatim": lambda: ours(STARTS),
    "gradatim, every layer (Muon)": lambda: ours(every_layer(3).variants * 3),
    "optax.masked": lambda: masked(STARTS),
}


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.benchmark(group="Drop-Muon, three steps of a CNN")
def test_step(benchmark: Any, peer: str) -> None:
    steps, _ = PEERS[peer]()
    start = time.perf_counter()
    ends = [jax.block_until_ready(jax.tree.leaves(eqx.filter(step(), eqx.is_array))) for step in steps]
    compiling = time.perf_counter() - start
    if peer == "optax.masked":
        expected = [jax.tree.leaves(eqx.filter(step(), eqx.is_array)) for step in ours(STARTS)[0]]
        for end, other in zip(ends, expected, strict=True):
            for a, b in zip(end, other, strict=True):
                np.testing.assert_allclose(a, b, atol=ROUND_OFF)

    def run() -> None:
        for step in steps:
            jax.block_until_ready(jax.tree.leaves(eqx.filter(step(), eqx.is_array)))

    benchmark.pedantic(run, rounds=15, warmup_rounds=2)
    benchmark.extra_info |= {"compile, s": round(compiling, 2), "seconds a step": benchmark.stats["median"] / len(steps)}
