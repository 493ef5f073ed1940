"""All networks of a method at once: every equation, speed and seed in one compiled loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, PRNGKeyArray, PyTree

from gradatim.lab import Session
from gradatim.sciml import (
    AbstractPINN,
    Affine,
    ConvectionDiffusion,
    EulerianPINN,
    LagrangianPINN,
    LossWeights,
    Points,
    Raised,
    collocation_grid,
    curriculum,
    evaluate_windows,
    sequence_to_sequence,
    training_step,
)

from .config import Config
from .truth import HORIZON, PERIOD, Truth

Method = Literal["fixed", "moving", "label"]
WEIGHTS = LossWeights()
LOOKS = 20
"Times at which loss and error are seen; steps are a multiple."
DENSER = 3
"Places and times of the dense check of the residual, for one of the training."
EASY_SPEED, HARD_SPEED = 10.0, 30.0
"Of convection: at which the usual network must be able to learn, and at which it fails and the remedies are tried."


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem and a rate, for all seeds."""

    equation: str
    speed: float
    rate: float
    is_raised: bool = True
    "Whether the mean of the initial state stands beside the network of the state, or is to be learnt."

    @property
    def mean(self) -> float:
        """Of the state."""
        return self.speed if self.equation == "Burgers" else 0.0


def cases(config: Config, method: Method) -> list[Case]:
    """What a method is tried on."""
    if method == "label":
        return [Case("Burgers", config.moving_burgers[0], config.rate)]
    means = config.fixed_burgers if method == "fixed" else config.moving_burgers
    found = [Case("convection", c, config.rate) for c in config.speeds] + [Case("Burgers", c, config.rate) for c in means]
    if method == "fixed":
        found += [Case("convection", c, rate) for c in (EASY_SPEED, HARD_SPEED) for rate in config.other_rates]
    travelling = [c for c in config.moving_burgers if c > 0]
    return found + [Case("Burgers", c, config.rate, is_raised=False) for c in travelling[:1]]


class Trained(NamedTuple):
    """Models along a first axis, case by case and in each seed by seed, and what was found of them."""

    models: AbstractPINN
    data: xr.Dataset


class _State(eqx.Module):
    trained: PyTree
    memory: PyTree
    crossed_steps: Array
    "Before which some paths had crossed."


class _Work(eqx.Module):
    rest: PyTree
    points: Points
    rates: Array
    places: Array
    times: Array
    truth: Array
    "Fields less their means, axes (model, time, place)."
    means: Array
    steps: int = eqx.field(static=True)
    amsgrad: bool = eqx.field(static=True)


def train(config: Config, method: Method, truth: Truth, session: Session, key: PRNGKeyArray) -> Trained:
    """Trains and measures one method on all its cases."""
    todo, seeds = cases(config, method), config.seeds
    fields, displacements = (np.stack(rows) for rows in zip(*(truth.on_grid(case.equation, case.speed) for case in todo), strict=True))
    means = np.array([case.mean for case in todo])
    rates = jnp.asarray(np.repeat([case.rate for case in todo], seeds), jnp.float32)
    state, rest = _begin(config, method, todo, rates, key)
    work = _Work(
        rest=rest,
        points=collocation_grid(config.places, config.times, period=PERIOD, horizon=HORIZON),
        rates=rates,
        places=jnp.asarray(truth.places, jnp.float32),
        times=jnp.asarray(truth.times, jnp.float32),
        truth=jnp.asarray(np.repeat(fields, seeds, axis=0), jnp.float32),
        means=jnp.asarray(np.repeat(means, seeds), jnp.float32),
        steps=config.steps,
        amsgrad=config.amsgrad,
    )
    loop = session.loop(_stretch, state, steps=LOOKS, args=work, every=1, watch=_watch, label=f"{method} coordinates", chunk=1)
    models = eqx.combine(loop.state.trained, rest)
    dense = collocation_grid(DENSER * config.places, DENSER * config.times, period=PERIOD, horizon=HORIZON)
    paths = jnp.asarray(np.repeat(displacements, seeds, axis=0), jnp.float32)
    found = session.once(f"{method} coordinates, measured", _measure, models, work, dense, paths)
    found = found | {"crossed_steps": loop.state.crossed_steps}
    shaped = {name: np.asarray(value, np.float64).reshape(len(todo), seeds, *value.shape[1:]) for name, value in found.items()}
    history = {name: loop.history[name].reshape(-1, len(todo), seeds) for name in ("loss", "error")}
    steps = loop.history["step"] * (config.steps // LOOKS)
    return Trained(models, _dataset(todo, shaped, history, steps, truth, fields, displacements))


def _dataset(
    todo: list[Case],
    found: dict[str, np.ndarray],
    history: dict[str, np.ndarray],
    steps: np.ndarray,
    truth: Truth,
    fields: np.ndarray,
    displacements: np.ndarray,
) -> xr.Dataset:
    variables: dict[str, Any] = {
        "error": (("case", "seed"), 100 * found["error"], "%"),
        "last_error": (("case", "seed"), 100 * found["last_error"], "%"),
        "loss": (("case", "seed"), found["loss"], "1"),
        "residual": (("case", "seed"), found["residual"], "1"),
        "dense_residual": (("case", "seed"), found["dense_residual"], "1"),
        "watched_loss": (("step", "case", "seed"), history["loss"], "1"),
        "watched_error": (("step", "case", "seed"), 100 * history["error"], "%"),
        "field": (("case", "t", "x"), found["field"][:, 0], "1"),
        "truth": (("case", "t", "x"), fields, "1"),
        "equation": (("case",), [case.equation for case in todo], ""),
        "speed": (("case",), [case.speed for case in todo], "1"),
        "rate": (("case",), [case.rate for case in todo], "1"),
        "is_raised": (("case",), [case.is_raised for case in todo], ""),
    }
    if "path_error" in found:
        # As a share of how far the exact paths go, or of a period where they go further: there a phase is what counts.
        extent = np.minimum(np.sqrt((displacements**2).mean(axis=(1, 2))), PERIOD)
        variables |= {
            "path_error": (("case", "seed"), 100 * found["path_error"] / extent[:, None], "%"),
            "least_jacobian": (("case", "seed"), found["least_jacobian"], "1"),
            "crossed": (("case", "seed"), found["crossed"], "1"),
            "crossed_steps": (("case", "seed"), found["crossed_steps"], "steps"),
            "path": (("case", "t", "label"), found["path"][:, 0], "1"),
            "true_path": (("case", "t", "label"), displacements, "1"),
        }
    coordinates = {"step": steps, "t": truth.times, "x": truth.places} | ({"label": truth.places} if "path" in variables else {})
    return xr.Dataset({name: (dims, values, {"units": unit}) for name, (dims, values, unit) in variables.items()}, coordinates)


def _begin(config: Config, method: Method, todo: list[Case], rates: Array, key: PRNGKeyArray) -> tuple[_State, PyTree]:
    """Untrained networks with an optimiser's memory, and the rest of the models."""
    seeds = config.seeds
    is_burgers = np.array([case.equation == "Burgers" for case in todo])
    speeds, means = np.array([case.speed for case in todo]), np.array([case.mean for case in todo])
    offsets = np.where([case.is_raised for case in todo], means, 0.0)
    columns = (np.where(is_burgers, 0.0, speeds), is_burgers.astype(float), means, offsets)
    constant, slope, mean, offset = (jnp.asarray(np.repeat(column, seeds), jnp.float32) for column in columns)
    return _build(config, method, key, constant, slope, mean, offset, rates)


@eqx.filter_jit
def _build(
    config: Config, method: Method, key: PRNGKeyArray, constant: Array, slope: Array, mean: Array, offset: Array, rates: Array
) -> tuple[_State, PyTree]:
    def one(key: Array, constant: Array, slope: Array, mean: Array, offset: Array, rate: Array) -> tuple[_State, PyTree]:
        problem = ConvectionDiffusion(Affine(constant, slope), config.diffusivity, Raised(jnp.sin, mean), PERIOD)
        trained, rest = new_model(config, method, problem, key, offset).split()
        memory = _optimizer(rate, config.steps, amsgrad=config.amsgrad).init(trained)
        return _State(trained, memory, jnp.zeros((), jnp.int32)), rest

    # One key for each seed, whatever the problem.
    keys = jnp.tile(jax.random.split(key, config.seeds), rates.size // config.seeds)
    return eqx.filter_vmap(one)(keys, constant, slope, mean, offset, rates)


def new_model(config: Config, method: Method, problem: ConvectionDiffusion, key: PRNGKeyArray, offset: float | Array = 0.0) -> AbstractPINN:
    """An untrained network."""
    if method == "fixed":
        return EulerianPINN(problem, width=config.width, depth=config.depth_state, offset=offset, key=key)
    return LagrangianPINN(
        problem,
        width=config.width,
        depth_path=config.depth_path,
        depth_state=config.depth_state,
        diffusion="label" if method == "label" else "physical",
        offset=offset,
        key=key,
    )


def _optimizer(rate: Array | float, steps: int, *, amsgrad: bool) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(1.0, steps)
    return (optax.amsgrad if amsgrad else optax.adam)(lambda count: rate * schedule(count))


def _stretch(state: _State, _: Array, work: _Work) -> _State:
    """A part of all steps, one network after another: together, they would not fit into the fast memory, and take twice as long."""

    def one(rest: PyTree, state: _State, rate: Array) -> _State:
        optimizer = _optimizer(rate, work.steps, amsgrad=work.amsgrad)

        def step(_: Array, state: _State) -> _State:
            trained, memory, losses = training_step(state.trained, state.memory, rest, work.points, optimizer, WEIGHTS)
            return _State(trained, memory, state.crossed_steps + (losses.crossed > 0))

        return jax.lax.fori_loop(0, work.steps // LOOKS, step, state)

    return _each(one, work.rest, state, work.rates)


def _each(fn: Callable[..., Any], batch: PyTree, *others: PyTree) -> Any:
    """Calls a function with one model, or part of it, after another, and what goes with it."""
    arrays, fixed = eqx.partition(batch, eqx.is_array)
    return jax.lax.map(lambda given: fn(eqx.combine(given[0], fixed), *given[1:]), (arrays, *others))


def _watch(state: _State, work: _Work) -> dict[str, Array]:
    def one(rest: PyTree, trained: PyTree, truth: Array, mean: Array) -> dict[str, Array]:
        model = eqx.combine(trained, rest)
        field = model.evaluate(work.places, work.times) - mean
        return {"loss": model.loss(work.points, WEIGHTS), "error": _relative(field, truth)}

    return _each(one, work.rest, state.trained, work.truth, work.means)


def _relative(field: Array, truth: Array) -> Array:
    return jnp.linalg.norm(field - truth) / jnp.linalg.norm(truth)


@eqx.filter_jit
def _measure(models: Any, work: _Work, dense: Points, displacements: Array) -> dict[str, Array]:
    def one(model: AbstractPINN, truth: Array, mean: Array, displacement: Array) -> dict[str, Array]:
        field, losses = model.evaluate(work.places, work.times) - mean, model.losses(work.points)
        found = {
            "field": field,
            "error": _relative(field, truth),
            "last_error": _relative(field[-1], truth[-1]),
            "loss": losses.weighted(WEIGHTS),
            "residual": jnp.sqrt(losses.state),
            "dense_residual": jnp.sqrt(model.losses(dense).state),
        }
        if not isinstance(model, LagrangianPINN):
            return found
        X, _ = model.characteristics(work.places, work.times)
        path = X - work.places[None]
        J = model.jacobian(dense.x, dense.t)
        return found | {
            "path": path,
            "path_error": jnp.sqrt(jnp.mean((path - displacement) ** 2)),
            "least_jacobian": J.min(),
            "crossed": jnp.mean(J <= 0),
        }

    return _each(one, models, work.truth, work.means, displacements)


def try_remedies(config: Config, truth: Truth, session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """The usual network at the hard speed, window by window and by a curriculum of speeds: the same points and steps in all."""
    field, _ = truth.on_grid("convection", HARD_SPEED)
    places, times = (jnp.asarray(values, jnp.float32) for values in (truth.places, truth.times))
    keys = jax.random.split(key, config.seeds)
    found = session.once("windows and curriculum", _remedies, config, keys, places, times, jnp.asarray(field, jnp.float32))
    errors = {name: 100 * np.asarray(found[name], np.float64) for name in ("windows", "curriculum")}
    return xr.Dataset(
        {
            "error": (("remedy", "seed"), np.stack(list(errors.values())), {"units": "%"}),
            "field": (("t", "x"), np.asarray(found["field"], np.float64), {"units": "1"}),
        },
        {"remedy": list(errors), "t": truth.times, "x": truth.places},
    )


@eqx.filter_jit
def _remedies(config: Config, keys: Array, places: Array, times: Array, truth: Array) -> dict[str, Array]:
    n_windows, n_steps = config.windows, config.steps // config.windows
    optimizer, length = _optimizer(config.rate, n_steps, amsgrad=config.amsgrad), HORIZON / config.windows
    whole = collocation_grid(config.places, config.times, period=PERIOD, horizon=HORIZON)
    window = collocation_grid(config.places, max(config.times // n_windows, 2), period=PERIOD, horizon=length)

    def problem(speed: Array | float) -> ConvectionDiffusion:
        return ConvectionDiffusion(Affine(speed), config.diffusivity, jnp.sin, PERIOD)

    def one(key: Array) -> dict[str, Array]:
        fit = sequence_to_sequence(
            lambda problem, key: new_model(config, "fixed", problem, key),
            problem(HARD_SPEED), window, optimizer, n_windows=n_windows, n_steps=n_steps, weights=WEIGHTS, key=key,
        )  # fmt: skip
        by_window = evaluate_windows(fit.model, places, times, length=length)
        first = new_model(config, "fixed", problem(HARD_SPEED), key)
        speeds = HARD_SPEED * jnp.arange(1, n_windows + 1) / n_windows
        fit = curriculum(
            first, lambda model, speed: eqx.tree_at(lambda m: m.problem, model, problem(speed)), speeds, whole, optimizer,
            n_steps=n_steps, weights=WEIGHTS,
        )  # fmt: skip
        by_stage = fit.model.evaluate(places, times)
        return {"windows": _relative(by_window, truth), "curriculum": _relative(by_stage, truth), "field": by_window}

    found = jax.lax.map(one, keys)
    return {**found, "field": found["field"][0]}
