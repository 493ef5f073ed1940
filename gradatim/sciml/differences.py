"""Finite differences along an axis of a grid with ends."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def first_difference(u: Float[Array, " *axes"], spacing: float, *, axis: int) -> Float[Array, " *axes"]:
    """Central differences along an axis, one-sided ones of first order at its ends.

    >>> print(first_difference(jnp.array([0.0, 1.0, 4.0, 9.0]), 1.0, axis=0))
    [1. 2. 4. 5.]
    """
    moved = jnp.moveaxis(u, axis, 0)
    inner = (moved[2:] - moved[:-2]) / (2 * spacing)
    ends = [(moved[1:2] - moved[:1]) / spacing, (moved[-1:] - moved[-2:-1]) / spacing]
    return jnp.moveaxis(jnp.concatenate([ends[0], inner, ends[1]]), 0, axis)
