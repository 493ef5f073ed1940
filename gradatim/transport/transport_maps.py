"""Maps between samples: in closed form, as modules to be trained, and the error of a map whose optimal one is known.

All take one point: batch with `jax.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .costs import SQUARED_EUCLIDEAN, Cost, cost_matrix
from .sinkhorn import check_epsilon, check_iteration, solve

Field = Callable[[Float[Array, " dim"]], Float[Array, " dim"]]


@runtime_checkable
class StrictlyConvexCost(Protocol):
    """A cost h(x - y) that knows the gradient of the conjugate of h."""

    def conjugate_gradient(self, slope: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """∇h*."""
        ...


class ResidualMap(eqx.Module):
    """T(x) = T₀(x) + F(x): a network F that corrects a map T₀, by default the identity.

    >>> print(ResidualMap(lambda x: x**2)(jnp.array([2.0, -1.0])))
    [6. 0.]
    """

    field: Field
    "F"
    start: Field = eqx.field(default_factory=lambda: _identity)
    "T₀, learnt as well if it has arrays and is not frozen by whoever trains."

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The image."""
        return self.start(x) + self.field(x)


class StructuredMap(eqx.Module):
    """T(x) = x - ∇h*(F(x)), the form of an optimal map for a cost h(x - y), where F is a gradient (arXiv:2302.04953, Section 4.2).

    F is a network without any structure, kept near a gradient by
    [`conservativity_penalty`][gradatim.transport.conservativity_penalty]; for h = ‖·‖² the map is x - F(x) / 2.

    >>> from gradatim.transport import PNorm
    >>> print(StructuredMap(lambda x: x**3, PNorm(4.0))(jnp.array([2.0, -1.0])))
    [0. 0.]
    """

    field: Field
    "F"
    cost: StrictlyConvexCost = SQUARED_EUCLIDEAN
    "With `conjugate_gradient`."

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The image."""
        return x - self.cost.conjugate_gradient(self.field(x))


class SphereMap(eqx.Module):
    """T(x) = F(x) / ‖F(x)‖, a map of the sphere; 0 where F is 0.

    >>> print(SphereMap(lambda x: 2 * x)(jnp.array([0.6, 0.8])))
    [0.6 0.8]
    """

    field: Field
    "F"

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The image."""
        image = self.field(x)
        square = jnp.sum(image**2)
        return jnp.where(square > 0, image * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


class GaussianMap(eqx.Module):
    """T(x) = m_ν + A (x - m_μ), optimal for the squared distance if A is symmetric and positive."""

    source_mean: Float[Array, " dim"]
    target_mean: Float[Array, " dim"]
    matrix: Float[Array, "dim dim"]

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The image."""
        return self.target_mean + self.matrix @ (x - self.source_mean)


@jax.jit
def gaussian_map(x: Float[Array, "n dim"], y: Float[Array, "m dim"]) -> GaussianMap:
    """The optimal map between normal laws with the means and covariances of two samples: a good start, and the least one should beat.

        A = S_μ^-½ (S_μ^½ S_ν S_μ^½)^½ S_μ^-½,     A S_μ A = S_ν

    Of directions in which x does not vary beyond round-off nothing is known, and A is 0 there.

    **Raises:** `ValueError` for fewer than two points.

    >>> x = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> print(" ".join(f"{z:.3f}" for z in gaussian_map(x, 3 * x + 1)(jnp.array([1.0, 2.0]))))
    4.000 7.000
    """
    for name, points in (("x", x), ("y", y)):
        if len(points) < 2:
            raise ValueError(f"{name} must hold at least 2 points, got {len(points)}")
    source, target = (_covariance(points) for points in (x, y))
    values, vectors = jnp.linalg.eigh(source)
    least = len(source) * jnp.finfo(x.dtype).eps * values[-1]
    is_there = values > least
    roots = jnp.where(is_there, jnp.sqrt(jnp.where(is_there, values, 1)), 0)
    inverse_roots = jnp.where(is_there, 1 / jnp.where(is_there, roots, 1), 0)
    half, inverse_half = ((vectors * scale[None]) @ vectors.T for scale in (roots, inverse_roots))
    values, vectors = jnp.linalg.eigh(half @ target @ half)
    middle = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T
    return GaussianMap(x.mean(axis=0), y.mean(axis=0), inverse_half @ middle @ inverse_half)


class EntropicMap(eqx.Module):
    """T(x) = Σⱼ wⱼ yⱼ, w = softmaxⱼ((gⱼ - c(x, yⱼ)) / ε): the barycentre of where an entropic coupling sends x, for new x too.

    For the squared distance (Pooladian and Niles-Weed, arXiv:2109.12004).
    """

    points: Float[Array, "m dim"]
    potential: Float[Array, " m"]
    epsilon: Float[Array, ""]
    cost: Cost
    is_converged: Bool[Array, ""]
    "Whether the coupling's marginal error is within the tolerance: if not, images are off."

    def __call__(self, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The image."""
        costs = cost_matrix(self.cost, x[None], self.points)[0]
        return jax.nn.softmax((self.potential - costs) / self.epsilon) @ self.points


def entropic_map(
    x: Float[Array, "n dim"],
    y: Float[Array, "m dim"],
    *,
    epsilon: Float[Array, ""] | float,
    cost: Cost = SQUARED_EUCLIDEAN,
    tolerance: float = 1e-3,
    max_iterations: int = 2000,
) -> EntropicMap:
    """The entropic map from one sample to another: what a network has to beat.

    **Arguments, raises:** as for [`sinkhorn`][gradatim.transport.sinkhorn]; `is_converged` of the map is that of the coupling. With a
    large ε every image is the mean of y, with a small one every image is one of the yⱼ.

    >>> x = jnp.linspace(0.0, 1.0, 11)[:, None]
    >>> print(jnp.round(entropic_map(x, 2 * x, epsilon=0.01)(jnp.array([0.25])), 2))
    [0.5]
    """
    check_epsilon(epsilon)
    check_iteration(tolerance, max_iterations)
    return _entropic_map(x, y, cost, jnp.asarray(epsilon, x.dtype), tolerance, max_iterations)


@jax.jit
def unexplained_variance(
    images: Float[Array, "n dim"], optimal: Float[Array, "n dim"], target: Float[Array, "m dim"] | None = None
) -> Float[Array, ""]:
    """100 E‖T - T*‖² / Var ν, percent: 0 for the optimal map, 100 for the constant one (Korotin et al., arXiv:2106.01954).

    **Arguments:** `images` T(xᵢ); `optimal` T*(xᵢ); `target`: a sample of ν, by default T*(xᵢ), for the sum of the variances of all
    coordinates.

    >>> optimal = jnp.array([[0.0], [2.0]])
    >>> print(unexplained_variance(optimal.mean(axis=0, keepdims=True) + jnp.zeros((2, 1)), optimal))
    100.0
    """
    target = optimal if target is None else target
    return 100 * jnp.mean(jnp.sum((images - optimal) ** 2, axis=1)) / jnp.sum(jnp.var(target, axis=0))


def _identity(x: Float[Array, " dim"]) -> Float[Array, " dim"]:
    return x


@eqx.filter_jit
def _entropic_map(x: Array, y: Array, cost: Cost, epsilon: Array, tolerance: float, max_iterations: int) -> EntropicMap:
    found = solve(cost_matrix(cost, x, y), epsilon, tolerance, max_iterations)
    return EntropicMap(y, found.second_potential, epsilon, cost, found.is_converged)


def _covariance(points: Array) -> Array:
    centred = points - points.mean(axis=0)[None]
    return centred.T @ centred / len(points)
