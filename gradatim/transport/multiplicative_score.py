"""Multiplicative score matching: losses that make a network x ∘ ∇ log p_t(x), the score times the point (arXiv:2510.02730).

This product is what multiplicative samplers ask for. It does not change when data are scaled, its mean is -1 in every coordinate, and it is
the score of the logarithm less one: ∇_y log p_Y(y) = x ∘ ∇ log p(x) + 1 for y = log x. Losses are means over a batch and its coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics import divergence, hutchinson_divergence

from .geometric_motion import AbstractGeometricMotion, check_noisy, check_positive, spread

PointScore = Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]
"x ∘ ∇ log p_t(x), of one time and one point."
Weighting = Literal["variance", "noise", "score"]
WEIGHTINGS = {"variance": 1, "noise": 0, "score": -1}
"The power of V = ∫σ² that multiplies the squared error of the predicted noise."


def stein_from_point_score(score: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """∇ log p(x), which grows without bound where x goes to 0."""
    return score / x


def point_score_from_stein(stein: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The score times the point, x ∘ ∇ log p(x)."""
    return stein * x


def point_score_from_log_score(score: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """From the score of y = log x: less one, the derivative of the logarithm of dx/dy.

    Without it a sampler drifts by the factor exp(V) in all.
    """
    return score - 1


class ScoreFromNoise(eqx.Module):
    """The score times the point from a network of the noise: `ScoreFromNoise(network, motion)(t, x)` = -1 - ε(t, x) / √V.

    The best conditioned of the parametrisations: ε has unit size at all times. Let the network see log x.

    >>> from gradatim.transport import GeometricBrownianMotion
    >>> score = ScoreFromNoise(lambda t, x: jnp.zeros_like(x), GeometricBrownianMotion())
    >>> print(score(jnp.array(0.5), jnp.array([1.0, 2.0])))
    [-1. -1.]
    """

    network: Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]
    motion: AbstractGeometricMotion

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """At one time t > 0 and one point."""
        variance = self.motion.integrals(t).variance.astype(x.dtype)
        return -1 - self.network(t, x) / jnp.sqrt(variance)


class ScoreFromStein(eqx.Module):
    """The score times the point from a network of ∇ log p_t, as the paper's: `ScoreFromStein(network)(t, x)` = x ∘ s(t, x)."""

    network: Callable[[Float[Array, ""], Float[Array, " dim"]], Float[Array, " dim"]]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """At one time and one point."""
        return point_score_from_stein(self.network(t, x), x)


def multiplicative_score_matching(
    score: PointScore,
    motion: AbstractGeometricMotion,
    x0: Float[Array, "batch dim"],
    noise: Float[Array, "batch dim"],
    t: Float[Array, " batch"],
    *,
    weighting: Weighting = "variance",
) -> Float[Array, ""]:
    """Denoising: mean of λ(V) (h(t, x_t) - x_t ∘ ∇ log p(x_t | x₀))², least for h = x ∘ ∇ log p_t and not zero there.

        V h + log x_t - log x₀ - M + 3V/2 = V (h - x_t ∘ ∇ log p(x_t | x₀)) = √V (√V (h + 1) + z)

    | weighting    | λ  | squared error of                          |
    | ---          | -- | ---                                       |
    | `"variance"` | V² | the left-hand side: the paper's           |
    | `"noise"`    | V  | the noise: all levels count alike         |
    | `"score"`    | 1  | the score: levels near the data count most |

    The first nearly leaves out the levels near the data. With the last, it is twice
    [`explicit_multiplicative_loss`][gradatim.transport.explicit_multiplicative_loss] and a constant that no model changes.

    **Arguments:** `score`: of one time and one point; `motion`; `x0`: positive data; `noise`: standard normal; `t`: in (0, `motion.end`],
    the same in noising and in the loss (the authors' code is one level apart).

    **Raises:** `ValueError` for an unknown weighting, and for times or data that are not positive, which are an error at run time where
    they are traced.

    >>> from gradatim.transport import GeometricBrownianMotion
    >>> x0, noise, t = jnp.ones((2, 1)), jnp.array([[1.0], [-1.0]]), jnp.array([0.5, 1.0])
    >>> print(f"{multiplicative_score_matching(lambda t, x: -jnp.ones_like(x), GeometricBrownianMotion(1.0), x0, noise, t):.2f}")
    0.75
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    t = check_noisy(t)
    _, variance = spread(motion.log_transition(t), x0)
    predicted = jax.vmap(score)(t, motion.point(x0, noise, t))
    return jnp.mean(variance ** WEIGHTINGS[weighting] * (jnp.sqrt(variance) * (predicted + 1) + noise) ** 2)


def explicit_multiplicative_loss(
    score: PointScore, exact: PointScore, x: Float[Array, "batch dim"], t: Float[Array, " batch"]
) -> Float[Array, ""]:
    """½ mean of (h(t, x) - x ∘ ∇ log p_t(x))², where the score is known.

    **Arguments:** `score`, `exact`: of one time and one point; `x`: of the density at times `t`.

    >>> one, two = (lambda t, x, c=c: jnp.full_like(x, c) for c in (1.0, 2.0))
    >>> print(explicit_multiplicative_loss(one, two, jnp.ones((3, 2)), jnp.ones(3)))
    0.5
    """
    return jnp.mean((jax.vmap(score)(t, x) - jax.vmap(exact)(t, x)) ** 2) / 2


def nonnegative_score_matching(
    score: Callable[[Float[Array, " dim"]], Float[Array, " dim"]], x: Float[Array, "batch dim"], *, key: PRNGKeyArray | None = None
) -> Float[Array, ""]:
    """Hyvärinen's score matching for non-negative data, without noise or the score of the data.

        J = E[h + x ∘ ∂h/∂x + h²/2] = E[2 x ∘ ψ + x² ∘ ∂ψ/∂x + x² ∘ ψ²/2],     h = x ∘ ψ

    The explicit loss is J + ½ E(x ∘ ∇ log p)², if x² p ψ vanishes at 0 and at infinity (Hyvärinen 2007, Computational Statistics & Data
    Analysis 51, in its notation the second form).

    **Arguments:** `score`: h of one point; `x`: positive data; `key`: for one random probe a point instead of one product a coordinate.

    **Raises:** `ValueError` for data that are not positive, or an error at run time where they are traced.

    >>> print(nonnegative_score_matching(lambda x: -1 - jnp.log(x), jnp.ones((1, 2))))  # log-normal, at its median
    -1.5
    """
    x = check_positive("x", x)

    def of_log(y: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return score(jnp.exp(y))

    def one(y: Float[Array, " dim"], key: PRNGKeyArray | None) -> Float[Array, ""]:
        h = of_log(y)
        # x ∂h/∂x is the derivative along the logarithm.
        slope = divergence(of_log, y) if key is None else hutchinson_divergence(of_log, y, key)
        return jnp.mean(h + h**2 / 2) + slope / y.size

    keys = None if key is None else jax.random.split(key, len(x))
    return jnp.mean(jax.vmap(one, (0, None if keys is None else 0))(jnp.log(x), keys))
