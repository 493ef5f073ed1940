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
    AbstractModelDescent,
    CubicNewton,
    ExactHessian,
    FadingValley,
    FadingWaves,
    FastGradient,
    GradientDescent,
    GradientNormalizedNewton,
    SlackChain,
    SuperUniversalNewton,
    ZeroHessian,
    gradient_normalized_smoothness,
    value_at,
)

from .config import Rates

CHAIN_GAP = 1e-10
"Of the first, to which the chain is followed."
BASELINES: dict[str, type[AbstractModelDescent]] = {
    "cubic Newton": CubicNewton,
    "gradient descent with a doubled constant": GradientDescent,
    "super-universal Newton": SuperUniversalNewton,
    "fast gradient with a doubled constant": FastGradient,
}
"What the scheme is compared with."
SCHEME = "gradient-normalised Newton"
BEGIN = 2.0
"Of the waves: from here on none has a minimum, whatever its phase."
CHAIN, PHASES = 101, 102
"Keys of starts and phases."


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


def slope(values: np.ndarray, first: int) -> float:
    """The slope of log `values` over log k, k from `first`."""
    k = np.arange(1, values.size + 1)
    chosen = (k >= first) & (values > 0)
    return float(np.polyfit(np.log(k[chosen]), np.log(values[chosen]), 1)[0])


def _norms(solver: GradientNormalizedNewton, fn: Any, start: Array, args: Any, steps: int) -> Array:
    """‖∇f‖ after each of so many steps; where a run ends before, that of its end.

    A loop that each of many runs leaves when it ends copies all that it has recorded at every step, a scan nothing.
    """

    def objective(y: Array, args: Any) -> tuple[Array, None]:
        return fn(y, args), None

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        y, state = carry
        y, state, _ = solver.step(objective, y, args, {}, state, frozenset())
        return (y, state), state.gradient_norm

    state = solver.init(objective, start, args, {}, None, None, frozenset())
    return jax.lax.scan(step, (start, state), length=steps)[1]


@eqx.filter_jit
def _descend_waves(rows: Array, phases: Array, hessian: AbstractHessian, steps: int) -> Array:
    def norms(row: Array, phase: Array) -> Array:
        smoothness, size, degree = row
        solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian)
        return _norms(solver, _perturbed_value, jnp.full(1, BEGIN), (FadingWaves(smoothness, phase=phase), size, degree), steps)

    return jax.lax.map(lambda phase: jax.vmap(norms, (0, None))(rows, phase), phases)


@eqx.filter_jit
def _descend_valley(phases: Array, steps: int) -> Array:
    def norms(phase: Array) -> Array:
        solver = GradientNormalizedNewton(0.0, 0.0, hessian=ZeroHessian())
        return _norms(solver, value_at, jnp.array([0.0, 1.0]), FadingValley(phase=phase), steps)

    return jax.vmap(norms)(phases)


@eqx.filter_jit
def _descend_chain(method: optx.AbstractMinimiser, objective: SlackChain, starts: Array, steps: int) -> Array:
    def values(start: Array) -> Array:
        solver: Any = eqx.tree_at(
            lambda solver: solver.value_target, method, CHAIN_GAP * objective(start), is_leaf=lambda leaf: leaf is None
        )
        return optx.minimise(value_at, solver, start, objective, max_steps=steps, throw=False).stats["trace"].value

    return jax.lax.map(values, starts)


def chains(config: Rates, session: Session) -> tuple[dict[str, Measure], xr.Dataset, xr.Dataset]:
    """The gap over iterations on the slack chain, with Hessians of bounded variation and with Lipschitz ones, and beside the baselines."""
    slack = 0.5 / config.chain
    # So near to the origin that all coordinates but the first still sleep.
    shape = (config.repeats, config.chain)
    starts = jax.random.uniform(jax.random.fold_in(session.key, CHAIN), shape, minval=-slack / 2, maxval=slack / 2)
    first = max(config.chain // 10, 1)
    measures, curves, beside = {}, {}, {}
    for part, power in (("bounded_variation_slope", 2), ("lipschitz_hessian_slope", 3)):
        objective = SlackChain(jnp.asarray(slack), power)
        methods = {
            "": GradientNormalizedNewton(0.0, 0.0, hessian=ExactHessian(), record=config.chain_steps),
            **{name: method(0.0, 0.0, record=config.chain_steps) for name, method in BASELINES.items()},
        }
        # While coordinates still wake: later the chain is used up and convergence quadratic.
        fitted = max(config.chain // 2, 3)
        found, beside[power] = {}, []
        for name, method in methods.items():
            label = f"chain, power {power}" + (f", {name}" if name else "")
            gaps = session.once(label, lambda m=method, o=objective, n=fitted: np.asarray(_descend_chain(m, o, starts, n)))
            found[name] = Measure.over_seeds([slope(row[1 : fitted + 1], first) for row in gaps])
            beside[power].append(gaps[0, : fitted + 1])
        whole = session.once(
            f"chain, power {power}, to its end",
            lambda m=methods[""], o=objective: np.asarray(_descend_chain(m, o, starts[:1], config.chain_steps))[0],
        )
        curves[power] = whole[np.isfinite(whole)]
        measures[f"C1.{part}"] = found.pop("")
        others = ", ".join(f"{name} {m.value:.2f} [{m.low:.2f}, {m.high:.2f}]" for name, m in found.items())
        session.note(f"C1: slopes of the gap on the slack chain of power {power}, from the same starts: {others}")
    longest = max(map(len, curves.values()))
    gaps = [np.pad(values, (0, longest - len(values)), constant_values=np.nan) for values in curves.values()]
    data = xr.Dataset({"gap": (("power", "step"), np.stack(gaps), {"units": "1"})}, {"power": list(curves), "step": np.arange(longest)})
    return measures, data, _beside(beside)


def _beside(gaps: dict[int, list[np.ndarray]]) -> xr.Dataset:
    """Gaps from the first start by power, those of the scheme before those of the baselines."""
    values = np.stack([np.stack(rows) for rows in gaps.values()])
    data = xr.Dataset({"gap": (("power", "arm", "step"), values, {"units": "1"})})
    steps = ("step", np.arange(values.shape[-1]), {"units": "iterations"})
    return data.assign_coords(power=list(gaps), arm=[SCHEME, *BASELINES], step=steps)


def waves(config: Rates, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """The smallest gradient over iterations: for each pair of degrees on fading waves, without a Hessian in a fading valley."""
    degrees = np.asarray(config.degrees)
    grid = [(smooth, config.perturbation, approximate) for smooth in degrees for approximate in degrees]
    exact = [(smooth, 0.0, 1.0) for smooth in degrees]
    # A Hessian that is Lipschitz, and exact.
    extra = [(0.5, 0.0, 1.0)]
    rows = jnp.asarray([*grid, *exact, *extra])
    phases = jax.random.uniform(jax.random.fold_in(session.key, PHASES), (config.repeats,), maxval=2 * jnp.pi)
    first = max(config.waves_steps // 10, 1)

    def fitted(paths: Array) -> tuple[np.ndarray, np.ndarray]:
        """Slopes, axes (phase, row), and what is drawn of the first phase."""
        least = np.minimum.accumulate(np.asarray(paths), axis=-1)
        slopes = np.array([[slope(path, first) for path in row] for row in least])
        return slopes, least[0][:, _looks(config.waves_steps) - 1]

    fits, drawn = session.once("waves", lambda: fitted(_descend_waves(rows, phases, Perturbed(), config.waves_steps)))
    blind, drawn_blind = session.once("valley", lambda: fitted(_descend_valley(phases, config.waves_steps)[:, None]))
    n = degrees.size
    inexact, reference = fits[:, : n * n].reshape(-1, n, n), fits[:, n * n : n * n + n]
    # Where theory lets the approximation cost nothing: β ≤ α.
    cells = [(i, j) for i in range(n) for j in range(n) if degrees[j] <= degrees[i]]
    pairs = {(i, j): Measure.paired(inexact[:, i, j], reference[:, i]) for i, j in cells}
    worst = max(pairs, key=lambda cell: float(np.asarray(pairs[cell].value)))
    session.note(
        f"C2: slope with the inexact Hessian minus the exact one's, mean over {config.repeats} phases, worst at α = "
        f"{degrees[worst[0]]:g}, β = {degrees[worst[1]]:g}; mean over all {len(pairs)} pairs β ≤ α "
        f"{np.mean([pair.value for pair in pairs.values()]):.3f}"
    )
    measures = {
        "C2.slope_difference": pairs[worst],
        "C3.exact_slope": Measure.over_seeds(fits[:, -1]),
        "C3.zero_hessian_slope": Measure.over_seeds(blind[:, 0]),
    }
    decay = FadingWaves(0.5).decay
    expected = -decay / (1 + decay * np.maximum(degrees[:, None], degrees[None]))
    data = xr.Dataset(
        {
            "slope": (("phase", "smoothness", "approximation"), inexact, {"units": "1"}),
            "theory": (("smoothness", "approximation"), expected, {"units": "1"}),
            "exact_slope": (("phase", "smoothness"), reference, {"units": "1"}),
            "least_gradient": (("arm", "look"), np.stack([drawn[-1], drawn_blind[0]]), {"units": "1"}),
        },
        {
            "phase": ("phase", np.asarray(phases), {"units": "radians"}),
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
