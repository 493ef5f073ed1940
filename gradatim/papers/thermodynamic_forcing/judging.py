"""What is read off the boxes' histories where the answer hangs on the look that is taken."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradatim.lab import Measure, best_by_others

WINDOW = (0.2, 0.6)
"η between which the heat flux is compared with its linear growth."


def early_error(flux: np.ndarray, eta: np.ndarray, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """The largest relative distance of the heat flux from its linear growth in the window, for each seed, and the look that has it."""
    early = np.flatnonzero((eta > WINDOW[0]) & (eta < WINDOW[1]))
    if not early.size:
        early = np.array([eta.size - 1])
    distance = np.abs(flux[:, early] / (slope * eta[early]) - 1)
    return distance.max(1), early[distance.argmax(1)]


def final_minus_peak(ratio: np.ndarray, looks: int) -> Measure:
    """Of means over so many looks, the last less that at the peak which the other seeds have before it, mean over seeds.

    A seed's own peak is never below its end. Nor is the end a candidate: where the ratio still rises, all would have their peak there.
    For the interval peaks are sought again without each seed.
    """
    means = np.lib.stride_tricks.sliding_window_view(ratio, looks, axis=1).mean(-1)
    before = xr.DataArray(means[:, :-looks], dims=("seed", "look"))

    def mean(kept: np.ndarray) -> float:
        return (means[kept, -1] - best_by_others(before[kept], "look", maximise=True).values).mean(dtype=np.float64)

    return Measure.leave_one_out(mean, len(means))
