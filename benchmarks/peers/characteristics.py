"""Weights of a displacement and a state, and the points they are held to, for all contestants: viscous Burgers along characteristics."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

WIDTH, DEPTH_PATH, DEPTH_STATE = 50, 2, 5
PLACES, TIMES = 64, 50
DIFFUSIVITY = 0.01
PATH_WEIGHT, STATE_WEIGHT, INITIAL_WEIGHT = 10.0, 1.0, 100.0
Layers = list[tuple[np.ndarray, np.ndarray]]


def networks() -> tuple[Layers, Layers]:
    """Weights and biases of both networks; the displacement is small, so that no paths cross."""
    random = np.random.default_rng(0)

    def network(depth: int, last: float) -> Layers:
        sizes = (3, *(WIDTH for _ in range(depth)), 1)
        layers = []
        for m, n in pairwise(sizes):
            gain = (last if n == 1 else 1.0) / np.sqrt(m)
            layers.append((gain * random.uniform(-1, 1, (n, m)), gain * random.uniform(-1, 1, n)))
        return layers

    return network(DEPTH_PATH, 0.1), network(DEPTH_STATE, 1.0)


def points() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and times of all points, and the labels at the start."""
    labels = 2 * np.pi * np.arange(PLACES) / PLACES
    return np.tile(labels, TIMES), np.repeat(np.linspace(0, 1, TIMES), PLACES), labels
