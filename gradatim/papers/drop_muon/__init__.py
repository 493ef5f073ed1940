"""Drop-Muon (arXiv:2510.02239): does it pay to update fewer layers, by the step and by the clock?"""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session

from .config import ARMS as ARMS
from .config import SCALES as SCALES
from .config import Config as Config
from .config import Images as Images
from .config import Theory as Theory
from .figures import draw as draw
from .theory import cost_measures, descent_measures, rate_measures, trajectory_measures
from .training import JUDGING, Race, choose_rates, compiled_operations, name_of, race_measures, samplers, seconds_to_target, time_steps

PRECISION = "single"


def memory(config: Config) -> int:
    """Bytes: the images, five maps of each convolution for a batch or those looked at, and the chains of the theory."""
    images = config.images
    side = {"digits": 8}.get(images.dataset, 28)
    maps, grid = 0, side
    for width in images.widths:
        grid = -(-grid // images.stride)
        maps += 5 * 4 * grid * grid * width * max(images.batch_size, images.n_looked_at)
    chains = 4 * 8 * config.theory.n_chains * (36 + config.theory.cost_steps)
    return 8 * (images.n_train + images.n_test) * side * side + maps + chains


def run(config: Config, session: Session) -> Findings:
    """Measures costs, descent and rates on layered problems, and races the arms on images."""
    images = config.images
    trees: dict[str, xr.Dataset] = {}
    measures, trees["cost"] = cost_measures(config.theory, session)
    # In double precision the equality that the bound is on a quadratic shows to round-off.
    with jax.enable_x64(True):
        descent, trees["descent"] = descent_measures(config.theory, session)
        measures |= descent | trajectory_measures(session)
    rates, trees["rate"] = rate_measures(config.theory, session)
    measures |= rates
    race = Race.load(images, session)
    best, tuning = choose_rates(race, session)
    if tuning is not None:
        trees["tuning"] = tuning
    chosen = {arm: (best[arm],) for arm in images.arms}
    judged = race.race(session, chosen, fold=JUDGING, n_seeds=images.n_seeds, steps=images.steps, every=images.every, label="race")
    seconds = time_steps(race, session)
    reached = seconds_to_target(images, judged, seconds)
    timed, untested = race_measures(images, reached, seconds)
    operations = compiled_operations(race, session)
    variants = [" ".join(name_of(active) for active in sampler.variants) for sampler in samplers(images).values()]
    trees["race"] = judged.drop_vars("rate").assign(
        seconds_to_target=reached, best_rate=("arm", [best[arm] for arm in images.arms]), variants=("arm", variants)
    )
    trees["steps"] = xr.Dataset({"seconds": seconds, "operations": operations})
    for arm in images.arms:
        final = judged.sel(arm=arm).isel(step=-1)
        there = ", ".join(_when(clock) for clock in reached.sel(arm=arm))
        accuracy = ", ".join(f"{name} accuracy {float(final[key].mean()):.2f} %" for key, name in (("train", "training"), ("test", "test")))
        session.note(f"{arm} at rate {best[arm]:.3g}: {accuracy}, {there}")
    relative = (operations / operations[0]).values
    session.note("compiled operations of a step by its start, over those of Muon's: " + ", ".join(f"{r:.3f}" for r in relative))
    slopes = trees["rate"]["slope"].mean("seed")
    session.note("exponent of the mean dual norm: " + ", ".join(f"{arm} {float(slopes.sel(arm=arm)):.3f}" for arm in slopes.arm.values))
    return Findings(measures | timed, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)


def _when(clock: xr.DataArray) -> str:
    target = f"{float(clock.target):.4g} %"
    return f"{float(clock.mean()):.3g} s to {target}" if np.isfinite(clock).all() else f"not all at {target}"
