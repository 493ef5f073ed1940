"""Multiplicative diffusion (arXiv:2510.02730): geometric Brownian motion as noise, backward steps that multiply, and what they make.

Formulas are judged on densities with a known score. Networks are small perceptrons of log x that predict the noise, on two spirals and on
images of 8 × 8 pixels, in place of deep convolutional ones on MNIST and CIFAR-10; equations are those of the abstract and of the authors'
code, for the full text was not at hand. Where that code noises a point at one level and judges it at the next, the same level is used
here, and its sampling habits (noise that fades, steps cut short) are left out.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Exact as Exact
from .config import Generation as Generation
from .config import Regression as Regression
from .exact import EIGHTHS, run_exact
from .figures import draw as draw
from .generation import FRAMES, images, run_generation, spirals
from .judging import judge
from .networks import JUDGED, WATCHED
from .regression import run_regression

PRECISION = "double"
_SMALL = Generation(
    width=16, depth=2, batch_size=32, steps=60, rates=(3e-3,), pilot_steps=20, beside=2, sampler_steps=20, copies=1,
    directions=16,
)  # fmt: skip
SCALES = {
    "smoke": Config(
        exact=Exact(
            paths=1000, path_steps=64, sampler_steps=(10,), samples=4000, recursion_steps=(50, 100, 200), mirror_steps=20, models=3,
            loss_samples=1000,
        ),
        with_spirals=False,
        images=_SMALL,
        n_images=200,
        n_held_out=60,
        regression=Regression(runs=6, weights=40, examples=10, active=4, rates=(0.03, 0.1), steps=300),
    ),
    "laptop": Config(),
    "full": Config(
        exact=Exact(
            paths=100_000, path_steps=4096, sampler_steps=(10, 20, 40, 80, 160, 320), samples=1_000_000,
            recursion_steps=(25, 50, 100, 200, 400, 800, 1600), models=10, loss_samples=1_000_000,
        ),
        spirals=Generation(
            width=256, batch_size=4096, steps=50_000, pilot_steps=5000, seeds=10, sampler_steps=1000, copies=1, directions=64,
        ),
        spiral_points=50_000,
        images=Generation(
            width=2048, depth=5, batch_size=512, steps=300_000, rates=(1e-4, 3e-4, 1e-3), pilot_steps=30_000, seeds=3, sampler_steps=1000,
            copies=1, directions=1024,
        ),
        data="fashion-mnist",
        side=28,
        n_images=60_000,
        n_held_out=10_000,
        regression=Regression(runs=2000, weights=1000, examples=200, active=50, steps=50_000),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: paths at their times, samples of the exact samplers and losses, networks, and activations of training or sampling."""
    exact, regression = config.exact, config.regression
    closed = 8 * (16 * exact.paths + 12 * exact.samples + 24 * exact.models * exact.loss_samples)
    parts = []
    of_spirals = [(config.spirals, config.spiral_points, 2)] if config.with_spirals else []
    for settings, n, dim in (*of_spirals, (config.images, config.n_held_out, config.side**2)):
        size = (dim + settings.width * (settings.depth - 1) + dim) * settings.width
        together = len(JUDGED) * max(settings.seeds, settings.pilots * len(settings.rates))
        activations = max(2 * settings.batch_size, WATCHED // dim) * settings.depth * settings.width
        trained = 4 * together * (5 * size + activations)
        drawn = 4 * settings.copies * n * (4 * settings.width + settings.directions + (settings.sampler_steps + 24) * dim)
        parts.append(trained + drawn)
    neighbours = 4 * config.images.copies * config.n_held_out * config.n_images if config.n_images <= 5000 else 4 * 500 * config.n_images
    weights = 4 * len(regression.rates) * regression.runs * regression.weights * 8
    problems = 4 * 2 * regression.runs * regression.weights * regression.examples
    return max(closed, *parts, neighbours, weights + problems)


def run(config: Config, session: Session) -> Findings:
    """What is exact first, then two spirals, images and the regression."""
    for name, steps, parts in (
        ("exact.path_steps", config.exact.path_steps, EIGHTHS),
        ("spirals.sampler_steps", config.spirals.sampler_steps, FRAMES),
        ("images.sampler_steps", config.images.sampler_steps, FRAMES),
    ):
        if steps % parts:
            raise ValueError(f"{name} must be a multiple of {parts}, got {steps}")
    key_exact, key_spirals, key_images, key_regression = jax.random.split(session.key, 4)
    trees: dict[str, xr.Dataset] = run_exact(config, session, key_exact)
    if config.with_spirals:
        trees |= run_generation("spirals", config, config.spirals, session, key_spirals, spirals(config))
    trees |= run_generation("images", config, config.images, session, key_images, images(config, session))
    trees |= run_regression(config, session, key_regression)
    return judge(config, trees, session)
