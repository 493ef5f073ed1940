"""The network, the noise and the path that all peers of flows of a score are given: numpy alone, so that any environment can make them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

DIM, WIDTH, DEPTH = 5, 64, 3
BETA = (0.1, 20.0)
END = 0.99
TOLERANCE = 1e-5
POINTS, STARTS, BATCH = 256, 64, 512
LIKELIHOOD = f"log-likelihood of {POINTS} points in {DIM} dimensions along the flow of a network, exact divergence, tolerance {TOLERANCE:g}"
DERIVATIVE = f"derivative of the flow of a network at {STARTS} points in {DIM} dimensions, tolerance {TOLERANCE:g}"
TRAINING = f"score matching of a potential network and its gradient, batch of {BATCH} in {DIM} dimensions, perceptron of {DEPTH} × {WIDTH}"


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases of a denoiser of place and time, small enough for a smooth flow."""
    random = np.random.default_rng(1)
    sizes = (DIM + 1, *(WIDTH for _ in range(DEPTH)), DIM)
    return [(random.normal(0, np.sqrt(1 / m), (m, n)), random.normal(0, 0.1, n)) for m, n in pairwise(sizes)]


def points(n: int) -> np.ndarray:
    """Standard normal ones."""
    return np.random.default_rng(0).normal(size=(n, DIM))


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, data and times."""
    random = np.random.default_rng(2)
    data = random.normal(size=(BATCH, DIM))
    return random.normal(size=(BATCH, DIM)), data / np.linalg.norm(data, axis=1)[:, None], random.uniform(0, END, BATCH)
