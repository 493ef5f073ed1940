"""Exponentiated gradient descent: weights move by factors and keep their signs (Kivinen and Warmuth 1997)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from gradatim.optim.leaves import check_leaves
from gradatim.optim.rates import check_not_negative


class ExponentiatedState(NamedTuple):
    """How many steps were made, for a schedule."""

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]: optax's name for it


def exponentiated_gradient(learning_rate: optax.ScalarOrSchedule, *, signed: bool = True) -> optax.GradientTransformation:
    """Mirror descent with the entropy as mirror: every weight is multiplied.

        wₜ₊₁ = wₜ ∘ exp(-η sign(wₜ) ∘ gₜ)

    **A weight never changes its sign, and one of zero stays there.** Begin with the signs that are wanted, and for weights of either
    sign with a positive and a negative one each. The rate has the inverse unit of the gradient: it is the change of log |w|, not of w. A
    step of more than -16 of it (single precision; -36 in double) rounds the weight to zero for good.

    **Arguments:** `learning_rate`: η ≥ 0 or a schedule; `signed`: False leaves out sign(w), the classic form for weights that are all
    positive.

    **Returns:** an optax transformation, whose `update` needs the parameters: `optax.apply_updates` then makes the product.

    **Raises:** `ValueError` for a negative rate, or an update without parameters; `TypeError` for a leaf that is not real floating point.

    >>> optimizer = exponentiated_gradient(0.1)
    >>> weights = jnp.array([1.0, -1.0, 0.0])
    >>> updates, _ = optimizer.update(jnp.ones(3), optimizer.init(weights), weights)
    >>> print([f"{weight:.4f}" for weight in optax.apply_updates(weights, updates)])
    ['0.9048', '-1.1052', '0.0000']

    Source: Kivinen and Warmuth, *Exponentiated Gradient versus Gradient Descent for Linear Predictors*, Information and Computation 132
    (1997), without its normalisation to sum one; with the sign, the update behind the samplers of arXiv:2510.02730.
    """
    check_not_negative(learning_rate=learning_rate)

    def init(params: Any) -> ExponentiatedState:
        check_leaves(params)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if jnp.iscomplexobj(leaf):
                raise TypeError(f"parameters must be real, for a sign, got {jnp.result_type(leaf)} at params{jax.tree_util.keystr(path)}")
        return ExponentiatedState(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ExponentiatedState]:
        if params is None:
            raise ValueError("exponentiated_gradient multiplies the parameters: pass them to update as its third argument")
        # Any: optax's types let an array be a number of any kind.
        rate: Any = learning_rate(state.count) if callable(learning_rate) else learning_rate
        count: Any = optax.safe_increment(state.count)

        def change(gradient: Array, weight: Array) -> Array:
            sign = jnp.sign(weight) if signed else jnp.ones_like(weight)
            return weight * jnp.expm1((-rate * sign * gradient).astype(weight.dtype))

        return jax.tree.map(change, updates, params), ExponentiatedState(count)

    return optax.GradientTransformation(init, update)
