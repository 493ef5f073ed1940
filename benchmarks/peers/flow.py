"""The batch and the network that all peers of flow matching are given: numpy alone, so that any environment can make the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

BATCH, WIDTH, DEPTH = 1024, 128, 4
GROUP = f"flow-matching loss and its gradient, batch of {BATCH}, perceptron of {DEPTH} × {WIDTH}"
PATHS = ("straight", "trigonometric", "preserving")


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, data in the plane, and times short of 1."""
    random = np.random.default_rng(0)
    return random.normal(size=(BATCH, 2)), random.uniform(-1.7, 1.7, size=(BATCH, 2)), random.uniform(0, 0.999, BATCH)


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases of a network of place and time."""
    random = np.random.default_rng(1)
    sizes = (3, *(WIDTH for _ in range(DEPTH)), 2)
    return [(random.normal(0, np.sqrt(2 / m), (m, n)), random.normal(0, 0.1, n)) for m, n in pairwise(sizes)]
