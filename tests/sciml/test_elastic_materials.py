import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.sciml import IsotropicElastic, linear_elastic, materials_at, ramberg_like_elastic

ROUND_OFF = 1e-12  # relative, of a few dozen operations in double precision
strains = st.tuples(*(st.floats(-0.1, 0.1) for _ in range(3))).map(np.array)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@eqx.filter_jit
def everything(material, strain):
    energy, slope = jax.value_and_grad(lambda strain: material.energy(strain).sum())(strain)
    return material.stress(strain), material.tangent(strain), energy, slope


@eqx.filter_jit
def without_energy(material, strain):
    return material.stress(strain), material.tangent(strain)


@pytest.fixture(scope="module")
def matrix():
    return ramberg_like_elastic(4780.0, 50.0, 0.06)


def test_o1_in_plane_norm_at_a_known_strain():
    law = ramberg_like_elastic(4780.0, 50.0, 0.06, norm="in_plane")
    # (0.02, -0.01, 0.03) with the engineering shear.
    stress, tangent = without_energy(law, np.array([0.02, -0.01, 0.015]))
    np.testing.assert_allclose(stress, [57.04975769, 40.40019385, 8.32478192], rtol=1e-9)
    engineering = tangent * np.array([[1, 1, 0.5]])
    assert 1 < np.abs(engineering - engineering.T).max() < 100


@given(strains)
def test_stress_is_the_slope_of_the_energy_and_shear_counts_twice_in_its_work(strain):
    stress, tangent, energy, slope = everything(ramberg_like_elastic(4780.0, 50.0, 0.06), strain)
    scale = 4780.0 * (1e-6 + abs(strain).max())
    np.testing.assert_allclose(slope, stress * np.array([1, 1, 2]), atol=1e-9 * scale)
    engineering = tangent * np.array([[1, 1, 0.5]])
    np.testing.assert_allclose(engineering, engineering.T, atol=ROUND_OFF * 1e4)
    work = float((stress * strain * np.array([1, 1, 2])).sum())
    # Softening: the chord lies under the energy's double.
    assert -1e-12 <= float(energy) <= work + 1e-12 and work <= 2 * float(energy) + 1e-9


def test_trap_half_the_product_of_stress_and_strain_is_no_energy_of_a_softening_law(matrix):
    strain = np.array([0.02, -0.01, 0.015])
    stress, _, energy, _ = everything(matrix, strain)
    half = 0.5 * float((stress * strain * np.array([1, 1, 2])).sum())
    assert half < 0.99 * float(energy)
    stress, _, energy, _ = everything(linear_elastic(2.0, 1.0), strain)
    np.testing.assert_allclose(0.5 * (stress * strain * np.array([1, 1, 2])).sum(), energy, rtol=ROUND_OFF)


def test_trap_all_is_finite_at_zero_strain(matrix):
    stress, tangent, energy, slope = everything(matrix, np.zeros(3))
    assert not stress.any() and not slope.any() and np.abs(energy) < 1e-20 and np.isfinite(tangent).all()
    G = 50 / 0.06 / 2
    expected = np.array([[4780 + 4 / 3 * G, 4780 - 2 / 3 * G, 0], [4780 - 2 / 3 * G, 4780 + 4 / 3 * G, 0], [0, 0, 2 * G]])
    np.testing.assert_allclose(tangent, expected, rtol=ROUND_OFF, atol=1e-9)


def test_the_law_is_that_of_its_formula_and_the_energy_is_whole_where_its_series_ends(matrix):
    strain = np.array([0.03, -0.02, 0.01])
    mean = strain[:2].sum() / 3
    deviator = np.array([strain[0] - mean, strain[1] - mean, strain[2]])
    n = np.sqrt(deviator[0] ** 2 + deviator[1] ** 2 + mean**2 + 2 * deviator[2] ** 2)
    expected = 50 / (0.06 + n) * deviator + np.array([1, 1, 0]) * 4780 * 3 * mean
    stress, _, energy, _ = everything(matrix, strain)
    np.testing.assert_allclose(stress, expected, rtol=ROUND_OFF)
    np.testing.assert_allclose(energy, 4780 * (3 * mean) ** 2 / 2 + 50 * (n - 0.06 * np.log1p(n / 0.06)), rtol=1e-11)
    at = [float(everything(matrix, np.array([0.0, 0.0, 0.06 * x / np.sqrt(2)]))[2]) / x**2 for x in (0.00999, 0.01001)]
    assert abs(at[0] / at[1] - 1) < 2e-5


def test_o4_slopes_of_the_stress_are_its_tangent(matrix):
    strain, step = np.array([0.02, -0.01, 0.015]), 1e-6
    ends = [[everything(matrix, strain + sign * step * e)[0] for sign in (1, -1)] for e in np.eye(3)]
    columns = [(np.asarray(up) - np.asarray(down)) / (2 * step) for up, down in ends]
    np.testing.assert_allclose(np.stack(columns, axis=1), everything(matrix, strain)[1], atol=1e-8 * 7000)


def test_points_have_the_law_of_their_number(matrix):
    fibre = linear_elastic(43452.381, 29918.0328)
    both = materials_at([matrix, fibre], np.array([0, 1, 0]))
    strain = np.random.default_rng(0).normal(size=(3, 3)) * 0.02
    stress = without_energy(both, strain)[0]
    for column, law in enumerate((matrix, fibre, matrix)):
        np.testing.assert_allclose(stress[:, column], law.stress(jnp.asarray(strain[:, column])), rtol=ROUND_OFF)


def test_what_no_law_can_have_is_refused(matrix):
    for words, arguments in (("bulk must be positive, got 0", (0.0, 1.0)), ("shear must be positive, got -1", (1.0, -1.0))):
        with pytest.raises(ValueError, match=words):
            linear_elastic(*arguments)
    with pytest.raises(ValueError, match="softening must be at least 0, got -1"):
        IsotropicElastic(1.0, 1.0, -1.0)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="norm"):
        IsotropicElastic(1.0, 1.0, norm="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"a2 must be positive, got 0\.0"):
        ramberg_like_elastic(1.0, 1.0, 0.0)
    in_plane = ramberg_like_elastic(4780.0, 50.0, 0.06, norm="in_plane")
    with pytest.raises(ValueError, match="no stored energy"):
        in_plane.energy(jnp.zeros(3))
    with pytest.raises(ValueError, match="must share one norm"):
        materials_at([matrix, in_plane], np.array([0, 1]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\), got 0 to 1"):
        materials_at([matrix], np.array([0, 1]))


def test_known_moduli_make_a_law_in_a_traced_function_too():
    bulk = jnp.ones(3)
    assert jax.eval_shape(lambda: IsotropicElastic(bulk, bulk).bulk).shape == (3,)
