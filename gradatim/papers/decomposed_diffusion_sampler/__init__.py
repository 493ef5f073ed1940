"""Decomposed diffusion samplers (arXiv:2303.05754): images from few measurements, by a few conjugate-gradient steps at each level of noise.

The article's networks, of 256 channels on images of 256 × 256 and 320 × 320 from two archives that no package ships, become small ones on
32 × 32: turned, shrunk and shifted slices of a template in place of knees, heads of ellipses in place of tomograms. Its tables were
not at hand; equations are those of its abstract and of the authors' code. Of each kind of image there are several networks, each with first
weights, training images, measured columns and judged images of its own, and intervals are over them. Every rival is tuned on images of its
own, as is the weight of the data with several coils; images are real, and their values are judged over the one range that they may have.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Exact as Exact
from .config import Prior as Prior
from .exact import run_exact
from .figures import draw as draw
from .judging import judge
from .reconstruction import run_tasks

PRECISION = "single"
SCALES = {
    "smoke": Config(
        exact=Exact(samples=100_000, side=8, images=3, tangent_dimension=4, levels=(200,)),
        prior=Prior(images=200, with_network=False, components=8, rank=4),
        tasks=("projections",),
        resonance_images="phantoms",
        side=8,
        networks=3,
        seeds=3,
        images=2,
        validation_images=1,
        few_times=5,
        times=10,
        many_times=20,
        inner_steps=(5,),
        with_speed=False,
        views=4,
        coils=2,
        acceleration=2,
        gammas=(1.0, 10.0, 100.0),
        dps_steps=(0.1, 0.3, 1.0),
        tv_weights=(1e-3, 1e-2, 1e-1),
        cutoffs=(0.03, 0.1, 0.3),
        least_squares_steps=(3, 10, 30),
        tv_steps=50,
    ),
    "laptop": Config(),
    "full": Config(
        prior=Prior(images=20_000, widths=(64, 128, 256, 256), steps=400_000, batch_size=32, rate=1e-4, components=256),
        side=64,
        images=16,
        slices=64,
        views=16,
        limited_views=60,
        tv_steps=2000,
        timed_pairs=200,
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: images, a batch's activations, matrices of the scanners and pseudo-inverses."""
    pixels, prior, sets = config.side**2, config.prior, config.seeds // config.networks
    has_volumes = "volumes" in config.tasks
    grid = max(map(len, (config.gammas, config.dps_steps, config.tv_weights, config.cutoffs)))
    tuned = max(grid, len(config.rhos) * len(config.thresholds)) * max(config.validation_images, config.slices * has_volumes)
    batch = max(sets * max(config.images, config.slices * has_volumes), tuned)
    kept = 60 * config.seeds * max(config.images, config.slices * has_volumes)
    images = 4 * pixels * (5 * 2 * prior.images + kept)
    # A stage halves the sides; about ten arrays of each are kept for a gradient.
    layers = (
        sum(width * pixels // 4 ** (i + 1) for i, width in enumerate(prior.widths)) if prior.with_network else prior.components * pixels
    )
    activations = 4 * 30 * max(batch, prior.batch_size) * layers
    scanners = 4 * (5 * config.views + config.limited_views) * 2 * config.side * pixels
    # Of each cutoff three matrices in double precision, beside eigenvectors and what they are made from, and one for each network.
    inverses = (8 * (8 + 3 * len(config.cutoffs)) + 4 * len(config.cutoffs) * config.networks) * pixels**2
    return images + activations + scanners + inverses


def run(config: Config, session: Session) -> Findings:
    """What is exact first, then every task by every sampler."""
    key_exact, key_tasks = jax.random.split(session.key)
    trees: dict[str, xr.Dataset] = run_exact(config, session, key_exact)
    trees |= run_tasks(config, session, key_tasks)
    return judge(config, trees, session)
