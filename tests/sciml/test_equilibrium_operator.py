from typing import NamedTuple

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
    OperatorConstitutive,
    PeriodicCell,
    VariationalOperator,
    linear_elastic,
    ramberg_like_elastic,
)

STRAIN = np.array([0.02, -0.01, 0.03])
AVERAGE = (STRAIN * [1, 1, 0.5])[:, None]
# The strain, none, and both sides of it for a slope.
STRAINS = np.stack([STRAIN, np.zeros(3), STRAIN + 1e-6 * np.eye(3)[0], STRAIN - 1e-6 * np.eye(3)[0]])
RANK, SNAPSHOTS, KNOWN = 6, 10, 3


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
    return cell.snapshots(np.random.default_rng(0).uniform(-0.04, 0.04, (SNAPSHOTS, 3)))


@pytest.fixture(scope="module")
def basis(cell, snapshots):
    return ModalBasis.from_snapshots(cell, snapshots, RANK)


class Inputs(NamedTuple):
    basis: ModalBasis
    samples: ModalSamples
    whole: ModalBasis
    whole_samples: ModalSamples
    geometry: CellGeometry
    strain: jax.Array


@eqx.filter_jit
def _everything(given):
    """All that is asserted on, in one program."""
    operator = EquilibriumOperator(given.basis, width=8, depth=2, key=jax.random.key(0))
    loss, slope = jax.value_and_grad(operator.loss)(STRAINS + jnp.zeros(()))
    one = lambda model: model(jnp.asarray(STRAIN))  # noqa: E731
    few = operator.at_points(np.arange(0, 144, 12))
    anchored = EquilibriumOperator(given.basis, width=8, depth=2, is_anchored=True, key=jax.random.key(0))
    whole = EquilibriumOperator(given.whole, width=1, depth=1, key=jax.random.key(0))
    exact = [
        model.fields_of(*(part[KNOWN] for part in samples)) for model, samples in ((operator, given.samples), (whole, given.whole_samples))
    ]
    found = jax.vmap(operator.coefficients)(given.samples.average_strain)
    shifted = (found[0] + given.basis.fluctuation_scale[1], found[1] + 2 * given.basis.stress_scale[1])
    regression = ModalRegression(operator)
    sizes = {"rank": 3, "width": 5, "depth": 2, "n_phases": 2, "output_scale": 1e-3}
    variational = VariationalOperator(given.geometry, **sizes, key=jax.random.key(0))
    half = VariationalOperator(given.geometry, **sizes, energy="half_product", key=jax.random.key(0))
    law, shapes = given.geometry.material, variational.shapes()
    return {
        "operator": operator,
        "again": operator.renewed(jax.random.key(0)).with_parameters(operator.parameters),
        "other": operator.renewed(jax.random.key(1)),
        "parameters": operator.parameters,
        "fields": jax.vmap(operator.__call__)(jnp.asarray(STRAINS)),
        "averages": jax.vmap(operator.stress_and_tangent)(jnp.asarray(STRAINS)),
        "loss": loss,
        "slope": slope,
        "few": (one(few), few.average_stress(jnp.asarray(STRAIN)), few.loss(jnp.asarray(STRAINS))),
        "anchored": anchored(jnp.zeros(3)),
        "exact": exact,
        "regression": [regression.loss(ModalSamples(given.samples.average_strain, *rows)) for rows in (found, shifted)],
        "variational": variational,
        "renewed": variational.renewed(jax.random.key(0)),
        "shapes": shapes,
        "strains": variational.strains_of(shapes),
        "of_variational": one(variational),
        "average": variational.average_stress(jnp.asarray(STRAIN)),
        "losses": [model.loss(jnp.asarray(STRAIN[None])) for model in (variational, half)],
        "energies": [
            law.energy(strain) @ given.geometry.shares for strain in (given.strain, jnp.broadcast_to(AVERAGE, given.strain.shape))
        ],
    }


@pytest.fixture(scope="module")
def found(cell, snapshots, basis):
    whole = ModalBasis.from_snapshots(cell, snapshots, SNAPSHOTS)
    samples = [ModalSamples.of(one, snapshots) for one in (basis, whole)]
    strain = jnp.asarray(cell.solve(STRAIN).strain)
    return jax.device_get(_everything(Inputs(basis, samples[0], whole, samples[1], CellGeometry.of(cell), strain)))


def test_trap_equilibrium_and_periodicity_need_no_training_and_no_penalty(cell, found):
    fields = found["fields"]
    for stress, law, fluctuation in zip(fields.stress, fields.material_stress, fields.fluctuation, strict=True):
        assert cell.equilibrium_residual(stress) < 1e-8 < 1e-4 < cell.equilibrium_residual(law)
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


def test_trap_snapshots_that_say_so_are_refused(cell, snapshots):
    residual = snapshots.residual.copy()
    residual[3] = 2e-9
    with pytest.raises(ValueError, match=r"snapshots must be solved to a residual of 1e-10 or less, got 2e-09"):
        ModalBasis.from_snapshots(cell, snapshots._replace(residual=residual), RANK)


def test_o8_with_exact_coefficients_the_loss_is_the_truncation_error(snapshots, found):
    truth, scale = snapshots.stress[KNOWN], np.linalg.norm(snapshots.stress[KNOWN])
    left, misfit = ([np.linalg.norm(a - b) / scale for a, b in pairs] for pairs in (
        [(fields.stress, truth) for fields in found["exact"]], [(fields.material_stress, fields.stress) for fields in found["exact"]],
    ))  # fmt: skip
    assert 1e-6 < left[0] < 1e-1 and 1e-6 < misfit[0] < 5e-1
    assert left[1] < 1e-9 and misfit[1] < 1e-9
    np.testing.assert_allclose(found["exact"][1].fluctuation, snapshots.fluctuation[KNOWN], atol=1e-12)
    np.testing.assert_allclose(found["exact"][1].strain, snapshots.strain[KNOWN], atol=1e-12)


def test_the_tangent_is_the_slope_of_the_averaged_stress_by_the_engineering_shear(found, cell):
    stress, tangent = found["averages"]
    np.testing.assert_allclose((stress[2] - stress[3]) / 2e-6, tangent[0][:, 0], rtol=1e-5, atol=1e-5 * abs(tangent).max())
    np.testing.assert_allclose(found["fields"].stress @ cell.weights / cell.area, stress, atol=1e-9)
    np.testing.assert_allclose((found["fields"].strain @ cell.weights)[0], AVERAGE[:, 0], atol=1e-14)


def test_trap_the_tangent_of_a_network_is_not_symmetric(found):
    tangent = found["averages"][1][0]
    assert np.abs(tangent - tangent.T).max() > 1e-3 * np.abs(tangent).max()


def test_the_loss_is_what_law_and_modes_disagree_by_and_its_gradient_is_finite_at_zero(found):
    misfit = (found["fields"].material_stress - found["fields"].stress) ** 2
    np.testing.assert_allclose(np.mean(misfit), found["loss"], rtol=1e-12)
    np.testing.assert_allclose(np.mean(misfit[..., ::12]), found["few"][2], rtol=1e-12)
    assert np.isfinite(found["slope"]).all()


def test_trap_zero_strain_has_stress_unless_anchored(found):
    assert np.abs(found["averages"][0][1]).max() > 1e-3
    assert not any(field.any() for field in found["anchored"])


def test_points_left_out_change_no_average(found):
    fields, average, _ = found["few"]
    np.testing.assert_allclose(fields.stress, found["fields"].stress[0][:, ::12], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(fields.material_stress, found["fields"].material_stress[0][:, ::12], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(average, found["averages"][0][0], rtol=1e-12)


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


def test_regression_has_no_loss_where_its_coefficients_are_those_of_the_labels(found):
    np.testing.assert_allclose(found["regression"], [0, 5], rtol=1e-12)


def test_parameters_go_into_a_row_and_back_and_networks_are_renewed(found):
    operator = found["operator"]
    assert found["parameters"].shape == (operator.stress_network.n_parameters * 2,)
    assert eqx.tree_equal(found["again"], operator) and not eqx.tree_equal(found["other"], operator)
    assert eqx.tree_equal(found["renewed"], found["variational"])


def test_strains_that_do_not_fit_are_refused_and_those_beyond_the_limit_are_told(found, basis, cell, snapshots):
    operator = found["operator"]
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strain"):
        operator(jnp.zeros((2, 3)))
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strains"):
        operator.consistency_loss(jnp.zeros(3))
    far = jax.device_put(np.array([0.0, 0.06, 0.0]))
    for asked in (operator, operator.average_stress, operator.stress_and_tangent):
        with pytest.raises(UserWarning, match=r"beyond strain_limit 0\.04 by a factor of 1\.5"):
            asked(far)
    with pytest.raises(UserWarning, match=r"beyond strain_limit 0\.04 by a factor of 1\.5"):
        jax.eval_shape(lambda: operator(far))
    with pytest.raises(UserWarning, match=r"beyond strain_limit 0\.04 by a factor of 1\.5"):
        OperatorConstitutive(operator)(np.array([[0.0, 0.01, 0.0], [0.0, -0.06, 0.0]]))
    with pytest.raises(ValueError, match=r"strain_limit must be positive, got 0\.0"):
        EquilibriumOperator(basis, strain_limit=0.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"rank must lie in \[1, 10\]"):
        ModalBasis.from_snapshots(cell, snapshots, 11)


def test_the_variational_operator_is_periodic_and_its_strains_are_the_elements(cell, found):
    shapes, fields = found["shapes"], found["of_variational"]
    np.testing.assert_allclose(shapes, shapes[..., cell.partner], atol=1e-14)
    assert not shapes[..., 0].any()
    for c in range(2):
        alone = np.zeros((3, 2, len(cell.mesh.nodes)))
        alone[:, c] = shapes[c]
        np.testing.assert_allclose(found["strains"][c], cell.strain_of(alone), atol=1e-12)
    assert np.abs(fields.fluctuation).max() > 1e-5
    np.testing.assert_allclose(fields.strain, cell.strain_of(fields.fluctuation) + AVERAGE, atol=1e-14)
    np.testing.assert_allclose(found["average"], fields.stress @ cell.weights, rtol=1e-12)


def test_its_loss_is_the_energy_which_is_least_for_the_solution(found):
    solved, uniform = found["energies"]
    assert solved < min(found["losses"][0], uniform)


def test_trap_half_the_product_is_another_loss(cell, found):
    stored, half = found["losses"]
    fields = found["of_variational"]
    products = fields.stress * fields.strain * np.array([[0.5], [0.5], [1]])
    np.testing.assert_allclose(half, products.sum(axis=0) @ cell.weights, rtol=1e-12)
    assert half < (1 - 1e-3) * stored
    variational = found["variational"]
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="energy"):
        VariationalOperator(variational.geometry, energy="free", key=jax.random.key(0))  # pyright: ignore[reportArgumentType]
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="average_strain"):
        variational(jnp.zeros((2, 3)))


@pytest.mark.parametrize("is_anchored", [False, True])
def test_coefficients_are_outputs_of_networks_in_the_spread_of_the_snapshots(basis, is_anchored):
    operator = EquilibriumOperator(basis, strain_limit=0.05, width=4, depth=1, is_anchored=is_anchored, key=jax.random.key(0))
    biases = lambda model: [b for network in model.networks() for b in network.biases]  # noqa: E731
    operator = eqx.tree_at(biases, operator, [jnp.linspace(-1.0, 1.0, len(b)) for b in biases(operator)])
    found = eqx.filter_jit(lambda model: model.coefficients(jnp.asarray(STRAIN)))(operator)
    for ours, network, scale in zip(found, operator.networks(), (basis.fluctuation_scale, basis.stress_scale), strict=True):

        def output(x, network=network):
            z = np.asarray(network.weights[0]) @ x + np.asarray(network.biases[0])
            return np.asarray(network.weights[1]) @ (z / (1 + np.exp(-z))) + np.asarray(network.biases[1])

        (mean, deviation), raw = map(float, scale), output(STRAIN / 0.05)
        np.testing.assert_allclose(ours, deviation * (raw - output(np.zeros(3))) if is_anchored else deviation * raw + mean, rtol=1e-10)


def test_the_indicator_tells_materials_apart_and_is_periodic(cell):
    geometry = CellGeometry.of(cell)
    indicator, elements = np.asarray(geometry.indicator), np.asarray(geometry.elements)
    touched = [{int(m) for m, nodes in zip(cell.material_id, elements, strict=True) if {*cell.partner[nodes]} & {cell.partner[i]}}
               for i in range(len(indicator))]  # fmt: skip
    expected = {frozenset({0}): lambda x: x == -1, frozenset({1}): lambda x: x == 1, frozenset({0, 1}): lambda x: abs(x) < 1}
    assert all(expected[frozenset(kinds)](x) for kinds, x in zip(touched, indicator, strict=True))
    np.testing.assert_array_equal(indicator, indicator[cell.partner])
    np.testing.assert_allclose(np.sum(geometry.shares), 1)
    np.testing.assert_allclose(geometry.size, [1, 1])
