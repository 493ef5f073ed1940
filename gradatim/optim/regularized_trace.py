"""What a record keeps of each step of gradient-regularised Newton's method."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .regularized_solves import Scalar


class Trace(eqx.Module):
    """The course of a solve, step k at index k, NaN beyond the last; the last value and gradient stand one further.

    `halvings` are the trials of a step after its first, doublings included.
    """

    value: Float[Array, " steps_and_one"]
    gradient_norm: Float[Array, " steps_and_one"]
    radius: Float[Array, " steps"]
    regularization: Float[Array, " steps"]
    step_norm: Float[Array, " steps"]
    halvings: Float[Array, " steps"]


def empty_trace(steps: int, value: Scalar, gradient_norm: Scalar) -> Trace | None:
    """Room for so many steps, the start in it; None for no steps."""
    if steps == 0:
        return None
    longer, shorter = jnp.full(steps + 1, jnp.nan, value.dtype), jnp.full(steps, jnp.nan, value.dtype)
    return Trace(longer.at[0].set(value), longer.at[0].set(gradient_norm), shorter, shorter, shorter, shorter)


def recorded(
    trace: Trace | None, k: Int[Array, ""], is_accepted: Bool[Array, ""], reached: tuple[Scalar, Scalar], step: tuple[Array, ...]
) -> Trace | None:
    """With step k: the value and the gradient's norm that it `reached`, and its other entries in the order of the fields.

    What lies beyond the room is dropped; a step that was refused leaves NaN.
    """
    if trace is None:
        return None

    def put(into: Array, at: Array, entry: Array) -> Array:
        return into.at[at].set(jnp.where(is_accepted, entry, jnp.nan).astype(into.dtype), mode="drop")

    fields = (trace.radius, trace.regularization, trace.step_norm, trace.halvings)
    return Trace(
        put(trace.value, k + 1, reached[0]),
        put(trace.gradient_norm, k + 1, reached[1]),
        *(put(field, k, entry) for field, entry in zip(fields, step, strict=True)),
    )
