"""The batch, the network and the path that all peers of multiplicative diffusion are given: numpy alone, for any environment."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

BATCH, DIM, WIDTH, DEPTH = 512, 64, 256, 3
SIGMA, STEPS, POINTS = 0.8, 100, 256
LOSS_GROUP = f"multiplicative score-matching loss and its gradient, batch of {BATCH}, perceptron of {DEPTH} × {WIDTH}"
SAMPLER_GROUP = f"sign-preserving sampler, {STEPS} steps of {POINTS} points in {DIM} dimensions, perceptron of {DEPTH} × {WIDTH}"


def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data between one and two, noise, and times."""
    random = np.random.default_rng(0)
    return random.uniform(1, 2, (BATCH, DIM)), random.normal(size=(BATCH, DIM)), random.uniform(0.01, 1, BATCH)


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (in, out) and biases of a network of time and the logarithm of a point."""
    random = np.random.default_rng(1)
    sizes = (DIM + 1, *(WIDTH for _ in range(DEPTH)), DIM)
    return [(random.normal(0, np.sqrt(1 / m), (m, n)), random.normal(0, 0.1, n)) for m, n in pairwise(sizes)]


def starts() -> np.ndarray:
    """Points of the noise that a sampler begins with."""
    return np.exp(SIGMA * np.random.default_rng(2).normal(size=(POINTS, DIM)))
