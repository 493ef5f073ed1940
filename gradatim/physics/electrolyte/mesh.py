"""Particles on a periodic grid: clouds in cells, both ways, and the smoothed Coulomb field between them.

A charge is shared among the corners of its cell in proportion to nearness, and feels the field with the same shares: with an odd kernel
between corners it exerts no force on itself, and forces sum to 0 (R. W. Hockney and J. W. Eastwood, Computer Simulation Using Particles,
1988, ch. 5).
"""

from __future__ import annotations

import functools
import itertools
import math

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Int

from gradatim.numerics import PeriodicGrid

from .checks import Scalar

Positions = tuple[Float[Array, " particles"], ...]
"One array for each axis: stacked they are several times slower to gather from and to scatter."
Shares = list[tuple[Int[Array, " particles"], Float[Array, " particles"]]]


def shares(positions: Positions, grid: PeriodicGrid) -> Shares:
    """The flat index and the share of each corner around every particle; positions must lie in the box."""
    corners = []
    for x, n, side in zip(positions, grid.shape, grid.box, strict=True):
        scaled = x * (n / side)
        lower = jnp.floor(scaled)
        inside, low = scaled - lower, lower.astype(jnp.int32)
        # Round-off may leave a particle on the far edge, which is the near one.
        low = jnp.where(low >= n, low - n, low)
        high = jnp.where(low == n - 1, 0, low + 1)
        corners.append(((low, 1 - inside), (high, inside)))
    found = []
    for corner in itertools.product(*corners):
        index, share = corner[0]
        for (more, part), n in zip(corner[1:], grid.shape[1:], strict=True):
            index, share = index * n + more, share * part
        found.append((index, share))
    return found


def deposit(amounts: Float[Array, " particles"], where: Shares, grid: PeriodicGrid) -> Float[Array, ...]:
    """The density on the grid of what the particles carry."""
    density = jnp.zeros(grid.n_cells, amounts.dtype)
    for index, share in where:
        density = density.at[index].add(amounts * share, mode="promise_in_bounds")
    return density.reshape(grid.shape) * (grid.n_cells / grid.volume)


def gather(field: Float[Array, ...], where: Shares) -> Float[Array, " particles"]:
    """A field on the grid as the particles feel it."""
    flat = field.reshape(-1)
    return functools.reduce(jnp.add, [share * flat.at[index].get(mode="promise_in_bounds") for index, share in where])


def cloud_window(grid: PeriodicGrid) -> Float[Array, ...]:
    """What sharing among corners does to a mode: Π sinc²(kᵢ dxᵢ/2)."""
    factors = [jnp.sinc(k * side / (2 * math.pi * n)) ** 2 for k, n, side in zip(grid.wavenumbers(), grid.shape, grid.box, strict=True)]
    return functools.reduce(jnp.multiply, [jnp.broadcast_to(factor, grid.spectrum_shape) for factor in factors])


def coulomb_kernels(grid: PeriodicGrid, smearing: Scalar) -> tuple[Complex[Array, ...], ...]:
    """What makes, of the charge on the grid, each component of -∇ψ with -∇²ψ = charge, both ends smeared over Gaussians of that width.

    The window of deposit and gather is divided out, so that Gaussians are all that is left of it at wavenumbers well below the grid's.
    """
    square = grid.squared_wavenumber()
    smooth = jnp.exp(-(smearing**2) * square) / cloud_window(grid) ** 2
    potential = -grid.inverse_laplacian() * smooth
    return tuple(-1j * k * potential for k in grid.derivative_wavenumbers())


def wrapped(x: Float[Array, " particles"], side: float) -> Float[Array, " particles"]:
    """Positions taken back into the box."""
    return x - side * jnp.floor(x / side)
