"""The Poisson systems that all contestants solve: numpy and scipy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

SIDES = (32, 96)
"Cells a side of the box; networks are trained on the first."
RTOL = 1e-4
"Of the residual, relative to the right-hand side."


def matrix(side: int) -> sparse.csr_array:
    """-Δ with five points and h = 1, zero outside the box."""
    offsets: Any = [0, 1, -1]
    line = sparse.diags_array([2.0, -1.0, -1.0], offsets=offsets, shape=(side, side))
    return sparse.csr_array(sparse.kronsum(line, line))


def right_hand_side(side: int) -> np.ndarray:
    """A sum of Gaussian blobs of either sign, as a unit vector."""
    random = np.random.default_rng(0)
    place = (np.arange(side) + 0.5) / side
    centres, widths, heights = random.uniform(size=(6, 2)), random.uniform(0.04, 0.12, size=6), random.normal(size=6)
    profiles = [np.exp(-(((place - centres[:, i, None]) / widths[:, None]) ** 2) / 2) for i in (0, 1)]
    b = np.einsum("k,kx,ky->xy", heights, *profiles)
    return b / np.linalg.norm(b)


def group(side: int) -> str:
    """The name of the group."""
    return f"Poisson system of {side} × {side} cells to a residual of {RTOL:g}"


def left(side: int, x: np.ndarray) -> float:
    """‖b - A x‖ for a unit b."""
    return float(np.linalg.norm(right_hand_side(side).ravel() - matrix(side) @ np.asarray(x).ravel()))
