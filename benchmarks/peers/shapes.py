"""Smooth images and views of them, for two programs to project and to compare, in NumPy alone."""

from __future__ import annotations

import numpy as np

SIDE, VIEWS = 65, 12  # odd: scikit-image turns about the pixel after the middle of an even number
RANGE = 1.0
GROUP = f"{VIEWS} projections of an image of {SIDE} x {SIDE}"


def image() -> np.ndarray:
    """A few soft spots, none of them in the middle, and nothing outside the circle that touches the sides."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    spots = ((1.0, -8.0, 5.0, 6.0), (0.7, 11.0, -9.0, 4.0), (-0.4, 3.0, 14.0, 5.0))
    whole = [height * np.exp(-((x - across) ** 2 + (y - down) ** 2) / (2 * width**2)) for height, across, down, width in spots]
    return np.sum(whole, axis=0) * (x**2 + y**2 < (SIDE // 2) ** 2)


def angles() -> np.ndarray:
    """In degrees, over half a turn."""
    return np.arange(VIEWS) * 180.0 / VIEWS


def pair() -> tuple[np.ndarray, np.ndarray]:
    """The image and a noisy, dimmed one."""
    clean = image()
    return clean, 0.9 * clean + 0.05 * np.random.default_rng(0).normal(size=clean.shape)
