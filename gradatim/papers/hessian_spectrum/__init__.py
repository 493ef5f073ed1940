"""Outliers and bulk of the Hessian, on clusters and on MNIST (Sagun, Evci, Güney, Dauphin and Bottou, arXiv:1706.04454).

Clusters, initialisation and plain gradient descent are those of the authors' code, with one difference: runs that are compared stop at
the same loss, for late in training every eigenvalue of separable data goes to zero with the loss, and a count that is tied to the
largest one follows.
"""

from __future__ import annotations

import jax

from gradatim.lab import Findings, Session

from .clusters import compare_clusters, compare_overlaps, compare_widths
from .config import ClusterConfig as ClusterConfig
from .config import Config as Config
from .config import SwitchConfig as SwitchConfig
from .config import WidthConfig as WidthConfig
from .figures import draw as draw
from .switch import switch_batches

SCALES = {
    "smoke": Config(
        seeds=3,
        switch_seeds=3,
        dimensions=2,
        width=WidthConfig(widths=(4, 6), overlap=1.0, initial_std=0.3, steps=500, target=1e-2),
        cluster=ClusterConfig(width=6, clusters=(2, 4), steps=300, target=0.1, overlaps=(1.0, 8.0), overlap_steps=200),
        # One width for both regimes, whose programs are then the same.
        switch=SwitchConfig(
            examples=50,
            over_width=8,
            under_width=8,
            large_steps=2000,
            over_loss=1.5,
            under_loss=1.5,
            over_rate=0.1,
            small_steps=2000,
            points=7,
            lanczos_steps=20,
        ),
        density_steps=23,
        density_probes=4,
    ),
    "laptop": Config(),
    "full": Config(
        seeds=5,
        switch_seeds=5,
        examples=1000,
        width=WidthConfig(data="mnist", widths=(10, 30, 50, 70), target=1e-3, steps=100_000),
        switch=SwitchConfig(over_width=200, large_steps=50_000, small_steps=100_000),
        max_size=10_000,
        density_steps=100,
        density_probes=30,
    ),
}
PRECISION = "double"


def memory(config: Config) -> int:
    """Peak bytes: a few dense matrices of the widest network, for every seed its parameters and activations."""
    classes, features = (10, 49) if config.width.data == "mnist" else (2, config.dimensions)
    width = max(config.width.widths)
    size = features * width + width + width**2 + width + classes * (width + 1)
    switched = config.switch.over_width
    rows = config.examples * max(classes, *config.cluster.clusters) * min(size, config.max_size)
    basis = config.switch.lanczos_steps * (60 * switched + switched**2)
    activations = 20 * max(config.examples, config.switch.examples) * max(width, switched) * max(config.seeds, config.switch_seeds)
    return int(8 * (5 * min(size, config.max_size) ** 2 + 4 * rows + basis + activations))


def run(config: Config, session: Session) -> Findings:
    """Widths, clusters, overlaps, and the switch of batches."""
    parts = (compare_widths, compare_clusters, compare_overlaps, switch_batches)
    keys = iter(jax.random.split(session.key, 8))
    return Findings.joined(part(config, session, next(keys)) for part in parts)
