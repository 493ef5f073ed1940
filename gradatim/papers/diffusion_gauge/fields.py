"""The fields whose flows are compared, and the one path that all go along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.transport import GaugeField, GaussianScore, SphereScore, SumOfFields, VariancePreserving

PATH = VariancePreserving()
LAST = 1e-3
"1 - t where flows end, but for likelihoods of normal data."
COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
SPHERE_FIELDS = ("score", "rotation", "shear", "saddle")
WORDS = {
    "score": "score alone",
    "rotation": "with A ∇log p",
    "shear": "with a shear along the sphere",
    "saddle": "with saddles as strong as 1/m²",
}


def spread_times(n: int) -> Float[np.ndarray, " n"]:
    """From noise to data, 1 - t in equal ratios from 1 to `LAST`."""
    return 1 - np.geomspace(1, LAST, n)


def normal_field(covariance: Float[Array, "2 2"], gauge: Float[Array, ""], rotation: Float[Array, ""]) -> tuple[SumOfFields, GaussianScore]:
    """The score of normal data plus `gauge` J ∇ log p, which moves no probability, and `rotation` J x, which does; and that score."""
    exact = GaussianScore(PATH, covariance)
    turn = jnp.asarray(TURN)
    field = SumOfFields(exact, GaugeField(exact, turn), gauge)
    return SumOfFields(field, lambda t, x: turn @ x, rotation), exact


def sphere_field(dim: int, strengths: Float[Array, " parts"]) -> SumOfFields:
    """The score of the sphere and three gauge fields of given strengths: A ∇ log p, a shear, and a flow with saddles.

    Whatever moves points within spheres around the centre is a gauge field once it has no divergence, times any function of the radius.
    The last one, x × ∇(x₁x₂) / m² on the sphere, grows faster towards the data than the score itself, whose size is 1/m.
    """
    exact = SphereScore(PATH)
    turn = jnp.zeros((dim, dim)).at[:2, :2].set(TURN)

    def fading(x: Array) -> Array:
        # One on the sphere, and no more than linear growth far away.
        return 2 / (1 + jnp.sum(x[:3] ** 2))

    def shear(t: Array, x: Array) -> Array:
        return fading(x) * x[2] * (turn @ x)

    def saddle(t: Array, x: Array) -> Array:
        along = jnp.cross(x[:3], jnp.stack([x[1], x[0], jnp.zeros((), x.dtype)]))
        return fading(x) * jnp.concatenate([along, jnp.zeros(dim - 3, x.dtype)]) / PATH.coefficients(t).m ** 2

    def gauge(t: Array, x: Array) -> Array:
        rotated = GaugeField(exact, turn)(t, x)
        return strengths[0] * rotated + strengths[1] * shear(t, x) + strengths[2] * saddle(t, x)

    return SumOfFields(exact, gauge)


STRENGTHS = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
"Of the gauge parts, by `SPHERE_FIELDS`."


def flat_normal(key: jax.Array, *shape: int, dtype: jnp.dtype | type = jnp.float64) -> Array:
    """Standard normal numbers, drawn along one axis: with several it compiles many times longer."""
    return jax.random.normal(key, (int(np.prod(shape)),), dtype).reshape(shape)


def over_pairs(of: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    """`of` for every entry of `first` with every entry of `second`, as one batch, two leading axes of the result."""
    n, m = (len(jax.tree.leaves(tree)[0]) for tree in (first, second))
    pairs = jax.tree.map(lambda leaf: jnp.repeat(leaf, m, axis=0), first), jax.tree.map(lambda leaf: jnp.concatenate([leaf] * n), second)
    return jax.tree.map(lambda leaf: leaf.reshape(n, m, *leaf.shape[1:]), jax.vmap(of)(*pairs))


def one_by_one(of: Callable[[Any], Any], over: Any) -> Any:
    """`of` for every entry of two leading axes, one after another: the activations of one network fit into the caches."""
    n, m = jax.tree.leaves(over)[0].shape[:2]
    found = jax.lax.map(of, jax.tree.map(lambda leaf: leaf.reshape(n * m, *leaf.shape[2:]), over))
    return jax.tree.map(lambda leaf: leaf.reshape(n, m, *leaf.shape[1:]), found)
