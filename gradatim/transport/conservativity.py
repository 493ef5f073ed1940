"""Conservative and free models of a score, and how far a field is from a gradient
(Horvat and Pfister, arXiv:2402.03845; Salimans and Ho, "Should EBMs model the energy or the score?", 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.divergence import hutchinson_asymmetry, jacobian_asymmetry

from .flow_likelihood import MOST_EXACT
from .probability_paths import AbstractGaussianPath
from .score_flow import Score

Denoiser = Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]
"A function of a time and a noisy point, a network most often."


class FreeScore(eqx.Module):
    """The score of a denoiser x̂₁ ≈ E[x₁ | xₜ = x]: `FreeScore(denoiser, path)(t, x)`; no gradient of anything in general.

        s(t, x) = -(x - a x̂₁(t, x)) / m²

    >>> from gradatim.transport import CondOT
    >>> print(FreeScore(lambda t, x: 0 * x, CondOT())(jnp.array(0.5), jnp.array([1.0, 2.0])))
    [-4. -8.]
    """

    denoiser: Denoiser
    path: AbstractGaussianPath

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time t < 1 and one point."""
        return self.path.score_from_denoiser(x, self.denoiser(t, x), t)


class GradientScore(eqx.Module):
    """The score of a scalar potential made of such a network: `GradientScore(denoiser, path)(t, x)`, conservative by construction.

        s(t, x) = ∇ₓ ψ(t, x),     ψ(t, x) = -‖x - a f(t, x)‖² / (2 m²)

    As many parameters as [`FreeScore`][gradatim.transport.FreeScore] with the same network f, at two to three times the cost of training:
    the loss has the network's derivative in it. Activations must be smooth; the second derivative of a ReLU is zero.

    >>> from gradatim.transport import CondOT
    >>> print(GradientScore(lambda t, x: 0 * x, CondOT())(jnp.array(0.5), jnp.array([1.0, 2.0])))
    [-4. -8.]
    """

    denoiser: Denoiser
    path: AbstractGaussianPath

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The score at one time t < 1 and one point."""
        return jax.grad(self.potential, argnums=1)(t, x)

    def potential(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, ""]:
        """ψ, an unnormalised log density."""
        c = self.path.coefficients(t)
        apart = x - c.a.astype(x.dtype) * self.denoiser(t, x)
        return -jnp.sum(apart**2) / (2 * c.m.astype(x.dtype) ** 2)


def asymmetry_share(
    field: Score, t: Float[Array, ""], points: Float[Array, "n dim"], *, key: PRNGKeyArray | None = None, n_probes: int = 1
) -> Float[Array, ""]:
    """E ‖A‖²_F / E ‖J‖²_F over points, J = ∂s/∂x and A = (J - Jᵀ)/2: 0 for a gradient, 1 for a rotation.

    A quarter of the ratio E ‖J - Jᵀ‖² / E ‖J‖². Not small for every field that samples well: a gauge part may be large.

    **Arguments:** `field`; `t`; `points`: of the density that counts; `key`: for estimates by `n_probes` random probes a point, with two
    forward products each, instead of one product for every coordinate.

    **Raises:** `ValueError` in more than 64 dimensions without a key.

    >>> at = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> print(asymmetry_share(lambda t, x: jnp.array([-x[1], x[0]]), jnp.array(0.0), at))
    1.0
    """
    if key is None and points.shape[1] > MOST_EXACT:
        raise ValueError(f"exact derivatives are for at most {MOST_EXACT} dimensions, got {points.shape[1]}: pass a key for random probes")
    time = jnp.asarray(t, points.dtype)

    def exact(x: Float[Array, " dim"]) -> tuple[Array, Array]:
        return jacobian_asymmetry(lambda x: field(time, x), x), jnp.sum(jax.jacfwd(lambda x: field(time, x))(x) ** 2)

    def estimated(x: Float[Array, " dim"], key: PRNGKeyArray) -> tuple[Array, Array]:
        _, product = jax.linearize(lambda x: field(time, x), x)
        probes = jax.random.rademacher(key, (n_probes * x.size,), x.dtype).reshape(n_probes, x.size)
        # The same key, and so the same probes, for both norms: their noise divides out in part.
        return hutchinson_asymmetry(product, x, key, n_probes=n_probes), jnp.mean(jnp.sum(jax.vmap(product)(probes) ** 2, axis=1))

    if key is None:
        asymmetry, whole = jax.vmap(exact)(points)
    else:
        asymmetry, whole = jax.vmap(estimated)(points, jax.random.split(key, len(points)))
    return jnp.sum(asymmetry) / jnp.sum(whole)
