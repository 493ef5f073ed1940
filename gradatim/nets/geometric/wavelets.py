"""What deformations do to spectra of signals on a line: Fourier moduli and averages of wavelet moduli (arXiv:2104.13478, section 3.2;
Mallat, arXiv:1101.2286).

A stretch u → (1 - ε) u moves a frequency ξ by ε ξ: past the width of a peak, its Fourier modulus has little in common with the old one,
however small ε. A wavelet's bandwidth grows with its frequency, so that what moves by ε ξ stays within it:

    S_j x = (1/n) Σ_u |x * ψ_j|(u),     ψ̂_j(ω) = exp(-(ω - c_j)² / (2 (b c_j)²)),     c_j = c_0 2⁻ʲ
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def fourier_modulus(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """|x̂|, unitary: its norm is that of x.

    >>> fourier_modulus(jnp.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    return jnp.abs(jnp.fft.fft(x, norm="ortho"))


def wavelet_modulus_averages(
    x: Float[Array, " n"], *, spacing: float, highest: float, octaves: int, bandwidth: float = 0.35
) -> Float[Array, " octaves"]:
    """S_j x for octaves j of Gabor wavelets on a periodic signal.

    **Arguments:** `x`; `spacing`: between samples; `highest`: c_0, the frequency of the first wavelet in radians per unit of length, below
    π / `spacing`; `octaves`: at least 1; `bandwidth`: b, standard deviation over centre.

    **Raises:** `ValueError` for a `highest` that the samples do not resolve, or numbers that are not positive.

    >>> u = jnp.arange(256) / 16
    >>> wavelet_modulus_averages(jnp.cos(2 * jnp.pi * u), spacing=1 / 16, highest=8 * jnp.pi, octaves=4).round(1)
    Array([0.1, 0.2, 0.5, 0. ], dtype=float32)
    """
    if octaves < 1 or not min(spacing, highest, bandwidth) > 0:
        raise ValueError(f"spacing, highest, octaves and bandwidth must be positive, got {(spacing, float(highest), octaves, bandwidth)}")
    if not highest < np.pi / spacing:
        raise ValueError(f"highest must be below π / spacing = {np.pi / spacing:.4g}, got {highest}")
    centres = jnp.asarray(highest / 2.0 ** np.arange(octaves), x.dtype)[:, None]
    frequencies = jnp.asarray(2 * np.pi * np.fft.fftfreq(len(x), spacing), x.dtype)[None]
    filters = jnp.exp(-(((frequencies - centres) / (bandwidth * centres)) ** 2) / 2)
    return jnp.abs(jnp.fft.ifft(jnp.fft.fft(x)[None] * filters, axis=1)).mean(axis=1)
