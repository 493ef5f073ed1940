"""Mechanical systems with unit constants: an oscillator, a pendulum, two chaotic ones, and bodies that attract each other.

All have H = |p|²/2 + V(q), and unit masses unless it is said otherwise. Systems of one coordinate live in two, of which the second is
never used: states are (q₁, q₂, p₁, p₂) for one particle in all of them, so that one network can meet them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradatim.numerics import rollout

from .hamiltonian import HamiltonianField
from .phase_flow import SeparableHamiltonian, yoshida_step

MAX_TRIES = 1000
"Draws after which a state is given up."


class InitialStates(NamedTuple):
    """States to start from, and how many draws were refused."""

    states: Float[Array, "n size"]
    n_refused: Int[Array, ""]


class MechanicalSystem(eqx.Module):
    """A system and the region it starts in.

    **Arguments:** `name`; `potential`: V of the coordinates; `draw`: a random state, of a key; `energy_below`: states with more are
    drawn again; `n_surplus`: how many of the last coordinates are never used; `masses`: of the particles, 1 if none are given;
    `accepts`: whether to start from a state, all by default: others are drawn again.

    >>> spring = mass_spring()
    >>> print(f"{spring.energy(jnp.array([1.0, 0.0, 1.0, 0.0])):.1f}", spring.name)
    1.0 mass-spring
    """

    name: str = eqx.field(static=True)
    potential: Callable[[Float[Array, " m"]], Float[Array, ""]] = eqx.field(static=True)
    draw: Callable[[PRNGKeyArray], Float[Array, " size"]] = eqx.field(static=True)
    energy_below: float = eqx.field(static=True, default=math.inf)
    n_surplus: int = eqx.field(static=True, default=0)
    masses: tuple[float, ...] | None = eqx.field(static=True, default=None)
    accepts: Callable[[Float[Array, " size"]], Bool[Array, ""]] | None = eqx.field(static=True, default=None)

    @property
    def hamiltonian(self) -> SeparableHamiltonian:
        """Its energy, in two parts."""
        return SeparableHamiltonian(kinetic_energy(self.masses), self.potential)

    @property
    def field(self) -> HamiltonianField:
        """Its vector field, for diffrax too."""
        return HamiltonianField(self.energy)

    def energy(self, x: Float[Array, " size"]) -> Float[Array, ""]:
        """|p|²/2 + V(q), or Σᵢ |pᵢ|²/(2 mᵢ) + V(q) with masses."""
        return self.hamiltonian(x)

    def sample_initial(self, key: PRNGKeyArray, n: int) -> InitialStates:
        """`n` random states of no more than the system's energy that it accepts, NaN where a thousand draws were refused.

        **Raises:** `ValueError` for `n` < 1.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        keys = jax.random.split(key, n)
        if self.energy_below == math.inf and self.accepts is None:
            return InitialStates(jax.vmap(self.draw)(keys), jnp.zeros((), jnp.int32))

        def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            key, _, tries = state
            key, now = jax.random.split(key)
            return key, self.draw(now), tries + 1

        def refuses(x: Array) -> Array:
            too_high = self.energy(x) > self.energy_below
            return too_high if self.accepts is None else too_high | ~self.accepts(x)

        def refused(state: tuple[Array, Array, Array]) -> Array:
            return refuses(state[1]) & (state[2] < MAX_TRIES)

        def one(key: PRNGKeyArray) -> tuple[Array, Array]:
            _, x, tries = jax.lax.while_loop(refused, again, again((key, jnp.zeros(()), jnp.zeros((), jnp.int32))))
            return jnp.where(refuses(x), jnp.nan, x), tries - 1

        states, refusals = jax.vmap(one)(keys)
        return InitialStates(states, refusals.sum())

    def trajectory(self, x: Float[Array, " size"], *, horizon: float, n_steps: int, substeps: int = 4) -> Float[Array, "times size"]:
        """The states at `n_steps` + 1 equally spaced times from 0 to `horizon`, `substeps` symplectic steps of order 4 between two.

        **Raises:** `ValueError` for a horizon that is not positive or fewer than one step or substep.

        >>> print(pendulum().trajectory(jnp.array([1.0, 0, 0, 0]), horizon=10.0, n_steps=100)[-1, 0].round(4))
        -0.9989
        """
        if not horizon > 0:
            raise ValueError(f"horizon must be positive, got {horizon}")
        if n_steps < 1 or substeps < 1:
            raise ValueError(f"n_steps and substeps must be at least 1, got {n_steps} and {substeps}")
        dt = horizon / (n_steps * substeps)
        return rollout(lambda x: yoshida_step(self.hamiltonian, x, dt), x, n_steps=n_steps * substeps, every=substeps)


def mass_spring() -> MechanicalSystem:
    """V = q₁²/2, from -1 < q₁, p₁ < 1.

    >>> print(mass_spring().energy(jnp.array([1.0, 0.0, 2.0, 0.0])))
    2.5
    """
    return MechanicalSystem("mass-spring", lambda q: q[0] ** 2 / 2, lambda key: _in_box(key, 1.0, n_surplus=1), n_surplus=1)


def pendulum() -> MechanicalSystem:
    """V = 1 - cos q₁, from -1 < q₁, p₁ < 1: it never turns over.

    >>> print(f"{pendulum().energy(jnp.array([math.pi, 0.0, 0.0, 0.0])):.4f}")
    2.0000
    """
    return MechanicalSystem("pendulum", lambda q: 1 - jnp.cos(q[0]), lambda key: _in_box(key, 1.0, n_surplus=1), n_surplus=1)


def henon_heiles() -> MechanicalSystem:
    """V = (x² + y²)/2 + x²y - y³/3, from |q₁|, |q₂|, |p₁|, |p₂| < 0.25 and H < 0.12: from 1/6 on it may escape.

    >>> print(f"{henon_heiles().energy(jnp.array([0.0, 1.0, 0.0, 0.0])):.4f}")  # the saddle
    0.1667
    """

    def potential(q: Float[Array, " 2"]) -> Float[Array, ""]:
        x, y = q
        return (x**2 + y**2) / 2 + x**2 * y - y**3 / 3

    return MechanicalSystem("Hénon–Heiles", potential, lambda key: _in_box(key, 0.25), energy_below=0.12)


def magnetic_mirror() -> MechanicalSystem:
    """A charge in a magnetic bottle, V = (ρ + ρz²/2 - ρ³/8)²/2, from |q₁|, |q₂|, |p₁|, |p₂| < 0.5.

    >>> print(f"{magnetic_mirror().energy(jnp.array([1.0, 0.0, 0.0, 0.0])):.4f}")
    0.3828
    """

    def potential(q: Float[Array, " 2"]) -> Float[Array, ""]:
        rho, z = q
        return (rho + rho * z**2 / 2 - rho**3 / 8) ** 2 / 2

    return MechanicalSystem("magnetic mirror", potential, lambda key: _in_box(key, 0.5))


def n_body(n: int) -> MechanicalSystem:
    """`n` bodies in a plane, V = -Σ_{i<j} 1/|qᵢ - qⱼ|, on a circle of radius 0.4 to 0.6, at 0.9 to 1.1 of the speed that keeps them on it.

    They stay a regular polygon as long as rounding lets them: from three on it is unstable. [`three_body`][gradatim.sciml.three_body]
    starts off it.

    **Raises:** `ValueError` for fewer than two.

    >>> at_rest = jnp.array([0.5, 0.0, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
    >>> print(n_body(2).energy(at_rest))
    -1.0
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    # Force on a body towards the centre of a circle of radius 1.
    pull = sum(1 / (4 * math.sin(math.pi * k / n)) for k in range(1, n))

    def potential(q: Float[Array, " m"]) -> Float[Array, ""]:
        return -jnp.sum(1 / distances(q, n))

    def draw(key: PRNGKeyArray) -> Float[Array, " size"]:
        turn, size, speed = jax.random.uniform(key, (3,))
        radius, speed = 0.4 + 0.2 * size, 0.9 + 0.2 * speed
        angles = 2 * jnp.pi * (turn + jnp.arange(n) / n)
        outward = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=1)
        along = jnp.stack([-jnp.sin(angles), jnp.cos(angles)], axis=1)
        return jnp.concatenate([(radius * outward).ravel(), (speed * jnp.sqrt(pull / radius) * along).ravel()])

    return MechanicalSystem(f"{n} bodies", potential, draw)


def kinetic_energy(masses: tuple[float, ...] | None) -> Callable[[Float[Array, " m"]], Float[Array, ""]]:
    """|p|²/2, or Σᵢ |pᵢ|²/(2 mᵢ) of particles with these masses."""
    if masses is None:
        return lambda p: p @ p / 2

    def of_particles(p: Float[Array, " m"]) -> Float[Array, ""]:
        return jnp.sum(jnp.sum(p.reshape(len(masses), -1) ** 2, axis=1) / jnp.array(masses, p.dtype)) / 2

    return of_particles


def distances(q: Float[Array, " m"], n: int) -> Float[Array, " pairs"]:
    """Between any two of `n` particles in a plane: the second and the first, the third and the first, the third and the second, …."""
    places = q.reshape(n, 2)
    apart = jnp.stack([places[i] - places[j] for i in range(n) for j in range(i)])
    return jnp.sqrt(jnp.sum(apart**2, axis=1))


def _in_box(key: PRNGKeyArray, half_width: float, *, n_surplus: int = 0) -> Float[Array, " 4"]:
    used = 2 - n_surplus
    draws = jax.random.uniform(key, (2 * used,), minval=-half_width, maxval=half_width)
    return jnp.pad(draws.reshape(2, used), ((0, 0), (0, n_surplus))).ravel()
