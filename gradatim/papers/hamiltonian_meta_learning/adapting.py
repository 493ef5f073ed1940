"""Adaptation to a system, and what the adapted networks say: errors of the field, trajectories, representations."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from gradatim.lab import Session
from gradatim.numerics import rollout
from gradatim.sciml import (
    MAML,
    DrawnTasks,
    HamiltonianField,
    HamiltonianGCN,
    Tasks,
    TrajectoryTasks,
    field_at,
    geometric_mean_over_time,
    linear_cka,
    relative_energy_error,
    relative_field_error,
    relative_state_error,
    runge_kutta_step,
)

from .arms import Learner, loss, weighed_loss
from .trajectories import HORIZON, SYSTEMS

WORST = 10.0
"What a relative error counts that is not finite, or larger."
LEAST_CHANGE = 1e-6
"Of 1 - CKA: below, single precision tells nothing."


class Outcome(NamedTuple):
    """Of every group and task, before the first step and after each; and the adapted learners."""

    error: Float[Array, "groups tasks looks"]
    change: Float[Array, "groups tasks looks"]
    learners: Learner


@eqx.filter_jit
def draw_tasks(sampler: TrajectoryTasks, keys: Key[Array, " groups"], rows: Int[Array, "groups k"], per_row: int) -> DrawnTasks:
    """Tasks of every group."""
    return jax.vmap(lambda key, rows: sampler.draw(key, rows, per_row))(keys, rows)


@eqx.filter_jit
def adapt(learners: Learner, tasks: Tasks, rates: Float[Array, " groups"], n_steps: int) -> Outcome:
    """Every group's learner on every one of its tasks."""

    def group(inputs: tuple[Learner, Tasks, Array]) -> Outcome:
        learner, tasks, rate = inputs
        maml = MAML(optax.sgd(rate), n_steps=n_steps)

        def one(task: Tasks) -> Outcome:
            def features(learner: Learner) -> Float[Array, "points width"]:
                return jax.vmap(learner.network.features)(task.query.states)

            first = features(learner)

            def watch(learner: Learner) -> tuple[Array, Array]:
                error = relative_field_error(field_at(learner, task.query.states), task.query.rates)
                return error, 1 - linear_cka(first, features(learner))

            adapted, (error, change) = maml.watched(learner, loss, task.support, watch)
            return Outcome(error, change, adapted)

        return jax.vmap(one)(tasks)

    return jax.lax.map(group, (learners, tasks, rates))


@eqx.filter_jit
def adapt_pairs(learners: Learner, tasks: Tasks, rates: Float[Array, " groups"], n_steps: int, keys: Key[Array, " groups"]) -> Any:
    """Errors of graph networks of two bodies, made of networks of one, with new links between them: the same for the same key."""

    def group(inputs: tuple[Learner, Tasks, Array, PRNGKeyArray]) -> Float[Array, "tasks looks"]:
        learner, tasks, rate, key = inputs
        network = HamiltonianGCN(learner.network, 2, key=key)
        maml = MAML(optax.sgd(rate), n_steps=n_steps)

        def one(task: Tasks) -> Float[Array, " looks"]:
            def watch(network: HamiltonianGCN) -> Float[Array, ""]:
                return relative_field_error(field_at(network, task.query.states), task.query.rates)

            def pair_loss(network: HamiltonianGCN, points: Any) -> Float[Array, ""]:
                # The shares of the activations, which are part of the network, pass no gradient.
                return weighed_loss(network, 0.0, points)

            return maml.watched(network, pair_loss, task.support, watch)[1]

        return jax.vmap(one)(tasks)

    return jax.lax.map(group, (learners, tasks, rates, keys))


@eqx.filter_jit
def predict(learners: Learner, starts: Float[Array, "groups tasks paths 4"], n_times: int) -> Float[Array, "groups tasks paths times 4"]:
    """Trajectories of adapted networks, by Runge–Kutta steps of at most 0.05."""
    substeps = max(200 // n_times, 1)
    dt = HORIZON / (n_times * substeps)

    def one(learner: Learner, start: Float[Array, " 4"]) -> Float[Array, "times 4"]:
        field = HamiltonianField(learner)
        return rollout(lambda x: runge_kutta_step(lambda x: field(0.0, x), x, dt), start, n_steps=n_times * substeps, every=substeps)

    paths = jax.vmap(jax.vmap(one, in_axes=(None, 0)))
    return jax.lax.map(lambda inputs: paths(*inputs), (learners, starts))


class Predicted(NamedTuple):
    """Means over time by system, seed, task and path; and along time, over all of those."""

    state_error: Float[Array, "arms systems seeds tasks paths"]
    energy_error: Float[Array, "arms systems seeds tasks paths"]
    surplus: Float[Array, "arms systems seeds tasks paths"]
    "Root of the mean square of what moves in coordinates that the system does not have; NaN where it has all."
    state_curve: Float[Array, "arms systems times"]
    energy_curve: Float[Array, "arms systems times"]


@jax.jit
def judge_paths(
    paths: Float[Array, "arms systems seeds tasks paths times 4"], true: Float[Array, "systems seeds tasks paths times 4"]
) -> Predicted:
    """Errors with the energy of the true system; the start, where there is none, is left out."""
    columns: list[tuple[Array, ...]] = []
    over_all = (1, 2, 3)
    for i, system in enumerate(SYSTEMS):
        found, known = paths[:, i], true[i]
        states = capped(relative_state_error(found, jnp.broadcast_to(known[None], found.shape)))[..., 1:]
        flat = found.reshape(-1, *found.shape[-2:])
        energies = jax.vmap(lambda path, system=system: relative_energy_error(system.energy, path, path[0]))(flat)
        energies = capped(energies.reshape(found.shape[:-1]))[..., 1:]
        surplus = jnp.full(found.shape[:4], jnp.nan)
        if system.n_surplus:
            surplus = jnp.minimum(jnp.sqrt(jnp.mean(found[..., 1] ** 2 + found[..., 3] ** 2, axis=-1)), WORST)
        curves = (jnp.exp(jnp.log(jnp.maximum(part, 1e-6)).mean(axis=over_all)) for part in (states, energies))
        columns.append((geometric_mean_over_time(states), geometric_mean_over_time(energies), surplus, *curves))
    return Predicted(*(jnp.stack(part, axis=1) for part in zip(*columns, strict=True)))


def capped(errors: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Errors, of which none is larger than the worst."""
    return jnp.where(jnp.isfinite(errors), jnp.minimum(errors, WORST), WORST)


def choose_rates(
    session: Session,
    learners: Learner,
    tasks: Tasks,
    rates: tuple[float, ...],
    shape: tuple[int, int, int],
    *,
    n_steps: int,
    label: str,
) -> np.ndarray:
    """The best of the rates of adaptation, for every arm, system and column, which are the axes of `shape`."""
    n_groups = int(np.prod(shape))
    errors = [last_errors(session, learners, tasks, np.full(n_groups, rate), n_steps, f"{label}, rate {rate:g}") for rate in rates]
    return np.asarray(rates)[np.argmin(errors, axis=0)].reshape(shape)


def last_errors(
    session: Session, learners: Learner, tasks: Tasks, rates: Float[np.ndarray, " groups"], n_steps: int, label: str
) -> Float[np.ndarray, " groups"]:
    """The logarithm of every group's error after the last step, mean over its tasks."""
    found = session.once(label, _last_errors, learners, tasks, jnp.asarray(rates, jnp.float32), n_steps)
    return np.log(np.asarray(found)).mean(axis=-1)


def _last_errors(learners: Learner, tasks: Tasks, rates: Float[Array, " groups"], n_steps: int) -> Float[Array, "groups tasks"]:
    return capped(adapt(learners, tasks, rates, n_steps).error[..., -1])
