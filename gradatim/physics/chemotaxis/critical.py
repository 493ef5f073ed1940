"""Masses above which cells may gather in a point.

The direct system in two dimensions: W. Jäger and S. Luckhaus, Trans. Amer. Math. Soc. 329, 819 (1992), T. Nagai, Adv. Math. Sci. Appl. 5,
581 (1995). The indirect one in four: K. Fujie and T. Senba, J. Differential Equations 263, 88 (2017), at τ = 1; τ enters as below because
τ ∇⁴c ≈ n where cells are dense.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Number = Float[Array, ""] | float
DIRECT, INDIRECT = 2, 4
"The dimensions in which mass is what decides."


def critical_mass(dimension: int, *, tau: Number = 0.0, chi: Number = 1.0) -> Float[Array, ""]:
    """The mass below which symmetric solutions in a ball stay bounded, and above which concentrated ones blow up:

        direct (τ = 0), N = 2:  8π / χ          indirect (τ > 0), N = 4:  64 π² τ / χ

    from the attractants -(M/2π) ln r and -(M/(8π² τ)) ln r of a point: ∫|x|² n grows at the rate 2 N M (1 - M/M*). Without attraction,
    χ ≤ 0, infinite. More is needed than mass: spread-out cells above it can still go to rest. ε does not enter. Without symmetry
    cells may gather at the boundary, where half of it is enough (8π → 4π), or in a square's corner (2π).

    **Raises:** `ValueError` for a dimension in which no mass decides (below it solutions of any exist, above it none is small enough), or
    τ < 0.

    >>> print(f"{critical_mass(4, tau=0.25):.4f}")
    157.9137
    """
    if is_known(tau) and not float(tau) >= 0:
        raise ValueError(f"tau must be at least 0, got {tau}")
    is_direct = is_known(tau) and float(tau) == 0
    decisive, kind = (DIRECT, "direct, tau = 0") if is_direct else (INDIRECT, "indirect, tau > 0")
    if dimension != decisive:
        raise ValueError(f"dimension must be {decisive} ({kind}) for a mass to be critical, got {dimension}")
    return _without_repulsion(8 * math.pi if is_direct else 64 * math.pi**2 * jnp.asarray(tau, jnp.result_type(float, tau)), chi)


def least_critical_mass(dimension: int, *, tau: Number, chi: Number = 1.0, share: float = 1.0) -> Float[Array, ""]:
    """The critical mass where it is decisive, times a share for domains with a boundary where cells gather; infinite in
    dimensions below, 0 above.
    """

    def of_kind(mass: Array | float, decisive: int) -> Array:
        return _without_repulsion(mass * share if dimension == decisive else (math.inf if dimension < decisive else 0.0), chi)

    tau = jnp.asarray(tau, jnp.result_type(float, tau))
    return jnp.where(tau == 0, of_kind(8 * math.pi, DIRECT), of_kind(64 * math.pi**2 * tau, INDIRECT))


def _without_repulsion(mass: Array | float, chi: Number) -> Array:
    chi = jnp.asarray(chi, jnp.result_type(float, chi))
    return jnp.where(chi > 0, mass / jnp.where(chi > 0, chi, 1), jnp.inf)
