"""Decoded characters with 1,024 or 4,096 in the cache, and a layer of experts, ours beside what they replace; results compared first.

PyTorch decodes the same in peers/torch_attention.py.

Decoding reads the whole cache for each character: 2 d numbers of each token with full attention, r + d_R with a latent, which the
absorbed form reads twice and the other turns into keys and values of all tokens anew. The absorbed form multiplies each number of the
cache by one of every head, four or eight here, where full attention multiplies it by one: arithmetic binds it, memory binds full
attention, and more heads mean more of the first and none of the second. Its queries read off the token have more weights than those of
full attention, read off a latent of a quarter of the width fewer. A text alone with 1,024 characters reads as much of weights as of
cache; several texts share the reading of weights and no product with a cache. The caches are donated.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from turns import Rival, in_turns

from gradatim.nets import MixtureOfExperts, MultiHeadAttention, MultiHeadLatentAttention, cache_bytes

sys.path.append(str(Path(__file__).parent / "peers"))
from decoding import WORK  # pyright: ignore[reportMissingImports]

ROUND_OFF = 1e-4  # single precision, a thousand terms in another order


def full(width: int, heads: int, key: Any) -> Any:
    return MultiHeadAttention(width, heads, key=key)


def latent(width: int, heads: int, key: Any, **sizes: Any) -> Any:
    return MultiHeadLatentAttention(width, heads, latent_dim=width // 2, rope_dim=width // 8, key=key, **sizes)


def asking(width: int, heads: int, key: Any) -> Any:
    return latent(width, heads, key, query_latent_dim=width // 4)


DECODERS: dict[str, Any] = {
    "gradatim": (latent, {"is_absorbed": True}),
    "gradatim, queries from a latent": (asking, {"is_absorbed": True}),
    "latent, keys and values formed": (latent, {"is_absorbed": False}),
    "full attention": (full, {}),
}


def decode(layers: Any, x: Any, caches: Any, **how: Any) -> tuple[Any, Any]:
    """The next character of one text, `(width,)`, or of several, through all layers, each added to what came in."""
    after = []
    for layer, cache in zip(layers, caches, strict=True):
        one = lambda x, cache, layer=layer: layer.decode(x, cache, **how)  # noqa: E731
        y, cache = (one if x.ndim == 1 else jax.vmap(one))(x, cache)
        x, after = x + y, [*after, cache]
    return x, after


def at_once(layers: Any, text: Any) -> Any:
    """The last character of a text, without a cache."""
    for layer in layers:
        text = text + layer(text)
    return text[-1]


@pytest.mark.parametrize("work", WORK)
def test_decode(benchmark: Any, work: str) -> None:
    rivals = {peer: decoder(peer, work) for peer in DECODERS}
    in_turns(benchmark, f"attention, the last of {work}", rivals, rounds=100, warmup_rounds=5)


def decoder(peer: str, work: str) -> Rival:
    n_tokens, width, heads, n_texts, n_layers = WORK[work]
    make, how = DECODERS[peer]
    layers = [make(width, heads, key) for key in jax.random.split(jax.random.key(0), n_layers)]
    texts = () if n_texts == 1 else (n_texts,)
    x = jax.random.normal(jax.random.key(1), (n_tokens, *texts, width))
    empty = [jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*texts, *leaf.shape)), layer.init_cache(n_tokens)) for layer in layers]

    @eqx.filter_jit
    def filled(layers: Any, caches: Any, x: Any) -> Any:
        return jax.lax.scan(lambda caches, row: (decode(layers, row, caches)[1], None), caches, x[:-1])[0]

    caches = filled(layers, empty, x)
    size, of_full = (
        cache_bytes(jax.eval_shape(lambda make=make: make(width, heads, jax.random.key(0)).init_cache(n_tokens))) for make in (make, full)
    )
    step = jax.jit(lambda layers, row, caches: decode(layers, row, caches, **how), donate_argnums=2)
    y, caches = step(layers, x[-1], caches)
    by_text = x.reshape(n_tokens, n_texts, width).swapaxes(0, 1)
    expected = eqx.filter_jit(lambda layers, x: jax.lax.map(lambda text: at_once(layers, text), x))(layers, by_text).reshape(y.shape)
    np.testing.assert_allclose(y, expected, atol=n_layers * ROUND_OFF)
    held = [caches]

    def prepare() -> tuple[Any]:
        # Back by the one token, so that the cache never fills up.
        last = jnp.full(texts, n_tokens - 1, jnp.int32)
        return (jax.block_until_ready([dataclasses.replace(cache, length=jnp.copy(last)) for cache in held[0]]),)

    def run(caches: Any) -> None:
        held[0] = jax.block_until_ready(step(layers, x[-1], caches))[1]

    return Rival(run, prepare, {"cache, KiB a text and layer": size / 1024, "over full attention's": size / of_full})


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
