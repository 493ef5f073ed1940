"""The plane through three points of the parameter space, and the loss on it."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradatim.numerics.checks import is_known

from .mode_connectivity import check_ends, is_weight


class Plane(eqx.Module):
    """origin + x u + y v, with u and v of unit length at right angles: distances on it are those between the parameters.

    Leaves of the origin that are no floating-point arrays belong to every point; u and v need not hold them.
    """

    origin: PyTree
    first: PyTree
    second: PyTree

    def at(self, x: Float[Array, ""], y: Float[Array, ""]) -> PyTree:
        """The parameters at a point of the plane."""
        weights, others = eqx.partition(self.origin, is_weight)
        first, second = eqx.filter(self.first, is_weight), eqx.filter(self.second, is_weight)
        return eqx.combine(jax.tree.map(lambda o, u, v: (o + x * u + y * v).astype(o.dtype), weights, first, second), others)

    def coordinates(self, point: PyTree) -> Float[Array, " two"]:
        """Where the nearest point of the plane lies: x and y."""
        check_ends(self.origin, point)
        away = _flat(point)[0] - _flat(self.origin)[0]
        return jnp.stack([away @ _flat(self.first)[0], away @ _flat(self.second)[0]])


def plane_through(a: PyTree, b: PyTree, c: PyTree) -> Plane:
    """The plane through three points, with a at (0, 0), b at (|b - a|, 0) and c above (Garipov et al., arXiv:1802.10026).

    **Arguments:** pytrees of one structure, equinox models included; only floating-point arrays may differ.

    **Raises:** `ValueError` for points on one line (NaN in compiled code), or trees that do not fit.

    >>> plane = plane_through(jnp.zeros(3), jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 0.0, 3.0]))
    >>> plane.coordinates(jnp.array([1.0, 5.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    check_ends(a, b)
    check_ends(a, c)
    (origin, unravel), (to_b, _), (to_c, _) = (_flat(tree) for tree in (a, b, c))
    first, second, height = _basis(origin, to_b, to_c)
    if is_known(height) and not bool(height > 0):
        raise ValueError("a plane needs three points that are not on one line, got a, b and c on one")
    return Plane(a, unravel(first), unravel(second))


def plane_slice(
    loss: Callable[[PyTree], Float[Array, ""]], plane: Plane, x: Float[Array, " nx"], y: Float[Array, " ny"]
) -> Float[Array, "nx ny"]:
    """The loss over a grid of the plane, one point after another.

    >>> plane = plane_through(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    >>> plane_slice(lambda w: w[0] - w[1], plane, jnp.arange(3.0), jnp.arange(2.0)).tolist()
    [[0.0, -1.0], [1.0, 0.0], [2.0, 1.0]]
    """
    points = jnp.stack(jnp.meshgrid(x, y, indexing="ij"), axis=-1)
    values = jax.lax.map(lambda point: loss(plane.at(point[0], point[1])), points.reshape(-1, 2))
    return values.reshape(points.shape[:2])


def _flat(tree: PyTree) -> tuple[Array, Callable[[Array], PyTree]]:
    """The floating-point arrays in one row, and the way back."""
    return ravel_pytree(eqx.filter(tree, is_weight))


@jax.jit
def _basis(a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    first = (b - a) / jnp.linalg.norm(b - a)
    second = (c - a) - ((c - a) @ first) * first
    # Once more: what a short rest keeps of the first direction is large beside it.
    second = second - (second @ first) * first
    height = jnp.linalg.norm(second)
    is_thin = height <= 10 * jnp.finfo(a.dtype).eps * jnp.linalg.norm(c - a)
    return first, second / jnp.where(is_thin, jnp.nan, height), jnp.where(is_thin, 0, height)
