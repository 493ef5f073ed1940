"""C4's correlations: long waves sampled after the field is switched on, which settle by diffusion."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import PeriodicGrid, fit_power_law
from gradatim.physics import electrolyte as el

from .config import Correlations

MODES = ((1, 0), (2, 0), (3, 0), (0, 1))
"Three along the field, whose times are compared, and one across it."
GROUPS, FOLDINGS, STEPS = 8, 8.0, 240
"Of the copies; e-foldings of the slowest wave until the end; steps of the sampler."


class _Settling(NamedTuple):
    sampler: el.FluctuationSampler


def _move(state: el.Fluctuations, i: Any, settling: _Settling) -> el.Fluctuations:
    del i
    return jax.vmap(jax.vmap(settling.sampler))(state)


def _look(state: el.Fluctuations, settling: _Settling) -> dict[str, Array]:
    density = settling.sampler.grid.structure_factor(state.spectra[:, :, 0]).mean(1) / 2
    return {"structure": jnp.stack([density[:, x, y] for x, y in MODES], -1)}


@eqx.filter_jit
def _samplers(field: Array, dt: Array, grid: PeriodicGrid) -> el.FluctuationSampler:
    return el.FluctuationSampler(el.DrivenElectrolyte(field=field, dim=2), grid, dt)


@eqx.filter_jit
def _equilibrium(keys: Array, sampler: el.FluctuationSampler) -> el.Fluctuations:
    return jax.vmap(jax.vmap(lambda key: sampler(sampler.initial(key))))(keys)


def run_settling(config: Correlations, session: Session) -> Findings:
    """How long waves of the density take to come half of their way to the correlation that the field gives them."""
    grid = PeriodicGrid((8, 4), config.smallest_box)
    k = 2 * np.pi / config.smallest_box * np.arange(1, 4)
    slowest = 2 * (1 + config.settling_field**2) * k[0] ** 2
    dt = FOLDINGS / slowest / STEPS
    runs = ((0.0, 1e3 / slowest), (config.settling_field, dt))
    still, driven = (_samplers(jnp.asarray(field), jnp.asarray(step), grid) for field, step in runs)
    keys = jax.random.split(jax.random.fold_in(session.key, 4), (GROUPS, -(-config.settling_samples // GROUPS)))
    loop = session.loop(
        _move, _equilibrium(keys, still), steps=STEPS, args=_Settling(driven), every=1, watch=_look, label="correlations settle"
    )
    structure = np.asarray(loop.history["structure"])
    time = dt * np.asarray(loop.history["step"])
    halves = np.stack([[half_way(time, structure[:, group, mode]) for mode in range(3)] for group in range(GROUPS)])
    slopes = np.asarray(fit_power_law(jnp.asarray(k), jnp.asarray(halves)).exponent)
    across = structure[:, :, 3].mean(1)
    session.note(
        f"After a field of {config.settling_field:g} is switched on, waves along it come half of their way in "
        f"{', '.join(f'{value:.3g}' for value in halves.mean(0))} Debye times; the longest wave across it stays within "
        f"{np.abs(across / across[0] - 1).max():.2f} of where it was."
    )
    data = xr.Dataset(
        {
            "structure": (("time", "mode"), structure.mean(1), {"units": "2C₀"}),
            "half_way": (("group", "along"), halves, {"units": "1/(D κ²)"}),
        },
        {
            "time": ("time", time, {"units": "1/(D κ²)"}),
            "mode": [f"{x}, {y}" for x, y in MODES],
            "along": ("along", k, {"units": "κ"}),
        },
        {"field": config.settling_field},
    )
    return Findings({"C4.correlation_time_slope": Measure.over_seeds(slopes)}, xr.DataTree.from_dict({"settling": data}))


def half_way(time: np.ndarray, values: np.ndarray) -> float:
    """When a curve first comes half of the way from its start to the mean of its last sixteenth."""
    last = values[-max(len(values) // 16, 1) :].mean()
    left = (values - last) / (values[0] - last)
    i = int(np.argmax(left < 0.5))
    return float(time[i - 1] + (left[i - 1] - 0.5) / (left[i - 1] - left[i]) * (time[i] - time[i - 1]))
