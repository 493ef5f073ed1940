"""The factor by itself, and descents on functions of one variable from a whole grid of starts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import scale_by_diffgrad

from .arms import OBJECTIVES
from .config import Config

AT_MINIMUM = 0.1
"Distance within which an end point counts as at the global minimum: less than half the way to any other minimum."


def factor(session: Session) -> dict[str, Measure]:
    """C1: a parameter whose gradient was 1 and is 1 + change, against Adam after the same two gradients."""
    with jax.enable_x64(True):
        change = jnp.array([0.0, 0.5, 1.0, 2.0, 4.0, 20.0])

        def last_step(optimizer: Any) -> Any:
            _, state = optimizer.update(jnp.ones_like(change), optimizer.init(change))
            return optimizer.update(1 + change, state)[0]

        ratio = session.once("factor", jax.jit(lambda: last_step(scale_by_diffgrad()) / last_step(optax.scale_by_adam()))).tolist()
    round_off = 1e-12
    exact = [Measure.exact(value, round_off) for value in ratio]
    return {"C1.repeated_gradient": exact[0], "C1.growing_changes": Measure.sequence(exact[:-1]), "C1.large_change": exact[-1]}


def descend(config: Config, session: Session) -> xr.Dataset:
    """Every optimiser from every start at every rate, all at once: the optimisers are element-wise."""
    starts = jnp.linspace(-1.0, 1.0, config.n_starts)
    rates = jnp.asarray(config.rates)[:, None]
    adam, ours = optax.scale_by_adam(b1=0.95, b2=0.999), scale_by_diffgrad(b1=0.95, b2=0.999)
    arms: dict[str, tuple[Any, Any]] = {"adam": (adam, rates), "diffgrad": (ours, rates), "adam_half": (adam, rates / 2)}
    gradients = {name: jax.vmap(jax.vmap(jax.grad(objective))) for name, objective in OBJECTIVES.items()}
    first = jnp.broadcast_to(starts, (len(config.rates), config.n_starts))
    state: dict[str, Any] = {arm: {name: (first, optimizer.init(first)) for name in OBJECTIVES} for arm, (optimizer, _) in arms.items()}
    # Of the first start at the first rate, every step: kept in the state, for a look at each step would take longer than the step.
    state["path"] = jnp.full((len(arms), len(OBJECTIVES), config.descent_steps + 1), starts[0])

    def step(state: Any, i: Any, args: Any) -> Any:
        moved: dict[str, Any] = {}
        for arm, (optimizer, rate) in arms.items():
            moved[arm] = {}
            for name, gradient in gradients.items():
                x, inner = state[arm][name]
                direction, inner = optimizer.update(gradient(x), inner)
                moved[arm][name] = (x - rate * direction, inner)
        now = jnp.stack([jnp.stack([moved[arm][name][0][0, 0] for name in OBJECTIVES]) for arm in arms])
        return moved | {"path": state["path"].at[:, :, i + 1].set(now)}

    loop = session.loop(step, state, steps=config.descent_steps, every=config.descent_steps, label="descent in one dimension")
    end = [[np.asarray(loop.state[arm][name][0]) for name in OBJECTIVES] for arm in arms]
    there = [[abs(x - objective.minima[0]) < AT_MINIMUM for x, objective in zip(row, OBJECTIVES.values(), strict=True)] for row in end]
    return xr.Dataset(
        {
            "x": (("arm", "function", "step"), np.asarray(loop.state["path"])),
            "at_global_minimum": (("arm", "function", "rate", "start"), np.array(there).astype(np.float64)),
        },
        {
            "arm": list(arms),
            "function": list(OBJECTIVES),
            "rate": list(config.rates),
            "start": np.asarray(starts),
            "step": np.arange(config.descent_steps + 1),
        },
    )


def descent_measures(data: xr.Dataset) -> dict[str, Measure]:
    """C2: where the descents end, how far they overshoot, and the share of starts that find the global minimum."""
    measures = {}
    for name in OBJECTIVES:
        x = data["x"].sel(function=name)
        measures[f"C2.end_{name}"] = Measure.exact(float(x.sel(arm="diffgrad").isel(step=-1)), 1e-8)
        farthest = x.max("step")
        measures[f"C2.overshoot_{name}"] = Measure.exact(float(farthest.sel(arm="adam") - farthest.sel(arm="diffgrad")), 1e-8)
    there = data["at_global_minimum"]
    fraction = there.mean(["function", "rate", "start"])
    # Starts are a grid, not a sample: each end of a basin of attraction lies somewhere in its cell, half a cell from the middle.
    ends = abs(there.diff("start")).sum("start") / (2 * (there.sizes["start"] - 1))
    error = ends.mean(["function", "rate"]).sel(arm=["diffgrad", "adam_half"]).sum()
    advantage = fraction.sel(arm="diffgrad") - fraction.sel(arm="adam_half")
    measures["C2.advantage_over_adam_at_half_rate"] = Measure.exact(float(advantage), float(error))
    return measures
