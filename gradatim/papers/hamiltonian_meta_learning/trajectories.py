"""The data: trajectories of the systems, and the points that are no trajectories of any."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from gradatim.lab import Session
from gradatim.sciml import FieldPoints, MechanicalSystem, Tasks, henon_heiles, magnetic_mirror, mass_spring, n_body, pendulum

from .config import Config

SYSTEMS = (mass_spring(), pendulum(), henon_heiles(), magnetic_mirror())
NAMES = tuple(system.name for system in SYSTEMS)
HORIZON = 10.0
TWO_BODIES = n_body(2)


class Trajectories(NamedTuple):
    """Rows are sets of data, one a seed and one of its pilot, times systems."""

    training: FieldPoints
    test: FieldPoints
    "With the time at the end, which the others leave out."


def make_trajectories(config: Config, session: Session, keys: Key[Array, " sets"]) -> Trajectories:
    """All trajectories of all sets of data."""
    n = config.trajectories + config.test_trajectories

    @jax.jit
    def make(keys: Key[Array, "sets systems"]) -> tuple[Array, Array, Array]:
        made = [_of_system(system, keys[:, i], n, config.times) for i, system in enumerate(SYSTEMS)]
        states, rates, refused = (jnp.stack(part, axis=1) for part in zip(*made, strict=True))
        return states.reshape(-1, *states.shape[2:]), rates.reshape(-1, *rates.shape[2:]), refused

    states, rates, refused = session.once("trajectories", make, jax.vmap(lambda key: jax.random.split(key, len(SYSTEMS)))(keys))
    states, rates = jnp.asarray(states), jnp.asarray(rates)
    session.note(
        f"starts refused for their energy, of {n} a set: {dict(zip(NAMES, np.asarray(refused).sum(axis=0).tolist(), strict=True))}"
    )
    cut = config.trajectories
    training = FieldPoints(states[:, :cut, : config.times], rates[:, :cut, : config.times])
    return Trajectories(training, FieldPoints(states[:, cut:], rates[:, cut:]))


def _of_system(system: MechanicalSystem, keys: Key[Array, " sets"], n: int, n_times: int) -> tuple[Array, Array, Array]:
    starts, refused = jax.vmap(lambda key: system.sample_initial(key, n))(keys)

    def one(start: Float[Array, " size"]) -> tuple[Array, Array]:
        states = system.trajectory(start, horizon=HORIZON, n_steps=n_times, substeps=max(800 // n_times, 1))
        return states, jax.vmap(lambda x: system.field(0.0, x))(states)

    states, rates = jax.vmap(jax.vmap(one))(starts)
    return states, rates, refused


@eqx.filter_jit
def special_tasks(config: Config, keys: Key[Array, " groups"]) -> tuple[Tasks, Tasks, Key[Array, " groups"]]:
    """Of every group the damped tasks, those of two bodies, and a key for the links between these; groups of one key share them."""

    def group(key: PRNGKeyArray) -> tuple[Tasks, Tasks, PRNGKeyArray]:
        key_damped, key_pairs, key_links = jax.random.split(key, 3)
        damped = damped_tasks(config.damping, key_damped, config.test_tasks, config.points)
        return damped, two_body_tasks(key_pairs, config.two_body_tasks, config.times, config.points), key_links

    return jax.lax.map(group, keys)


def damped_tasks(damping: float, key: PRNGKeyArray, n_tasks: int, n_points: int) -> Tasks:
    """An oscillator q̇ = p, ṗ = -q - γp: random points of the unit disc to adapt to, equal shares of it to be judged by."""
    draws = jax.random.uniform(key, (2 * n_tasks * n_points,)).reshape(2, n_tasks, n_points)
    support = _in_disc(jnp.sqrt(draws[0]), 2 * jnp.pi * draws[1])
    n_rings = max(int(np.sqrt(n_points / 2)), 1)
    while n_points % n_rings:
        n_rings -= 1
    n_angles = n_points // n_rings
    radii = np.sqrt((np.arange(n_rings) + 0.5) / n_rings).repeat(n_angles)
    angles = 2 * np.pi * np.tile(np.arange(n_angles) / n_angles, n_rings)
    query = jnp.tile(_in_disc(jnp.asarray(radii, support.dtype), jnp.asarray(angles, support.dtype))[None], (n_tasks, 1, 1))
    return Tasks(*(FieldPoints(x, _damped(x, damping)) for x in (support, query)))


def damped_floor(damping: float) -> float:
    """The least relative error of any energy's field on the disc: the field's part (-γ/2)(q, p) is the gradient of a function that
    vanishes on the rim, so that it is orthogonal to every J ∇H; the rest is the field of an energy.

        floor = √(γ²/2 / (2 + γ²))
    """
    return float(np.sqrt(damping**2 / 2 / (2 + damping**2)))


def two_body_tasks(key: PRNGKeyArray, n_tasks: int, n_times: int, n_points: int) -> Tasks:
    """Points along trajectories of two bodies, every other one to adapt to."""
    starts, _ = TWO_BODIES.sample_initial(key, n_tasks)

    def one(start: Float[Array, " size"]) -> tuple[Array, Array]:
        states = TWO_BODIES.trajectory(start, horizon=HORIZON, n_steps=n_times, substeps=max(800 // n_times, 1))
        return states, jax.vmap(lambda x: TWO_BODIES.field(0.0, x))(states)

    states, rates = jax.vmap(one)(starts)
    chosen = np.linspace(0, n_times, 2 * n_points).astype(int)
    return Tasks(*(FieldPoints(states[:, chosen[i::2]], rates[:, chosen[i::2]]) for i in range(2)))


def _in_disc(radius: Float[Array, "*shape"], angle: Float[Array, "*shape"]) -> Float[Array, "*shape 4"]:
    zero = jnp.zeros_like(radius)
    return jnp.stack([radius * jnp.cos(angle), zero, radius * jnp.sin(angle), zero], axis=-1)


def _damped(x: Float[Array, "*shape 4"], damping: float) -> Float[Array, "*shape 4"]:
    q, zero, p, _ = (x[..., i] for i in range(4))
    return jnp.stack([p, zero, -q - damping * p, zero], axis=-1)
