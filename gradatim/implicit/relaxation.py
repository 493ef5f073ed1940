"""Relaxation of an equilibrium network: repeated updates, free or nudged, to a number of steps or a tolerance."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, PyTree

from .equilibrium_network import AbstractEquilibriumNetwork, activities


class Relaxation(NamedTuple):
    """Where a relaxation ended."""

    state: PyTree[Array]
    "u after the last step."
    residual: Float[Array, ""]
    "The largest move of a unit in the last step: what tells whether it came to rest."
    steps: Int[Array, ""]
    "Steps made."


class Nudge(NamedTuple):
    """A force β ∂L/∂r on the layers; a positive strength pushes the cost up."""

    strength: Inexact[Array, ""]
    "β, real or complex."
    target: Array
    "y."


def relax(
    network: AbstractEquilibriumNetwork,
    drive: PyTree[Array],
    start: PyTree[Array] | None = None,
    *,
    steps: int,
    tolerance: float = 0.0,
    nudge: Nudge | None = None,
) -> Relaxation:
    """Updates u ← G(φ(u); x) + β ∂L/∂r until no unit moves by more than the tolerance.

    **Arguments:** `network`, for one input; `drive`: `network.drive(x)`; `start`: the first state, None for zeros; `steps` ≥ 1, the most
    that are made; `tolerance` ≥ 0: 0 makes all of them, in a loop that can be differentiated in both modes; `nudge`: None for the free
    phase. A complex strength makes the state complex, of the same precision.

    **Raises:** `ValueError` for steps below 1 or a negative tolerance.

    >>> from gradatim.implicit import LayeredNetwork, chain_connections
    >>> sizes = {"in": 3, "l1": 4, "out": 2}
    >>> network = LayeredNetwork(sizes, chain_connections(sizes), key=jax.random.key(0))
    >>> found = jax.jit(lambda x: relax(network, network.drive(x), steps=100, tolerance=1e-5))(jnp.ones(3))
    >>> print(found.residual < 1e-5, found.steps < 100)
    True True
    """
    _check(steps, tolerance)
    state = jax.tree.map(jnp.zeros_like, drive) if start is None else start
    if nudge is not None:
        strength = nudge.strength
        state = jax.tree.map(lambda u: u.astype(jnp.result_type(u.dtype, jnp.complex64) if jnp.iscomplexobj(strength) else u.dtype), state)

    def move(state: PyTree[Array]) -> PyTree[Array]:
        return update(network, drive, state, nudge)

    if tolerance == 0:
        before = jax.lax.fori_loop(0, steps - 1, lambda _, u: move(u), state)
        after = move(before)
        return Relaxation(after, largest_move(before, after), jnp.asarray(steps, jnp.int32))

    def goes_on(carry: tuple[PyTree[Array], Array, Array]) -> Array:
        _, residual, count = carry
        return (count < steps) & ~(residual <= tolerance)

    def once(carry: tuple[PyTree[Array], Array, Array]) -> tuple[PyTree[Array], Array, Array]:
        before, _, count = carry
        after = move(before)
        return after, largest_move(before, after), count + 1

    real = jax.tree.leaves(state)[0].real.dtype
    state, residual, count = jax.lax.while_loop(goes_on, once, (state, jnp.asarray(jnp.inf, real), jnp.asarray(0, jnp.int32)))
    return Relaxation(state, residual, count)


def update(network: AbstractEquilibriumNetwork, drive: PyTree[Array], state: PyTree[Array], nudge: Nudge | None = None) -> PyTree[Array]:
    """One step, G(φ(u); x) + β ∂L/∂r: a state is an equilibrium where it stays."""
    activity = activities(network, state)
    sent = network.field(activity, drive)
    if nudge is None:
        return sent
    push = cost_gradient(network, activity, nudge.target)
    return jax.tree.map(lambda g, c: g + nudge.strength.astype(c.dtype) * c, sent, push)


def cost_gradient(network: AbstractEquilibriumNetwork, activity: PyTree[Array], target: Array) -> PyTree[Array]:
    """The derivative ∂L/∂r, of complex activities too."""
    is_complex = any(jnp.iscomplexobj(r) for r in jax.tree.leaves(activity))
    return jax.grad(lambda r: network.cost(r, target), holomorphic=is_complex)(activity)


def largest_move(before: PyTree[Array], after: PyTree[Array]) -> Float[Array, ""]:
    """Of any unit."""
    return jnp.stack([jnp.max(jnp.abs(b - a), initial=0) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]).max()


def _check(steps: int, tolerance: float) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
