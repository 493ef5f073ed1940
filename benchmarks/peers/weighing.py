"""Cosines to be weighed so that diffusion with sorption holds, on 32 blocks: what ours and the peers solve."""

from __future__ import annotations

from typing import Any

import numpy as np

FORWARD = "weights of 32 blocks, 8 functions, 242 rows each"
BOTH = "the same, and the gradient in all terms"
RIDGE, TOLERANCE, MAX_STEPS = 1e-4, 1e-6, 50
AGREEMENT = 1e-3
"Largest relative distance of weights and gradients from those of a much closer solution."
BLOCKS, STATES, POINTS, BASIS, TIMES, PLACES = 4, 8, 128, 8, 26, 64


def problem() -> dict[str, np.ndarray]:
    """Terms of the equation, axes (solve, row, function), those of the conditions, axes (row, function), and a cotangent."""
    random = np.random.default_rng(0)
    t, x = np.linspace(0, 1, TIMES), np.linspace(0, 1, PLACES)
    orders = sorted(((i, j) for i in range(BASIS) for j in range(BASIS)), key=lambda pair: (sum(pair), pair))[:BASIS]
    i, j = (np.pi * np.array(axis) for axis in zip(*orders, strict=True))
    cos_t, sin_t = np.cos(i * t[:, None]), np.sin(i * t[:, None])
    cos_x, sin_x = np.cos(j * x[:, None]), np.sin(j * x[:, None])
    value = cos_t[:, None] * cos_x[None]
    along_t, along_xx = -i * sin_t[:, None] * cos_x[None], -(j**2) * value
    terms: dict[str, list[np.ndarray]] = {"value": [], "t": [], "xx": []}
    width = PLACES // BLOCKS
    for _ in range(STATES):
        for k in range(BLOCKS):
            rows = random.permutation(TIMES * width)[:POINTS]
            for name, field in (("value", value), ("t", along_t), ("xx", along_xx)):
                terms[name].append(field[:, k * width : (k + 1) * width].reshape(-1, BASIS)[rows])
    return {name: np.stack(blocks) for name, blocks in terms.items()} | {
        "initial": value[0],
        "left": value[1:, 0],
        "right": value[1:, -1],
        "right_slope": -j * cos_t[1:] * sin_x[-1],
        "state": np.repeat(random.uniform(0.02, 0.2, STATES), BLOCKS),
        "cotangent": random.normal(size=(STATES * BLOCKS, BASIS)),
    }


def rows(fields: Any, state: Any, xp: Any) -> Any:
    """All rows of one solve in non-dimensional time, each group over the root of its number; `xp` is NumPy or that of JAX."""
    value, t, xx, initial, left, right, right_slope = fields
    positive = xp.where(value > 0, value, 0.0) + 1e-6
    retardation = 1 + (1 - 0.29) / 0.29 * 2880 * 3.5e-4 * 0.874 * positive ** (0.874 - 1)
    groups = (t - 500 * 5e-4 / retardation * xx, (initial - state) / 0.1, left - 1, right + 5e-4 * right_slope)
    return xp.concatenate([group / group.shape[0] ** 0.5 for group in groups])


LOCAL = ("value", "t", "xx")
SHARED = ("initial", "left", "right", "right_slope")


def distance(found: Any, exact: Any) -> float:
    """Relative, of all together."""
    return float(np.linalg.norm(np.asarray(found) - np.asarray(exact)) / np.linalg.norm(np.asarray(exact)))
