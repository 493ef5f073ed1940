"""Quadrilaterals of eight nodes in the plane: meshes, strains at Gauss points, and sparse matrices put together from element ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
UNIT_CELL: Corners = ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5))
_NODES = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (0, -1), (1, 0), (0, 1), (-1, 0)], np.float64)
"In the reference square: corners counter-clockwise, then the middles of the sides."


class QuadMesh(NamedTuple):
    """Nodes, and the eight of each element: corners counter-clockwise, then the middles of the sides from the lower one on."""

    nodes: Float[np.ndarray, "nodes 2"]
    elements: Int[np.ndarray, "elements 8"]

    @property
    def centres(self) -> Float[np.ndarray, "elements 2"]:
        """Means of the corners."""
        return self.nodes[self.elements[:, :4]].mean(axis=1)


class Kinematics(NamedTuple):
    """Strains from nodal displacements at the Gauss points of each element.

    `gradient` maps (u_x, u_y) of the eight nodes in turn to (ε_xx, ε_yy, 2 ε_xy), with the engineering shear.
    """

    gradient: Float[np.ndarray, "elements points 3 16"]
    weights: Float[np.ndarray, "elements points"]
    "Of the quadrature; they add up to the area."
    places: Float[np.ndarray, "elements points 2"]


def structured_quads(n_x: int, n_y: int, *, corners: Corners = UNIT_CELL) -> QuadMesh:
    """`n_x` by `n_y` elements on a quadrilateral, into which a square grid is mapped bilinearly.

    **Raises:** `ValueError` for fewer than one element a side.

    >>> structured_quads(16, 16).nodes.shape
    (833, 2)
    """
    for name, number in (("n_x", n_x), ("n_y", n_y)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    columns, rows = 2 * n_x + 1, 2 * n_y + 1
    j, i = (grid.ravel() for grid in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    is_node = (i % 2 == 0) | (j % 2 == 0)
    number = np.cumsum(is_node) - 1
    xi, eta = i[is_node] / (columns - 1), j[is_node] / (rows - 1)
    shape = np.stack([(1 - xi) * (1 - eta), xi * (1 - eta), xi * eta, (1 - xi) * eta], axis=1)
    nodes = shape @ np.asarray(corners, np.float64)
    y, x = (grid.ravel() for grid in np.meshgrid(np.arange(n_y), np.arange(n_x), indexing="ij"))
    steps = ((_NODES + 1).astype(int)).T
    elements = number[(2 * y[:, None] + steps[1][None]) * columns + 2 * x[:, None] + steps[0][None]]
    return QuadMesh(nodes, elements)


def kinematics(mesh: QuadMesh, *, n_gauss: int = 3) -> Kinematics:
    """At `n_gauss` by `n_gauss` points an element, numbered along x first.

    **Raises:** `ValueError` for an element that is turned inside out.

    >>> found = kinematics(structured_quads(2, 2))
    >>> print(found.gradient.shape, found.weights.sum().round(6))
    (4, 9, 3, 16) 1.0
    """
    places, weights = np.polynomial.legendre.leggauss(n_gauss)
    eta, xi = (grid.ravel() for grid in np.meshgrid(places, places, indexing="ij"))
    weight = np.outer(weights, weights).ravel()
    value, slope = _shape_functions(xi, eta)
    corners = mesh.nodes[mesh.elements]
    jacobian = np.einsum("pak,eac->epck", slope, corners)
    determinant = np.linalg.det(jacobian)
    if not determinant.min() > 0:
        raise ValueError(f"elements must be numbered counter-clockwise and convex, got a Jacobian of {determinant.min():.3g}")
    by_place = np.einsum("pak,epkc->epac", slope, np.linalg.inv(jacobian))
    gradient = np.zeros((*determinant.shape, 3, 16))
    gradient[..., 0, 0::2], gradient[..., 1, 1::2] = by_place[..., 0], by_place[..., 1]
    gradient[..., 2, 0::2], gradient[..., 2, 1::2] = by_place[..., 1], by_place[..., 0]
    return Kinematics(gradient, determinant * weight[None], np.einsum("pa,eac->epc", value, corners))


def _shape_functions(xi: np.ndarray, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (points, 8) and slopes (points, 8, 2) of the serendipity functions."""
    value, slope = np.empty((xi.size, 8)), np.empty((xi.size, 8, 2))
    for a, (x, y) in enumerate(_NODES):
        if x and y:
            value[:, a] = (1 + xi * x) * (1 + eta * y) * (xi * x + eta * y - 1) / 4
            slope[:, a, 0] = x * (1 + eta * y) * (2 * xi * x + eta * y) / 4
            slope[:, a, 1] = y * (1 + xi * x) * (xi * x + 2 * eta * y) / 4
        elif y:
            value[:, a] = (1 - xi**2) * (1 + eta * y) / 2
            slope[:, a, 0], slope[:, a, 1] = -xi * (1 + eta * y), y * (1 - xi**2) / 2
        else:
            value[:, a] = (1 + xi * x) * (1 - eta**2) / 2
            slope[:, a, 0], slope[:, a, 1] = x * (1 - eta**2) / 2, -eta * (1 + xi * x)
    return value, slope


class Assembly:
    """Adds element matrices and vectors up; the pattern is found once.

    **Arguments:** `freedoms`: of each element; those from `n_free` on are left out.
    """

    def __init__(self, freedoms: Int[np.ndarray, "elements local"], n_free: int):
        self.n_free, self._freedoms = n_free, freedoms
        self._n_all = int(max(freedoms.max() + 1, n_free))
        rows, columns = (
            np.broadcast_to(index, (*freedoms.shape, freedoms.shape[1])).ravel() for index in (freedoms[:, :, None], freedoms[:, None, :])
        )
        self._kept = (rows < n_free) & (columns < n_free)
        places, self._entry = np.unique(columns[self._kept] * n_free + rows[self._kept], return_inverse=True)
        self._indices = (places % n_free).astype(np.int32)
        self._starts = np.searchsorted(places, np.arange(n_free + 1) * n_free).astype(np.int32)

    def vector(self, local: Float[np.ndarray, "elements local"]) -> Float[np.ndarray, " free"]:
        """The sum of element vectors."""
        return np.bincount(self._freedoms.ravel(), weights=local.ravel(), minlength=self._n_all)[: self.n_free]

    def matrix(self, local: Float[np.ndarray, "elements local local"]) -> csc_matrix:
        """The sum of element matrices."""
        from scipy.sparse import csc_matrix

        data = np.bincount(self._entry, weights=local.ravel()[self._kept], minlength=self._indices.size)
        return csc_matrix((data, self._indices, self._starts), shape=(self.n_free, self.n_free))
