"""Mirrored Langevin dynamics: noise and drift in the image of a convex function's gradient (Hsieh et al., arXiv:1802.10174)."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .geometric_motion import Number

Coordinate = Callable[[Float[Array, ""]], Float[Array, ""]]


class MirrorMap(eqx.Module):
    """The gradient of a convex function Σᵢ φ(xᵢ), to a space without bounds, and back.

    **Arguments:** `potential`: φ of one coordinate; `inverse`: of φ′.

    >>> print(ENTROPY.dual(jnp.array([1.0, 2.0])), ENTROPY.primal(jnp.array([0.0])))
    [0.        0.6931472] [1.]
    """

    potential: Coordinate = eqx.field(static=True)
    inverse: Coordinate = eqx.field(static=True)

    def dual(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The image y = φ′(x)."""
        return _each(jax.grad(self.potential), x)

    def primal(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The point x with φ′(x) = y."""
        return _each(self.inverse, y)

    def dual_score(self, stein: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """∇ log p_Y(y) = (∇ log p(x) - φ‴(x)/φ″(x)) / φ″(x): the score of what the map makes of the density."""
        second = jax.grad(jax.grad(self.potential))
        curvature, change = _each(second, x), _each(jax.grad(second), x)
        return (stein - change / curvature) / curvature


def _entropy(x: Float[Array, ""]) -> Float[Array, ""]:
    return x * jnp.log(x) - x


ENTROPY = MirrorMap(_entropy, jnp.exp)
"φ = x log x - x, whose gradient is the logarithm: positive numbers."
EUCLIDEAN = MirrorMap(lambda x: x**2 / 2, lambda y: y)
"φ = x²/2, which changes nothing: Langevin dynamics itself."


def mirrored_langevin_step(
    mirror: MirrorMap,
    x: Float[Array, "*shape"],
    stein: Float[Array, "*shape"],
    noise: Float[Array, "*shape"],
    step: Number,
    *,
    temperature: Number = 1.0,
) -> Float[Array, "*shape"]:
    """φ′(x⁺) = φ′(x) + η ∇ log p_Y(φ′(x)) + √(2ητ) z, for small η in the long run a sample of p^(1/τ) of the dual density.

    With the entropy, τ = ½ and η = δσ² it is [`dale_langevin_step`][gradatim.transport.dale_langevin_step] at μ = σ²/2: the reverse of a
    diffusion drifts twice as fast as Langevin dynamics with the same noise.

    **Arguments:** `mirror`; `x`; `stein`: ∇ log p at x; `noise`: standard normal; `step`: η > 0; `temperature`: τ ≥ 0.

    >>> print(mirrored_langevin_step(ENTROPY, jnp.array([2.0]), jnp.array([-0.5]), jnp.array([0.0]), 0.1))  # x ∇ log p = -1
    [2.]
    """
    scale = jnp.sqrt(jnp.asarray(2 * step * temperature, x.dtype))
    return mirror.primal(mirror.dual(x) + jnp.asarray(step, x.dtype) * mirror.dual_score(stein, x) + scale * noise)


def _each(fn: Coordinate, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jax.vmap(fn)(x.ravel()).reshape(x.shape)
