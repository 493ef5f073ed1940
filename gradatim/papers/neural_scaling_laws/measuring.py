"""Exponents and deviations as measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from gradatim.lab import Measure, host_generator
from gradatim.landscape import ScalingFit, fit_scaling_law


def slope(fit: ScalingFit, units: str = "draws") -> Measure:
    """The slope of a loss against its size: the exponent with its sign."""
    return Measure(-fit.exponent, -fit.high, -fit.low, f"bootstrap over {units}")


def exponents(sizes: Sequence[int], losses: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """One exponent for each seed, of losses with axes (seed, size)."""
    return np.array([fit_scaling_law(np.array(sizes, float), row[None], window=window, n_resamples=2).exponent for row in losses])


def largest_deviation(ratios: Sequence[Measure]) -> tuple[int, Measure]:
    """Which of several ratios is farthest from one, and |ratio - 1| with its interval."""
    off = [abs(ratio.intervals()[0][0] - 1) for ratio in ratios]
    worst = int(np.argmax(off))
    _, low, high = ratios[worst].intervals()[0]
    ends = sorted((abs(low - 1), abs(high - 1)))
    return worst, Measure(off[worst], 0.0 if low <= 1 <= high else ends[0], ends[1], ratios[worst].method)


def normals(key: PRNGKeyArray, *shape: int) -> Float[np.ndarray, ...]:
    """Independent, of unit variance."""
    return host_generator(key).standard_normal(shape)
