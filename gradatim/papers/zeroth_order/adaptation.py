"""A unit that learns from its noise and a reward, and learners whose parameters wander, by their noise (C5, C6)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session, best_by_others
from gradatim.optim import ornstein_uhlenbeck_adaptation, reward_modulated_hebbian

from .config import Config
from .estimates import N_GROUPS, size_of

N_SAVED = 60
"Times at which the learners are looked at."
UNIT_NOISE = 0.3


def follow_rewards(config: Config, session: Session, key: Any) -> Measure:
    """The mean update of a linear unit with Gaussian noise over σ² times the reward's gradient: the size of the relative error."""
    weights, x, target = jnp.array([[0.5, -1.0, 0.25]]), jnp.array([1.0, 2.0, -0.5]), jnp.array([1.0])

    def reward(y: Any) -> Any:
        return -((y - target) ** 2).sum()

    @jax.jit
    def expected(weights: Any) -> Any:
        """σ² times the gradient, and the reward without noise."""
        return UNIT_NOISE**2 * jax.grad(lambda w: reward(w @ x))(weights), reward(weights @ x)

    exact, expected_reward = expected(weights)

    def mean(key: Any) -> Any:
        noise = UNIT_NOISE * jax.random.normal(key, (config.plasticity_draws // N_GROUPS, 1))
        changes = jax.vmap(lambda xi: reward_modulated_hebbian(x, xi, reward(weights @ x + xi), expected_reward))(noise)
        return jnp.vdot(changes.mean(0), exact) / jnp.vdot(exact, exact)

    run = jax.jit(lambda k: jax.lax.map(mean, jax.random.split(k, N_GROUPS)))
    return size_of(Measure.over_seeds(np.asarray(session.once("reward-modulated unit", run, key)) - 1))


def adapt(config: Config, session: Session, key: Any) -> xr.Dataset:
    """Learners of one weight for the reward -(tanh(uθ) - tanh u)², u = sin 10t, at every level of noise, with the same keys."""

    def reward(t: Any, theta: Any) -> Any:
        u = jnp.sin(10 * t)
        return -((jnp.tanh(u * theta[0]) - jnp.tanh(u)) ** 2)

    def one(noise: Any, key: Any) -> Any:
        return ornstein_uhlenbeck_adaptation(reward, jnp.zeros(1), key=key, duration=config.duration, noise=noise, n_saved=N_SAVED)

    keys = jax.random.split(key, config.learners)
    run = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))

    def found(levels: Any, keys: Any) -> Any:
        result = jax.device_get(run(levels, keys))
        return result.times[0, 0], result.means[..., 0], result.parameters[:, :3, :, 0], result.cumulative_reward

    times, means, parameters, rewards = session.once("learners by noise", found, jnp.asarray(config.noise_levels), keys)
    return xr.Dataset(
        {
            "mean": (("noise", "learner", "time"), np.asarray(means), {"units": "1"}),
            "parameter": (("noise", "shown", "time"), np.asarray(parameters), {"units": "1"}),
            "reward": (("noise", "learner", "time"), np.asarray(rewards), {"units": "1"}),
        },
        {"noise": list(config.noise_levels), "time": np.asarray(times)},
    )


def adaptation_measures(learners: xr.Dataset, session: Session) -> dict[str, Measure]:
    """What moves without noise, and the return at the best level inside the grid, for each learner the best of the others, over that
    at the grid's better end.
    """
    silent = learners.sel(noise=0.0)["mean"]
    moved = float(abs(silent - silent.isel(time=0)).max())
    returns = learners["reward"].isel(time=-1)
    averages = returns.mean("learner").values
    inside = 1 + int(averages[1:-1].argmax())
    best = best_by_others(returns.isel(noise=slice(1, -1)), "noise", over="learner", maximise=True)
    end = 0 if averages[0] >= averages[-1] else -1
    levels = learners.noise.values
    session.note("return by noise: " + ", ".join(f"{level:g}: {value:.1f}" for level, value in zip(levels, averages, strict=True)))
    last = learners["mean"].isel(time=-1, noise=inside)
    end_point = f"{float(last.mean()):.3f} ± {float(last.std()):.3f}"
    session.note(f"at noise {levels[inside]:g} the mean parameter ends at {end_point} over learners; the target is 1")
    gain = Measure.paired(best.values, returns.isel(noise=end).values)
    return {"C6.silent_change": Measure.exact(moved), "C6.interior_gain": gain}
