"""What a seed draws: first weights, initial states to train on and others that no network sees, batches and constrained points."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Session
from gradatim.lab.draws import host_generator
from gradatim.sciml import DiffusionSorption, reference_sorption

from .config import Config
from .problem import HORIZON, MEAN_INITIAL, Arm, draw_points, span_of

POINT_SETS = 256
"Drawn at most; steps take them in turns."


class HeldOut(NamedTuple):
    """Initial states that no network of their seed is trained on."""

    initial: Float[Array, " states"]
    u: Float[Array, "states times places"]


class Seed(NamedTuple):
    """Shared by the arms."""

    key: PRNGKeyArray
    "Of first weights, batches and points."
    initial: np.ndarray
    held_out: HeldOut


class Draws(NamedTuple):
    """Of one seed, for one number of blocks."""

    batches: np.ndarray
    points: np.ndarray
    held_points: np.ndarray
    far_points: np.ndarray


def draw_seeds(config: Config, session: Session, key: PRNGKeyArray) -> tuple[list[Seed], list[Seed]]:
    """Those of the short runs, and those that are judged; no two have a draw in common."""
    key_states, key_pilot, *judged = jax.random.split(key, 2 + config.seeds)
    keys = [*jax.random.split(key_pilot, config.pilot_seeds), *judged]
    states = [draw_initial_states(config, each) for each in jax.random.split(key_states, len(keys))]
    solved = session.once("reference solutions", lambda: np.stack([solve_held_out(config, held_out) for _, held_out in states]))
    seeds = [
        Seed(each, initial, HeldOut(jnp.asarray(held_out), jnp.asarray(u)))
        for each, (initial, held_out), u in zip(keys, states, solved, strict=True)
    ]
    return seeds[: config.pilot_seeds], seeds[config.pilot_seeds :]


def draw_initial_states(config: Config, key: PRNGKeyArray) -> tuple[np.ndarray, np.ndarray]:
    """To train on, and held out."""
    drawn = host_generator(key).uniform(0, 2 * MEAN_INITIAL, config.initial_states + config.held_out)
    return drawn[: config.initial_states], drawn[config.initial_states :]


def solve_held_out(config: Config, initial: np.ndarray) -> np.ndarray:
    """Reference solutions on the grid of the networks, axes (state, time, place)."""
    times, places = np.linspace(0, HORIZON, config.times), np.linspace(0, 1, config.places)
    problem = DiffusionSorption()
    return np.stack([reference_sorption(problem, float(u), times, n_cells=config.reference_cells).at(places) for u in initial])


def draws_of(config: Config, arm: Arm, initial: np.ndarray, key: PRNGKeyArray) -> Draws:
    """Batches are the same for all arms, and the points' number."""
    random = host_generator(key)
    batches = initial[random.integers(initial.size, size=(max(config.steps, config.pilot_steps), config.batch))]
    near, far = span_of(config, config.trained_times), span_of(config, config.times)
    sets = min(config.steps, POINT_SETS) if arm != "penalty" else 1
    points = draw_points(config, arm, near, sets + 1, random)
    return Draws(batches, points[1:], points[0], draw_points(config, arm, far, 1, random)[0])
