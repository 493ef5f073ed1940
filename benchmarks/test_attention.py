"""One decoded character with 1,024 in the cache, and a layer of experts, ours beside what they replace; results compared first.

Decoding reads the whole cache for each character: 2 d numbers of each token with full attention, r + d_R with a latent, which the
absorbed form reads twice and the other turns into keys and values of all tokens anew. The caches are donated.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets import MixtureOfExperts, MultiHeadAttention, MultiHeadLatentAttention, cache_bytes

WIDTH, HEADS, TOKENS = 512, 8, 1024
ROUND_OFF = 1e-4  # single precision, 1,024 terms in another order


def full() -> Any:
    return MultiHeadAttention(WIDTH, HEADS, key=jax.random.key(0))


def latent() -> Any:
    return MultiHeadLatentAttention(WIDTH, HEADS, latent_dim=WIDTH // 2, rope_dim=WIDTH // 8, key=jax.random.key(0))


DECODERS: dict[str, Any] = {
    "gradatim": (latent, {"is_absorbed": True}),
    "latent, keys and values formed": (latent, {"is_absorbed": False}),
    "full attention": (full, {}),
}


@pytest.mark.parametrize("peer", DECODERS)
@pytest.mark.benchmark(group=f"attention, one token after {TOKENS - 1}, width {WIDTH}")
def test_decode(benchmark: Any, peer: str) -> None:
    make, how = DECODERS[peer]
    attention = make()
    x = jax.random.normal(jax.random.key(1), (TOKENS, WIDTH))

    @eqx.filter_jit
    def filled(attention: Any, x: Any) -> Any:
        return jax.lax.scan(lambda cache, row: (attention.decode(row, cache, **how)[1], None), attention.init_cache(TOKENS), x[:-1])[0]

    cache = filled(attention, x)
    decode = jax.jit(lambda attention, row, cache: attention.decode(row, cache, **how), donate_argnums=2)
    y, _ = decode(attention, x[-1], jax.tree.map(jnp.copy, cache))
    np.testing.assert_allclose(y, jax.jit(lambda a, x: a(x)[-1])(attention, x), atol=ROUND_OFF)
    size = cache_bytes(cache)
    held = [cache]

    def prepare() -> tuple[tuple[Any], dict[str, Any]]:
        # Back by the one token, so that the cache never fills up.
        return (jax.block_until_ready(dataclasses.replace(held[0], length=jnp.asarray(TOKENS - 1, jnp.int32))),), {}

    def step(cache: Any) -> None:
        held[0] = jax.block_until_ready(decode(attention, x[-1], cache))[1]

    benchmark.extra_info["cache, KiB"] = size / 1024
    benchmark.extra_info["over full attention's"] = size / cache_bytes(jax.eval_shape(lambda: full().init_cache(TOKENS)))
    benchmark.pedantic(step, setup=prepare, rounds=200, warmup_rounds=10)


SIZES = {"6 experts, 2 a token": (6, 2), "62 experts, 6 a token": (62, 6)}


def ragged(experts: Any, x: Any) -> Any:
    """Sorted by expert and multiplied by `jax.lax.ragged_dot`, without the shared experts."""
    routing = experts.route(x)
    order = jnp.argsort(routing.experts.ravel(), stable=True)
    rows = x[order // experts.top_k]
    gate, up = (jax.lax.ragged_dot(rows, each.transpose(0, 2, 1), routing.load) for each in (experts.gate, experts.up))
    out = jax.lax.ragged_dot(jax.nn.silu(gate) * up, experts.down.transpose(0, 2, 1), routing.load)
    return (out[jnp.argsort(order)].reshape(len(x), experts.top_k, -1) * routing.gates[:, :, None]).sum(1)


def applied(experts: Any, x: Any) -> Any:
    return experts(x)[0]


LAYERS: dict[str, Any] = {
    "gradatim": (applied, None),
    "all experts, weighed": (applied, "dense"),
    "in blocks by expert": (applied, "grouped"),
    "jax.lax.ragged_dot": (ragged, None),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", LAYERS)
def test_experts(benchmark: Any, peer: str, size: str) -> None:
    n_routed, top_k = SIZES[size]
    benchmark.group, benchmark.param = f"experts, 1,024 tokens of width 64, {size}", peer
    function, dispatch = LAYERS[peer]
    layer = eqx.filter_jit(function)
    ours, experts = (
        MixtureOfExperts(64, 44, n_routed=n_routed, top_k=top_k, dispatch=way, key=jax.random.key(0)) for way in (None, dispatch)
    )
    x = jax.random.normal(jax.random.key(1), (1024, 64))
    np.testing.assert_allclose(layer(experts, x), eqx.filter_jit(applied)(ours, x), atol=ROUND_OFF)
    benchmark.extra_info["dispatch"] = experts.dispatch
    benchmark(lambda: jax.block_until_ready(layer(experts, x)))
