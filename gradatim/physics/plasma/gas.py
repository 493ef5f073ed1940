"""Particles without a grid: a homogeneous gas under a thermodynamic force, with or without collisions, magnetic and mean electric field.

The cleanest check of a force: its heat flux and anisotropy are those of the Chapman–Enskog expansion, in time (arXiv:2504.14000, section
II) and, with the collisions of P. L. Bhatnagar, E. P. Gross and M. Krook, Phys. Rev. 94, 511 (1954), at rest.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .pushers import vay
from .runaway import redrawn
from .species import Species
from .vectors import Scalar, Vector, add, velocity


class GasState(NamedTuple):
    """Momenta, the uniform field that they drive, and what randomness is left."""

    momentum: Vector
    electric: Vector
    fresh: Vector
    redrawn: Int[Array, ""]  # runaways
    key: PRNGKeyArray


class ForcedGas(eqx.Module):
    """A gas in a uniform magnetic field, `state = gas(state)`:

        du/dt = F(u) + (q/m)(E + v × B),   dE/dt = -q ⟨v⟩ if `is_coupled`, else E = 0;   collisions at rate ν draw u anew

    Each step a particle is replaced with probability 1 - e^{-ν dt} by one of the initial distribution: at rest, to first order in the
    gradients, q = (5/2) n T²/(m ν L) and p_∥ - p_⊥ = 2 σ n T/ν. Units as in [`ParticleInCell`][gradatim.physics.plasma.ParticleInCell].

    **Arguments:** `species`: `per_cell` is the number of particles; `dt`: with `is_coupled` below 2, the plasma frequency's bound;
    `magnetic` B, three components; `collision_rate` ν ≥ 0, or None for a gas without collisions; `is_coupled`: whether the mean current
    drives a uniform electric field, which holds it at zero on average, as in a plasma.

    **Raises:** `ValueError`.

    >>> from gradatim.physics.plasma import TemperatureGradientForce, moments
    >>> force = TemperatureGradientForce(1e4, (1.0, 0.0, 0.0), 1e-4)
    >>> gas = ForcedGas(Species(1e-4, 100_000, force=force), dt=100.0)
    >>> q = moments(gas(gas.start(jax.random.key(0))).momentum, (1.0, 0.0, 0.0)).heat_flux
    >>> print(f"{float(q) / 1e-4 ** 2 / 0.01:.1f}")  # (5/2) n T²/m × t/L
    2.5
    """

    species: Species
    dt: Scalar
    magnetic: Vector
    collision_rate: Scalar | None
    is_coupled: bool = eqx.field(static=True)

    def __init__(
        self,
        species: Species,
        *,
        dt: Scalar,
        magnetic: tuple[Scalar, ...] = (0.0, 0.0, 0.0),
        collision_rate: Scalar | None = None,
        is_coupled: bool = False,
    ):
        if is_known(dt) and not (float(dt) > 0 and (float(dt) < 2 or not is_coupled)):
            raise ValueError(f"dt must be positive{' and below 2 (plasma oscillations)' if is_coupled else ''}, got {float(dt):g}")
        if collision_rate is not None and is_known(collision_rate) and not float(collision_rate) >= 0:
            raise ValueError(f"collision_rate must be at least 0, got {float(collision_rate)}")
        if len(magnetic) != 3:
            raise ValueError(f"magnetic must have three components, got {len(magnetic)}")
        self.species, self.dt, self.magnetic = species, dt, Vector(*magnetic)
        self.collision_rate, self.is_coupled = collision_rate, is_coupled

    def start(self, key: PRNGKeyArray) -> GasState:
        """Thermal momenta, no field."""
        keys = jax.random.split(key, 3)
        n = self.species.per_cell
        u = self.species.draw(keys[0], n)
        needs_pool = self.species.cap is not None or self.collision_rate is not None
        fresh = self.species.draw(keys[1], n) if needs_pool else Vector(*(jnp.zeros(0, u.x.dtype) for _ in range(3)))
        return GasState(u, Vector(*(jnp.zeros((), u.x.dtype) for _ in range(3))), fresh, jnp.zeros((), jnp.int32), keys[2])

    def __call__(self, state: GasState) -> GasState:
        """One step."""
        species = self.species
        u = vay(state.momentum, state.electric, self.magnetic, self.dt, species.charge / species.mass, force=species.force)
        key, electric, count = state.key, state.electric, state.redrawn
        n = species.per_cell
        if self.collision_rate is not None:
            key, chance, turn = jax.random.split(key, 3)
            # Opposite partners collide together and draw opposite momenta: odd moments keep no noise of the draw.
            half = jax.random.uniform(chance, (n // 2,), u.x.dtype) < -jnp.expm1(-self.collision_rate * self.dt)
            collides = jnp.concatenate([half, half])
            u, _ = redrawn(u, collides, state.fresh, jax.random.randint(turn, (), 0, n))
        if species.cap is not None:
            key, turn = jax.random.split(key)
            u, more = species.cap(u, state.fresh, jax.random.randint(turn, (), 0, n))
            count = count + more
        if self.is_coupled:
            drift = Vector(*(part.mean() for part in velocity(u)))
            electric = add(electric, drift, -self.dt * species.charge)
        return GasState(u, electric, state.fresh, count, key)
