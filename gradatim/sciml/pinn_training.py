"""Training of networks that solve a problem: at once, window by window in time, or with a speed that grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .convection import ConvectionDiffusion, Sampled
from .pinn import DEFAULT_WEIGHTS, AbstractPINN, Losses, LossWeights, Points

Model = TypeVar("Model", bound=AbstractPINN)


class Fit(NamedTuple):
    """A trained model, or one for each window or stage along a first axis, and the loss before every step."""

    model: Any
    loss: Float[Array, "*stages steps"]


def training_step(
    trained: PyTree, memory: optax.OptState, rest: PyTree, points: Points, optimizer: optax.GradientTransformation, weights: LossWeights
) -> tuple[PyTree, optax.OptState, Losses]:
    """One step of an optimiser on the two parts of a model that `AbstractPINN.split` makes, over all
    points; and the parts of the loss before it. `jax.vmap` over both parts and the memory trains a batch, of other problems too.
    """

    def both(trained: PyTree) -> tuple[Float[Array, ""], Losses]:
        losses = eqx.combine(trained, rest).losses(points)
        return losses.weighted(weights), losses

    def loss(trained: PyTree) -> Float[Array, ""]:
        return both(trained)[0]

    (value, losses), gradient = jax.value_and_grad(both, has_aux=True)(trained)
    # What a line search asks for, which the others pass over.
    extended = optax.with_extra_args_support(optimizer)
    updates, memory = extended.update(gradient, memory, trained, value=value, grad=gradient, value_fn=loss)
    return optax.apply_updates(trained, updates), memory, losses


@eqx.filter_jit
def fit_pinn(
    model: AbstractPINN, points: Points, optimizer: optax.GradientTransformation, *, n_steps: int, weights: LossWeights = DEFAULT_WEIGHTS
) -> Fit:
    """`n_steps` steps over all points, in one compiled loop; the problem stays as it is.

    Any optimiser of optax will do, `optax.lbfgs()` included: Adam first and L-BFGS after it are two calls.

    **Raises:** `ValueError` for fewer than one step.

    >>> from gradatim.sciml import EulerianPINN, collocation_grid
    >>> problem = ConvectionDiffusion(1.0, 0.01, jnp.sin, 6.283185307179586)
    >>> model = EulerianPINN(problem, width=10, depth=1, key=jax.random.key(0))
    >>> fit = fit_pinn(model, collocation_grid(8, 6, period=problem.period, horizon=1.0), optax.adam(1e-2), n_steps=100)
    >>> print(bool(fit.loss[-1] < fit.loss[0] / 10))
    True
    """
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    trained, rest = model.split()

    def step(carry: tuple[PyTree, optax.OptState], _: None) -> tuple[tuple[PyTree, optax.OptState], Array]:
        trained, memory, losses = training_step(*carry, rest, points, optimizer, weights)
        return (trained, memory), losses.weighted(weights)

    (trained, _), losses = jax.lax.scan(step, (trained, optimizer.init(trained)), length=n_steps)
    return Fit(eqx.combine(trained, rest), losses)


def sequence_to_sequence(
    make: Callable[[ConvectionDiffusion, PRNGKeyArray], AbstractPINN],
    problem: ConvectionDiffusion,
    points: Points,
    optimizer: optax.GradientTransformation,
    *,
    n_windows: int,
    n_steps: int,
    weights: LossWeights = DEFAULT_WEIGHTS,
    n_samples: int = 63,
    key: PRNGKeyArray,
) -> Fit:
    """One network after another, each for a window of time, with what the last one says at its end for an initial state
    (Krishnapriyan et al., arXiv:2109.01050).

    **Arguments:** `make(problem, key)`: a new model; `points`: of one window, with t from 0 to the window's length, its largest t;
    `n_steps`: in each window; `n_samples`: odd, places at which a state is handed on. Coefficients must not depend on time.

    **Returns:** models and losses with the windows along the first axis; [`evaluate_windows`][gradatim.sciml.evaluate_windows] reads them.

    **Raises:** `ValueError` for fewer than one window.

    >>> from gradatim.sciml import EulerianPINN, collocation_grid
    >>> problem = ConvectionDiffusion(1.0, 0.01, jnp.sin, 6.283185307179586)
    >>> window = collocation_grid(8, 4, period=problem.period, horizon=0.5)
    >>> make = lambda problem, key: EulerianPINN(problem, width=4, depth=1, key=key)
    >>> options = {"n_windows": 2, "n_steps": 30, "key": jax.random.key(0)}
    >>> eqx.filter_eval_shape(lambda: sequence_to_sequence(make, problem, window, optax.adam(1e-2), **options).loss).shape
    (2, 30)
    """
    if n_windows < 1:
        raise ValueError(f"n_windows must be at least 1, got {n_windows}")
    places, end = problem.period * jnp.arange(n_samples) / n_samples, points.t.max()

    def window(samples: Array, key: PRNGKeyArray) -> tuple[Array, tuple[PyTree, Array]]:
        here = ConvectionDiffusion(problem.speed, problem.diffusivity, Sampled(samples, problem.period), problem.period)
        fit = fit_pinn(make(here, key), points, optimizer, n_steps=n_steps, weights=weights)
        return fit.model.evaluate(places, end[None])[0], (eqx.filter(fit.model, eqx.is_array), fit.loss)

    first = jax.vmap(problem.initial)(places)
    _, (arrays, losses) = jax.lax.scan(window, first, jax.random.split(key, n_windows))
    here = ConvectionDiffusion(problem.speed, problem.diffusivity, Sampled(first, problem.period), problem.period)
    return Fit(eqx.combine(arrays, eqx.filter(eqx.filter_eval_shape(make, here, key), lambda leaf: not _is_array(leaf))), losses)


def evaluate_windows(models: AbstractPINN, x: Float[Array, " nx"], t: Float[Array, " nt"], *, length: float) -> Float[Array, "nt nx"]:
    """The state on a grid, each time from the window of that `length` in which it lies.

    >>> from gradatim.sciml import EulerianPINN, collocation_grid
    >>> problem = ConvectionDiffusion(1.0, 0.01, jnp.sin, 6.283185307179586)
    >>> models = eqx.filter_vmap(lambda key: EulerianPINN(problem, width=4, depth=1, key=key))(jax.random.split(jax.random.key(0), 2))
    >>> evaluate_windows(models, jnp.linspace(0, 1, 3), jnp.linspace(0, 1, 5), length=0.5).shape
    (5, 3)
    """
    n_windows = models.networks()[0].biases[0].shape[0]
    number = jnp.clip((t / length).astype(int), 0, n_windows - 1)
    values = eqx.filter_vmap(lambda model, start: model.evaluate(x, t - start))(models, length * jnp.arange(n_windows, dtype=t.dtype))
    return values[number, jnp.arange(t.size)]


def curriculum(
    model: Model,
    with_speed: Callable[[Model, Float[Array, ""]], Model],
    speeds: Float[Array, " stages"],
    points: Points,
    optimizer: optax.GradientTransformation,
    *,
    n_steps: int,
    weights: LossWeights = DEFAULT_WEIGHTS,
) -> Fit:
    """Speeds one after another, each from the weights that the last one left (Krishnapriyan et al., arXiv:2109.01050).

    **Arguments:** `with_speed(model, speed)`: the model for a problem of that speed; `speeds`: the last is the one that is meant;
    `n_steps`: for each, with a new memory of the optimiser.

    **Returns:** the last model, and losses with the stages along the first axis.

    >>> from gradatim.sciml import EulerianPINN, collocation_grid
    >>> problem = ConvectionDiffusion(1.0, 0.01, jnp.sin, 6.283185307179586)
    >>> model = EulerianPINN(problem, width=4, depth=1, key=jax.random.key(0))
    >>> with_speed = lambda model, c: eqx.tree_at(lambda m: m.problem, model, ConvectionDiffusion(c, 0.01, jnp.sin, problem.period))
    >>> points, speeds = collocation_grid(8, 4, period=problem.period, horizon=1.0), jnp.array([1.0, 5.0, 10.0])
    >>> eqx.filter_eval_shape(lambda: curriculum(model, with_speed, speeds, points, optax.adam(1e-2), n_steps=30).loss).shape
    (3, 30)
    """

    def stage(trained: PyTree, speed: Array) -> tuple[PyTree, Array]:
        fit = fit_pinn(eqx.combine(trained, with_speed(model, speed).split()[1]), points, optimizer, n_steps=n_steps, weights=weights)
        return fit.model.split()[0], fit.loss

    trained, losses = jax.lax.scan(stage, model.split()[0], speeds)
    return Fit(eqx.combine(trained, with_speed(model, speeds[-1]).split()[1]), losses)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)
