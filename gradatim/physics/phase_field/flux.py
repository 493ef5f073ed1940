"""The flux of solute down gradients of chemical potential and of temperature, under either of the two usual conventions for Q*."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import faces
from .free_energy import AbstractFreeEnergy, Field, Scalar

CONVENTIONS = ("isothermal", "total")
"Which part of ∇μ drives the solute beside Q*: the part at fixed T (de Groot's reduced heat of transport), or all of it."


def check_convention(convention: str) -> None:
    """Raises `ValueError` for any other word."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be 'isothermal' or 'total', got {convention!r}")


def inner_flux(
    potential: Float[Array, ...],
    c: Float[Array, ...],
    T: Field,
    *,
    axis: int,
    free_energy: AbstractFreeEnergy,
    mobility: Field,
    heat_of_transport: Field,
    convention: str,
    dx: float,
) -> Float[Array, ...]:
    """J on the faces between cells along one axis.

        "isothermal":  J = -M [∇μ - (∂²f/∂c∂T) ∇T + Q* ∇T/T]         "total":  J = -M [∇μ + Q* ∇T/T]

    One law in two notations, Q*_total = Q*_isothermal - T ∂²f/∂c∂T; they part ways in a two-phase region when Q* is given as a number.
    Both terms are taken on faces; 1/T is the mean of its neighbours', which makes the ideal solution's Soret profile
    ln(c/(1 - c)) = Q*/(R T) + const an exact rest state of the discrete law.
    """
    force = faces.difference(potential, axis) / dx
    if T.ndim and T.shape[axis] > 1:
        per_kelvin = faces.mean(heat_of_transport, axis) * faces.mean(1 / T, axis)
        if convention == "isothermal":
            per_kelvin = per_kelvin - faces.mean(free_energy.thermal_slope(c, T), axis)
        force = force + per_kelvin * (faces.difference(T, axis) / dx)
    return -faces.mean(mobility, axis) * force


def divergence(fluxes: tuple[Float[Array, ...], ...], wall_flux: tuple[Scalar, Scalar], dx: float) -> Float[Array, ...]:
    """∇·J of fluxes on inner faces, with the given flux through the walls at the low and the high end of the first axis."""
    across = fluxes[0]
    left, right = (jnp.broadcast_to(jnp.asarray(flux, across.dtype), across[:1].shape) for flux in wall_flux)
    # Differences of one array of face fluxes telescope: what leaves a cell enters its neighbour, and mass is kept to round-off.
    total = jnp.diff(jnp.concatenate([left, across, right]), axis=0)
    if len(fluxes) == 2:
        total = total + (fluxes[1] - jnp.roll(fluxes[1], 1, 1))
    return total / dx
