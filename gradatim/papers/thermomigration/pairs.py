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

    # The same pairs with half and with all of the steps: in the first order in time the error is about what lies between them.
    (end, seen), (_, coarse) = (
        evolve(
            session,
            f"pairs, dt {dt:g}",
            models,
            jnp.asarray(np.stack(starts)),
            time=config.time,
            dt=dt,
            looks=looks,
            watch=_see_pair,
            extra=jnp.asarray(walls),
        )
        for dt, looks in ((config.dt, 40), (2 * config.dt, 20))
    )
    areas = seen["area"]
    late, late_coarse = (_late_growth(which["area"]) for which in (seen, coarse))
    at = {run: i for i, run in enumerate(runs)}
    still, steep = at[config.gap, 0.0], at[config.gap, max(config.gradients)]
    swapped = at[config.gap, -max(config.gradients)]
    shape, shape_coarse = (abs(which["elongation"][-1, steep] - which["elongation"][-1, still]) for which in (seen, coarse))
    measures = {
        "C5.small_growth": _bounded(late[steep, 1], late_coarse[steep, 1]),
        "C5.large_growth": _bounded(late[steep, 0], late_coarse[steep, 0]),
        "C5.isothermal_small_growth": _bounded(late[still, 1], late_coarse[still, 1]),
        "C5.swapped_minus_isothermal": _bounded(*(growth[swapped, 1] - growth[still, 1] for growth in (late, late_coarse))),
        "C3.shape_change": _bounded(shape, shape_coarse),
    }
    gaps = sorted({config.gap, *config.other_gaps})
    thresholds, thresholds_coarse = (
        [sign_change(np.array(config.gradients), np.array([growth[at[gap, g], 1] for g in config.gradients])) for gap in gaps]
        for growth in (late, late_coarse)
    )
    untested = {}
    if None not in (*thresholds, *thresholds_coarse) and len(gaps) > 1:
        measures["C3.threshold_gradient_with_distance"] = Measure.sequence(
            [_bounded(t, other) for t, other in zip(thresholds, thresholds_coarse, strict=True) if t is not None and other is not None]
        )
    else:
        untested["C3.threshold_gradient_with_distance"] = "ripening did not turn around within the gradients of this run"
    estimates = [float(pf.critical_gradient(config.small, config.large, gap, free_energy, heat, 1.0)) for gap in gaps]
    _note_thresholds(session, gaps, thresholds, estimates)
    session.note("pairs: error bounds are those of the time step, from a run with half as many steps; that of the grid is not bounded")
    data = xr.Dataset(
        {
            "area": (("time", "run", "particle"), areas, {"units": "dx^2"}),
            "elongation": (("time", "run"), seen["elongation"], {"units": "1"}),
            "centre": (("time", "run"), seen["centre"], {"units": "dx"}),
            "gap": ("run", [r[0] for r in runs], {"units": "dx"}),
            "gradient": ("run", [r[1] for r in runs], {"units": "T0/dx"}),
            "concentration": (("pair", "x", "y"), np.asarray(end)[[still, steep]].astype(np.float32), {"units": "1"}),
            "threshold": ("distance", [np.nan if t is None else t for t in thresholds], {"units": "T0/dx"}),
            "threshold_estimate": ("distance", estimates, {"units": "T0/dx"}),
        },
        {
            "time": ("time", seen["time"], {"units": "t"}),
            "particle": ["large", "small"],
            "pair": ["no gradient", "steepest gradient"],
            "distance": ("distance", gaps, {"units": "dx"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"pairs": data}), untested)


def _late_growth(areas: np.ndarray) -> np.ndarray:
    """What each particle gains in the second half, of its first area: `(run, particle)`."""
    return (areas[-1] - areas[len(areas) // 2]) / areas[0]


def _bounded(value: float, coarse: float) -> Measure:
    return Measure.exact(float(value), abs(float(value) - float(coarse)))


def _note_thresholds(session: Session, gaps: list[float], thresholds: list[float | None], estimates: list[float]) -> None:
    found = [(gap, t, estimate) for gap, t, estimate in zip(gaps, thresholds, estimates, strict=True) if t is not None]
    if found:
        ratios = ", ".join(f"{t / estimate:.2f} at a gap of {gap:g} dx" for gap, t, estimate in found)
        products = ", ".join(f"{t * gap:.3g}" for gap, t, _ in found)
        session.note(
            f"pairs: gradient at which ripening turns around, over the estimate G ℓ |θ| = (γ/Δc)(1/r - 1/R): {ratios}; times the gap, in "
            f"T₀: {products} (the same for all where it falls as one over the gap)"
        )
