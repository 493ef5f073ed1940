"""Many precipitates of random sizes and places."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session, host_generator
from gradatim.lab.measures import student_factor
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


def _share_of_mean(part: np.ndarray, whole: np.ndarray) -> Measure | None:
    """The mean of `part` over the size of the mean of `whole`, both from the same seeds, with the error of either (Fieller's interval).

    It holds every share ρ for which the mean of part - ρ whole cannot be told from zero by Student's t. None where it has no end, for
    the mean of `whole` itself cannot be told from zero.
    """
    n = len(part)
    whole = whole * np.sign(whole.mean())
    if not whole.mean() > 0:
        return None
    share = part.mean() / whole.mean()
    (v_part, covariance), (_, v_whole) = np.cov(part, whole) * student_factor(n) ** 2 / (n * whole.mean() ** 2)
    if v_whole >= 1:
        return None
    centre = (share - covariance) / (1 - v_whole)
    half = np.sqrt(max(centre**2 - (share**2 - v_part) / (1 - v_whole), 0))
    method = f"Fieller's interval over {n} seeds"
    return Measure(share, min(centre - half, share), max(centre + half, share), method, tuple(map(float, part / whole.mean())))


def _judge_shifts(without: np.ndarray, within: np.ndarray) -> tuple[dict[str, Measure], dict[str, str]]:
    """C6 from the shift of every arrangement without and with the gradient."""
    measures = {"C6.shift": Measure.over_seeds(within), "C6.shift_over_isothermal": Measure.paired(within, without)}
    share = _share_of_mean(without, within)
    if share is None:
        return measures, {"C6.isothermal_shift_share": "the mean shift in the gradient cannot be told from none"}
    return {**measures, "C6.isothermal_shift_share": share}, {}


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
    measures, untested = _judge_shifts(without, within)
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
