"""Geometric Brownian motion as the noise of positive data: closed-form transitions, and their score times the point (arXiv:2510.02730).

Time runs from data (t = 0) to noise (t = `end`), as in that paper; [`AbstractGaussianPath`][gradatim.transport.AbstractGaussianPath] counts
the other way round.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Times = Float[Array, "*batch"] | float
Number = Float[Array, ""] | float
NOISELESS = "at 0 there is no noise to remove"


class Rates(NamedTuple):
    """Of a motion at given times, or their integrals from 0."""

    drift: Float[Array, "*batch"]  # μ
    variance: Float[Array, "*batch"]  # σ²


class LogTransition(NamedTuple):
    """What noise does to the logarithm: it adds `shift`, and noise of this variance."""

    shift: Float[Array, "*batch"]  # M - V/2
    variance: Float[Array, "*batch"]  # V


class AbstractGeometricMotion(eqx.Module):
    """dX = μ(t) X dt + σ(t) X dW (Itô), every coordinate by itself: a path never changes its sign.

        X_t = x₀ ∘ exp(M - V/2 + √V z),     M = ∫₀ᵗ μ,   V = ∫₀ᵗ σ²,   z ~ N(0, I)

    Points are positive arrays of any shape; times are one number for all of them, or one for each entry of their leading axes.
    """

    end: eqx.AbstractVar[float]

    @abc.abstractmethod
    def rates(self, t: Times) -> Rates:
        """μ and σ² at times in [0, `end`]."""

    @abc.abstractmethod
    def integrals(self, t: Times) -> Rates:
        """M and V at times in [0, `end`]."""

    def log_transition(self, t: Times) -> LogTransition:
        """Of log X_t given log x₀."""
        drift, variance = self.integrals(t)
        return LogTransition(drift - variance / 2, variance)

    def point(self, x0: Float[Array, "*shape"], noise: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """X_t from data and standard normal noise.

        **Raises:** `ValueError` for data that are not positive, or an error at run time where they are traced.
        """
        x0 = check_positive("x0", x0)
        shift, variance = spread(self.log_transition(t), x0)
        return x0 * jnp.exp(shift + jnp.sqrt(variance) * noise)

    def conditional_score(self, x: Float[Array, "*shape"], x0: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """The score of one transition times the point, x ∘ ∇ log p_t(x | x₀) = -1 - (log x - log x₀ - M + V/2) / V, for t > 0.

        **Raises:** `ValueError` for points, data or times that are not positive, or an error at run time where they are traced.
        """
        x, x0, t = check_positive("x", x), check_positive("x0", x0), check_noisy(t)
        shift, variance = spread(self.log_transition(t), x)
        return -1 - (jnp.log(x) - jnp.log(x0) - shift) / variance

    def terms(self, brownian: diffrax.AbstractBrownianPath) -> diffrax.MultiTerm:
        """The motion of one point of shape (dim,) for diffrax, an Itô equation: take `Euler` or `ItoMilstein`.

        Discretised, it may cross zero, however short the step; `log_terms` may not.
        """

        def drift(t, x, args):
            return self.rates(jnp.asarray(t)).drift.astype(x.dtype) * x

        def diffusion(t, x, args):
            return lx.DiagonalLinearOperator(jnp.sqrt(self.rates(jnp.asarray(t)).variance).astype(x.dtype) * x)

        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian))

    def log_terms(self, brownian: diffrax.AbstractBrownianPath) -> diffrax.MultiTerm:
        """The motion of the logarithm of one point, whose noise is additive: Itô and Stratonovich agree."""

        def drift(t, y, args):
            mu, variance = self.rates(jnp.asarray(t))
            return jnp.broadcast_to((mu - variance / 2).astype(y.dtype), y.shape)

        def diffusion(t, y, args):
            sigma = jnp.sqrt(self.rates(jnp.asarray(t)).variance).astype(y.dtype)
            return lx.DiagonalLinearOperator(jnp.broadcast_to(sigma, y.shape))

        return diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, brownian))


class GeometricBrownianMotion(AbstractGeometricMotion):
    """Constant rates; by default the paper's, μ = σ²/2, with which medians stay where they are.

    At the end the data should be hidden: σ² `end` well above the variance of their logarithms, along every direction.

    **Arguments:** `sigma` > 0; `mu`, by default σ²/2; `end` > 0.

    **Raises:** `ValueError` for numbers outside.

    >>> motion = GeometricBrownianMotion(0.8)
    >>> x = motion.point(jnp.array([2.0, 2.0]), jnp.array([0.0, 1.0]), 1.0)
    >>> print(f"{x[0]:.3f} {x[1]:.3f}")  # e^0.8 times as much, one standard deviation away
    2.000 4.451
    """

    sigma: Number
    mu: Number
    end: float = eqx.field(static=True)

    def __init__(self, sigma: Number = 0.8, mu: Number | None = None, end: float = 1.0) -> None:
        _check_sizes({"sigma": sigma, "end": end})
        self.sigma, self.end = sigma, end
        self.mu = sigma**2 / 2 if mu is None else mu

    def rates(self, t: Times) -> Rates:
        """The same at all times."""
        t = self._times(t)
        return Rates(jnp.full_like(t, self.mu), jnp.full_like(t, self.sigma**2))

    def integrals(self, t: Times) -> Rates:
        """μ t and σ² t."""
        t = self._times(t)
        return Rates(self.mu * t, self.sigma**2 * t)

    def _times(self, t: Times) -> Float[Array, "*batch"]:
        return check_times(t, self.end)


class RampedGeometricMotion(AbstractGeometricMotion):
    """A variance rate that grows or falls linearly: σ²(t) = σ₀² + (σ₁² - σ₀²) t / T, and μ(t) = c σ²(t).

    A small σ₀ makes small last steps of a sampler with equal ones.

    **Arguments:** `first`, `last`: σ₀ and σ₁ > 0; `drift_share`: c; `end`: T > 0.

    **Raises:** `ValueError` for numbers outside.

    >>> print(RampedGeometricMotion(0.2, 1.0).integrals(1.0).variance)
    0.52
    """

    first: Number
    last: Number
    drift_share: Number
    end: float = eqx.field(static=True)

    def __init__(self, first: Number, last: Number, drift_share: Number = 0.5, end: float = 1.0) -> None:
        _check_sizes({"first": first, "last": last, "end": end})
        self.first, self.last, self.drift_share, self.end = first, last, drift_share, end

    def rates(self, t: Times) -> Rates:
        """σ² on a line, and its share."""
        t = check_times(t, self.end)
        variance = self.first**2 + (self.last**2 - self.first**2) * t / self.end
        return Rates(self.drift_share * variance, variance)

    def integrals(self, t: Times) -> Rates:
        """V = σ₀² t + (σ₁² - σ₀²) t² / (2 T), and its share."""
        t = check_times(t, self.end)
        variance = t * (self.first**2 + (self.last**2 - self.first**2) * t / (2 * self.end))
        return Rates(self.drift_share * variance, variance)


def check_positive(name: str, x: Float[Array, "*shape"], remedy: str = "shift the data, as images by one") -> Float[Array, "*shape"]:
    """The same, once it is known to be positive; while it is traced, with an error at run time.

    **Raises:** `ValueError`.
    """
    if is_known(x):
        if not np.all(np.asarray(x) > 0):
            raise ValueError(f"{name} must be positive, got a least entry of {np.asarray(x).min()}: {remedy}")
        return x
    return eqx.error_if(x, ~(x > 0), f"{name} must be positive: {remedy}")


def check_noisy(t: Times) -> Float[Array, "*batch"]:
    """Times as an array, once they are known to be positive, or with an error at run time.

    **Raises:** `ValueError`.
    """
    return check_positive("t", jnp.asarray(t, jnp.result_type(float)) if isinstance(t, float | int) else t, NOISELESS)


def check_times(t: Times, end: float) -> Float[Array, "*batch"]:
    """As an array, once they are known to lie in [0, `end`]."""
    if is_known(t) and not np.all((np.asarray(t) >= 0) & (np.asarray(t) <= end)):
        raise ValueError(f"t must lie in [0, {end}], from data to noise, got {t}")
    return jnp.asarray(t, jnp.result_type(float)) if isinstance(t, float | int) else jnp.asarray(t)


def spread(transition: LogTransition, x: Float[Array, "*shape"]) -> LogTransition:
    """Numbers that act on points: in the points' dtype, with axes of one for those that the times lack."""
    shape = transition.variance.shape
    if shape != x.shape[: len(shape)]:
        raise ValueError(f"t must be one time, or have the leading axes of points of shape {x.shape}, got shape {shape}")
    wide = shape + (1,) * (x.ndim - len(shape))
    return LogTransition(*(part.astype(x.dtype).reshape(wide) for part in transition))


def _check_sizes(numbers: dict[str, Number]) -> None:
    for name, value in numbers.items():
        if is_known(value) and not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
