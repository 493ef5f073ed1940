"""Pairs of points whose Monge gap all contestants take: numpy only."""

from __future__ import annotations

import numpy as np

N_POINTS = 256
EPSILONS = (0.2, 0.05, 0.01)
"Of costs with a mean near six."


def pairs() -> tuple[np.ndarray, np.ndarray]:
    """Points of the plane and their images under a map that is not optimal."""
    random = np.random.default_rng(0)
    x = random.normal(size=(N_POINTS, 2))
    return x, x @ np.array([[1.0, -1.0], [1.0, 0.5]]) + 0.5


def group(epsilon: float) -> str:
    """The name of the group."""
    return f"Monge gap of {N_POINTS} points with its gradient, ε = {epsilon:g}"
