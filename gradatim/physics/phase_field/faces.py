"""Differences between cells and means on the faces between them: walls across the first axis, periodic along the second."""

from __future__ import annotations

import jax
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


def with_ghosts(u: Float[Array, ...], width: int) -> Float[Array, ...]:
    """The field with so many cells more on every side, mirrored at the walls and wrapped along the periodic axis."""
    u = jnp.concatenate([u[:width][::-1], u, u[-width:][::-1]])
    if u.ndim == 2:
        u = jnp.concatenate([u[:, -width:], u, u[:, :width]], PERIODIC)
    # Stencils read slices of one array in memory; fused with the copy above, they take three times as long on a CPU.
    return jax.lax.optimization_barrier(u)


def inner_laplacian(u: Float[Array, ...], dx: float) -> Float[Array, ...]:
    """The three- or five-point ∇²u in all cells but the outermost."""
    if u.ndim == 1:
        return (u[2:] + u[:-2] - 2 * u[1:-1]) / dx**2
    return (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]) / dx**2


def laplacian(u: Float[Array, ...], dx: float) -> Float[Array, ...]:
    """∇²u in every cell, with no gradient at the walls."""
    return inner_laplacian(with_ghosts(u, 1), dx)
