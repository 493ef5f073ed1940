"""The surface that all contestants work on: numpy only."""

from __future__ import annotations

import numpy as np

LEVEL = 5
K = 50
LAPLACIAN, SPECTRUM = "cotangent Laplacian of 10 242 vertices", f"{K} eigenvectors of 10 242 vertices"
DISTANCE = "heat distance on 10 242 vertices, factorisation and one source"


def surface() -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a bumpy sphere, an icosahedron cut into four five times."""
    golden = (1 + 5**0.5) / 2
    rows = np.array([(0, -1, golden), (0, 1, golden), (0, -1, -golden), (0, 1, -golden)])
    vertices = np.concatenate([np.roll(rows, turn, axis=1) for turn in range(3)])
    near = np.isclose(np.linalg.norm(vertices[:, None] - vertices[None], axis=-1), 2)
    faces = np.array([(a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]])
    inwards = np.linalg.det(vertices[faces]) < 0
    faces = np.where(inwards[:, None], faces[:, ::-1], faces)
    for _ in range(LEVEL):
        a, b, c = faces.T
        sides = np.sort(np.concatenate([np.stack(pair, 1) for pair in ((b, c), (c, a), (a, b))]), axis=1)
        edges, place = np.unique(sides, axis=0, return_inverse=True)
        x, y, z = len(vertices) + place.reshape(3, -1)
        vertices = np.concatenate([vertices, vertices[edges].mean(axis=1)])
        faces = np.concatenate([np.stack(new, 1) for new in ((a, z, y), (z, b, x), (y, x, c), (x, y, z))])
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    bumps = 1 + 0.1 * np.sin(4 * vertices[:, :1]) * np.cos(3 * vertices[:, 1:2])
    return vertices * bumps, faces
