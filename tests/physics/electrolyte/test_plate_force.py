import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from gradatim.physics.electrolyte import CLOSURES, fluctuation_force, fluctuation_force_at, screened_fluctuation_force

pytestmark = pytest.mark.usefixtures("double")
CASES = [(dim, closure) for dim in (2, 3) for closure in CLOSURES]
_compiled = {}


def force(field, dim, closure, method, separation=1.0):
    case = dim, closure, method
    if case not in _compiled:
        _compiled[case] = jax.jit(lambda field, separation: fluctuation_force(field, separation, dim=dim, closure=closure, method=method))
    return float(_compiled[case](field, separation))


@pytest.mark.parametrize(("dim", "closure"), CASES)
def test_mode_sum_is_the_closed_form(dim, closure):
    for field in (1e-2, 0.3, 1.0, 3.0, 10.0, 30.0):
        assert abs(force(field, dim, closure, "modes", 2.0) / force(field, dim, closure, "closed", 2.0) - 1) < 1e-9


@pytest.mark.parametrize(("field", "amplitude"), [(0.3, 0.00390839), (1.0, 0.0224635), (3.0, 0.0395098), (10.0, 0.0454252)])
def test_worked_amplitudes_in_three_dimensions(field, amplitude):
    assert abs(force(field, 3, "wall", "closed") - amplitude) < 5e-8


@pytest.mark.parametrize("field", [0.3, 1.0, 3.0])
def test_two_dimensions_by_adaptive_quadrature_of_the_mode_sum(field):
    s = np.sqrt(1 + field**2)
    integrand = lambda k: k**2 * (2 / np.expm1(2 * k) / k - 2 / np.expm1(2 * s * k) / (s * k))  # noqa: E731
    exact = integrate.quad(integrand, 0, 40, epsabs=1e-13)[0] / (2 * np.pi)
    assert abs(force(field, 2, "wall", "closed") - exact) < 1e-11


def test_sum_over_modes_less_the_integral_is_coth_minus_one():
    k, q, height = 0.7, 1.9, 1.5
    p = np.pi * np.arange(-200_000, 200_001) / height
    total = (1 / (p**2 + k**2) - 1 / (p**2 + q**2)).sum() / height - (1 / k - 1 / q)
    assert abs(total - ((1 / np.tanh(k * height) - 1) / k - (1 / np.tanh(q * height) - 1) / q)) < 1e-10


def test_strong_fields_saturate():
    assert abs(force(1e8, 3, "wall", "closed") - 0.0478283) < 1e-7
    assert abs(force(1e7, 2, "wall", "closed") - np.pi / 24) < 1e-7


@given(st.floats(1e-6, 50), st.sampled_from(CASES))
def test_force_is_even_repels_and_grows_with_the_field(field, case):
    with jax.enable_x64(True):
        here = force(field, *case, "closed")
        assert here == force(-field, *case, "closed") and 0 < here < force(1.01 * field, *case, "closed")


@pytest.mark.parametrize(("dim", "closure"), CASES)
def test_force_vanishes_without_field_and_grows_as_its_square(dim, closure):
    assert force(0.0, dim, closure, "closed") == 0 and abs(force(0.0, dim, closure, "modes")) < 1e-14
    assert abs(force(2e-4, dim, closure, "closed") / force(1e-4, dim, closure, "closed") - 4) < 1e-6


@pytest.mark.parametrize(("dim", "closure"), CASES)
def test_force_falls_as_the_distance_to_the_dimension(dim, closure):
    assert np.isclose(force(1.0, dim, closure, "modes", 1.0) / force(1.0, dim, closure, "modes", 4.0), 4.0**dim, rtol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_at_any_distance_by_the_whole_structure_factor(dim):
    compiled = jax.jit(lambda field, height, kappa: screened_fluctuation_force(field, height, dim=dim, debye_wavenumber=kappa))
    for field in (0.3, 1.0, 3.0):
        far = [float(compiled(field, height, 1.0)) / force(field, dim, "wall", "closed", height) - 1 for height in (100.0, 200.0)]
        # Corrections are of second order in the Debye length over the distance.
        assert abs(far[1]) < 3e-3 and 3.5 < far[0] / far[1] < 4.5
    assert abs(float(compiled(0.0, 10.0, 1.0))) < 1e-15
    # Strong fields close by, where poles are complex; and the units.
    assert np.isclose(compiled(6.0, 2.0, 3.0), 3.0**dim * compiled(6.0, 6.0, 1.0), rtol=1e-12)


def test_screened_force_is_the_sum_over_modes_of_the_theorys_structure_factor():
    height, field = 4.0, 2.0
    nodes, weights = np.polynomial.legendre.leggauss(24)
    k, weights = 2 * (nodes + 1), 2 * weights
    p = np.pi * np.arange(-4000, 4001) / height

    def integrand(p, k):
        x, g = k**2 + p**2, field * k
        share = g**2 / ((2 * x + 1) * (x * (x + 1) + g**2))
        return k**2 / x**2 * x / (x + 1) * share

    between = [integrand(p, q).sum() / height - 2 * integrate.quad(integrand, 0, np.inf, (q,), epsabs=1e-12)[0] / np.pi for q in k]
    exact = (weights * np.array(between)).sum() / (2 * np.pi)
    found = jax.jit(lambda field, height: screened_fluctuation_force(field, height, dim=2))(field, height)
    assert np.isclose(found, exact, rtol=1e-6)


def test_weak_fields_keep_their_digits_in_single_precision():
    with jax.enable_x64(False):
        weak = jax.jit(lambda field: fluctuation_force(field, 1.0, dim=3))(1e-3)
        assert weak.dtype == jnp.float32 and abs(float(weak) * 8 * np.pi / (1.2020569 * 1e-6) - 1) < 1e-5


# After the field is switched on.


@pytest.fixture(scope="module")
def relaxation():
    with jax.enable_x64(True):
        return jax.jit(jax.vmap(lambda t, field: fluctuation_force_at(t, field, 1.0), (0, None)))


def test_force_settles_from_above_with_the_amplitude_of_the_flat_mode(relaxation):
    times, field = jnp.array([1e3, 1e4]), 1.0
    s = np.sqrt(1 + field**2)
    left = np.asarray(relaxation(times, field)) - force(field, 3, "wall", "closed")
    flat = (2 - 4 / s + (2 + field**2) / s**3) / (32 * np.pi * np.asarray(times))
    # What the unbounded fluid has beside it falls by one half power more.
    angles = integrate.quad(lambda mu: mu**4 / (1 + mu**2) ** 1.5, 0, 1)[0]
    bulk = 2 * np.pi * angles / (8 * np.pi**3) * np.sqrt(np.pi) / (4 * (2 * np.asarray(times)) ** 1.5)
    assert (left > 0).all() and np.allclose(left, flat - bulk, rtol=1e-6)


def test_transient_is_that_of_the_whole_theory_far_beyond_the_debye_length():
    from gradatim.physics.electrolyte import DrivenElectrolyte

    # One direction, one mode across the gap: S_ρρ(t) - S_ρρ(∞) of the exact solution against the adiabatic one.
    kappa, field, time, k, p = 400.0, 1.5, 0.05, 1.2, np.pi
    electrolyte = DrivenElectrolyte(kappa, field)
    charges = jax.jit(lambda k: (electrolyte.structure_factor_at(k, time).charge, electrolyte.structure_factor(k).charge))
    left = np.subtract(*charges(np.array([0.6 * k, 0.8 * k, p])))
    driven, whole = field**2 * 0.36 * k**2, k**2 + p**2
    adiabatic = driven / kappa**2 * driven / (whole + driven) * np.exp(-2 * time * (whole + driven))
    assert left > 0 and abs(float(left) / adiabatic - 1) < 2e-3


def test_flat_mode_of_two_dimensions_leaves_a_power_of_one_half():
    time, field = 1e3, 1.3
    left = float(jax.jit(lambda t: fluctuation_force_at(t, field, 1.0, dim=2))(time)) - force(field, 2, "wall", "closed")
    # ∫dk/2π E⁴/s² exp(-2s²k²t)/2, and what the unbounded fluid has beside it, its integral over the length of a wavevector done.
    flat = field**4 / (1 + field**2) / (4 * np.pi) * np.sqrt(np.pi / (2 * (1 + field**2) * time))
    angles = integrate.quad(lambda angle: np.cos(angle) ** 6 / (1 + (field * np.cos(angle)) ** 2) ** 2, 0, 2 * np.pi)[0]
    assert np.isclose(left, flat - field**4 * angles / (16 * np.pi**2 * time), rtol=1e-6)


@pytest.mark.parametrize("dim", [2, 3])
def test_forces_carry_their_units(dim):
    energy, height, diffusivity = 2.5, 1.7, 0.6

    @jax.jit
    def both(kt):
        closed, modes = (fluctuation_force(1.3, height, dim=dim, thermal_energy=kt, method=way) for way in ("closed", "modes"))
        near = screened_fluctuation_force(1.3, height, dim=dim, thermal_energy=kt)
        return closed, modes, near, fluctuation_force_at(0.2, 1.3, height, dim=dim, diffusivity=diffusivity, thermal_energy=kt)

    unit = jax.jit(lambda time: fluctuation_force_at(time, 1.3, 1.0, dim=dim))(0.2 * diffusivity / height**2)
    hot = both(energy)
    assert np.allclose(hot, energy * np.array(both(1.0)), rtol=1e-10) and np.isclose(hot[-1], energy * unit / height**dim, rtol=1e-10)


def test_no_field_no_transient(relaxation):
    assert (np.asarray(relaxation(jnp.array([0.1, 1.0]), 0.0)) == 0).all()


def test_derivative_in_the_field_agrees_with_differences():
    slope = jax.jit(jax.grad(lambda field: fluctuation_force(field, 1.0, dim=3, method="modes")))(0.8)
    difference = (force(0.8 + 1e-5, 3, "wall", "closed") - force(0.8 - 1e-5, 3, "wall", "closed")) / 2e-5
    assert np.isclose(slope, difference, rtol=1e-7)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"dim": 4}, "dim must be 2 or 3, got 4"),
        ({"closure": "periodic"}, "closure must be one of wall, fixed_number, conducting, got 'periodic'"),
        ({"method": "guess"}, "method must be 'closed' or 'modes', got 'guess'"),
        ({"separation": 0.0}, "separation must be positive and finite, got 0.0"),
        ({"thermal_energy": -1.0}, "thermal_energy must be positive and finite, got -1.0"),
    ],
)
def test_bad_input_is_refused(options, match):
    settings = {"field": 1.0, "separation": 1.0, "dim": 3} | options
    # The checker of types would speak first.
    call = getattr(fluctuation_force, "__wrapped__", fluctuation_force)
    with pytest.raises(ValueError, match=match):
        call(**settings)


@pytest.mark.parametrize("time", [0.0, 1e-4])
def test_too_early_times_are_refused(time):
    with pytest.raises(ValueError, match=r"time must be at least 0\.001 separation² / diffusivity"):
        fluctuation_force_at(time, 1.0, 1.0)


@pytest.mark.parametrize("time", [0.1, 1.0, 100.0])
def test_single_precision_settles_too(time):
    with jax.enable_x64(False):
        single = float(fluctuation_force_at(time, 1.0, 1.0))
    with jax.enable_x64(True):
        assert np.isclose(single, fluctuation_force_at(time, 1.0, 1.0), rtol=1e-4)
