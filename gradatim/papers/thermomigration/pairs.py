"""A large and a small precipitate beside each other: which one grows."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import phase_field as pf

from .config import Pairs
from .simulation import disc_field, each, evolve, positions, ramp, sign_change


@each
def _see_pair(c: Array, model: pf.Thermotransport, wall: Array) -> dict[str, Array]:
    phase = model.free_energy.phase(c, model.temperature)
    density, left = pf.indicator(phase), (positions(model) < wall)[:, None]
    areas = jnp.stack([jnp.where(left, density, 0).sum(), jnp.where(left, 0, density).sum()])
    return {
        "area": areas,
        "elongation": pf.elongation(jnp.where(left, phase, 0)),
        "centre": pf.centre_of_mass(density, positions(model)),
    }


def run_pairs(config: Pairs, session: Session) -> Findings:
    """C3 and C5: pairs at growing gradients, both ways around, and at other distances."""
    nx, ny = config.shape
    free_energy, heat = pf.QuarticTwoPhase(), pf.HeatOfTransport(config.heat_of_transport)
    runs = [(config.gap, g) for g in (*config.gradients, *(-g for g in config.gradients if g > 0))]
    runs += [(gap, g) for gap in config.other_gaps for g in config.gradients]
    level = sum(float(pf.gibbs_thomson(r, free_energy, 1.0)) for r in (config.small, config.large)) / 2
    models, starts, walls = [], [], []
    for gap, gradient in runs:
        length = 2 * config.large + gap + 2 * config.small
        first = (nx - length) / 2 + config.large
        second = first + config.large + gap + config.small
        T = jnp.asarray(ramp(nx, gradient)[:, None])
        phase = disc_field((nx, ny), (first, ny / 2), config.large) + disc_field((nx, ny), (second, ny / 2), config.small)
        models.append(pf.Thermotransport((nx, ny), free_energy, T, heat_of_transport=heat))
        starts.append(0.1 + 0.8 * phase + level)
        walls.append(first + config.large + gap / 2)

    end, seen = evolve(
        session,
        "pairs",
        models,
        jnp.asarray(np.stack(starts)),
        time=config.time,
        dt=config.dt,
        looks=40,
        watch=_see_pair,
        extra=jnp.asarray(walls),
    )
    areas = seen["area"]
    half = len(areas) // 2
    late = (areas[-1] - areas[half]) / areas[0]
    at = {run: i for i, run in enumerate(runs)}
    still, steep = at[config.gap, 0.0], at[config.gap, max(config.gradients)]
    swapped = at[config.gap, -max(config.gradients)]
    measures = {
        "C5.small_growth": Measure.exact(late[steep, 1]),
        "C5.large_growth": Measure.exact(late[steep, 0]),
        "C5.isothermal_small_growth": Measure.exact(late[still, 1]),
        "C5.swapped_minus_isothermal": Measure.exact(late[swapped, 1] - late[still, 1]),
        "C3.shape_change": Measure.exact(abs(seen["elongation"][-1, steep] - seen["elongation"][-1, still])),
    }
    gaps = sorted({config.gap, *config.other_gaps})
    thresholds = [sign_change(np.array(config.gradients), np.array([late[at[gap, g], 1] for g in config.gradients])) for gap in gaps]
    untested = {}
    if all(threshold is not None for threshold in thresholds) and len(gaps) > 1:
        measures["C3.threshold_gradient_with_distance"] = Measure.sequence([Measure.exact(t) for t in thresholds if t is not None])
    else:
        untested["C3.threshold_gradient_with_distance"] = "ripening did not turn around within the gradients of this run"
    data = xr.Dataset(
        {
            "area": (("time", "run", "particle"), areas, {"units": "dx^2"}),
            "elongation": (("time", "run"), seen["elongation"], {"units": "1"}),
            "centre": (("time", "run"), seen["centre"], {"units": "dx"}),
            "gap": ("run", [r[0] for r in runs], {"units": "dx"}),
            "gradient": ("run", [r[1] for r in runs], {"units": "T0/dx"}),
            "concentration": (("pair", "x", "y"), np.asarray(end)[[still, steep]].astype(np.float32), {"units": "1"}),
            "threshold": ("distance", [np.nan if t is None else t for t in thresholds], {"units": "T0/dx"}),
        },
        {
            "time": ("time", seen["time"], {"units": "t"}),
            "particle": ["large", "small"],
            "pair": ["no gradient", "steepest gradient"],
            "distance": ("distance", gaps, {"units": "dx"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"pairs": data}), untested)
