"""Layers on sets: graphs without edges, or with all of them (arXiv:2104.13478, Sections 4.1, 5.3 and 5.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .weights import uniform


class SetLinear(eqx.Module):
    """Every linear map of a set that respects permutations: h_u = W x_u + V mean_v x_v + b, from two generators.

    **Arguments:** `n_in`, `n_out`: channels; `key`.

    >>> layer, x = SetLinear(1, 2, key=jax.random.key(0)), jnp.array([[1.0], [5.0], [3.0]])
    >>> bool(jnp.allclose(layer(x[::-1]), layer(x)[::-1]))
    True
    """

    own: Float[Array, "n_in n_out"]
    mean: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]

    def __init__(self, n_in: int, n_out: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key)
        self.own, self.mean = (uniform(k, (n_in, n_out), fan_in=2 * n_in) for k in keys)
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Float[Array, "n n_in"]) -> Float[Array, "n n_out"]:
        """The set mapped."""
        return x @ self.own + (x.mean(axis=0) @ self.mean + self.bias)[None]


class DeepSets(eqx.Module):
    """An invariant of a set (Zaheer et al., arXiv:1703.06114): f(X) = φ(⊕_u ψ(x_u)).

    A sum can tell any two multisets apart; a mean forgets how many there are, a maximum how often each comes.

    **Arguments:** `element`: ψ; `readout`: φ; `pool`: `"sum"`, `"mean"` or `"max"`.

    **Raises:** `ValueError` for another pooling.

    >>> for pool in ("sum", "mean"):
    ...     count = DeepSets(lambda x: x, lambda y: y, pool=pool)
    ...     print(count(jnp.ones((2, 1)))[0] == count(jnp.ones((3, 1)))[0])
    False
    True
    """

    element: Callable[[Any], Array]
    readout: Callable[[Any], Array]
    pool: Literal["sum", "mean", "max"] = eqx.field(static=True)

    def __init__(
        self, element: Callable[[Any], Array], readout: Callable[[Any], Array], *, pool: Literal["sum", "mean", "max"] = "sum"
    ) -> None:
        if pool not in ("sum", "mean", "max"):
            raise ValueError(f"pool must be one of sum, mean, max, got {pool!r}")
        self.element, self.readout, self.pool = element, readout, pool

    def __call__(self, x: Float[Array, "n channels"]) -> Float[Array, " n_out"]:
        """The invariant of one set."""
        embedded = jax.vmap(self.element)(x)
        return self.readout(getattr(embedded, self.pool)(axis=0))


class SetAttention(eqx.Module):
    """Attention of each element to all of its own set or of another, without positions: equivariant to permutations.

        h_u = b + Σ_v softmax_v((Q x_u)·(K y_v)/√d) W y_v,     y = x if it is not given

    The "dot" case of [`GraphAttention`][gradatim.nets.geometric.GraphAttention] on the complete graph, as products of matrices. Positions
    added to x break the symmetry, as they should; the order of y never matters.

    **Arguments:** `n_in`, `n_out`: channels, of all heads together; `n_heads`: a divisor of `n_out`; `key`.

    **Raises:** `ValueError` for heads that do not divide the channels.

    >>> layer, x = eqx.filter_jit(SetAttention(1, 4, n_heads=2, key=jax.random.key(0))), jnp.array([[1.0], [5.0], [3.0]])
    >>> bool(jnp.allclose(layer(x[::-1]), layer(x)[::-1], atol=1e-6))
    True
    """

    query: Float[Array, "n_in heads d"]
    key: Float[Array, "n_in heads d"]
    value: Float[Array, "n_in heads d"]
    bias: Float[Array, " n_out"]

    def __init__(self, n_in: int, n_out: int, *, n_heads: int = 1, key: PRNGKeyArray) -> None:
        if n_heads < 1 or n_out % n_heads:
            raise ValueError(f"n_heads must divide the channels that come out, {n_out}, got {n_heads}")
        shape = (n_in, n_heads, n_out // n_heads)
        self.query, self.key, self.value = (uniform(k, shape, fan_in=n_in) for k in jax.random.split(key, 3))
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Float[Array, "n n_in"], y: Float[Array, "m n_in"] | None = None) -> Float[Array, "n n_out"]:
        """The set mapped."""
        y = x if y is None else y
        q, k, v = (jnp.einsum("nc,chd->nhd", of, weight) for of, weight in ((x, self.query), (y, self.key), (y, self.value)))
        weights = jax.nn.softmax(jnp.einsum("uhd,vhd->huv", q, k) / q.shape[-1] ** 0.5, axis=-1)
        return jnp.einsum("huv,vhd->uhd", weights, v).reshape(len(x), -1) + self.bias[None]


class SetTransformerBlock(eqx.Module):
    """A block of the set transformer (Lee et al., arXiv:1810.00825, Eqs. 6 to 10): attention and a perceptron, each added and normalised.

        M(X, Y) = norm(H + φ(H)),     H = norm(X + attention(X, Y));     X ↦ M(X, X), or M(X, M(I, X)) through learned points I

    Without points every element attends to all others, n² scores; through m points it takes 2 n m. Both are equivariant to permutations.

    **Arguments:** `n_channels`; `n_heads`: a divisor of it; `n_points`: m, or none; `width`: hidden units of φ, by default
    `n_channels`; `key`.

    **Raises:** `ValueError` for heads that do not divide the channels, or a number of points or width below 1.

    >>> block = SetTransformerBlock(8, n_heads=2, n_points=3, key=jax.random.key(0))
    >>> block(jnp.ones((5, 8))).shape
    (5, 8)
    """

    whole: _Attended
    through: _Attended | None
    points: Float[Array, "m n_channels"] | None

    def __init__(
        self, n_channels: int, *, n_heads: int = 1, n_points: int | None = None, width: int | None = None, key: PRNGKeyArray
    ) -> None:
        for name, size in (("n_points", n_points), ("width", width)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        keys = jax.random.split(key, 3)
        width = n_channels if width is None else width
        self.whole = _Attended(n_channels, n_heads, width, key=keys[0])
        self.through = None if n_points is None else _Attended(n_channels, n_heads, width, key=keys[1])
        self.points = None if n_points is None else uniform(keys[2], (n_points, n_channels), fan_in=n_channels)

    def __call__(self, x: Float[Array, "n n_channels"]) -> Float[Array, "n n_channels"]:
        """The set mapped."""
        if self.through is None or self.points is None:
            return self.whole(x, x)
        return self.whole(x, self.through(self.points, x))


class _Attended(eqx.Module):
    """M(X, Y) of the set transformer."""

    attention: SetAttention
    perceptron: eqx.nn.MLP
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]

    def __init__(self, n_channels: int, n_heads: int, width: int, *, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.attention = SetAttention(n_channels, n_channels, n_heads=n_heads, key=first)
        self.perceptron = eqx.nn.MLP(n_channels, n_channels, width, 1, key=second)
        self.norms = (eqx.nn.LayerNorm(n_channels), eqx.nn.LayerNorm(n_channels))

    def __call__(self, x: Array, y: Array) -> Array:
        attended = jax.vmap(self.norms[0])(x + self.attention(x, y))
        return jax.vmap(lambda h: self.norms[1](h + self.perceptron(h)))(attended)
