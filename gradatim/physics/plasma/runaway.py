"""Particles that a temperature gradient's force accelerates without bound: which they are, and how they are drawn anew.

The condition is that of P. Pal Choudhury and A. F. A. Bott, arXiv:2504.14000 (2025), Eqs. (72) and (75), derived here from the motion.
Drawing anew what is four thermal speeds fast is the practice of codes that follow them.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradatim.numerics.checks import is_known

from .loading import check_temperature
from .vectors import Scalar, Vector, dot, kinetic_energy


def is_runaway(u: Vector, direction: tuple[Scalar, Scalar, Scalar], offset: Scalar) -> Bool[Array, ...]:
    """Whether a particle under [`TemperatureGradientForce`][gradatim.physics.plasma.TemperatureGradientForce] alone escapes to infinity.

        γ_⊥ > 1 + ε₀,  or  u·a > 0 and γ > 1 + ε₀,   γ_⊥ = √(1 + u_⊥²)

    across the gradient alone: u_⊥² > 3 θ + (9/4) θ² for ε₀ = (3/2) θ, a share of e^{-3/2} = 22 % of a cool Maxwellian, which takes several
    L / v_th to do so. **Arguments:** `direction` a, `offset` ε₀: as the force has them.

    >>> u = Vector(jnp.zeros(2), jnp.array([0.5, 0.6]), jnp.zeros(2))
    >>> is_runaway(u, (1.0, 0.0, 0.0), 1.5 * 0.1).tolist()
    [False, True]
    """
    along = dot(u, Vector(*direction))
    across = jnp.maximum(dot(u, u) - along**2, 0)
    is_too_fast_across = across / (1 + jnp.sqrt(1 + across)) > offset
    return is_too_fast_across | ((along > 0) & (kinetic_energy(u) > offset))


def runaway_speed(offset: Scalar) -> Float[Array, ""]:
    """The least u across the gradient with which a particle escapes from rest along it: √(ε₀ (2 + ε₀)).

    >>> print(f"{float(runaway_speed(1.5 * 0.1) ** 2):.4f}")  # 3 θ + (9/4) θ²
    0.3225
    """
    return jnp.sqrt(jnp.asarray(offset * (2 + offset)))


class RunawayCap(eqx.Module):
    """Draws anew, from the initial distribution, each particle with |u| > `limit`, and counts them.

    Too tight a limit cuts off the particles of two to three thermal speeds that carry the heat; none lets the tail eat the flux.

    **Arguments:** `limit` > 0, in units of c.

    **Raises:** `ValueError` for a limit that is not positive.

    >>> u, fresh = (Vector(jnp.array(x), jnp.zeros(2), jnp.zeros(2)) for x in ([0.25, 1.0], [0.5, 0.125]))
    >>> capped, count = RunawayCap.thermal(0.02)(u, fresh, jnp.int32(0))
    >>> capped.x.tolist(), int(count)
    ([0.25, 0.125], 1)
    """

    limit: Scalar

    def __init__(self, limit: Scalar):
        if is_known(limit) and not float(limit) > 0:
            raise ValueError(f"limit must be positive, got {float(limit)}")
        self.limit = limit

    @staticmethod
    def thermal(theta: Scalar, factor: float = 4.0) -> RunawayCap:
        """At `factor` thermal speeds √(2θ): beyond four of them are 6e-7 of a Maxwellian."""
        check_temperature(theta)
        return RunawayCap(factor * (2 * theta) ** 0.5)

    def __call__(self, u: Vector, fresh: Vector, shift: Int[Array, ""]) -> tuple[Vector, Int[Array, ""]]:
        """The momenta after the cap, and how many were drawn anew: those of `fresh`, counted on by `shift`."""
        return redrawn(u, dot(u, u) > self.limit**2, fresh, shift)


def redrawn(u: Vector, chosen: Bool[Array, " n"], fresh: Vector, shift: Int[Array, ""]) -> tuple[Vector, Int[Array, ""]]:
    """Replaces the chosen momenta by those of a fixed pool, turned by `shift`, and counts them.

    New normal numbers for all particles in each step would cost more than the step.
    """
    n = fresh.x.shape[0]
    index = jax.lax.rem(jnp.arange(chosen.shape[0]) + shift % n, n)
    found = (part.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False) for part in fresh)
    return Vector(*(jnp.where(chosen, new, old) for new, old in zip(found, u, strict=True))), chosen.sum(dtype=jnp.int32)
