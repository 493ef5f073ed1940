"""Implicit derivatives of solvers' answers (Blondel et al., arXiv:2105.15183): six experiments, one or two claims each.

Theorem, table of conditions and settings are the standard ones of the method; where the paper's data cannot be had, packaged data stand
in: digits for MNIST, breast-cancer features among noise for gene expression. Soft discs are relaxed in a box of our own.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Dictionary as Dictionary
from .config import Distillation as Distillation
from .config import Machine as Machine
from .config import Ridge as Ridge
from .config import Spheres as Spheres
from .dictionary import run_dictionary
from .distillation import run_distillation
from .figures import draw as draw
from .hypergradients import run_machine
from .mappings import run_mappings
from .ridge import run_ridge
from .spheres import run_spheres

PRECISION = "double"
SCALES = {
    "smoke": Config(
        machine=Machine(samples=20, features=(30,), classes=3, steps=(10, 50), sweeps=10, exact_sweeps=500, builds=3),
        distillation=Distillation(inner_steps=30, outer_steps=3, rates=(0.1,), timed_steps=(14,), repeats=3, builds=3),
        dictionary=Dictionary(noise_features=10, atoms=3, splits=3, strengths=(0.3,), inner_steps=10, outer_steps=3),
        spheres=Spheres(particles=16, steps=300, looks=3, packings=3),
    ),
    "laptop": Config(),
    "full": Config(
        machine=Machine(samples=700, features=(100, 1000, 10_000), builds=10),
        distillation=Distillation(seeds=10, outer_steps=200),
        dictionary=Dictionary(noise_features=7400, splits=10, outer_steps=500),
        spheres=Spheres(particles=128, steps=10_000, packings=20),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: the iterates that an unrolled machine keeps, the dense system of its exact derivative, and the dictionary's tables."""
    machine, dictionary = config.machine, config.dictionary
    unknowns = machine.samples * machine.classes
    kept = machine.steps[-1] * (4 * unknowns + 2 * max(machine.features) * machine.classes)
    tables = dictionary.splits * 569 * (30 + dictionary.noise_features) * (2 + len(dictionary.strengths))
    return int(8 * max(kept + 6 * unknowns**2, tables))


def run(config: Config, session: Session) -> Findings:
    """The six experiments, one after another."""
    return Findings.joined(
        [
            run_ridge(config.ridge, session),
            run_mappings(session),
            run_machine(config.machine, session),
            run_distillation(config.distillation, session),
            run_dictionary(config.dictionary, session),
            run_spheres(config.spheres, session),
        ]
    )
