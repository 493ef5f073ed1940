"""Gaussian probability paths from noise to data: xₜ = aₜ x₁ + mₜ x₀ with x₀ ~ N(0, I)
(Lipman et al., arXiv:2210.02747; Albergo and Vanden-Eijnden, arXiv:2209.15571; Song et al., arXiv:2011.13456).

Time runs from noise (t = 0) to data (t = 1); much of the diffusion literature counts the other way round. The same path must be used in
training and in sampling.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Times = Float[Array, "*batch"] | float


class Coefficients(NamedTuple):
    """What a path is at given times."""

    a: Float[Array, "*batch"]  # of the data
    m: Float[Array, "*batch"]  # of the noise
    da: Float[Array, "*batch"]  # da/dt
    dm: Float[Array, "*batch"]  # dm/dt


class AbstractGaussianPath(eqx.Module):
    """A path pₜ(x | x₁) = N(aₜ x₁, mₜ² I), with a₀ = 0, m₀ = 1 (noise; two paths say otherwise) and a₁ = 1, m₁ = 0 (data).

    Points are arrays of any shape; times are one number for all of them, or one for each entry of their leading axes.
    """

    @abc.abstractmethod
    def coefficients(self, t: Times) -> Coefficients:
        """a, m and their derivatives at times in [0, 1].

        **Raises:** `ValueError` for times outside, where they are known.
        """

    def signal_to_noise(self, t: Times) -> Float[Array, "*batch"]:
        """The ratio s = a / m, infinite at t = 1."""
        c = self.coefficients(t)
        return c.a / c.m

    def point(self, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """xₜ = aₜ x₁ + mₜ x₀: what a network is given in training."""
        c = _spread(self.coefficients(t), x0)
        return c.a * x1 + c.m * x0

    def conditional_velocity(self, x0: Float[Array, "*shape"], x1: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """The vector a′ₜ x₁ + m′ₜ x₀: what a network is to predict on average."""
        c = _spread(self.coefficients(t), x0)
        return c.da * x1 + c.dm * x0

    def velocity_from_denoiser(self, x: Float[Array, "*shape"], denoised: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """The velocity a′ x̂₁ + m′ (x - a x̂₁) / m, from x̂₁ = E[x₁ | xₜ = x]; for t < 1."""
        c = _spread(self.coefficients(t), x)
        return c.da * denoised + c.dm * (x - c.a * denoised) / c.m

    def denoiser_from_velocity(self, x: Float[Array, "*shape"], velocity: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """x̂₁ = (m u - m′ x) / (m a′ - a m′)."""
        c = _spread(self.coefficients(t), x)
        return (c.m * velocity - c.dm * x) / (c.m * c.da - c.a * c.dm)

    def score_from_denoiser(self, x: Float[Array, "*shape"], denoised: Float[Array, "*shape"], t: Times) -> Float[Array, "*shape"]:
        """∇ log pₜ(x) = (a x̂₁ - x) / m², for t < 1."""
        c = _spread(self.coefficients(t), x)
        return (c.a * denoised - x) / c.m**2


class CondOT(AbstractGaussianPath):
    """The straight path: a = t, m = 1 - t (Lipman et al., arXiv:2210.02747, "conditional optimal transport").

    Optimal between noise and each *single* point. The flow of the whole data set that it makes is no optimal transport, nor of least
    kinetic energy, unless the data separation is one; see [`kinetic_optimal_path`][gradatim.transport.kinetic_optimal_path].

    >>> path = CondOT()
    >>> print(path.point(jnp.array(2.0), jnp.array(4.0), 0.25), path.conditional_velocity(jnp.array(2.0), jnp.array(4.0), 0.25))
    2.5 2.0
    """

    def coefficients(self, t: Times) -> Coefficients:
        """t, 1 - t, 1 and -1."""
        t = _times(t)
        return Coefficients(t, 1 - t, jnp.ones_like(t), -jnp.ones_like(t))


class Trigonometric(AbstractGaussianPath):
    """The quarter circle: a = sin(π t / 2), m = cos(π t / 2) (Albergo and Vanden-Eijnden, arXiv:2209.15571; the "cosine" schedule).

    Normalised data keep their mean square along it. It takes less kinetic energy than the straight path where the area between the data
    separation and one exceeds (π²/4 - 2) / (π/2 - 1) = 0.819: in few dimensions, or for strongly correlated data.
    """

    def coefficients(self, t: Times) -> Coefficients:
        """The sine, the cosine and their derivatives."""
        angle = jnp.pi / 2 * _times(t)
        a, m = jnp.sin(angle), jnp.cos(angle)
        return Coefficients(a, m, jnp.pi / 2 * m, -jnp.pi / 2 * a)


class VariancePreserving(AbstractGaussianPath):
    """The path of diffusion models with a linear noise rate β (Ho et al., arXiv:2006.11239; Song et al., arXiv:2011.13456), time reversed.

        τ = 1 - t,   T = β_min τ + (β_max - β_min) τ² / 2,   a = exp(-T / 2),   m = √(1 - a²)

    It starts at a₀ = exp(-(β_min + β_max) / 4) rather than 0, and m′ diverges as (1 - t)^(-1/2) at the data, where its kinetic energy does
    so logarithmically: integrate to some t < 1, and say which.

    **Arguments:** `beta_min` > 0; `beta_max` ≥ `beta_min`.

    **Raises:** `ValueError` for rates outside.
    """

    beta_min: float | Float[Array, ""] = 0.1
    beta_max: float | Float[Array, ""] = 20.0

    def __check_init__(self) -> None:
        if is_known(self.beta_min, self.beta_max) and not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"rates must obey 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def coefficients(self, t: Times) -> Coefficients:
        """The derivative of m is -∞ at t = 1."""
        tau = 1 - _times(t)
        rate = self.beta_min + (self.beta_max - self.beta_min) * tau
        integral = tau * (self.beta_min + rate) / 2
        a, m = jnp.exp(-integral / 2), jnp.sqrt(-jnp.expm1(-integral))
        return Coefficients(a, m, a * rate / 2, -(a**2) * rate / (2 * m))


class VarianceExploding(AbstractGaussianPath):
    """The path of diffusion models that add ever more noise to data left as they are (Song et al., arXiv:2011.13456), time reversed.

        a = 1,   m² = σ² - σ_min²,   σ = σ_min (σ_max / σ_min)^(1 - t)

    It starts at a₀ = 1 and m₀ = √(σ_max² - σ_min²), in units of the data: samples start from m₀ times standard normal noise, and a
    likelihood takes the log density of that as `prior`. As m′ diverges at the data, integrate to some t < 1, and say which.

    **Arguments:** `sigma_min` > 0; `sigma_max` > `sigma_min`, well above the spread of the data.

    **Raises:** `ValueError` for standard deviations outside.

    >>> c = VarianceExploding(0.01, 50.0).coefficients(0.0)
    >>> print(f"{c.a:.1f} {c.m:.1f}")
    1.0 50.0
    """

    sigma_min: float | Float[Array, ""] = 0.01
    sigma_max: float | Float[Array, ""] = 50.0

    def __check_init__(self) -> None:
        if is_known(self.sigma_min, self.sigma_max) and not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(f"standard deviations must obey 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def coefficients(self, t: Times) -> Coefficients:
        """The derivative of m is -∞ at t = 1."""
        t = _times(t)
        rate = jnp.log(jnp.asarray(self.sigma_max / self.sigma_min, t.dtype))
        growth = 2 * rate * (1 - t)
        m = self.sigma_min * jnp.sqrt(jnp.expm1(growth))
        return Coefficients(jnp.ones_like(t), m, jnp.zeros_like(t), -rate * self.sigma_min**2 * jnp.exp(growth) / m)


class TabulatedPath(AbstractGaussianPath):
    """A path from a table, by cubic Hermite interpolation: any schedule, or one fast form for several.

    **Arguments:** `t`: ascending, from 0 to 1; `a`, `m`: at these times; `da`, `dm`: their derivatives, by default those of the monotone
    cubics through the table (Fritsch and Carlson, 1980), which do not overshoot.

    **Raises:** `ValueError` for times that do not ascend from 0 to 1, tables of unequal length, or one derivative without the other.

    >>> path = TabulatedPath(jnp.array([0.0, 0.5, 1.0]), jnp.array([0.0, 0.5, 1.0]), jnp.array([1.0, 0.5, 0.0]))
    >>> print([f"{c:.2f}" for c in path.coefficients(0.3)])
    ['0.30', '0.70', '1.00', '-1.00']
    """

    t: Float[Array, " nodes"]
    values: Float[Array, "nodes 2"]
    slopes: Float[Array, "nodes 2"]

    def __init__(
        self,
        t: Float[Array, " nodes"],
        a: Float[Array, " nodes"],
        m: Float[Array, " nodes"],
        da: Float[Array, " nodes"] | None = None,
        dm: Float[Array, " nodes"] | None = None,
    ) -> None:
        if is_known(t):
            times = np.asarray(t)
            if not (len(times) >= 2 and times[0] == 0 and times[-1] == 1 and np.all(np.diff(times) > 0)):
                raise ValueError(f"t must ascend strictly from 0 to 1, got {len(times)} times from {times[0]} to {times[-1]}")
        if (da is None) != (dm is None):
            raise ValueError("da and dm must be given together, or neither")
        self.t, self.values = t, jnp.stack([a, m], axis=1)
        self.slopes = _monotone_slopes(t, self.values) if da is None or dm is None else jnp.stack([da, dm], axis=1)

    @classmethod
    def of(cls, path: AbstractGaussianPath, t: Float[Array, " nodes"]) -> TabulatedPath:
        """Another path, tabulated at times whose derivatives there must be finite."""
        c = path.coefficients(t)
        return cls(t, c.a, c.m, c.da, c.dm)

    def coefficients(self, t: Times) -> Coefficients:
        """Of the cubic, and of its derivative."""
        t = _times(t)
        nodes, values, slopes = (table.astype(t.dtype) for table in (self.t, self.values, self.slopes))
        i = jnp.clip(jnp.searchsorted(nodes, t, side="right") - 1, 0, len(nodes) - 2)
        width = (nodes[i + 1] - nodes[i])[..., None]
        u = (t - nodes[i])[..., None] / width
        rise = (values[i + 1] - values[i]) / width
        # v(u) = v₀ + h u [d₀ + u (c + u e)]: the cubic with these ends and slopes.
        e = slopes[i] + slopes[i + 1] - 2 * rise
        c = rise - slopes[i] - e
        value = values[i] + width * u * (slopes[i] + u * (c + u * e))
        slope = slopes[i] + u * (2 * c + 3 * u * e)
        return Coefficients(value[..., 0], value[..., 1], slope[..., 0], slope[..., 1])


def _monotone_slopes(t: Float[Array, " nodes"], values: Float[Array, "nodes 2"]) -> Float[Array, "nodes 2"]:
    from scipy.interpolate import PchipInterpolator

    if not is_known(t, values):
        raise ValueError("a table without its derivatives must be made outside of jax.jit, or be given da and dm")
    times = np.asarray(t, np.float64)
    slopes = PchipInterpolator(times, np.asarray(values, np.float64)).derivative()(times)
    return jnp.asarray(slopes, values.dtype)


def _times(t: Times) -> Float[Array, "*batch"]:
    """As an array, once they are known to lie in [0, 1]."""
    if is_known(t) and not np.all((np.asarray(t) >= 0) & (np.asarray(t) <= 1)):
        raise ValueError(f"t must lie in [0, 1], from noise to data, got {t}")
    return jnp.asarray(t, jnp.result_type(float)) if isinstance(t, float | int) else jnp.asarray(t)


def _spread(coefficients: Coefficients, x: Float[Array, "*shape"]) -> Coefficients:
    """Coefficients that multiply points: in the points' dtype, with axes of one for those that the times lack."""
    shape = coefficients.a.shape
    if shape != x.shape[: len(shape)]:
        raise ValueError(f"t must be one time, or have the leading axes of points of shape {x.shape}, got shape {shape}")
    wide = shape + (1,) * (x.ndim - len(shape))
    return Coefficients(*(c.astype(x.dtype).reshape(wide) for c in coefficients))
