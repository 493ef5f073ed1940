"""What interpolation makes of the true solution's values at the constrained points, block by block."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator

from .config import Config
from .training import Trained


def interpolate_all(config: Config, trained: Trained) -> xr.Dataset:
    """For every seed the mean relative error over its held-out states, on the span of the training.

    An interpolant is given what a block's solve is given: the sampled points, and the points of the initial and boundary conditions. Those
    of the other blocks lie outside of it and are left out.
    """
    seeds = list(zip(trained.judged_on[:, :, : config.trained_times], trained.judged_at, strict=True))
    both = {
        "error": [interpolation_error(config, truth, points, with_conditions=True) for truth, points in seeds],
        "sampled_only_error": [interpolation_error(config, truth, points, with_conditions=False) for truth, points in seeds],
    }
    return xr.Dataset({name: (("seed",), 100 * np.array(values), {"units": "%"}) for name, values in both.items()})


def interpolation_error(config: Config, truth: np.ndarray, points: np.ndarray, *, with_conditions: bool) -> float:
    """Of one set of points, axes (block, point), for true fields, axes (state, time, place)."""
    times, width = truth.shape[1], config.places // config.blocks
    t, x = np.meshgrid(np.linspace(0, 1, times), np.linspace(0, 1, config.places), indexing="ij")
    known = np.zeros((config.blocks, config.times * width), bool)
    np.put_along_axis(known, points, True, axis=1)
    found = np.empty_like(truth)
    for k in range(config.blocks):
        columns = slice(k * width, (k + 1) * width)
        given = known[k].reshape(config.times, width)[:times].copy()
        if with_conditions:
            given[0] = True
            given[:, 0] |= k == 0
            given[:, -1] |= k == config.blocks - 1
        places = np.stack([t[:, columns], x[:, columns]], axis=-1)
        values = np.moveaxis(truth[:, :, columns], 0, -1)
        # Beyond the hull of the points there is no cubic: the nearest value.
        cubic = CloughTocher2DInterpolator(places[given], values[given])(places)
        nearest = NearestNDInterpolator(places[given], values[given])(places)
        found[:, :, columns] = np.moveaxis(np.where(np.isfinite(cubic), cubic, nearest), -1, 0)
    off = np.linalg.norm((found - truth).reshape(len(truth), -1), axis=1)
    return float(np.mean(off / np.linalg.norm(truth.reshape(len(truth), -1), axis=1)))
