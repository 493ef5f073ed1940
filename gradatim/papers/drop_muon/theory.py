"""C1, C2 and C5: costs, descent and rate where the constants of smoothness are known, and optax's Muon beside every layer."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.nets import layer_indices
from gradatim.numerics import dual_norm, lmo, sharp
from gradatim.optim import (
    LayerSampler,
    drop_muon,
    every_layer,
    optimal_marginals,
    shifting_starts,
    starts_from_marginals,
    total_cost,
    uniform_starts,
)
from gradatim.papers.drop_muon.config import Theory

# Constants of smoothness, cost of each layer's backward pass, of the forward pass.
LAYERED = ((1.0, 4.0, 2.0), (1.0, 1.0, 1.0), 0.0)
FIRST_LARGEST = ((3.0, 1.0, 2.0), (1.0, 1.0, 1.0), 1.0)
SCHEMES = {
    "uniform": uniform_starts(3),
    "shift, early": starts_from_marginals(shifting_starts(3).marginals(0.0)),
    "shift, late": starts_from_marginals(shifting_starts(3).marginals(1.0)),
    "nearly full": starts_from_marginals([0.9, 0.95, 1.0]),
}
SHAPE = (4, 3)
# Σ cosh: ‖∇f(y) - ∇f(x)‖ ≤ (1 + ‖∇f(x)‖) (e^h - 1) at distance h, which is at most L₀ + L₁ ‖∇f(x)‖ times h for L₀ = L₁ = 1/ln 2, h ≤ 1/L₁.
COSH = 1 / math.log(2)
ROUND_OFF = 1e-9
"Of sums of a dozen entries in double precision, over a loss of at least `SOLVED`."
SOLVED = 1e-6


def cost_measures(config: Theory, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """C1: measured costs to one accuracy over that of full updates, and those of the theory."""
    problems = {"layered": LAYERED, "first largest": FIRST_LARGEST}
    rows: dict[str, np.ndarray] = {}
    predicted: dict[str, float] = {}
    for p, (problem, (constants, costs, forward)) in enumerate(problems.items()):
        best = starts_from_marginals(optimal_marginals(constants, costs, forward))
        full = np.asarray(_measured_cost(config, session, every_layer(3), constants, costs, forward, 10 * p))
        for k, (name, sampler) in enumerate({"optimal": best, **SCHEMES}.items()):
            cost = _measured_cost(config, session, sampler, constants, costs, forward, 10 * p + k + 1)
            rows[f"{problem}, {name}"] = np.asarray(cost) / full
            whole = total_cost([1.0] * 3, constants, costs, forward)
            predicted[f"{problem}, {name}"] = total_cost(sampler.marginals(), constants, costs, forward) / whole
    cheapest = np.min([rows[f"first largest, {name}"] for name in SCHEMES], axis=0)
    measures = {
        "C1.optimal_over_full_cost": Measure.over_seeds(rows["layered, optimal"]),
        "C1.measured_over_predicted": Measure.over_seeds(rows["layered, uniform"] / predicted["layered, uniform"]),
        "C1.cost_when_first_is_largest": Measure.over_seeds(cheapest),
    }
    data = xr.Dataset(
        {
            "measured": (("scheme", "group"), np.stack(list(rows.values())), {"units": "1"}),
            "predicted": ("scheme", np.array(list(predicted.values())), {"units": "1"}),
        },
        {"scheme": list(rows)},
    )
    return measures, data


def _measured_cost(
    config: Theory, session: Session, sampler: LayerSampler, constants: Any, costs: Any, forward: float, fold: int
) -> np.ndarray:
    """For each group of chains: mean cost of a step, times the steps until the mean squared gradient is at one level.

    That number of steps is the sum of squared gradients over all steps divided by the level, largest when the whole distance to the
    minimum lies in the slowest layer; it lies in each in turn.
    """
    smoothness = jnp.asarray(constants)
    step_costs = jnp.asarray([forward + sum(costs[variant.index(True) :]) for variant in sampler.variants])
    active = jnp.asarray(sampler.variants)

    keys = jax.random.split(jax.random.fold_in(session.key, fold), config.n_groups)

    def groups() -> np.ndarray:
        return np.stack([_chains(key, sampler, active, smoothness, step_costs, config.n_chains, config.cost_steps) for key in keys])

    return session.once(f"cost {fold}", groups)


# Numbers are arguments: samplers of the same sets share one program.
@eqx.filter_jit
def _chains(key: Any, sampler: LayerSampler, active: Any, smoothness: Any, step_costs: Any, n_chains: int, n_steps: int) -> Any:
    """The cost of one group of chains."""
    drawn = sampler.draw(key, n_chains * n_steps).reshape(n_steps, n_chains)

    def step(carry: Any, variant: Any) -> Any:
        # Layer j of case j is one unit of loss away from its minimum.
        x, total = carry
        gradient = smoothness[None, :, None, None] * x
        total = total + dual_norm(gradient, "frobenius") ** 2
        moved = x - sharp(gradient, "frobenius") / smoothness[None, :, None, None]
        return (jnp.where(active[variant][:, :, None, None], moved, x), total), step_costs[variant].mean()

    start = jnp.broadcast_to(jnp.sqrt(2 / smoothness / 12)[None, :, None, None], (n_chains, 3, *SHAPE))
    (_, total), cost = jax.lax.scan(step, (start, jnp.zeros((n_chains, 3))), drawn)
    # The layers of a separable problem do not see each other, so that the cases are the columns.
    return total.mean(0).max() * cost.mean()


def descent_measures(config: Theory, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """C2, exact gradients: by how much the mean loss after a step exceeds its bound, relative to the loss."""
    rank = min(SHAPE)
    constants = jnp.array([1.0, 4.0, 2.0])
    quadratic = lambda x: (constants * (x**2).sum((1, 2))).sum() / 2  # noqa: E731
    waves = lambda x: (jnp.cosh(x).sum((1, 2)) * constants).sum()  # noqa: E731
    # ‖Z‖_F² ≤ rank ‖Z‖₂², so that both constants grow with the rank under the spectral norm. cosh scaled by c: L₀ = c COSH.
    problems: dict[str, tuple[Any, str, Any, Any]] = {
        "quadratic, Frobenius": (quadratic, "frobenius", constants, 0.0),
        "quadratic, spectral": (quadratic, "spectral", rank * constants, 0.0),
        "cosh, Frobenius": (waves, "frobenius", COSH * constants, COSH),
        "cosh, spectral": (waves, "spectral", rank * COSH * constants, rank * COSH),
    }
    sampler = uniform_starts(3)
    sets = jnp.asarray(sampler.variants)[:, :, None, None]
    curves = {}
    for k, (name, (loss, norm, smooth_0, smooth_1)) in enumerate(problems.items()):

        def step(state: Any, i: Any, args: Any, loss: Any = loss, norm: str = norm, l0: Any = smooth_0, l1: Any = smooth_1) -> Any:
            x, _ = state
            gradient = jax.grad(loss)(x)
            dual = dual_norm(gradient, norm, method="svd")
            moved = x - sharp(gradient, norm, method="svd") / (l0 + l1 * dual)[:, None, None]
            after = jax.vmap(lambda active: loss(jnp.where(active, moved, x)))(sets)
            bound = loss(x) - (sampler.marginals() * dual**2 / (2 * (l0 + l1 * dual))).sum()
            drawn = sampler.draw(jax.random.fold_in(args, i), 1)[0]
            # A layer that is solved leaves the quadratic no loss to compare with.
            is_solved = loss(x) < SOLVED
            excess = (sampler.probabilities() @ after - bound) / jnp.where(is_solved, 1.0, loss(x))
            return jnp.where(sets[drawn], moved, x), jnp.where(is_solved, 0.0, excess)

        key = jax.random.fold_in(session.key, 100 + k)
        state = (2 * jax.random.normal(key, (3, *SHAPE)), jnp.zeros(()))
        watch = lambda state, _: {"excess": state[1]}  # noqa: E731
        loop = session.loop(step, state, args=key, steps=config.descent_steps, every=1, watch=watch, label=f"descent, {name}")
        curves[name] = loop.history["excess"][1:]
    excess = np.stack(list(curves.values()))
    data = xr.Dataset(
        {"excess": (("problem", "step"), excess, {"units": "1"})}, {"problem": list(curves), "step": 1 + np.arange(excess.shape[1])}
    )
    return {"C2.descent_violation": Measure.exact(float(excess.max()), ROUND_OFF)}, data


def rate_measures(config: Theory, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """C2, noisy gradients: steps of length K^(-3/4), a new gradient's weight K^(-1/2); the exponent of the mean dual norm in K."""
    constants = jnp.array([1.0, 4.0, 2.0])[None, :, None, None]
    arms = {"uniform": uniform_starts(3), "full": every_layer(3)}
    means = np.zeros((len(arms), len(config.horizons), config.n_seeds))
    # Two arms of one seed begin alike.
    start = jax.random.normal(jax.random.fold_in(session.key, 200), (config.n_seeds, 3, *SHAPE)) / 2
    for a, (arm, sampler) in enumerate(arms.items()):
        sets = jnp.asarray(sampler.variants)[:, :, None, None]

        # What depends on the horizon is an argument: all horizons share one program.
        def step(state: Any, i: Any, args: Any, sampler: Any = sampler, sets: Any = sets) -> Any:
            x, momentum, total = state
            key, r, w, rest = args
            noise, draw = jax.random.split(jax.random.fold_in(key, i))
            gradient = constants * x
            noisy = gradient + config.noise * jax.random.normal(noise, x.shape)
            active = sets[sampler.draw(draw, len(x))]
            momentum = jnp.where(active, jnp.where(i == 0, noisy, rest * momentum + w * noisy), momentum)
            moved = x + lmo(momentum, r, "spectral", coefficients="polar_express")
            total = total + dual_norm(gradient, "spectral", coefficients="polar_express").sum(-1)
            return jnp.where(active, moved, x), momentum, total

        for h, horizon in enumerate(config.horizons):
            radius, weight = horizon**-0.75, horizon**-0.5
            state = (start, jnp.zeros_like(start), jnp.zeros(config.n_seeds))
            args = (jax.random.fold_in(session.key, 201 + h), *map(jnp.float32, (radius, weight, 1 - weight)))
            loop = session.loop(step, state, args=args, steps=horizon, every=horizon, label=f"rate, {arm}, {horizon} steps")
            means[a, h] = np.asarray(loop.state[2]) / horizon
    logs = np.log(means)
    slopes = np.stack([np.polyfit(np.log(config.horizons), arm, 1)[0] for arm in logs])
    data = xr.Dataset(
        {
            "dual_norm": (("arm", "horizon", "seed"), means, {"units": "1"}),
            "slope": (("arm", "seed"), slopes, {"units": "1"}),
        },
        {"arm": list(arms), "horizon": list(config.horizons)},
    )
    uniform, full = slopes
    return {"C2.stochastic_rate_slope": Measure.over_seeds(uniform), "C2.slope_over_full": Measure.paired(uniform, full)}, data


def trajectory_measures(session: Session) -> dict[str, Measure]:
    """C5: every step from the first layer on, beside optax's Muon: largest relative difference of the weights, 20 steps of a network."""
    net = eqx.filter_jit(lambda key: eqx.nn.MLP(6, 3, 8, 2, activation=jnp.tanh, key=key))(session.key)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    x, y = jax.random.normal(session.key, (40, 6)), jnp.arange(40) % 3
    layers = layer_indices(params, params.layers)

    def walk(optimizer: Any) -> Any:
        def loss(params: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(eqx.combine(params, static))(x), y).mean()

        def step(carry: Any, _: Any) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, length=20)[0][0])(params)

    ours = walk(drop_muon(0.05, layers, nesterov=True, weight_decay=0.1))
    theirs = walk(optax.contrib.muon(0.05, weight_decay=0.1))
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)]
    largest = max(float(abs(b).max()) for _, b in pairs)
    differences = [float(abs(a - b).max()) for a, b in pairs]
    return {"C5.trajectory_difference": Measure.exact(max(differences) / largest)}
