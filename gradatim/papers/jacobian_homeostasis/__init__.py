"""Equilibrium propagation on networks without symmetric weights, and the loss that makes them more symmetric (arXiv:2309.02214).

Layers, activation and learning rule are the paper's; two hidden layers of a quarter of the width learn from a part of Fashion-MNIST, for
a few epochs, at several learning rates, which fall to zero along a cosine. Backward weights are turned to an exact angle and kept as large
as the forward ones. An image for which a network swings on instead of settling counts as not recognised, and where one is among those
whose gradients are compared, the seed is left out of the comparison.
"""

from __future__ import annotations

import jax
import numpy as np

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Nudging as Nudging
from .config import Training as Training
from .figures import draw as draw
from .judging import judge
from .nudging import measure_nudging
from .training import ANGLES, Images, families, train

PRECISION = "double"
SCALES = {
    "smoke": Config(
        Training(
            data="digits", n_train=200, n_test=100, pool=8, width=24, batch_size=20, epochs=2, sgd_rates=(0.03,), adam_rates=(1e-3,),
            free_steps=60, watched=20, seeds=3,
        ),
        Nudging(radii=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0), points=(1, 2, 4, 6), steps=200, examples=3),
    ),
    "laptop": Config(),
    "full": Config(
        Training(
            n_train=60_000, n_test=10_000, pool=28, width=256, gain=1.0, epochs=50, sgd_rates=(0.01,), adam_rates=(1e-4,), tolerance=0.0,
        ),
        Nudging(),
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: the images; of every run its parameters, their memory and a copy of each; probes, and what backpropagation keeps in time."""
    c, nudging = config.training, config.nudging
    n_units = 2 * c.width + 10
    n_params = c.pool**2 * c.width + 2 * c.width**2 + 20 * c.width + n_units + 110
    n_runs = c.seeds * max(sum(len(family.lanes) for family in members.values()) for members in families(c).values())
    # Parameters and three memories, and a second copy while a step replaces them.
    runs = 4 * n_params * 8 * n_runs
    images = 4 * (c.n_train + c.n_test) * (c.pool**2 + 6 * n_units)
    double = 8 * (4 * nudging.n_probes * n_units + 6 * nudging.steps * nudging.examples * n_units + 12 * nudging.examples * n_units**2)
    return runs + images + double + 8 * c.seeds * c.epochs * c.n_train


def run(config: Config, session: Session) -> Findings:
    """Trains networks of both wirings, then takes the biases of those of three angles apart."""
    images = Images.load(config.training, session)
    key_chain, key_loop, key_nudging = jax.random.split(session.key, 3)
    trees, networks = train(config.training, "chain", images, session, key_chain)
    trees |= train(config.training, "loop", images, session, key_loop)[0]
    # Those of the first, smallest rate.
    arms = trees["angles"].arm.values.tolist()
    chosen = np.array([arms.index(f"EP {angle:g}") for angle in ANGLES])
    measured = jax.tree.map(lambda w: w[:, chosen, 0], networks["angles"])
    trees["nudging"] = measure_nudging(config.nudging, images, measured, session, key_nudging)
    return judge(config, trees, session)
