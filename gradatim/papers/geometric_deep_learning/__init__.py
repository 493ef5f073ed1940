"""Geometric deep learning (arXiv:2104.13478): layers for every domain, their symmetries measured, and what the book says of them tried.

The book reports no experiments. What it proves is measured on layers with random weights; what it says from experience is tried on turned
Fashion-MNIST, a cortical surface, random graphs with communities, and sequences, each network at the best of the same rates as pilots or
other seeds find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config as Config
from .config import Curse as Curse
from .config import Homophily as Homophily
from .config import Memory as Memory
from .config import Samples as Samples
from .config import Symmetry as Symmetry
from .config import Warping as Warping
from .curse import curse
from .deformations import DeformationsConfig as DeformationsConfig
from .deformations import deformations
from .directions import Directions as Directions
from .directions import directions
from .expressivity import expressivity
from .figures import draw as draw
from .homophily import JUDGED as JUDGED_HOMOPHILY
from .homophily import homophily
from .samples import JUDGED as JUDGED_SIZE
from .samples import samples
from .sequences import memory as remember
from .sequences import rest, warping
from .surfaces import SurfacesConfig as SurfacesConfig
from .surfaces import surface_of, surface_symmetry_errors, surfaces
from .symmetry import symmetry
from .transfer import Transfer as Transfer

PRECISION = "double"
SCALES = {
    "smoke": Config(
        symmetry=Symmetry(channels=4, seeds=1),
        surfaces=SurfacesConfig(
            surface="icosphere", levels=(2, 3), sheet=8, eigenvectors=40, frame_turns=2, entries=2,
            transfer=Transfer(level=2, jitters=3, signals=4),
        ),
        deformations=DeformationsConfig(frequencies=(10.0, 40.0)),
        curse=Curse(sizes=(256, 512, 1024, 2048), saving_sizes=(256,), test=1024, seeds=5),
        with_training=False,
    ),
    "laptop": Config(),
    "full": Config(
        curse=Curse(sizes=tuple(2**k for k in range(9, 19)), saving_sizes=(256, 1024, 4096), test=100_000, seeds=30),
        samples=Samples(
            sizes=(100, 300, 1000, 3000, 10_000, 50_000), pool=60_000, held_out=5000, test=1000, channels=32, steps=20_000,
            batch_size=128, rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), seeds=10,
        ),
        directions=Directions(part=3000, entries=16, steps=1000, seeds=10),
        homophily=Homophily(nodes=2000, labelled=400, test_graphs=20, width=64, steps=500, seeds=20),
        warping=Warping(hidden=128, length=100, sequences=10_000, steps=5000, seeds=10),
        memory=Memory(symbols=10, hidden=128, batch_size=64, steps=20_000, rates=(3e-4, 1e-3, 3e-3, 1e-2), held_out=1000, seeds=10),
    ),
}  # fmt: skip
TRAINED = (
    "C10.direction_gain",
    "C11.warped_loss_ratio",
    "C14.accuracy_gain",
    "C14.sizes_won",
    "C16.accuracy_difference",
    "C16.operations_ratio",
    "C17.gated_loss_ratio",
    "C17.plain_loss_ratio",
)
"Parts that need networks to be trained."
WHOLE_SIDE = 28
"Pixels a side of the images as they come."


def memory(config: Config) -> int:
    """Peak bytes: images and activations of a batch, all graphs with their activations, all sequences with theirs, nearest neighbours."""
    neighbours = 8 * 40 * max(*config.curse.sizes, 16 * max(config.curse.saving_sizes), config.curse.test)
    # Eigenvectors of a jittered sphere, all of them, and sparse factors of the surface.
    meshes = 8 * 6 * (10 * 4**config.surfaces.transfer.level) ** 2 + 8 * 10_242 * (300 + 4 * config.surfaces.eigenvectors)
    trained = _memory_of_training(config) if config.with_training else 0
    return max(neighbours, meshes, trained)


def _memory_of_training(config: Config) -> int:
    samples, graphs, warp, copy = config.samples, config.homophily, config.warping, config.memory
    wide = 2 * samples.channels * 2 * samples.side**2
    # As they come twice over, and as they are averaged.
    pixels = (samples.pool + samples.seeds * samples.test) * (2 * WHOLE_SIDE**2 + samples.side**2)
    images = 4 * (pixels + max(samples.test, 3 * samples.batch_size) * wide)
    edges = graphs.nodes * (graphs.degree + 1)
    worlds = graphs.seeds * len(graphs.levels)
    messages = 4 * len(graphs.rates) * worlds * edges * 8 * graphs.width
    unseen = 4 * worlds * (graphs.test_graphs + 1) * (graphs.nodes * graphs.features + 3 * edges)
    # What a gradient needs of every step, and all sequences.
    sequences = 4 * warp.seeds * warp.length * (12 * warp.batch_size * warp.hidden + 10 * warp.sequences)
    copies = 4 * 14 * len(copy.rates) * copy.seeds * copy.batch_size * (copy.lag + 2 * copy.symbols) * copy.hidden
    # Six edges a vertex, and complex entries of the three orders.
    fields = 8 * 20 * len(config.directions.rates) * config.directions.seeds * 6 * config.directions.part * 3 * config.directions.entries
    return max(images, messages + unseen, sequences, copies, fields)


def run(config: Config, session: Session) -> Findings:
    """What holds to rounding first, then dimensions, then what is learnt."""
    if config.with_training:
        for name, wanted, given in (
            ("samples.sizes", JUDGED_SIZE, config.samples.sizes),
            ("homophily.levels", JUDGED_HOMOPHILY, config.homophily.levels),
        ):
            if wanted not in given:
                raise ValueError(f"{name} must hold {wanted}, for which there is a criterion, got {given}")
    measures: dict[str, Measure] = dict(rest(session))
    trees: dict[str, xr.Dataset] = {}

    def add(name: str, found: tuple[Mapping[str, Any], xr.Dataset]) -> None:
        measures.update(found[0])
        trees[name] = found[1]

    add("symmetry", symmetry(config.symmetry, session, surface_symmetry_errors(jax.random.fold_in(session.key, 20))))
    add("expressivity", expressivity(config.symmetry, session))
    add("surfaces", surfaces(config.surfaces, session))
    add("deformations", deformations(config.deformations, session))
    add("curse", curse(config.curse, session))
    untested: dict[str, str] = dict.fromkeys(TRAINED, "no network was trained in this run")
    if config.with_training:
        add("warping", warping(config.warping, session))
        add("memory", remember(config.memory, session))
        add("homophily", homophily(config.homophily, session))
        add("samples", samples(config.samples, session))
        add(
            "directions", directions(config.directions, *surface_of(config.surfaces, session), jax.random.fold_in(session.key, 31), session)
        )
        untested = {}
    return Findings({name: _finite(measure) for name, measure in measures.items()}, xr.DataTree.from_dict(trees), untested)


def _finite(measure: Measure) -> Measure:
    """Numbers of NumPy as Python's own."""
    if not np.isfinite(measure.intervals()[0][0]):
        raise FloatingPointError(f"a measure is not finite: {measure}")
    return measure
