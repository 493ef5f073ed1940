"""How much light dust takes, told from the ratio of two hydrogen lines."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradatim.numerics.checks import is_known

from .emission_lines import HALPHA, HBETA

Curve = Literal["ccm89", "calzetti00"]
TOTAL_TO_SELECTIVE = {"ccm89": 3.1, "calzetti00": 4.05}
"R_V of each curve."
CASE_B = 2.86
"Hα/Hβ without dust at 10⁴ K and 100 electrons a cm³."
_CCM_OPTICAL = (
    (1.0, 0.17699, -0.50447, -0.02427, 0.72085, 0.01979, -0.77530, 0.32999),
    (0.0, 1.41338, 2.28305, 1.07233, -5.38434, -0.62251, 5.30260, -2.09002),
)


def attenuation_curve(wavelength: Float[Array, "*lines"], curve: Curve) -> Float[Array, "*lines"]:
    """k(λ) = A(λ) / E(B-V): the Milky Way's extinction or the attenuation of starburst galaxies.

    `"ccm89"`: J. A. Cardelli, G. C. Clayton & J. S. Mathis, ApJ 345, 245 (1989), R_V = 3.1, optical and near infrared;
    `"calzetti00"`: D. Calzetti et al., ApJ 533, 682 (2000), R_V = 4.05.

    **Arguments:** `wavelength` λ at rest, Å, in [3031, 33333] for the first and [1200, 22000] for the second curve.

    **Raises:** `ValueError` for a wavelength out of range or another curve.

    >>> print(f"{attenuation_curve(jnp.asarray(6564.61), 'calzetti00'):.4f}")
    3.3248
    """
    if curve not in TOTAL_TO_SELECTIVE:
        raise ValueError(f"curve must be 'ccm89' or 'calzetti00', got {curve!r}")
    low, high = (3031.0, 33_333.0) if curve == "ccm89" else (1200.0, 22_000.0)
    if is_known(wavelength) and not ((np.asarray(wavelength) >= low) & (np.asarray(wavelength) <= high)).all():
        raise ValueError(f"wavelength must lie between {low:g} and {high:g} Å for {curve}, got {wavelength}")
    return _curve(wavelength, curve)


@functools.partial(jax.jit, static_argnames="curve")
def _curve(wavelength: Array, curve: Curve) -> Array:
    ratio, inverse = TOTAL_TO_SELECTIVE[curve], 1e4 / wavelength
    if curve == "calzetti00":
        red = -1.857 + 1.040 * inverse
        blue = -2.156 + inverse * (1.509 + inverse * (-0.198 + inverse * 0.011))
        return 2.659 * jnp.where(wavelength >= 6300, red, blue) + ratio
    y = inverse - 1.82
    a, b = (jnp.polyval(jnp.asarray(part[::-1], y.dtype), y) for part in _CCM_OPTICAL)
    infrared = inverse**1.61
    a, b = jnp.where(inverse < 1.1, 0.574 * infrared, a), jnp.where(inverse < 1.1, -0.527 * infrared, b)
    return ratio * a + b


class Reddening(NamedTuple):
    """A colour excess, and whether there is one: noise may leave fluxes that are not positive."""

    colour_excess: Float[Array, "*spectra"]  # E(B-V), mag; NaN where is_valid is false
    is_valid: Bool[Array, "*spectra"]


def balmer_decrement(halpha: Float[Array, "*spectra"], hbeta: Float[Array, "*spectra"], curve: Curve) -> Reddening:
    """The colour excess from two hydrogen lines: E(B-V) = 2.5 / (k_Hβ - k_Hα) · log₁₀((Hα/Hβ) / 2.86).

    Noise may make it negative, and it stays so: set to zero before averages, it would be biased.

    **Arguments:** fluxes, in the same unit; `curve` as for [`attenuation_curve`][gradatim.astro.attenuation_curve].

    >>> print(f"{balmer_decrement(jnp.asarray(3.5), jnp.asarray(1.0), 'ccm89').colour_excess:.4f}")
    0.2043
    """
    k_alpha, k_beta = attenuation_curve(jnp.asarray([HALPHA, HBETA], halpha.dtype), curve)
    return _decrement(halpha, hbeta, k_beta - k_alpha)


@jax.jit
def _decrement(halpha: Array, hbeta: Array, difference: Array) -> Reddening:
    is_valid = (halpha > 0) & (hbeta > 0)
    ratio = jnp.where(is_valid, halpha, CASE_B) / jnp.where(is_valid, hbeta, 1.0)
    excess = 2.5 / difference * jnp.log10(ratio / CASE_B)
    return Reddening(jnp.where(is_valid, excess, jnp.nan), is_valid)


def deredden(
    flux: Float[Array, "*spectra"], wavelength: Float[Array, "*spectra"], colour_excess: Float[Array, "*spectra"], curve: Curve
) -> Float[Array, "*spectra"]:
    """The flux without dust: F 10^(0.4 k(λ) E(B-V)).

    >>> flux, wavelength = jnp.asarray(1.0), jnp.asarray(6564.61)
    >>> print(f"{deredden(flux, wavelength, jnp.asarray(0.2), 'calzetti00'):.4f}")
    1.8449
    """
    return flux * 10 ** (0.4 * attenuation_curve(wavelength, curve) * colour_excess)
