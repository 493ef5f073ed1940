"""Three bodies that attract each other, started near Lagrange's triangle and kept while no two of them come close.

    H = Σᵢ |pᵢ|²/(2 mᵢ) - G Σ_{i<j} mᵢ mⱼ/|qᵢ - qⱼ|

An equilateral triangle of side d turns about its centre of mass with ω² = G (m₁ + m₂ + m₃)/d³, whatever the masses are (Lagrange 1772);
unless one has nearly all the mass it is unstable, and its neighbours are chaotic.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .hamiltonian_systems import MechanicalSystem, distances, kinetic_energy
from .phase_flow import SeparableHamiltonian, yoshida_step

SIDES = (0.9 * math.sqrt(3), 1.2 * math.sqrt(3))
"Of the triangle, from a circle of radius 0.9 to one of 1.2, and how much a velocity differs: from Greydanus et al., arXiv:1906.01563."
SPREAD = 0.2
STEP = 0.02
"In units of √(3/(G M)): at the shortest distance that is let through by default it keeps the energy to 5e-4."


def three_body(
    masses: tuple[float, float, float] = (1.0, 1.0, 1.0), *, gravity: float = 1.0, horizon: float = 10.0, closest: float = 0.3
) -> MechanicalSystem:
    """Three bodies in a plane, V = -G Σ_{i<j} mᵢ mⱼ/|qᵢ - qⱼ|, from near Lagrange's triangle.

    They start on an equilateral triangle of side 1.56 to 2.08, their centre of mass at rest at the origin, with velocities that differ
    from Lagrange's by up to a fifth of his speed along and across. Such orbits are chaotic, and soon two bodies meet: starts from which
    any two come closer than `closest` before `horizon` are drawn again, about half of them with the defaults, more for a longer horizon
    or a stronger pull. Trajectories beyond the horizon may collide.

    **Arguments:** `masses`: three, positive; `gravity`: G > 0; `horizon` > 0; `closest`: from 0 to below the shortest side.

    **Raises:** `ValueError` for any of these out of its range.

    >>> triangle = jnp.array([1.0, 0.0, -0.5, 0.75**0.5, -0.5, -(0.75**0.5)]) / 3**0.5
    >>> print(f"{three_body().energy(jnp.concatenate([triangle, jnp.zeros(6)])):.4f}")
    -3.0000
    """
    if len(masses) != 3 or not all(0 < m < math.inf for m in masses):
        raise ValueError(f"masses must be three positive numbers, got {masses}")
    if not 0 < gravity < math.inf:
        raise ValueError(f"gravity must be positive, got {gravity}")
    if not 0 < horizon < math.inf:
        raise ValueError(f"horizon must be positive, got {horizon}")
    if not 0 <= closest < SIDES[0]:
        raise ValueError(f"closest must lie in [0, {SIDES[0]:.4f}), below the shortest side at the start, got {closest}")
    first, second, third = masses
    # In the order of `distances`.
    strengths = (gravity * second * first, gravity * third * first, gravity * third * second)
    total = math.fsum(masses)
    n_steps = math.ceil(horizon * math.sqrt(gravity * total / 3) / STEP)

    def potential(q: Float[Array, " 6"]) -> Float[Array, ""]:
        return -jnp.sum(jnp.array(strengths, q.dtype) / distances(q, 3))

    def draw(key: PRNGKeyArray) -> Float[Array, " 12"]:
        draws = jax.random.uniform(key, (8,))
        side = SIDES[0] + (SIDES[1] - SIDES[0]) * draws[0]
        change = SPREAD * (2 * draws[2:].reshape(2, 3, 1) - 1)
        angles = 2 * jnp.pi * (draws[1] + jnp.arange(3) / 3)
        m = jnp.array(masses, side.dtype)[:, None]
        q = side / math.sqrt(3) * jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        q = q - jnp.sum(m * q, axis=0, keepdims=True) / total
        across = jnp.stack([-q[:, 1], q[:, 0]], axis=1)
        v = jnp.sqrt(gravity * total / side**3) * (across * (1 + change[0]) + q * change[1])
        v = v - jnp.sum(m * v, axis=0, keepdims=True) / total
        return jnp.concatenate([q.ravel(), (m * v).ravel()])

    def stay_apart(x: Float[Array, " 12"]) -> Bool[Array, ""]:
        hamiltonian = SeparableHamiltonian(kinetic_energy(masses), potential)

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            x, least = carry
            x = yoshida_step(hamiltonian, x, horizon / n_steps)
            # Not a number, after a collision, stays that, and is not above.
            return (x, jnp.minimum(least, distances(x[:6], 3).min())), None

        (_, least), _ = jax.lax.scan(step, (x, distances(x[:6], 3).min()), length=n_steps)
        return least > closest

    return MechanicalSystem("three bodies", potential, draw, masses=masses, accepts=stay_apart)
