"""The fluctuation-induced force between two plates in a driven electrolyte, by a sum over modes and in closed form.

The plates lie at z = 0 and H along the field and let no ion through; modes are cos(nπz/H), or sines for plates that conduct. Only the small
wavenumbers count, κH ≫ 1, where S_ρρ/2C₀ = (K²/κ²)(1 + E²kₓ²/(K² + E²kₓ²)); its part without field is cancelled by the thermal fluctuations
of the electric field itself, which is how screening works. What is left is the difference of two sums,

    (1/H) Σₙ [1/(pₙ² + k²) - 1/(pₙ² + q²)],   q² = k² + E²kₓ²,   (1/H) Σₙ 1/(pₙ² + k²) - ∫dp/π 1/(p² + k²) = (coth kH - 1)/k

and the integral, the pressure of the unbounded fluid on the other side, is subtracted before anything is summed: either alone diverges.
"""

from __future__ import annotations

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .checks import Scalar, positive

CLOSURES = ("wall", "fixed_number", "conducting")
"The stress on an insulating wall; its mean over the gap at a fixed number of ions; the stress on a conducting wall."
Closure = Literal["wall", "fixed_number", "conducting"]

_APERY = 1.2020569031595942  # ζ(3)
_RADIAL = np.polynomial.legendre.leggauss(96)
_ANGLES = 256
"Directions in a quarter of the plane: poles of the integrand lie asinh(1/E) off the axis, and errors fall as exp(-1024 asinh(1/E))."
_EARLIEST = 1e-3
"Shortest D t / H²: below it more than 128 modes matter."


def fluctuation_force(
    field: Scalar,
    separation: Scalar,
    *,
    dim: int,
    closure: Closure = "wall",
    thermal_energy: Scalar = 1.0,
    method: Literal["closed", "modes"] = "closed",
) -> Float[Array, ""]:
    """The force per area at rest, positive where it drives the plates apart: k_B T/Hᵈ times an amplitude of the field, s² = 1 + E².

        d = 3:  ζ(3)/(8π) (1 - a),   a = (2 + E²)/(2s³)  "wall",   (4 + 3E²)/(4s³)  "fixed_number",   1/s  "conducting"
        d = 2:  π/24 (1 - a),        a = 1/s³            "wall",   (1/s³ + 1/s)/2   "fixed_number",   1/s  "conducting"

    All of them are at least 0, even in E, and grow as E² from 0.

    **Arguments:** `field` E as in [`DrivenElectrolyte`][gradatim.physics.electrolyte.DrivenElectrolyte]; `separation` H > 0; `dim` 2 or 3;
    `closure` one of [`CLOSURES`][gradatim.physics.electrolyte.CLOSURES]; `thermal_energy` k_B T > 0; `method`: the closed form, or the
    quadrature of the mode sum over k (relative error 1e-10 for |E| ≤ 30), for which single precision is not enough below E = 0.01.

    **Raises:** `ValueError` for another dimension, closure or method, or H or k_B T that is not positive.

    >>> print(f"{float(fluctuation_force(1.0, 1.0, dim=3)):.7f} {float(fluctuation_force(1.0, 2.0, dim=3)):.8f}")
    0.0224635 0.00280794
    """
    _check(dim, closure, separation, thermal_energy)
    if method not in ("closed", "modes"):
        raise ValueError(f"method must be 'closed' or 'modes', got {method!r}")
    square = jnp.asarray(field, jnp.result_type(float, field)) ** 2
    if method == "modes":
        return thermal_energy * _mode_sum(square, separation, dim, closure)
    scale = _APERY / (8 * math.pi) if dim == 3 else math.pi / 24
    return thermal_energy * scale * _one_minus_a(square, dim, closure) / separation**dim


def screened_fluctuation_force(
    field: Scalar, separation: Scalar, *, dim: int, debye_wavenumber: Scalar = 1.0, thermal_energy: Scalar = 1.0
) -> Float[Array, ""]:
    """The stress on an insulating wall at any distance, from the whole S_ρρ: no power law is put in, x = k² + p²,

        P = (k_B T/2) ∫ d^{d-1}k/(2π)^{d-1} [(1/H) Σₙ - ∫dp/π] k² κ⁴/(2x + κ²) [1/(x(x + κ²)) - 1/(x(x + κ²) + g²)],   g = κE kₓ

    Sums over n are done pole by pole, each a coth. Beyond some ten Debye lengths it is `fluctuation_force`'s to order (κH)⁻².

    **Arguments:** as [`fluctuation_force`][gradatim.physics.electrolyte.fluctuation_force]; `debye_wavenumber` κ > 0.

    >>> near = screened_fluctuation_force(1.0, 50.0, dim=3)
    >>> print(f"{float(near / fluctuation_force(1.0, 50.0, dim=3)):.2f}")
    1.00
    """
    _check(dim, "wall", separation, thermal_energy)
    positive(debye_wavenumber=debye_wavenumber)
    # In units of κ.
    height = jnp.asarray(separation * debye_wavenumber, jnp.result_type(float))
    k, k_weights = _half_line(20.0 / height)
    cosine, angle_weights = _directions(dim)
    k, cosine = k[:, None], cosine[None, :]
    square = (field * k * cosine) ** 2
    discriminant = 1 - 4 * square
    # Where both roots meet, some e⁻ᵏᴴ down, the quotient is 0/0.
    discriminant = jnp.where(jnp.abs(discriminant) < 1e-8, 1e-8, discriminant)
    root = jnp.sqrt(discriminant + 0j)

    def excess(wavenumber_square: Array) -> Array:
        w = jnp.sqrt(wavenumber_square + 0j)
        return 2 / (w * jnp.expm1(2 * w * height))  # (coth - 1)/w

    middle = 2 * excess(k**2 + 0.5)
    still = excess(k**2) + excess(k**2 + 1) - middle
    driven = excess(k**2 + 2 * square / (1 + root)) + excess(k**2 + (1 + root) / 2) - middle
    pressure = k**2 * (still - driven / discriminant).real
    total = jnp.sum(k_weights[:, None] * k ** (dim - 2) * angle_weights[None, :] * pressure) / 2
    return thermal_energy * debye_wavenumber**dim * total


def fluctuation_force_at(
    time: Scalar,
    field: Scalar,
    separation: Scalar,
    *,
    dim: int = 3,
    diffusivity: Scalar = 1.0,
    thermal_energy: Scalar = 1.0,
) -> Float[Array, ""]:
    """The stress on an insulating wall `time` after the field is switched on, long after a Debye time: S_ρρ follows the density,

        S_ρρ/2C₀ = K²/κ² + (E²kₓ²/κ²) S_cc/2C₀,   S_cc/2C₀ = K²/Λ + (E²kₓ²/Λ) exp(-2DΛt),   Λ = K² + E²kₓ²

    The ions' density starts without correlations, and the charge that follows it fluctuates more than at rest: the force overshoots, and
    what is left falls as t^(-(d-1)/2), carried by the mode n = 0 that is flat across the gap; in three dimensions

        P(t) - P(∞) → (k_B T/2H) [2 - 4/s + (2 + E²)/s³] / (16π D t),   s² = 1 + E²

    **Arguments:** `time` with D t ≥ 0.001 H²; the others as in [`fluctuation_force`][gradatim.physics.electrolyte.fluctuation_force];
    `diffusivity` D > 0.

    **Raises:** `ValueError` for a time too short for its 128 modes, and as `fluctuation_force`.

    >>> print(f"{fluctuation_force_at(1.0, 1.0, 1.0) / fluctuation_force(1.0, 1.0, dim=3):.2f}")
    1.09
    """
    _check(dim, "wall", separation, thermal_energy)
    positive(diffusivity=diffusivity)
    square = jnp.asarray(field, jnp.result_type(float, field)) ** 2
    elapsed = diffusivity * time / separation**2
    if is_known(elapsed) and not float(elapsed) >= _EARLIEST:
        raise ValueError(f"time must be at least {_EARLIEST} separation² / diffusivity, got {float(elapsed):.3g} of them")
    steady = fluctuation_force(field, separation, dim=dim, thermal_energy=thermal_energy)
    # In units of H: exp(-2Λt) is below 1e-16 where Λ t > 18.4.
    reach = jnp.sqrt(18.4 / elapsed)
    k, k_weights = _half_line(reach)
    cosine, angle_weights = _directions(dim, _ANGLES // 2)
    modes = math.pi * np.arange(129)
    p, p_weights = _half_line(reach)
    p = jnp.concatenate([jnp.asarray(modes, k.dtype), p])
    # Σ over all integers minus ∫ dp/π over all p, both even.
    p_weights = jnp.concatenate([jnp.asarray(np.r_[1.0, np.full(128, 2.0)], k.dtype), -2 / math.pi * p_weights])
    k, cosine, p = k[:, None, None], cosine[None, :, None], p[None, None, :]
    driven = square * k**2 * cosine**2
    whole = k**2 + p**2
    # The ratio first: in single precision the fourth power of a long wave is zero.
    left = k**2 * (driven / whole) ** 2 / (whole + driven) * jnp.exp(-2 * elapsed * (whole + driven))
    weights = (k_weights[:, None, None] * k ** (dim - 2)) * angle_weights[None, :, None] * p_weights[None, None, :]
    return steady + thermal_energy / (2 * separation**dim) * jnp.sum(weights * left)


def _one_minus_a(square: Array, dim: int, closure: str) -> Array:
    # Powers of s through log1p, so that nothing is lost where E² is small.
    log_s = jnp.log1p(square) / 2
    if closure == "conducting":
        return -jnp.expm1(-log_s)
    if dim == 2:
        wall = -jnp.expm1(-3 * log_s)
        return wall if closure == "wall" else (wall - jnp.expm1(-log_s)) / 2
    return -jnp.expm1(jnp.log1p((0.5 if closure == "wall" else 0.75) * square) - 3 * log_s)


def _mode_sum(square: Array, separation: Scalar, dim: int, closure: str) -> Array:
    k, k_weights = _half_line(20.0 / jnp.asarray(separation, square.dtype))
    cosine, angle_weights = _directions(dim)
    k, cosine = k[:, None], cosine[None, :]
    q = k * jnp.sqrt(1 + square * cosine**2)

    def excess(wavenumber: Array) -> Array:
        return 2 / jnp.expm1(2 * wavenumber * separation)  # coth - 1

    if closure == "wall":
        pressure = k * excess(k) - k**2 / q * excess(q)
    elif closure == "conducting":
        pressure = k * excess(k) - q * excess(q)
    else:
        pressure = k * excess(k) - (k**2 + q**2) / (2 * q) * excess(q)
    return jnp.sum(k_weights[:, None] * k ** (dim - 2) * angle_weights[None, :] * pressure) / 2


def _half_line(end: Scalar) -> tuple[Array, Array]:
    """Nodes and weights on (0, end), closer together towards 0."""
    nodes, weights = (np.asarray(array) for array in _RADIAL)
    unit, unit_weights = (nodes + 1) / 2, weights / 2
    dtype = jnp.result_type(float)
    return end * jnp.asarray(unit**2, dtype), end * jnp.asarray(2 * unit * unit_weights, dtype)


def _directions(dim: int, n: int = _ANGLES) -> tuple[Array, Array]:
    """Cosines with the field of the directions along the plates, and weights that hold the (2π)¹⁻ᵈ of the modes."""
    if dim == 2:
        return jnp.ones(1), jnp.full(1, 1 / math.pi)
    angles = math.pi / 2 * (np.arange(n) + 0.5) / n
    return jnp.asarray(np.cos(angles)), jnp.full(n, 1 / (2 * math.pi * n))


def _check(dim: int, closure: str, separation: Scalar, thermal_energy: Scalar) -> None:
    if dim not in (2, 3):
        raise ValueError(f"dim must be 2 or 3, got {dim}")
    if closure not in CLOSURES:
        raise ValueError(f"closure must be one of {', '.join(CLOSURES)}, got {closure!r}")
    positive(separation=separation, thermal_energy=thermal_energy)
