"""The weighted Helmholtz decomposition: a field as a gradient and a part that moves no probability of p
(Horvat and Pfister, arXiv:2402.03845, Theorem 1).

    s = ∇φ + r,     div(p r) = 0,     E_p[∇φ · r] = 0;     φ = arg min E_p ‖s - ∇φ‖²

Orthogonal in L²(p), not in L²(dx): the classical projection by Fourier transforms is another one.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

Field = Callable[[Float[Array, " dim"]], Float[Array, " dim"]]
Basis = Callable[[Float[Array, " dim"]], Float[Array, " features"]]


class HelmholtzDecomposition(eqx.Module):
    """Both parts of a field as functions of one point, and how much of it each is."""

    field: Field
    basis: Basis
    coefficients: Float[Array, " features"]

    def potential(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """φ, up to a constant."""
        return self.basis(x) @ self.coefficients

    def conservative(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """∇φ."""
        return jax.grad(self.potential)(x)

    def remainder(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """What is left, r = s - ∇φ."""
        return self.field(x) - self.conservative(x)

    def share(self, samples: Float[Array, "n dim"]) -> Float[Array, ""]:
        """E ‖r‖² / E ‖s‖², an upper bound of the gauge part's: what the basis cannot express counts as well.

        On other samples than the ones that the parts were found from, it is not too low either.
        """
        values = jax.vmap(self.field)(samples)
        return jnp.sum((values - jax.vmap(self.conservative)(samples)) ** 2) / jnp.sum(values**2)


class LinearHelmholtz(eqx.Module):
    """M = G + R: the field M x as the gradient of xᵀ G x / 2 and the gauge field R x = A C⁻¹ x."""

    gradient: Float[Array, "dim dim"]
    "G, symmetric."
    remainder: Float[Array, "dim dim"]
    "R."
    antisymmetric: Float[Array, "dim dim"]
    "A."


class FourierBasis(eqx.Module):
    """Random features cos(ω · x + b) (Rahimi and Recht 2007), and the coordinates themselves: test functions, or a basis of potentials.

    **Arguments:** `dim`; `n_features`: beside the coordinates; `scale`: of lengths, ω ~ N(0, 1/scale²); `key`.

    >>> print(FourierBasis(3, 10, scale=1.0, key=jax.random.key(0))(jnp.zeros(3)).shape)
    (13,)
    """

    frequencies: Float[Array, "features dim"]
    phases: Float[Array, " features"]

    def __init__(self, dim: int, n_features: int, *, scale: float | Float[Array, ""], key: PRNGKeyArray) -> None:
        if is_known(scale) and not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        at, phase = jax.random.split(key)
        self.frequencies = jax.random.normal(at, (n_features * dim,)).reshape(n_features, dim) / scale
        self.phases = 2 * jnp.pi * jax.random.uniform(phase, (n_features,))

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " features"]:
        """All functions at one point."""
        return jnp.concatenate([jnp.cos(self.frequencies @ x + self.phases), x])


def helmholtz_decomposition(field: Field, samples: Float[Array, "n dim"], basis: Basis) -> HelmholtzDecomposition:
    """The best potential of a basis in the mean square over samples of p; density and score are not needed.

        G c = b,     Gᵢⱼ = E ∇ψᵢ · ∇ψⱼ,     bᵢ = E ∇ψᵢ · s,     φ = Σ cᵢ ψᵢ

    The remainder is a gauge field as far as the basis expresses the potential. Directions of G below round-off (functions that are
    constant or repeated) are left out, so that a basis may hold potentials of every size, those of networks too.

    **Arguments:** `field`: s, of one point; `samples`: of p, more numbers than the basis has functions; `basis`: functions ψ of one point.

    **Raises:** `ValueError` for fewer numbers than functions.

    >>> at = jnp.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> swirl = lambda x: jnp.array([-x[1], x[0]])
    >>> parts = helmholtz_decomposition(swirl, at, lambda x: jnp.array([x[0], x[1], x[0] * x[1]]))
    >>> print(f"{parts.potential(jnp.ones(2)):.3f}")  # x₁x₂ (4 - 1) / (4 + 1): the density is not round
    0.600
    """
    values = jax.vmap(field)(samples)
    gradients = jax.vmap(jax.jacfwd(basis))(samples)
    n_features = gradients.shape[1]
    if values.size < n_features:
        raise ValueError(f"samples must hold at least as many numbers as the basis has functions, {n_features}, got {values.size}")
    return HelmholtzDecomposition(field, basis, project_on_gradients(values, gradients))


def project_on_gradients(values: Float[Array, "n dim"], gradients: Float[Array, "n features dim"]) -> Float[Array, " features"]:
    """The coefficients of [`helmholtz_decomposition`][gradatim.transport.helmholtz_decomposition], from values at samples.

    >>> of_half_a_square = jnp.array([[[1.0]], [[3.0]]])  # ∇(x²/2) at 1 and at 3
    >>> print(f"{project_on_gradients(jnp.array([[2.0], [6.0]]), of_half_a_square)[0]:.2f}")
    2.00
    """
    n, n_features, dim = gradients.shape
    matrix = jnp.swapaxes(gradients, 1, 2).reshape(n * dim, n_features)
    scale = jnp.sqrt(jnp.sum(matrix**2, axis=0))
    # In units of each function's own size: without them round-off of the largest would hide the smallest.
    matrix = matrix / jnp.where(scale > 0, scale, 1)[None]
    eigenvalues, vectors = jnp.linalg.eigh(matrix.T @ matrix)
    kept = eigenvalues > n_features * jnp.finfo(values.dtype).eps * eigenvalues[-1]
    weights = jnp.where(kept, (vectors.T @ (matrix.T @ values.ravel())) / jnp.where(kept, eigenvalues, 1), 0)
    return (vectors @ weights) / jnp.where(scale > 0, scale, 1)


def linear_helmholtz(matrix: Float[Array, "dim dim"], covariance: Float[Array, "dim dim"]) -> LinearHelmholtz:
    """The parts of the field M x under N(0, C) in closed form: A C⁻¹ + C⁻¹ A = M - Mᵀ, and G = M - A C⁻¹.

    The gradient part is not the symmetric part of M unless C is round, nor is it the score where M is a score and a rotation.

    **Arguments:** `matrix`: M; `covariance`: C, symmetric, positive definite.

    **Raises:** `ValueError` for a covariance that is not, where it is known.

    >>> parts = linear_helmholtz(jnp.array([[0.0, -1.0], [1.0, 0.0]]), jnp.diag(jnp.array([4.0, 1.0])))
    >>> print(parts.gradient)  # the rotation of a density that is not round is in part a gradient
    [[0.  0.6]
     [0.6 0. ]]
    """
    if is_known(covariance):
        known = np.asarray(covariance)
        if not (np.allclose(known, known.T, atol=1e-5 * np.abs(known).max()) and np.linalg.eigvalsh(known).min() > 0):
            raise ValueError(f"covariance must be symmetric and positive definite, got {known.tolist()}")
    variances, axes = jnp.linalg.eigh(covariance)
    turning = axes.T @ (matrix - matrix.T) @ axes
    inverse = 1 / variances
    inner = turning / (inverse[:, None] + inverse[None])
    remainder = axes @ (inner * inverse[None]) @ axes.T
    gradient = matrix - remainder
    return LinearHelmholtz((gradient + gradient.T) / 2, remainder, axes @ inner @ axes.T)
