"""The regret on online losses, random and of the counter-example to Adam's theorem."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import scale_by_diffgrad

from .config import Config

N_GROUPS, GROUP = 8, 32
"Sequences of random losses: the logarithm is taken of means over a group, since a single regret may be negative."


def play(config: Config, session: Session) -> xr.Dataset:
    """The regret of Adam and diffGrad against the best fixed point of [-1, 1], at rounds evenly spaced on a logarithmic scale.

    Column 0 is the periodic problem, C x every third round and -x else, for which b₁ = 0 and b₂ = 1 / (1 + C²); the others are
    random ones, |x - z| with z = ±1.
    """
    rounds = np.unique(np.geomspace(100, config.online_rounds, 31).round().astype(int))
    big = config.counterexample
    make: dict[str, Any] = {"adam": optax.scale_by_adam, "diffgrad": scale_by_diffgrad}
    arms = {name: (transformation(0.0, 1 / (1 + big**2)), transformation()) for name, transformation in make.items()}
    n = N_GROUPS * GROUP

    def begin(arm: Any) -> Any:
        return [(jnp.zeros(m), optimizer.init(jnp.zeros(m)), jnp.zeros(m)) for optimizer, m in zip(arm, (1, n), strict=True)]

    def step(state: Any, i: Any, args: Any) -> Any:
        key, marks = args
        now = i + 1
        periodic = jnp.where(now % 3 == 1, big, -1.0)
        slopes = (jnp.full(1, periodic), -jax.random.rademacher(jax.random.fold_in(key, i), (n,), jnp.float64))
        total = state["total"] + jnp.concatenate(slopes)
        moved: dict[str, Any] = {"total": total, "regret": {}}
        for name, arm in arms.items():
            moved[name] = []
            for optimizer, slope, (x, inner, paid) in zip(arm, slopes, state[name], strict=True):
                paid = paid + slope * x
                direction, inner = optimizer.update(slope, inner)
                x = jnp.clip(x - config.online_rate / jnp.sqrt(now) * direction, -1.0, 1.0)
                moved[name].append((x, inner, paid))
            # All losses are lines (|x - z| = 1 - z x), so the best fixed point is an end of the domain.
            regret = jnp.concatenate([paid for _, _, paid in moved[name]]) + abs(total)
            moved["regret"][name] = jnp.where((marks == now)[:, None], regret[None], state["regret"][name])
        return moved

    state = {name: begin(arm) for name, arm in arms.items()}
    state |= {"total": jnp.zeros(1 + n), "regret": {name: jnp.zeros((len(rounds), 1 + n)) for name in arms}}
    args = (jax.random.fold_in(session.key, 1), jnp.asarray(rounds))
    every = max(config.online_rounds // 20, 1)
    loop = session.loop(step, state, steps=config.online_rounds, args=args, every=every, label="online losses")
    regret = np.stack([np.asarray(loop.state["regret"][name]) for name in arms])
    groups = regret[..., 1:].reshape(len(arms), len(rounds), N_GROUPS, GROUP).mean(-1)
    return xr.Dataset(
        {"random_losses": (("arm", "round", "group"), groups), "periodic_losses": (("arm", "round"), regret[..., 0])},
        {"arm": list(arms), "round": rounds},
    )


def regret_measures(data: xr.Dataset) -> dict[str, Measure]:
    """C3: the exponents with which the regret grows."""
    ours = data.sel(arm="diffgrad")
    logs = np.log(np.maximum(ours["random_losses"].values, np.finfo(float).tiny))
    slopes = np.polyfit(np.log(ours["round"].values), logs, 1)[0]
    periodic = np.maximum(ours["periodic_losses"].values, np.finfo(float).tiny)
    slope, error = _slope(np.log(ours["round"].values), np.log(periodic))
    return {"C3.random_losses": Measure.over_seeds(slopes), "C3.periodic_losses": Measure.exact(slope, error)}


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The slope of a straight line and twice its standard error."""
    coefficients, covariance = np.polyfit(x, y, 1, cov=True)
    return float(coefficients[0]), 2 * float(np.sqrt(covariance[0, 0]))
