"""The inputs that every contestant is given, and what must come out. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

S, D, P = 1000, 200, 200
"Teacher features, samples and student features of the largest loss."
SIZES = (20, 50, 100, 200)
CURVE = "learning curve of 4 sizes, 1000 features"
GRID = "losses at 9 pairs of sizes, 1000 features"
THEORY = "theory of a spectrum of 200000, 8 sizes"
DIMENSION = "intrinsic dimension of 5000 points in 20 dimensions"
KERNELS = "NNGP and tangent kernel, 1000 x 1000 inputs, 2 hidden layers"


def regression() -> dict[str, np.ndarray]:
    """A covariance that is not diagonal, samples and projections."""
    random = np.random.default_rng(0)
    Q = np.linalg.qr(random.normal(size=(S, S)))[0]
    spectrum = np.arange(1.0, S + 1) ** -2
    root = (Q * np.sqrt(spectrum)) @ Q.T
    return {"C": (Q * spectrum) @ Q.T, "Phi": random.normal(size=(D, S)) @ root, "Pr": random.normal(size=(P, S))}


def points() -> np.ndarray:
    """Of a cube of five dimensions in twenty."""
    random = np.random.default_rng(0)
    return random.uniform(size=(5000, 5)) @ np.linalg.qr(random.normal(size=(20, 5)))[0].T


def inputs() -> np.ndarray:
    """For kernels."""
    return np.random.default_rng(0).normal(size=(1000, 64))


def checks(kernel: Any) -> dict[str, float]:
    """Two entries of a kernel, for comparison between environments."""
    return {"first off-diagonal entry": float(kernel[0, 1]), "first diagonal entry": float(kernel[0, 0])}
