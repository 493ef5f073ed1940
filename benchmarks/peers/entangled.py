"""A convolution with 27 nested options, the same for all contestants. NumPy only."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

OUTS, INS, KERNELS = (16, 32, 64), (8, 16, 32), (3, 5, 7)
SIDE, BATCH = 8, 16
GROUP = f"loss and gradient of a mixed convolution, {len(OUTS) * len(INS) * len(KERNELS)} options, up to {OUTS[-1]} × {INS[-1]} × 7 × 7"


def combinations() -> list[tuple[int, int, int]]:
    """Channels out, channels in and side of the kernel of every option."""
    return list(itertools.product(OUTS, INS, KERNELS))


def problem() -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
    """Weights, distributions of the three choices, and images."""
    random = np.random.default_rng(0)
    weight = random.normal(size=(OUTS[-1], INS[-1], 7, 7)).astype(np.float32) / 40
    distributions = tuple(random.dirichlet(np.ones(3)).astype(np.float32) for _ in range(3))
    return weight, distributions, random.normal(size=(BATCH, INS[-1], SIDE, SIDE)).astype(np.float32)


def padded(weight: np.ndarray) -> list[np.ndarray]:
    """Each option's slice in its place among zeros."""
    slices = []
    for out, n_in, side in combinations():
        rim = (7 - side) // 2
        window = np.s_[:out, :n_in, rim : rim + side, rim : rim + side]
        one = np.zeros_like(weight)
        one[window] = weight[window]
        slices.append(one)
    return slices


def value(weight: np.ndarray, distributions: Any, x: np.ndarray) -> float:
    """The mean square of the result, by padding and summing, in double precision."""
    shares = [float(a) * float(b) * float(c) for a, b, c in itertools.product(*distributions)]
    mixed = np.sum([share * one.astype(float) for share, one in zip(shares, padded(weight), strict=True)], axis=0)
    images = np.pad(x.astype(float), ((0, 0), (0, 0), (3, 3), (3, 3)))
    y = np.zeros((BATCH, OUTS[-1], SIDE, SIDE))
    for i, j in np.ndindex(7, 7):
        y += np.einsum("oc,bchw->bohw", mixed[:, :, i, j], images[:, :, i : i + SIDE, j : j + SIDE], optimize=True)
    return float((y**2).mean())
