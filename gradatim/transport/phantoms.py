"""Images made of ellipses, whose projections are known in closed form (Shepp and Logan, 1974; grey values of Toft, 1996).

An image is a table, one ellipse a row, whose densities add up: density, half axes, centre (to the right, upwards), and angle from the right
counter-clockwise. Lengths are in units of half the image's side, angles in radians.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

SHEPP_LOGAN = np.array(
    [
        [1.0, 0.69, 0.92, 0.0, 0.0, 0.0],
        [-0.8, 0.6624, 0.874, 0.0, -0.0184, 0.0],
        [-0.2, 0.11, 0.31, 0.22, 0.0, -math.pi / 10],
        [-0.2, 0.16, 0.41, -0.22, 0.0, math.pi / 10],
        [0.1, 0.21, 0.25, 0.0, 0.35, 0.0],
        [0.1, 0.046, 0.046, 0.0, 0.1, 0.0],
        [0.1, 0.046, 0.046, 0.0, -0.1, 0.0],
        [0.1, 0.046, 0.023, -0.08, -0.605, 0.0],
        [0.1, 0.023, 0.023, 0.0, -0.606, 0.0],
        [0.1, 0.023, 0.046, 0.06, -0.605, 0.0],
    ]
)
"A head: the phantom with the contrast that an eye can see."
BLOCK = 256
"Images drawn at a time."


def random_ellipses(n: int, *, n_inner: int = 6, seed: int) -> Float[np.ndarray, "{n} {n_inner}+1 6"]:
    """Tables of heads: a large ellipse, and smaller ones inside it whose densities let no value leave [0, 1] by much.

    **Arguments:** `n` tables; `n_inner` ellipses in each; `seed`.

    **Raises:** `ValueError` for a negative count.

    >>> random_ellipses(2, seed=0).shape  # the head and six in it, six numbers each
    (2, 7, 6)
    """
    if n < 0 or n_inner < 0:
        raise ValueError(f"n and n_inner must be at least 0, got {n} and {n_inner}")
    random = np.random.default_rng(seed)
    head = np.stack(
        [
            random.uniform(0.3, 0.6, n),
            random.uniform(0.6, 0.75, n),
            random.uniform(0.75, 0.92, n),
            random.uniform(-0.05, 0.05, n),
            random.uniform(-0.05, 0.05, n),
            random.uniform(-0.2, 0.2, n),
        ],
        axis=-1,
    )
    radius, turn = 0.55 * np.sqrt(random.uniform(size=(n, n_inner))), random.uniform(0, 2 * np.pi, (n, n_inner))
    density = random.uniform(0.1, 0.3, (n, n_inner)) * random.choice([-1.0, 1.0], (n, n_inner))
    axes = np.exp(random.uniform(np.log(0.06), np.log(0.3), (n, n_inner, 2)))
    tilt = random.uniform(0, np.pi, (n, n_inner))
    parts = [density, axes[..., 0], axes[..., 1], radius * np.cos(turn), radius * np.sin(turn), tilt]
    return np.concatenate([head[:, None], np.stack(parts, axis=-1)], axis=1)


def draw_ellipses(
    tables: Float[np.ndarray, "*batch ellipses 6"], side: int, *, samples: int = 2
) -> Float[np.ndarray, "*batch {side} {side}"]:
    """The mean density in each pixel, of `samples` × `samples` points in it; rows from the top.

    Points of an image with twice the side and half the samples are the same ones, so that its means over blocks are this image.

    **Raises:** `ValueError` for a side or a number of samples below 1.

    >>> print(draw_ellipses(np.array([[1.0, 0.5, 1.0, 0.0, 0.0, 0.0]]), 4, samples=8).round(1))
    [[0.  0.6 0.6 0. ]
     [0.  1.  1.  0. ]
     [0.  1.  1.  0. ]
     [0.  0.6 0.6 0. ]]
    """
    if side < 1 or samples < 1:
        raise ValueError(f"side and samples must be at least 1, got {side} and {samples}")
    fine = side * samples
    places = ((np.arange(fine) + 0.5) / fine * 2 - 1).astype(np.float32)
    flat = tables.reshape(-1, *tables.shape[-2:]).astype(np.float32)
    images = np.zeros((len(flat), side, side), np.float32)
    for start in range(0, len(flat), BLOCK):
        chosen = slice(start, start + BLOCK)
        whole = np.zeros((len(flat[chosen]), fine, fine), np.float32)
        for j in range(flat.shape[1]):
            density, half, other, right, up, angle = (column[:, None, None] for column in flat[chosen, j].T)
            across, above = places[None, None] - right, -places[None, :, None] - up
            along = (across * np.cos(angle) + above * np.sin(angle)) / half
            beside = (above * np.cos(angle) - across * np.sin(angle)) / other
            whole += density * (along**2 + beside**2 <= 1)
        images[chosen] = whole.reshape(-1, side, samples, side, samples).mean((2, 4))
    return images.reshape(*tables.shape[:-2], side, side)


def project_ellipses(
    tables: Float[np.ndarray, "*batch ellipses 6"], angles: Float[np.ndarray, " views"], places: Float[np.ndarray, " detectors"]
) -> Float[np.ndarray, "*batch views detectors"]:
    """Integrals along lines, exactly: of an ellipse 2 a b √(w² - s²) / w², with w the half width of its shadow and s the distance to it.

    **Arguments:** `tables`; `angles`: of the detectors' line, rad: at 0 it runs to the right and the lines upwards; `places` on it, zero
    in the middle of the image.

    >>> disc = np.array([[1.0, 0.5, 0.5, 0.0, 0.0, 0.0]])
    >>> print(project_ellipses(disc, np.array([0.3]), np.array([0.0, 0.3, 0.6])).round(3))
    [[1.  0.8 0. ]]
    """
    density, half, other, right, up, tilt = (tables[..., None, None, i] for i in range(6))
    turned = angles[:, None]
    middle = right * np.cos(turned) + up * np.sin(turned)
    width = (half * np.cos(turned - tilt)) ** 2 + (other * np.sin(turned - tilt)) ** 2
    distance = places - middle
    return (2 * density * half * other * np.sqrt(np.maximum(width - distance**2, 0)) / width).sum(axis=-3)
