"""Cells that diffuse and drift up a gradient: Scharfetter and Gummel's flux, and its implicit step.

D. L. Scharfetter and H. K. Gummel, IEEE Trans. Electron Devices 16, 64 (1969): the flux between two cells is that of the exact steady
solution between their centres, upwind for a strong drift and centred for a weak one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .grids import AbstractGrid
from .tridiagonal import solve_tridiagonal


def bernoulli(x: Float[Array, ...]) -> Float[Array, ...]:
    """B(x) = x / (eˣ - 1), positive and smooth for every x.

    >>> [round(float(b), 6) for b in bernoulli(jnp.array([-1000.0, 0.0, 1.0]))]
    [1000.0, 1.0, 0.581977]
    """
    return _bernoulli_of_size(_size(x)) + jnp.maximum(-x, 0)


def _bernoulli_of_size(size: Array) -> Array:
    """B for x ≥ 0; B(-x) = B(x) + x gives the other side without loss of digits."""
    # Below 1e-4 the next term of the series, x⁴/720, is under round-off; beyond 80 even single precision has nothing left.
    small = size < 1e-4
    safe = jnp.where(small, 1.0, size)
    return jnp.where(small, 1 - size / 2 + size**2 / 12, safe / jnp.expm1(jnp.minimum(safe, 80.0 if size.dtype == jnp.float32 else 500.0)))


def _size(x: Array) -> Array:
    # |x| with the derivative 0 at 0, so that the derivative of B there, half of it from either part, comes out as -1/2.
    return jnp.maximum(x, -x)


def _weights(drift: Array) -> tuple[Array, Array]:
    """(B(-d), B(d)): what leaves the cell below a face upwards, and the one above it downwards."""
    even = _bernoulli_of_size(_size(drift))
    return even + jnp.maximum(drift, 0), even + jnp.maximum(-drift, 0)


def currents(
    grid: AbstractGrid, cells: Float[Array, ...], attractant: Float[Array, ...], chi: Float[Array, ""] | float = 1.0
) -> tuple[Float[Array, ...], ...]:
    """What flows up each axis through its inner faces, flux times area:

        J = (B(-d) nᵢ - B(d) nᵢ₊₁) / h,   d = χ (cᵢ₊₁ - cᵢ),   B(x) = x / (eˣ - 1)

    Zero for n ∝ exp(χ c), whatever the steps of c.

    >>> from gradatim.physics.chemotaxis import Box
    >>> currents(Box((2,)), jnp.array([2.0, 1.0]), jnp.zeros(2))[0].tolist()
    [2.0]
    """
    found = []
    for axis in range(cells.ndim):
        up, down = _weights(jnp.asarray(chi, cells.dtype) * grid.difference(attractant, axis))
        below = jax.lax.slice_in_dim(cells, 0, -1, axis=axis)
        above = jax.lax.slice_in_dim(cells, 1, None, axis=axis)
        found.append(jnp.asarray(grid.conductances(axis), cells.dtype) * (up * below - down * above))
    return tuple(found)


def scharfetter_gummel(
    grid: AbstractGrid, cells: Float[Array, ...], attractant: Float[Array, ...], chi: Float[Array, ""] | float = 1.0
) -> Float[Array, ...]:
    """∂n/∂t = ∇·(∇n - χ n ∇c) of the cells n along the attractant c, by [`currents`][gradatim.physics.chemotaxis.currents].

    >>> from gradatim.physics.chemotaxis import Box
    >>> c = jnp.array([0.0, 3.0, -2.0, 40.0])
    >>> bool(abs(scharfetter_gummel(Box((4,)), jnp.exp(c - 40), c)).max() < 1e-5)
    True
    """
    return -grid.divergence(currents(grid, cells, attractant, chi))


def transport(
    grid: AbstractGrid,
    cells: Float[Array, ...],
    attractant: Float[Array, ...],
    dt: Float[Array, ""] | float,
    chi: Float[Array, ""] | float = 1.0,
) -> Float[Array, ...]:
    """Cells after a backward Euler step along an attractant that is held: positive, and of the same mass, for any dt.

    With several axes one after another (each keeps mass, sign and the steady state n ∝ exp(χ c); the error is of the order of dt).

    >>> from gradatim.physics.chemotaxis import Box
    >>> cells = transport(Box((4,)), jnp.array([4.0, 0.0, 0.0, 0.0]), jnp.zeros(4), 1e4)
    >>> [round(float(n), 2) for n in cells]
    [1.0, 1.0, 1.0, 1.0]
    """
    dt = jnp.asarray(dt, cells.dtype)
    for axis in range(cells.ndim):
        up, down = _weights(jnp.asarray(chi, cells.dtype) * grid.difference(attractant, axis))
        rate = dt * jnp.asarray(grid.conductances(axis), cells.dtype)
        up, down = (jnp.moveaxis(rate * weight, axis, 0) for weight in (up, down))
        volumes = grid.weights(cells)
        ends = [(0, 0)] * (cells.ndim - 1)
        diagonal = volumes + jnp.pad(up, [(0, 1), *ends]) + jnp.pad(down, [(1, 0), *ends])
        cells = jnp.moveaxis(solve_tridiagonal(-up, diagonal, -down, jnp.moveaxis(volumes * cells, axis, 0)), 0, axis)
    return cells
