"""Kinetic energy of Gaussian paths: by formula from the data separation, and by Monte Carlo for any velocity
(Shaul et al., arXiv:2306.06626, Eqs. 12 to 27 and Theorem 4.2). Everywhere without a factor 1/2, and over d.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics import Estimate
from gradatim.numerics.checks import is_known

from .data_separation import DataSeparation
from .probability_paths import AbstractGaussianPath, Coefficients

Velocity = Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]


@eqx.filter_jit
def kinetic_energy(
    path: AbstractGaussianPath, separation: DataSeparation, *, start: float = 0.0, end: float = 1.0, n_points: int = 1024
) -> Float[Array, ""]:
    """(1/d) ∫ E ‖uₜ(x)‖² dt of the marginal velocity uₜ(x) = E[a′ x₁ + m′ x₀ | xₜ = x], which sees the data through λ alone.

        E = ∫ [a′² + m′² - m² s′² (1 - λ(s))] dt = ∫ [r′² + r² γ(θ) θ′²] dt,     s = a / m = tan θ,   r² = a² + m²

    **Arguments:** `path`; `separation` of the normalised data; `start`, `end`: the times between which to integrate; `n_points`: of
    the quadrature, dense at both ends.

    **Raises:** `ValueError` for times that do not obey 0 ≤ `start` < `end` ≤ 1, or fewer than 8 points.

    >>> from gradatim.transport import CondOT, separation_of_gap
    >>> print(f"{kinetic_energy(CondOT(), separation_of_gap(lambda s: 1 / (1 + s**2))):.4f}")  # standard Gaussian data: 2 - π/2
    0.4292
    """
    t, weights = _times_between(start, end, n_points)
    c = path.coefficients(t)
    squared = c.a**2 + c.m**2
    radial, turning = c.a * c.da + c.m * c.dm, c.m * c.da - c.a * c.dm
    return jnp.sum(weights * (radial**2 + separation.gamma(jnp.arctan2(c.a, c.m)) * turning**2) / squared)


@eqx.filter_jit
def conditional_kinetic_energy(
    path: AbstractGaussianPath, *, start: float = 0.0, end: float = 1.0, n_points: int = 1024
) -> Float[Array, ""]:
    """∫ (a′² + m′²) dt: the energy of the flow towards one point, which no data set's exceeds; arguments as for
    [`kinetic_energy`][gradatim.transport.kinetic_energy].

    >>> from gradatim.transport import CondOT
    >>> print(f"{conditional_kinetic_energy(CondOT()):.3f}")
    2.000
    """
    t, weights = _times_between(start, end, n_points)
    c = path.coefficients(t)
    return jnp.sum(weights * (c.da**2 + c.dm**2))


@eqx.filter_jit
def empirical_kinetic_energy(
    velocity: Velocity,
    path: AbstractGaussianPath,
    x1: Float[Array, "n dim"],
    *,
    key: PRNGKeyArray,
    n_samples: int = 4096,
    start: float = 0.0,
    end: float = 1.0,
    batch_size: int = 512,
) -> Estimate:
    """(1/d) ∫ E ‖v(t, xₜ)‖² dt of any velocity, over random times, data and noise, with its standard error.

    **Arguments:** `velocity`: of one time and one point; `path`, `x1`: what points are made of; `n_samples`; `start`, `end`: as above, and
    less than 1 for a velocity that is singular there; `batch_size`: samples at a time.

    **Raises:** `ValueError` for times that do not obey 0 ≤ `start` < `end` ≤ 1, or fewer than 2 samples.

    >>> from gradatim.transport import CondOT
    >>> found = empirical_kinetic_energy(lambda t, x: 2 * jnp.ones_like(x), CondOT(), jnp.ones((2, 3)), key=jax.random.key(0), n_samples=16)
    >>> print(found.value, found.standard_error)
    4.0 0.0
    """
    _check_times(start, end)
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples}")
    n, dim = x1.shape
    at, which, drawn = jax.random.split(key, 3)
    t = start + (end - start) * jax.random.uniform(at, (n_samples,), x1.dtype)
    rows = jax.random.randint(which, (n_samples,), 0, n)
    noise = jax.random.normal(drawn, (n_samples * dim,), x1.dtype).reshape(n_samples, dim)

    def energy(given: tuple[Array, Array, Array]) -> Array:
        t, row, x0 = given
        return jnp.mean(velocity(t, path.point(x0, x1[row], t)) ** 2)

    values = (end - start) * jax.lax.map(energy, (t, rows, noise), batch_size=min(batch_size, n_samples))
    return Estimate(values.mean(), values.std(ddof=1) / jnp.sqrt(n_samples))


def separation_area_bound(n: int, dim: int) -> float:
    """3 n / √d ≥ ∫ (1 - λ) ds for n normalised points in d dimensions (Theorem 4.1).

    It says something only where n is less than √d: for images it is in the thousands, and the area itself below one.
    """
    return 3 * n / dim**0.5


def energy_lower_bound(path: AbstractGaussianPath, n: int, dim: int, *, n_points: int = 1024) -> Float[Array, ""]:
    """E_c - 6 M² n / √d ≤ E for n normalised points (Theorem 4.2), M the largest of |a|, |m|, |a′| and |m′|; E_c the conditional energy.

    **Raises:** `ValueError` for a path whose ratio a / m does not rise throughout, where it is known.

    >>> from gradatim.transport import CondOT
    >>> print(f"{energy_lower_bound(CondOT(), 2, 10_000):.2f}")  # 2 - 6 · 2 / 100
    1.88
    """
    t, weights = _times_between(0.0, 1.0, n_points)
    c = _coefficients(path, t)
    if is_known(c.a, c.m) and not np.all(np.diff(np.arctan2(np.asarray(c.a), np.asarray(c.m))) > 0):
        raise ValueError("path must have a rising ratio of signal to noise a / m, got one that falls or rests")
    largest = jnp.max(jnp.abs(jnp.stack(c)))
    return jnp.sum(weights * (c.da**2 + c.dm**2)) - 2 * largest**2 * separation_area_bound(n, dim)


@eqx.filter_jit
def _coefficients(path: AbstractGaussianPath, t: Float[Array, " points"]) -> Coefficients:
    return path.coefficients(t)


def _times_between(start: float, end: float, n_points: int) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """Nodes and weights of Fejér's first rule: dense at both ends, of which it sees neither."""
    _check_times(start, end)
    if n_points < 8:
        raise ValueError(f"n_points must be at least 8, got {n_points}")
    t, weights = _fejer(n_points)
    dtype = jnp.result_type(float)
    return jnp.asarray(start + (end - start) * t, dtype), jnp.asarray((end - start) * weights, dtype)


@functools.lru_cache(maxsize=8)
def _fejer(n: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Over [0, 1]: exact for polynomials of degree n - 1 (Waldvogel, BIT Numerical Mathematics 46, 2006)."""
    angle = np.pi * (np.arange(n) + 0.5) / n
    j = np.arange(1, (n + 1) // 2)
    weights = (1 - 2 * np.cos(2 * angle[:, None] * j) @ (1 / (4.0 * j**2 - 1))) / n
    return np.sin(angle / 2) ** 2, weights


def _check_times(start: float, end: float) -> None:
    if not 0 <= start < end <= 1:
        raise ValueError(f"times must obey 0 <= start < end <= 1, got {start} and {end}")
