"""Proximal operators.

Each prox is argmin_x ‖x - v‖²/2 + η g(x), called as `prox(v, stepsize, *penalty)`. At a kink the derivative is that of the side on which
the penalty holds x at zero.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .projections import safe_norm

Scalar = Float[Array, ""] | float


def prox_l1(v: PyTree, stepsize: Scalar, strength: PyTree = 1.0) -> PyTree:
    """Soft threshold, g = λ‖x‖₁: sign(v) max(|v| - ηλ, 0). `strength` λ ≥ 0: a number, or of the structure of v.

    >>> prox_l1(jnp.array([3.0, -0.5, -2.0]), 1.0, 1.0).tolist()
    [2.0, 0.0, -1.0]
    """
    return prox_elastic_net(v, stepsize, strength, 0.0)


def prox_ridge(v: PyTree, stepsize: Scalar, strength: Scalar = 1.0) -> PyTree:
    """The shrinkage v / (1 + ηλ), g = λ‖x‖²/2.

    >>> print(prox_ridge(jnp.array(3.0), 1.0, 2.0))
    1.0
    """
    return jax.tree.map(lambda v: v / (1 + stepsize * strength), v)


def prox_elastic_net(v: PyTree, stepsize: Scalar, strength: PyTree = 1.0, ridge: Scalar = 1.0) -> PyTree:
    """Soft threshold, then shrinkage, g = λ(‖x‖₁ + γ‖x‖²/2): sign(v) max(|v| - ηλ, 0) / (1 + ηλγ).

    **Arguments:** `strength` λ ≥ 0; `ridge` γ ≥ 0.

    >>> prox_elastic_net(jnp.array([3.0, -0.5]), 1.0, 1.0, 1.0).tolist()
    [1.0, 0.0]
    """

    def shrink(v: Array, strength: Array | float) -> Array:
        threshold = stepsize * strength
        return jnp.where(jnp.abs(v) > threshold, v - jnp.sign(v) * threshold, 0.0) / (1 + threshold * ridge)

    if jax.tree.structure(strength) == jax.tree.structure(v):
        return jax.tree.map(shrink, v, strength)
    return jax.tree.map(lambda v: shrink(v, strength), v)


def prox_group_lasso(v: PyTree, stepsize: Scalar, strength: Scalar = 1.0) -> PyTree:
    """Block soft threshold, g = λ‖x‖₂ of each array: v max(1 - ηλ/‖v‖, 0). Rows are groups of their own under `jax.vmap`.

    >>> prox_group_lasso(jnp.array([3.0, 4.0]), 1.0, 2.5).tolist()
    [1.5, 2.0]
    """

    def shrink(v: Array) -> Array:
        norm, is_zero = safe_norm(v)
        return jnp.where(is_zero, 0.0, jax.nn.relu(1 - stepsize * strength / norm)) * v

    return jax.tree.map(shrink, v)


def prox_log_barrier(v: PyTree, stepsize: Scalar, strength: Scalar = 1.0) -> PyTree:
    """The positive root (v + √(v² + 4ηλ)) / 2, g = -λ Σ log x.

    >>> print(prox_log_barrier(jnp.array(0.0), 1.0, 4.0))
    2.0
    """

    def root(v: Array) -> Array:
        radical = jnp.sqrt(v**2 + 4 * stepsize * strength)
        # The larger of two equal forms: the other one loses all digits for v far below zero.
        return jnp.where(v > 0, (v + radical) / 2, 2 * stepsize * strength / (radical - jnp.minimum(v, 0)))

    return jax.tree.map(root, v)
