"""Steps that minimise a model, the slope of a smoothed modulus, moments of estimates, and steps to a gap by dimension (C1, C2)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import forward_gradient, gaussian_smoothing, random_directions, taylor_step

from .config import Config

N_GROUPS = 16
"Independent groups of draws, over which a mean has its interval."
DIMENSION = 20
"Of the gradient whose estimates' second moment is measured."
POINT, RADIUS = 0.3, 0.5
"Where |x| is differentiated, and the radius that smooths it."
GAP = 0.01
"Share of the first squared distance at which a descent has arrived."
GRADIENT_RATE = 1 / 3
"Of the gradient descent beside: the rate that a zeroth-order step would have in one dimension."


def model_steps(session: Session) -> dict[str, Measure]:
    """The largest relative distance of a step to the minimiser of its model, a quadratic solved apart."""

    def loss(x: Any) -> Any:
        return jnp.log(jnp.exp(jnp.arange(1.0, 7.0) * x / 3).sum()) + (x**2).sum() / 4

    rate = 0.3
    # As many directions as dimensions, all at right angles: no estimate is left in it, whatever the key.
    estimator = forward_gradient(loss, n_probes=6, distribution="orthogonal")

    @jax.jit
    def steps(x: Any, key: Any) -> Any:
        """The gradient, and each step with the matrix of its model."""
        along = (
            (taylor_step(loss, x, order=1, rate=rate), jnp.eye(6) / rate),
            (taylor_step(loss, x, order=2), jax.hessian(loss)(x)),
            (taylor_step(loss, x, order=1, rate=rate, value_and_grad=estimator, key=key), jnp.eye(6) / rate),
        )
        return jax.grad(loss)(x), along

    def compare() -> Any:
        g, along = jax.tree.map(np.asarray, steps(jnp.linspace(-1.0, 1.0, 6), jax.random.key(0)))
        distances = []
        for step, matrix in along:
            best = -np.linalg.solve(matrix, g)
            distances.append(np.linalg.norm(step - best) / np.linalg.norm(best))
        return max(distances)

    return {"C1.first_order_difference": Measure.exact(float(session.once("steps of a model", compare)))}


def smoothed_slope(config: Config, session: Session, key: Any) -> Measure:
    """The mean estimate for |x|, against erf(x/(h√2)): the size of the relative error."""
    exact = math.erf(POINT / (RADIUS * math.sqrt(2)))
    estimator = gaussian_smoothing(jnp.abs, radius=RADIUS)

    def mean(key: Any) -> Any:
        keys = jax.random.split(key, config.moment_draws // N_GROUPS)
        return jax.vmap(lambda k: estimator(jnp.asarray(POINT), key=k)[1])(keys).mean()

    means = session.once("slope of a smoothed modulus", jax.jit(lambda k: jax.lax.map(mean, jax.random.split(k, N_GROUPS))), key)
    return size_of(Measure.over_seeds(np.asarray(means) / exact - 1))


def draw_moments(config: Config, session: Session, key: Any) -> tuple[xr.Dataset, Measure]:
    """Second moments in 20 dimensions by distribution, and the mean cosine to the gradient by dimension."""
    n = config.moment_draws // N_GROUPS

    def moments(distribution: Any) -> Any:
        estimator = random_directions(lambda x: x[0], radius=1.0, distribution=distribution)

        def moment(key: Any) -> Any:
            return jax.vmap(lambda k: (estimator(jnp.zeros(DIMENSION), key=k)[1] ** 2).sum())(jax.random.split(key, n)).mean()

        return jax.jit(lambda k: jax.lax.map(moment, jax.random.split(k, N_GROUPS)))

    def cosines(d: int) -> Any:
        estimator = random_directions(lambda x: x[0], radius=1.0)

        def cosine(key: Any) -> Any:
            def one(k: Any) -> Any:
                estimate = estimator(jnp.zeros(d), key=k)[1]
                return estimate[0] / jnp.linalg.norm(estimate)

            return jax.vmap(one)(jax.random.split(key, max(n // d, 100))).mean()

        return jax.jit(lambda k: jax.lax.map(cosine, jax.random.split(k, N_GROUPS)))

    distributions = ("gaussian", "rademacher", "sphere")
    keys = jax.random.split(key, 3 + len(config.dimensions))
    second = [np.asarray(session.once(f"moment {name}", moments(name), k)) for name, k in zip(distributions, keys[:3], strict=True)]
    angles = [np.asarray(session.once(f"cosine {d}", cosines(d), k)) for d, k in zip(config.dimensions, keys[3:], strict=True)]
    data = xr.Dataset(
        {
            "second_moment": (("distribution", "group"), np.stack(second), {"units": "1"}),
            "cosine": (("dimension", "group"), np.stack(angles), {"units": "1"}),
        },
        {"distribution": list(distributions), "dimension": list(config.dimensions)},
    )
    means = ", ".join(f"{name} {values.mean():.2f}" for name, values in zip(distributions, second, strict=True))
    session.note(f"second moment over the squared gradient in {DIMENSION} dimensions: {means}; theory 22, 20, 20")
    return data, Measure.over_seeds(second[0])


def count_steps(config: Config, session: Session, key: Any) -> xr.Dataset:
    """Steps until a group's mean squared distance to the minimum has fallen to a hundredth, f = ‖x‖²/2, step 1/(d + 2)."""
    estimator = random_directions(lambda x: x @ x / 2, radius=0.03)
    counts, plain = [], []
    for d, k in zip(config.dimensions, jax.random.split(key, len(config.dimensions)), strict=True):
        n = max(config.descents // d, 2)
        steps = math.ceil(-1.6 * math.log(GAP) * (d + 2))

        def step(state: Any, i: Any, key: Any, d: int = d, n: int = n) -> Any:
            x, arrived = state
            keys = jax.random.split(jax.random.fold_in(key, i), N_GROUPS * n).reshape(N_GROUPS, n)
            x = x - jax.vmap(jax.vmap(lambda x, probe: estimator(x, key=probe)[1]))(x, keys) / (d + 2)
            there = (x**2).sum(-1).mean(-1) <= GAP
            return x, jnp.where(there & (arrived < 0), i + 1, arrived)

        state = (jnp.full((N_GROUPS, n, d), 1 / math.sqrt(d)), jnp.full(N_GROUPS, -1, jnp.int32))
        end = session.loop(step, state, steps=steps, args=k, every=steps, label=f"descend in {d} dimensions").state
        arrived = np.asarray(end[1], float)
        counts.append(np.where(arrived < 0, np.nan, arrived))
        plain.append(math.ceil(math.log(GAP) / (2 * math.log(1 - GRADIENT_RATE))))
    return xr.Dataset(
        {
            "steps": (("dimension", "group"), np.stack(counts), {"units": "steps"}),
            "gradient_descent": (("dimension",), np.asarray(plain, float), {"units": "steps"}),
        },
        {"dimension": list(config.dimensions)},
    )


def step_slopes(descents: xr.Dataset, session: Session) -> Measure:
    """The log-log slope of the steps over d + 2, over groups."""
    x = np.log(descents.dimension.values + 2)
    slopes = np.polyfit(x, np.log(descents.steps.values), 1)[0]
    means = zip(descents.dimension.values, descents.steps.mean("group").values, strict=True)
    session.note(
        "steps to a hundredth of the squared distance: "
        + ", ".join(f"{d} dimensions {steps:.1f}" for d, steps in means)
        + f"; gradient descent at rate {GRADIENT_RATE:.2f}: {int(descents.gradient_descent[0])} in any"
    )
    return Measure.over_seeds(slopes)


def size_of(measure: Measure) -> Measure:
    """The interval of the absolute value of a measured error."""
    value, low, high = measure.intervals()[0]
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return Measure(abs(value), least, max(abs(low), abs(high)), measure.method, measure.samples)
