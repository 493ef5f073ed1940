"""A small decoder of tokens in LLaMA's form (Touvron et al., arXiv:2302.13971), with full or latent attention, dense or with experts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

from .attention import KeyValueCache, LatentCache, MultiHeadAttention, MultiHeadLatentAttention
from .experts import MixtureOfExperts, balanced
from .feed_forward import SwiGLU

Cache = KeyValueCache | LatentCache


class DecoderBlock(eqx.Module):
    """Attention and a feed-forward part, each behind an RMS norm and added to what came in."""

    attention_norm: eqx.nn.RMSNorm
    attention: MultiHeadAttention | MultiHeadLatentAttention
    feed_forward_norm: eqx.nn.RMSNorm
    feed_forward: SwiGLU | MixtureOfExperts

    def __call__(self, x: Float[Array, "tokens width"]) -> tuple[Float[Array, "tokens width"], Int[Array, " routed"] | None]:
        """The tokens after this block, and the load of its experts."""
        x = x + self.attention(jax.vmap(self.attention_norm)(x))
        return self._fed_forward(x)

    def decode(self, x: Float[Array, " width"], cache: Any, *, is_absorbed: bool = True) -> tuple[Float[Array, " width"], Any]:
        """The next token after this block, and the cache with it."""
        normed = self.attention_norm(x)
        if isinstance(self.attention, MultiHeadLatentAttention):
            read, cache = self.attention.decode(normed, cache, is_absorbed=is_absorbed)
        else:
            read, cache = self.attention.decode(normed, cache)
        return self._fed_forward((x + read)[None])[0][0], cache

    def _fed_forward(self, x: Float[Array, "tokens width"]) -> tuple[Float[Array, "tokens width"], Int[Array, " routed"] | None]:
        normed = jax.vmap(self.feed_forward_norm)(x)
        if isinstance(self.feed_forward, MixtureOfExperts):
            y, load = self.feed_forward(normed)
            return x + y, load
        return x + self.feed_forward(normed), None


class DecoderLM(eqx.Module):
    """A causal language model: tokens of one text in, the logits of each next token out; batch with `jax.vmap`.

    **Arguments:** `vocabulary_size`; `width` of tokens; `n_layers`; `n_heads`; `context`: the longest text, tokens;
    `attention`: `"multi_head"` or `"latent"`; `latent_dim`, `rope_dim`, `query_latent_dim`: of
    [`MultiHeadLatentAttention`][gradatim.nets.MultiHeadLatentAttention], by default `width / 2`, `width / 8` and none;
    `has_qk_norm`: of [`MultiHeadAttention`][gradatim.nets.MultiHeadAttention] alone: latent attention normalises its latents, and
    could not absorb normalised keys; `hidden`: feed-forward units that a token passes through, by default 8/3 of the
    width; `n_experts`: routed experts a layer, 0 for a dense part; `n_shared`, `top_k`: of
    [`MixtureOfExperts`][gradatim.nets.MixtureOfExperts], whose experts have `hidden / (n_shared + top_k)` units each, so that as many
    parameters are active with and without experts, the router apart; `key`. Embedding and read-out are separate.

    **Raises:** `ValueError` for sizes below 1 or that do not divide each other as said, for `has_qk_norm` with latent attention, and
    at the call for a text longer than the context.

    >>> model = DecoderLM(84, 32, n_layers=2, n_heads=4, context=64, key=jax.random.key(0))
    >>> eqx.filter_jit(model)(jax.numpy.zeros(10, int)).shape
    (10, 84)
    """

    embedding: eqx.nn.Embedding
    blocks: tuple[DecoderBlock, ...]
    norm: eqx.nn.RMSNorm
    readout: eqx.nn.Linear
    context: int = eqx.field(static=True)

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        n_layers: int,
        n_heads: int,
        context: int,
        *,
        attention: str = "multi_head",
        latent_dim: int | None = None,
        rope_dim: int | None = None,
        query_latent_dim: int | None = None,
        has_qk_norm: bool = False,
        hidden: int | None = None,
        n_experts: int = 0,
        n_shared: int = 0,
        top_k: int = 2,
        key: PRNGKeyArray,
    ) -> None:
        for name, size in (("vocabulary_size", vocabulary_size), ("width", width), ("n_layers", n_layers), ("context", context)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if attention not in ("multi_head", "latent"):
            raise ValueError(f"attention must be 'multi_head' or 'latent', got {attention!r}")
        if has_qk_norm and attention == "latent":
            raise ValueError("has_qk_norm must be False with attention 'latent', got True: latents are normalised instead")
        hidden = max(8 * width // 3 // 4 * 4, 1) if hidden is None else hidden
        embedding_key, readout_key, *block_keys = jax.random.split(key, 2 + n_layers)
        self.embedding = eqx.nn.Embedding(vocabulary_size, width, key=embedding_key)
        blocks = []
        for block_key in block_keys:
            first, second = jax.random.split(block_key)
            if attention == "latent":
                latent = max(width // 2, 1) if latent_dim is None else latent_dim
                rope = width // 8 if rope_dim is None else rope_dim
                attend = MultiHeadLatentAttention(
                    width, n_heads, latent_dim=latent, rope_dim=rope, query_latent_dim=query_latent_dim, key=first
                )
            else:
                attend = MultiHeadAttention(width, n_heads, has_qk_norm=has_qk_norm, key=first)
            if n_experts:
                if n_shared + top_k < 1 or hidden % (n_shared + top_k):
                    raise ValueError(f"n_shared + top_k must divide the hidden units, {hidden}, got {n_shared} + {top_k}")
                share = hidden // (n_shared + top_k)
                feed = MixtureOfExperts(width, share, n_routed=n_experts, n_shared=n_shared, top_k=top_k, key=second)
            else:
                feed = SwiGLU(width, hidden, key=second)
            blocks.append(DecoderBlock(_norm(width), attend, _norm(width), feed))
        self.blocks = tuple(blocks)
        self.norm = _norm(width)
        self.readout = eqx.nn.Linear(width, vocabulary_size, use_bias=False, key=readout_key)
        self.context = context

    def __call__(self, tokens: Integer[Array, " tokens"]) -> Float[Array, "tokens vocabulary"]:
        """The logits of the token after each."""
        return self.with_loads(tokens)[0]

    def with_loads(
        self, tokens: Integer[Array, " tokens"]
    ) -> tuple[Float[Array, "tokens vocabulary"], tuple[Int[Array, " routed"] | None, ...]]:
        """The logits, and the load of each layer's experts (None where there are none)."""
        if len(tokens) > self.context:
            raise ValueError(f"a text may have at most the context's {self.context} tokens, got {len(tokens)}")
        x, loads = self.embedding.weight[tokens], []
        for block in self.blocks:
            x, load = block(x)
            loads.append(load)
        return self._logits(x), tuple(loads)

    def balanced(self, loads: tuple[Int[Array, " routed"] | None, ...]) -> DecoderLM:
        """The model with the biases of its experts moved one step ([`balanced`][gradatim.nets.balanced]).

        **Arguments:** `loads`: what `with_loads` gave, summed over a batch.
        """
        fed = [block.feed_forward for block in self.blocks]
        moved = [
            balanced(feed, n) if isinstance(feed, MixtureOfExperts) and n is not None else feed for feed, n in zip(fed, loads, strict=True)
        ]
        return eqx.tree_at(lambda model: [block.feed_forward for block in model.blocks], self, moved)

    def init_cache(self, capacity: int | None = None) -> tuple[Cache, ...]:
        """An empty cache of every layer, for `capacity` tokens (None: the context)."""
        capacity = self.context if capacity is None else capacity
        if capacity > self.context:
            raise ValueError(f"capacity must be at most the context of {self.context} tokens, got {capacity}")
        return tuple(block.attention.init_cache(capacity) for block in self.blocks)

    def decode(
        self, token: Integer[Array, ""], cache: tuple[Cache, ...], *, is_absorbed: bool = True
    ) -> tuple[Float[Array, " vocabulary"], tuple[Cache, ...]]:
        """The logits of the token after this one, and the cache with it.

        **Arguments:** `is_absorbed`: of [`MultiHeadLatentAttention`][gradatim.nets.MultiHeadLatentAttention].

        **Raises:** at run time, if the cache is full.
        """
        x, grown = self.embedding.weight[token], []
        for block, layer in zip(self.blocks, cache, strict=True):
            x, layer = block.decode(x, layer, is_absorbed=is_absorbed)
            grown.append(layer)
        return self._logits(x[None])[0], tuple(grown)

    def _logits(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens vocabulary"]:
        return jax.vmap(self.norm)(x) @ self.readout.weight.T


def _norm(width: int) -> eqx.nn.RMSNorm:
    return eqx.nn.RMSNorm(width, use_bias=False)
