"""When the minimisers of this room stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Bool, Float, PyTree

from .regularized_solves import Scalar, Vector


def is_target_met(
    value: Scalar,
    gradient_norm: Scalar,
    gradient_tol: float | Float[Array, ""] | None,
    value_target: float | Float[Array, ""] | None,
) -> Bool[Array, ""]:
    """Whether a gradient is zero or below its tolerance, or a value below its target."""
    is_met = gradient_norm == 0
    if gradient_tol is not None:
        is_met |= gradient_norm < gradient_tol
    if value_target is not None:
        is_met |= value < value_target
    return is_met


def is_still(
    solver: optx.AbstractMinimiser, x: Vector, step: Vector, value: Scalar, change: Scalar, unravel: Callable[[Vector], PyTree]
) -> Bool[Array, ""]:
    """Whether a step and the change of the value are both below `atol + rtol · |…|`; never for two tolerances of zero."""
    if solver.rtol == 0 and solver.atol == 0:
        return jnp.array(False)
    shares = jnp.abs(step) / (solver.atol + solver.rtol * jnp.abs(x))
    return (solver.norm(unravel(shares)) < 1) & (jnp.abs(change) < solver.atol + solver.rtol * jnp.abs(value))


def evaluate(fn: Any, unravel: Callable[[Vector], PyTree], args: Any, x: Vector) -> tuple[tuple[Scalar, Any], Vector]:
    """Value, auxiliary output and gradient of `fn(y, args)` at the vector of unknowns."""
    return jax.value_and_grad(lambda x: fn(unravel(x), args), has_aux=True)(x)
