"""Thermodynamic forcing of a weakly collisional plasma (arXiv:2504.14000): a gas, single particles, and particle-in-cell boxes.

The article's tables and figures could not be read; sizes are chosen so that the instabilities grow within a minute. The laptop's gradient
is steeper than the theory allows (L = 40 gyroradii; the paper's regime is some hundreds), so that the heat flux reaches η ≈ 1.5.
"""

from __future__ import annotations

import jax
import numpy as np

from gradatim.lab import Findings, Session

from .boxes import run_boxes
from .config import Boxes as Boxes
from .config import Config as Config
from .config import Gas as Gas
from .config import Motion as Motion
from .figures import draw as draw
from .gas import run_gas
from .motion import run_motion

PRECISION = "single"
SCALES = {
    "smoke": Config(
        gas=Gas(particles=200_000, steps=5, seeds=5),
        motion=Motion(particles=200, speeds=121),
        boxes=Boxes(shape=(32,), per_cell=50, oblique_per_cell=50, time=2.0, looks=10, seeds=3),
    ),
    "laptop": Config(),
    "full": Config(
        boxes=Boxes(
            shape=(512, 512), gradient_length=300.0, time=300.0, per_cell=200, oblique_per_cell=200, ion_mass=1836.0, looks=1000, seeds=3
        )
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: some twenty numbers a particle, twice while a checkpoint is made, for the larger of gas and box."""
    species = 2 if config.boxes.ion_mass else 1
    box = species * int(np.prod(config.boxes.shape)) * max(config.boxes.per_cell, config.boxes.oblique_per_cell)
    return 160 * max(config.gas.particles, box)


def run(config: Config, session: Session) -> Findings:
    """The gas, the single particles, and the boxes."""
    keys = jax.random.split(session.key, 3)
    parts = [run_gas(config.gas, session, keys[0]), run_motion(config.motion, session, keys[1]), run_boxes(config.boxes, session, keys[2])]
    return Findings.joined(parts)
