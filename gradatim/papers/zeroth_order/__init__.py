"""Zeroth-order methods (arXiv:2510.18812): what they cost, what they reach, and what their noise is good for."""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .adaptation import adapt, adaptation_measures, follow_rewards
from .config import ESTIMATORS
from .config import Config as Config
from .config import Networks as Networks
from .estimates import count_steps, draw_moments, model_steps, smoothed_slope, step_slopes
from .figures import draw as draw
from .training import Digits, estimate_quality, train, training_measures
from .wells import share_measures, walk

PRECISION = "single"
SCALES = {
    "smoke": Config(
        moment_draws=100_000,
        dimensions=(10, 50),
        descents=400,
        networks=Networks(
            rates=(3e-3,),
            estimators=ESTIMATORS[:3],
            steps=40,
            backpropagation_steps=40,
            width=16,
            batch_size=50,
            n_seeds=3,
            quality_draws=16,
            quality_seeds=3,
        ),
        plasticity_draws=200_000,
        noise_levels=(0.0, 0.5, 2.0),
        learners=50,
        duration=60.0,
        walkers=60,
        well_steps=20_000,
    ),
    "laptop": Config(),
    "full": Config(
        moment_draws=4_000_000,
        dimensions=(10, 30, 100, 300, 1000, 3000),
        networks=Networks(
            "fashion-mnist",
            60_000,
            5000,
            10_000,
            28,
            256,
            estimators=ESTIMATORS,
            steps=500_000,
            backpropagation_steps=30_000,
            n_seeds=5,
            quality_draws=2000,
        ),
        plasticity_draws=10_000_000,
        learners=5000,
        walkers=10_000,
    ),
}


def memory(config: Config) -> int:
    """Bytes: the images; of each network that trains at once the parameters with Adam's and two activations; draws by the batch."""
    n = config.networks
    inputs = n.pool**2
    size = (inputs + 1) * n.width + 11 * n.width + 10
    a_run = 8 * size + 6 * n.batch_size * (n.width + 10) + 4 * (n.n_validation + n.n_test) * (n.width + 10)
    runs = len(n.rates) * n.n_seeds * a_run + n.n_seeds * n.steps * n.batch_size
    return 4 * (inputs * (n.n_train + n.n_test) + runs + 200 * size + 6 * config.moment_draws * 20 // 16 + 40 * config.walkers)


def run(config: Config, session: Session) -> Findings:
    """Measures estimates of known gradients, descents by dimension, networks, noisy learners, and the time spent in a flat well."""
    names = ("smooth", "moments", "descents", "networks", "plasticity", "adaptation", "wells")
    keys = dict(zip(names, jax.random.split(session.key, len(names)), strict=True))
    with jax.enable_x64(True):
        measures = model_steps(session)
    measures["C1.smoothing_error"] = smoothed_slope(config, session, keys["smooth"])
    moments, measures["C2.variance_ratio"] = draw_moments(config, session, keys["moments"])
    descents = count_steps(config, session, keys["descents"])
    measures["C2.dimension_slope"] = step_slopes(descents, session)
    data = Digits.load(config.networks, session)
    quality, measures["C4.variance_ratio"] = estimate_quality(data, session, keys["networks"])
    training = train(data, session)
    reached, untested = training_measures(training, session)
    measures |= reached
    measures["C5.mean_update_error"] = follow_rewards(config, session, keys["plasticity"])
    learners = adapt(config, session, keys["adaptation"])
    measures |= adaptation_measures(learners, session)
    wells = walk(config, session, keys["wells"])
    measures["C7.flat_share"] = share_measures(wells, session)
    trees = {"moments": moments, "descents": descents, "quality": quality, "training": training, "learners": learners, "wells": wells}
    return Findings(measures, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)
