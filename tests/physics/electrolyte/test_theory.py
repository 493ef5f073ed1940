import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import constants

from gradatim.numerics import PeriodicGrid
from gradatim.physics.electrolyte import (
    DrivenElectrolyte,
    MultispeciesElectrolyte,
    charge_correlation,
    conductivity_correction,
    correlations_on_grid,
    density_correlation,
    exact_step,
    far_charge_correlation,
    far_density_correlation,
    lyapunov_steady_state,
    salt_units,
)

ROUND_OFF = 1e-13
N_MODES = 200
pytestmark = pytest.mark.usefixtures("double")


@jax.jit
def closed(field, k):
    return DrivenElectrolyte(1.3, field, diffusivity=0.7, mean_density=2.0, dim=3, axis=1).structure_factor(k)


@jax.jit
def matrices(field, k):
    electrolyte = DrivenElectrolyte(1.3, field, diffusivity=0.7, mean_density=2.0, dim=3, axis=1)
    return electrolyte.drift_matrix(k), electrolyte.noise_matrix(k)


@jax.jit
def later(field, k, time):
    return DrivenElectrolyte(1.3, field, diffusivity=0.7, mean_density=2.0, dim=3, axis=1).structure_factor_at(k, time)


settled = jax.jit(lyapunov_steady_state)


@pytest.fixture(scope="module")
def modes():
    return np.random.default_rng(0).normal(size=(N_MODES, 3)) * np.geomspace(0.01, 10, N_MODES)[:, None]


def matrix(parts):
    """S/2C₀ of the closed form, as a matrix for each mode."""
    density, charge, cross = map(np.asarray, parts)
    return np.stack([np.stack([density, 1j * cross], -1), np.stack([-1j * cross, charge], -1)], -2)


# Oracles.


@pytest.mark.parametrize("field", [0.0, 0.5, -2.0, 5.0])
def test_closed_form_is_the_lyapunov_steady_state(field, modes):
    drift, noise = matrices(field, modes)
    solved = np.asarray(settled(drift, noise))
    assert np.abs(solved / 4.0 - matrix(closed(field, modes))).max() < ROUND_OFF


def test_lyapunov_solver_is_scipys(modes):
    drift, noise = (np.asarray(m) for m in matrices(2.0, modes))
    solutions = np.asarray(settled(drift, noise))
    for a, n, solved in zip(drift[::20], noise[::20], solutions[::20], strict=True):
        assert np.allclose(solved, scipy.linalg.solve_continuous_lyapunov(a, n), rtol=1e-11)


def test_steady_state_is_hermitian_positive_and_balances_the_noise(modes):
    s = 4.0 * matrix(closed(2.0, modes))
    drift, noise = (np.asarray(m) for m in matrices(2.0, modes))
    assert np.linalg.eigvalsh(s).min() > 0
    balance = drift @ s + s @ np.conj(np.swapaxes(drift, -1, -2)) - noise
    assert np.abs(balance / noise[:, :1, :1].real).max() < 1e-11


def test_without_field_ideal_gas_and_debye_hueckel(modes):
    square = (modes**2).sum(-1)
    density, charge, cross = map(np.asarray, closed(0.0, modes))
    assert (density == 1).all() and (cross == 0).all() and np.allclose(charge, square / (square + 1.3**2), rtol=ROUND_OFF)


def test_across_the_field_all_is_equilibrium(modes):
    across = modes * np.array([1.0, 0.0, 1.0])
    for driven, still in zip(closed(7.0, across), closed(0.0, across), strict=True):
        assert np.array_equal(driven, still)


@given(st.floats(0.01, 30), st.floats(0.05, 3), st.floats(-1, 1), st.floats(-4, 4))
def test_charge_is_screened_and_bookkeeping_balances_in_any_field(field, kappa, cosine, log_k):
    with jax.enable_x64(True):
        size = kappa * 10**log_k
        k = np.array([cosine, np.sqrt(1 - cosine**2)]) * size
        density, charge, cross = map(float, _closed_2d(kappa, field, k))
        square, g = size**2, kappa * field * cosine * size
        scale = square + g**2 / (square + kappa**2) + 1e-300
        assert abs(square * (1 - density) - g * cross) < 1e-12 * scale
        assert abs((square + kappa**2) * charge - square - g * cross) < 1e-12 * scale
        assert 0 <= charge <= 2 * square / kappa**2 and 0 < density <= 1


@jax.jit
def _closed_2d(kappa, field, k):
    return DrivenElectrolyte(kappa, field, dim=2).structure_factor(k)


def test_mirrored_field_turns_only_the_cross_correlation_around(modes):
    forth, back = closed(2.0, modes), closed(-2.0, modes)
    assert np.array_equal(forth.density, back.density) and np.array_equal(forth.charge, back.charge)
    cross = np.asarray(forth.cross)
    assert np.array_equal(cross, -np.asarray(back.cross)) and np.array_equal(closed(2.0, -modes).cross, -cross)


def test_limits_of_small_and_large_wavenumbers():
    direction = np.array([0.8, 0.6, 0.0])  # the field points along the second axis
    small, large = closed(2.0, 1e-4 * direction), closed(2.0, 1e4 * direction)
    driven = 4.0 * 0.36
    assert np.isclose(small.density, 1 / (1 + driven), rtol=1e-6)
    assert np.isclose(small.charge, 1e-8 / 1.3**2 * (1 + driven / (1 + driven)), rtol=1e-6)
    assert np.allclose([large.density, large.charge], 1, rtol=1e-6)


def test_worked_values_at_rest_and_after_the_field_is_switched_on():
    electrolyte, k = DrivenElectrolyte(field=2.0, dim=2), jnp.array([0.3, 0.2])
    rest, later = jax.jit(lambda k: (electrolyte.structure_factor(k), electrolyte.structure_factor_at(k, 1.0)))(k)
    assert np.allclose(rest, [0.4363498013, 0.1798889609, 0.1221242097], atol=1e-10)
    assert np.allclose(later, [0.818456749, 0.213011517, 0.251727978], atol=1e-9)


@pytest.mark.parametrize("time", [0.0, 0.3, 4.0, 1e5])
@pytest.mark.parametrize("field", [0.0, 0.5, 2.0, 9.0])
def test_transient_is_the_matrix_exponential(field, time, modes):
    some = modes[::10]
    start, steady = matrix(closed(0.0, some)), matrix(closed(field, some))
    propagators = scipy.linalg.expm(-time * np.asarray(matrices(field, some)[0]))
    exact = steady + propagators @ (start - steady) @ np.conj(np.swapaxes(propagators, -1, -2))
    assert np.abs(matrix(later(field, some, time)) - exact).max() < 1e-11


def test_slow_mode_relaxes_as_an_anisotropic_diffusion():
    k, field = np.array([0.8, 0.6, 0.0]) * 2e-3, 2.0
    rate = 2 * 0.7 * 4e-6 * (1 + field**2 * 0.36)
    left = [float(later(field, k, time).density - closed(field, k).density) for time in (1 / rate, 2 / rate)]
    assert abs(np.log(left[0] / left[1]) - 1) < 1e-4


def test_two_equal_species_are_the_symmetric_electrolyte(modes):
    z, n, mobility = (jnp.array(pair) for pair in ([1.0, -1.0], [2.0, 2.0], [0.7, 0.7]))
    salt = MultispeciesElectrolyte(z, n, mobility, debye_wavenumber=1.3, field=2.0, dim=3, axis=1)
    species = np.asarray(jax.jit(lambda k: salt.structure_factor(k))(modes))
    turn = np.array([[1.0, 1.0], [1.0, -1.0]])
    assert np.abs(turn @ species @ turn / 4.0 - matrix(closed(2.0, modes))).max() < 1e-12


def test_smeared_charges_screen_by_their_overlap(modes):
    # κ² exp(-a²k²) in place of κ², but not in the drift κE; two equal species are no others.
    kappa, field, width = 1.3, 2.0, 0.7

    @jax.jit
    def both(k):
        z, n = jnp.array([1.0, -1.0]), jnp.array([2.0, 2.0])
        salt = MultispeciesElectrolyte(z, n, n, debye_wavenumber=kappa, field=field, smearing=width, axis=1)
        return DrivenElectrolyte(kappa, field, smearing=width, axis=1).structure_factor(k), salt.structure_factor(k)

    symmetric, species = both(modes)
    square, g = (modes**2).sum(-1), kappa * field * modes[:, 1]
    screening = kappa**2 * np.exp(-(width**2) * square)
    rates = (2 * square + screening) * (square * (square + screening) + g**2)
    density, charge = 1 - g**2 * screening / rates, square / (square + screening) * (1 + g**2 * screening / rates)
    assert np.allclose(symmetric.density, density, atol=1e-12) and np.allclose(symmetric.charge, charge, atol=1e-12)
    turn = np.array([[1.0, 1.0], [1.0, -1.0]])
    assert np.abs(turn @ np.asarray(species) @ turn / 4.0 - matrix(symmetric)).max() < 1e-12


def test_unequal_ions_are_screened_too_and_at_rest_know_nothing_of_their_mobilities():
    z, n = jnp.array([2.0, -1.0, -1.0]), jnp.array([1.0, 0.5, 1.5])
    along = np.geomspace(0.003, 0.03, 2)[:, None] * np.array([[1.0, 1.0]])

    @jax.jit
    def charge(mobilities, field):
        return MultispeciesElectrolyte(z, n, mobilities, field=field, dim=2).charge_structure_factor(jnp.asarray(along))

    slow, fast = jnp.array([1.0, 1.0, 1.0]), jnp.array([0.2, 3.0, 1.0])
    still, driven = charge(fast, 0.0), charge(fast, 3.0)
    strength, square = float(np.asarray(z) ** 2 @ np.asarray(n)), (along**2).sum(-1)
    assert np.allclose(still, strength * square / (square + 1), rtol=1e-9) and np.allclose(still, charge(slow, 0.0), rtol=1e-9)
    assert 1.9 < np.log10(np.divide(*np.asarray(driven)[::-1])) < 2.1


def test_exact_step_is_the_exponential_and_settles_where_lyapunov_says(modes):
    drift, noise = (np.asarray(m)[60::5] for m in matrices(2.0, modes))
    step = jax.jit(exact_step)
    propagator, covariance = map(np.asarray, step(drift, noise, 0.31))
    assert np.abs(propagator - scipy.linalg.expm(-0.31 * drift)).max() < 1e-12
    steady = np.asarray(settled(drift, noise))
    moved = propagator @ steady @ np.conj(np.swapaxes(propagator, -1, -2)) + covariance
    assert np.abs(moved / steady[:, :1, :1].real - steady / steady[:, :1, :1].real).max() < 1e-11
    # A step of any length: the longest leaves nothing of the start.
    propagator, covariance = step(drift, noise, 3e4)
    assert np.abs(propagator).max() < 1e-12 and np.allclose(covariance, steady, rtol=1e-9, atol=1e-12)


# Conductivity.


def test_onsager_and_wien_limits():
    correction = jax.jit(lambda field: conductivity_correction(field, bjerrum_length=1.0))
    weak, strong = (float(correction(field)) for field in (1e-4, 300.0))
    assert abs(weak - 0.0976311) < 1e-7 and abs(weak - (1 - np.sqrt(0.5)) / 3) < 1e-8
    assert abs(strong * 300 - 0.24883) < 1e-5


@jax.jit
def _cross(field, k):
    return DrivenElectrolyte(field=field, dim=3).structure_factor(k).cross


@pytest.mark.parametrize("field", [0.3, 4.0])
def test_conductivity_is_the_integral_over_the_cross_correlation(field):
    radius, weight = np.polynomial.legendre.leggauss(200)
    radius = (radius + 1) / 2
    k, weight_k = radius / (1 - radius), weight / 2 / (1 - radius) ** 2
    mu, weight_mu = np.polynomial.legendre.leggauss(80)
    vectors = np.stack([k[:, None] * mu, k[:, None] * np.sqrt(1 - mu**2), np.zeros((200, 80))], -1)
    cross = np.asarray(_cross(field, vectors))
    integral = (weight_k[:, None] * weight_mu * 2 * np.pi * k[:, None] ** 2 * mu / k[:, None] * cross).sum() / (2 * np.pi) ** 3
    assert np.isclose(4 * np.pi * integral / field, conductivity_correction(field, bjerrum_length=1.0), rtol=1e-6)


def test_conductivity_is_held_back_in_proportion_to_the_coupling():
    one = conductivity_correction(1.7, bjerrum_length=1.0)
    assert np.isclose(conductivity_correction(1.7, debye_wavenumber=2.0, bjerrum_length=0.3), 0.6 * one, rtol=1e-12)


# Real space.


@pytest.fixture(scope="module")
def in_space():
    with jax.enable_x64(True):
        return jax.jit(lambda field, r: density_correlation(DrivenElectrolyte(field=field), r))


def test_correlation_in_space_is_the_fourier_sum_but_for_the_boxs_images(in_space):
    n, side = 48, 48.0
    grid = PeriodicGrid((n,) * 3, side)
    found, _ = eqx.filter_jit(correlations_on_grid)(DrivenElectrolyte(field=1.0), grid)
    cells = np.array([[3, 0, 0], [5, 0, 0], [0, 4, 0], [2, 2, 1]])
    exact = np.asarray(in_space(1.0, jnp.asarray(cells, float)))
    # Images stand 48 away: (5/48)³ of the largest of these, twice.
    assert np.allclose(np.asarray(found)[tuple(cells.T)], exact, atol=1e-4 * 1.2, rtol=0.05)


def test_correlation_far_away_is_a_power_positive_along_the_field_and_negative_across(in_space):
    electrolyte = DrivenElectrolyte(field=1.0)
    far = np.array([[300.0, 0.0, 0.0], [0.0, 300.0, 0.0], [200.0, 100.0, -150.0]])
    theory = np.asarray(jax.jit(lambda r: far_density_correlation(electrolyte, r))(far))
    found = np.asarray(in_space(1.0, far))
    # Corrections are of second order in the Debye length over the distance.
    assert theory[0] > 0 > theory[1] and np.allclose(found, theory, rtol=2e-3)
    near = np.asarray(in_space(1.0, far / 5))
    assert 15 < abs(near[0] / theory[0] / 125 - 1) / abs(found[0] / theory[0] - 1) < 35


@pytest.mark.parametrize("field", [0.0, 2.0])
def test_without_field_there_is_nothing_in_space(field, in_space):
    found = np.asarray(in_space(field, jnp.array([[5.0, 1.0, 0.0], [50.0, 0.0, 1.0]])))
    assert (found == 0).all() if field == 0 else (found != 0).all()


@pytest.fixture(scope="module")
def charge_in_space():
    with jax.enable_x64(True):
        return jax.jit(lambda field, r: charge_correlation(DrivenElectrolyte(1.3, field), r))


def test_oracle_charge_in_space_without_field_is_screened(charge_in_space):
    r = np.array([[0.5, 0.0, 0.0], [0.0, 3.0, 4.0]])
    distance = 1.3 * np.sqrt((r**2).sum(-1))
    exact = -(1.3**3) * np.exp(-distance) / (4 * np.pi * distance)
    assert np.allclose(charge_in_space(0.0, jnp.asarray(r)), exact, rtol=1e-12)


def test_oracle_charge_and_density_in_space_obey_their_exact_identity(charge_in_space):
    # k² (2C₀ - S_cc) = (k² + κ²) S_ρρ - 2C₀ k², which away from r = 0 reads ∇²G_cc = κ² G_ρρ - ∇²G_ρρ.
    # Not on the axis itself, where the angle from it has no derivative.
    r = np.array([[2.0, 0.1, 0.0], [0.1, 3.0, 0.0], [4.0, -2.0, 1.0], [20.0, 5.0, 0.0]])

    @jax.jit
    def both(r):
        electrolyte = DrivenElectrolyte(1.3, 1.7)
        of = [lambda r, f=f: jnp.trace(jax.hessian(lambda r: f(electrolyte, r))(r)) for f in (density_correlation, charge_correlation)]
        return [jax.lax.map(one, r) for one in of]

    of_density, of_charge = map(np.asarray, both(jnp.asarray(r)))
    assert np.allclose(of_density, 1.3**2 * np.asarray(charge_in_space(1.7, jnp.asarray(r))) - of_charge, rtol=1e-6)


def test_charge_far_away_is_a_power_two_faster_than_the_density(charge_in_space):
    far = np.array([[300.0, 0.0, 0.0], [0.0, 300.0, 0.0], [200.0, 100.0, -150.0]])
    theory = np.asarray(jax.jit(lambda r: far_charge_correlation(DrivenElectrolyte(1.3, 1.0), r))(far))
    assert (theory[:2] < 0).all() and np.allclose(charge_in_space(1.0, far), theory, rtol=4e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_density_falls_as_the_dimension_and_charge_two_powers_faster(dim):
    electrolyte = DrivenElectrolyte(1.3, 1.7, dim=dim)
    r = np.arange(1.0, dim + 1) * np.array([[1.0], [2.0]])
    density, charge = eqx.filter_jit(lambda r: (far_density_correlation(electrolyte, r), far_charge_correlation(electrolyte, r)))(r)
    assert np.isclose(density[0] / density[1], 2**dim) and np.isclose(charge[0] / charge[1], 2 ** (dim + 2))


def test_far_correlation_is_the_stretched_potentials_second_derivative():
    field = 1.7
    s = lambda r: jnp.sqrt(r[0] ** 2 / (1 + field**2) + r[1] ** 2 + r[2] ** 2)  # noqa: E731
    potential = lambda r: field**2 / (4 * jnp.pi * jnp.sqrt(1 + field**2) * s(r))  # noqa: E731
    both = jax.jit(lambda r: (far_density_correlation(DrivenElectrolyte(field=field), r), jax.hessian(potential)(r)))
    found, hessian = both(np.array([2.0, 1.0, -0.5]))
    assert np.isclose(found, np.asarray(hessian)[0, 0], rtol=1e-12)


@pytest.mark.parametrize("correlation", [density_correlation, charge_correlation, far_density_correlation, far_charge_correlation])
def test_correlations_in_space_turn_with_the_field(correlation):
    r = jnp.array([[2.0, 1.0, -0.5]])
    turned = jax.jit(correlation)(DrivenElectrolyte(1.3, 1.7, axis=2), r)
    assert np.allclose(turned, jax.jit(correlation)(DrivenElectrolyte(1.3, 1.7), r[:, jnp.array([2, 1, 0])]), rtol=1e-10)


def test_correlations_on_a_grid_are_sums_over_its_modes():
    n, side, kappa, field = 10, 4.0, 1.3, 1.5
    found = jax.jit(lambda: correlations_on_grid(DrivenElectrolyte(kappa, field, dim=1), PeriodicGrid((n,), side)))()
    k = 2 * np.pi * np.fft.fftfreq(n, side / n)[1:]
    square, drift = k**2, (kappa * field * k) ** 2
    share = drift * kappa**2 / ((2 * square + kappa**2) * (square * (square + kappa**2) + drift))
    x = side / n * np.arange(n)
    for part, mode in zip(found, (-share, square / (square + kappa**2) * (1 + share) - 1), strict=True):
        assert np.allclose(part, (mode * np.cos(k * x[:, None])).sum(-1) / side, atol=1e-12)


def test_no_field_no_correlations():
    density, _ = eqx.filter_jit(correlations_on_grid)(DrivenElectrolyte(dim=2), PeriodicGrid((16, 16), 16.0))
    # The mode k = 0 alone is missing: a constant.
    assert np.ptp(np.asarray(density)) < 1e-15
    assert float(far_density_correlation(DrivenElectrolyte(dim=2), jnp.array([3.0, 1.0]))) == 0


# Transformations and input.


def test_zero_mode_is_conserved_not_nan():
    k = np.zeros((2, 3))
    for parts in (closed(2.0, k), later(2.0, k, 3.0)):
        assert all((np.asarray(part) == 0).all() for part in parts)
    salt = MultispeciesElectrolyte(*(jnp.array(pair) for pair in ([1.0, -1.0], [1.0, 1.0], [1.0, 1.0])))
    assert (np.asarray(jax.jit(lambda k: salt.structure_factor(k))(k)) == 0).all()


def test_derivatives_in_the_field_agree_with_differences():
    k = jnp.array([[0.3, 0.2], [0.0, 0.0], [1.0, 2.0], [0.0, 0.5]])

    def total(field, kappa):
        electrolyte = DrivenElectrolyte(kappa, field, dim=2)
        return sum(part.sum() for part in (*electrolyte.structure_factor(k), *electrolyte.structure_factor_at(k, 0.8)))

    check_grads(jax.jit(total), (2.0, 1.1), order=1, modes=["rev"])


def test_vmap_over_fields_is_a_loop(modes):
    fields = np.array([0.0, 1.0, 3.0])
    batch = jax.jit(jax.vmap(closed, (0, None)))(fields, modes)
    for i, field in enumerate(fields):
        assert all(np.allclose(np.asarray(a)[i], b, rtol=ROUND_OFF) for a, b in zip(batch, closed(field, modes), strict=True))


def test_lengths_and_field_of_a_divalent_salt():
    salt = salt_units(concentration=2.0, field=3e6, temperature=310.0, relative_permittivity=74.0, valence=2)
    charge, energy, permittivity = 2 * constants.e, constants.k * 310.0, 74.0 * constants.epsilon_0
    kappa = np.sqrt(2 * 2.0 * constants.N_A * charge**2 / (permittivity * energy))
    bjerrum = charge**2 / (4 * np.pi * permittivity * energy)
    assert np.allclose(salt, [bjerrum, 1 / kappa, charge * 3e6 / (energy * kappa), bjerrum * kappa], rtol=1e-8, atol=0)


def test_salt_in_water():
    salt = salt_units(concentration=1.0)
    assert abs(salt.bjerrum_length - 0.7e-9) < 0.02e-9 and abs(salt.debye_length - 9.6e-9) < 0.05e-9
    with pytest.raises(ValueError, match=r"temperature must be positive and finite, got -1\.0"):
        salt_units(concentration=1.0, temperature=-1.0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"debye_wavenumber": 0.0}, "debye_wavenumber must be positive and finite, got 0.0"),
        ({"diffusivity": -1.0}, "diffusivity must be positive"),
        ({"mean_density": -2.0}, "mean_density must be positive and finite, got -2.0"),
        ({"smearing": -0.1}, "smearing must be at least 0"),
        ({"field": float("nan")}, "field must be finite"),
        ({"dim": 4}, "dim must be 1, 2 or 3, got 4"),
        ({"dim": 2, "axis": 2}, "axis must be at least 0 and below dim = 2, got 2"),
    ],
)
def test_parameters_out_of_range_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        DrivenElectrolyte(**options)


def test_wavevectors_and_points_must_fit():
    electrolyte = DrivenElectrolyte(dim=2)
    with pytest.raises(ValueError, match=r"k must hold vectors of 2 components along its last axis, got shape \(5, 3\)"):
        electrolyte.structure_factor(jnp.ones((5, 3)))
    with pytest.raises(ValueError, match="r must not be 0"):
        far_density_correlation(electrolyte, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="dim must be 3, got 2"):
        density_correlation(electrolyte, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="dim must be 3, got 2"):
        charge_correlation(electrolyte, jnp.ones((1, 2)))
    with pytest.raises(ValueError, match="smearing must be 0"):
        density_correlation(DrivenElectrolyte(smearing=0.5), jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="dim must be 2 or 3, got 1"):
        far_density_correlation(DrivenElectrolyte(dim=1), jnp.ones((1, 1)))
    with pytest.raises(ValueError, match="grid must have the electrolyte's 2 dimensions, got 1"):
        correlations_on_grid(electrolyte, PeriodicGrid((8,), 1.0))
    with pytest.raises(ValueError, match="time must be at least 0"):
        electrolyte.structure_factor_at(jnp.ones((1, 2)), -1.0)


def test_charges_must_sum_to_neutral():
    with pytest.raises(ValueError, match=r"charges must sum to neutral, Σ charges · densities = 0, got 1 of 3"):
        MultispeciesElectrolyte(jnp.array([2.0, -1.0]), jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="densities must be positive"):
        MultispeciesElectrolyte(jnp.array([1.0, -1.0]), jnp.array([-1.0, -1.0]), jnp.ones(2))
    with pytest.raises(ValueError, match="one number for each of at least 2 species"):
        MultispeciesElectrolyte(jnp.array([1.0, -1.0]), jnp.ones(3), jnp.ones(2))


def test_what_does_not_settle_is_refused():
    with pytest.raises(ValueError, match="drift must have eigenvalues with positive real parts"):
        lyapunov_steady_state(jnp.zeros((2, 2)) + 0j, jnp.eye(2) + 0j)
    with pytest.raises(ValueError, match="drift and noise must be square matrices of one shape"):
        lyapunov_steady_state(jnp.eye(2) + 0j, jnp.eye(3) + 0j)
