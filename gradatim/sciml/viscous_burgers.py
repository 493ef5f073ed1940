"""Burgers' equation on a circle, as rows that are zero where it holds."""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics import PeriodicGrid

from .differences import first_difference


class BurgersTerms(NamedTuple):
    """What the equation needs of w, each linear in it."""

    value: Float[Array, "times places ..."]
    t: Float[Array, "times places ..."]  # ∂w/∂t
    x: Float[Array, "times places ..."]  # ∂w/∂x
    xx: Float[Array, "times places ..."]  # ∂²w/∂x²


class ViscousBurgers(eqx.Module):
    """Burgers' equation with friction on a circle, for [`HardConstraint`][gradatim.implicit.HardConstraint] over basis functions on a grid.

        ∂w/∂t + w ∂w/∂x = ν ∂²w/∂x²

    All terms are linear in w; the equation is quadratic in them. Place is differentiated by Fourier series, time by central differences,
    one-sided ones at both ends. [`burgers`][gradatim.sciml.burgers] is the same equation for networks of a point.

    **Arguments:** `viscosity` ν > 0.

    **Raises:** `ValueError` for a viscosity that is not positive; when called, for fields that are not of the grid, or fewer than 3 times.

    >>> grid = PeriodicGrid((8,), 2 * jnp.pi)
    >>> w = jnp.stack([jnp.sin(grid.positions()[0])] * 3)
    >>> left = ViscousBurgers(viscosity=0.5).equation(ViscousBurgers(viscosity=0.5).terms(w, grid, dt=0.1), time=1.0)
    >>> print(f"{left[1, 2]:.3f}")
    0.500
    """

    viscosity: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 0 < self.viscosity < math.inf:
            raise ValueError(f"viscosity must be positive and finite, got {self.viscosity}")

    def terms(self, w: Float[Array, "times places *basis"], grid: PeriodicGrid, *, dt: float) -> BurgersTerms:
        """Of a field, or of all basis functions along further axes, at times `dt` apart."""
        if w.shape[1:2] != grid.shape or w.shape[0] < 3:
            raise ValueError(f"w must have at least 3 times and the grid's {grid.shape[0]} places first, got shape {w.shape}")
        spectrum = grid.forward(jnp.moveaxis(w, 1, -1))
        (along,) = grid.derivative_wavenumbers()
        factors = jnp.stack([1j * along, grid.laplacian().astype(spectrum.dtype)])
        factors = jnp.expand_dims(factors, tuple(range(1, spectrum.ndim)))
        return BurgersTerms(w, first_difference(w, dt, axis=0), *jnp.moveaxis(grid.backward(factors * spectrum[None]), -1, 2))

    def equation(self, fields: BurgersTerms, time: float) -> Float[Array, "*points"]:
        """`time` · (∂w/∂t + w ∂w/∂x - ν ∂²w/∂x²)."""
        return time * (fields.t + fields.value * fields.x - self.viscosity * fields.xx)
