"""Rates on worst-case functions, over degrees of smoothness and of approximation, and the radius of an inexact Hessian (claims 1 to 3)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session
from gradatim.optim import (
    AbstractHessian,
    ExactHessian,
    FadingValley,
    FadingWaves,
    GradientNormalizedNewton,
    SlackChain,
    ZeroHessian,
    gradient_normalized_smoothness,
    value_at,
)

from .config import Rates

CHAIN_GAP = 1e-10
"Of the first, to which the chain is followed."


class Perturbed(AbstractHessian):
    """f″ + C₂ |f′|^(1-β) in one variable: an error of degree β; `args` is (objective, C₂, β)."""

    def __call__(self, fn: Any, y: Any, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        objective, size, degree = args
        gradient = jax.grad(objective)(y)
        matrix = jax.hessian(objective)(y) + size * (jnp.abs(gradient) ** (1 - degree))[:, None]
        return lx.MatrixLinearOperator(matrix, lx.symmetric_tag)


def _perturbed_value(y: Array, args: Any) -> Array:
    return args[0](y)


def slope(values: np.ndarray, first: int) -> tuple[float, float]:
    """The slope of log `values` over log k, k from `first`, and 1.96 standard errors of it (of a line: what is curved has more)."""
    k = np.arange(1, values.size + 1)
    chosen = (k >= first) & (values > 0)
    (line, _), covariance = np.polyfit(np.log(k[chosen]), np.log(values[chosen]), 1, cov=True)
    return float(line), 1.96 * float(np.sqrt(covariance[0, 0]))


@eqx.filter_jit
def _descend_waves(smoothness: Array, size: Array, degree: Array, hessian: AbstractHessian, steps: int) -> Array:
    def norms(smoothness: Array, size: Array, degree: Array) -> Array:
        solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian, record=steps)
        args = (FadingWaves(smoothness), size, degree)
        solution = optx.minimise(_perturbed_value, solver, jnp.zeros(1), args, max_steps=steps, throw=False)
        return solution.stats["trace"].gradient_norm

    return jax.vmap(norms)(smoothness, size, degree)


@eqx.filter_jit
def _descend_valley(steps: int) -> Array:
    solver = GradientNormalizedNewton(0.0, 0.0, hessian=ZeroHessian(), record=steps)
    solution = optx.minimise(value_at, solver, jnp.array([0.0, 1.0]), FadingValley(), max_steps=steps, throw=False)
    return solution.stats["trace"].gradient_norm


def _descend_chain(config: Rates, power: int) -> np.ndarray:
    objective = SlackChain(jnp.asarray(0.5 / config.chain), power)
    start = jnp.zeros(config.chain)
    target = CHAIN_GAP * eqx.filter_jit(value_at)(start, objective)
    solver = GradientNormalizedNewton(0.0, 0.0, hessian=ExactHessian(), value_target=target, record=config.chain_steps)
    solution = optx.minimise(value_at, solver, start, objective, max_steps=config.chain_steps, throw=False)
    values = np.asarray(solution.stats["trace"].value)
    return values[np.isfinite(values)]


def chains(config: Rates, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """The gap over iterations on the slack chain, with Hessians of bounded variation and with Lipschitz ones."""
    measures, curves = {}, {}
    for part, power in (("bounded_variation_slope", 2), ("lipschitz_hessian_slope", 3)):
        values = session.once(f"chain, power {power}", _descend_chain, config, power)
        # While coordinates still wake: later the chain is used up and convergence quadratic.
        fitted, error = slope(values[1 : max(config.chain // 2, 3) + 1], max(config.chain // 10, 1))
        measures[f"C1.{part}"] = Measure.exact(fitted, error)
        curves[power] = values
    longest = max(map(len, curves.values()))
    gaps = [np.pad(values, (0, longest - len(values)), constant_values=np.nan) for values in curves.values()]
    data = xr.Dataset({"gap": (("power", "step"), np.stack(gaps), {"units": "1"})}, {"power": list(curves), "step": np.arange(longest)})
    return measures, data


def waves(config: Rates, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """The smallest gradient over iterations: for each pair of degrees on fading waves, without a Hessian in a fading valley."""
    degrees = np.asarray(config.degrees)
    grid = [(smooth, config.perturbation, approximate) for smooth in degrees for approximate in degrees]
    exact = [(smooth, 0.0, 1.0) for smooth in degrees]
    # A Hessian that is Lipschitz, and exact.
    extra = [(0.5, 0.0, 1.0)]
    rows = jnp.asarray([*grid, *exact, *extra])
    paths = session.once("waves", lambda: np.asarray(_descend_waves(rows[:, 0], rows[:, 1], rows[:, 2], Perturbed(), config.waves_steps)))
    blind = session.once("valley", lambda: np.asarray(_descend_valley(config.waves_steps))[None])
    paths = np.concatenate([paths, blind])
    least = np.fmin.accumulate(paths, axis=1)[:, 1:]
    fits = np.asarray([slope(path, max(config.waves_steps // 10, 1)) for path in least])
    n = degrees.size
    inexact, reference = fits[: n * n].reshape(n, n, 2), fits[n * n : n * n + n]
    # Where theory lets the approximation cost nothing: β ≤ α.
    excess = {(i, j): inexact[i, j] - [reference[i, 0], -reference[i, 1]] for i in range(n) for j in range(n) if degrees[j] <= degrees[i]}
    worst = max(excess.values(), key=lambda pair: pair[0])
    measures = {
        "C2.slope_difference": Measure.exact(float(worst[0]), float(worst[1])),
        "C3.exact_slope": Measure.exact(*map(float, fits[-2])),
        "C3.zero_hessian_slope": Measure.exact(*map(float, fits[-1])),
    }
    decay = FadingWaves(0.5).decay
    expected = -decay / (1 + decay * np.maximum(degrees[:, None], degrees[None]))
    data = xr.Dataset(
        {
            "slope": (("smoothness", "approximation"), inexact[..., 0], {"units": "1"}),
            "theory": (("smoothness", "approximation"), expected, {"units": "1"}),
            "exact_slope": ("smoothness", reference[:, 0], {"units": "1"}),
            "least_gradient": (("arm", "look"), least[-2:][:, _looks(config.waves_steps) - 1], {"units": "1"}),
        },
        {
            "smoothness": ("smoothness", degrees, {"units": "1"}),
            "approximation": ("approximation", degrees, {"units": "1"}),
            "arm": ["exact Hessian", "no Hessian"],
            "look": ("look", _looks(config.waves_steps), {"units": "iterations"}),
        },
    )
    return measures, data


def _looks(steps: int) -> np.ndarray:
    return np.unique(np.geomspace(1, steps, 300).astype(int))


FUNCTIONS = {
    "exp": jnp.exp,
    "cosh": jnp.cosh,
    "fourth power": lambda y: y**4 / 4,
    "softplus": jax.nn.softplus,
    "Huber's, smooth": lambda y: jnp.sqrt(1 + y**2),
}


@eqx.filter_jit
def _radius_ratios(sizes: Array, points: Array) -> tuple[Array, Array, Array]:
    """The radius of H₁ + e over the harmonic sum of the radius of H₁ and of |f′|/|e|, for each function: value, low and high."""
    # One program, in which a number chooses the function.
    return jax.lax.map(lambda which: _ratios_of(which, sizes, points), jnp.arange(len(FUNCTIONS)))


def _ratios_of(which: Array, sizes: Array, points: Array) -> tuple[Array, Array, Array]:
    def function(y: Array) -> Array:
        return jax.lax.switch(which, list(FUNCTIONS.values()), y)

    def value(y: Array, error: Array) -> Array:
        del error
        return function(y[0])

    class Shifted(AbstractHessian):
        def __call__(self, fn: Any, y: Array, args: Any) -> lx.AbstractLinearOperator:
            return lx.MatrixLinearOperator(jax.hessian(lambda y: function(y[0]))(y) + args, lx.symmetric_tag)

    def one(size: Array, point: Array) -> tuple[Array, Array, Array]:
        y, gradient = point[None], jnp.abs(jax.grad(function)(point))
        # Without the region O, which depends on the Hessian: one condition for both.
        settings: Any = {"hessian": Shifted(), "max_radius": 1e3, "restrict": False}
        exact = gradient_normalized_smoothness(value, y, jnp.zeros(()), **settings)
        inexact = gradient_normalized_smoothness(value, y, size, **settings)
        low, high = (1 / (1 / radius + jnp.abs(size) / gradient) for radius in (exact.low, exact.high))
        return jnp.sqrt(inexact.low * inexact.high / (low * high)), inexact.low / high, inexact.high / low

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(sizes, points)


def radius(session: Session) -> tuple[Measure, xr.Dataset]:
    """The harmonic bound, in one variable, over functions, points and errors of either sign."""
    sizes, points = jnp.asarray([-3.0, -1.0, -0.3, 0.3, 1.0, 3.0]), jnp.asarray([-1.7, -0.4, 0.9, 2.3])
    value, low, high = session.once("radii", lambda: np.stack(_radius_ratios(sizes, points)))
    at = np.unravel_index(np.argmin(value), value.shape)
    session.note(f"the radius of an inexact Hessian over its bound: {value.min():.3f} to {value.max():.3f}")
    data = xr.Dataset(
        {"ratio": (("function", "error", "point"), value, {"units": "1"})},
        {"function": list(FUNCTIONS), "error": np.asarray(sizes), "point": np.asarray(points)},
    )
    return Measure(float(value[at]), float(low[at]), float(high[at]), "bounds of a search on a grid of lengths"), data
