"""Which points the interpolant of a block is given, and which lie between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CloughTocher2DInterpolator

from .config import Config


def given_to(config: Config, points: np.ndarray, n_times: int, *, with_conditions: bool = True) -> np.ndarray:
    """Whether a point of the grid, axes (time, place), is one of a block's, axes (block, point), or of the conditions."""
    width = config.places // config.blocks
    known = np.zeros((config.blocks, config.times * width), bool)
    np.put_along_axis(known, points, True, axis=1)
    given = np.moveaxis(known.reshape(config.blocks, config.times, width), 0, 1).reshape(config.times, config.places)[:n_times]
    if with_conditions:
        given[0] = given[:, 0] = given[:, -1] = True
    return given


def points_between(config: Config, points: np.ndarray, n_times: int) -> np.ndarray:
    """Within the hull of what a block's interpolant is given and not given, axes (time, place): what there is to interpolate.

    No point is sampled at the last trained time, where the equation has no neighbour in time, and few at the edges of the blocks: what
    lies there is beyond the hull and is no matter of interpolation.
    """
    given = given_to(config, points, n_times)
    return np.isfinite(cubic_at(config, given, np.zeros((*given.shape, 1)))[..., 0]) & ~given


def cubic_at(config: Config, given: np.ndarray, values: np.ndarray, kind: Any = CloughTocher2DInterpolator) -> np.ndarray:
    """Interpolants, one a block, of the values at the given points, axes (time, place, …); not a number beyond the hull of its points."""
    t, x = np.meshgrid(np.linspace(0, 1, given.shape[0]), np.linspace(0, 1, given.shape[1]), indexing="ij")
    places = np.stack([t, x], axis=-1)
    blocks = []
    for columns in np.split(np.arange(config.places), config.blocks):
        chosen = given[:, columns]
        blocks.append(kind(places[:, columns][chosen], values[:, columns][chosen])(places[:, columns]))
    return np.concatenate(blocks, axis=1)
