import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.sciml import (
    CellGeometry,
    EquilibriumOperator,
    ModalBasis,
    ModalRegression,
    ModalSamples,
    PeriodicCell,
    VariationalOperator,
    linear_elastic,
    ramberg_like_elastic,
)

STRAIN = np.array([0.02, -0.01, 0.03])
RANK = 6


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def cell():
    materials = [ramberg_like_elastic(4780.0, 50.0, 0.06), linear_elastic(43452.381, 29918.0328)]
    return PeriodicCell.structured(4, materials=materials, material_id=lambda x, y: x**2 + y**2 < 0.3**2)


@pytest.fixture(scope="module")
def snapshots(cell):
    return cell.snapshots(np.random.default_rng(0).uniform(-0.04, 0.04, (10, 3)))


@pytest.fixture(scope="module")
def basis(cell, snapshots):
    return ModalBasis.from_snapshots(cell, snapshots, RANK)


@pytest.fixture(scope="module")
def operator(basis):
    return EquilibriumOperator(basis, width=8, depth=2, key=jax.random.key(0))


@eqx.filter_jit
def look(operator, strains):
    """Everything of a batch, in one program."""
    loss, slope = jax.value_and_grad(lambda strains: operator.loss(strains))(strains)
    return jax.vmap(operator.__call__)(strains), jax.vmap(operator.stress_and_tangent)(strains), loss, slope


@pytest.fixture(scope="module")
def looked(operator):
    return look(operator, jnp.asarray(np.stack([STRAIN, np.zeros(3), STRAIN + 1e-6 * np.eye(3)[0], STRAIN - 1e-6 * np.eye(3)[0]])))


def test_trap_equilibrium_and_periodicity_need_no_training_and_no_penalty(cell, looked):
    fields = looked[0]
    for stress, law, fluctuation in zip(fields.stress, fields.material_stress, fields.fluctuation, strict=True):
        assert cell.equilibrium_residual(np.asarray(stress)) < 1e-8 < 1e-4 < cell.equilibrium_residual(np.asarray(law))
        np.testing.assert_allclose(fluctuation, fluctuation[:, cell.partner], atol=1e-16)


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=RANK, max_size=RANK).map(np.array).filter(lambda c: abs(c).max() > 1e-3))
def test_o7_every_combination_of_stress_modes_is_weakly_free_of_divergence(cell, basis, coefficients):
    assert cell.equilibrium_residual(np.tensordot(coefficients, np.asarray(basis.stress), 1)) < 1e-8


def test_o7_strain_modes_have_no_average(cell, basis):
    np.testing.assert_allclose(np.asarray(basis.strain) @ cell.weights, 0, atol=1e-14)


def test_trap_snapshots_that_did_not_converge_are_out_of_equilibrium_and_so_are_their_modes(cell, snapshots):
    noisy = snapshots._replace(stress=snapshots.stress * (1 + 1e-4 * np.random.default_rng(0).normal(size=snapshots.stress.shape)))
    modes = np.asarray(ModalBasis.from_snapshots(cell, noisy, RANK).stress)
    assert max(cell.equilibrium_residual(mode) for mode in modes) > 1e-6


def test_o8_with_exact_coefficients_the_loss_is_the_truncation_error(cell, snapshots):
    for rank, most in ((RANK, None), (10, 1e-9)):
        basis = ModalBasis.from_snapshots(cell, snapshots, rank)
        operator = EquilibriumOperator(basis, width=1, depth=1, key=jax.random.key(0))
        samples = ModalSamples.of(basis, snapshots)
        fields = operator.fields_of(*(jnp.asarray(part[3]) for part in samples))
        left = np.linalg.norm(fields.stress - snapshots.stress[3]) / np.linalg.norm(snapshots.stress[3])
        misfit = np.linalg.norm(fields.material_stress - fields.stress) / np.linalg.norm(snapshots.stress[3])
        if most is None:
            assert 1e-6 < left < 1e-1 and 1e-6 < misfit < 5e-1
        else:
            assert left < most and misfit < most
            np.testing.assert_allclose(fields.fluctuation, snapshots.fluctuation[3], atol=1e-12)
            np.testing.assert_allclose(fields.strain, snapshots.strain[3], atol=1e-12)


def test_the_tangent_is_the_slope_of_the_averaged_stress_by_the_engineering_shear(operator, looked, cell):
    fields, (stress, tangent), _, _ = looked
    np.testing.assert_allclose((stress[2] - stress[3]) / 2e-6, tangent[0][:, 0], rtol=1e-5, atol=1e-5 * abs(tangent).max())
    np.testing.assert_allclose(np.asarray(fields.stress) @ cell.weights / cell.area, stress, atol=1e-9)
    average = np.asarray(fields.strain) @ cell.weights
    np.testing.assert_allclose(average[0], STRAIN * [1, 1, 0.5], atol=1e-14)


def test_trap_the_tangent_of_a_network_is_not_symmetric(looked):
    tangent = looked[1][1][0]
    assert abs(tangent - tangent.T).max() > 1e-3 * abs(tangent).max()


def test_the_loss_is_what_law_and_modes_disagree_by_and_its_gradient_is_finite_at_zero(looked):
    fields, _, loss, slope = looked
    np.testing.assert_allclose(np.mean((fields.material_stress - fields.stress) ** 2), loss, rtol=1e-12)
    assert np.isfinite(slope).all()


def test_trap_zero_strain_has_stress_unless_anchored(operator, looked):
    assert abs(looked[1][0][1]).max() > 1e-3
    anchored = EquilibriumOperator(operator.basis, width=8, depth=2, is_anchored=True, key=jax.random.key(0))
    fields = anchored(jnp.zeros(3))
    assert not fields.stress.any() and not fields.fluctuation.any() and not fields.material_stress.any()


def test_points_left_out_change_no_average_and_all_points_change_nothing(operator, looked, cell):
    everywhere = operator.at_points(np.arange(cell.weights.size))
    few = operator.at_points(operator.basis.magic_points(12))
    for model, shape in ((everywhere, (3, 144)), (few, (3, 12))):
        fields, average = model(jnp.asarray(STRAIN)), model.average_stress(jnp.asarray(STRAIN))
        assert fields.stress.shape == shape
        np.testing.assert_allclose(average, looked[1][0][0], rtol=1e-12)


def test_magic_points_tell_modes_apart_better_than_points_at_random(basis):
    kinds = [np.asarray(modes).reshape(-1, 144) for modes in (basis.stress, basis.strain)]
    rows = np.concatenate([kind / np.linalg.norm(kind) for kind in kinds])

    def volume(points):
        return np.prod(np.linalg.svd(rows[:, points], compute_uv=False))

    random = np.random.default_rng(0)
    points = basis.magic_points(RANK)
    assert np.unique(points).size == RANK
    assert volume(points) > max(volume(random.choice(144, RANK, replace=False)) for _ in range(100))
    assert np.unique(basis.magic_points(6 * RANK)).size == 6 * RANK
    with pytest.raises(ValueError, match=r"count must lie in \[1, 36\] for 6 modes, got 37"):
        basis.magic_points(37)


def test_regression_has_no_loss_where_its_coefficients_are_those_of_the_labels(operator, basis, snapshots):
    samples = ModalSamples.of(basis, snapshots)
    found = jax.vmap(operator.coefficients)(samples.average_strain)
    regression = ModalRegression(operator)
    assert regression.loss(ModalSamples(samples.average_strain, *found)) == 0
    shifted = (found[0] + basis.fluctuation_scale[1], found[1] + 2 * basis.stress_scale[1])
    np.testing.assert_allclose(regression.loss(ModalSamples(samples.average_strain, *shifted)), 5, rtol=1e-12)


def test_parameters_go_into_a_row_and_back_and_networks_are_renewed(operator):
    assert operator.parameters.shape == (operator.stress_network.n_parameters * 2,)
    again = operator.renewed(jax.random.key(0))
    assert eqx.tree_equal(again.with_parameters(operator.parameters), operator)
    assert eqx.tree_equal(again, operator) and not eqx.tree_equal(operator.renewed(jax.random.key(1)), operator)


def test_strains_that_do_not_fit_are_refused_and_those_beyond_the_limit_are_told(operator, basis, cell, snapshots):
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strain"):
        operator(jnp.zeros((2, 3)))
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strains"):
        operator.consistency_loss(jnp.zeros(3))
    with pytest.warns(UserWarning, match="beyond strain_limit 0.04 by a factor of 1.5"):
        operator(jnp.array([0.0, 0.06, 0.0]))
    with pytest.raises(ValueError, match=r"strain_limit must be positive, got 0\.0"):
        EquilibriumOperator(basis, strain_limit=0.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 10\]"):
        ModalBasis.from_snapshots(cell, snapshots, 11)


@pytest.fixture(scope="module")
def variational(cell):
    return VariationalOperator(CellGeometry.of(cell), rank=3, width=5, depth=2, n_phases=2, output_scale=1e-3, key=jax.random.key(0))


@eqx.filter_jit
def watch(model, strains):
    shapes = model.shapes()
    fields = jax.vmap(model.__call__)(strains)
    return shapes, model.strains_of(shapes), fields, model.loss(strains), jax.vmap(model.average_stress)(strains)


@pytest.fixture(scope="module")
def watched(variational):
    return watch(variational, jnp.asarray(STRAIN[None]))


def test_the_variational_operator_is_periodic_and_its_strains_are_the_elements(cell, watched):
    shapes, strains, fields, _, average = watched
    np.testing.assert_allclose(shapes, shapes[..., cell.partner], atol=1e-14)
    assert not shapes[..., 0].any()
    for c in range(2):
        alone = np.zeros((3, 2, len(cell.mesh.nodes)))
        alone[:, c] = shapes[c]
        np.testing.assert_allclose(strains[c], cell.strain_of(alone), atol=1e-12)
    fluctuation = np.asarray(fields.fluctuation[0])
    assert abs(fluctuation).max() > 1e-5
    np.testing.assert_allclose(fields.strain[0], cell.strain_of(fluctuation) + (STRAIN * [1, 1, 0.5])[:, None], atol=1e-14)
    np.testing.assert_allclose(average[0], np.asarray(fields.stress[0]) @ cell.weights, rtol=1e-12)


def test_its_loss_is_the_energy_which_is_least_for_the_solution(cell, variational, watched):
    def energy(strain):
        return float(cell.material.energy(jnp.asarray(strain)) @ cell.weights)

    np.testing.assert_allclose(watched[3], energy(watched[2].strain[0]), rtol=1e-12)
    solved = cell.solve(STRAIN)
    assert energy(solved.strain) < min(float(watched[3]), energy(np.broadcast_to((STRAIN * [1, 1, 0.5])[:, None], solved.strain.shape)))


def test_trap_half_the_product_is_another_loss(variational, watched):
    half = VariationalOperator(
        variational.geometry, rank=3, width=5, depth=2, n_phases=2, output_scale=1e-3, energy="half_product", key=jax.random.key(0)
    )
    value = float(half.loss(jnp.asarray(STRAIN[None])))
    products = np.asarray(watched[2].stress[0] * watched[2].strain[0]) * np.array([[0.5], [0.5], [1]])
    np.testing.assert_allclose(value, products.sum(axis=0) @ np.asarray(half.geometry.shares), rtol=1e-12)
    assert value < (1 - 1e-3) * float(watched[3])
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="energy"):
        VariationalOperator(variational.geometry, energy="free", key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strain"):
        variational(jnp.zeros((2, 3)))
    assert eqx.tree_equal(variational.renewed(jax.random.key(0)), variational)
