"""diffGrad (arXiv:1909.11015): what its friction does that Adam at half the learning rate does not."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session, best_by_others

from .arms import COLOURS, NAMES, OPTIMIZERS
from .config import Config as Config
from .config import Images as Images
from .descent import descend, descent_measures, factor
from .figures import draw as draw
from .regret import play, regret_measures
from .training import TrainingData, compare_activations, compare_optimizers, layer_friction, tune

PRECISION = "single"
SCALES = {
    "smoke": Config(
        n_starts=201,
        online_rounds=1000,
        images=Images(
            "digits", 256, 64, 64, 8, (4,), stem_stride=1, batch_size=64, optimizers=("adam_half", "diffgrad"),
            factors=(10.0,), epochs=2, activations=("elu",), activation_epochs=1, n_seeds=3,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        images=Images(
            n_train=60_000, n_validation=5000, n_test=10_000, pool=28, n_blocks=3, stem_stride=1,
            tuning_epochs=10, epochs=100, activation_epochs=100, n_seeds=5,
        ),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: the images; six maps a block of a training batch, or four at a time of all test images; a map as in the first stage."""
    images = config.images
    a_map = 4 * images.widths[0] * (images.pool // images.stem_stride) ** 2
    maps = max(images.batch_size * 6 * images.n_blocks * len(images.widths), images.n_test * 4)
    descent = 8 * 9 * 5 * len(config.rates) * config.n_starts
    return 4 * (images.n_train + images.n_test) * images.pool**2 + maps * a_map + descent


def run(config: Config, session: Session) -> Findings:
    """Measures the factor itself, descents in one dimension, online regret, and training on images."""
    measures = factor(session)
    trees: dict[str, xr.Dataset] = {}
    # Double for what is cheap: in single precision round-off moves the end at the kink of F3 by as much as there is to see.
    with jax.enable_x64(True):
        trees["descent"] = descent = descend(config, session)
        trees["regret"] = regret = play(config, session)
    measures |= descent_measures(descent) | regret_measures(regret)
    untested: dict[str, str] = {}
    images = TrainingData.load(config.images, session)
    factors, tuning = tune(images, session)
    if tuning is not None:
        trees["tuning"] = tuning
    trees["accuracy"] = accuracy = compare_optimizers(images, factors, session).data
    trees["activations"] = activations = compare_activations(images, factors["diffgrad"], session)
    trees["friction"] = friction = layer_friction(images, factors["diffgrad"], session)
    final = accuracy["accuracy"].isel(step=-1, rate=0)
    for control in OPTIMIZERS:
        part = "C4.over_adam_at_half_rate" if control == "adam_half" else f"C4.over_{control}"
        if control in config.images.optimizers and control != "diffgrad":
            _judge(part, final.sel(arm="diffgrad"), final.sel(arm=control), measures, untested)
        elif control != "diffgrad":
            untested[part] = f"{NAMES[control]} is not among the optimisers of this run"
    _judge_spreads(activations["accuracy"], measures, untested)
    there = descent["at_global_minimum"].mean(["function", "rate", "start"])
    session.note("starts that end at the global minimum: " + ", ".join(f"{NAMES[arm]} {float(there.sel(arm=arm)):.4f}" for arm in COLOURS))
    ends = descent["x"].isel(step=-1)
    for arm in COLOURS:
        session.note(f"ends on F1, F2, F3 from -1: {NAMES[arm]} " + ", ".join(f"{float(x):.4f}" for x in ends.sel(arm=arm)))
    last = friction["friction"].isel(step=-1)
    session.note(
        f"mean friction of the layers after training: {float(last.min()):.4f} to {float(last.max()):.4f} "
        "(0.5 throughout would be Adam at half the rate)"
    )
    units = {"accuracy": "%", "loss": "nat", "friction": "1", "x": "1", "regret": "1", "at_global_minimum": "1"}
    for data in trees.values():
        for name, unit in units.items():
            if name in data:
                data[name].attrs["units"] = unit
    return Findings(measures, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)


def _judge(part: str, ours: xr.DataArray, control: xr.DataArray, measures: dict[str, Measure], untested: dict[str, str]) -> None:
    if np.isfinite(ours).all() and np.isfinite(control).all():
        measures[part] = Measure.paired(ours.values, control.values)
    else:
        untested[part] = "a run diverged"


def _judge_spreads(reached: xr.DataArray, measures: dict[str, Measure], untested: dict[str, str]) -> None:
    """The best activation's accuracy less the worst's, by the other seeds: of equal activations too, the extremes of one seed lie apart.

    For the interval both are chosen again without each seed.
    """

    def spread(arm: str, kept: np.ndarray) -> float:
        of_arm = reached.sel(arm=arm).isel(seed=kept)
        best, worst = (best_by_others(of_arm, "activation", maximise=maximise) for maximise in (True, False))
        return float((best - worst).mean())

    n = reached.sizes["seed"]
    parts = {
        "C5.spread": (("diffgrad",), lambda kept: spread("diffgrad", kept)),
        "C5.spread_beyond_adam": (("diffgrad", "adam_half"), lambda kept: spread("diffgrad", kept) - spread("adam_half", kept)),
    }
    for part, (arms, statistic) in parts.items():
        if np.isfinite(reached.sel(arm=list(arms))).all():
            measures[part] = Measure.leave_one_out(statistic, n)
        else:
            untested[part] = "a run diverged"
