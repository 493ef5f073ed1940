"""Spearman's rank correlation, without the second that scipy.stats takes to import."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_correlation(x: Sequence[float] | np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row with x; ties share their mean rank, and a row without any order has none: zero.

    **Arguments:** `x`: n numbers; `rows`: of n numbers each.

    >>> rank_correlation([1, 2, 3], np.array([[10.0, 20.0, 40.0], [3.0, 2.0, 1.0], [7.0, 7.0, 7.0]])).tolist()
    [1.0, -1.0, 0.0]
    """
    ranks, order = np.stack([_ranks(row) for row in rows]), _ranks(np.asarray(x, float))
    spread = np.sqrt((ranks**2).sum(axis=1) * (order**2).sum())
    return np.where(spread > 0, ranks @ order / np.where(spread > 0, spread, 1), 0.0)


def _ranks(row: np.ndarray) -> np.ndarray:
    """Ranks less their mean."""
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + len(row)) / 2)[place]
