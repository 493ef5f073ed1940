"""Differences between cells and means on the faces between them: walls across the first axis, periodic along the second."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

PERIODIC = 1
"The axis that has no walls."


def difference(u: Float[Array, ...], axis: int) -> Float[Array, ...]:
    """u[i + 1] - u[i] on each inner face; the periodic axis has one face more."""
    return jnp.roll(u, -1, axis) - u if axis == PERIODIC else u[1:] - u[:-1]


def mean(u: Float[Array, ...], axis: int) -> Float[Array, ...]:
    """(u[i] + u[i + 1]) / 2 on the same faces; a scalar, or a field that does not vary along the axis, stays as it is."""
    if u.ndim == 0 or u.shape[axis] == 1:
        return u
    return (jnp.roll(u, -1, axis) + u) / 2 if axis == PERIODIC else (u[1:] + u[:-1]) / 2


def laplacian(u: Float[Array, ...], dx: float) -> Float[Array, ...]:
    """The three- or five-point ∇²u with no gradient at the walls."""
    ghosts = jnp.concatenate([u[:1], u, u[-1:]])
    total = ghosts[2:] + ghosts[:-2] - 2 * u
    if u.ndim == 2:
        total = total + (jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 2 * u)
    return total / dx**2
