"""Triangle meshes and their cotangent Laplacian, the book's intrinsic operators (Bronstein et al., arXiv:2104.13478, section 4.6).

    K x = Σ_v w_uv (x_u - x_v),   w_uv = (cot α + cot β) / 2,   M = diag(a_u),   a_u a third of the areas of the faces at u
    cot = (l_uq² + l_vq² - l_uv²) / (4 A_uvq)   of the angle opposite uv, so that K and M depend on the lengths of edges alone

The book divides by a_u within w_uv, which makes the matrix unsymmetric: K and M stay apart here, and eigenvectors solve K φ = λ M φ
(Pinkall and Polthier 1993, Meyer et al. 2003). Obtuse triangles may give negative weights. K is positive semidefinite all the same, and
nothing is clipped; but heat may then flow the wrong way between two vertices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from jaxtyping import Array, Float, Int, Shaped

# From here on few eigenvectors come cheaper by shifted and inverted Lanczos.
_DENSE = 400
GOLDEN_RATIO = (1 + 5**0.5) / 2


class Mesh(eqx.Module):
    """Triangles that make an oriented surface: each edge in one or two faces, one fan of faces about each vertex.

    Its vertices may move under `jit` and `grad` (`moved`); its faces are checked once, on the host.

    **Arguments:** `vertices`: positions; `faces`: numbers of three vertices, counterclockwise when seen from outside.

    **Raises:** `ValueError`, naming the first offender, for a face with a repeated or unknown vertex, a vertex in no face, an edge in more
    than two faces, neighbouring faces of opposite orientation, or a vertex at which two fans of faces meet.

    >>> tetrahedron = Mesh(np.eye(4, 3), np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    >>> len(tetrahedron.edges), tetrahedron.is_closed, tetrahedron.euler_characteristic
    (6, True, 2)
    """

    vertices: Float[Array, "vertices 3"]
    faces: Int[Array, "faces 3"]
    edges: Int[Array, "edges 2"]
    "The lower number first."
    face_edges: Int[Array, "faces 3"]
    "Of each face the edges opposite its corners."
    is_closed: bool = eqx.field(static=True)
    "Whether each edge lies in two faces."

    def __init__(self, vertices: Float[Array | np.ndarray, "vertices 3"], faces: Int[Array | np.ndarray, "faces 3"]) -> None:
        corners = np.asarray(faces, np.int64)
        edges, face_edges, counts = _topology(corners, len(vertices))
        self.vertices, self.faces = jnp.asarray(vertices), jnp.asarray(corners, jnp.int32)
        self.edges, self.face_edges = jnp.asarray(edges, jnp.int32), jnp.asarray(face_edges, jnp.int32)
        self.is_closed = bool((counts == 2).all())

    @property
    def euler_characteristic(self) -> int:
        """Vertices minus edges plus faces: 2 for a closed surface without handles."""
        return len(self.vertices) - len(self.edges) + len(self.faces)

    def moved(self, vertices: Float[Array, "vertices 3"]) -> Mesh:
        """The same faces on other vertices."""
        if vertices.shape != self.vertices.shape:
            raise ValueError(f"vertices must have shape {self.vertices.shape}, got {vertices.shape}")
        return eqx.tree_at(lambda mesh: mesh.vertices, self, vertices)

    def relabelled(self, order: Int[np.ndarray, " vertices"]) -> Mesh:
        """The same surface, its vertex i that which was `order[i]`."""
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return Mesh(np.asarray(self.vertices)[order], inverse[np.asarray(self.faces)])


def check_closed(mesh: Mesh) -> None:
    """Refuses a surface with a boundary."""
    if not mesh.is_closed:
        counts = np.bincount(np.asarray(mesh.face_edges).ravel())
        u, v = np.asarray(mesh.edges)[np.flatnonzero(counts == 1)[0]]
        raise ValueError(
            f"the mesh must be closed, got a boundary of {(counts == 1).sum()} edges, the first between vertices {u} and {v}: "
            "close its holes with faces, or take the part that is a closed surface"
        )


def icosphere(level: int, *, radius: float = 1.0) -> Mesh:
    """A sphere from an icosahedron whose faces are cut into four `level` times: 10 · 4^level + 2 vertices.

    >>> len(icosphere(2).vertices)
    162
    """
    if level < 0:
        raise ValueError(f"level must be at least 0, got {level}")
    signs = np.array([(-1, 1), (1, 1), (-1, -1), (1, -1)]) * (1, GOLDEN_RATIO)
    zeros = np.zeros((4, 1))
    vertices = np.concatenate([np.roll(np.concatenate([signs, zeros], axis=1), turn, axis=1) for turn in (0, 1, 2)])
    # Corners of three pairwise orthogonal golden rectangles: nearest neighbours are at distance 2.
    near = np.isclose(np.linalg.norm(vertices[:, None] - vertices[None], axis=-1), 2.0)
    triples = np.array([(a, b, c) for a in range(12) for b in range(a) for c in range(b) if near[a, b] and near[b, c] and near[a, c]])
    inwards = np.linalg.det(vertices[triples]) < 0
    faces = np.where(inwards[:, None], triples[:, ::-1], triples)
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    for _ in range(level):
        edges, opposite, _counts = _topology(faces, len(vertices))
        middles = vertices[edges].sum(axis=1)
        a, b, c = faces.T
        at_a, at_b, at_c = (opposite + len(vertices)).T
        faces = np.concatenate([np.stack(new, axis=1) for new in ((a, at_c, at_b), (at_c, b, at_a), (at_b, at_a, c), (at_a, at_b, at_c))])
        vertices = np.concatenate([vertices, middles / np.linalg.norm(middles, axis=1, keepdims=True)])
    return Mesh(radius * vertices, faces)


def flat_sheet(rows: int, columns: int, *, spacing: float = 1.0) -> Mesh:
    """A rectangle of `rows` × `columns` vertices, its squares cut along one diagonal.

    >>> flat_sheet(3, 4).is_closed, flat_sheet(3, 4).euler_characteristic
    (False, 1)
    """
    if min(rows, columns) < 2:
        raise ValueError(f"rows and columns must be at least 2, got {rows} and {columns}")
    y, x = (index.ravel() for index in np.mgrid[:rows, :columns])
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None]).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    return Mesh(spacing * np.stack([x, y, np.zeros_like(x)], axis=1).astype(float), np.concatenate([lower, upper]))


class Laplacian(eqx.Module):
    """The Laplacian M⁻¹ K, positive semidefinite in the inner product xᵀ M y."""

    stiffness: BCOO
    "K, symmetric; its rows sum to zero."
    mass: Float[Array, " vertices"]
    "The diagonal of M, areas."

    def __call__(self, x: Float[Array, "vertices ..."]) -> Float[Array, "vertices ..."]:
        """M⁻¹ K x."""
        return self.stiff(x) / self.mass.reshape(-1, *(1 for _ in x.shape[1:]))

    def stiff(self, x: Shaped[Array, "vertices ..."]) -> Shaped[Array, "vertices ..."]:
        """K x, of complex functions too."""
        rows, columns = self.stiffness.indices.T
        parts = self.stiffness.data.reshape(-1, *(1 for _ in x.shape[1:])) * x[columns]
        return jax.ops.segment_sum(parts, rows, len(self.mass))

    @eqx.filter_jit
    def largest(self) -> Float[Array, ""]:
        """A number that no eigenvalue exceeds, by Gershgorin's circles."""
        rows = self.stiffness.indices[:, 0]
        return (jax.ops.segment_sum(jnp.abs(self.stiffness.data), rows, len(self.mass)) / self.mass).max()


@eqx.filter_jit
def cotangent_laplacian(mesh: Mesh) -> Laplacian:
    """K and M from the vertices. They may be differentiated by them.

    >>> laplacian = cotangent_laplacian(icosphere(1))
    >>> f"{laplacian.mass.sum():.3f}"  # the sphere has 12.566
    '11.666'
    """
    # The edge opposite corner i leads from corner i + 1 to corner i + 2.
    corners = mesh.vertices[mesh.faces]
    opposite = jnp.roll(corners, -2, axis=1) - jnp.roll(corners, -1, axis=1)
    double_area = jnp.linalg.norm(jnp.cross(opposite[:, 0], opposite[:, 1]), axis=-1)
    dots = -(jnp.roll(opposite, -1, axis=1) * jnp.roll(opposite, -2, axis=1)).sum(axis=-1)
    return _assemble(mesh, dots / (2 * double_area[:, None]), double_area / 2)


@eqx.filter_jit
def intrinsic_laplacian(mesh: Mesh, lengths: Float[Array, " edges"]) -> Laplacian:
    """K and M from the lengths of the edges alone; of the mesh only the faces are looked at.

    **Arguments:** `mesh`; `lengths`: of `mesh.edges`, such that each face is a triangle; a sliver's angles are as inexact as its lengths.

    >>> mesh = icosphere(1)
    >>> difference = intrinsic_laplacian(mesh, edge_lengths(mesh)).mass - cotangent_laplacian(mesh).mass
    >>> bool(abs(difference).max() < 1e-6)
    True
    """
    sides = lengths[mesh.face_edges]
    sides = eqx.error_if(
        sides, (2 * sides.max(axis=1) >= sides.sum(axis=1)).any(), "lengths must obey the triangle inequality in each face"
    )
    # Heron's formula, in the order of sides that cancels least (Kahan 1983).
    c, b, a = jnp.sort(sides, axis=1).T
    area = jnp.sqrt((a + (b + c)) * (c - (a - b)) * (c + (a - b)) * (a + (b - c))) / 4
    squares = sides**2
    weights = (squares.sum(axis=1, keepdims=True) - 2 * squares) / (8 * area[:, None])
    return _assemble(mesh, weights, area)


@eqx.filter_jit
def edge_lengths(mesh: Mesh) -> Float[Array, " edges"]:
    """Of `mesh.edges`."""
    ends = mesh.vertices[mesh.edges]
    return jnp.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)


@eqx.filter_jit
def surface_gradient(mesh: Mesh, x: Float[Array, " vertices"]) -> Float[Array, "faces 3"]:
    """The gradient on each face of a function that is linear between the vertices; Σ A |∇x|² = xᵀ K x.

    >>> sheet = flat_sheet(3, 3)
    >>> (surface_gradient(sheet, 2 * sheet.vertices[:, 0])[0].round(3) + 0.0).tolist()
    [2.0, 0.0, 0.0]
    """
    corners = mesh.vertices[mesh.faces]
    opposite = jnp.roll(corners, -2, axis=1) - jnp.roll(corners, -1, axis=1)
    normal = jnp.cross(opposite[:, 0], opposite[:, 1])
    # Of the function that is 1 at one corner and 0 at the others: n × e / 4A², with n of length 2A.
    hats = jnp.cross(normal[:, None], opposite) / (normal**2).sum(axis=-1)[:, None, None]
    return (hats * x[mesh.faces][..., None]).sum(axis=1)


class Spectrum(NamedTuple):
    """Eigenvectors of M⁻¹ K, orthonormal in the inner product of M, the smallest eigenvalues first; NumPy, in double precision."""

    eigenvalues: Float[np.ndarray, " k"]
    eigenvectors: Float[np.ndarray, "vertices k"]
    mass: Float[np.ndarray, " vertices"]

    def coefficients(self, x: Float[np.ndarray, "vertices ..."]) -> Float[np.ndarray, "k ..."]:
        """Φᵀ M x: those of the functions in the eigenvectors."""
        return (self.eigenvectors * self.mass[:, None]).T @ x


def spectrum(laplacian: Laplacian, k: int) -> Spectrum:
    """The k smallest eigenvalues and their eigenvectors, by Lanczos on a sparse inverse; of small meshes from the dense matrix.

    On the host, in double precision, without derivatives. Signs, and bases of eigenspaces of more than one dimension, are arbitrary.

    **Raises:** `ValueError` unless k lies between 1 and the number of vertices.

    >>> spectrum(cotangent_laplacian(icosphere(3)), 5).eigenvalues.round(3) + 0  # of the sphere: 0, 2, 2, 2, 6
    array([0.   , 2.   , 2.   , 2.   , 5.966])
    """
    import scipy.linalg
    import scipy.sparse
    from scipy.sparse.linalg import eigsh

    mass = np.asarray(laplacian.mass, np.float64)
    n = len(mass)
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the {n} vertices, got {k}")
    root = np.sqrt(mass)
    inverse = scipy.sparse.diags_array(1 / root)
    matrix = scipy.sparse.csc_matrix(inverse @ sparse_stiffness(laplacian) @ inverse)
    if n <= _DENSE or 4 * k > n:
        values, vectors = scipy.linalg.eigh(matrix.toarray(), subset_by_index=(0, k - 1))
    else:
        # Below zero, where K may be inverted, and near it in the unit of the first eigenvalues.
        start = np.random.default_rng(0).normal(size=n)
        values, vectors = eigsh(matrix, k, sigma=-1 / mass.sum(), which="LM", v0=start)
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    return Spectrum(values, vectors / root[:, None], mass)


def sparse_stiffness(laplacian: Laplacian) -> Any:
    """K as SciPy's compressed matrix in double precision."""
    import scipy.sparse

    rows, columns = np.asarray(laplacian.stiffness.indices).T
    data = np.asarray(laplacian.stiffness.data, np.float64)
    return scipy.sparse.csr_array((data, (rows, columns)), shape=laplacian.stiffness.shape)


def corner_angles(mesh: Mesh) -> Float[np.ndarray, "faces 3"]:
    """Of each face at its corners; NumPy, in double precision, so that they sum to π."""
    corners = np.asarray(mesh.vertices, np.float64)[np.asarray(mesh.faces)]
    ahead, back = np.roll(corners, -1, axis=1) - corners, np.roll(corners, -2, axis=1) - corners
    return np.arctan2(np.linalg.norm(np.cross(ahead, back), axis=-1), (ahead * back).sum(axis=-1))


def angle_defects(mesh: Mesh) -> Float[np.ndarray, " vertices"]:
    """2π minus the angles about each vertex, the curvature there: over a closed surface 2π times its Euler characteristic in all.

    That sum, 4π for a sphere, would be zero if frames could be chosen that turn smoothly everywhere.

    **Raises:** `ValueError` for a surface with a boundary.

    >>> f"{angle_defects(icosphere(1)).sum() / np.pi:.12f}"
    '4.000000000000'
    """
    check_closed(mesh)
    return 2 * np.pi - np.bincount(np.asarray(mesh.faces).ravel(), corner_angles(mesh).ravel(), len(mesh.vertices))


def _assemble(mesh: Mesh, weights: Float[Array, "faces 3"], area: Float[Array, " faces"]) -> Laplacian:
    n, (u, v) = len(mesh.vertices), mesh.edges.T
    w = jax.ops.segment_sum(weights.ravel(), mesh.face_edges.ravel(), len(mesh.edges))
    diagonal = jax.ops.segment_sum(jnp.concatenate([w, w]), jnp.concatenate([u, v]), n)
    here = jnp.arange(n, dtype=u.dtype)
    rows, columns = jnp.concatenate([here, u, v]), jnp.concatenate([here, v, u])
    stiffness = BCOO((jnp.concatenate([diagonal, -w, -w]), jnp.stack([rows, columns], axis=1)), shape=(n, n), unique_indices=True)
    mass = jax.ops.segment_sum(jnp.repeat(area / 3, 3), mesh.faces.ravel(), n)
    return Laplacian(stiffness, mass)


def _topology(faces: Int[np.ndarray, "faces 3"], n: int) -> tuple[Shaped[np.ndarray, "edges 2"], Shaped[np.ndarray, "faces 3"], np.ndarray]:
    """Edges, the edges opposite each corner, and in how many faces each edge lies, after the checks."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(faces) or faces.min() < 0 or faces.max() >= n:
        numbers = f"{faces.min()} to {faces.max()}" if len(faces) else "no face"
        raise ValueError(f"faces must hold numbers from 0 to {n - 1}, those of the vertices, got {numbers}")
    tails, heads = np.roll(faces, -1, axis=1), np.roll(faces, -2, axis=1)
    if (bad := (tails == heads).any(axis=1)).any():
        raise ValueError(f"a face must have three different vertices, got {faces[bad][0].tolist()}")
    if len(lone := np.setdiff1d(np.arange(n), faces)):
        raise ValueError(f"each vertex must lie in a face, got {len(lone)} that do not, the first {lone[0]}")
    keys = np.minimum(tails, heads) * n + np.maximum(tails, heads)
    unique, places, counts = np.unique(keys.ravel(), return_inverse=True, return_counts=True)
    edges = np.stack([unique // n, unique % n], axis=1)
    if counts.max() > 2:
        u, v = edges[counts.argmax()]
        raise ValueError(f"an edge must lie in at most two faces, got {counts.max()} at the edge between vertices {u} and {v}")
    directed, repeats = np.unique((tails * n + heads).ravel(), return_counts=True)
    if repeats.max() > 1:
        u, v = divmod(int(directed[repeats.argmax()]), n)
        raise ValueError(f"faces must be oriented alike, got two that run along their common edge from vertex {u} to vertex {v}")
    # Corners at one vertex hang together through the edges there: one component a vertex, if it has one fan.
    order = np.argsort(places.ravel(), kind="stable")
    firsts = np.cumsum(counts) - counts
    one, other = order[firsts[counts == 2]], order[firsts[counts == 2] + 1]
    face, corner = np.divmod(np.arange(3 * len(faces)), 3)
    tail_corner, head_corner = 3 * face + (corner + 1) % 3, 3 * face + (corner + 2) % 3
    rows, columns = np.concatenate([tail_corner[one], head_corner[one]]), np.concatenate([head_corner[other], tail_corner[other]])
    joined = coo_array((np.ones(len(rows)), (rows, columns)), shape=(3 * len(faces),) * 2)
    n_fans, fan = connected_components(joined, directed=False)
    if n_fans > n:
        vertex_of_fan = np.zeros(n_fans, np.int64)
        vertex_of_fan[fan] = faces.ravel()
        pinched = np.flatnonzero(np.bincount(vertex_of_fan, minlength=n) > 1)[0]
        raise ValueError(f"faces about a vertex must make one fan, got more than one at vertex {pinched}")
    return edges, places.reshape(faces.shape), counts
