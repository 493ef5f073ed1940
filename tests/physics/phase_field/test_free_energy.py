import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.phase_field import GAS_CONSTANT, CustomFreeEnergy, HeatOfTransport, IdealSolution, PhaseMobility, QuarticTwoPhase

pytestmark = pytest.mark.usefixtures("double")
ROUND_OFF = 1e-12  # two ways to the same polynomial or logarithm


def quartic(**slopes):
    return QuarticTwoPhase(
        barrier=1.3, matrix=0.15, precipitate=0.8, matrix_slope=0.3, precipitate_slope=-0.2, reference_temperature=1.1, **slopes
    )


CASES = {
    "quartic": (quartic, (-0.1, 1.1), (0.8, 1.2)),
    "ideal": (lambda: IdealSolution(reference=2.0), (1e-6, 1 - 1e-6), (300.0, 900.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_closed_derivatives_are_those_of_the_density(name):
    make, *ranges = CASES[name]
    c, T = (np.linspace(*ends, 13) for ends in ranges)
    free_energy, automatic = make(), CustomFreeEnergy(make().__call__, 0.1, 0.9)
    methods = ("potential", "curvature", "thermal_slope", "__call__")
    both = jax.jit(lambda c, T: [[getattr(energy, method)(c, T) for energy in (free_energy, automatic)] for method in methods])
    for method, (ours, theirs) in zip(methods, both(c, T), strict=True):
        assert np.allclose(ours, theirs, rtol=ROUND_OFF, atol=ROUND_OFF * np.abs(theirs).max()), method


def test_both_phases_of_the_quartic_are_at_rest_with_one_curvature():
    free_energy, T = quartic(), jnp.array([0.9, 1.1, 1.3])
    for c in free_energy.stable_compositions(T):
        assert np.allclose(free_energy(c, T), 0, atol=ROUND_OFF) and np.allclose(free_energy.potential(c, T), 0, atol=ROUND_OFF)
        gap = free_energy.precipitate_composition(T) - free_energy.matrix_composition(T)
        assert np.allclose(free_energy.curvature(c, T), 2 * 1.3 * gap**2, rtol=ROUND_OFF)


def test_solvus_slope_is_minus_thermal_slope_over_curvature():
    free_energy, T = quartic(), jnp.array(1.05)
    a, b = free_energy.stable_compositions(T)
    for c, slope in ((a, 0.3 / 1.1), (b, -0.2 / 1.1)):
        assert np.allclose(-free_energy.thermal_slope(c, T) / free_energy.curvature(c, T), slope, rtol=ROUND_OFF)


@pytest.mark.parametrize("coefficient", [HeatOfTransport, PhaseMobility])
def test_coefficients_beyond_the_phases_are_those_of_the_phases(coefficient):
    found = coefficient(0.2, 0.6)(jnp.array([-0.4, 0.1, 0.3, 0.9, 1.5]), jnp.array(1.0), QuarticTwoPhase())
    assert np.allclose(found, [0.2, 0.2, 0.3, 0.6, 0.6])


def test_a_density_of_ones_own_has_its_own_limits():
    free_energy = CustomFreeEnergy(lambda c, T: T * c**2, 0.1, 0.9, (-0.5, 1.5))
    assert free_energy.domain() == (-0.5, 1.5) and CustomFreeEnergy(lambda c, T: T * c, 0.1, 0.9).domain() == (-np.inf, np.inf)
    assert np.allclose(free_energy.stable_compositions(jnp.ones(2)), [[0.1, 0.1], [0.9, 0.9]])


@jax.jit
def continued(c):
    free_energy, T = IdealSolution(), jnp.array(1000.0)
    values = free_energy(c, T), free_energy.potential(c, T), free_energy.curvature(c, T)
    gradients = [jax.grad(f)(c, T) for f in (free_energy, free_energy.potential)]
    return values, gradients, free_energy.potential(c - 1e-9, T)


@pytest.mark.parametrize("c", [-1e-6, 0.0, 1e-12, 1.0, 1 + 1e-6])
def test_ideal_solution_is_continued_not_clipped(c):
    values, gradients, before = continued(c)
    assert np.isfinite([*values, *gradients]).all()
    assert before < values[1]


def test_continuation_is_smooth_at_its_edge():
    free_energy, T = IdealSolution(), jnp.array(1000.0)
    inside, outside = jnp.array(1e-8 * (1 + 1e-6)), jnp.array(1e-8 * (1 - 1e-6))
    assert np.allclose(free_energy.curvature(inside, T), GAS_CONSTANT * 1000 * 1e8, rtol=1e-5)
    assert np.allclose(free_energy.potential(inside, T), free_energy.potential(outside, T), rtol=1e-5)
    assert np.allclose(free_energy.curvature(inside, T), free_energy.curvature(outside, T), rtol=1e-5)
