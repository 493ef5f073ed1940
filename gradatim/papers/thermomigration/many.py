"""Many precipitates of random sizes and places."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.physics import phase_field as pf

from .config import Many
from .simulation import DELTA, disc_field, each, evolve, positions, ramp


@each
def _see_many(c: Array, model: pf.Thermotransport, keep: Array) -> dict[str, Array]:
    density = pf.indicator(model.free_energy.phase(c, model.temperature))
    return {
        "centre": pf.centre_of_mass(density, positions(model)),
        "area": density.sum(),
        "field": jnp.where(keep, c, 0).astype(jnp.float32),
    }


def _arrangement(config: Many, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii of discs that do not touch, by random sequential addition."""
    nx, ny = config.shape
    centres, radii = np.zeros((0, 2)), np.zeros(0)
    for radius in np.sort(rng.uniform(min(config.radii), max(config.radii), config.particles))[::-1]:
        for _ in range(2000):
            centre = rng.uniform((radius + 4, 0), (nx - radius - 4, ny))
            apart = centres - centre
            apart[:, 1] = (apart[:, 1] + ny / 2) % ny - ny / 2
            if (np.hypot(*apart.T) > radii + radius + 2 * DELTA).all():
                centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
                break
        else:
            raise ValueError(f"many.particles must fit into many.shape, got {config.particles} in {config.shape}: lower it")
    return centres, radii


def run_many(config: Many, session: Session) -> Findings:
    """C6: each arrangement without and with the gradient."""
    nx, ny = config.shape
    free_energy, heat = pf.QuarticTwoPhase(), pf.HeatOfTransport(config.heat_of_transport)
    rng = host_generator(session.key)
    fields = []
    for _ in range(config.seeds):
        centres, radii = _arrangement(config, rng)
        phase = np.sum([disc_field((nx, ny), (float(cx), float(cy)), float(r)) for (cx, cy), r in zip(centres, radii, strict=True)], 0)
        fields.append(0.1 + 0.8 * phase + float(pf.gibbs_thomson(float(radii.mean()), free_energy, 1.0)))
    gradients = (0.0, config.gradient)
    models = [
        pf.Thermotransport((nx, ny), free_energy, jnp.asarray(ramp(nx, g)[:, None]), heat_of_transport=heat)
        for g in gradients
        for _ in range(config.seeds)
    ]
    # Snapshots of the first arrangement alone: all of them would fill the record.
    first = jnp.asarray([i % config.seeds == 0 for i in range(2 * config.seeds)])

    _, seen = evolve(
        session,
        "many particles",
        models,
        jnp.asarray(np.stack(fields * 2)),
        time=config.time,
        dt=config.dt,
        looks=20,
        watch=_see_many,
        extra=first,
    )
    snapshots = seen["field"][:, :: config.seeds]
    counts, mean_radii = np.zeros(snapshots.shape[:2], int), np.zeros(snapshots.shape[:2])
    for index in np.ndindex(*counts.shape):
        found = pf.label_particles((snapshots[index] - 0.1) / 0.8)
        counts[index] = found.areas.size
        mean_radii[index] = np.sqrt(found.areas / np.pi).mean() if found.areas.size else 0
    centre = seen["centre"].reshape(-1, 2, config.seeds)
    without, within = centre[-1] - centre[0]
    measures = {"C6.shift": Measure.over_seeds(within), "C6.shift_over_isothermal": Measure.paired(within, without)}
    untested = {}
    if within.mean() != 0:
        measures["C6.isothermal_shift_share"] = Measure.over_seeds(without / abs(within.mean()))
    else:
        untested["C6.isothermal_shift_share"] = "nothing moved in the gradient"
    # Four fields tell the story; all of them would fill the record.
    kept = np.linspace(0, len(snapshots) - 1, 4).round().astype(int)
    data = xr.Dataset(
        {
            "centre": (("time", "gradient", "seed"), centre, {"units": "dx"}),
            "concentration": (("snapshot", "gradient", "x", "y"), snapshots[kept], {"units": "1"}),
            "particles": (("time", "gradient"), counts, {"units": "1"}),
            "mean_radius": (("time", "gradient"), mean_radii, {"units": "dx"}),
        },
        {
            "time": ("time", seen["time"], {"units": "t"}),
            "snapshot": ("snapshot", seen["time"][kept], {"units": "t"}),
            "gradient": ("gradient", list(gradients), {"units": "T0/dx"}),
            "x": ("x", np.arange(nx) + 0.5, {"units": "dx"}),
            "y": ("y", np.arange(ny) + 0.5, {"units": "dx"}),
        },
    )
    return Findings(measures, xr.DataTree.from_dict({"many": data}), untested)
