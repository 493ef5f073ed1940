"""Training of all arms: short runs that choose rates first, then every seed, each looked at on its own held-out initial states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.implicit import BlockPartition
from gradatim.lab import Loop, Session
from gradatim.sciml import BasisNetwork

from .between import points_between
from .config import Config
from .draws import HeldOut, Seed, draw_seeds, draws_of
from .problem import ARMS, HORIZON, Arm, Model, Span, model_of, new_network, relative_error, root_mean_square, span_of

LONGEST_GRADIENT = 1.0
"The authors' bound."
LOOKED_AT = 16
"Held-out states at once."
CURVES = ("error", "far_error", "residual", "inner_residual", "sampled_residual", "unsampled_residual", "solve_steps", "failures", "loss")
UNITS = {"error": "%", "far_error": "%"}


class Work(NamedTuple):
    """What a run is given."""

    rate: Float[Array, ""]
    condition_weight: Float[Array, ""]
    n_steps: Float[Array, ""]
    batches: Float[Array, "steps batch"]
    points: Int[Array, "sets blocks points"]
    span: Span
    held_out: HeldOut
    held_points: Int[Array, "blocks points"]
    far_span: Span
    far_points: Int[Array, "blocks points"]
    between: Float[Array, "times places"]
    "1 between the held-out points of the blocks, where there is something to interpolate."


class State(NamedTuple):
    """What moves."""

    network: BasisNetwork
    memory: Any
    loss: Float[Array, ""]


class Trainer:
    """One arm: a program for all its runs."""

    def __init__(self, config: Config, arm: Arm, session: Session) -> None:
        self.config, self._session = config, session
        self.arm: Arm = arm
        self.model = model_of(config, arm)
        self._spans = span_of(config, config.trained_times), span_of(config, config.times)
        self._step, self._watch = eqx.Partial(take_step, self.model), eqx.Partial(look, self.model)

    def train(self, seed: Seed, rate: float, weight: float, n_steps: int, label: str) -> dict[str, np.ndarray]:
        """One run: what was looked at, axis (look, …)."""
        return self._run(seed, rate, weight, n_steps, label, is_pilot=False).history

    def pilot(self, seed: Seed, rate: float, weight: float, n_steps: int, label: str) -> float:
        """One run to choose by: its last error."""
        return last_error(self._run(seed, rate, weight, n_steps, label, is_pilot=True))

    def _run(self, seed: Seed, rate: float, weight: float, n_steps: int, label: str, *, is_pilot: bool) -> Loop:
        key_network, key_draws = jax.random.split(seed.key)
        draws = draws_of(self.config, self.arm, seed.initial, key_draws)
        near, far = self._spans
        work = Work(
            rate=jnp.asarray(rate, float),
            condition_weight=jnp.asarray(weight, float),
            n_steps=jnp.asarray(n_steps, float),
            batches=jnp.asarray(draws.batches),
            points=jnp.asarray(draws.points),
            span=near,
            held_out=seed.held_out,
            held_points=jnp.asarray(draws.held_points),
            far_span=far,
            far_points=jnp.asarray(draws.far_points),
            between=jnp.asarray(self._between(seed, key_draws), float),
        )
        state = first_state(new_network(self.config, self.arm, key_network))
        every = n_steps if is_pilot else n_steps // self.config.looks
        return self._session.loop(
            self._step, state, steps=n_steps, args=work, every=every, watch=self._watch, label=label,
            on_nonfinite="stop" if is_pilot else "raise",
        )  # fmt: skip

    def _between(self, seed: Seed, key_draws: PRNGKeyArray) -> np.ndarray:
        """Of the blocks' points, whatever the arm, on the whole grid."""
        points = draws_of(self.config, "blocks", seed.initial, key_draws).held_points
        between = points_between(self.config, points, self.config.trained_times)
        return np.pad(between, ((0, self.config.times - self.config.trained_times), (0, 0)))


def last_error(loop: Loop) -> float:
    """Where the run ended, infinite if it diverged."""
    return float(loop.history["error"][-1]) if loop.diverged_at is None else np.inf


def take_step(model: Model, state: State, i: Array, work: Work) -> State:
    """One step of Adam on a batch of initial states."""
    initial, points = work.batches[i], work.points[i % work.points.shape[0]]

    def loss(network: BasisNetwork) -> Array:
        def one(initial: Array) -> Array:
            losses = model.losses(model.solve(network, initial, points, work.span, work.condition_weight), initial, work.span)
            return losses.equation + work.condition_weight * losses.conditions

        return jnp.mean(jax.vmap(one)(initial))

    return adam_step(loss, state, i, work.rate, work.n_steps)


def adam_step(loss: Callable[[BasisNetwork], Array], state: State, i: Array, rate: Array, n_steps: Array) -> State:
    """One step of Adam, its rate along a cosine to zero, with a gradient of bounded length."""
    value, gradient = jax.value_and_grad(loss)(state.network)
    gradient = jax.tree.map(lambda g: g * jnp.minimum(1, LONGEST_GRADIENT / (optax.tree.norm(gradient) + 1e-30)), gradient)
    updates, memory = _adam().update(gradient, state.memory)
    rate = rate * (1 + jnp.cos(jnp.pi * i / n_steps)) / 2
    return State(jax.tree.map(lambda x, u: x - rate * u, state.network, updates), memory, value)


def first_state(network: BasisNetwork) -> State:
    """Before the first step."""
    return State(network, _adam().init(eqx.filter(network, eqx.is_inexact_array)), jnp.zeros(()))


def edge_note(rate: float, rates: Sequence[float]) -> str:
    """Says so where the best rate is the first or the last of several."""
    return ", at the end of the grid" if len(rates) > 1 and rate in (min(rates), max(rates)) else ""


def look(model: Model, state: State, work: Work) -> dict[str, Array]:
    """The loss; held-out states, solved for on the span of the training and on all of it: errors, residuals, the first state's fields."""
    network, near, far = state.network, work.span, work.far_span
    is_far = (far.later - near.later)[:, None] * jnp.ones((1, model.grid.n_places))
    is_near = jnp.concatenate([jnp.ones((1, model.grid.n_places)), near.later[:, None] * jnp.ones((1, model.grid.n_places))])

    spans = jax.tree.map(lambda *parts: jnp.stack(parts), near, far)
    points = jnp.stack([work.held_points, work.far_points])

    def one(initial: Array, truth: Array) -> dict[str, Array]:
        # Both spans by one program.
        solved = jax.vmap(lambda points, span: model.solve(network, initial, points, span, work.condition_weight))(points, spans)
        inside, beyond = (jax.tree.map(lambda x, i=i: x[i], solved) for i in range(2))
        found = {
            "error": 100 * relative_error(inside.u, truth, is_near),
            "between_error": 100 * relative_error(inside.u, truth, work.between),
            "far_error": 100 * relative_error(beyond.u[1:], truth[1:], is_far),
            "residual": root_mean_square(inside.residual, near.equation),
            "inner_residual": root_mean_square(inside.inner, near.equation),
            "field": inside.u,
            "far_field": beyond.u,
        }
        sampled = near.equation
        steps = failures = jnp.zeros(())
        if model.mixture is not None and inside.weighed is not None:
            partition = BlockPartition((1, 1)) if model.is_scattered else model.mixture.partition
            held_points = work.held_points.reshape(partition.n_blocks, -1)
            hits = jax.vmap(lambda rows: jnp.zeros(near.equation.size // partition.n_blocks).at[rows].set(1.0))(held_points)
            sampled = jnp.asarray(partition.unsplit(hits.reshape(partition.n_blocks, *partition.block_shape(near.equation.shape))))
            steps, failures = jnp.mean(inside.weighed.n_steps.astype(float)), inside.weighed.n_failures.astype(float)
        # One more than nothing, where every point is sampled.
        rest = near.equation if model.mixture is None else jnp.maximum(near.equation - sampled, 1e-30)
        return found | {
            "sampled_residual": root_mean_square(inside.inner, sampled),
            "unsampled_residual": root_mean_square(inside.inner, rest),
            "solve_steps": steps,
            "failures": failures,
        }

    states = work.held_out
    if states.initial.size <= LOOKED_AT:
        found = jax.vmap(one)(*states)
    else:
        found = jax.lax.map(lambda state: one(*state), tuple(states), batch_size=LOOKED_AT)
    fields = {name: found.pop(name)[0] for name in ("field", "far_field")}
    return {"loss": state.loss} | {name: jnp.mean(values) for name, values in found.items()} | fields


class Trained(NamedTuple):
    """All runs, and which points the blocks of each seed were judged at, and on what."""

    training: xr.Dataset
    pilots: xr.Dataset
    judged_at: np.ndarray
    "Axes (seed, block, point)."
    judged_on: np.ndarray
    "Axes (seed, state, time, place)."
    between: np.ndarray
    "Axes (seed, time, place), of the trained times: what lies between those points."
    between_error: np.ndarray
    "Of the blocks there, at the end, %; axis (seed,)."


def train_all(config: Config, session: Session, key: PRNGKeyArray) -> Trained:
    """Every arm at every rate for few steps, then, at the one with the best mean over the pilots' seeds, for all that are judged."""
    pilot_seeds, seeds = draw_seeds(config, session, key)
    histories, pilots = {}, {}
    for arm in ARMS:
        trainer = Trainer(config, arm, session)
        tried = {
            (rate, weight): [
                trainer.pilot(seed, rate, weight, config.pilot_steps, f"{arm}, rate {rate:g}, weight {weight:g}, pilot {i}")
                for i, seed in enumerate(pilot_seeds)
            ]
            for rate in config.rates
            for weight in config.condition_weights
        }
        rate, weight = min(tried, key=lambda pair: np.mean(tried[pair]))
        session.note(f"{arm}: Adam's rate {rate:g}{edge_note(rate, config.rates)}, weight of the conditions {weight:g}")
        pilots[arm] = [[tried[rate, weight] for weight in config.condition_weights] for rate in config.rates]
        histories[arm] = [trainer.train(seed, rate, weight, config.steps, f"{arm}, seed {i}") for i, seed in enumerate(seeds)]
    judged_at = np.stack([draws_of(config, "blocks", seed.initial, jax.random.split(seed.key)[1]).held_points for seed in seeds])
    judged_on = np.stack([np.asarray(seed.held_out.u) for seed in seeds])
    between = np.stack([points_between(config, points, config.trained_times) for points in judged_at])
    between_error = np.array([history["between_error"][-1] for history in histories["blocks"]])
    return Trained(_curves(config, histories, judged_on[:, 0]), _pilots(config, pilots), judged_at, judged_on, between, between_error)


def _curves(config: Config, histories: dict[Arm, list[dict[str, np.ndarray]]], truth: np.ndarray) -> xr.Dataset:
    def stacked(name: str) -> np.ndarray:
        return np.stack([np.stack([history[name] for history in histories[arm]]) for arm in ARMS])

    variables: dict[str, Any] = {name: (("arm", "seed", "step"), stacked(name), {"units": UNITS.get(name, "1")}) for name in CURVES}
    for name in ("field", "far_field"):
        variables[name] = (("arm", "seed", "t", "x"), stacked(name)[:, :, -1], {"units": "1"})
    variables["truth"] = (("seed", "t", "x"), truth, {"units": "1"})
    coordinates = {
        "arm": list(ARMS),
        "step": histories["blocks"][0]["step"],
        "t": np.linspace(0, HORIZON, config.times),
        "x": np.linspace(0, 1, config.places),
    }
    attributes = {"blocks": config.blocks, "trained_times": config.trained_times}
    return xr.Dataset(variables, coordinates, attributes)


def _pilots(config: Config, pilots: dict[Arm, list[list[list[float]]]]) -> xr.Dataset:
    values = np.array([pilots[arm] for arm in ARMS], float)
    coordinates = {"arm": list(ARMS), "rate": list(config.rates), "weight": list(config.condition_weights)}
    return xr.Dataset({"error": (("arm", "rate", "weight", "pilot"), values, {"units": "%"})}, coordinates)


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam()
