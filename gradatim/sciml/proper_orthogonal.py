"""Proper orthogonal decomposition: the few shapes that a set of snapshots is made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Modes(NamedTuple):
    """Snapshots ≈ mean + coefficientsᵀ · modes."""

    modes: Float[np.ndarray, " rank *shape"]
    "Orthonormal, the one that holds most first."
    coefficients: Float[np.ndarray, "rank snapshots"]
    singular_values: Float[np.ndarray, " snapshots"]
    "All of them, also beyond the rank."
    mean: Float[np.ndarray, " *shape"]
    "Zero unless snapshots were centred."

    @property
    def truncation_error(self) -> float:
        """What the modes leave of all snapshots together, relative in the Frobenius norm."""
        squares = self.singular_values**2
        return float(np.sqrt(squares[len(self.modes) :].sum() / max(squares.sum(), np.finfo(float).tiny)))


def pod(
    snapshots: Float[np.ndarray, " snapshots *shape"],
    rank: int | None = None,
    *,
    energy: float | None = None,
    center: bool = False,
    weights: Float[np.ndarray, " *shape"] | None = None,
) -> Modes:
    """The leading left singular vectors of snapshots as columns, on the host, in double precision.

    **Arguments:** `snapshots`: of any shape, along the first axis; `rank`: modes, or `energy` in (0, 1]: as many as hold that share of the
    sum of squares; `center`: whether the mean is taken off first. Not for fields that must be zero when their cause is: the mean then
    stands in for a mode, and no coefficients give zero; `weights`: positive, of the inner product, for instance a quadrature's, in which
    modes are then orthonormal.

    **Raises:** `ValueError` unless either rank or energy is given, for a rank beyond the number of snapshots or of entries, and for weights
    that are not positive.

    >>> t = np.linspace(0, 1, 9)
    >>> found = pod(np.stack([a * np.sin(t) + b * t**2 for a, b in ((1, 0), (0, 1), (1, 1), (2, -1))]), energy=1 - 1e-12)
    >>> found.modes.shape
    (2, 9)
    """
    if (rank is None) == (energy is None):
        raise ValueError(f"either rank or energy must be given, got rank {rank} and energy {energy}")
    count, shape = len(snapshots), snapshots.shape[1:]
    rows = snapshots.reshape(count, -1)
    most = min(rows.shape)
    if rank is not None and not 1 <= rank <= most:
        raise ValueError(f"rank must lie in [1, {most}] for {count} snapshots of {rows.shape[1]} entries, got {rank}")
    if energy is not None and not 0 < energy <= 1:
        raise ValueError(f"energy must lie in (0, 1], got {energy}")
    if weights is not None and not np.min(weights) > 0:
        raise ValueError(f"weights must be positive, got {np.min(weights)}")
    mean = rows.mean(axis=0) if center else np.zeros(rows.shape[1])
    root = np.ones(rows.shape[1]) if weights is None else np.sqrt(weights).ravel()
    left, values, right = np.linalg.svd((rows - mean[None]) * root[None], full_matrices=False)
    if rank is None:
        held = np.cumsum(values**2)
        rank = int(min(np.searchsorted(held, energy * held[-1] * (1 - np.finfo(float).eps)) + 1, most))
    modes = (right[:rank] / root[None]).reshape(rank, *shape)
    return Modes(modes, values[:rank, None] * left.T[:rank], values, mean.reshape(shape))
