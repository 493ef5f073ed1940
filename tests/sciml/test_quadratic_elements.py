import numpy as np
import pytest

from gradatim.sciml import COOK, Assembly, QuadMesh, kinematics, structured_quads

ROUND_OFF = 1e-12


def test_counts_and_order():
    mesh = structured_quads(16, 16)
    assert mesh.nodes.shape == (833, 2) and mesh.elements.shape == (256, 8)
    corners, middles = mesh.nodes[mesh.elements[:, :4]], mesh.nodes[mesh.elements[:, 4:]]
    np.testing.assert_allclose(middles, (corners + np.roll(corners, -1, axis=1)) / 2, atol=ROUND_OFF)
    assert np.array_equal(np.unique(mesh.elements), np.arange(833))


def test_quadratic_fields_have_exact_strains_on_a_quadrilateral_that_is_no_square():
    mesh = structured_quads(3, 2, corners=((0.0, 0.0), (2.0, 0.2), (2.2, 1.5), (0.1, 1.0)))
    found = kinematics(mesh)
    assert abs(found.weights.sum() - 2.305) < ROUND_OFF * 10
    x, y = mesh.nodes.T
    u, v = 0.3 * x - 0.1 * y, 0.2 * y + 0.5 * x
    local = np.stack([u[mesh.elements], v[mesh.elements]], axis=-1).reshape(len(mesh.elements), 16)
    strain = np.einsum("epkl,el->epk", found.gradient, local)
    np.testing.assert_allclose(strain, np.broadcast_to([0.3, 0.2, 0.4], strain.shape), atol=ROUND_OFF)
    square = structured_quads(2, 2)
    x, y = square.nodes.T
    found = kinematics(square)
    local = np.stack([(x * x + x * y)[square.elements], (y * y - x * y)[square.elements]], axis=-1).reshape(4, 16)
    at = found.places
    expected = np.stack([2 * at[..., 0] + at[..., 1], 2 * at[..., 1] - at[..., 0], at[..., 0] - at[..., 1]], axis=-1)
    np.testing.assert_allclose(np.einsum("epkl,el->epk", found.gradient, local), expected, atol=ROUND_OFF)


def test_gauss_points_of_an_element():
    weights = kinematics(structured_quads(1, 1, corners=((-1, -1), (1, -1), (1, 1), (-1, 1)))).weights[0]
    np.testing.assert_allclose(weights, np.array([25, 40, 25, 40, 64, 40, 25, 40, 25]) / 81, rtol=ROUND_OFF)
    assert kinematics(structured_quads(4, 4, corners=COOK), n_gauss=2).weights.shape == (16, 4)


def test_assembly_adds_up_what_is_free():
    freedoms = np.array([[0, 1, 4], [1, 2, 3], [3, 0, 4]])
    local = np.random.default_rng(0).normal(size=(3, 3, 3))
    dense, vector = np.zeros((5, 5)), np.zeros(5)
    for rows, block in zip(freedoms, local, strict=True):
        dense[np.ix_(rows, rows)] += block
        vector[rows] += block[0]
    assembly = Assembly(freedoms, 4)
    np.testing.assert_allclose(assembly.matrix(local).toarray(), dense[:4, :4])
    np.testing.assert_allclose(assembly.vector(local[:, 0]), vector[:4])


def test_meshes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="n_x must be at least 1, got 0"):
        structured_quads(0, 2)
    nodes, elements = structured_quads(1, 1)
    with pytest.raises(ValueError, match="counter-clockwise and convex"):
        kinematics(QuadMesh(nodes, elements[:, [3, 2, 1, 0, 6, 5, 4, 7]]))
