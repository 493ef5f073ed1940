"""Distributions whose score is known at every time of a path: a normal one, a sphere, a finite set of points."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .flow_matching import EmpiricalVelocity
from .probability_paths import AbstractGaussianPath

_LANGEVIN = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875)


class GaussianScore(eqx.Module):
    """The score of data from N(0, C): `GaussianScore(path, C)(t, x)` = -(a² C + m² I)⁻¹ x.

    **Arguments:** `path`; `covariance`: symmetric, eigenvalues ≥ 0 (zero: data in a subspace).

    **Raises:** `ValueError` for a covariance that is not symmetric or has a negative eigenvalue, where it is known.

    >>> from gradatim.transport import CondOT
    >>> print(GaussianScore(CondOT(), jnp.diag(jnp.array([3.0, 0.0])))(jnp.array(0.5), jnp.array([1.0, 1.0])))
    [-1. -4.]
    """

    path: AbstractGaussianPath
    variances: Float[Array, " dim"]
    axes: Float[Array, "dim dim"]

    def __init__(self, path: AbstractGaussianPath, covariance: Float[Array, "dim dim"]) -> None:
        if is_known(covariance):
            known = np.asarray(covariance)
            tolerance = 1e-5 * np.abs(known).max()
            if not (np.allclose(known, known.T, atol=tolerance) and np.linalg.eigvalsh(known).min() >= -tolerance):
                raise ValueError(f"covariance must be symmetric and positive semi-definite, got {known.tolist()}")
        self.path = path
        variances, self.axes = jnp.linalg.eigh(covariance)
        self.variances = jnp.maximum(variances, 0)

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time and one point."""
        return -self.axes @ ((self.axes.T @ x) / self._variances_at(t))

    def covariance(self, t: Float[Array, ""]) -> Float[Array, "dim dim"]:
        """a² C + m² I."""
        return (self.axes * self._variances_at(t)[None]) @ self.axes.T

    def log_density(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The logarithm of pₜ(x)."""
        variances = self._variances_at(t)
        return -jnp.sum((self.axes.T @ x) ** 2 / variances + jnp.log(2 * jnp.pi * variances)) / 2

    def _variances_at(self, t: Float[Array, ""]) -> Float[Array, " dim"]:
        c = self.path.coefficients(t)
        return c.a.astype(self.variances.dtype) ** 2 * self.variances + c.m.astype(self.variances.dtype) ** 2


class SphereScore(eqx.Module):
    """The score of data spread evenly over the unit sphere of the first three coordinates, the others zero: `SphereScore(path)(t, x)`.

        pₜ(x) ∝ exp(-(ρ² + a² + ‖y‖²) / (2 m²)) sinh(κ) / κ,     x = (u, y),  ρ = ‖u‖,  κ = a ρ / m²
        ∇ᵤ log pₜ = (u / m²) (a² L(κ) / (m² κ) - 1),     L(κ) = coth κ - 1/κ;     ∇ᵧ log pₜ = -y / m²

    For a point in three dimensions or more. Langevin's L goes through its series near κ = 0, where the formula loses all digits.

    >>> from gradatim.transport import CondOT
    >>> found = SphereScore(CondOT())(jnp.array(0.5), jnp.array([1.0, 0.0, 0.0, 0.1]))
    >>> print(f"{found[0]:.4f} {found[3]:.4f}")  # 4 (L(2) / 2 - 1), and -4 y
    -2.9254 -0.4000
    """

    path: AbstractGaussianPath

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time and one point."""
        _check_sphere(x)
        a, v = self._coefficients(t, x)
        pull = a**2 / v * _langevin_over(a**2 * jnp.sum(x[:3] ** 2) / v**2)
        return jnp.concatenate([x[:3] * (pull - 1), -x[3:]]) / v

    def log_density(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The logarithm of pₜ(x), away from the centre."""
        _check_sphere(x)
        a, v = self._coefficients(t, x)
        rho = jnp.linalg.norm(x[:3])
        kappa = a * rho / v
        # sinh κ without its growth, which completes the square.
        sinh = jnp.log(-jnp.expm1(-2 * kappa) / (2 * kappa))
        return -((rho - a) ** 2 + jnp.sum(x[3:] ** 2)) / (2 * v) + sinh - x.size / 2 * jnp.log(2 * jnp.pi * v)

    def _coefficients(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        c = self.path.coefficients(t)
        return c.a.astype(x.dtype), c.m.astype(x.dtype) ** 2


class EmpiricalScore(eqx.Module):
    """The score of a finite data set: `EmpiricalScore(path, data)(t, x)`, that of n normal densities around a xᵢ.

    What score matching on that data set aims at. It costs all n points at each place.

    >>> from gradatim.transport import CondOT
    >>> score = EmpiricalScore(CondOT(), jnp.array([[-1.0], [1.0]]))
    >>> print(f"{score(jnp.array(0.5), jnp.array([0.5]))[0]:.4f}")  # (tanh(1) / 2 - 1/2) / (1/4)
    -0.4768
    """

    path: AbstractGaussianPath
    data: Float[Array, "n dim"]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time t < 1 and one point."""
        return self.path.score_from_denoiser(x, EmpiricalVelocity(self.path, self.data).denoised(t, x), t)

    def log_density(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, ""]:
        """The logarithm of pₜ(x)."""
        c = self.path.coefficients(t)
        a, v = c.a.astype(x.dtype), c.m.astype(x.dtype) ** 2
        logits = -jnp.sum((x[None] - a * self.data) ** 2, axis=1) / (2 * v)
        return jax.nn.logsumexp(logits) - jnp.log(len(self.data)) - x.size / 2 * jnp.log(2 * jnp.pi * v)


def _langevin_over(u: Float[Array, ""]) -> Float[Array, ""]:
    """L(κ)/κ of u = κ²."""
    near = u < 0.04
    series = jnp.polyval(jnp.asarray(_LANGEVIN[::-1], u.dtype), jnp.where(near, u, 0.0))
    kappa = jnp.sqrt(jnp.where(near, 1.0, u))
    return jnp.where(near, series, (1 / jnp.tanh(kappa) - 1 / kappa) / kappa)


def _check_sphere(x: Float[Array, " dim"]) -> None:
    if x.size < 3:
        raise ValueError(f"a point near the sphere must have at least 3 coordinates, got {x.size}")
