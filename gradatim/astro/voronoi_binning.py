"""Pixels joined until every bin has the same signal to noise: M. Cappellari & Y. Copin, MNRAS 342, 345 (2003)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

ROUNDNESS = 0.3
"How much further than in a disc of its area the outermost pixel of a growing bin may lie."
ENOUGH = 0.8
"Of the target: bins that stop growing below it are dissolved."
_MAX_STEPS, _AT_ONCE = 100, 4096


class VoronoiBins(NamedTuple):
    """To which bin each pixel belongs, and what the bins are."""

    number: Int[np.ndarray, " pixels"]  # from 0, in the order in which the bins grew
    x: Float[np.ndarray, " bins"]  # mean of the pixels
    y: Float[np.ndarray, " bins"]
    signal_to_noise: Float[np.ndarray, " bins"]
    n_pixels: Int[np.ndarray, " bins"]


def voronoi_bin(
    x: Float[np.ndarray, " pixels"],
    y: Float[np.ndarray, " pixels"],
    signal: Float[np.ndarray, " pixels"],
    noise: Float[np.ndarray, " pixels"],
    target: float,
) -> VoronoiBins:
    """Compact bins of about equal signal to noise, Σ signal / √Σ noise²: the noise of pixels is taken for independent.

    From the brightest pixel outwards bins grow by the nearest free pixel, as long as it touches the bin, the bin stays round and comes
    closer to the target. Pixels of bins that did not get there go to the nearest one that did. The centroids zᵢ of the bins then
    share out the pixels anew, and again, until none changes its bin:

        pixel at p → the bin of least |p - zᵢ| / δᵢ,     δᵢ = √(Aᵢ / (S/N)ᵢ)

    with its area Aᵢ: weights by S. Diehl & T. S. Statler, MNRAS 368, 497 (2006), eq. 4, so that bins of too much signal shrink. The
    target is reached on average, with a scatter of some per cent.

    Sum fluxes over a bin, and add their variances, before any ratio is formed: `np.bincount(bins.number, weights=flux)`. In NumPy, in
    double precision; neither compiled nor differentiable.

    **Arguments:** `x`, `y`: centres of equal square pixels, in one unit; `signal` and its standard deviation `noise` > 0, without the
    pixels that are masked; `target`: signal to noise of a bin, > 0.

    **Raises:** `ValueError` for shapes that differ, numbers that are not finite, noise that is not positive, pixels at one place, or a
    target that all pixels together do not reach.

    >>> x, y = (part.ravel() for part in np.mgrid[0.0:12.0, 0.0:12.0])
    >>> bins = voronoi_bin(x, y, np.exp(-np.hypot(x - 6, y - 6) / 3), np.full(144, 0.1), 10.0)
    >>> print(f"{len(bins.x)} bins of {bins.n_pixels.min()} pixels and more, signal to noise {bins.signal_to_noise.mean():.0f}")
    11 bins of 1 pixels and more, signal to noise 10
    """
    parts = {"x": x, "y": y, "signal": signal, "noise": noise}
    x, y, signal, noise = (np.asarray(part, float) for part in parts.values())
    for name, values in zip(parts, (x, y, signal, noise), strict=True):
        if values.shape != x.shape or values.ndim != 1:
            raise ValueError(f"{name} must list one number a pixel, as x of shape {x.shape} does, got shape {values.shape}")
        if bad := int((~np.isfinite(values)).sum()):
            raise ValueError(f"{name} must be finite, got {bad} of {values.size} pixels that are not: leave masked pixels out")
    if bad := int((noise <= 0).sum()):
        raise ValueError(f"noise must be positive, got {bad} of {noise.size} pixels where it is not: leave masked pixels out")
    total = signal.sum() / np.sqrt((noise**2).sum()) if signal.size else 0.0
    if not 0 < target <= total:
        raise ValueError(f"target must be positive and at most {total:.4g}, what all pixels together have, got {target}")
    points, variance = np.stack([x, y], axis=1), noise**2
    # Of pixels at regular places, the least distance is their side.
    pixel = float(KDTree(points).query(points, k=2)[0][:, 1].min()) if len(points) > 1 else 1.0
    if pixel == 0:
        raise ValueError("x and y must differ between pixels, got two at one place")
    return _tessellated(points, signal, variance, _accreted(points, signal, variance, target, pixel))


def _accreted(points: np.ndarray, signal: np.ndarray, variance: np.ndarray, target: float, pixel: float) -> np.ndarray:
    """Each pixel's bin, as it grew; every pixel is in one that got near the target."""
    tree = KDTree(points)
    number, is_free = np.full(len(points), -1), np.ones(len(points), bool)
    n_bins, next_pixel, taken = 0, int(np.argmax(signal / np.sqrt(variance))), np.zeros(2)
    while True:
        members = _grown(next_pixel, points, tree, signal, variance, is_free, target, pixel)
        taken += points[members].sum(axis=0)
        if signal[members].sum() / np.sqrt(variance[members].sum()) >= ENOUGH * target:
            number[members] = n_bins
            n_bins += 1
        free = np.flatnonzero(is_free)
        if not free.size:
            break
        next_pixel = int(free[np.argmin(_squared(points[free] - taken / (len(points) - free.size)))])
    if n_bins == 0:
        # No compact bin gets there: all the light there is makes one.
        return np.zeros(len(points), int)
    left = number < 0
    number[left] = KDTree(_means(points[~left], number[~left])).query(points[left])[1]
    return number


def _grown(
    start: int,
    points: np.ndarray,
    tree: KDTree,
    signal: np.ndarray,
    variance: np.ndarray,
    is_free: np.ndarray,
    target: float,
    pixel: float,
) -> list[int]:
    """The pixels that a bin takes up from where it starts, marked as taken."""
    members, step = [start], 1.2 * pixel
    is_free[start] = False
    inside, centre, radius = points[[start]], points[start], 0.0
    light, spread = signal[start], variance[start]
    while True:
        # What touches the bin is no further from its centroid.
        near = np.array(tree.query_ball_point(centre, radius + step))
        near = near[is_free[near]]
        if not near.size:
            return members
        pick = int(near[np.argmin(_squared(points[near] - centre))])
        touches = _squared(inside - points[pick]).min() < step**2
        inside = np.concatenate([inside, points[[pick]]])
        centre = inside.mean(axis=0)
        radius = np.sqrt(_squared(inside - centre).max())
        is_round = radius <= (1 + ROUNDNESS) * pixel * np.sqrt(len(inside) / np.pi)
        before, after = light / np.sqrt(spread), (light + signal[pick]) / np.sqrt(spread + variance[pick])
        if not (touches and is_round and abs(after - target) < abs(before - target)):
            return members
        members.append(pick)
        is_free[pick] = False
        light, spread = light + signal[pick], spread + variance[pick]


def _tessellated(points: np.ndarray, signal: np.ndarray, variance: np.ndarray, number: np.ndarray) -> VoronoiBins:
    """The bins at rest: a Voronoi tessellation about their own centroids."""
    for _ in range(_MAX_STEPS):
        bins = _summed(points, signal, variance, number)
        # A bin whose noise outweighs its light keeps its area.
        scale = np.sqrt(bins.n_pixels / np.maximum(bins.signal_to_noise, 1e-3))
        centres = np.stack([bins.x, bins.y], axis=1)
        # Some pixels at a time: the distances are as many as pixels times bins.
        parts = np.array_split(points, len(points) // _AT_ONCE + 1)
        moved = np.concatenate([np.argmin(cdist(part, centres, "sqeuclidean") / scale**2, axis=1) for part in parts])
        # A bin that no pixel chose is gone.
        moved = np.unique(moved, return_inverse=True)[1]
        if (moved == number).all():
            break
        number = moved
    return _summed(points, signal, variance, number)


def _summed(points: np.ndarray, signal: np.ndarray, variance: np.ndarray, number: np.ndarray) -> VoronoiBins:
    x, y = _means(points, number).T
    ratio = np.bincount(number, signal) / np.sqrt(np.bincount(number, variance))
    return VoronoiBins(number, x, y, ratio, np.bincount(number))


def _means(points: np.ndarray, number: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(number, row) for row in points.T], axis=1) / np.bincount(number)[:, None]


def _squared(offsets: np.ndarray) -> np.ndarray:
    return (offsets**2).sum(axis=-1)
