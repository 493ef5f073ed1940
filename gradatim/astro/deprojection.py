"""From the sky to the plane of a galaxy's disc: inclination, radius in the plane, and how long an arc second is there."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

MAX_INCLINATION = np.deg2rad(85.0)
"Radians: beyond, a pixel's distance along the minor axis is stretched more than elevenfold, and thickness rules."
SPEED_OF_LIGHT = 299_792.458
"km/s."


class DiskCoordinates(NamedTuple):
    """Places in the plane of a disc, in units of what they were computed from."""

    radius: Float[Array, "*pixels"]
    cosine: Float[Array, "*pixels"]  # of the angle from the major axis


def deproject(
    x: Float[Array, "*pixels"],
    y: Float[Array, "*pixels"],
    *,
    position_angle: Float[Array, ""] | float,
    inclination: Float[Array, ""] | float,
) -> DiskCoordinates:
    """Radius in the plane of a thin disc, and the cosine of the angle from its major axis.

        X = x cos θ + y sin θ,     Y = (y cos θ - x sin θ) / cos i,     r = √(X² + Y²),     cos φ = X / r

    At the centre the cosine is 0, so that nothing rotates there.

    **Arguments:** `x`, `y`: offsets from the centre on the sky; `position_angle` θ of the major axis from x towards y, and `inclination` i
    in [0, 85°]: both in radians.

    **Raises:** `ValueError` for angles that can only be degrees, or an inclination out of range.

    >>> place = deproject(jnp.asarray(3.0), jnp.asarray(-1.0), position_angle=np.deg2rad(30), inclination=np.deg2rad(60))
    >>> print(f"{place.radius:.4f}")
    5.1763
    """
    if is_known(position_angle) and not abs(float(position_angle)) <= 2 * np.pi:
        raise ValueError(f"position_angle must be in radians, at most 2π in size, got {float(position_angle)}: degrees?")
    if is_known(inclination) and not 0 <= float(inclination) <= MAX_INCLINATION:
        raise ValueError(f"inclination must be in radians, between 0 and {MAX_INCLINATION:.4f} (85°), got {float(inclination)}")
    return _deproject(x, y, jnp.asarray(position_angle, x.dtype), jnp.asarray(inclination, x.dtype))


@jax.jit
def _deproject(x: Array, y: Array, position_angle: Array, inclination: Array) -> DiskCoordinates:
    cos, sin = jnp.cos(position_angle), jnp.sin(position_angle)
    along = x * cos + y * sin
    across = (y * cos - x * sin) / jnp.cos(inclination)
    squared = along**2 + across**2
    radius = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
    return DiskCoordinates(jnp.where(squared > 0, radius, 0.0), jnp.where(squared > 0, along / radius, 0.0))


def inclination_of(axis_ratio: Float[Array, "*galaxies"], *, thickness: float = 0.2) -> Float[Array, "*galaxies"]:
    """Radians between the line of sight and the axis of an oblate disc: cos² i = (q² - q₀²) / (1 - q₀²).

    An axis ratio below the thickness is that of a disc seen edge on: 90°.

    **Arguments:** `axis_ratio` q in (0, 1]; `thickness` q₀ in [0, 1), that of an edge-on disc: 0.1 to 0.2 for spirals.

    **Raises:** `ValueError` for either out of range.

    >>> print(f"{np.rad2deg(inclination_of(jnp.asarray(0.5))):.2f}°")
    62.11°
    """
    if not 0 <= thickness < 1:
        raise ValueError(f"thickness must lie in [0, 1), got {thickness}")
    if is_known(axis_ratio) and not ((np.asarray(axis_ratio) > 0) & (np.asarray(axis_ratio) <= 1)).all():
        raise ValueError(f"axis_ratio must lie in (0, 1], got {axis_ratio}")
    return _inclination(axis_ratio, thickness)


@jax.jit
def _inclination(axis_ratio: Array, thickness: Array) -> Array:
    squared = (axis_ratio**2 - thickness**2) / (1 - thickness**2)
    # The derivative of arccos ∘ √ is infinite at both ends of the range, but of one sign.
    return jnp.arctan2(jnp.sqrt(1 - jnp.maximum(squared, 0)), jnp.sqrt(jnp.maximum(squared, 0)))


def kpc_per_arcsec(redshift: Float[Array, "*galaxies"], *, hubble: float = 70.0, matter: float = 0.3) -> Float[Array, "*galaxies"]:
    """Kiloparsecs that an arc second spans at a redshift, in a flat universe with a cosmological constant.

        D_A = c / (H₀ (1 + z)) ∫₀ᶻ dz′ / √(Ωₘ (1 + z′)³ + 1 - Ωₘ)

    **Arguments:** `redshift` z > 0; `hubble` H₀, km/s/Mpc; `matter` Ωₘ in (0, 1].

    **Raises:** `ValueError` for a redshift that is not positive, or `matter` out of range.

    >>> print(f"{kpc_per_arcsec(jnp.asarray(1.0)):.3f}")
    8.009
    """
    if is_known(redshift) and not (np.asarray(redshift) > 0).all():
        raise ValueError(f"redshift must be positive, got {redshift}")
    if not 0 < matter <= 1:
        raise ValueError(f"matter must lie in (0, 1], got {matter}")
    return _scale(redshift, hubble, matter)


@jax.jit
def _scale(redshift: Array, hubble: Array, matter: Array) -> Array:
    nodes, weights = (jnp.asarray(part, jnp.result_type(redshift)) for part in np.polynomial.legendre.leggauss(24))
    half = redshift / 2
    z = half[..., None] * (1 + jnp.broadcast_to(nodes, (*half.shape, nodes.size)))
    distance = SPEED_OF_LIGHT / hubble * half * (1 / jnp.sqrt(matter * (1 + z) ** 3 + 1 - matter) @ weights)
    return distance / (1 + redshift) * 1000 * (np.pi / 180 / 3600)
