"""Steps as long as the changes allow: for solutions that may blow up."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .stepping import Carry, Flag, Snapshot, State, Stepper, begin


class Adaptivity(eqx.Module):
    """The rule for the length of steps: double it when the fields change by less than `calm` in a step, relative to their
    largest value, and halve it, doing the step again, when by more than `brisk`.

    **Arguments:** `calm` < `brisk`; `first_dt` > 0; `least_dt`: below it the flag STALLED is raised; `largest_dt`; `max_steps`, tried
    ones, in all: when they are used up, the same flag.

    **Raises:** `ValueError` outside these ranges.
    """

    calm: float = eqx.field(static=True, default=0.01)
    brisk: float = eqx.field(static=True, default=0.05)
    first_dt: float = eqx.field(static=True, default=1e-6)
    least_dt: float = eqx.field(static=True, default=1e-10)
    largest_dt: float = eqx.field(static=True, default=1e-3)
    max_steps: int = eqx.field(static=True, default=100_000)

    def __check_init__(self):
        if not 0 < self.calm < self.brisk:
            raise ValueError(f"calm must be positive and below brisk, got {self.calm} and {self.brisk}")
        if not 0 < self.least_dt <= self.first_dt <= self.largest_dt:
            raise ValueError(
                f"first_dt must be positive, between least_dt and largest_dt, got {self.first_dt}, {self.least_dt} and {self.largest_dt}"
            )
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")


class _Walk(NamedTuple):
    carry: Carry
    time: Float[Array, ""]
    dt: Float[Array, ""]
    n_steps: Int[Array, ""]


def march_adaptively(stepper_of: Callable[[Array], Stepper], state: State, times: Float[Array, " times"], rule: Adaptivity) -> Snapshot:
    """The first state and those at the later times."""
    dtype = state.cells.dtype
    signals = stepper_of(jnp.asarray(rule.first_dt, dtype)).signals

    def advance(walk: _Walk, target: Array) -> _Walk:
        left = target - walk.time
        # Two equal steps rather than a long one and a sliver.
        dt = jnp.where(walk.dt >= left, left, jnp.minimum(walk.dt, left / 2))
        moved = stepper_of(dt).guarded(walk.carry)
        change = _change(walk.carry, moved)
        too_brisk = (change > rule.brisk) | (moved.flag == Flag.INSTABILITY)
        is_least = dt <= rule.least_dt
        accepted = ~too_brisk
        at_least = jnp.where(moved.flag == Flag.REGULAR, Flag.STALLED, moved.flag)
        flag = jnp.where(accepted, moved.flag, jnp.where(is_least, at_least, Flag.REGULAR))
        flag = jnp.where((flag == Flag.REGULAR) & (walk.n_steps + 1 >= rule.max_steps), Flag.STALLED, flag).astype(jnp.int32)
        kept = jax.tree.map(lambda new, old: jnp.where(accepted, new, old), moved, walk.carry)
        following = jnp.where(accepted, jnp.where(change < rule.calm, 2 * dt, dt), dt / 2)
        # A step cut short to meet a time says nothing against the one that was planned.
        following = jnp.where(accepted & (dt < walk.dt), jnp.maximum(walk.dt, following), following)
        following = jnp.clip(following, rule.least_dt, rule.largest_dt).astype(dtype)
        time = jnp.where(accepted, jnp.where(dt == left, target, walk.time + dt), walk.time)
        return _Walk(Carry(kept.cells, kept.memory, flag), time, following, walk.n_steps + 1)

    def to_next(walk: _Walk, target: Array) -> tuple[_Walk, Snapshot]:
        def is_open(walk: _Walk) -> Array:
            return (walk.time < target) & (walk.carry.flag == Flag.REGULAR)

        walk = jax.lax.while_loop(is_open, lambda walk: advance(walk, target), walk)
        return walk, (State(walk.carry.cells, *signals.leave(walk.carry.memory)), walk.carry.flag)

    first = _Walk(begin(signals, state), times[0], jnp.asarray(rule.first_dt, dtype), jnp.zeros((), jnp.int32))
    _, (states, flags) = jax.lax.scan(to_next, first, times[1:])
    start = State(state.cells, *signals.leave(first.carry.memory))
    return jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), (start, first.carry.flag), (states, flags))


def _change(before: Carry, after: Carry) -> Array:
    """The largest change of any field (of any coefficient, where signals are kept as such), relative to its largest value."""
    pairs = zip(jax.tree.leaves((before.cells, before.memory)), jax.tree.leaves((after.cells, after.memory)), strict=True)
    tiny = jnp.finfo(before.cells.dtype).tiny
    return jnp.stack([jnp.abs(new - old).max() / jnp.maximum(jnp.abs(new).max(), tiny) for old, new in pairs]).max()
