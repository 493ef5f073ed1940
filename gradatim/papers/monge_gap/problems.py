"""Pairs of laws, drawn on the host, and the maps between them where they are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

Points = np.ndarray


class ConvexMap(NamedTuple):
    """The gradient of zᵀAz/2 + log Σₖ exp(bₖ · z), optimal for the squared distance wherever it starts."""

    matrix: np.ndarray
    "A, positive."
    rows: np.ndarray
    "bₖ"

    def __call__(self, x: Points) -> Points:
        """The images."""
        logits = x @ self.rows.T
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return x @ self.matrix.T + weights / weights.sum(axis=1, keepdims=True) @ self.rows


PLANE_MAP = ConvexMap(np.array([[1.5, 0.3], [0.3, 0.6]]), np.array([[2.0, 1.0], [-2.0, 0.5], [0.0, -2.0]]))
PIECES = 8
"Of the random convex functions."
SHARPNESS = 0.75
"Standard deviation of the entries of their bₖ: the images are pulled towards eight places about three quarters of their spread away."


def random_convex_map(random: np.random.Generator, dim: int) -> ConvexMap:
    """With eigenvalues of A between a half and one and a half."""
    basis, _ = np.linalg.qr(random.normal(size=(dim, dim)))
    return ConvexMap((basis * random.uniform(0.5, 1.5, dim)) @ basis.T, SHARPNESS * random.normal(size=(PIECES, dim)))


def diagonal(random: np.random.Generator, n: int) -> Points:
    """Of a normal law, along the diagonal of the plane four times as wide as across it, where its standard deviation is a quarter."""
    along, across = random.normal(size=(2, n, 1)) / 2**0.5
    return along * np.array([[1.0, 1.0]]) + across / 4 * np.array([[-1.0, 1.0]])


def p_norm_source(y: Points, p: float) -> Points:
    """What an optimal map for h(x - y) = Σᵢ |xᵢ - yᵢ|ᵖ / p takes to y: x = y + ∇h*(∇g(y)), g(y) = y₁/2 + y₂/4 + 3 (y₁ - y₂)²/4.

    The convex function h(x - ·) + g is least at y, and g cancels in the sum over any points: no exchange of images makes such pairs
    cheaper, for any convex g. With φ(x) = min h(x - ·) + g the map is x - ∇h*(∇φ(x)), the form of all optimal ones. Here it moves points
    along the diagonal by amounts that depend on where they are across it: a shear, and for every p another one.
    """
    slope = np.array([[0.5, 0.25]]) + 1.5 * (y[:, :1] - y[:, 1:]) * np.array([[1.0, -1.0]])
    return y + np.sign(slope) * np.abs(slope) ** (1 / (p - 1))


def moons(random: np.random.Generator, n: int) -> Points:
    """Two half circles that reach into each other, with a little noise."""
    angle, is_lower = np.pi * random.uniform(size=n), random.uniform(size=n) < 0.5
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return np.where(is_lower[:, None], lower, upper) + 0.05 * random.normal(size=(n, 2))


def s_curve(random: np.random.Generator, n: int) -> Points:
    """Two arcs in the shape of an S, as wide as the moons and beside them."""
    angle = 3 * np.pi * (random.uniform(size=n) - 0.5)
    curve = np.stack([np.sin(angle), np.sign(angle) * (np.cos(angle) - 1)], axis=1)
    return curve + 0.05 * random.normal(size=(n, 2)) + np.array([[3.5, 0.0]])


def patch(random: np.random.Generator, n: int, centres: np.ndarray) -> Points:
    """Points of the unit sphere around some of its points."""
    chosen = centres[random.integers(len(centres), size=n)]
    points = chosen + 0.3 * random.normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


NORTH = np.array([[0.0, 0.0, 1.0]])
SOUTHERN = np.array([[1.0, 0.0, -0.3], [-0.5, 0.87, -0.3]]) / np.linalg.norm([1.0, 0.0, -0.3])


def turn(degrees: float) -> np.ndarray:
    """A rotation of the plane."""
    angle = np.radians(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def linear_gap(matrix: np.ndarray) -> float:
    """Of x ↦ Ax on a standard normal law: 2 (‖A‖_* - tr A), the nuclear norm of A less its trace."""
    return 2 * float(np.linalg.svd(matrix, compute_uv=False).sum() - np.trace(matrix))


def crossings(starts: Points, ends: Points) -> int:
    """How many pairs of segments of the plane cross: none between points and their images under an optimal map for the distance."""

    def side(a: Points, b: Points, c: Points) -> np.ndarray:
        return np.sign((b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0]))

    a, b, c, d = starts[:, None], ends[:, None], starts[None], ends[None]
    cross = (side(a, b, c) * side(a, b, d) < 0) & (side(c, d, a) * side(c, d, b) < 0)
    return int(cross.sum()) // 2
