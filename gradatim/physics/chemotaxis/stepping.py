"""Cells and signals stepped together, with a flag for what the grid can no longer show."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .grids import AbstractGrid
from .signals import AbstractSignals
from .transport import transport

COLLAPSED_SHARE = 0.2
"Of all mass in one cell: what is left of a blow-up on a grid,"
COLLAPSED_DENSITY = 10.0
"times the mean density in it, so that a cell which is merely large does not count."


class Flag(enum.IntEnum):
    """How a simulation went; from the first flag on the state is held, for what follows would mean nothing.

    `COLLAPSE`: the mass gathers in one cell, as after a blow-up (its density is then mass over volume, a number of the grid's);
    `INSTABILITY`: a step gave what is no density, not finite or negative, and was undone; `STALLED`: changes stayed too fast for the
    shortest step, or steps ran out, before a collapse was seen. An aggregate of many cells, however steep, is `REGULAR`.
    """

    REGULAR = 0
    COLLAPSE = 1
    INSTABILITY = 2
    STALLED = 3


class State(NamedTuple):
    """The three fields."""

    cells: Float[Array, ...]  # n
    attractant: Float[Array, ...]  # c
    signal: Float[Array, ...]  # w


class Carry(NamedTuple):
    """A state between steps: the signals in the form in which they are stepped, and the flag."""

    cells: Float[Array, ...]
    memory: PyTree
    flag: Int[Array, ""]


class Stepper(eqx.Module):
    """One time step of a given length: `state = stepper(state)`.

    First the signals, cells held (exactly on a box, by backward Euler on a ball, at once in the limits), then the cells by backward Euler
    along the new attractant. Each half descends the entropy, so that for χ ≥ 0 it falls in every step, whatever its length; cells
    stay ≥ 0 and keep their mass. First order in dt, with an error that stays bounded as ε → 0.

    The c and w after a step are those that the cells followed in it: in the limits of the cells one step before.
    """

    grid: AbstractGrid
    signals: AbstractSignals
    dt: Float[Array, ""]
    chi: Float[Array, ""]

    def __call__(self, state: State) -> State:
        """The state one step later."""
        carry = self.advance(Carry(state.cells, self.signals.enter(*state), jnp.zeros((), jnp.int32)))
        return State(carry.cells, *self.signals.leave(carry.memory))

    def advance(self, carry: Carry) -> Carry:
        """One step without looking back at the flag."""
        memory = self.signals.advance(carry.memory, carry.cells)
        # Fields keep their precision beside parameters of another.
        memory = jax.tree.map(lambda new, old: new.astype(old.dtype), memory, carry.memory)
        attractant = self.signals.attractant(memory).astype(carry.cells.dtype)
        return Carry(transport(self.grid, carry.cells, attractant, self.dt, self.chi), memory, carry.flag)

    def guarded(self, carry: Carry) -> Carry:
        """One step, unless the flag is up already; raises it."""
        moved = self.advance(carry)
        flag = examine(self.grid, moved.cells)
        is_usable = (carry.flag == Flag.REGULAR) & (flag != Flag.INSTABILITY)
        kept = jax.tree.map(lambda new, old: jnp.where(is_usable, new, old), moved, carry)
        return Carry(kept.cells, kept.memory, jnp.where(carry.flag == Flag.REGULAR, flag, carry.flag))


def examine(grid: AbstractGrid, cells: Float[Array, ...]) -> Int[Array, ""]:
    """The [`Flag`][gradatim.physics.chemotaxis.Flag] of a density.

    >>> from gradatim.physics.chemotaxis import Box
    >>> [Flag(int(examine(Box((20,)), cells))).name for cells in (jnp.ones(20), jnp.zeros(20).at[3].set(1.0), -jnp.ones(20))]
    ['REGULAR', 'COLLAPSE', 'INSTABILITY']
    """
    volumes = grid.weights(cells)
    content = volumes * cells
    total = content.sum()
    mean = total / float(np.broadcast_to(grid.volumes, grid.shape).sum())
    collapsed = ((content > COLLAPSED_SHARE * total) & (cells > COLLAPSED_DENSITY * mean)).any()
    is_density = jnp.isfinite(total) & (cells.min() >= 0)
    return jnp.where(is_density, jnp.where(collapsed, Flag.COLLAPSE, Flag.REGULAR), Flag.INSTABILITY).astype(jnp.int32)


class Solution(eqx.Module):
    """Snapshots along a solution; `flag` is that of the way so far, `is_supercritical` says that mass alone would allow a blow-up."""

    times: Float[Array, " snapshots"]
    cells: Float[Array, "snapshots ..."]
    attractant: Float[Array, "snapshots ..."]
    signal: Float[Array, "snapshots ..."]
    mass: Float[Array, " snapshots"]
    entropy: Float[Array, " snapshots"]
    flag: Int[Array, " snapshots"]
    is_supercritical: Bool[Array, ""]

    @property
    def states(self) -> State:
        """The fields, snapshots along the first axis."""
        return State(self.cells, self.attractant, self.signal)


Snapshot = tuple[State, Int[Array, "..."]]
"States and their flags, one or many."


def begin(signals: AbstractSignals, state: State) -> Carry:
    """The carry of a first state."""
    return Carry(state.cells, signals.enter(*state), jnp.zeros((), jnp.int32))


def march(stepper_of: Callable[[Array], Stepper], state: State, dts: Float[Array, " steps"], every: int) -> Snapshot:
    """The first state, and those after every `every` steps of the given lengths; gradients do the steps in between again."""

    @jax.checkpoint
    def between(carry: Carry, some: Array) -> tuple[Carry, Snapshot]:
        carry, _ = jax.lax.scan(lambda carry, dt: (stepper_of(dt).guarded(carry), None), carry, some)
        return carry, _snapshot(stepper_of(some[-1]).signals, carry)

    signals = stepper_of(dts[0]).signals
    first = begin(signals, state)
    _, later = jax.lax.scan(between, first, dts.reshape(-1, every))
    return _joined(_snapshot(signals, first), later)


def march_evenly(stepper: Stepper, state: State, n_steps: int, every: int) -> Snapshot:
    """The same for steps of one length, prepared once."""

    @jax.checkpoint
    def between(carry: Carry, _: None) -> tuple[Carry, Snapshot]:
        carry, _ = jax.lax.scan(lambda carry, _: (stepper.guarded(carry), None), carry, length=every)
        return carry, _snapshot(stepper.signals, carry)

    first = begin(stepper.signals, state)
    _, later = jax.lax.scan(between, first, length=n_steps // every)
    return _joined(_snapshot(stepper.signals, first), later)


def _snapshot(signals: AbstractSignals, carry: Carry) -> Snapshot:
    return State(carry.cells, *signals.leave(carry.memory)), carry.flag


def _joined(first: Snapshot, later: Snapshot) -> Snapshot:
    return jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest]), first, later)
