"""Linear theory of waves along the magnetic field: the plasma dispersion function, and whistlers that a heat flux drives.

The dispersion function: B. D. Fried and S. D. Conte, The Plasma Dispersion Function (1961), by the rational series of J. A. C. Weideman,
SIAM J. Numer. Anal. 31, 1497 (1994). The growth of whistlers is derived from the distribution that arXiv:2504.14000 drives; the same
instability: A. Levinson and D. Eichler, ApJ 387, 212 (1992).
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from .vectors import Scalar

_TERMS = 32
"Of the series: 1e-12 of w everywhere."


def faddeeva(z: Complex[Array, ...]) -> Complex[Array, ...]:
    """w(z) = exp(-z²) erfc(-i z), on the whole plane; below the real axis by w(z) = 2 exp(-z²) - w(-z).

    >>> print(f"{faddeeva(jnp.asarray(1j)).real:.4f}")  # e · erfc(1)
    0.4276
    """
    z = jnp.asarray(z, jnp.result_type(z, jnp.complex64))
    is_below = z.imag < 0
    upper = jnp.where(is_below, -z, z)
    scale, coefficients = _weideman(_TERMS)
    distance = scale - 1j * upper
    ratio = (scale + 1j * upper) / distance
    series = jnp.zeros_like(ratio)
    for coefficient in coefficients:
        series = series * ratio + coefficient
    w = 2 * series / distance**2 + 1 / (math.sqrt(math.pi) * distance)
    reflected = 2 * jnp.exp(-(jnp.where(is_below, z, 0) ** 2)) - w
    return jnp.where(is_below, reflected, w)


def dispersion_function(zeta: Complex[Array, ...]) -> Complex[Array, ...]:
    """Z(ζ) = i √π w(ζ), which is π^(-½) ∫ exp(-t²) / (t - ζ) dt above the real axis, and its continuation below; Z' = -2 (1 + ζ Z).

    >>> print(f"{dispersion_function(jnp.array(0j)).imag:.4f}")  # √π
    1.7725
    """
    return 1j * math.sqrt(math.pi) * faddeeva(zeta)


def whistler_frequency(wavenumber: Scalar | Array, heat_flux: Scalar | Array, anisotropy: Scalar | Array = 0.0) -> Complex[Array, ...]:
    """ω β / Ω of electron waves along B, for ω ≪ Ω; the imaginary part is their growth rate:

        ω β / Ω = K [K² + η β (Z₂/2 - Z/4) - Δ β Z₁] / Z,   ζ = -1/K,   Z₁ = 1 + ζ Z,   Z₂ = ζ Z₁

    of electrons with f = f_M [1 + η x (x² + y² - 5/2)], x along B in units of v_th, and a pressure anisotropy. They grow for
    Δβ + ηβ / (2K) > K²; with Δ = 0, at 0 < K < (ηβ/2)^⅓. Δ < 0, the firehose's sign, stills them. The oblique waves, and the firehose, are
    not in this formula.

    **Arguments:** `wavenumber` K = k ρₑ ≠ 0; K < 0 is the other sense of rotation; `heat_flux` η β; `anisotropy` Δ β with
    Δ = (p_⊥ - p_∥) / p.

    >>> print(f"{whistler_frequency(0.620, 1.0):.3f}")
    0.330+0.053j
    """
    wavenumber = jnp.asarray(wavenumber, jnp.result_type(float, wavenumber))
    zeta = -1 / wavenumber
    Z = dispersion_function(zeta + 0j)
    # Causality: a growing wave with k < 0 has its phase speed below the real axis, and there Z is the conjugate.
    Z = jnp.where(wavenumber < 0, Z.conj(), Z)
    Z1 = 1 + zeta * Z
    return wavenumber * (wavenumber**2 + heat_flux * (zeta * Z1 / 2 - Z / 4) - anisotropy * Z1) / Z


@functools.cache
def _weideman(n: int) -> tuple[float, tuple[float, ...]]:
    """The scale and the coefficients, highest power first, from the FFT of the function on a circle."""
    m = 2 * n
    scale = float(np.sqrt(n / np.sqrt(2)))
    t = scale * np.tan(np.arange(-m + 1, m) * np.pi / (2 * m))
    values = np.concatenate([[0.0], np.exp(-(t**2)) * (scale**2 + t**2)])
    coefficients = np.fft.fft(np.fft.fftshift(values)).real / (2 * m)
    return scale, tuple(float(a) for a in coefficients[n:0:-1])
