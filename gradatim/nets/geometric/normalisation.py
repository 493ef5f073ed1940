"""Normalisation and dropout of whole fields, which a group only moves (arXiv:2104.13478, Section 4.3).

A group permutes the maps of a regular representation among each other. What treats each map by itself, with statistics or a mask of its
own, treats a turned input otherwise than the input, and the symmetry of all layers before is lost.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

# Beside the variance, as equinox's own layers have it.
_TINY = 1e-5


class FieldNorm(eqx.Module):
    """Each channel brought to mean 0 and variance 1 over space and the group's elements together, then scaled and shifted.

        y = γ (x - mean) / √(variance + 10⁻⁵) + β

    It takes the maps of one image, as [`GroupConv`][gradatim.nets.geometric.GroupConv] gives them, and needs no batch. Where statistics of
    a batch are wanted, as batch normalisation has them, they must be of a channel over all elements likewise.

    **Arguments:** `n_channels`.

    >>> y = eqx.filter_jit(FieldNorm(2))(jnp.arange(2 * 2 * 4 * 2.0).reshape(2, 2, 4, 2))  # rows, columns, turns, channels
    >>> bool(jnp.allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5))
    True
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]

    def __init__(self, n_channels: int) -> None:
        self.scale, self.shift = jnp.ones(n_channels), jnp.zeros(n_channels)

    def __call__(self, x: Float[Array, "*maps channels"]) -> Float[Array, "*maps channels"]:
        """The maps normalised."""
        flat = x.reshape(-1, x.shape[-1])
        mean, variance = flat.mean(axis=0), flat.var(axis=0)
        factor = self.scale * jax.lax.rsqrt(variance + _TINY)
        return ((flat - mean[None]) * factor[None] + self.shift[None]).reshape(x.shape)


class FieldDropout(eqx.Module):
    """Sets whole channels to zero, everywhere in space and for all elements of the group at once, and scales what remains.

    **Arguments:** `p`: the share that is dropped.

    **Raises:** `ValueError` for a share outside [0, 1).

    >>> y = FieldDropout(0.5)(jnp.ones((3, 3, 4, 8)), key=jax.random.key(0))
    >>> jnp.unique(y).tolist(), bool((y == y[:1, :1, :1]).all())
    ([0.0, 2.0], True)
    """

    p: float = eqx.field(static=True)

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"p must lie in [0, 1), got {p}")
        self.p = p

    def __call__(self, x: Float[Array, "*maps channels"], *, key: PRNGKeyArray | None) -> Float[Array, "*maps channels"]:
        """The maps with some missing; without a key, as for a trained network, all of them."""
        if key is None:
            return x
        kept = jax.random.bernoulli(key, 1 - self.p, (x.shape[-1],))
        return x * (kept.astype(x.dtype) / (1 - self.p)).reshape((1,) * (x.ndim - 1) + (-1,))
