"""Indirect chemotaxis and its simplifications (arXiv:2508.01436): rates, initial layers, critical masses in four and two dimensions.

The theorem's a-priori bounds and compactness cannot be run; its rates, thresholds and entropy can. The article's constants and norms
could not be read: norms are L² in space, and the threshold in four dimensions that of the radial problem, 64π²τ.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .balls import run_balls
from .config import Balls as Balls
from .config import Config as Config
from .config import Layer as Layer
from .config import Patterns as Patterns
from .config import Rates as Rates
from .config import Waves as Waves
from .figures import draw as draw
from .layer import run_layer
from .patterns import run_patterns
from .rates import run_rates
from .waves import run_waves

PRECISION = "double"
SCALES = {
    "smoke": Config(
        rates=Rates(
            cells=32, time_scales=(0.04, 0.02), joint=(0.02, 0.01), spreadings=(0.02, 0.01), time=0.1, layer_steps=100, later_steps=60,
            ball_cells=24, square_cells=12,
        ),
        layer=Layer(time_scales=(2e-3, 1e-3), steps_per_scale=40),
        waves=Waves(densities=(0.8, 1.2), time_scales=(0.01,)),
        balls=Balls(cells=40, masses=(0.7, 1.0, 1.5), time=0.01, brisk=0.05, refinements=1),
        patterns=Patterns(cells=16, time=0.5, dt=5e-3),
    ),
    "laptop": Config(),
    "full": Config(
        rates=Rates(
            cells=256, time_scales=(0.04, 0.02, 0.01, 0.005, 0.0025, 0.00125), layer_steps=3200, later_steps=6400, ball_cells=320,
            square_cells=256,
        ),
        balls=Balls(cells=960, masses=(0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.5), brisk=0.002, refinements=3),
        patterns=Patterns(cells=512, side=12.0, time=20.0),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: every snapshot of the longest study, both solutions, and some thirty fields of the square."""
    rates, patterns = config.rates, config.patterns
    of_rates = 20 * max(rates.cells, rates.ball_cells) * (rates.layer_steps + rates.later_steps) * len(rates.time_scales)
    return 8 * (of_rates + 60 * rates.square_cells**2 + 60 * patterns.cells**2)


def run(config: Config, session: Session) -> Findings:
    """The five experiments, one after another."""
    return Findings.joined(part(config, session) for part in (run_rates, run_layer, run_waves, run_balls, run_patterns))
