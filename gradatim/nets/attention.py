"""Causal self-attention that keeps all keys and values (arXiv:1706.03762), or a latent of them (DeepSeek-V2, arXiv:2405.04434).

| | cache a token and layer, numbers | d = n d_h, r = d/2, d_R = d/8 |
| --- | --- | --- |
| [`MultiHeadAttention`][gradatim.nets.MultiHeadAttention] | 2 n d_h | 2 d |
| [`MultiHeadLatentAttention`][gradatim.nets.MultiHeadLatentAttention] | r + d_R | 0.625 d, which is 68.75 % less |

Queries, keys and values have matrices of their own: an optimiser that works on whole matrices would have to split a fused one.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from .feed_forward import of_rows

FULL = "the cache is full: give init_cache a larger capacity"


class RotaryEmbedding(eqx.Module):
    """Turns pairs of coordinates by angles that grow with the position (Su et al., arXiv:2104.09864).

        (xᵢ, xᵢ₊ₘ) ← R(t ωᵢ) (xᵢ, xᵢ₊ₘ),     ωᵢ = base^(-2i/dim),  m = dim/2,  i < m

    so that ⟨R(t) q, R(s) k⟩ depends on t - s alone. Unlike `equinox.nn.RotaryPositionalEmbedding` it takes the positions,
    which decoding needs.

    **Arguments:** `dim`: coordinates, an even number; `base`: of the frequencies, above 1.

    **Raises:** `ValueError` for an odd or negative `dim`, or a `base` of 1 or less.

    >>> turned = RotaryEmbedding(2)(jnp.ones((1, 1, 2)), jnp.array([0]))
    >>> turned.tolist()
    [[[1.0, 1.0]]]
    """

    dim: int = eqx.field(static=True)
    base: float = eqx.field(static=True)

    def __init__(self, dim: int, *, base: float = 10_000.0) -> None:
        if dim < 0 or dim % 2:
            raise ValueError(f"the rotary dimension must be even and at least 0, got {dim}: it turns pairs of coordinates")
        if not base > 1:
            raise ValueError(f"base must be above 1, got {base}")
        self.dim, self.base = dim, base

    def __call__(self, x: Float[Array, "tokens heads dim"], positions: Int[Array, " tokens"]) -> Float[Array, "tokens heads dim"]:
        """Every token turned to its position."""
        frequencies = self.base ** (-jnp.arange(0, self.dim, 2) / max(self.dim, 1))
        angles = (positions[:, None] * frequencies[None])[:, None].astype(x.dtype)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        first, second = jnp.split(x, 2, axis=-1)
        return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


class KeyValueCache(eqx.Module):
    """Keys and values of the tokens so far, all heads."""

    keys: Float[Array, "heads capacity head_dim"]
    values: Float[Array, "heads capacity head_dim"]
    length: Int[Array, ""]


class LatentCache(eqx.Module):
    """Latents of the tokens so far, each with its rotary key behind it: one array, which one product scores."""

    entries: Float[Array, "capacity latent_and_rope"]
    length: Int[Array, ""]


def cache_bytes(cache: Any) -> int:
    """The size of what a cache keeps, of one layer or of many: bytes of its floating-point arrays.

    >>> attention = MultiHeadAttention(8, 2, key=jax.random.key(0))
    >>> cache_bytes(attention.init_cache(100))
    6400
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(cache) if jnp.issubdtype(leaf.dtype, jnp.floating))


class MultiHeadAttention(eqx.Module):
    """Causal attention of `n_heads` heads, positions by rotary embedding.

        scoreᵢ(t, j) = ⟨R(t) qᵢ(t), R(j) kᵢ(j)⟩ / √d_h,  j ≤ t;     y(t) = W_O concatᵢ Σⱼ softmaxⱼ vᵢ(j)

    **Arguments:** `width` of tokens; `n_heads`; `head_dim`: d_h, by default their ratio; `is_rotary`: without it, the order of
    earlier tokens does not matter; `has_qk_norm`: RMS-normalise each head's queries and keys, with gains that the heads share,
    before they are turned (Henry et al., arXiv:2010.04245): scores then do not grow with W_Q and W_K, and stay within √d_h as long as
    the gains are 1; `key`. No biases.

    **Raises:** `ValueError` if a size is below 1, `n_heads` does not divide `width` (and `head_dim` is not given), or a rotary
    `head_dim` is odd.

    >>> attention = MultiHeadAttention(8, 2, key=jax.random.key(0))
    >>> attention(jnp.ones((5, 8))).shape
    (5, 8)
    """

    query: eqx.nn.Linear
    key: eqx.nn.Linear
    value: eqx.nn.Linear
    output: eqx.nn.Linear
    query_norm: eqx.nn.RMSNorm | None
    key_norm: eqx.nn.RMSNorm | None
    rotary: RotaryEmbedding
    n_heads: int = eqx.field(static=True)
    head_dim: int = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        n_heads: int,
        *,
        head_dim: int | None = None,
        is_rotary: bool = True,
        has_qk_norm: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        self.n_heads, self.head_dim = n_heads, _head_dim(width, n_heads, head_dim)
        self.query_norm, self.key_norm = (eqx.nn.RMSNorm(self.head_dim, use_bias=False) if has_qk_norm else None for _ in range(2))
        self.rotary = RotaryEmbedding(self.head_dim if is_rotary else 0)
        inner = n_heads * self.head_dim
        q, k, v, o = jax.random.split(key, 4)
        self.query, self.key, self.value = (eqx.nn.Linear(width, inner, use_bias=False, key=each) for each in (q, k, v))
        self.output = eqx.nn.Linear(inner, width, use_bias=False, key=o)

    def __call__(self, x: Float[Array, "tokens width"], mask: Shaped[Array, " mask"] | None = None) -> Float[Array, "tokens width"]:
        """All tokens at once, each attending to itself and those before it.

        **Arguments:** `mask`: the tokens that may be attended to, so that padding at either end is not read; a token before which, and
        at which, there is none gives zero.

        **Raises:** `ValueError` unless `mask` is a bool for each token.
        """
        q, k, v = self._heads(x, jnp.arange(len(x)))
        scores = jnp.einsum("the,she->hts", q, k) / math.sqrt(self.head_dim)
        return of_rows(self.output, _rows(jnp.einsum("hts,she->the", _causal_softmax(scores, mask), v)))

    def init_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` tokens."""
        shape, dtype = (self.n_heads, _positive(capacity), self.head_dim), self.key.weight.dtype
        return KeyValueCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros((), jnp.int32))

    def decode(self, x: Float[Array, " width"], cache: KeyValueCache) -> tuple[Float[Array, " width"], KeyValueCache]:
        """The next token's output, and the cache with it.

        **Raises:** at run time, if the cache is full.
        """
        now = eqx.error_if(cache.length, cache.length >= cache.keys.shape[1], FULL)
        q, k, v = self._heads(x[None], now[None])
        keys, values = (
            jax.lax.dynamic_update_slice(old, new.transpose(1, 0, 2), (0, now, 0)) for old, new in ((cache.keys, k), (cache.values, v))
        )
        scores = jnp.einsum("he,hse->hs", q[0], keys) / math.sqrt(self.head_dim)
        read = jnp.einsum("hs,hse->he", _softmax_until(scores, now), values)
        return of_rows(self.output, read.reshape(1, -1))[0], KeyValueCache(keys, values, now + 1)

    def _heads(self, x: Float[Array, "tokens width"], positions: Int[Array, " tokens"]) -> Any:
        q, k, v = (of_rows(linear, x).reshape(len(x), self.n_heads, -1) for linear in (self.query, self.key, self.value))
        if self.query_norm is not None and self.key_norm is not None:
            q, k = (jax.vmap(jax.vmap(norm))(part) for norm, part in ((self.query_norm, q), (self.key_norm, k)))
        if self.rotary.dim:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        return q, k, v


class MultiHeadLatentAttention(eqx.Module):
    """Causal attention whose keys and values are read off one short latent a token, with a rotary key that all heads share.

        c(t) = norm(W_DKV h(t)) ∈ ℝʳ;   kᵢ = W_UK,i c;   vᵢ = W_UV,i c;   k_R = R(t) W_KR h ∈ ℝ^d_R;   qᵢ = W_Q,i h;   q_R,i = R(t) W_QR,i h
        scoreᵢ(t, j) = (⟨qᵢ(t), kᵢ(j)⟩ + ⟨q_R,i(t), k_R(j)⟩) / √(d_h + d_R),  j ≤ t;     y(t) = W_O concatᵢ Σⱼ softmaxⱼ vᵢ(j)

    Decoding keeps c and k_R alone and never forms keys or values: ⟨qᵢ, W_UK,i c⟩ = ⟨W_UK,iᵀ qᵢ, c⟩, Σⱼ aⱼ W_UV,i c(j) = W_UV,i Σⱼ aⱼ c(j).
    With a latent of their own, queries are read off c_Q(t) = norm(W_DQ h(t)) in the place of h(t): nothing more is kept, and there are
    fewer weights to read.

    **Arguments:** `width` of tokens; `n_heads`; `latent_dim`: r, at least 1; `rope_dim`: d_R, even, 0 for no positions;
    `head_dim`: d_h, by default `width / n_heads`; `query_latent_dim`: the size of c_Q, None for queries read off the token itself;
    `is_normalised`: RMS-normalise the latents, as DeepSeek does; `key`. No biases.

    **Raises:** `ValueError` if a size is below 1, `rope_dim` is odd, or `n_heads` does not divide `width` (and `head_dim` is not given).

    >>> attention = MultiHeadLatentAttention(16, 2, latent_dim=8, rope_dim=2, key=jax.random.key(0))
    >>> full = MultiHeadAttention(16, 2, key=jax.random.key(0))
    >>> cache_bytes(attention.init_cache(64)) / cache_bytes(full.init_cache(64))
    0.3125
    """

    down: eqx.nn.Linear
    norm: eqx.nn.RMSNorm | None
    up_key: eqx.nn.Linear
    up_value: eqx.nn.Linear
    rope_key: eqx.nn.Linear
    down_query: eqx.nn.Linear | None
    query_norm: eqx.nn.RMSNorm | None
    query: eqx.nn.Linear
    rope_query: eqx.nn.Linear
    output: eqx.nn.Linear
    rotary: RotaryEmbedding
    n_heads: int = eqx.field(static=True)
    head_dim: int = eqx.field(static=True)
    latent_dim: int = eqx.field(static=True)

    def __init__(
        self,
        width: int,
        n_heads: int,
        *,
        latent_dim: int,
        rope_dim: int,
        head_dim: int | None = None,
        query_latent_dim: int | None = None,
        is_normalised: bool = True,
        key: PRNGKeyArray,
    ) -> None:
        for name, size in (("latent_dim", latent_dim), ("query_latent_dim", query_latent_dim)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        self.n_heads, self.head_dim, self.latent_dim = n_heads, _head_dim(width, n_heads, head_dim), latent_dim
        self.rotary = RotaryEmbedding(rope_dim)
        inner = n_heads * self.head_dim
        asking = width if query_latent_dim is None else query_latent_dim
        sizes = {
            "down": (width, latent_dim),
            "up_key": (latent_dim, inner),
            "up_value": (latent_dim, inner),
            "rope_key": (width, rope_dim),
            "query": (asking, inner),
            "rope_query": (asking, n_heads * rope_dim),
            "output": (inner, width),
        }
        self.down_query = self.query_norm = None
        if query_latent_dim is not None:
            sizes["down_query"] = (width, query_latent_dim)
            self.query_norm = eqx.nn.RMSNorm(query_latent_dim, use_bias=False) if is_normalised else None
        for (name, (n_in, n_out)), each in zip(sizes.items(), jax.random.split(key, len(sizes)), strict=True):
            setattr(self, name, eqx.nn.Linear(n_in, n_out, use_bias=False, key=each))
        self.norm = eqx.nn.RMSNorm(latent_dim, use_bias=False) if is_normalised else None

    def __call__(self, x: Float[Array, "tokens width"], mask: Shaped[Array, " mask"] | None = None) -> Float[Array, "tokens width"]:
        """All tokens at once, each attending to itself and those before it.

        **Arguments, raises:** as [`MultiHeadAttention`][gradatim.nets.MultiHeadAttention] does.
        """
        positions = jnp.arange(len(x))
        q, q_rope = self._queries(x, positions)
        c, k_rope = self._latents(x, positions)
        k, v = self._keys_and_values(c)
        scores = (jnp.einsum("the,she->hts", q, k) + jnp.einsum("the,se->hts", q_rope, k_rope)) * self._scale
        return of_rows(self.output, _rows(jnp.einsum("hts,she->the", _causal_softmax(scores, mask), v)))

    def init_cache(self, capacity: int) -> LatentCache:
        """An empty cache for `capacity` tokens."""
        shape = (_positive(capacity), self.latent_dim + self.rotary.dim)
        return LatentCache(jnp.zeros(shape, self.down.weight.dtype), jnp.zeros((), jnp.int32))

    def decode(
        self, x: Float[Array, " width"], cache: LatentCache, *, is_absorbed: bool = True
    ) -> tuple[Float[Array, " width"], LatentCache]:
        """The next token's output, and the cache with it.

        **Arguments:** `is_absorbed`: move W_UK and W_UV to the queries and the read-out; without it keys and values of all tokens
        are formed anew at each call, with the same result.

        **Raises:** at run time, if the cache is full.
        """
        now = eqx.error_if(cache.length, cache.length >= len(cache.entries), FULL)
        q, q_rope = (part[0] for part in self._queries(x[None], now[None]))
        new = jnp.concatenate(self._latents(x[None], now[None]), axis=-1)
        entries = jax.lax.dynamic_update_slice(cache.entries, new, (now, 0))
        if is_absorbed:
            read = self._read_latents(q, q_rope, entries, now)
        else:
            c, k_rope = entries[:, : self.latent_dim], entries[:, self.latent_dim :]
            k, v = self._keys_and_values(c)
            scores = (jnp.einsum("he,she->hs", q, k) + jnp.einsum("he,se->hs", q_rope, k_rope)) * self._scale
            read = jnp.einsum("hs,she->he", _softmax_until(scores, now), v)
        return of_rows(self.output, read.reshape(1, -1))[0], LatentCache(entries, now + 1)

    def _read_latents(
        self, q: Float[Array, "heads head_dim"], q_rope: Float[Array, "heads rope_dim"], entries: Array, now: Int[Array, ""]
    ) -> Float[Array, "heads head_dim"]:
        up_key, up_value = (each.weight.reshape(self.n_heads, self.head_dim, -1) for each in (self.up_key, self.up_value))
        question = jnp.concatenate([jnp.einsum("he,her->hr", q, up_key), q_rope], axis=-1) * self._scale
        # Tokens first until the last product: with the few heads as rows, XLA copies the cache to multiply by it, at half the rate.
        scores = jnp.einsum("sr,hr->sh", entries, question)
        weights = jax.nn.softmax(jnp.where((jnp.arange(len(entries)) <= now)[:, None], scores, -jnp.inf), axis=0)
        # The rotary columns are averaged too and then dropped: cheaper than a copy of the latents without them.
        read = jnp.einsum("sh,sr->hr", weights, entries)[:, : self.latent_dim]
        return jnp.einsum("hr,her->he", read, up_value)

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.head_dim + self.rotary.dim)

    def _queries(self, x: Float[Array, "tokens width"], positions: Int[Array, " tokens"]) -> tuple[Array, Array]:
        x = x if self.down_query is None else of_rows(self.down_query, x)
        x = x if self.query_norm is None else jax.vmap(self.query_norm)(x)
        q, q_rope = (of_rows(linear, x).reshape(len(x), self.n_heads, -1) for linear in (self.query, self.rope_query))
        return q, self.rotary(q_rope, positions)

    def _latents(self, x: Float[Array, "tokens width"], positions: Int[Array, " tokens"]) -> tuple[Array, Array]:
        c, k_rope = of_rows(self.down, x), of_rows(self.rope_key, x)
        c = c if self.norm is None else jax.vmap(self.norm)(c)
        return c, self.rotary(k_rope[:, None], positions)[:, 0]

    def _keys_and_values(self, c: Float[Array, "tokens latent_dim"]) -> tuple[Array, Array]:
        k, v = (of_rows(linear, c).reshape(len(c), self.n_heads, -1) for linear in (self.up_key, self.up_value))
        return k, v


def _head_dim(width: int, n_heads: int, head_dim: int | None) -> int:
    for name, size in (("width", width), ("n_heads", n_heads)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if head_dim is None:
        if width % n_heads:
            raise ValueError(f"n_heads must divide the width of {width}, got {n_heads}; or give head_dim")
        return width // n_heads
    if head_dim < 1:
        raise ValueError(f"head_dim must be at least 1, got {head_dim}")
    return head_dim


def _positive(capacity: int) -> int:
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, got {capacity}")
    return capacity


def _rows(heads: Float[Array, "tokens heads head_dim"]) -> Float[Array, "tokens inner"]:
    return heads.reshape(len(heads), -1)


def _causal_softmax(scores: Float[Array, "heads tokens tokens"], mask: Array | None) -> Float[Array, "heads tokens tokens"]:
    n = scores.shape[-1]
    allowed = jnp.tri(n, dtype=bool)
    if mask is None:
        return jax.nn.softmax(jnp.where(allowed[None], scores, -jnp.inf), axis=-1)
    if mask.shape != (n,) or mask.dtype != bool:
        raise ValueError(f"mask must be {n} bools, one a token, got {mask.shape} of {mask.dtype}")
    allowed = allowed & mask[None]
    # Where nothing is allowed, all is for now: a softmax of nothing is NaN, and so is its derivative.
    shown = allowed | ~allowed.any(-1, keepdims=True)
    weights = jax.nn.softmax(jnp.where(shown[None], scores, -jnp.inf), axis=-1)
    return jnp.where(allowed[None], weights, 0.0)


def _softmax_until(scores: Float[Array, "heads capacity"], last: Int[Array, ""]) -> Float[Array, "heads capacity"]:
    return jax.nn.softmax(jnp.where((jnp.arange(scores.shape[-1]) <= last)[None], scores, -jnp.inf), axis=-1)
