"""How far the number of particles in a region strays from its mean, and spectra averaged over shells of equal wavenumber."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics import PeriodicGrid


def number_variance(structure_factor: Float[Array, ...], grid: PeriodicGrid, sides: tuple[int, ...]) -> Float[Array, " sides"]:
    """⟨δN²⟩ in cubes of so many cells a side, averaged over where they lie, from S(k) in the grid's layout:

        ⟨δN²⟩ = (1/V) Σₖ S(k) Πᵢ [dxᵢ sin(kᵢ l/2)/sin(kᵢ dxᵢ/2)]²

    For one state's V |ρₖ|² that is, to round-off, the mean square of what all the boxes of its field hold.

    **Raises:** `ValueError` for another shape, or sides below 1 cell or above a quarter of the box, where its own fixed mean shows.

    >>> grid = PeriodicGrid((32,), 32.0)
    >>> print(f"{number_variance(jnp.ones(grid.spectrum_shape), grid, (4,))[0]:.2f}")  # independent particles: Poisson
    4.00
    """
    if structure_factor.shape != grid.spectrum_shape:
        raise ValueError(f"structure_factor must have the shape of the grid's spectra, {grid.spectrum_shape}, got {structure_factor.shape}")
    if not all(1 <= side <= min(grid.shape) // 4 for side in sides):
        raise ValueError(f"sides must lie between 1 and a quarter of the grid, {min(grid.shape) // 4} cells, got {sides}")
    weighted = structure_factor * grid.multiplicity() / grid.volume
    found = []
    for cells in sides:
        windowed = weighted
        for k, n, side in zip(grid.wavenumbers(), grid.shape, grid.box, strict=True):
            half = k * (side / n / 2)
            ratio = jnp.where(half == 0, float(cells), jnp.sin(cells * half) / jnp.where(half == 0, 1.0, jnp.sin(half)))
            windowed = windowed * (side / n * ratio) ** 2
        found.append(jnp.sum(windowed))
    return jnp.stack(found)


def shell_average(values: Float[Array, "*batch_spectrum"], grid: PeriodicGrid) -> Float[Array, "*batch shells"]:
    """Means over the modes with |k| L/2π within ½ of 1, 2, 3, …, up to the shortest axis's Nyquist mode; L is the longest side.

    Every mode counts as often as the full spectrum holds it. The wavenumbers that belong to it are those of
    [`shell_wavenumbers`][gradatim.physics.electrolyte.shell_wavenumbers].

    **Raises:** `ValueError` if the last axes are not those of the grid's spectra.

    >>> grid = PeriodicGrid((8, 8), 2 * np.pi)
    >>> [round(float(k), 2) for k in shell_average(grid.squared_wavenumber(), grid)]
    [1.5, 4.67, 9.25]
    """
    if values.shape[-grid.dim :] != grid.spectrum_shape:
        raise ValueError(f"values must have the shape of the grid's spectra, {grid.spectrum_shape}, as last axes, got {values.shape}")
    return _shell_means(values, grid)


@eqx.filter_jit
def _shell_means(values: Array, grid: PeriodicGrid) -> Array:
    index, weights, n_shells = _shells(grid)
    flat = values.reshape(-1, index.size)
    sums = jax.vmap(lambda row: jax.ops.segment_sum(row * weights, index, n_shells + 1))(flat)
    counts = np.bincount(index, weights, n_shells + 1)
    means = sums[:, 1:n_shells] / jnp.asarray(counts[1:n_shells], values.dtype)[None, :]
    return means.reshape(*values.shape[: values.ndim - grid.dim], -1)


def shell_wavenumbers(grid: PeriodicGrid) -> Float[Array, " shells"]:
    """The mean |k| over the modes of each shell.

    >>> [round(float(k), 2) for k in shell_wavenumbers(PeriodicGrid((8, 8), 2 * np.pi))]
    [1.21, 2.16, 3.04]
    """
    return shell_average(jnp.sqrt(grid.squared_wavenumber()), grid)


def _shells(grid: PeriodicGrid) -> tuple[np.ndarray, np.ndarray, int]:
    with jax.ensure_compile_time_eval():
        square, weights = np.asarray(grid.squared_wavenumber()), np.asarray(grid.multiplicity())
    longest = max(grid.box)
    # To nine digits first, or what is whole or a half but for round-off would fall on either side by the unit of length.
    n_shells = int(np.round(min(n // 2 * longest / side for n, side in zip(grid.shape, grid.box, strict=True)), 9))
    index = np.rint(np.round(np.sqrt(square) * longest / (2 * np.pi), 9)).astype(int).reshape(-1)
    return np.minimum(index, n_shells), weights.reshape(-1), n_shells
