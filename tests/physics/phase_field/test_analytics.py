import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gradatim.physics.phase_field import (
    HeatOfTransport,
    PhaseMobility,
    QuarticTwoPhase,
    critical_gradient,
    disc_velocity,
    gibbs_thomson,
    interface_energy,
    interface_profile,
    interface_width,
    slab_velocity,
    soret_steady_state,
    spinodal_growth_rate,
)

pytestmark = pytest.mark.usefixtures("double")
SLOPED = QuarticTwoPhase(matrix_slope=0.1, precipitate_slope=-0.1)


def test_numbers_of_the_reference_case():
    free_energy = QuarticTwoPhase()
    assert np.allclose(interface_width(free_energy, 1.0), 2.5)
    assert np.allclose(interface_energy(free_energy, 1.0), 0.17067, rtol=1e-4)
    assert np.allclose(gibbs_thomson(10.0, free_energy, 1.0), 0.01667, rtol=1e-3)
    assert np.allclose(critical_gradient(9.0, 14.0, 37.0, free_energy, HeatOfTransport(-0.2), 1.0), 1.1e-3, rtol=0.05)


def test_a_sphere_curves_twice():
    assert np.isclose(gibbs_thomson(10.0, SLOPED, 0.9, dimension=3), 2 * gibbs_thomson(10.0, SLOPED, 0.9))


def test_critical_gradient_counts_the_solvus_and_the_heat_at_their_temperatures():
    free_energy = QuarticTwoPhase(1.4, 0.2, 0.9, 0.3, -0.5, 1.2)
    found = critical_gradient(9.0, 14.0, 37.0, free_energy, HeatOfTransport(-0.9, 0.6), 0.8, temperature=1.5)
    drive = 2 * 1.4 * 0.7**2 * 0.3 / 1.2 - 0.9 / 1.5
    tension = np.sqrt(0.8 * 1.4) * 0.7**2 / 3
    assert drive < 0 and np.isclose(found, tension * (1 / 9 - 1 / 14) / (-drive * 37), rtol=1e-12)


def test_waves_grow_at_the_curvature_of_their_temperature():
    k, hot = jnp.array([0.1, 0.3]), QuarticTwoPhase(1.3, 0.1 + 0.4 * 0.25, 0.9)
    found = spinodal_growth_rate(k, 0.45, QuarticTwoPhase(1.3, 0.1, 0.9, matrix_slope=0.4, reference_temperature=2.0), 0.7, temperature=2.5)
    assert np.allclose(found, spinodal_growth_rate(k, 0.45, hot, 0.7), rtol=1e-12)


def test_interface_energy_is_that_of_its_profile():
    free_energy, x = QuarticTwoPhase(barrier=1.4, precipitate=0.8), np.linspace(-40, 40, 20001)

    @jax.jit
    def profile(x):
        c = interface_profile(x, free_energy, 0.9)
        return c, free_energy(c, jnp.array(1.0))

    c, density = map(np.asarray, profile(x))
    energy = np.trapezoid(density + 0.9 * np.gradient(c, x) ** 2, x)
    assert np.allclose(energy, interface_energy(free_energy, 0.9), rtol=1e-5)


at_rest = jax.jit(soret_steady_state)


@pytest.mark.parametrize("mean", [1e-9, 1e-3, 0.3, 0.9])
def test_soret_state_has_its_mean_and_its_slope(mean):
    T = np.linspace(900.0, 1200.0, 50)
    c = np.asarray(at_rest(T, -100e3, mean))
    logit = np.log(c) - np.log1p(-c)
    assert np.allclose(c.mean(), mean, rtol=1e-10)
    assert np.allclose(np.diff(logit) / np.diff(1 / T), -100e3 / 8.314462618, rtol=1e-6)


def test_derivative_of_the_soret_state():
    T = jax.device_put(np.linspace(900.0, 1200.0, 20))
    check_grads(jax.jit(lambda heat, mean: soret_steady_state(T, 1e5 * heat, mean)[-1]), (-1.0, 0.2), order=1)


def test_equal_mobility_and_heat_drop_out_of_the_speed():
    expected = -1.28 * (-0.2) * 1e-3 / 0.8
    for heat in (0.0, -0.4):
        assert np.allclose(slab_velocity(SLOPED, HeatOfTransport(heat), 1e-3), expected)


def test_flat_disc_without_flux_is_a_slab_without_matrix_flux():
    heat = HeatOfTransport(-0.2, 0.1)
    line = disc_velocity(SLOPED, heat, 1e-3, dimension=1, far_field="zero_flux")
    assert np.allclose(line, -(1.28 * (-0.1) + 0.1) * 1e-3 / 0.8)
    assert np.allclose(disc_velocity(SLOPED, heat, 1e-3), slab_velocity(SLOPED, heat, 1e-3))


def test_total_law_needs_a_heat_of_transport():
    assert slab_velocity(SLOPED, HeatOfTransport(0.0), 1e-3, convention="total") == 0
    assert slab_velocity(SLOPED, HeatOfTransport(-0.2, 0.0), 1e-3, convention="total") < 0
    fast = slab_velocity(SLOPED, HeatOfTransport(-0.2, 0.0), 1e-3, mobility=PhaseMobility(2.0, 1.0), convention="total")
    assert np.allclose(fast, 2 * slab_velocity(SLOPED, HeatOfTransport(-0.2, 0.0), 1e-3, convention="total"))


def test_speed_is_linear_in_the_gradient_and_vmaps():
    gradients = np.array([-1e-3, 0.0, 2e-3])
    speeds = np.asarray(jax.jit(jax.vmap(lambda g: slab_velocity(SLOPED, HeatOfTransport(-0.1, 0.1), g)))(gradients))
    assert np.allclose(speeds, speeds[2] / 2e-3 * gradients)


def test_far_field_and_convention_are_words():
    with pytest.raises(ValueError, match="far_field must be 'equilibrium' or 'zero_flux', got 'none'"):
        disc_velocity(SLOPED, HeatOfTransport(0.0), 1e-3, far_field="none")
    with pytest.raises(ValueError, match="convention must be"):
        slab_velocity(SLOPED, HeatOfTransport(0.0), 1e-3, convention="de Groot")
