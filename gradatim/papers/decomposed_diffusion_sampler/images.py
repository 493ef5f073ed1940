"""Images between -1 and 1, each on a coarse grid and on one twice as fine: heads of ellipses, and slices of a template."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from gradatim.datasets import mni152
from gradatim.lab import Session, host_generator
from gradatim.transport import SHEPP_LOGAN, draw_ellipses, random_ellipses

TRAINING_HEIGHTS = (*range(24, 82), *range(118, 150))
"mm: slices of the template apart from those that are reconstructed."
VALIDATION_HEIGHTS = (86, 87, 88, 89, 111, 112, 113, 114)
TEST_HEIGHTS = tuple(range(93, 108))
PARTS = ("training", "validation", "test")


class Pair(NamedTuple):
    """The same images twice."""

    coarse: Float[np.ndarray, "n side side"]
    fine: Float[np.ndarray, "n twice twice"]


def phantoms(n: int, side: int, *, part: str, key: jax.Array) -> Pair:
    """Random heads of ellipses."""
    tables = random_ellipses(n, seed=seed_of(_generator(part, key)))
    return _pair(draw_ellipses(tables, 2 * side, samples=1 if part == "training" else 2))


def slices(n: int, side: int, *, part: str, key: jax.Array, session: Session) -> Pair:
    """Slices of the template, turned by up to 15°, shrunk by up to a fifth, shifted by up to 4 mm, and dimmed by up to a fifth."""
    from scipy import ndimage

    volume = mni152()
    session.uses(volume.provenance)
    heights = {"training": TRAINING_HEIGHTS, "validation": VALIDATION_HEIGHTS, "test": TEST_HEIGHTS}[part]
    whole = volume.slices(heights, side=96)
    random = _generator(part, key)
    # Every slice once before any comes again.
    which, fine = np.resize(random.permutation(len(whole)), n), 2 * side
    angles, shifts = np.radians(random.uniform(-15, 15, n)), random.uniform(-2, 2, (n, 2))
    stretches, gains = np.exp(random.uniform(0, 1 / 5, (n, 2))), random.uniform(0.8, 1, n)
    images = np.zeros((n, fine, fine), np.float32)
    for i in range(n):
        turn = np.array([[np.cos(angles[i]), -np.sin(angles[i])], [np.sin(angles[i]), np.cos(angles[i])]])
        matrix = turn @ np.diag(stretches[i]) * 96 / fine
        offset = 47.5 + shifts[i] - matrix @ np.full(2, (fine - 1) / 2)
        images[i] = gains[i] * ndimage.affine_transform(whole[which[i]], matrix, offset, output_shape=(fine, fine), order=1)
    return _pair(images)


def volumes(n: int, depth: int, side: int, *, part: str, key: jax.Array) -> Float[np.ndarray, "n depth side side"]:
    """Heads of ellipsoids: ellipses that grow and shrink from slice to slice."""
    random = _generator(part, key)
    tables = np.repeat(random_ellipses(n, seed=seed_of(random))[:, None], depth, axis=1)
    heights = np.linspace(-1, 1, depth)[None, :, None]
    middles, halves = random.uniform(-0.8, 0.8, (n, 1, tables.shape[2])), random.uniform(0.5, 1.2, (n, 1, tables.shape[2]))
    middles[..., 0], halves[..., 0] = 0, 2.5
    size = np.sqrt(np.maximum(1 - ((heights - middles) / halves) ** 2, 0))
    tables[..., 1:3] *= np.maximum(size, 1e-3)[..., None]
    tables[..., 0] *= size > 0
    return 2 * draw_ellipses(tables, side, samples=4) - 1


def known_head(side: int) -> Pair:
    """The phantom of Shepp and Logan, alone."""
    return _pair(draw_ellipses(SHEPP_LOGAN[None], 2 * side, samples=2))


def seed_of(random: np.random.Generator) -> int:
    """A seed, for what draws by one."""
    return int(random.integers(2**63))


def _generator(part: str, key: jax.Array) -> np.random.Generator:
    return host_generator(jax.random.fold_in(key, PARTS.index(part)))


def _pair(fine: Float[np.ndarray, "n twice twice"]) -> Pair:
    n, twice, _ = fine.shape
    coarse = fine.reshape(n, twice // 2, 2, twice // 2, 2).mean((2, 4))
    return Pair(2 * coarse - 1, 2 * fine - 1)
