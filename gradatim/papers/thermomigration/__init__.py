"""Thermomigration of solute and precipitates in a temperature gradient (arXiv:2406.00649): bars, slabs, discs, pairs, many particles.

The article's parameters and figures could not be read: units here are dimensionless (dx = κ = W = M = T₀ = 1) except for the bars, which
are iron in SI units with handbook values.
"""

from __future__ import annotations

import numpy as np

from gradatim.lab import Findings, Session

from .bars import run_bars
from .config import Bars as Bars
from .config import Config as Config
from .config import Discs as Discs
from .config import Many as Many
from .config import Pairs as Pairs
from .config import Slabs as Slabs
from .figures import draw as draw
from .many import run_many
from .pairs import run_pairs
from .single import run_single

PRECISION = "double"
SCALES = {
    "smoke": Config(
        bars=Bars(cells=64),
        slabs=Slabs(widths=(24, 32), gradients=(1e-3, 2e-3), heat_differences=(0.0, 0.5), time=50.0),
        discs=Discs(shape=(48, 40), radii=(10.0, 14.0), time=40.0),
        pairs=Pairs(shape=(80, 32), large=10.0, small=7.0, gap=14.0, other_gaps=(10.0,), gradients=(0.0, 4e-3), time=40.0),
        many=Many(shape=(96, 48), particles=6, radii=(5.0, 8.0), seeds=3, time=40.0),
    ),
    "laptop": Config(),
    "full": Config(
        slabs=Slabs(widths=(60, 120, 240, 480), time=16000.0),
        discs=Discs(shape=(256, 192), radii=(10.0, 14.0, 20.0, 28.0, 40.0), time=8000.0),
        many=Many(shape=(512, 512), particles=300, radii=(5.0, 10.0), seeds=8, time=10000.0),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: some twenty copies of the largest batch of fields, in double precision."""
    pairs, many = config.pairs, config.many
    n_pairs = (2 * len(pairs.gradients) - 1) + len(pairs.gradients) * len(pairs.other_gaps)
    return 160 * max(n_pairs * int(np.prod(pairs.shape)), 2 * many.seeds * int(np.prod(many.shape)))


def run(config: Config, session: Session) -> Findings:
    """The five experiments, one after another."""
    parts = [run_bars(config.bars, session), *run_single(config, session), run_pairs(config.pairs, session), run_many(config.many, session)]
    return Findings.joined(parts)
