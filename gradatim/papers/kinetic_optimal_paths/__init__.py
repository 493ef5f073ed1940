"""Kinetic-optimal probability paths (arXiv:2306.06626): how much a path costs, which costs the least, and whether that shows in samples.

Images are small: scikit-learn's digits and patches of its two photographs take the place of ImageNet and CIFAR-10, and no network is
trained on images; solvers are counted on the exact velocity of the digits instead. The optimal path is the closed form of the theorem, the
authors' is a network of ten parameters fitted to it. Energies go up to t = 0.999, for that of the variance-preserving path diverges.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .checkerboard import ENERGY_BATCH, run_checkerboard
from .config import Checkerboard as Checkerboard
from .config import Config as Config
from .config import Images as Images
from .config import Solver as Solver
from .figures import draw as draw
from .images import run_images
from .judging import judge
from .lines import run_lines
from .solver import run_solver

PRECISION = "double"
SCALES = {
    "smoke": Config(
        images=Images(
            digits=100, patches=100, sides=(4, 8), nodes=16, noise=64, replicates=3, samples=256, stable_points=100, stable_noise=128,
            stable_repeats=3,
        ),
        solver=Solver(replicates=3, noise=64, samples=2, tolerance=1e-3),
        checkerboard=Checkerboard(
            points=200, noise=256, nodes=16, width=16, depth=1, batch_size=64, steps=50, seeds=3, euler=(2, 6), samples=200,
            directions=8, energy_samples=200,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        images=Images(
            patches=50_000, sides=(8, 16, 32, 64), noise=2500, samples=1_000_000, stable_points=100_000, stable_noise=10_000
        ),
        solver=Solver(noise=10_000, samples=125),
        checkerboard=Checkerboard(
            points=20_000, noise=20_000, width=512, batch_size=4096, steps=100_000, seeds=10, samples=100_000, energy_samples=1_000_000
        ),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: the largest set of patches and a batch of its distances, the networks, and their activations over a batch of samples."""
    images, board = config.images, config.checkerboard
    n = max(images.digits, images.patches, images.stable_points)
    distances = 4 * (3 * 256 * n + 2 * n * max(images.sides) ** 2) + 8 * 4 * 3 * 256 * images.digits
    networks = 4 * board.seeds * (board.depth * (board.width + 1) * board.width) * 4 * 6
    # A row holds its numbers of every layer for the gradient, or of three at a time without.
    rows = max(board.seeds * board.batch_size * board.depth, 3 * board.samples, 3 * board.seeds * ENERGY_BATCH)
    return distances + networks + 4 * 4 * board.width * rows


def run(config: Config, session: Session) -> Findings:
    """Points on a line, images, the solver and the checkerboard, judged together."""
    key_images, key_solver, key_board = jax.random.split(session.key, 3)
    trees: dict[str, xr.Dataset] = run_lines(config, session)
    trees |= run_images(config, session, key_images)
    trees |= run_solver(config, session, key_solver)
    trees |= run_checkerboard(config, session, key_board)
    return judge(config, trees, session)
