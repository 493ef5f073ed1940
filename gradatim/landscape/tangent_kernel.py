"""Networks of infinite width: their linearisation, its kernel, and the kernels' limits (Jacot et al., arXiv:1806.07572).

A wide network stays near its first parameters and learns as its linearisation does; what is left of width in the loss is a variance
that falls as 1/width. Limits are those of the NTK parametrisation: every weight is drawn from N(0, 1) and multiplied by σ_w/√inputs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Activation = Literal["relu", "erf"]


class WideKernels(NamedTuple):
    """Of the outputs at the start, and of the step that gradient descent takes in them."""

    nngp: Float[Array, "n m"]
    ntk: Float[Array, "n m"]


def linearise(apply: Callable[[PyTree, Any], Float[Array, ...]], params: PyTree) -> Callable[[PyTree, Any], Float[Array, ...]]:
    """f(θ₀) + ∂f(θ₀) (θ - θ₀), a function of parameters and inputs as `apply` is, to be trained as `apply` is.

    **Arguments:** `apply(params, inputs)`; `params`: θ₀, any pytree; leaves that are no floating-point arrays stay as they are.

    >>> tangent = linearise(lambda w, x: w**2 * x, jnp.array(3.0))
    >>> float(tangent(jnp.array(4.0), 2.0)), "not 32"
    (30.0, 'not 32')
    """
    start, static = eqx.partition(params, eqx.is_inexact_array)

    def tangent(now: PyTree, inputs: Any) -> Float[Array, ...]:
        step = jax.tree.map(jnp.subtract, eqx.filter(now, eqx.is_inexact_array), start)
        value, change = jax.jvp(lambda p: apply(eqx.combine(p, static), inputs), (start,), (step,))
        return value + change

    return tangent


def empirical_ntk(
    apply: Callable[[PyTree, Float[Array, ...]], Float[Array, ""]],
    params: PyTree,
    x: Float[Array, "n ..."],
    y: Float[Array, "m ..."],
) -> Float[Array, "n m"]:
    """Θ(x, y) = ∂f(x) · ∂f(y) of any network at finite width, row by row: two gradients in memory, not n of them.

    **Arguments:** `apply(params, input)`: a scalar for one input; `params`: any pytree; `x`, `y`: inputs along axis 0.

    >>> empirical_ntk(lambda w, x: w @ x, jnp.ones(2), jnp.eye(2), jnp.ones((1, 2))).tolist()
    [[1.0], [1.0]]
    """
    start, static = eqx.partition(params, eqx.is_inexact_array)

    def row(one: Array) -> Array:
        gradient = jax.grad(lambda p: apply(eqx.combine(p, static), one))(start)
        return jax.jvp(lambda p: jax.vmap(lambda other: apply(eqx.combine(p, static), other))(y), (start,), (gradient,))[1]

    return jax.lax.map(row, x)


def wide_kernels(
    x: Float[Array, "n features"],
    y: Float[Array, "m entries"],
    *,
    n_hidden: int = 1,
    activation: Activation = "relu",
    weight_variance: float = 2.0,
) -> WideKernels:
    """Both kernels of a fully connected network without biases, hidden layers of infinite width, one output.

        Σ¹ = Θ¹ = σ_w² x·y/d,     Σ' = σ_w² E[φ(u) φ(v)],     Θ' = Σ' + σ_w² E[φ'(u) φ'(v)] Θ,     (u, v) ~ N(0, Σ)

    The expectations are closed: Cho and Saul's arc-cosines for ReLU, Williams' arc-sine for the error function.

    **Arguments:** `n_hidden` ≥ 0 layers; `activation`: `"relu"` or `"erf"`; `weight_variance` σ_w² > 0, of all layers, the last included
    (2 keeps the size of ReLU's signals).

    **Raises:** `ValueError` for a number or a word out of range, or inputs of different length.

    >>> kernels = wide_kernels(jnp.eye(2), jnp.eye(2))
    >>> [[f"{k:.3f}" for k in row] for row in kernels.ntk.tolist()]
    [['2.000', '0.318'], ['0.318', '2.000']]
    """
    if n_hidden < 0:
        raise ValueError(f"n_hidden must be at least 0, got {n_hidden}")
    if activation not in ("relu", "erf"):
        raise ValueError(f"activation must be 'relu' or 'erf', got {activation!r}")
    if not weight_variance > 0:
        raise ValueError(f"weight_variance must be positive, got {weight_variance}")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have inputs of one length, got {x.shape[1]} and {y.shape[1]}")
    return _kernels(x, y, jnp.asarray(weight_variance, x.dtype), n_hidden, activation)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _kernels(x: Array, y: Array, weight_variance: Array, n_hidden: int, activation: Activation) -> WideKernels:
    scale = weight_variance / x.shape[1]
    kernel, rows, columns = scale * x @ y.T, scale * jnp.sum(x**2, axis=1), scale * jnp.sum(y**2, axis=1)
    tangent = kernel
    expectations = relu_expectations if activation == "relu" else _erf
    for _ in range(n_hidden):
        moment, slope = expectations(kernel, rows[:, None], columns[None])
        rows, columns = (weight_variance * expectations(q, q, q)[0] for q in (rows, columns))
        kernel, tangent = weight_variance * moment, weight_variance * (moment + slope * tangent)
    return WideKernels(kernel, tangent)


def relu_expectations(k: Array, p: Array, q: Array) -> tuple[Array, Array]:
    """E[φ(u) φ(v)] and E[φ'(u) φ'(v)] of φ = max(0, ·) for normal u, v of variances p, q and covariance k (Cho and Saul 2009)."""
    (left, over_left), (right, over_right) = _root(p), _root(q)
    cosine = jnp.clip(k * over_left * over_right, -1, 1)
    # Equal inputs have no angle, and no slope of the arc.
    is_inside = jnp.abs(cosine) < 1
    inside = jnp.where(is_inside, cosine, 0.0)
    sine = jnp.where(is_inside, jnp.sqrt((1 - inside) * (1 + inside)), 0.0)
    # π less the angle, by the tangent of its half: twice as fast as the arc cosine.
    rest = jnp.where(is_inside, math.pi - 2 * jnp.arctan(sine / (1 + inside)), jnp.where(cosine > 0, math.pi, 0.0))
    return left * (right * (sine + rest * cosine) / (2 * math.pi)), rest / (2 * math.pi)


def _root(p: Array) -> tuple[Array, Array]:
    """√p, and what to divide by it with: of zero, whose covariances are zero, one."""
    root = jnp.sqrt(jnp.where(p == 0, 1.0, p))
    return jnp.where(p == 0, 0.0, root), 1 / root


def _erf(k: Array, p: Array, q: Array) -> tuple[Array, Array]:
    spread = (1 + 2 * p) * (1 + 2 * q)
    return 2 / math.pi * jnp.arcsin(2 * k / jnp.sqrt(spread)), 4 / math.pi / jnp.sqrt(spread - 4 * k**2)
