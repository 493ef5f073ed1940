"""What a seed draws for turbulence: first weights, initial vorticities with their solutions, and constrained points."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from gradatim.lab import Session
from gradatim.numerics import PeriodicGrid
from gradatim.sciml import random_vorticity, reference_vorticity

from .config import Turbulence

FlowArm = Literal["penalty", "single", "blocks"]
FLOW_ARMS: tuple[FlowArm, ...] = ("penalty", "single", "blocks")


class HeldOutFlows(NamedTuple):
    """Initial states that no network of their seed is trained on, and their solutions, on the grid of the training and on the finer one."""

    initial: Any
    truth: Any
    fine_initial: Any
    fine_truth: Any


class FlowSeed(NamedTuple):
    """Shared by the arms."""

    key: PRNGKeyArray
    "Of first weights, batches and points."
    initial: np.ndarray
    held_out: HeldOutFlows


def draw_flow_seeds(sizes: Turbulence, session: Session, key: PRNGKeyArray) -> tuple[list[FlowSeed], list[FlowSeed]]:
    """Those of the short runs, and those that are judged; no two have a draw in common."""
    key_states, key_pilot, *judged = jax.random.split(key, 2 + sizes.seeds)
    keys = [*jax.random.split(key_pilot, sizes.pilot_seeds), *judged]
    states = session.once("turbulent solutions", lambda: _states(sizes, jax.random.split(key_states, len(keys))))
    seeds = [FlowSeed(each, initial, HeldOutFlows(*held_out)) for each, (initial, held_out) in zip(keys, states, strict=True)]
    return seeds[: sizes.pilot_seeds], seeds[sizes.pilot_seeds :]


def n_splits(sizes: Turbulence, arm: FlowArm) -> tuple[int, int]:
    """Blocks along x and y."""
    return (sizes.splits, sizes.splits) if arm == "blocks" else (1, 1)


def draw_flow_points(sizes: Turbulence, arm: FlowArm, side: int, n_points: int, random: np.random.Generator) -> np.ndarray:
    """Points at times with neighbours on both sides, without repetition, as many in every block: axes (block, point)."""
    splits = n_splits(sizes, arm)
    block = (sizes.times, side // splits[0], side // splits[1])
    eligible = np.arange(math.prod(block)).reshape(block)[1:-1].ravel()
    n_blocks = math.prod(splits)
    if n_points // n_blocks > eligible.size:
        raise ValueError(f"turbulence.points must be at most {eligible.size * n_blocks}, those inside the blocks, got {n_points}")
    return np.stack([random.choice(eligible, n_points // n_blocks, replace=False) for _ in range(n_blocks)]).astype(np.int32)


def _states(sizes: Turbulence, keys: Array) -> list[tuple[np.ndarray, tuple[np.ndarray, ...]]]:
    """Of each key, initial states to train from, and others with their solutions, on both grids."""
    grid = PeriodicGrid((sizes.reference_side, sizes.reference_side), 1.0)
    thin = sizes.reference_side // sizes.side
    # One by one: the reference's grid is fine.
    draw = jax.jit(lambda key: random_vorticity(key, grid))
    steps = math.ceil(sizes.horizon / (sizes.times - 1) * sizes.reference_side)

    @jax.jit
    def solve(key: Array) -> Array:
        return reference_vorticity(
            random_vorticity(key, grid),
            grid,
            viscosity=sizes.viscosity,
            horizon=sizes.horizon,
            n_snapshots=sizes.times - 1,
            steps_between=steps,
        )

    def states_of(key: Array) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        key_train, key_held = jax.random.split(key)
        initial = np.stack([np.asarray(draw(each))[::thin, ::thin] for each in jax.random.split(key_train, sizes.initial_states)])
        return initial, held([np.asarray(solve(each)) for each in jax.random.split(key_held, sizes.held_out)])

    def held(states: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        finer = sizes.reference_side // sizes.fine_side
        coarse, fine = (np.stack([w[:, ::every, ::every] for w in states]) for every in (thin, finer))
        return coarse[:, 0], coarse, fine[:, 0], fine

    return [states_of(key) for key in keys]
