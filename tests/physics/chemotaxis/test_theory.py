import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.chemotaxis import (
    Box,
    IndirectChemotaxis,
    Radial,
    critical_mass,
    growth_rate,
    growth_rate_slope,
    instability_threshold,
    limit_growth_rate,
    scharfetter_gummel,
)

grown = jax.jit(growth_rate)
pytestmark = pytest.mark.usefixtures("double")
MU = np.pi**2


def matrix(nbar, mu, eps, tau, chi=1.0):
    return [[-mu, nbar * chi * mu, 0], [0, -(mu + 1) / eps, 1 / eps], [1 / eps, 0, -(tau * mu + 1) / eps]]


def test_growth_rate_is_the_leading_eigenvalue():
    rng = np.random.default_rng(0)
    nbar, mu, eps, tau, chi = (10.0 ** rng.uniform(low, high, 40) for low, high in ((-1, 3), (-1, 3), (-2, 2), (-2, 1), (-1, 1)))
    found = grown(nbar, mu, eps=eps, tau=tau, chi=chi)
    exact = [np.linalg.eigvals(matrix(*case)).real.max() for case in zip(nbar, mu, eps, tau, chi, strict=True)]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-9 * mu.max())


def test_growth_rates_of_the_first_mode():
    rates = np.asarray(grown(40.0, MU, eps=np.array([0.0, 0.001, 0.01]), tau=0.2))
    np.testing.assert_allclose(rates, [2.3432334, 2.3310516, 2.2276399], atol=5e-8)
    assert rates[0] == pytest.approx(float(limit_growth_rate(40.0, MU, tau=0.2)), rel=1e-12)


def test_threshold_does_not_depend_on_eps():
    threshold = float(instability_threshold(MU, 0.2))
    assert threshold == pytest.approx(32.3253435, abs=5e-8)
    for sign in (-1, 1):
        rates = grown(threshold * (1 + 1e-4 * sign), MU, eps=np.array([0.0, 0.01, 0.1, 10.0]), tau=0.2)
        assert (np.sign(rates) == sign).all()


def test_growth_rate_changes_with_eps_as_perturbation_theory_says():
    both = jax.jit(jax.value_and_grad(lambda eps: growth_rate(40.0, MU, eps=eps, tau=0.2).reshape(())))
    (here, slope), (there, _) = both(0.0), both(1e-6)
    assert slope == pytest.approx(float(growth_rate_slope(40.0, MU, tau=0.2)), rel=1e-9)
    assert (there - here) / 1e-6 == pytest.approx(float(slope), rel=1e-4)


def test_sensitivity_lowers_the_threshold_and_multiplies_the_gain():
    assert float(instability_threshold(MU, 0.2, chi=2.5)) == pytest.approx(float(instability_threshold(MU, 0.2)) / 2.5)
    for law in (limit_growth_rate, growth_rate_slope):
        assert float(law(16.0, MU, tau=0.2, chi=2.5)) == pytest.approx(float(law(40.0, MU, tau=0.2)))


def test_spreading_slows_growth_in_first_order():
    change = (limit_growth_rate(40.0, MU, tau=1e-6) - limit_growth_rate(40.0, MU, tau=0.0)) / 1e-6
    assert change == pytest.approx(-40 * MU**2 / (1 + MU), rel=1e-4)


def test_waves_that_may_swing_have_no_such_rate():
    with pytest.raises(ValueError, match=r"chi must be at least 0 \(attraction\), got -1\.0"):
        growth_rate(1.0, 1.0, eps=0.1, tau=0.1, chi=-1.0)


def test_critical_masses():
    assert critical_mass(2) == pytest.approx(8 * np.pi)
    assert critical_mass(4, tau=1.0) == pytest.approx(64 * np.pi**2)
    assert critical_mass(4, tau=0.25, chi=2.0) == pytest.approx(8 * np.pi**2)
    assert critical_mass(2, chi=-1.0) == critical_mass(4, tau=1.0, chi=0.0) == jnp.inf


@pytest.mark.parametrize(("dimension", "tau"), [(1, 0.0), (3, 0.0), (4, 0.0), (2, 0.1), (3, 1.0), (5, 1.0)])
def test_other_dimensions_have_no_critical_mass(dimension, tau):
    with pytest.raises(ValueError, match=rf"dimension must be [24] .* got {dimension}"):
        critical_mass(dimension, tau=tau)


def test_critical_mass_needs_a_tau():
    with pytest.raises(ValueError, match="tau must be at least 0, got -1"):
        critical_mass(4, tau=-1.0)


def test_models_know_their_least_critical_mass():
    def least(grid, eps, tau, chi=1.0):
        return float(IndirectChemotaxis(grid, eps, tau, chi).critical_mass())

    assert least(Radial(4, 8), 0.1, 0.5) == pytest.approx(32 * np.pi**2)  # whatever ε
    assert least(Radial(2, 8), 0.0, 0.0) == least(Radial(2, 8), 0.1, 0.0) == pytest.approx(8 * np.pi)
    assert least(Box((4, 4)), 0.0, 0.0) == pytest.approx(2 * np.pi)  # in a corner
    assert least(Box((4,)), 0.1, 0.2) == least(Box((4, 4)), 0.1, 0.2) == least(Radial(4, 8), 0.1, 0.5, -1.0) == np.inf
    assert least(Radial(5, 8), 0.1, 0.2) == least(Radial(3, 8), 0.0, 0.0) == 0


@pytest.mark.parametrize(("dimension", "tau"), [(2, 0.0), (4, 1.0)])
def test_second_moment_turns_around_at_the_critical_mass(dimension, tau):
    # Narrow enough that boundary and decay terms, of the order of its square, are small.
    grid, width = Radial(dimension, 400, grading=2.0), 0.02
    r2 = grid.centres[0] ** 2
    model = IndirectChemotaxis(grid, 0.0, tau)

    @jax.jit
    @jax.vmap
    def spreading(share):
        shape = jnp.exp(-r2 / (2 * width**2))
        mass = share * critical_mass(dimension, tau=tau)
        n = mass * shape / grid.integral(shape)
        c, _ = model.critical_manifold(n)
        return grid.integral(r2 * scharfetter_gummel(grid, n, c)) / (2 * dimension * mass)

    shares = np.array([0.5, 0.97, 1.03, 1.5])
    found = np.asarray(spreading(shares))
    np.testing.assert_allclose(found, 1 - shares, atol=0.02)
    assert found[1] > 0 > found[2]
