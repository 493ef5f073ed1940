"""Exponents of scaling laws with their intervals, and the dimension of data, on which they depend (Bahri et al., arXiv:2102.06701).

A floor that is fitted together with an exponent gives any exponent: here floors are measured, by the largest size or a closed form. All
of this works on the host, on NumPy's arrays: windows choose points by their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

EVERY_SIZE = (0.0, math.inf)


class ScalingFit(NamedTuple):
    """loss = prefactor · size^-exponent, with the 95 % interval of the exponent over resampled seeds."""

    exponent: float
    low: float
    high: float
    prefactor: float
    n_points: int


def fit_scaling_law(
    sizes: Real[np.ndarray, " sizes"],
    losses: Float[np.ndarray, "seeds points"],
    *,
    window: tuple[float, float] = EVERY_SIZE,
    n_resamples: int = 1000,
) -> ScalingFit:
    """The exponent of a loss that falls to nothing, least squares of its mean logarithm: where resolution limits.

    **Arguments:** `sizes` > 0 of samples, features or widths; `losses` > 0; `window`: the sizes that count, ends included: keep it away
    from D = P, where a peak stands, and below a twentieth of the number of teacher features; `n_resamples`: of the bootstrap over seeds,
    whose generator is fixed, so that the interval is a function of the losses alone; it is too narrow for few seeds (75 % instead of 95 %
    for three).

    **Raises:** `ValueError` for fewer than four sizes in the window, shapes that do not fit, or losses that are not positive.

    >>> sizes = np.array([16, 32, 64, 128])
    >>> fit = fit_scaling_law(sizes, 3.0 * np.stack([sizes**-0.5, 1.1 * sizes**-0.5]))
    >>> f"{fit.exponent:.3f} from {fit.low:.3f} to {fit.high:.3f}"
    '0.500 from 0.500 to 0.500'
    """
    x, y = _in_window(sizes, losses, window)
    if not (y > 0).all():
        raise ValueError(f"losses must be positive, got a minimum of {y.min()}")
    return _fitted(x, np.log(y), np.exp, n_resamples)


def fit_variance_limited(
    sizes: Real[np.ndarray, " sizes"],
    losses: Float[np.ndarray, "seeds points"],
    limit: Float[np.ndarray, " limits"],
    *,
    window: tuple[float, float] = EVERY_SIZE,
    n_resamples: int = 1000,
) -> ScalingFit:
    """The exponent by which a loss nears its limit, of the mean excess over seeds: one, where variance limits.

    Single draws may lie below the limit, their mean does not: it is averaged before the logarithm is taken. A resample whose mean lies
    below counts as any exponent.

    **Arguments:** `limit`: the loss of each seed at infinite size, measured and not fitted; all others as for
    [`fit_scaling_law`][gradatim.landscape.fit_scaling_law].

    **Raises:** as there, or `ValueError` for a mean excess that is not positive.

    >>> sizes = np.array([16, 32, 64, 128])
    >>> fit = fit_variance_limited(sizes, 0.5 + 2.0 / sizes[None], np.array([0.5]))
    >>> f"{fit.exponent:.2f}"
    '1.00'
    """
    if limit.shape != losses.shape[:1]:
        raise ValueError(f"limit must hold one loss for each of the {losses.shape[0]} seeds, got shape {limit.shape}")
    x, y = _in_window(sizes, losses, window)
    excess = y - limit[:, None]
    if not (excess.mean(axis=0) > 0).all():
        means = excess.mean(axis=0).tolist()
        raise ValueError(f"the mean excess over the limit must be positive at every size, got {means}: take more seeds or smaller sizes")
    return _fitted(x, excess, np.asarray, n_resamples)


def _in_window(sizes: np.ndarray, losses: np.ndarray, window: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    if losses.shape[1] != sizes.shape[0]:
        raise ValueError(f"losses must hold one value for each of the {sizes.shape[0]} sizes, got shape {losses.shape}")
    chosen = (sizes >= window[0]) & (sizes <= window[1])
    if chosen.sum() < 4:
        raise ValueError(f"window must hold at least 4 sizes, got {chosen.sum()} of {sizes.tolist()} in {window}")
    return sizes[chosen], losses[:, chosen]


def _fitted(x: np.ndarray, values: np.ndarray, loss_of: Callable[[np.ndarray], np.ndarray], n_resamples: int) -> ScalingFit:
    """Lines through the logarithms of `loss_of` the mean of values, over all seeds and over resampled ones."""
    draws = np.random.default_rng(0).integers(len(values), size=(n_resamples, len(values)))
    losses = loss_of(np.concatenate([values.mean(axis=0)[None], values[draws].mean(axis=1)]))
    is_lost = np.any(losses <= 0, axis=1)
    slopes, offsets = np.polyfit(np.log(x), np.log(np.where(is_lost[:, None], 1.0, losses)).T, 1)
    exponent, resampled = float(-slopes[0]), -slopes[1:]
    low = np.percentile(np.where(is_lost[1:], -math.inf, resampled), 2.5, method="lower")
    high = np.percentile(np.where(is_lost[1:], math.inf, resampled), 97.5, method="higher")
    return ScalingFit(exponent, min(float(low), exponent), max(float(high), exponent), float(np.exp(offsets[0])), len(x))


def intrinsic_dimension(points: Real[np.ndarray, "n features"], neighbours: Sequence[int] = (2, 3, 4)) -> float:
    """The dimension of the manifold near which points lie (Levina and Bickel, NIPS 2004), averaged over numbers of neighbours.

        1/d̂ₖ = mean over x of 1/(k-1) Σ_{j<k} ln(Tₖ(x)/Tⱼ(x)),     Tⱼ(x): the distance to the j-th nearest neighbour

    Inverse dimensions are averaged over points (MacKay and Ghahramani), and for k = 2 the formula is the ratio of two neighbours alone
    (Facco et al., Sci. Rep. 7, 12140 (2017)). Below the truth in more than about ten dimensions, for want of points. On the host: no jit;
    a k-d tree finds the neighbours.

    **Arguments:** `points`: no two alike; `neighbours`: the k, from 2.

    **Raises:** `ValueError` for k below 2, fewer points than neighbours, or points that are repeated.

    >>> random = np.random.default_rng(0)
    >>> square_in_space = random.uniform(size=(1000, 2)) @ random.normal(size=(2, 5))
    >>> f"{intrinsic_dimension(square_in_space):.1f}"
    '2.0'
    """
    from scipy.spatial import KDTree

    most = max(neighbours)
    if min(neighbours) < 2 or most >= len(points):
        raise ValueError(f"neighbours must lie between 2 and the {len(points) - 1} others there are, got {tuple(neighbours)}")
    # Leaves larger than the default, for trees cut little away in many dimensions.
    distances = KDTree(points, leafsize=32).query(points, k=most + 1, workers=-1)[0][:, 1:]
    if not (distances[:, 0] > 0).all():
        raise ValueError(f"points must not repeat, got {int((distances[:, 0] == 0).sum())} with a copy: drop copies first")
    logs = np.log(distances)
    dimensions = [1 / np.mean(logs[:, k - 1] - logs[:, : k - 1].mean(axis=1)) for k in neighbours]
    return float(np.mean(dimensions))
