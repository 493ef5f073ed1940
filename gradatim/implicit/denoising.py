"""Denoising with learned regularisers as bilevel problems: smoothed total variation, and a field of experts.

    h(x, θ) = 1/N [½ ‖x - y‖² + Σᵢ wᵢ Σ √((Kᵢx)² + νᵢ²)],     g(x) = 1/N ½ ‖x - clean‖²

with N images, weights w and roundings ν exponentials of θ, and Kᵢ the filter cᵢ wherever it lies within the image. With s the root,
φ' = t/s, φ'' = ν²/s³ ≤ 1/ν, |φ'''| = 3ν²|t|/s⁵ ≤ 0.8587/ν², and the derivative of φ' in log ν, -ν²t/s³, has slopes within 1/ν:

    μ = 1/N,   L ≤ (1 + M)/N,   L_H ≤ 0.8587 ‖Σ wᵢ‖cᵢ‖/νᵢ² KᵢᵀKᵢ‖/N,   L_J ≤ √(M² + 2 Σ (wᵢ‖Kᵢ‖²/νᵢ)²)/N,   M = ‖Σ wᵢ/νᵢ KᵢᵀKᵢ‖

Kᵢ is a part of the filter on a periodic image, so that these norms are at most the largest entries of sums of Fourier powers.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .bilevel_problem import AbstractBilevel, Scalar

THIRD = 48 / (25 * math.sqrt(5))
"max ν² |φ'''|, at t = ν/2."
DIFFERENCES = 8.0
"‖D‖² of horizontal and vertical differences together, at most."

Images = Float[Array, "n height width"]


class TotalVariationDenoising(AbstractBilevel):
    """Smoothed anisotropic total variation; θ = (log 2w, log ν), one weight and one rounding for all differences.

    **Arguments:** `clean`, `noisy`: images of one size. One row of pixels is a signal in one dimension.

    >>> clean = jnp.zeros((1, 1, 4))
    >>> problem = TotalVariationDenoising(clean, clean + 0.1)
    >>> print(f"{problem.upper(problem.noisy):.2f} {problem.smoothness(jnp.zeros(2)):.0f}")
    0.02 5
    """

    clean: Images
    noisy: Images

    def __check_init__(self) -> None:
        _check_images(self.clean, self.noisy)

    def upper(self, x: Images) -> Scalar:
        """½‖x - clean‖²/N."""
        return _half_square(x - self.clean)

    def lower(self, x: Images, theta: Float[Array, 2]) -> Scalar:
        """½‖x - noisy‖²/N and the total variation."""
        square = jnp.exp(2 * theta[1])
        across = jnp.sum(jnp.sqrt(jnp.diff(x, axis=2) ** 2 + square))
        down = jnp.sum(jnp.sqrt(jnp.diff(x, axis=1) ** 2 + square))
        return _half_square(x - self.noisy) + jnp.exp(theta[0]) / 2 * (across + down) / len(x)

    def strong_convexity(self, theta: Float[Array, 2]) -> Scalar:
        """1/N."""
        return jnp.ones_like(theta[0]) / len(self.clean)

    def smoothness(self, theta: Float[Array, 2]) -> Scalar:
        """(1 + 8 w/ν)/N."""
        return (1 + self._bend(theta)) / len(self.clean)

    def upper_smoothness(self) -> Scalar:
        """1/N."""
        return jnp.ones((), self.clean.dtype) / len(self.clean)

    def hessian_lipschitz(self, theta: Float[Array, 2]) -> Scalar:
        """0.8587 · 8√2 w/ν²/N."""
        return THIRD * math.sqrt(2) * self._bend(theta) * jnp.exp(-theta[1]) / len(self.clean)

    def cross_lipschitz(self, theta: Float[Array, 2]) -> Scalar:
        """8√2 w/ν/N."""
        return math.sqrt(2) * self._bend(theta) / len(self.clean)

    def cross_norm(self, x: Images, theta: Float[Array, 2]) -> None:
        """To be measured."""
        return

    def is_upper_convex(self) -> bool:
        """It is."""
        return True

    def _bend(self, theta: Float[Array, 2]) -> Scalar:
        return DIFFERENCES * jnp.exp(theta[0] - theta[1]) / 2


class FieldOfExpertsDenoising(AbstractBilevel):
    """Fixed filters, each with a weight and a rounding to be learned; θ = (log w₀, log w₁ … log w_k, log ν₁ … log ν_k), weights w₀wᵢ.

    **Arguments of `of`:** `clean`, `noisy`; `filters`, such as [`cosine_filters`][gradatim.implicit.cosine_filters].

    >>> clean = jnp.zeros((1, 6, 6))
    >>> problem = FieldOfExpertsDenoising.of(clean, clean, cosine_filters(3))
    >>> print(f"{problem.lower(clean, jnp.zeros(17)):.0f} {problem.smoothness(jnp.zeros(17)):.1f}")
    128 10.0
    """

    clean: Images
    noisy: Images
    filters: Float[Array, "k side side"]
    powers: Float[Array, "k height half_width"]
    "|ĉᵢ|²"

    @classmethod
    def of(cls, clean: Images, noisy: Float[Array, "_ _ _"], filters: Float[Array, "k side side"]) -> FieldOfExpertsDenoising:
        """The problem with the Fourier powers of its filters; not for jit.

        **Raises:** `ValueError` for images that differ in shape, or are smaller than a filter.
        """
        _check_images(clean, noisy)
        if filters.shape[-1] > min(clean.shape[1:]):
            raise ValueError(f"images must be at least as large as the filters, {filters.shape[1:]}, got {clean.shape[1:]}")
        powers = np.abs(np.fft.rfft2(np.asarray(filters), clean.shape[1:])) ** 2
        return cls(clean, noisy, filters, jnp.asarray(powers, clean.dtype))

    def upper(self, x: Images) -> Scalar:
        """½‖x - clean‖²/N."""
        return _half_square(x - self.clean)

    def lower(self, x: Images, theta: Float[Array, " d"]) -> Scalar:
        """½‖x - noisy‖²/N and the experts."""
        weights, rounding = self._experts(theta)
        answers = filtered(x, self.filters)
        shape = (-1, 1, 1, 1)
        return _half_square(x - self.noisy) + jnp.sum(weights.reshape(shape) * jnp.sqrt(answers**2 + rounding.reshape(shape) ** 2)) / len(x)

    def strong_convexity(self, theta: Float[Array, " d"]) -> Scalar:
        """1/N."""
        return jnp.ones_like(theta[0]) / len(self.clean)

    def smoothness(self, theta: Float[Array, " d"]) -> Scalar:
        """(1 + M)/N."""
        weights, rounding = self._experts(theta)
        return (1 + self._norm(weights / rounding)) / len(self.clean)

    def upper_smoothness(self) -> Scalar:
        """1/N."""
        return jnp.ones((), self.clean.dtype) / len(self.clean)

    def hessian_lipschitz(self, theta: Float[Array, " d"]) -> Scalar:
        """0.8587 ‖Σ wᵢ‖cᵢ‖/νᵢ² KᵢᵀKᵢ‖/N."""
        weights, rounding = self._experts(theta)
        lengths = jnp.sqrt(jnp.sum(self.filters**2, axis=(1, 2)))
        return THIRD * self._norm(weights * lengths / rounding**2) / len(self.clean)

    def cross_lipschitz(self, theta: Float[Array, " d"]) -> Scalar:
        """√(M² + 2 Σ (wᵢ‖Kᵢ‖²/νᵢ)²)/N."""
        weights, rounding = self._experts(theta)
        each = weights / rounding * jnp.max(self.powers, axis=(1, 2))
        return jnp.sqrt(self._norm(weights / rounding) ** 2 + 2 * jnp.sum(each**2)) / len(self.clean)

    def cross_norm(self, x: Images, theta: Float[Array, " d"]) -> None:
        """To be measured."""
        return

    def is_upper_convex(self) -> bool:
        """It is."""
        return True

    def _experts(self, theta: Float[Array, " d"]) -> tuple[Array, Array]:
        k = len(self.filters)
        if theta.shape != (1 + 2 * k,):
            raise ValueError(f"theta must have shape ({1 + 2 * k},) for {k} filters, got {theta.shape}")
        return jnp.exp(theta[0] + theta[1 : k + 1]), jnp.exp(theta[k + 1 :])

    def _norm(self, factors: Float[Array, " k"]) -> Scalar:
        return jnp.max(jnp.tensordot(factors, self.powers, 1))


def filtered(x: Images, filters: Float[Array, "k side side"]) -> Float[Array, "k n rows columns"]:
    """Each filter at every place where it lies within the image.

    As one matrix product over shifted images: on a CPU a convolution within a loop runs ten times slower.
    """
    side = filters.shape[-1]
    rows, columns = x.shape[1] - side + 1, x.shape[2] - side + 1
    shifted = jnp.stack([x[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)])
    return jnp.tensordot(filters.reshape(len(filters), -1), shifted, 1)


def cosine_filters(side: int) -> Float[Array, "k side side"]:
    """The side² - 1 products of orthonormal cosines that are not constant: each sums to 0, its squares to 1.

    >>> cosine_filters(2)[0].tolist()
    [[0.5, -0.5], [0.5, -0.5]]

    **Raises:** `ValueError` for a side below 2.
    """
    if side < 2:
        raise ValueError(f"side must be at least 2, got {side}")
    frequency, place = np.arange(side)[:, None], np.arange(side)[None]
    rows = np.cos(np.pi * frequency * (2 * place + 1) / (2 * side)) * np.where(frequency == 0, math.sqrt(1 / side), math.sqrt(2 / side))
    return jnp.asarray(np.einsum("ai,bj->abij", rows, rows).reshape(-1, side, side)[1:])


def _half_square(x: Images) -> Scalar:
    return jnp.sum(x**2) / (2 * len(x))


def _check_images(clean: Array, noisy: Array) -> None:
    if clean.shape != noisy.shape or clean.ndim != 3:
        raise ValueError(f"clean and noisy must be images of one shape (n, height, width), got {clean.shape} and {noisy.shape}")
