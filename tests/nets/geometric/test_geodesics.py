import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.nets.geometric import (
    HeatMethod,
    Mesh,
    PatchConvolution,
    angle_defects,
    corner_angles,
    edge_lengths,
    flat_sheet,
    heat_method_distance,
    holonomy,
    icosphere,
    log_map_edges,
    surface_gradient,
    vertex_gradient,
)

ROUND_OFF = 1e-10


@pytest.fixture(scope="module", autouse=True)
def everything_in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def potato():
    """A sphere whose vertices were moved, so that no two are alike."""
    mesh = icosphere(1)
    return mesh.moved(mesh.vertices * (1 + 0.2 * np.random.default_rng(0).random((42, 3))))


@pytest.fixture(scope="module")
def edges(potato):
    return log_map_edges(potato)


def test_oracle_angles_about_a_vertex_are_scaled_to_a_whole_turn(potato, edges):
    receivers, angles = np.asarray(edges.receivers), np.asarray(edges.angles)
    faces, corners = np.asarray(potato.faces), corner_angles(potato)
    total = np.bincount(faces.ravel(), corners.ravel())
    senders = np.asarray(edges.senders)
    for u in range(42):
        mine = np.flatnonzero(receivers == u)
        mine = mine[np.argsort(angles[mine])]
        assert angles[mine[0]] == 0
        gaps = np.diff([*angles[mine], 2 * np.pi])
        for place, following, gap in zip(mine, np.roll(mine, -1), gaps, strict=True):
            # The face to the left of an edge lies between it and the next one, counterclockwise.
            face = np.flatnonzero(((faces == u) | (faces == senders[place]) | (faces == senders[following])).all(axis=1))[0]
            own = corners[face, faces[face].tolist().index(u)]
            assert abs(gap - own * 2 * np.pi / total[u]) < ROUND_OFF


def test_transport_back_undoes_transport(edges):
    there = np.asarray(edges.transport())
    both = there + there[np.asarray(edges.reverse)]
    np.testing.assert_allclose(np.mod(both + np.pi, 2 * np.pi), np.pi, atol=ROUND_OFF)
    np.testing.assert_array_equal(np.asarray(edges.senders)[np.asarray(edges.reverse)], edges.receivers)


def test_oracle_holonomy_of_all_faces_is_gauss_bonnet(potato, edges):
    turns = holonomy(edges, np.asarray(potato.faces))
    assert abs(turns.sum() - 4 * np.pi) < ROUND_OFF


def test_oracle_holonomy_about_a_vertex_is_its_angle_defect(potato):
    # Carried over the faces about a vertex, each hinged flat onto the next, a vector comes back turned by the defect.
    vertices, faces = np.asarray(potato.vertices), np.asarray(potato.faces)
    for u in range(5):
        fan = {int(np.roll(f, -list(f).index(u))[1]): np.roll(f, -list(f).index(u)) for f in faces if u in f}
        face = next(iter(fan.values()))
        normal = lambda f: np.cross(vertices[f[1]] - vertices[f[0]], vertices[f[2]] - vertices[f[0]])  # noqa: E731
        first = vector = vertices[face[1]] - vertices[u]
        for _ in fan:
            following = fan[int(face[2])]
            axis = vertices[face[2]] - vertices[u]
            a, b, c = (w / np.linalg.norm(w) for w in (normal(face), normal(following), axis))
            angle = np.arctan2(np.cross(a, b) @ c, a @ b)
            vector = vector * np.cos(angle) + np.cross(c, vector) * np.sin(angle) + c * (c @ vector) * (1 - np.cos(angle))
            face = following
        n = normal(face) / np.linalg.norm(normal(face))
        turned = np.arctan2(np.cross(first, vector) @ n, first @ vector)
        assert abs(turned - angle_defects(potato)[u]) < ROUND_OFF


@given(st.integers(0, 2**32 - 1))
def test_oracle_whatever_the_frames_singularities_count_two(potato, edges, seed):
    """No frame is smooth on a sphere: by how much transports along the sides of faces miss its holonomy are whole turns, two in all."""
    turned = edges.turned(jax.device_put(np.random.default_rng(seed).uniform(-9, 9, 42)))
    angles, reverse = np.asarray(turned.angles), np.asarray(turned.reverse)
    steps = np.mod(angles - angles[reverse], 2 * np.pi) - np.pi
    table = np.zeros((42, 42))
    table[np.asarray(edges.receivers), np.asarray(edges.senders)] = steps
    faces = np.asarray(potato.faces)
    around = sum(table[np.roll(faces, -1, axis=1)[:, i], faces[:, i]] for i in range(3))
    indices = (holonomy(turned, faces) - around) / (2 * np.pi)
    np.testing.assert_allclose(indices, indices.round(), atol=1e-9)
    assert round(indices.sum()) == 2


@given(st.integers(0, 2**32 - 1))
def test_holonomy_does_not_depend_on_frames(potato, edges, seed):
    turned = edges.turned(jax.device_put(np.random.default_rng(seed).uniform(-9, 9, 42)))
    difference = holonomy(turned, np.asarray(potato.faces)) - holonomy(edges, np.asarray(potato.faces))
    np.testing.assert_allclose(difference, 0, atol=ROUND_OFF)


def test_heat_gives_great_circles():
    mesh = icosphere(3)
    exact = np.arccos(np.clip(np.asarray(mesh.vertices) @ np.asarray(mesh.vertices[7]), -1, 1))
    method = HeatMethod(mesh)
    found = method(7)
    # Smoothed at the source and opposite; the first shifts all by a fraction of an edge, which is 0.15 long.
    assert np.abs(found - exact).max() < 0.06 and abs(found[7]) < 1e-12
    assert np.abs(found - exact).mean() < 0.03
    two = method([7, int(exact.argmax())])
    assert np.abs(two - np.minimum(exact, np.pi - exact)).max() < 0.08


def test_gradients_turn_with_the_frames(potato, edges):
    x, frames = potato.vertices[:, 2], jax.device_put(np.linspace(-3, 3, 42))
    plain, turned = (np.asarray(vertex_gradient(e, x)) for e in (edges, edges.turned(frames)))
    c, s = np.cos(frames), np.sin(frames)
    expected = np.stack([c * plain[:, 0] + s * plain[:, 1], c * plain[:, 1] - s * plain[:, 0]], axis=1)
    np.testing.assert_allclose(turned, expected, atol=ROUND_OFF)


def test_gradient_of_height_on_the_sphere():
    mesh = icosphere(3)
    length = np.linalg.norm(vertex_gradient(log_map_edges(mesh), mesh.vertices[:, 2]), axis=1)
    np.testing.assert_allclose(length, np.sqrt(1 - np.asarray(mesh.vertices)[:, 2] ** 2), atol=0.02)


def patches(n_angles, pools=True):
    """Of two channels to three, weights from the host."""
    layer = PatchConvolution(2, 3, n_angles=n_angles, pools=pools, key=jax.random.key(0))
    weight = np.random.default_rng(5).normal(size=layer.weight.shape)
    return eqx.tree_at(lambda module: module.weight, layer, jax.device_put(weight))


def test_patches_pooled_over_turns_do_not_see_the_frames(edges):
    x = jax.device_put(np.random.default_rng(2).normal(size=(42, 2)))
    steps = jax.device_put(np.random.default_rng(3).integers(0, 8, 42) * (2 * np.pi / 8))
    errors = {}
    for pools in (True, False):
        layer = patches(8, pools)
        errors[pools] = abs(np.asarray(layer(edges.turned(steps), x)) - np.asarray(layer(edges, x))).max()
    assert errors[True] < ROUND_OFF and errors[False] > 1e-2
    isotropic, anyhow = patches(1), edges.turned(jax.device_put(np.linspace(0, 5, 42)))
    np.testing.assert_allclose(isotropic(anyhow, x), isotropic(edges, x), atol=ROUND_OFF)


def test_windows_are_learned_beside_the_weights(edges):
    x, layer = jax.device_put(np.random.default_rng(2).normal(size=(42, 2))), patches(8)
    windows = (layer.radii, layer.log_widths, layer.log_spread)

    def loss(windows):
        return (eqx.tree_at(lambda module: (module.radii, module.log_widths, module.log_spread), layer, windows)(edges, x) ** 2).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(windows)
    way, step = [jax.device_put(np.random.default_rng(7).normal(size=leaf.shape)) for leaf in windows], 1e-6
    ahead, behind = (loss(tuple(leaf + sign * step * d for leaf, d in zip(windows, way, strict=True))) for sign in (1, -1))
    along = sum(float((g * d).sum()) for g, d in zip(gradient, way, strict=True))
    assert np.isfinite(value) and abs(along - (ahead - behind) / (2 * step)) < 1e-5 * abs(along)
    assert all(np.abs(np.asarray(part)).max() > 0 for part in gradient)


def test_a_patch_of_a_constant_is_that_constant(edges):
    layer = eqx.tree_at(lambda module: module.weight, patches(8), jax.device_put(np.full((2, 8, 2, 3), 1 / 32)))
    np.testing.assert_allclose(layer(edges, jax.device_put(np.full((42, 2), 2.5))), 2.5, atol=ROUND_OFF)


def test_what_cannot_be_is_refused(potato, edges):
    with pytest.raises(ValueError, match="the mesh must be closed, got a boundary of 8 edges"):
        log_map_edges(flat_sheet(3, 3))
    apart = next(v for v in range(1, 42) if v not in np.asarray(edges.senders)[np.asarray(edges.receivers) == 0])
    with pytest.raises(ValueError, match=f"loops must run along edges, got a step from vertex 0 to vertex {apart}"):
        holonomy(edges, np.array([[0, apart]]))
    with pytest.raises(ValueError, match=r"time_factor must be positive, got 0\.0"):
        heat_method_distance(potato, 0, time_factor=0.0)
    with pytest.raises(ValueError, match=r"time_factor must be larger, with 1e-200 no heat arrives at \d+ of 80 faces"):
        heat_method_distance(potato, 0, time_factor=1e-200)
    for sources in (42, -1, []):
        with pytest.raises(ValueError, match="sources must be numbers from 0 to 41"):
            heat_method_distance(potato, sources)
    with pytest.raises(ValueError, match="n_radii and n_angles must be at least 1, got 0 and 8"):
        PatchConvolution(1, 1, n_radii=0, key=jax.random.key(0))
    assert isinstance(potato, Mesh)


def test_a_gradient_is_the_least_squares_fit_of_the_slopes_along_edges(edges):
    x = np.random.default_rng(4).normal(size=42)
    receivers, senders = np.asarray(edges.receivers), np.asarray(edges.senders)
    slopes = (x[senders] - x[receivers]) / np.asarray(edges.lengths)
    ways = np.stack([np.cos(edges.angles), np.sin(edges.angles)], axis=1)
    expected = [np.linalg.lstsq(ways[receivers == u], slopes[receivers == u], rcond=None)[0] for u in range(42)]
    np.testing.assert_allclose(vertex_gradient(edges, jax.device_put(x)), expected, atol=ROUND_OFF)


@pytest.mark.parametrize("time_factor", [1.0, 20.0])
def test_distances_are_those_of_the_equations_in_dense_matrices(potato, time_factor):
    slopes = np.stack([np.asarray(surface_gradient(potato, one)) for one in jnp.eye(42)], axis=-1)
    corners = np.asarray(potato.vertices)[np.asarray(potato.faces)]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    K = np.einsum("f,fdu,fdv->uv", area, slopes, slopes)
    M = np.diag(np.bincount(np.asarray(potato.faces).ravel(), np.repeat(area / 3, 3)))
    heat = np.linalg.solve(M + time_factor * np.asarray(edge_lengths(potato)).mean() ** 2 * K, np.eye(42)[5])
    flow = -slopes @ heat
    flow /= np.linalg.norm(flow, axis=1, keepdims=True)
    distance = np.linalg.pinv(K) @ np.einsum("f,fdu,fd->u", area, slopes, flow)
    np.testing.assert_allclose(heat_method_distance(potato, 5, time_factor=time_factor), distance - distance[5], atol=1e-8)


@pytest.mark.parametrize("pools", [False, True])
def test_patches_are_those_of_their_equation(edges, pools):
    layer = patches(3, pools)
    windows = (lambda m: (m.radii, m.log_widths, m.log_spread))(layer)
    drawn = [np.random.default_rng(i).uniform(0.3, 0.9, leaf.shape) for i, leaf in enumerate(windows)]
    layer = eqx.tree_at(lambda m: (m.radii, m.log_widths, m.log_spread), layer, tuple(map(jax.device_put, drawn)))
    radii, widths, spread = drawn[0], np.exp(drawn[1]), np.exp(drawn[2])
    x, weight = np.random.default_rng(2).normal(size=(42, 2)), np.asarray(layer.weight)
    receivers, senders, step = np.asarray(edges.receivers), np.asarray(edges.senders), 2 * np.pi / 3
    lengths, angles = np.asarray(edges.lengths / edges.lengths.mean()), np.asarray(edges.angles)
    expected = []
    for u in range(5):
        mine = receivers == u
        patch = np.zeros((2, 3, 2))
        for k, a in np.ndindex(2, 3):
            aside = np.angle(np.exp(1j * (angles[mine] - a * step))) / (step * spread)
            w = np.exp(-(((lengths[mine] - radii[k]) / widths[k]) ** 2) / 2 - aside**2 / 2)
            own = np.exp(-((radii[k] / widths[k]) ** 2) / 2)
            patch[k, a] = (w @ x[senders[mine]] + own * x[u]) / (w.sum() + own)
        turns = [np.einsum("rai,raio->o", np.roll(patch, -q, axis=1), weight) for q in range(3 if pools else 1)]
        expected.append(np.max(turns, axis=0))
    np.testing.assert_allclose(np.asarray(layer(edges, jax.device_put(x)))[:5], expected, atol=ROUND_OFF)
