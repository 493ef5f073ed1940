import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.nets.geometric import (
    Mesh,
    angle_defects,
    corner_angles,
    cotangent_laplacian,
    edge_lengths,
    flat_sheet,
    icosphere,
    intrinsic_laplacian,
    spectrum,
    surface_gradient,
)
from gradatim.nets.geometric.meshes import sparse_stiffness

ROUND_OFF = 1e-10
"Sums of a few hundred numbers of order one in double precision."
TETRAHEDRON = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
CORNERS = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


@pytest.fixture(scope="module", autouse=True)
def everything_in_double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def spheres():
    return {level: icosphere(level) for level in (2, 3, 4)}


@pytest.fixture(scope="module")
def laplacians(spheres):
    return {level: cotangent_laplacian(mesh) for level, mesh in spheres.items()}


def dense(laplacian):
    return sparse_stiffness(laplacian).toarray()


@pytest.mark.parametrize(
    ("level", "first", "second", "third", "area"),
    [
        (2, 1.999908, 5.864496, 11.323425, 12.329849),
        (3, 1.999992, 5.965858, 11.826990, 12.506493),
        (4, 1.999999, 5.991453, 11.956504, 12.551354),
    ],
)
def test_oracle_eigenvalues_of_the_sphere(laplacians, level, first, second, third, area):
    values = spectrum(laplacians[level], 10).eigenvalues
    np.testing.assert_allclose(values[1:4], first, atol=1e-6)
    np.testing.assert_allclose([values[4], values[9]], [second, third], atol=1e-6)
    assert abs(values[0]) < 1e-9 and abs(float(laplacians[level].mass.sum()) - area) < 1e-6


def test_oracle_the_error_falls_fourfold_with_each_level(laplacians):
    errors = [6 - spectrum(laplacian, 9).eigenvalues[4:].mean() for laplacian in laplacians.values()]
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4, rtol=0.02)


def test_eigenvectors_are_orthonormal_and_the_sparse_and_the_dense_way_agree(laplacians):
    found = spectrum(laplacians[3], 30)
    gram = found.coefficients(found.eigenvectors)
    np.testing.assert_allclose(gram, np.eye(30), atol=ROUND_OFF)
    np.testing.assert_allclose(spectrum(laplacians[3], 200).eigenvalues[:30], found.eigenvalues, atol=1e-8)


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_oracle_gauss_bonnet_holds_for_whatever_shape(spheres, seed, size):
    mesh = spheres[2]
    moved = mesh.moved(mesh.vertices + size * np.random.default_rng(seed).normal(size=mesh.vertices.shape))
    # Sums of 960 angles.
    assert abs(angle_defects(moved).sum() - 4 * np.pi) < 1e-11
    np.testing.assert_allclose(corner_angles(moved).sum(axis=1), np.pi, atol=1e-12)


def test_oracle_right_triangles_give_the_five_point_laplacian():
    n, h = 6, 0.5
    laplacian = cotangent_laplacian(flat_sheet(n, n, spacing=h))
    matrix = dense(laplacian).reshape(n, n, n, n)
    five = np.zeros((n, n))
    five[2, 3], five[1, 3], five[3, 3], five[2, 2], five[2, 4] = 4, -1, -1, -1, -1
    np.testing.assert_allclose(matrix[2, 3], five, atol=ROUND_OFF)
    np.testing.assert_allclose(laplacian.mass.reshape(n, n)[1:-1, 1:-1], h**2, atol=ROUND_OFF)


def test_oracle_folding_keeps_it_and_stretching_does_not():
    sheet = flat_sheet(6, 6)
    x, y, _ = np.asarray(sheet.vertices).T
    folded = sheet.moved(jnp.stack([np.minimum(x, 2), y, np.maximum(x - 2, 0)], axis=1))
    stretched = sheet.moved(jnp.stack([1.1 * x, y, 0 * x], axis=1))
    plain, after, control = (dense(cotangent_laplacian(mesh)) for mesh in (sheet, folded, stretched))
    np.testing.assert_allclose(after, plain, atol=ROUND_OFF)
    assert np.linalg.norm(control - plain) > 0.03 * np.linalg.norm(plain)


def test_oracle_lengths_of_edges_are_enough(spheres):
    mesh = spheres[2].moved(spheres[2].vertices * jnp.array([[1.0, 2.0, 0.5]]))
    by_lengths, by_places = intrinsic_laplacian(mesh, edge_lengths(mesh)), cotangent_laplacian(mesh)
    np.testing.assert_allclose(dense(by_lengths), dense(by_places), atol=ROUND_OFF)
    np.testing.assert_allclose(by_lengths.mass, by_places.mass, atol=ROUND_OFF)


def test_oracle_cotangents_of_one_triangle():
    # Angles of 90°, 60° and 30°: cotangents 0, 1/√3 and √3, each halved.
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 3**0.5, 0], [0, -(3**0.5), 0]])
    # Two of them, mirrored, with the short side in common.
    laplacian = cotangent_laplacian(Mesh(vertices, np.array([[0, 1, 2], [1, 0, 3]])))
    matrix = dense(laplacian)
    np.testing.assert_allclose([-matrix[1, 2], -matrix[0, 2], -matrix[0, 1]], [0, 1 / 3**0.5 / 2, 3**0.5], atol=1e-12)
    np.testing.assert_allclose(laplacian.mass[2:], 3**0.5 / 6, atol=1e-12)


def test_trap_an_obtuse_triangle_has_a_negative_weight_and_the_matrix_is_positive_all_the_same():
    # Half as high as wide: the angles opposite the common edge exceed 180° together.
    vertices = np.array([[-1.0, 0, 0], [1, 0, 0], [0, 0.3, 0], [0, -0.3, 0]])
    matrix = dense(cotangent_laplacian(Mesh(vertices, np.array([[0, 1, 2], [1, 0, 3]]))))
    assert -matrix[0, 1] < 0
    assert np.linalg.eigvalsh(matrix).min() > -1e-12


def test_trap_divided_by_its_masses_the_matrix_is_not_symmetric(laplacians):
    matrix = dense(laplacians[2]) / np.asarray(laplacians[2].mass)[:, None]
    assert np.abs(matrix - matrix.T).max() > 1e-3
    assert np.abs(dense(laplacians[2]) - dense(laplacians[2]).T).max() == 0


def test_energy_of_the_gradient_is_the_quadratic_form(spheres, laplacians):
    mesh, laplacian = spheres[2], laplacians[2]
    x = jax.device_put(np.random.default_rng(0).normal(size=162))
    gradient = np.asarray(surface_gradient(mesh, x))
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.faces)]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    energy = (area * (gradient**2).sum(axis=1)).sum()
    np.testing.assert_allclose(energy, x @ (dense(laplacian) @ x), rtol=ROUND_OFF)
    np.testing.assert_allclose(
        eqx.filter_jit(lambda laplacian, x: laplacian(x))(laplacian, x), dense(laplacian) @ x / np.asarray(laplacian.mass), atol=ROUND_OFF
    )


def test_no_eigenvalue_exceeds_the_bound(laplacians):
    top = spectrum(laplacians[2], 162).eigenvalues[-1]
    assert top <= float(laplacians[2].largest()) < 2 * top


def test_derivative_by_the_vertices(spheres):
    mesh = spheres[2]
    random = np.random.default_rng(1)
    x, way = jax.device_put(random.normal(size=162)), jax.device_put(random.normal(size=(162, 3)))

    @jax.jit
    @jax.value_and_grad
    def energy(step):
        return x @ cotangent_laplacian(mesh.moved(mesh.vertices + step * way)).stiff(x)

    (ahead, _), (back, _) = energy(1e-5), energy(-1e-5)
    np.testing.assert_allclose(energy(0.0)[1], (ahead - back) / 2e-5, rtol=1e-5)


def test_vertices_renamed():
    mesh = icosphere(0)
    order = np.random.default_rng(0).permutation(12)
    renamed = mesh.relabelled(order)
    corners = [np.asarray(m.vertices)[np.asarray(m.faces)] for m in (mesh, renamed)]
    np.testing.assert_array_equal(*corners)


def test_single_precision_stays_single():
    with jax.enable_x64(False):
        laplacian = eqx.filter_eval_shape(cotangent_laplacian, icosphere(0))
        assert laplacian.mass.dtype == laplacian.stiffness.data.dtype == jnp.float32


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ([*TETRAHEDRON.tolist(), [0, 1, 4]], "at most two faces, got 3 at the edge between vertices 0 and 1"),
        ([[0, 1, 2], [0, 1, 3], [2, 3, 4]], "oriented alike, got two that run along their common edge from vertex 0 to vertex 1"),
        ([[0, 1, 2], [0, 3, 4]], "one fan, got more than one at vertex 0"),
        ([[0, 1, 1], [2, 3, 4]], r"three different vertices, got \[0, 1, 1\]"),
        ([[0, 1, 2]], "each vertex must lie in a face, got 2 that do not, the first 3"),
        ([[0, 1, 5]], "numbers from 0 to 4, those of the vertices, got 0 to 5"),
        (np.zeros((0, 3), int), "numbers from 0 to 4, those of the vertices, got no face"),
    ],
)
def test_what_is_no_surface_is_refused(faces, message):
    with pytest.raises(ValueError, match=message):
        Mesh(np.zeros((5, 3)), np.array(faces))


def test_a_boundary_is_refused_where_a_closed_surface_is_needed():
    with pytest.raises(ValueError, match="the mesh must be closed, got a boundary of 3 edges, the first between vertices"):
        angle_defects(Mesh(CORNERS, TETRAHEDRON[:3]))


def test_numbers_out_of_range_are_refused(laplacians, spheres):
    with pytest.raises(ValueError, match="level must be at least 0, got -1"):
        icosphere(-1)
    with pytest.raises(ValueError, match="rows and columns must be at least 2, got 1 and 3"):
        flat_sheet(1, 3)
    for k in (0, 163):
        with pytest.raises(ValueError, match=f"k must lie between 1 and the 162 vertices, got {k}"):
            spectrum(laplacians[2], k)
    with pytest.raises(ValueError, match=r"vertices must have shape \(162, 3\), got \(161, 3\)"):
        spheres[2].moved(spheres[2].vertices[1:])


def test_lengths_that_make_no_triangle_are_refused(spheres):
    mesh = spheres[2]
    with pytest.raises(Exception, match="lengths must obey the triangle inequality in each face"):
        intrinsic_laplacian(mesh, edge_lengths(mesh).at[0].set(3.0)).mass.block_until_ready()


def test_a_sphere_has_the_radius_that_it_was_given():
    vertices = np.asarray(icosphere(1, radius=2.5).vertices)
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 2.5, rtol=1e-12)
