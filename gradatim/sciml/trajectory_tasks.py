"""Tasks for meta-learning of vector fields: a few points of one trajectory to adapt to, others of it to be judged by."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from .hamiltonian import FieldPoints
from .meta_learning import Tasks
from .padded_particles import ParticlePoints


class DrawnTasks(NamedTuple):
    """Tasks, and whose they are."""

    tasks: Tasks
    system: Int[Array, " tasks"]
    trajectory: Int[Array, " tasks"]


class TrajectoryTasks(eqx.Module):
    """Draws tasks from trajectories of several systems, the same number of each system.

    The times of a trajectory are cut into `n_query` equal stretches. Of each a task takes two different times, one to be judged by and
    one for the support, which keeps those of `n_support` stretches, one in each of as many longer stretches: both sets are random, lie all
    along the trajectory, and share no time. Points of one short arc would not tell what the energy is elsewhere.

    **Arguments:** `points`: states and rates, with masks for different numbers of particles; `n_support`, `n_query`: of one task.

    **Raises:** `ValueError` unless `n_support` divides `n_query` and `n_query` the times, twice at least.

    >>> points = jnp.arange(2 * 3 * 20 * 4.0).reshape(2, 3, 20, 4)
    >>> drawn = TrajectoryTasks(FieldPoints(points, points), n_support=5, n_query=10).draw(jax.random.key(0), jnp.array([1]), 2)
    >>> drawn.tasks.support.states.shape, drawn.tasks.query.states.shape, drawn.system.tolist()
    ((2, 5, 4), (2, 10, 4), [1, 1])
    """

    points: FieldPoints | ParticlePoints
    n_support: int = eqx.field(static=True)
    n_query: int = eqx.field(static=True)

    def __check_init__(self) -> None:
        # Not while `jax.vmap` or a filter has put something else in the place of the points.
        if not eqx.is_array(self.points.states):
            return
        if self.points.states.ndim < 3:
            raise ValueError(f"points must have axes for systems, trajectories and times, got shape {self.points.states.shape}")
        n_times = self.points.states.shape[-2]
        if not 1 <= self.n_support <= self.n_query or self.n_query % self.n_support:
            raise ValueError(f"n_support must be at least 1 and divide n_query, got {self.n_support} and {self.n_query}")
        if n_times % self.n_query or n_times < 2 * self.n_query:
            raise ValueError(f"n_query must divide the {n_times} times of a trajectory at least twice, got {self.n_query}")

    @eqx.filter_jit
    def draw(self, key: PRNGKeyArray, systems: Int[Array, " k"], per_system: int) -> DrawnTasks:
        """`per_system` tasks of each of `systems`, of random trajectories."""
        n_trajectories, n_times = self.points.states.shape[1:3]
        n_tasks, n_query, n_support = systems.size * per_system, self.n_query, self.n_support
        length, share = n_times // n_query, n_query // n_support
        parts = np.cumsum([1, n_query, n_query])
        # Remainders of 32 bits: no number is likelier than another by more than one part in ten million.
        bits = jax.random.bits(key, (n_tasks * (1 + 2 * n_query + n_support),)).reshape(n_tasks, -1)
        trajectory, first, further, kept = jnp.split(bits, parts.tolist(), axis=1)
        system = jnp.repeat(systems, per_system, total_repeat_length=n_tasks)
        trajectory = _remainder(trajectory[:, 0], n_trajectories)
        begins = length * jnp.arange(n_query)[None]
        first = _remainder(first, length)
        query = begins + (first + 1 + _remainder(further, length - 1)) % length
        stretches = share * jnp.arange(n_support)[None] + _remainder(kept, share)
        support = jnp.take_along_axis(begins + first, stretches, axis=1)

        def at(times: Int[Array, "tasks n"]) -> FieldPoints | ParticlePoints:
            return jax.tree.map(lambda array: array[system[:, None], trajectory[:, None], times], self.points)

        return DrawnTasks(Tasks(at(support), at(query)), system, trajectory)


def leave_one_out(n: int) -> Int[np.ndarray, "n others"]:
    """For each of `n`, the others.

    **Raises:** `ValueError` for fewer than two.

    >>> leave_one_out(3).tolist()
    [[1, 2], [0, 2], [0, 1]]
    """
    if n < 2:
        raise ValueError(f"n must be at least 2, got {n}")
    return np.array([[i for i in range(n) if i != out] for out in range(n)])


def _remainder(bits: Array, n: int) -> Int[Array, ...]:
    return (bits % n).astype(jnp.int32)
