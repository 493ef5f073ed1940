"""The step that is best for a Taylor model of the loss: first, second and third order behind one function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree

from gradatim.numerics.checks import is_known

from .directions import ValueAndGrad
from .probes import check_parameters, check_positive, scalar_loss


def taylor_step(
    fun: Callable[..., Any],
    params: Any,
    *args: Any,
    order: Literal[1, 2, 3],
    rate: Any = 1.0,
    damping: Any = 0.0,
    super_halley: Any = 0.5,
    value_and_grad: ValueAndGrad | None = None,
    key: Any = None,
) -> Any:
    """The step d that a model of f(θ + d) asks for, by the order of the model.

        1   g·d + ‖d‖²/(2η)                      d = -η g: gradient descent; with an estimate for g, the zeroth order
        2   g·d + ½ d·(H + λI) d                 d = -η (H + λI)⁻¹ g: Newton, damped
        3   the cubic model, its root to order 3  d = -[I + ½ L (I - a L)⁻¹] H⁻¹ g,  L = H⁻¹ ∇³f[H⁻¹ g]: Chebyshev–Halley

    Orders 2 and 3 form the Hessian: a few hundred parameters at most. Order 3 converges cubically to a point where g = 0, order 2
    quadratically; neither need be a minimum.

    **Arguments:** `fun(params, *args)`; `rate` η > 0; `damping` λ ≥ 0; `super_halley` a: 0 Chebyshev, ½ Halley, 1 super-Halley;
    `value_and_grad`: an estimator of this family, with its `key`, in place of the derivative, for order 1.

    **Returns:** d, a tree like `params`, to be added.

    **Raises:** `ValueError` for an order or a number out of range, or an estimator with order 2 or 3.

    >>> step = taylor_step(lambda x: ((x - 3) ** 2).sum(), jnp.zeros(2), order=2)
    >>> print(step)
    [3. 3.]
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")
    if value_and_grad is not None and order > 1:
        raise ValueError(f"value_and_grad serves order 1 only, got order {order}")
    check_positive("rate", rate)
    if is_known(damping) and not float(damping) >= 0:
        raise ValueError(f"damping must be at least 0, got {damping}")
    check_parameters(params)
    if value_and_grad is not None:
        return jax.tree.map(lambda g: -rate * g, value_and_grad(params, *args, key=key)[1])
    loss = scalar_loss(fun)
    flat, unravel = ravel_pytree(params)
    slope = jax.grad(lambda x: loss(unravel(x), *args))
    if order == 1:
        return unravel(-rate * slope(flat))
    curvature = jax.jacfwd(slope)
    hessian = curvature(flat) + damping * jnp.eye(flat.size, dtype=flat.dtype)
    operator = lx.MatrixLinearOperator(hessian)
    newton = lx.linear_solve(operator, slope(flat)).value
    if order == 2:
        return unravel(-rate * newton)
    third = jax.jvp(curvature, (flat,), (newton,))[1]
    ratio = jax.vmap(lambda column: lx.linear_solve(operator, column).value, 1, 1)(third)
    inner = jnp.eye(flat.size, dtype=flat.dtype) - super_halley * ratio
    correction = lx.linear_solve(lx.MatrixLinearOperator(inner), newton).value
    return unravel(-rate * (newton + ratio @ correction / 2))
