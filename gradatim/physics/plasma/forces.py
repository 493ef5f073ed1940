"""Thermodynamic forces: a homogeneous plasma that evolves as if a temperature or velocity gradient ran through it.

P. Pal Choudhury and A. F. A. Bott, arXiv:2504.14000 (2025): Eq. (54) is the force of the temperature gradient, Eq. (60) its effect on the
distribution. The velocity gradient's force is written in the form that gives the Chapman–Enskog drive exactly; the article's own Eq. (62)
could not be read.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .loading import check_temperature, mean_kinetic_energy
from .vectors import Scalar, Vector, add, check_direction, dot, kinetic_energy, lorentz_factor, scaled

Direction = tuple[Scalar, Scalar, Scalar]


class AbstractForce(eqx.Module):
    """An acceleration du/dt that depends on a particle's own momentum u = γ v / c alone; time in 1/ωₚ, as all of this room."""

    @abc.abstractmethod
    def __call__(self, u: Vector) -> Vector:
        """du/dt."""

    @abc.abstractmethod
    def flow(self, u: Vector, dt: Scalar) -> Vector:
        """The momenta after a time `dt` under this force alone, to second order in `dt` at least."""

    @abc.abstractmethod
    def divergence(self, u: Vector) -> Float[Array, ...]:
        """∂/∂u · (du/dt): how fast the force dilutes phase space."""


class TemperatureGradientForce(AbstractForce):
    """What a temperature gradient of length L along the unit vector a does to the distribution:

        du/dt = (γ - 1 - ε₀) / L  a

    The drive on f is -∂/∂u · (f du/dt): with the velocity divergence of the force, 3/2 becomes the 5/2 of Chapman and Enskog,
    (v·a/L) (v²/v_th² - 5/2) f. A heat flux along +a results, so 1/L = -a·∇ ln T: heat runs down the gradient. L in units of c/ωₚ, and per
    unit mass: the charge drops out.

    Runs away: see [`is_runaway`][gradatim.physics.plasma.is_runaway] for the particles that this force accelerates without bound.

    **Arguments:** `length` L ≠ 0 (infinite: no force; negative: heat runs along -a); `direction` a: in a magnetised plasma the field's,
    not the grid's; `theta` θ = T / (m c²) > 0; `offset`: the mean kinetic energy ε₀ in m c², `"paper"` for (3/2) θ, `"exact"` for that of
    the Maxwell–Jüttner distribution, whose mean force is then zero at any θ, or a number, such as the mean of γ - 1 over the particles.
    Where an electric field may cancel the mean force, the offset changes no heat flux.

    **Raises:** `ValueError` for L = 0, θ ≤ 0, a direction that is not of length one, or a word that is no offset.

    >>> force = TemperatureGradientForce(100.0, (1.0, 0.0, 0.0), 0.01)
    >>> print(f"{float(force(Vector(0.0, 0.3, 0.0)).x):.5f}")
    0.00029
    """

    length: Scalar
    direction: Direction
    offset: Scalar

    def __init__(self, length: Scalar, direction: Direction, theta: Scalar, offset: str | Scalar = "paper"):
        if is_known(length) and (float(length) == 0 or np.isnan(float(length))):
            raise ValueError(f"length must not be 0 (infinite for no force), got {float(length)}")
        check_temperature(theta)
        if is_known(*direction):
            check_direction(direction)
        if isinstance(offset, str):
            if offset not in ("paper", "exact"):
                raise ValueError(f"offset must be 'paper', 'exact' or a number, got {offset!r}")
            offset = 1.5 * theta if offset == "paper" else mean_kinetic_energy(theta)
        self.length, self.direction, self.offset = length, direction, offset

    def __call__(self, u: Vector) -> Vector:
        """(γ - 1 - ε₀) / L a."""
        return scaled(Vector(*self.direction), (kinetic_energy(u) - self.offset) / self.length)

    def flow(self, u: Vector, dt: Scalar) -> Vector:
        """Two terms of the Taylor series of u·a, at fixed momentum across a; the error is of third order in dt / L."""
        along = Vector(*self.direction)
        squared = dot(u, u)
        slowness = jax.lax.rsqrt(1 + squared)  # 1/γ; and γ - 1 = u²/γ / (1 + 1/γ)
        rate = (squared * slowness / (1 + slowness) - self.offset) / self.length
        gain = dt * rate * (1 + 0.5 * dt / self.length * dot(u, along) * slowness)
        return add(u, along, gain)

    def divergence(self, u: Vector) -> Float[Array, ...]:
        """v·a / L."""
        return dot(u, Vector(*self.direction)) / (lorentz_factor(u) * self.length)


class VelocityGradientForce(AbstractForce):
    """What a gradient of the bulk velocity U does to the distribution:

        du/dt = -S u,   S = ½ (∇U + ∇Uᵀ) - ⅓ (∇·U) 1

    The drive on f is -(2/v_th²) (v v):S f, that of Chapman and Enskog. Volumes in momentum space stay, since S has no trace.

    **Arguments:** `strain` S: 3 × 3, symmetric and traceless, in units of ωₚ.

    **Raises:** `ValueError` for a strain of another shape, or one that is not symmetric and traceless.
    """

    strain: Float[Array, "3 3"]

    def __init__(self, strain: Any):
        strain = jnp.asarray(strain, jnp.result_type(float))
        if strain.shape != (3, 3):
            raise ValueError(f"strain must have shape (3, 3), got {strain.shape}")
        if is_known(strain):
            known = np.asarray(strain, np.float64)
            size = np.abs(known).max()
            if np.abs(known - known.T).max() > 1e-5 * size:
                raise ValueError(f"strain must be symmetric, got {known.tolist()}")
            if abs(np.trace(known)) > 1e-5 * size:
                raise ValueError(f"strain must be traceless (subtract a third of ∇·U), got a trace of {np.trace(known):g}")
        self.strain = strain

    @staticmethod
    def gyrotropic(rate: Scalar, direction: Direction) -> VelocityGradientForce:
        """S = -σ (a a - 1/3): stretches u·a at (2/3) σ and shrinks the rest at σ/3.

        Pressure along a grows over that across for σ > 0, the side of the firehose; σ < 0 is that of the mirror and the whistler.

        >>> force = VelocityGradientForce.gyrotropic(0.3, (1.0, 0.0, 0.0))
        >>> [round(float(part), 6) for part in force(Vector(1.0, 1.0, 0.0))]
        [0.2, -0.1, 0.0]
        """
        if is_known(*direction):
            check_direction(direction)
        a = jnp.stack([jnp.asarray(part, jnp.result_type(float, part)) for part in direction])
        return VelocityGradientForce(-rate * (a[:, None] * a[None, :] - jnp.eye(3, dtype=a.dtype) / 3))

    def __call__(self, u: Vector) -> Vector:
        """-S u."""
        return _apply(-self.strain, u)

    def flow(self, u: Vector, dt: Scalar) -> Vector:
        """exp(-S dt) u, exactly."""
        return _apply(jax.scipy.linalg.expm(-self.strain * dt), u)

    def divergence(self, u: Vector) -> Float[Array, ...]:
        """0."""
        return jnp.zeros_like(u.x)


class SumForce(AbstractForce):
    """Several forces at once; the flow takes the first half way, the rest, and the first again (second order, reversible)."""

    forces: tuple[AbstractForce, ...]

    def __init__(self, *forces: AbstractForce):
        if not forces:
            raise ValueError("forces must be at least one, got none")
        self.forces = forces

    def __call__(self, u: Vector) -> Vector:
        """The sum."""
        total = self.forces[0](u)
        for force in self.forces[1:]:
            total = add(total, force(u))
        return total

    def flow(self, u: Vector, dt: Scalar) -> Vector:
        """Strang's composition of the parts."""
        *before, last = self.forces
        for force in before:
            u = force.flow(u, dt / 2)
        u = last.flow(u, dt)
        for force in reversed(before):
            u = force.flow(u, dt / 2)
        return u

    def divergence(self, u: Vector) -> Float[Array, ...]:
        """The sum of theirs."""
        total = self.forces[0].divergence(u)
        for force in self.forces[1:]:
            total = total + force.divergence(u)
        return total


def _apply(matrix: Float[Array, "3 3"], u: Vector) -> Vector:
    return Vector(*(matrix[i, 0] * u.x + matrix[i, 1] * u.y + matrix[i, 2] * u.z for i in range(3)))
