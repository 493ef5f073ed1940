import jax
import jaxtyping
import numpy as np
import pytest

from gradatim.sciml import PeriodicCell, QuadMesh, linear_elastic, periodic_partners, ramberg_like_elastic, structured_quads

ORACLE = 5e-9  # relative: figures are known to ten digits
FIBRE = (43452.381, 29918.0328)
STRAINS = np.array([(0.02, 0, 0), (0, 0, 0.04), (0.02, -0.01, 0.03), (0.04, 0.04, 0.04)])
MIXED = np.array([0.02, -0.01, 0.03])


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def materials(norm="plane_strain"):
    return [ramberg_like_elastic(4780.0, 50.0, 0.06, norm=norm), linear_elastic(*FIBRE)]


def disk(x, y):
    return x**2 + y**2 < 0.3**2


@pytest.fixture(scope="module")
def fine():
    return PeriodicCell.structured(16, materials=materials(), material_id=disk)


@pytest.fixture(scope="module")
def fine_in_plane():
    return PeriodicCell.structured(16, materials=materials("in_plane"), material_id=disk)


@pytest.fixture(scope="module")
def small():
    return PeriodicCell.structured(4, materials=materials(), material_id=disk)


@pytest.fixture(scope="module")
def small_in_plane():
    return PeriodicCell.structured(4, materials=materials("in_plane"), material_id=disk)


@pytest.fixture(scope="module")
def mixed(small):
    return small.solve(MIXED)


def test_o1_a_homogeneous_cell_has_the_stress_of_its_material():
    cell = PeriodicCell.structured(4, materials=materials("in_plane")[:1])
    found = cell.solve(MIXED)
    np.testing.assert_allclose(found.average_stress, [57.04975769, 40.40019385, 8.32478192], rtol=1e-9)
    assert np.abs(found.fluctuation).max() < 1e-15 and np.ptp(found.stress, axis=1).max() < 1e-10


def test_o2_hill_and_mandel_stress_and_strain_work_the_same_on_both_scales(fine_in_plane):
    found = fine_in_plane.solve(MIXED)
    inside = (found.stress * found.strain * np.array([[1], [1], [2]])).sum(axis=0) @ fine_in_plane.weights
    outside = found.average_stress @ MIXED
    assert abs(inside / outside - 1) < 1e-12
    np.testing.assert_allclose(outside, 1.513341292, rtol=ORACLE)


def test_o3_averaged_stresses_of_a_fibre(fine):
    assert (fine.material_id == 1).mean() == 0.296875 and np.unique(fine.partner).size == 768 and fine.weights.size == 2304
    expected = [
        (148.849242, 122.753307, 0),
        (0, 0, 15.2910624),
        (83.93876327, 50.91619172, 11.40445203),
        (538.0795293, 538.0795293, 12.2213769),
    ]
    np.testing.assert_allclose(fine.snapshots(STRAINS).average_stress, expected, rtol=ORACLE, atol=1e-6)


def test_o3_averaged_stresses_with_the_in_plane_norm(fine_in_plane):
    expected = [(149.112603, 122.701506, 0), (0, 0, 15.29121), (83.97161014, 50.89886338, 11.42992411), (539.026504, 539.026504, 13.177978)]
    np.testing.assert_allclose(fine_in_plane.snapshots(STRAINS).average_stress, expected, rtol=5e-8, atol=1e-6)


def test_o4_the_tangent_at_zero_lies_between_the_bounds(fine):
    tangent = fine.solve(np.zeros(3)).tangent
    np.testing.assert_allclose(tangent[[0, 1, 0, 1, 2], [0, 1, 1, 0, 2]], [7930.906, 7930.906, 5909.925, 5909.925, 676.3365], rtol=1e-7)
    assert np.abs(tangent[:2, 2]).max() < 1e-8 and np.abs(tangent[2, :2]).max() < 1e-8

    def stiffness(bulk, shear):
        return np.array([[bulk + 4 / 3 * shear, bulk - 2 / 3 * shear, 0], [bulk - 2 / 3 * shear, bulk + 4 / 3 * shear, 0], [0, 0, shear]])

    share, matrix, fibre = 0.296875, stiffness(4780, 50 / 0.12), stiffness(*FIBRE)
    voigt = (1 - share) * matrix + share * fibre
    reuss = np.linalg.inv((1 - share) * np.linalg.inv(matrix) + share * np.linalg.inv(fibre))
    np.testing.assert_allclose([reuss[0, 0], reuss[0, 1], reuss[2, 2]], [7323.10, 6144.85, 589.13], rtol=1e-5)
    np.testing.assert_allclose([voigt[0, 0], voigt[0, 1], voigt[2, 2]], [28494.04, 10144.27, 9174.88], rtol=1e-5)
    assert np.linalg.eigvalsh(tangent - reuss).min() > 0 and np.linalg.eigvalsh(voigt - tangent).min() > 0


@pytest.mark.parametrize("name", ["small", "small_in_plane"])
def test_o5_tangents_are_slopes_of_the_averaged_stress_by_the_engineering_shear(name, request):
    cell, step = request.getfixturevalue(name), 1e-5
    found = cell.solve(MIXED)
    ends = [[cell.solve(MIXED + sign * step * e).average_stress for sign in (1, -1)] for e in np.eye(3)]
    slopes = np.stack([(up - down) / (2 * step) for up, down in ends], axis=1)
    np.testing.assert_allclose(found.tangent, slopes, atol=1e-8 * abs(found.tangent).max())
    asymmetry = abs(found.tangent - found.tangent.T).max()
    assert asymmetry < 1e-8 if name == "small" else asymmetry > 1


def test_o6_the_stress_across_a_laminate_is_constant():
    cell = PeriodicCell.structured(4, materials=materials("in_plane"), material_id=lambda x, y: x > 0)
    found = cell.solve(np.array([0.01, 0, 0]))
    assert abs(found.average_stress[0] - 98.4) < 0.05 and np.ptp(found.stress[0]) < 1e-7 * found.average_stress[0]
    assert np.ptp(found.stress[1]) > 1


def test_solutions_are_in_equilibrium_and_periodic(small, mixed):
    assert mixed.residual <= 1e-12 and small.equilibrium_residual(mixed.stress) == mixed.residual and 2 <= mixed.steps <= 8
    assert np.array_equal(mixed.fluctuation, mixed.fluctuation[:, small.partner]) and not mixed.fluctuation[:, 0].any()
    assert small.equilibrium_residual(mixed.strain) > 1e-2
    np.testing.assert_allclose(small.strain_of(mixed.fluctuation) + (MIXED * [1, 1, 0.5])[:, None], mixed.strain, atol=1e-15)
    np.testing.assert_allclose(small.strain_of(mixed.fluctuation) @ small.weights, 0, atol=1e-15)


def test_a_start_at_the_solution_takes_no_step(small, mixed):
    again = small.solve(MIXED, start=mixed.fluctuation)
    assert again.steps == 0
    np.testing.assert_allclose(again.average_stress, mixed.average_stress, rtol=1e-12)


def test_snapshots_are_solutions_one_by_one(small, mixed):
    both = small.snapshots(np.stack([np.zeros(3), MIXED]))
    assert both.stress.shape == (2, 3, 144) and not both.stress[0].any()
    for name, one in mixed._asdict().items():
        assert np.array_equal(getattr(both, name)[1], one), name


def test_a_rectangle_stretched_has_the_averages_of_its_square_if_nothing_varies_along_it():
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
    layers = {"materials": materials(), "material_id": lambda x, y: x > x.mean()}
    one, other = PeriodicCell.structured(4, **layers), PeriodicCell.structured(4, corners=corners, **layers)
    assert abs(other.area - 0.5) < 1e-15
    np.testing.assert_allclose(one.solve(MIXED).average_stress, other.solve(MIXED).average_stress, rtol=1e-10)


def test_trap_four_corners_are_one_node():
    mesh = structured_quads(3, 3)
    partner = periodic_partners(mesh.nodes)
    corners = np.flatnonzero((abs(mesh.nodes) > 0.499).all(axis=1))
    assert corners.size == 4 and np.unique(partner[corners]).size == 1 and np.unique(partner).size == 27
    assert np.array_equal(partner[partner], partner)


def test_meshes_and_strains_that_do_not_fit_are_refused(small):
    nodes, elements = structured_quads(2, 2)
    moved = nodes.copy()
    moved[np.flatnonzero(np.isclose(nodes[:, 0], 0.5))[1], 1] += 0.01
    with pytest.raises(ValueError, match="nodes on the left and the right side must pair up, got 5 and 5"):
        PeriodicCell(QuadMesh(moved, elements), materials()[:1])
    with pytest.raises(ValueError, match="one number for each of 4 elements, got shape"):
        PeriodicCell(QuadMesh(nodes, elements), materials(), np.zeros(3, int))
    with pytest.raises(ValueError, match=r"tolerance must lie in \(0, 1e-6\], got 0\.1"):
        PeriodicCell(QuadMesh(nodes, elements), materials()[:1], tolerance=0.1)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strains"):
        small.snapshots(np.zeros((2, 2)))
    with jax.enable_x64(False), pytest.raises(ValueError, match="PeriodicCell needs JAX in double precision"):
        PeriodicCell(QuadMesh(nodes, elements), materials()[:1])


def test_steps_that_do_not_suffice_are_an_error(small):
    cell = PeriodicCell(small.mesh, materials(), small.material_id, max_steps=1)
    with pytest.raises(RuntimeError, match="start from the solution of a smaller strain"):
        cell.solve(MIXED)
