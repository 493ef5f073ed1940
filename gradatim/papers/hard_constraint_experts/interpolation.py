"""What interpolation makes of the true solution's values at the constrained points, block by block, and the network between them."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.interpolate import NearestNDInterpolator

from .between import cubic_at, given_to
from .config import Config
from .training import Trained


def interpolate_all(config: Config, trained: Trained) -> xr.Dataset:
    """For every seed the mean relative error over its held-out states, on the span of the training and between the given points alone.

    An interpolant is given what a block's solve is given: the sampled points, and the points of the initial and boundary conditions. Those
    of the other blocks lie outside of it and are left out.
    """
    seeds = list(zip(trained.judged_on[:, :, : config.trained_times], trained.judged_at, trained.between, strict=True))
    both = {
        "error": [interpolation_error(config, truth, points) for truth, points, _ in seeds],
        "sampled_only_error": [interpolation_error(config, truth, points, with_conditions=False) for truth, points, _ in seeds],
        "between_error": [interpolation_error(config, truth, points, within) for truth, points, within in seeds],
    }
    data = {name: (("seed",), 100 * np.array(values), {"units": "%"}) for name, values in both.items()}
    data["network_between_error"] = (("seed",), trained.between_error, {"units": "%"})
    data["between_share"] = (("seed",), trained.between.mean(axis=(1, 2)), {"units": "1"})
    return xr.Dataset(data)


def interpolation_error(
    config: Config, truth: np.ndarray, points: np.ndarray, within: np.ndarray | None = None, *, with_conditions: bool = True
) -> float:
    """Of one set of points, axes (block, point), for true fields, axes (state, time, place); everywhere, or where `within` says."""
    found = interpolated(config, truth, points, with_conditions=with_conditions)
    chosen = np.ones(truth.shape[1:], bool) if within is None else within
    off = np.linalg.norm((found - truth)[:, chosen], axis=1)
    return float(np.mean(off / np.linalg.norm(truth[:, chosen], axis=1)))


def interpolated(config: Config, truth: np.ndarray, points: np.ndarray, *, with_conditions: bool = True) -> np.ndarray:
    """What the interpolants of all blocks say; beyond the hull of its points a block has no cubic: the nearest value."""
    values = np.moveaxis(truth, 0, -1)
    given = given_to(config, points, truth.shape[1], with_conditions=with_conditions)
    cubic = cubic_at(config, given, values)
    nearest = cubic_at(config, given, values, NearestNDInterpolator)
    return np.moveaxis(np.where(np.isfinite(cubic), cubic, nearest), -1, 0)
