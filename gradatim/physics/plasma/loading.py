"""Momenta drawn from the two thermal distributions, in pairs that leave no mean drift.

Antithetic pairs: J. M. Hammersley and K. W. Morton, Math. Proc. Camb. Phil. Soc. 52, 449 (1956). The relativistic distribution: F. Jüttner,
Ann. Phys. 339, 856 (1911).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .vectors import Scalar, Vector

_POINTS = 4096
"Of the tabulated distribution of rapidities."
_TAIL = 40.0
"Kinetic energies, in temperatures, beyond which a share of e⁻⁴⁰ is left out."


def check_temperature(theta: Scalar) -> None:
    """That a temperature that is known is positive.

    **Raises:** `ValueError`.
    """
    if is_known(theta) and not float(theta) > 0:
        raise ValueError(f"theta must be positive (temperature in units of m c²), got {float(theta)}")


def maxwellian(key: PRNGKeyArray, theta: Scalar, n: int) -> Vector:
    """`n` momenta u = γ v / c, each component Gaussian of variance θ: a Maxwellian where θ = T / (m c²) ≪ 1.

    The second half is the first reversed, so that every odd moment is zero to round-off.

    **Arguments:** `theta` θ > 0; `n`: even.

    **Raises:** `ValueError` for θ ≤ 0 or an odd `n`.

    >>> u = maxwellian(jax.random.key(0), 0.01, 20_000)
    >>> print(f"{float(jnp.std(u.x)):.2f}", abs(float(u.x.mean())) < 1e-8)
    0.10 True
    """
    check_temperature(theta)
    half = _half(n)
    normal = jax.random.normal(key, (3 * half,))
    return _paired(Vector(*(jnp.sqrt(theta) * normal[i * half : (i + 1) * half] for i in range(3))))


def maxwell_juttner(key: PRNGKeyArray, theta: Scalar, n: int) -> Vector:
    """`n` momenta u from the relativistic thermal distribution, in pairs u, -u:

        f(u) ∝ exp(-γ / θ)

    The rapidity is drawn by inverting its tabulated distribution: no rejection, so every draw has the same cost, and momenta have
    derivatives in θ.

    **Arguments:** `theta` θ = T / (m c²) > 0; `n`: even.

    **Raises:** `ValueError` for θ ≤ 0 or an odd `n`.

    >>> u = jax.jit(maxwell_juttner, static_argnums=2)(jax.random.key(0), 0.1, 20_000)
    >>> print(f"{float(jnp.sqrt(1 + u.x**2 + u.y**2 + u.z**2).mean()):.2f}")  # ⟨γ⟩ = 1.167
    1.17
    """
    check_temperature(theta)
    half = _half(n)
    uniform = jax.random.uniform(key, (3 * half,))
    rapidity = jnp.linspace(0, 1, _POINTS) * jnp.arccosh(1 + _TAIL * theta)
    # With γ = cosh t: u² du = sinh² t cosh t dt, and γ - 1 = 2 sinh²(t/2) keeps the exponent's digits at low θ.
    density = jnp.exp(-2 * jnp.sinh(rapidity / 2) ** 2 / theta) * jnp.sinh(rapidity) ** 2 * jnp.cosh(rapidity)
    steps = jnp.concatenate([jnp.zeros(1, density.dtype), (density[1:] + density[:-1]) / 2])
    total = jnp.cumsum(steps)
    speed = jnp.sinh(jnp.interp(uniform[:half] * total[-1], total, rapidity))
    cosine, angle = 2 * uniform[half : 2 * half] - 1, 2 * jnp.pi * uniform[2 * half :]
    across = speed * jnp.sqrt(1 - cosine**2)
    return _paired(Vector(speed * cosine, across * jnp.cos(angle), across * jnp.sin(angle)))


def mean_kinetic_energy(theta: Scalar) -> Float[Array, ""]:
    """⟨γ⟩ - 1 of the Maxwell–Jüttner distribution, in m c²: (3/2) θ for θ ≪ 1, 3 θ for θ ≫ 1.

        ⟨γ⟩ = K₁(1/θ) / K₂(1/θ) + 3 θ

    computed as a mean over rapidities by the trapezoid rule, whose error here falls exponentially, instead of from Bessel functions.

    >>> print(f"{float(1 + mean_kinetic_energy(0.1)):.5f}")
    1.16699
    """
    check_temperature(theta)
    rapidity = jnp.linspace(0, 1, 257)[1:] * jnp.arccosh(1 + _TAIL * jnp.asarray(theta, jnp.result_type(float, theta)))
    energy = 2 * jnp.sinh(rapidity / 2) ** 2
    weight = jnp.exp(-energy / theta) * jnp.sinh(rapidity) ** 2 * jnp.cosh(rapidity)
    return (weight * energy).sum() / weight.sum()


def _half(n: int) -> int:
    if n < 2 or n % 2:
        raise ValueError(f"n must be a positive even number, for pairs of opposite momenta, got {n}")
    return n // 2


def _paired(u: Vector) -> Vector:
    return Vector(*(jnp.concatenate([part, -part]) for part in u))
