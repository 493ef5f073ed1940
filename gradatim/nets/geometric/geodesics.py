"""Geodesics on meshes: directions and lengths of edges, parallel transport along them, distances, and patches (arXiv:2104.13478, 4.4-4.6).

At each vertex the angles between edges are scaled to 2π in all, so that directions are angles θ_uv in a frame of its own. Carrying a
tangent vector along the edge from v to u adds

    g_{v→u} = θ_uv - θ_vu - π      (mod 2π)

to its angle: what leaves v towards u arrives at u from the direction of v. An entry of order m turns by m g, so that half a turn too many
shows in odd orders alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.sparse import symmetric_lu

from .meshes import Mesh, check_closed, corner_angles, cotangent_laplacian, sparse_stiffness


class EdgeLogs(eqx.Module):
    """Where its neighbours lie in the tangent plane of each vertex: logarithmic maps along the edges, each edge both ways."""

    receivers: Int[Array, " directed"]
    "u, whose plane it is."
    senders: Int[Array, " directed"]
    "v, the neighbour."
    reverse: Int[Array, " directed"]
    "The place of the same edge the other way."
    lengths: Float[Array, " directed"]
    angles: Float[Array, " directed"]
    "θ_uv, radians, counterclockwise from the first axis of the frame at u."
    n_vertices: int = eqx.field(static=True)

    @eqx.filter_jit
    def transport(self) -> Float[Array, " directed"]:
        """g_{v→u}, between -π and π."""
        return wrapped(self.angles - self.angles[self.reverse] - jnp.pi)

    def turned(self, frames: Float[Array, " vertices"]) -> EdgeLogs:
        """The same edges seen from frames that are turned by these angles."""
        return eqx.tree_at(lambda edges: edges.angles, self, self.angles - frames[self.receivers])


def wrapped(angles: Float[Array, ...]) -> Float[Array, ...]:
    """The same angles from -π to π."""
    return jnp.mod(angles + jnp.pi, 2 * jnp.pi) - jnp.pi


def log_map_edges(mesh: Mesh) -> EdgeLogs:
    """Directions and lengths of all edges at both ends, in frames whose first axis is the first edge at each vertex.

    The angles are found on the host, in double precision, without derivatives.

    **Raises:** `ValueError` for a surface with a boundary.

    >>> from gradatim.nets.geometric import icosphere
    >>> edges = log_map_edges(icosphere(0))
    >>> np.degrees(np.unique(np.asarray(edges.angles).round(4))).round().tolist()  # 60° each, five at a vertex, unfolded to 72°
    [0.0, 72.0, 144.0, 216.0, 288.0]
    """
    check_closed(mesh)
    faces, n = np.asarray(mesh.faces, np.int64), len(mesh.vertices)
    # The directed edge 3 f + i leads from corner i of face f to its next; each occurs once, for the surface is oriented.
    tails, heads = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    order = np.argsort(tails * n + heads)
    twin = order[np.searchsorted((tails * n + heads)[order], heads * n + tails)]
    following = twin[np.arange(len(tails)).reshape(-1, 3)[:, [2, 0, 1]].ravel()]
    between = corner_angles(mesh).ravel()
    angles, total = np.zeros(len(tails)), np.zeros(n)
    _, start = np.unique(tails, return_index=True)
    current, going = start.copy(), np.arange(n)
    while len(going):
        angles[current[going]] = total[going]
        total[going] += between[current[going]]
        current[going] = following[current[going]]
        going = going[current[going] != start[going]]
    ends = np.asarray(mesh.vertices, np.float64)
    receivers, senders, reverse = (jnp.asarray(part, jnp.int32) for part in (tails, heads, twin))
    dtype = mesh.vertices.dtype
    lengths = jnp.asarray(np.linalg.norm(ends[heads] - ends[tails], axis=1), dtype)
    return EdgeLogs(receivers, senders, reverse, lengths, jnp.asarray(angles * (2 * np.pi / total)[tails], dtype), n)


def holonomy(edges: EdgeLogs, loops: Int[np.ndarray, "loops length"]) -> Float[np.ndarray, " loops"]:
    """By how much a vector that is carried along closed loops of vertices comes back turned, from -π to π.

    Over all faces, each run round counterclockwise, it sums to 2π times the Euler characteristic.

    **Raises:** `ValueError` for a step between vertices that have no common edge.

    >>> from gradatim.nets.geometric import icosphere
    >>> mesh = icosphere(1)
    >>> print(f"{holonomy(log_map_edges(mesh), np.asarray(mesh.faces)).sum() / np.pi:.3f} π")  # 2π times 2, of a sphere
    4.000 π
    """
    tails, heads = np.asarray(edges.receivers, np.int64), np.asarray(edges.senders, np.int64)
    keys = tails * edges.n_vertices + heads
    order = np.argsort(keys)
    wanted = np.roll(loops, -1, axis=1).astype(np.int64) * edges.n_vertices + loops
    places = order[np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)]
    if (keys[places] != wanted).any():
        row, column = np.argwhere(keys[places] != wanted)[0]
        here, there = loops[row, column], np.roll(loops, -1, axis=1)[row, column]
        raise ValueError(f"loops must run along edges, got a step from vertex {here} to vertex {there}")
    angles = np.asarray(edges.angles, np.float64)
    steps = angles[places] - angles[np.asarray(edges.reverse)[places]] - np.pi
    return np.mod(steps.sum(axis=1) + np.pi, 2 * np.pi) - np.pi


@eqx.filter_jit
def vertex_gradient(edges: EdgeLogs, x: Float[Array, " vertices"]) -> Float[Array, "vertices 2"]:
    """The gradient of a function at each vertex in its frame, by least squares over its edges: a field of order 1.

    >>> from gradatim.nets.geometric import icosphere
    >>> mesh = icosphere(2)
    >>> slopes = jnp.linalg.norm(vertex_gradient(log_map_edges(mesh), mesh.vertices[:, 2]), axis=1)  # of height, at most 1, at the equator
    >>> print(f"{slopes.max():.1f}")
    1.0
    """
    directions = jnp.stack([jnp.cos(edges.angles), jnp.sin(edges.angles)], axis=-1)
    slopes = (x[edges.senders] - x[edges.receivers]) / edges.lengths

    def over_edges(values: Array) -> Array:
        return jax.ops.segment_sum(values, edges.receivers, edges.n_vertices)

    right = over_edges(slopes[:, None] * directions)
    a, b, c = over_edges(jnp.stack([directions[:, 0] ** 2, directions.prod(axis=-1), directions[:, 1] ** 2], axis=-1)).T
    solved = jnp.stack([c * right[:, 0] - b * right[:, 1], a * right[:, 1] - b * right[:, 0]], axis=-1)
    return solved / (a * c - b * b)[:, None]


class HeatMethod:
    """Geodesic distances from a moment's flow of heat (Crane, Weischedel and Wardetzky, 2013).

        (M + t K) u = δ,     X = -∇u / |∇u|,     K d = Σ A ∇φ · X,     t = time_factor × (mean edge length)²

    Two sparse factorisations, on the host and in double precision, serve any number of sources; no derivatives. Distances are smoothed,
    and off by a percent or two on an even mesh; a larger `time_factor` smooths more.

    **Raises:** `ValueError` for a `time_factor` that is not positive.

    >>> from gradatim.nets.geometric import icosphere
    >>> distances = HeatMethod(icosphere(2))
    >>> print(f"{distances(0).max():.1f} from one vertex, {distances([0, 3]).max():.1f} from the nearer of it and its opposite")
    3.0 from one vertex, 1.5 from the nearer of it and its opposite
    """

    def __init__(self, mesh: Mesh, *, time_factor: float = 1.0) -> None:
        import scipy.sparse

        if not time_factor > 0:
            raise ValueError(f"time_factor must be positive, got {time_factor}")
        laplacian = cotangent_laplacian(mesh)
        stiffness = scipy.sparse.csc_matrix(sparse_stiffness(laplacian))
        self._faces, self._n, self._time_factor = np.asarray(mesh.faces), len(mesh.vertices), time_factor
        corners = np.asarray(mesh.vertices, np.float64)[self._faces]
        opposite = np.roll(corners, -2, axis=1) - np.roll(corners, -1, axis=1)
        normal = np.cross(opposite[:, 0], opposite[:, 1])
        # Gradients of the hat functions times twice the area.
        self._hats = np.cross((normal / np.linalg.norm(normal, axis=1, keepdims=True))[:, None], opposite)
        time = time_factor * float(np.linalg.norm(opposite, axis=-1).mean()) ** 2
        masses = scipy.sparse.diags_array(np.asarray(laplacian.mass, np.float64))
        self._heat = symmetric_lu(masses + time * stiffness, pivot_threshold=0)
        # Fixed at vertex 0, for constants are in the kernel of K; the surface must hang together.
        self._poisson = symmetric_lu(stiffness[1:, 1:], pivot_threshold=0)

    def __call__(self, sources: int | Sequence[int]) -> Float[np.ndarray, " vertices"]:
        """Of each vertex from the nearest of the sources.

        **Raises:** `ValueError` for a source that is no vertex, or for none, or for faces so far away that their heat is below the
        smallest number.
        """
        chosen = np.atleast_1d(np.asarray(sources, np.int64))
        if not chosen.size or chosen.min() < 0 or chosen.max() >= self._n:
            raise ValueError(f"sources must be numbers from 0 to {self._n - 1}, got {sources}")
        heat = np.zeros(self._n)
        heat[chosen] = 1.0
        at_corners = self._heat.solve(heat)[self._faces]
        # Only directions count; far away the heat itself is too small to be squared.
        hottest = np.abs(at_corners).max(axis=1, keepdims=True)
        if not hottest.all():
            cold = int((hottest == 0).sum())
            raise ValueError(f"time_factor must be larger, with {self._time_factor} no heat arrives at {cold} of {len(hottest)} faces")
        at_corners /= hottest
        flow = -(self._hats * at_corners[..., None]).sum(axis=1)
        flow /= np.maximum(np.linalg.norm(flow, axis=1, keepdims=True), np.finfo(float).tiny)
        right = np.bincount(self._faces.ravel(), ((self._hats * flow[:, None]).sum(axis=-1) / 2).ravel(), self._n)
        distance = np.concatenate([[0.0], self._poisson.solve(right[1:])])
        return distance - distance[chosen].mean()


def heat_method_distance(mesh: Mesh, sources: int | Sequence[int], *, time_factor: float = 1.0) -> Float[np.ndarray, " vertices"]:
    """Geodesic distances of all vertices by [`HeatMethod`][gradatim.nets.geometric.HeatMethod], which to keep for several sources.

    >>> from gradatim.nets.geometric import icosphere
    >>> distance = heat_method_distance(icosphere(3), 0)
    >>> f"{distance.max():.2f}"  # half a great circle, 3.14
    '3.09'
    """
    return HeatMethod(mesh, time_factor=time_factor)(sources)


class PatchConvolution(eqx.Module):
    """Convolution on geodesic patches, the largest over turns of the patch (Masci et al., arXiv:1501.06297; Monti et al., 1611.08402).

        (D_k x)_u = Σ_v w_k(r_uv, θ_uv) x_v / Σ_v w_k(r_uv, θ_uv),     y_u = max_q Σ_k t_{k + q} (D_k x)_u

    with Gaussian windows w_k on a polar grid about each vertex, over the vertex itself (r = 0, in all directions) and its neighbours. Radii
    and widths of the windows are learned beside the weights t; they start evenly from the vertex to the mean length of an edge.
    The maximum over the turns q of the grid makes the frames not matter, exactly if they turn by whole steps of the grid. With one angle
    it is an isotropic filter, for which they never do.

    **Arguments:** `n_in`, `n_out`: channels; `n_radii`, `n_angles`: of the grid, at least 1; `key`.

    >>> from gradatim.nets.geometric import icosphere
    >>> layer = PatchConvolution(1, 4, key=jax.random.key(0))
    >>> layer(log_map_edges(icosphere(1)), jnp.ones((42, 1))).shape
    (42, 4)
    """

    weight: Float[Array, "n_radii n_angles n_in n_out"]
    radii: Float[Array, " n_radii"]
    "Of the windows' centres, in mean lengths of an edge."
    log_widths: Float[Array, " n_radii"]
    "Logarithms of their standard deviations along the radius, in the same unit."
    log_spread: Float[Array, ""]
    "Logarithm of that in angle, in steps of the grid."
    pools: bool = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, n_radii: int = 2, n_angles: int = 8, pools: bool = True, key: PRNGKeyArray) -> None:
        if min(n_radii, n_angles) < 1:
            raise ValueError(f"n_radii and n_angles must be at least 1, got {n_radii} and {n_angles}")
        shape = (n_radii, n_angles, n_in, n_out)
        self.weight = jax.random.normal(key, (int(np.prod(shape)),)).reshape(shape) / np.sqrt(n_radii * n_angles * n_in)
        self.radii, self.log_widths = jnp.linspace(0.0, 1.0, n_radii), jnp.full(n_radii, -np.log(n_radii))
        self.log_spread = jnp.zeros(())
        self.pools = pools

    @eqx.filter_jit
    def __call__(self, edges: EdgeLogs, x: Float[Array, "vertices n_in"]) -> Float[Array, "vertices n_out"]:
        """Filtered features; without `pools` those of the frames as they are."""
        n_radii, n_angles = self.weight.shape[:2]
        step, widths = 2 * jnp.pi / n_angles, jnp.exp(self.log_widths)
        away = ((edges.lengths / edges.lengths.mean())[:, None] - self.radii[None]) / widths[None]
        aside = wrapped(edges.angles[:, None] - step * jnp.arange(n_angles)[None]) / step if n_angles > 1 else jnp.zeros((len(away), 1))
        aside = aside * jnp.exp(-self.log_spread)
        windows = jnp.exp(-(away[:, :, None] ** 2) / 2) * jnp.exp(-(aside[:, None] ** 2) / 2)
        own = jnp.broadcast_to(jnp.exp(-((self.radii / widths) ** 2) / 2)[:, None], (n_radii, n_angles))
        flat = windows.reshape(len(away), -1)
        total = jax.ops.segment_sum(flat, edges.receivers, edges.n_vertices) + own.ravel()[None]
        gathered = jax.ops.segment_sum(flat[:, :, None] * x[edges.senders][:, None], edges.receivers, edges.n_vertices)
        patch = (gathered + own.ravel()[None, :, None] * x[:, None]) / total[..., None]
        patch = patch.reshape(len(x), n_radii, n_angles, -1)
        # Turn q of the patch before its angle a: angle a + q.
        turned = (np.arange(n_angles)[:, None] + np.arange(n_angles if self.pools else 1)[None]) % n_angles
        return jnp.einsum("raqui,raio->uqo", jnp.moveaxis(patch[:, :, turned], 0, 3), self.weight).max(axis=1)
