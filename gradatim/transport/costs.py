"""Costs of moving one point to another, as functions of the two.

Any function of two points is a cost, such as an instance of one of ott-jax's classes (`ott.geometry.costs`). Those here are finite, with
finite gradients, where the points coincide, and know what a map by a potential needs:

    T(x) = x - ∇h*(∇φ(x))     for c(x, y) = h(x - y), h strictly convex     (Uscidda and Cuturi, arXiv:2302.04953, Equation 6)
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Cost = Callable[[Float[Array, " dim"], Float[Array, " dim"]], Float[Array, ""]]
"From two points to a number."


class SquaredEuclidean(eqx.Module):
    """‖x - y‖², without a half.

    >>> print(SquaredEuclidean()(jnp.array([0.0, 3.0]), jnp.array([4.0, 0.0])))
    25.0
    """

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        """The cost."""
        return jnp.sum((x - y) ** 2)

    def conjugate_gradient(self, slope: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """∇h*(s) = s / 2."""
        return slope / 2

    def matrix(self, x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> Float[Array, "n m"]:
        """All pairs by one matrix product: a round-off of the size of ‖x‖² + ‖y‖² for what may be their small difference."""
        squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None]
        return squares - 2 * x @ y.T


SQUARED_EUCLIDEAN = SquaredEuclidean()


class Euclidean(eqx.Module):
    """‖x - y‖, with the sub-gradient 0 where they coincide. Not strictly convex: many maps may be optimal, and none has a ∇h*.

    >>> print(Euclidean()(jnp.array([0.0, 3.0]), jnp.array([4.0, 0.0])))
    5.0
    """

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        """The cost."""
        return _norm(x - y)


class PNorm(eqx.Module):
    """Σᵢ |xᵢ - yᵢ|ᵖ / p, p at least 1; strictly convex above.

    **Raises:** `ValueError` for p below 1.

    >>> print(PNorm(4.0)(jnp.array([0.0, 3.0]), jnp.array([2.0, 3.0])))
    4.0
    """

    p: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not 1 <= self.p < float("inf"):
            raise ValueError(f"p must be at least 1 and finite, got {self.p}")

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        """The cost."""
        return jnp.sum(_power(jnp.abs(x - y), self.p)) / self.p

    def conjugate_gradient(self, slope: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """∇h*(s) = sign(s) |s|^(q - 1) with 1/p + 1/q = 1.

        **Raises:** `ValueError` for p = 1, which has none.
        """
        if self.p == 1:
            raise ValueError("p must be above 1 for a map by a potential, got 1")
        return jnp.sign(slope) * _power(jnp.abs(slope), 1 / (self.p - 1))


class Geodesic(eqx.Module):
    """The angle arccos(x · y) between unit vectors, the distance on the sphere, as 2 atan2(‖x - y‖, ‖x + y‖).

    Kahan's form: to full precision also where the arc cosine has lost its digits and its derivative is infinite, at equal and at opposite
    points. There the sub-gradient is 0.

    >>> print(f"{Geodesic()(jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])):.4f}")
    1.5708
    """

    def __call__(self, x: Float[Array, " dim"], y: Float[Array, " dim"]) -> Float[Array, ""]:
        """The cost."""
        return 2 * jnp.arctan2(_norm(x - y), _norm(x + y))


def cost_matrix(cost: Cost, x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> Float[Array, "n m"]:
    """The costs of all pairs: `cost.matrix` where there is one, else one by one.

    >>> print(cost_matrix(Euclidean(), jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [3.0]])))
    [[0. 3.]
     [1. 2.]]
    """
    if isinstance(cost, SquaredEuclidean):
        return cost.matrix(x, y)
    return jax.vmap(lambda one: jax.vmap(lambda other: cost(one, other))(y))(x)


def displacement_cost(cost: Cost, x: Float[Array, "n dim"], y: Float[Array, "n dim"]) -> Float[Array, ""]:
    """What it costs to move each point to its own image, (1/n) Σᵢ c(xᵢ, yᵢ).

    >>> print(displacement_cost(Euclidean(), jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [2.0]])))
    2.0
    """
    return jnp.mean(jax.vmap(cost)(x, y))


@eqx.filter_jit
def mean_cost(cost: Cost, x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> Float[Array, ""]:
    """The mean over all pairs, without a gradient: the scale to measure an entropic regularisation by.

    Take it once, from a first batch: a regularisation that follows the images while they are learnt makes the loss depend on its own scale.

    >>> print(mean_cost(SquaredEuclidean(), jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [3.0]])))
    3.5
    """
    return jax.lax.stop_gradient(jnp.mean(cost_matrix(cost, x, y)))


def _norm(z: Float[Array, " dim"]) -> Float[Array, ""]:
    square = jnp.sum(z**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _power(z: Float[Array, " dim"], exponent: float) -> Float[Array, " dim"]:
    """Of numbers from 0, with the sub-gradient 0 there."""
    return jnp.where(z > 0, jnp.where(z > 0, z, 1) ** exponent, 0)
