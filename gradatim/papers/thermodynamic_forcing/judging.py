"""What is read off the boxes' histories where the answer hangs on the look that is taken."""

from __future__ import annotations

import numpy as np
import xarray as xr

from gradatim.lab import best_by_others

WINDOW = (0.2, 0.6)
"η between which the heat flux is compared with its linear growth."


def early_error(flux: np.ndarray, eta: np.ndarray, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """The largest relative distance of the heat flux from its linear growth in the window, for each seed, and the look that has it."""
    early = np.flatnonzero((eta > WINDOW[0]) & (eta < WINDOW[1]))
    if not early.size:
        early = np.array([eta.size - 1])
    distance = np.abs(flux[:, early] / (slope * eta[early]) - 1)
    return distance.max(1), early[distance.argmax(1)]


def final_minus_peak(ratio: np.ndarray, looks: int) -> np.ndarray:
    """Of means over so many looks, the last less that at the peak which the other seeds have before it, for each seed.

    A seed's own peak is never below its end. Nor is the end a candidate: where the ratio still rises, all would have their peak there.
    """
    means = np.lib.stride_tricks.sliding_window_view(ratio, looks, axis=1).mean(-1)
    before = xr.DataArray(means[:, :-looks], dims=("seed", "look"))
    return means[:, -1] - best_by_others(before, "look", maximise=True).values
