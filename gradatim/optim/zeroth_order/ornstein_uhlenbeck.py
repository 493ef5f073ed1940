"""Ornstein–Uhlenbeck adaptation: learning from the noise of the parameters and a global reward (arXiv:2410.13563)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .probes import check_count, check_positive


class Adaptation(eqx.Module):
    """A run of Ornstein–Uhlenbeck adaptation, at the times it was looked at."""

    times: Float[Array, " times"]
    parameters: Float[Array, "times n"]
    "θ, which wanders."
    means: Float[Array, "times n"]
    "μ, which learns."
    reward_average: Float[Array, " times"]
    "r̄, what was to be expected."
    cumulative_reward: Float[Array, " times"]
    "∫ r dt."


def ornstein_uhlenbeck_adaptation(
    reward: Callable[[Any, Any], Any],
    parameters: Float[Array, " n"],
    *,
    key: PRNGKeyArray,
    duration: float,
    dt: float = 0.05,
    noise: Any = 0.5,
    reversion_rate: Any = 1.0,
    learning_rate: Any = 1.0,
    reward_rate: Any = 1.0,
    first_reward_average: Any = 1.0,
    n_saved: int = 100,
    solver: diffrax.AbstractSolver | None = None,
) -> Adaptation:
    """Parameters wander about a mean; where the reward beats what was expected, the mean follows them.

        dθ = λ (μ - θ) dt + σ dW,    dμ = η (r - r̄)(θ - μ) dt,    dr̄ = ε (r - r̄) dt,    r = r(t, θ)

    Without noise θ = μ, and nothing is learnt; with too much, the reward is lost to the wandering. The optimum that is learnt is that
    of the reward smoothed by θ's variance σ²/(2λ), not of the reward itself.

    **Arguments:** `reward(t, θ)`: a scalar; `parameters`: the first θ and μ; `duration` and `dt` > 0, the step being fixed: at least ten
    for the fastest period of the reward; `noise` σ ≥ 0; `reversion_rate` λ, `learning_rate` η, `reward_rate` ε, each ≥ 0;
    `first_reward_average`: r̄ at the start (1 in the authors' code, more than rewards that are at most 0 can be: a transient); `n_saved`:
    times looked at after the start; `solver`: by default `diffrax.EulerHeun()`, as the authors have it; with additive noise
    `diffrax.Euler()` is the same.

    **Returns:** an [`Adaptation`][gradatim.optim.Adaptation]. vmap over keys for many runs. Derivatives by
    `jax.jvp` and `jax.jacfwd` only: the path is not kept.

    **Raises:** `ValueError` for a number out of its range or a duration of less than a step.

    >>> found = ornstein_uhlenbeck_adaptation(
    ...     lambda t, x: -((x[0] - 1) ** 2), jnp.zeros(1), key=jax.random.key(0), duration=200.0, noise=0.3, first_reward_average=-1.0)
    >>> print(f"{found.means[-1, 0]:.0f}")
    1

    Source: García Fernández, Ahmad and van Gerven, *Ornstein–Uhlenbeck Adaptation as a Mechanism for Learning in Brains and Machines*.
    """
    for name, value in {"duration": duration, "dt": dt}.items():
        check_positive(name, value)
    rates = {"noise": noise, "reversion_rate": reversion_rate, "learning_rate": learning_rate, "reward_rate": reward_rate}
    for name, value in rates.items():
        if is_known(value) and not 0 <= float(value) < math.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    check_count("n_saved", n_saved)
    if duration < dt:
        raise ValueError(f"duration must be at least one step of {dt}, got {duration}")
    n_steps = round(duration / dt)
    dtype = parameters.dtype

    def drift(t: Any, state: Any, args: Any) -> Any:
        theta, mean, average, _ = state
        surprise = (r := _scalar(reward(t, theta), dtype)) - average
        return reversion_rate * (mean - theta), learning_rate * surprise * (theta - mean), reward_rate * surprise, r

    def diffusion(t: Any, state: Any, args: Any) -> Any:
        theta, mean, average, total = state
        still = (jnp.zeros_like(mean), jnp.zeros_like(average), jnp.zeros_like(total))
        return lx.FunctionLinearOperator(lambda w: (noise * w, *still), jax.eval_shape(lambda: theta))

    # Fixed steps ask for each increment once, so that nothing of the path need be kept.
    path = diffrax.UnsafeBrownianPath(jax.ShapeDtypeStruct(parameters.shape, dtype), key, levy_area=diffrax.BrownianIncrement)
    terms = diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(diffusion, path))
    start = (parameters, parameters, jnp.asarray(first_reward_average, dtype), jnp.zeros((), dtype))
    end = n_steps * dt
    solution = diffrax.diffeqsolve(
        terms,
        diffrax.EulerHeun() if solver is None else solver,
        t0=0.0,
        t1=end,
        dt0=dt,
        y0=start,
        saveat=diffrax.SaveAt(ts=jnp.linspace(0.0, end, n_saved + 1, dtype=dtype)),
        adjoint=diffrax.DirectAdjoint(),
        max_steps=n_steps + 2,
    )
    times, states = solution.ts, solution.ys
    assert times is not None
    assert states is not None
    return Adaptation(times, *states)


def _scalar(value: Any, dtype: Any) -> Float[Array, ""]:
    value = jnp.asarray(value, dtype)
    if value.shape:
        raise ValueError(f"reward must return a scalar, got shape {value.shape}")
    return value
