"""The network and the tasks that all peers of meta-learning are given: numpy alone, so that any environment can make the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

TASKS, POINTS, WIDTH, INNER_STEPS, INNER_RATE = 6, 50, 64, 3, 0.1
GROUP = f"outer gradient of a Hamiltonian network, {TASKS} tasks of {POINTS} points, {INNER_STEPS} inner steps, width {WIDTH}"


def tasks() -> list[np.ndarray]:
    """States and rates to adapt to, and to be judged by: of a field that an energy has."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(2):
        states = random.uniform(-1, 1, size=(TASKS, POINTS, 4))
        q, p = states[..., :2], states[..., 2:]
        found += [states, np.concatenate([p, -np.sin(q)], axis=-1)]
    return found


def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights (out, in) and biases, the read-out's last."""
    random = np.random.default_rng(1)
    sizes = (4, WIDTH, WIDTH, 1)
    return [(random.normal(0, np.sqrt(1 / m), (n, m)), random.normal(0, 0.1, n)) for m, n in pairwise(sizes)]
