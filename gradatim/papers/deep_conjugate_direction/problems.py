"""Right-hand sides that networks are not trained on."""

from __future__ import annotations

import numpy as np

BLOBS = 6
WIDTHS = (0.04, 0.12)
"Standard deviations of the blobs, in units of the side."


def smooth(random: np.random.Generator, is_fluid: np.ndarray, n: int) -> np.ndarray:
    """Unit vectors (n, *grid): sums of Gaussian blobs of either sign, as wide on every grid, zero in solid cells."""
    places = [(np.arange(cells) + 0.5) / cells for cells in is_fluid.shape]
    centres = random.uniform(size=(n, BLOBS, len(places)))
    widths = random.uniform(*WIDTHS, size=(n, BLOBS))
    heights = random.normal(size=(n, BLOBS))
    profiles = [np.exp(-(((x - centres[:, :, i, None]) / widths[..., None]) ** 2) / 2) for i, x in enumerate(places)]
    axes = "xyz"[: len(profiles)]
    b = np.einsum(f"nk,{','.join(f'nk{axis}' for axis in axes)}->n{axes}", heights, *profiles)
    return _unit(b, is_fluid)


def noise(random: np.random.Generator, is_fluid: np.ndarray, n: int) -> np.ndarray:
    """Unit vectors (n, *grid) of white noise, zero in solid cells."""
    return _unit(random.normal(size=(n, *is_fluid.shape)), is_fluid)


def _unit(b: np.ndarray, is_fluid: np.ndarray) -> np.ndarray:
    b = b * is_fluid
    return b / np.sqrt((b**2).sum(axis=tuple(range(1, b.ndim)), keepdims=True))
