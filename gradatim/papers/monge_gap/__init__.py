"""The Monge gap (arXiv:2302.04953): a number that is zero for optimal maps only, and what training with it does.

Known maps of random convex functions take the place of the pairs of Gaussian mixtures, with up to 32 dimensions instead of 256, moons and
patches that of the article's point clouds, two powers of p-norms that of its other costs in the plane, and images of digits that of single
cells. Networks, weights, steps and ε follow the article and the tutorial of its authors where these say them; nothing is tuned for the gap,
and the entropic map beside it is given for each seed the ε that is best for the others.
"""

from __future__ import annotations

from itertools import pairwise

import jax

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Costs as Costs
from .config import Digits as Digits
from .config import Dimensions as Dimensions
from .config import Exact as Exact
from .config import Plane as Plane
from .config import Training as Training
from .exact import run_exact
from .figures import draw as draw
from .high_dimensions import run_digits, run_dimensions
from .judging import judge
from .low_dimensions import run_costs, run_plane
from .p_norms import run_p_norms

PRECISION = "single"
_SMALL = Training(steps=30, batch_size=32, seeds=3, pool=128, held_out=34, width=16, depth=2)
_LONG = {"pool": 65_536, "held_out": 2048, "width": 128}
SCALES = {
    "smoke": Config(
        exact=Exact(linear_points=1000, repeats=3, sizes=(16, 64, 128), size_repeats=5, points=64, maps=5, pair_points=16),
        plane=Plane(training=_SMALL, weights=(1.0,), debiased=False),
        costs=Costs(euclidean=_SMALL, sphere=_SMALL, p_norm=_SMALL, powers=(1.5,)),
        dimensions=Dimensions(training=_SMALL, fresh=256, dimensions=(16,), gap_weights=(1.0,), asymmetry_weights=(0.01,)),
        digits=Digits(training=_SMALL),
    ),
    "laptop": Config(),
    "full": Config(
        plane=Plane(training=Training(steps=10_000, batch_size=1024, **_LONG), weights=(0.01, 0.1, 1.0, 10.0, 100.0)),
        costs=Costs(
            euclidean=Training(steps=10_000, batch_size=1024, gap_share=0.01, **_LONG),
            sphere=Training(steps=10_000, batch_size=1024, gap_share=0.01, **_LONG),
            p_norm=Training(steps=10_000, batch_size=1024, **_LONG),
        ),
        dimensions=Dimensions(
            training=Training(steps=10_000, batch_size=1024, pool=8192, held_out=4096, width=256),
            fresh=262_144,
            dimensions=(2, 4, 8, 16, 32, 64, 128, 256),
        ),
        digits=Digits(training=Training(steps=5000, batch_size=128, seeds=5, pool=136, held_out=34)),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: networks with gradients and moments, cost matrices of a step and of the held-out points, and points."""
    trainings = [
        (config.plane.training, 2, 1 + 3 * len(config.plane.weights)),
        (config.costs.euclidean, 2, 2),
        (config.costs.sphere, 3, 2),
        (config.costs.p_norm, 2, 2),
        (config.digits.training, config.digits.components, 2),
    ]
    grid = len(config.dimensions.gap_weights) * len(config.dimensions.asymmetry_weights)
    trainings += [(config.dimensions.training, dim, 2 + grid) for dim in config.dimensions.dimensions]

    def of(training: Training, dim: int, arms: int) -> int:
        sizes = [dim, *(training.width for _ in range(training.depth)), dim]
        parameters = sum((m + 1) * n for m, n in pairwise(sizes)) * arms * training.seeds
        matrices = 12 * training.batch_size**2 + 6 * training.held_out**2 + 3 * training.held_out**2
        points = (2 * training.seeds * (training.pool + training.held_out) + arms * training.seeds * training.held_out) * dim
        return 4 * (5 * parameters + matrices + points + 2 * training.seeds * training.steps * training.batch_size)

    # Drawn in double precision, then kept in single.
    fresh = 24 * config.dimensions.training.seeds * config.dimensions.fresh * config.dimensions.dimensions[-1]
    pools = 4 * 6 * config.dimensions.training.pool**2 + fresh
    assignments = 8 * 3 * max(config.exact.linear_points, *config.exact.sizes) ** 2
    return max(*(of(*one) for one in trainings), pools, assignments)


def run(config: Config, session: Session) -> Findings:
    """What needs no training, then maps in few and in many dimensions, judged together."""
    keys = jax.random.split(session.key, 5)
    trees = run_exact(config.exact, session, keys[0])
    trees |= run_plane(config.plane, session, keys[1])
    trees |= run_costs(config.costs, session, keys[2])
    trees |= run_p_norms(config.costs, session, jax.random.fold_in(session.key, 5))
    trees |= run_dimensions(config.dimensions, session, keys[3])
    trees |= run_digits(config.digits, session, keys[4])
    return judge(config, trees, session)
