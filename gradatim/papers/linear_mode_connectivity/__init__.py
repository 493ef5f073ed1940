"""Barriers between networks that part early or late in training, and the curvature they are made of (arXiv:2406.16300).

The article's theorem, its toy and its settings could not be read: the integral of the curvature along the chord, the toys and the
networks here are standard ones, true or measurable whatever the article prints. Two arms, ReLU and tanh, share data and forks; where both
can be judged, the one that speaks against the claim is.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Arm as Arm
from .config import Config as Config
from .figures import draw as draw
from .judging import judge
from .lines import measure_layers, measure_lines, measure_plane
from .toys import run_linear, run_toys
from .training import Images, check_forks, train

PRECISION = "single"
SCALES = {
    "smoke": Config(
        data="digits", n_train=400, n_test=200, pool=8, width=32, batch_size=20, fork_epochs=(0, 2, 5), seeds=3,
        relu=Arm("relu", 2**0.5, 0.03, 8), tanh=Arm("tanh", 1.5, 0.1, 8),
        points=11, layer_points=5, nodes=10, watched=200, grid=9,
    ),
    "laptop": Config(),
    "full": Config(
        data="fashion-mnist", n_train=60_000, n_test=10_000, pool=28, width=512, hidden_layers=3, batch_size=128,
        fork_epochs=(0, 1, 2, 5, 10, 20), seeds=10, relu=Arm("relu", 2**0.5, 0.03, 60), tanh=Arm("tanh", 1.5, 0.1, 60), watched=5000,
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: the images; of every run its parameters, gradients and momentum, a copy of each, and its order; activations of one network."""
    sizes = [config.pool**2, *(config.width for _ in range(config.hidden_layers)), 10]
    n_params = sum((m + 1) * n for m, n in pairwise(sizes))
    n_runs = config.seeds * (2 * len(config.fork_epochs) + 1)
    epochs = max(config.relu.epochs, config.tanh.epochs)
    states = 8 * n_runs * n_params + 6 * epochs * n_params
    orders = 2 * n_runs * epochs * config.n_train
    activations = 6 * sum(sizes[1:]) * (config.n_train + n_runs * config.batch_size)
    return 4 * (sizes[0] * (config.n_train + config.n_test + n_runs * config.batch_size) + states + orders + activations)


def run(config: Config, session: Session) -> Findings:
    """Both arms, trained and measured, then the toys and the deep linear networks."""
    for arm in (config.relu, config.tanh):
        check_forks(config, arm)
    key_train, key_linear = jax.random.split(session.key)
    images = Images.load(config, session)
    trees: dict[str, xr.Dataset] = {}
    for name, arm in (("relu", config.relu), ("tanh", config.tanh)):
        # One key for both: they differ in what the arms say.
        runs = train(config, arm, images, session, key_train)
        trees[name] = measure_lines(config, runs, session, name)
        trees[f"{name}_layers"] = measure_layers(config, runs, session, name)
        if name == "tanh":
            trees["plane"] = measure_plane(config, runs, session, name)
    return Findings.joined([judge(trees, session), run_toys(session), run_linear(images, session, key_linear, config.seeds)])
