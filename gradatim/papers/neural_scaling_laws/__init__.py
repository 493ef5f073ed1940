"""Exponents of the loss in samples, features and width, and what they hang on (Bahri et al., arXiv:2102.06701).

Random-feature regression is computed exactly, its losses averaged over teachers in closed form. Large vision networks are out of reach:
handwritten digits and wide kernels stand in for them, as the claims say. Limits are measured or known, never fitted with an exponent.
"""

from __future__ import annotations

import jax

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Gaussian as Gaussian
from .config import Images as Images
from .config import Labels as Labels
from .config import Samples as Samples
from .config import Students as Students
from .config import Widths as Widths
from .figures import draw as draw
from .gaussian import run_gaussian
from .images import run_images
from .labels import run_labels
from .networks import run_samples, run_widths
from .students import run_students

PRECISION = "double"
SCALES = {
    "smoke": Config(
        gaussian=Gaussian(features=300, sizes=(20, 50), draws=10, few=5, few_features=40, long_sizes=(80, 120, 180, 270), long_draws=16),
        images=Images(
            "digits", (4, 8), features=200, sizes=(4, 5, 7, 10, 14, 20), last=10, grid=(8, 16), draws=2, grid_layers=3, grid_draws=4,
        ),
        students=Students(teacher_width=8, width=12, sizes=(16, 32, 64, 128), steps=100, batch_size=16, n_test=100, seeds=3),
        widths=Widths(widths=(8, 16, 32, 64), n_train=16, n_test=50, steps=10, pairs=10),
        samples=Samples(population=50, width=4, sizes=(4096, 8192, 16_384, 32_768), draws=8, steps=20, seeds=3),
        labels=Labels("digits", sizes=(32, 64, 128, 256), seeds=3),
    ),
    "laptop": Config(),
    "full": Config(
        gaussian=Gaussian(features=4000, draws=1000, long_draws=200),
        images=Images(
            features=5000, sizes=(16, 23, 32, 45, 64, 91, 128, 181, 256), last=250, draws=16, grid_layers=16, grid_draws=32, seeds=8,
        ),
        students=Students(
            dimensions=(2, 3, 4, 5, 6, 7, 8, 9), teacher_width=96, width=192, sizes=(64, 128, 256, 512, 1024, 2048, 4096, 8192),
            steps=40_000, n_test=4000, seeds=10,
        ),
        widths=Widths((64, 128, 256, 512, 1024, 2048, 4096), n_train=100, steps=300, learning_rate=0.1),
        samples=Samples(1437, width=16, sizes=(32_768, 65_536, 131_072, 262_144), draws=16, steps=2000, seeds=64),
        labels=Labels(sizes=(64, 128, 256, 512, 1024, 2048, 4000), seeds=10),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes of the largest experiment: populations and covariance, networks beside linearisations or by sample, Gram matrices."""
    images, widths, samples, labels = config.images, config.widths, config.samples, config.labels
    features = 8 * (5000 * (images.features + 784) + 4 * images.features**2)
    networks = 4 * 8 * 2 * widths.pairs * max(widths.widths) * (max(widths.widths) + 64)
    n_small = 2 * samples.seeds * (len(samples.sizes) * samples.draws + 1)
    # Activations of every layer and their slopes, single precision, and on the way back the weights of all steps.
    small = 4 * n_small * samples.population * (2 + 6 * samples.width + 6 * 10)
    back = 4 * 2 * samples.seeds * (3 * samples.steps * (18 + samples.width + 10) * samples.width + 6 * samples.population * samples.width)
    grams = 8 * 12 * max(labels.sizes) * (max(labels.sizes) + 1000)
    return int(max(features, networks, small + back, grams))


def run(config: Config, session: Session) -> Findings:
    """The six experiments, one after another."""
    keys = jax.random.split(session.key, 6)
    return Findings.joined(
        [
            run_gaussian(config.gaussian, session, keys[0]),
            run_images(config.images, session, keys[1]),
            run_students(config.students, session, keys[2]),
            run_widths(config.widths, session, keys[3]),
            run_samples(config.samples, session, keys[4]),
            run_labels(config.labels, session, keys[5]),
        ]
    )
