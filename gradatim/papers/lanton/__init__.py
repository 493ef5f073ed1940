"""LANTON (arXiv:2510.14009): where shorter steps for noisier layers help, where they only move the best rate, and what they cost."""

from __future__ import annotations

import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Language, Testbed
from .figures import draw as draw
from .language import Corpus, compare, follow, noise_measures, time_measures, time_steps, token_measures
from .testbed import descend, measures

PRECISION = "single"
SCALES = {
    "smoke": Config(
        Testbed(6, rates=(0.04, 0.08, 0.16), alphas=(1.0,), lengths=(10, 20), n_seeds=3),
        Language(
            16, 1, 2, 16, 4, steps=10, n_train=500, n_validation=8, factors=(1.0,), arms=("adamw", "lanton"), n_pilots=1, n_seeds=3,
            n_batches=4, timed=("muon",), timed_width=16, timed_steps=10, repeats=3,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        language=Language(
            768, 12, 12, 256, 64, steps=20_000, n_validation=1024, tuning_steps=12_000, n_pilots=1, n_batches=64, timed_width=768
        ),
    ),
}  # fmt: skip
UNITS = {"loss": "nat", "noise": "nat", "sigma": "nat", "factor": "1", "seconds": "s", "dual_norm": "1", "mean_dual_norm": "1"}


def memory(config: Config) -> int:
    """Bytes: parameters, gradient, momentum and last gradient, and what a gradient needs of a batch, of the runs that go together;
    programs, a tenth of a gigabyte each.
    """
    c = config.language
    parameters = 12 * c.n_layers * c.width**2 + 168 * c.width
    kept = c.batch_size * c.context * c.n_layers * (20 * c.width + 3 * c.n_heads * c.context)
    n_runs = max(len(c.factors) * c.n_pilots, c.n_seeds)
    layers = len(config.testbed.noise) * config.testbed.width**2 * len(config.testbed.rates) * config.testbed.n_seeds
    # Of each optimiser a start, a step and an evaluation; the timed steps; three for reports of the noise.
    programs = 100_000_000 * (3 * len(c.arms) + len(c.timed) + 3)
    return 4 * (n_runs * (5 * parameters + kept) + 10 * layers) + c.n_train * (c.context + 1) + programs


def run(config: Config, session: Session) -> Findings:
    """Layers of known noise, then the character model: its noise, the comparison, and the time of a step."""
    trees = descend(config.testbed, session)
    found, untested = measures(trees, session)
    corpus = Corpus.load(config.language, session)
    compared, factors, alpha = compare(corpus, session)
    trees |= compared | follow(corpus, factors["lanton"], alpha, session)
    found |= noise_measures(trees["report"], session)
    tokens, reasons = token_measures(trees["curves"], session)
    found, untested = found | tokens, untested | reasons
    trees["time"] = time_steps(corpus, session)
    found |= time_measures(trees["time"])
    for data in trees.values():
        for name, unit in UNITS.items():
            if name in data:
                data[name].attrs["units"] = unit
    trees["testbed"]["loss"].attrs["units"] = "1"
    return Findings(found, xr.DataTree.from_dict({f"/{name}": data for name, data in trees.items()}), untested)
