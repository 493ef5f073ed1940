"""What is read off a plasma: moments of the momenta, energies, and the field's spectrum by helicity."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .vectors import Scalar, Vector, dot, kinetic_energy, velocity


class Moments(NamedTuple):
    """Means over particles, in units of m and c; times the density they are per volume."""

    drift: Float[Array, ""]  # ⟨v·a⟩
    heat_flux: Float[Array, ""]  # ⟨(γ-1) v·a⟩
    parallel_pressure: Float[Array, ""]  # ⟨(u·a) (v·a)⟩
    perpendicular_pressure: Float[Array, ""]  # ⟨u_⊥·v_⊥⟩ / 2
    kinetic_energy: Float[Array, ""]  # ⟨γ-1⟩

    @property
    def anisotropy(self) -> Float[Array, ""]:
        """Δ = (p_⊥ - p_∥) / p."""
        pressure = (self.parallel_pressure + 2 * self.perpendicular_pressure) / 3
        return (self.perpendicular_pressure - self.parallel_pressure) / pressure


def moments(u: Vector, direction: tuple[Scalar, Scalar, Scalar]) -> Moments:
    """Drift, heat flux, pressures and energy of particles with momenta `u`, along and across `direction`.

    >>> u = Vector(jnp.array([0.1, -0.1]), jnp.zeros(2), jnp.zeros(2))
    >>> now = moments(u, (1.0, 0.0, 0.0))
    >>> print(f"{now.parallel_pressure:.5f} {now.anisotropy:.1f}")
    0.00995 -3.0
    """
    a, v, energy = Vector(*direction), velocity(u), kinetic_energy(u)
    v_along, u_along = dot(v, a), dot(u, a)
    along = (u_along * v_along).mean()
    return Moments(v_along.mean(), (energy * v_along).mean(), along, (dot(u, v).mean() - along) / 2, energy.mean())


class HelicitySpectrum(NamedTuple):
    """Mean of B_y² + B_z² in each wave along x, from the first harmonic on, by the sense in which the field turns.

    `wavenumber`: k; `positive`: B_y + i B_z ∝ exp(+i k x), right-handed along x; `negative`: exp(-i k x).
    """

    wavenumber: Float[Array, " modes"]
    positive: Float[Array, " modes"]
    negative: Float[Array, " modes"]


def spectrum_by_helicity(magnetic: Vector, dx: Scalar) -> HelicitySpectrum:
    """|B_k|² of the two circular polarisations, averaged over y where there is one.

    In a mean field along +x, electron whistlers that travel along it are of `negative` helicity, those against it of `positive`: both turn
    in time as the electrons gyrate.

    >>> x = 2 * jnp.pi * jnp.arange(16) / 16
    >>> spectrum = spectrum_by_helicity(Vector(0 * x, jnp.cos(2 * x), -jnp.sin(2 * x)), 1.0)
    >>> print(f"{spectrum.positive[1]:.2f} {spectrum.negative[1]:.2f}")
    0.00 1.00
    """
    turning = magnetic.y + 1j * magnetic.z
    n = turning.shape[0]
    power = jnp.abs(jnp.fft.fft(turning, axis=0) / n) ** 2
    power = power.reshape(n, -1).mean(axis=1)
    last = (n - 1) // 2
    wavenumber = 2 * jnp.pi * jnp.arange(1, last + 1) / (n * dx)
    return HelicitySpectrum(wavenumber, power[1 : last + 1], power[: n - last - 1 : -1])


def field_energy(electric: Vector, magnetic: Vector) -> Float[Array, ""]:
    """Mean of (E² + B²) / 2 over the grid.

    >>> print(f"{field_energy(Vector(jnp.ones(4), 0.0, 0.0), Vector(0.0, jnp.full(4, 2.0), 0.0)):.1f}")
    2.5
    """
    return (dot(electric, electric) + dot(magnetic, magnetic)).mean() / 2
