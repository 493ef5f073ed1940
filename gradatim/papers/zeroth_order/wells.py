"""Two wells of equal depth and curvatures 1 and 25, and where noisy descents spend their time (C7)."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session
from gradatim.optim import random_directions, spsa

from .config import Config

CURVATURES = (1.0, 25.0)
RATE = 0.002
"Short enough that the sharp well is widened by 1 % only."
N_GROUPS = 10
BURN_IN = 0.2
BOLTZMANN = 5 / 6
"√25 to 1: the sharp well is the flat one, mirrored and five times narrower, so that its weight is a fifth at any temperature."


def two_wells(x: Any) -> Any:
    """½ (x + 1)² left of 0, ½ · 25 (x - ⅕)² right of it: minima of 0 at -1 and ⅕, a barrier of ½ between."""
    flat, sharp = CURVATURES
    return jnp.where(x < 0, flat * (x + 1) ** 2, sharp * (x - 1 / math.sqrt(sharp)) ** 2) / 2


def noisy_loss(x: Any, slope: Any) -> Any:
    """The loss of one batch: a random slope is added, the same for all evaluations of the batch."""
    return two_wells(x) + slope * x


def walk(config: Config, session: Session, key: Any) -> xr.Dataset:
    """The share of time in the flat well: half of the walkers start in either."""
    # Noise of variance s² in the slope heats a descent of rate η to η s²/2.
    deviation = math.sqrt(2 * config.temperature / RATE)
    two_points = spsa(noisy_loss, radius=1e-2)
    arms = {
        "spsa": (two_points, deviation),
        "gaussian": (random_directions(noisy_loss, radius=1e-2), deviation / math.sqrt(3)),
        "sgd": (lambda x, slope, *, key: jax.value_and_grad(noisy_loss)(x, slope), deviation),
        "silent": (two_points, 0.0),
    }
    n = config.walkers // N_GROUPS * N_GROUPS
    burn_in = int(BURN_IN * config.well_steps)
    starts = jnp.asarray(np.where(np.arange(n) % 2 == 0, -1.0, 1 / math.sqrt(CURVATURES[1])))

    @functools.cache
    def step_by(value_and_grad: Any) -> Any:
        def step(state: Any, i: Any, args: Any) -> Any:
            x, flat = state
            key, scale = args
            noise, probes = jax.random.split(jax.random.fold_in(key, i))
            slopes = scale * jax.random.normal(noise, x.shape)
            estimate = jax.vmap(lambda x, slope, probe: value_and_grad(x, slope, key=probe)[1])(x, slopes, jax.random.split(probes, x.size))
            x = x - RATE * estimate
            return x, flat + ((x < 0) & (i >= burn_in))

        return step

    shares = []
    for (name, (value_and_grad, scale)), k in zip(arms.items(), jax.random.split(key, len(arms)), strict=True):
        args = (k, jnp.asarray(scale, starts.dtype))
        begin = (starts, jnp.zeros(n))
        loop = session.loop(
            step_by(value_and_grad), begin, steps=config.well_steps, args=args, every=config.well_steps, label=f"wells {name}"
        )
        shares.append(np.asarray(loop.state[1]).reshape(N_GROUPS, -1).mean(1) / (config.well_steps - burn_in))
    return xr.Dataset({"flat_share": (("arm", "group"), np.stack(shares), {"units": "1"})}, {"arm": list(arms)})


def share_measures(wells: xr.Dataset, session: Session) -> Measure:
    """The share of time that two-point descents with noisy losses spend in the flat well."""
    means = ", ".join(f"{arm} {float(wells.flat_share.sel(arm=arm).mean()):.3f}" for arm in wells.arm.values)
    session.note(f"share of time in the flat well, from one half: {means}; Boltzmann weights give {BOLTZMANN:.3f}")
    return Measure.over_seeds(wells.flat_share.sel(arm="spsa").values)
