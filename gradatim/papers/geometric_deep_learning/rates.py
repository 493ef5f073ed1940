"""Each seed at the rate that the other seeds choose, and how that reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gradatim.lab import choice_by_others


def chosen_by_others(held: np.ndarray, *, maximise: bool = False) -> np.ndarray:
    """Numbers of the rates that are best in the mean of all other seeds: `held` over rate, seed and more, the choice over seed and more."""
    more = [f"axis {i}" for i in range(2, held.ndim)]
    return choice_by_others(xr.DataArray(held, dims=("rate", "seed", *more)), "rate", maximise=maximise).values


def at(judged: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """What is judged, over rate, seed and more, of each seed at its rate."""
    return np.take_along_axis(judged, choice[None], axis=0)[0]


def in_words(choice: np.ndarray, rates: Sequence[float]) -> str:
    """The rates of all seeds.

    >>> in_words(np.array([0, 0, 1]), (0.01, 0.03)), in_words(np.array([1, 1, 1]), (0.01, 0.03))
    ('0.01 (2 seeds) and 0.03 (1)', '0.03')
    """
    numbers, counts = np.unique(choice, return_counts=True)
    if len(numbers) == 1:
        return f"{rates[numbers[0]]:g}"
    return " and ".join(
        f"{rates[k]:g} ({n}{'' if i else ' seed' if n == 1 else ' seeds'})" for i, (k, n) in enumerate(zip(numbers, counts, strict=True))
    )


def on_edge(choice: np.ndarray, rates: Sequence[float]) -> bool:
    """Whether some seed's rate is the smallest or the largest."""
    return bool(np.isin(choice, (0, len(rates) - 1)).any())
