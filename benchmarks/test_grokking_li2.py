"""Networks of pairs: ten epochs of training beside the same with one-hot inputs in JAX; PyTorch in `peers/`.

Losses are compared with those of NumPy in double precision first. The limit is the three products of the read-out, forwards and back, at
the rate of products of the same sizes alone.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.landscape import PairNetwork, class_centred_loss

_spec = importlib.util.spec_from_file_location("modular", Path(__file__).parent / "peers" / "modular.py")
assert _spec is not None
assert _spec.loader is not None
modular = importlib.util.module_from_spec(_spec)
sys.modules["modular"] = modular
_spec.loader.exec_module(modular)


def looked_up(network: PairNetwork, pairs: Any) -> Any:
    return network(pairs)


def one_hot(network: PairNetwork, pairs: Any) -> Any:
    order = network.first.shape[0] // 2
    inputs = jax.nn.one_hot(pairs, order, dtype=jnp.float32).reshape(len(pairs), 2 * order)
    return (inputs @ network.first) ** 2 @ network.readout


PEERS: dict[str, Callable[[PairNetwork, Any], Any]] = {"gradatim": looked_up, "JAX, one-hot inputs": one_hot}


def optimizer() -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(modular.DECAY), optax.adam(modular.RATE))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train(peer: str, epochs: int, state: Any, pairs: Any, labels: Any) -> Any:
    def epoch(state: Any, _: Any) -> Any:
        def one(network: Any, memory: Any, pairs: Any, labels: Any) -> Any:
            loss, gradient = jax.value_and_grad(lambda net: class_centred_loss(PEERS[peer](net, pairs), labels))(network)
            updates, memory = optimizer().update(gradient, memory, network)
            return (optax.apply_updates(network, updates), memory), loss

        networks, memories = state
        return jax.vmap(one)(networks, memories, pairs, labels)

    return jax.lax.scan(epoch, state, length=epochs)


def start(given: Any) -> Any:
    networks = PairNetwork(jnp.asarray(given.first), jnp.asarray(given.readout))
    return networks, jax.vmap(lambda network: optimizer().init(network))(networks)


def products(given: Any) -> float:
    """Seconds of the read-out's three products for all networks, alone."""
    networks, n, _ = given.pairs.shape
    nodes, order = given.readout.shape[1:]
    random = np.random.default_rng(0)
    F, V, G = (jnp.asarray(random.normal(size=(networks, *shape)), jnp.float32) for shape in ((n, nodes), (nodes, order), (n, order)))
    run = jax.jit(lambda F, V, G: (F @ V, F.swapaxes(1, 2) @ G, G @ V.swapaxes(1, 2)))
    jax.block_until_ready(run(F, V, G))
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        jax.block_until_ready(run(F, V, G))
        times.append(time.perf_counter() - begun)
    return min(times)


@pytest.mark.parametrize("size", modular.SIZES)
@pytest.mark.parametrize("peer", PEERS)
def test_epoch(benchmark: Any, peer: str, size: str) -> None:
    benchmark.param, benchmark.group = peer, f"{modular.BLOCK} epochs, {size}"
    given = modular.work(*modular.SIZES[size])
    pairs, labels = jnp.asarray(given.pairs, jnp.int32), jnp.asarray(given.labels, jnp.int32)
    _, losses = train(peer, modular.EPOCHS + 1, start(given), pairs, labels)
    np.testing.assert_allclose(losses.T, modular.losses(given), rtol=modular.AGREEMENT)
    held = [start(given)]
    train(peer, modular.BLOCK, start(given), pairs, labels)

    def epochs() -> None:
        held[0] = jax.block_until_ready(train(peer, modular.BLOCK, held[0], pairs, labels))[0]

    benchmark.pedantic(epochs, rounds=10, warmup_rounds=1)
    benchmark.extra_info["over its products"] = benchmark.stats["median"] / modular.BLOCK / products(given)
