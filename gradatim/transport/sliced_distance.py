"""The sliced Wasserstein distance: optimal transport along lines, where it is a matter of sorting."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def sliced_distance(
    found: Float[np.ndarray, "*#batch n dim"], data: Float[np.ndarray, "*#batch m dim"], directions: Float[np.ndarray, "lines dim"]
) -> Float[np.ndarray, ...]:
    """The sliced Wasserstein distance of order two between samples, over leading axes, which are broadcast.

        W² = mean over directions θ of  min over pairings of  mean ‖θ·x - θ·y‖²

    In NumPy: XLA sorts slowly. On one set of directions distances can be compared with each other.

    **Arguments:** `found`, `data`: samples, the first as many points as the second or a multiple; `directions`: of unit length.

    **Raises:** `ValueError` for a number of points that is no multiple.

    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> print(f"{sliced_distance(x + np.array([0.3, 0.0]), x, np.eye(2)):.3f}")
    0.212

    Source: Rabin, Peyré, Delon and Bernot, *Wasserstein barycenter and its application to texture mixing* (2011).
    """
    n, m = found.shape[-2], data.shape[-2]
    if n % m:
        raise ValueError(f"found must hold a multiple of data's {m} points, got {n}")

    def views(points: np.ndarray) -> np.ndarray:
        return np.sort(np.moveaxis(points @ directions.T, -1, -2), axis=-1)

    theirs = views(data)
    theirs = theirs if n == m else np.repeat(theirs, n // m, axis=-1)
    return np.asarray(np.sqrt(((views(found) - theirs) ** 2).mean(axis=(-2, -1))))
