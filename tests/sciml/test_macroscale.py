import jax
import jaxtyping
import numpy as np
import pytest

from gradatim.sciml import (
    COOK,
    CellConstitutive,
    EquilibriumOperator,
    ModalBasis,
    OperatorConstitutive,
    PeriodicCell,
    clamped_and_sheared,
    ramberg_like_elastic,
    solve_macro,
    structured_quads,
)

ROUND_OFF = 1e-10


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


STIFFNESS = np.array([[5.0, 2.0, 0.0], [2.0, 5.0, 0.0], [0.0, 0.0, 1.5]])


def linear(strains):
    return strains @ STIFFNESS.T, np.tile(STIFFNESS, (len(strains), 1, 1))


def cubic(strains):
    """Stiffening, with a tangent that is not symmetric."""
    skew = np.array([[0.0, 1.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.3, 0.0]])
    matrix = STIFFNESS + skew
    cubes = 1e3 * strains[..., None] ** 2 * np.eye(3)
    return strains @ matrix.T + 1e3 * strains**3, matrix + 3 * cubes


@pytest.fixture(scope="module")
def cell():
    return PeriodicCell.structured(1, materials=[ramberg_like_elastic(4780.0, 50.0, 0.06)])


@pytest.fixture(scope="module")
def cook():
    mesh = structured_quads(2, 2, corners=COOK)
    return mesh, *clamped_and_sheared(mesh, 0.6)


@pytest.mark.parametrize("law", [linear, cubic])
def test_a_uniform_strain_is_found_from_its_boundary(law):
    mesh = structured_quads(3, 2, corners=((0.0, 0.0), (2.0, 0.2), (2.2, 1.5), (0.1, 1.0)))
    x, y = mesh.nodes.T
    values = np.stack([0.01 * x - 0.02 * y, 0.03 * x + 0.015 * y])
    touching = np.unique(mesh.elements, return_counts=True)[1]
    # Inside are the corners of four elements and the middles of sides that two share.
    is_corner = np.isin(np.arange(len(x)), mesh.elements[:, :4])
    is_boundary = np.where(is_corner, touching < 4, touching < 2)
    found = solve_macro(mesh, law, is_fixed=np.stack([is_boundary] * 2), values=values, tolerance=1e-12)
    np.testing.assert_allclose(found.displacement, values, atol=ROUND_OFF)
    np.testing.assert_allclose(found.strain, np.broadcast_to([0.01, 0.015, 0.01], found.strain.shape), atol=ROUND_OFF)
    np.testing.assert_allclose(found.reaction.sum(axis=1), 0, atol=ROUND_OFF)


def test_quadratic_convergence_with_a_tangent_that_is_not_symmetric(cook):
    mesh, is_fixed, values = cook
    found = solve_macro(mesh, cubic, is_fixed=is_fixed, values=values, tolerance=1e-11)
    assert 2 <= found.steps <= 6 and not found.reaction[~is_fixed].any()
    np.testing.assert_allclose(found.displacement[is_fixed], values[is_fixed])


def test_solved_cells_of_one_material_are_that_material(cook, cell):
    cell_law = ramberg_like_elastic(4780.0, 50.0, 0.06)
    mesh, is_fixed, values = cook
    cells = CellConstitutive(cell)
    both = solve_macro(mesh, cells, is_fixed=is_fixed, values=values)
    assert cells.solves == 16 * (both.steps + 1) and np.abs(both.strain).max() < 0.05
    scale = np.array([1, 1, 0.5])
    respond = jax.jit(lambda strain: (cell_law.stress(strain), cell_law.tangent(strain)))

    def direct(strains):
        stress, tangent = (np.asarray(part) for part in respond((strains * scale).T))
        return stress.T, (tangent * scale[None, :, None]).transpose(2, 0, 1)

    one = solve_macro(mesh, direct, is_fixed=is_fixed, values=values)
    np.testing.assert_allclose(both.displacement, one.displacement, atol=1e-9)
    np.testing.assert_allclose(both.reaction, one.reaction, atol=1e-7 * abs(one.reaction).max())
    assert both.reaction[1, is_fixed[1] & ~is_fixed[0]].sum() > 0


def test_an_operator_tells_how_far_it_was_asked(cook, cell):
    basis = ModalBasis.from_snapshots(cell, cell.snapshots(0.04 * np.eye(3)), 1)
    law = OperatorConstitutive(EquilibriumOperator(basis, width=2, depth=1, key=jax.random.key(0)))
    assert law.reach == 0
    stress, tangent = law(np.array([[0.01, 0.0, 0.0], [0.0, -0.03, 0.01]]))
    assert law.reach == 0.75 and stress.shape == (2, 3) and tangent.shape == (2, 3, 3)
    with pytest.warns(UserWarning, match=r"beyond strain_limit 0\.04 by a factor of 2"):
        law(np.array([[0.0, 0.0, 0.08]]))
    assert law.reach == 2


def test_structures_that_float_or_do_not_fit_are_refused(cook):
    mesh, is_fixed, values = cook
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="is_fixed"):
        solve_macro(mesh, linear, is_fixed=is_fixed[:, :3], values=values)
    with pytest.raises(ValueError, match="at least one displacement"):
        solve_macro(mesh, linear, is_fixed=np.zeros_like(is_fixed), values=values)
    with pytest.raises(RuntimeError, match="prescribe smaller displacements first"):
        solve_macro(mesh, cubic, is_fixed=is_fixed, values=values, max_steps=1)
