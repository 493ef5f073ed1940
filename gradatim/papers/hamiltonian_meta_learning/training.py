"""Training: with inner steps, and on the pooled points without; short pilots first, which choose the rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from gradatim.lab import Session
from gradatim.sciml import MAML, Tasks, TrajectoryTasks

from .arms import Learner, Runs, loss
from .config import Config

ADAM = optax.scale_by_adam()


class State(NamedTuple):
    """Of every run."""

    learners: Learner
    memory: Any
    clipped: Float[Array, " runs"]
    "Steps at which the gradient was too long."
    loss: Float[Array, " runs"]


class Plan(NamedTuple):
    """What tells runs apart."""

    others: Int[Array, "runs others"]
    keys: Key[Array, " runs"]
    rates: Float[Array, " runs"]
    "Of Adam."
    inner_rates: Float[Array, " runs"]


class Trained(NamedTuple):
    """Learners, their losses, and the share of steps clipped."""

    learners: Learner
    step: Int[np.ndarray, " looks"]
    loss: Float[np.ndarray, "looks runs"]
    clipped: Float[np.ndarray, " runs"]


class Trainer:
    """The two ways to train, each one program for pilots and main runs."""

    def __init__(self, config: Config, session: Session, tasks: TrajectoryTasks) -> None:
        def meta(learner: Learner, tasks: Tasks, inner_rate: Float[Array, ""]) -> Float[Array, ""]:
            """What is left after the inner steps."""
            return MAML(optax.sgd(inner_rate), n_steps=config.inner_steps).meta_loss(learner, loss, tasks)

        def pooled(learner: Learner, tasks: Tasks, inner_rate: Float[Array, ""]) -> Float[Array, ""]:
            """All points of all tasks, those of the support too."""
            del inner_rate
            points = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1).reshape(-1, parts[0].shape[-1]), *tasks)
            return loss(learner, points)

        self._config, self._session, self._tasks = config, session, tasks
        self._steps = {"meta": _step(config, meta), "pooled": _step(config, pooled)}

    def train(self, way: str, runs: Runs, rates: Float[np.ndarray, "2 runs"], *, n_steps: int, label: str) -> Trained:
        """Runs at rates of their own: Adam's, and that of the inner steps."""
        n_runs = rates.shape[1]
        plan = Plan(jnp.asarray(runs.others), runs.keys, *jnp.asarray(rates, jnp.float32))
        zeros = jnp.zeros(n_runs)
        state = State(runs.learners, _begin(runs.learners), zeros, zeros)
        loop = self._session.loop(
            self._steps[way],
            state,
            steps=n_steps,
            args=(plan, self._tasks, jnp.asarray(n_steps, jnp.float32)),
            watch=_watch,
            every=max(n_steps // 20, 1),
            label=label,
            on_nonfinite="keep",
        )
        # A step tells the loss before it: the first row has none.
        return Trained(loop.state.learners, loop.history["step"][1:], loop.history["loss"][1:], np.asarray(loop.state.clipped) / n_steps)


def _watch(state: State, _: Any) -> dict[str, Array]:
    return {"loss": state.loss}


@jax.jit
def _begin(learners: Learner) -> Any:
    init: Any = ADAM.init
    return jax.vmap(init)(learners)


def _step(config: Config, outer: Callable[[Learner, Tasks, Float[Array, ""]], Float[Array, ""]]) -> Callable[[State, Any, Any], State]:
    def step(state: State, i: Any, args: Any) -> State:
        plan, tasks, n_steps = args
        decay = (1 + jnp.cos(jnp.pi * i / n_steps)) / 2

        def one(inputs: tuple[State, Plan]) -> State:
            (learner, memory, clipped, _), (others, key, rate, inner_rate) = inputs
            drawn = tasks.draw(jax.random.fold_in(key, i), others, config.tasks_per_system).tasks
            value, gradient = eqx.filter_value_and_grad(outer)(learner, drawn, inner_rate)
            norm = optax.tree.norm(gradient)
            scale = jnp.minimum(1, config.clip / norm)
            updates, memory = ADAM.update(jax.tree.map(lambda g: scale * g, gradient), memory)
            moved = jax.tree.map(lambda x, u: x - rate * decay * u, learner, updates)
            return State(moved, memory, clipped + (norm > config.clip), value)

        # One run after another stays in the processor's cache; all at once take twice the time.
        return jax.lax.map(one, (state, plan))

    return step
