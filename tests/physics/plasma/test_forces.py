import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.laguerre import laggauss
from scipy.special import kn

from gradatim.physics.plasma import (
    SumForce,
    TemperatureGradientForce,
    Vector,
    VelocityGradientForce,
    heat_flux_growth,
    kinetic_energy,
    lorentz_factor,
    maxwell_juttner,
    maxwellian,
    mean_kinetic_energy,
    moments,
    velocity,
)

ALONG = (1.0, 0.0, 0.0)
OBLIQUE = (0.6, 0.0, 0.8)
QUADRATURE = 1e-12  # polynomials and smooth weights in double precision


growth = jax.jit(heat_flux_growth, static_argnames="is_neutral")
mean_energy = jax.jit(mean_kinetic_energy)


def gaussian_nodes(theta, n=64):
    """Nodes and weights of the average over a Gaussian in u: along, across (uniform in angle)."""
    x, wx = hermegauss(n)
    s, ws = laggauss(n)
    along, across = np.meshgrid(np.sqrt(theta) * x, np.sqrt(2 * theta * s), indexing="ij")
    return Vector(along, across, 0 * along), np.outer(wx, ws) / wx.sum() / ws.sum()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("theta", "slope"), [(1e-4, 1.249), (0.01, 1.1325), (0.03, 0.958), (0.1, 0.621), (0.3, 0.3016)])
def test_heat_flux_grows_by_five_quarters_at_low_temperature_and_less_above(theta, slope):
    assert abs(float(growth(theta)) - slope) < 3e-3  # the slopes are of a Monte Carlo, ± 0.002


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("theta", "slope"), [(0.1, 0.5145), (0.3, 0.2002)])
def test_without_the_field_that_holds_the_current_the_slope_is_another(theta, slope):
    assert abs(float(growth(theta, is_neutral=False)) - slope) < 2e-3


@jax.jit
def slopes_at_the_start(key, theta):
    """The means of ∂[(γ-1) v]/∂u · F and ∂v/∂u · F over many thermal particles, under the force and under a unit field."""
    u = maxwell_juttner(key, theta, 400_000)
    force = TemperatureGradientForce(1.0, ALONG, theta, "exact")(u)
    unit = Vector(jnp.ones_like(u.x), jnp.zeros_like(u.x), jnp.zeros_like(u.x))

    def flux_and_drift(u):
        return kinetic_energy(u) * velocity(u).x, velocity(u).x

    return [[part.mean() for part in jax.jvp(flux_and_drift, (u,), (push,))[1]] for push in (force, unit)]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("theta", "slope"), [(0.1, 0.990), (0.3, 0.727)])
def test_slopes_of_the_relativistic_distribution_are_not_those_of_a_gaussian(theta, slope):
    """dq/dt of thermal particles at their start, by a mean over many; the drift is held by a field."""
    (flux, drift), (flux_of_field, drift_of_field) = np.asarray(slopes_at_the_start(jax.random.key(0), theta))
    assert abs((flux - drift / drift_of_field * flux_of_field) / (2 * theta**2) - slope) < 0.01


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("theta", [0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
def test_mean_energy_is_that_of_the_bessel_functions(theta):
    exact = kn(1, 1 / theta) / kn(2, 1 / theta) + 3 * theta if theta > 0.002 else 1 + 1.5 * theta
    assert abs(1 + float(mean_energy(theta)) - exact) < 1e-10


@pytest.mark.usefixtures("double")
def test_mean_force_is_zero_on_the_thermal_distributions():
    theta = 1e-6
    u, weight = gaussian_nodes(theta)
    for force in jax.jit(lambda u: [TemperatureGradientForce(1.0, ALONG, theta, offset)(u).x for offset in ("paper", "exact")])(u):
        assert abs((weight * np.asarray(force)).sum()) < 4 * theta**2  # the relativistic correction is all that is left

    @jax.jit
    def of_drawn(key):
        drawn = maxwell_juttner(key, 0.3, 200_000)
        return [TemperatureGradientForce(1.0, OBLIQUE, 0.3, offset)(drawn).x for offset in ("exact", "paper")]

    force, paper = map(np.asarray, of_drawn(jax.random.key(1)))
    assert abs(force.mean()) < 4 * force.std() / np.sqrt(100_000)
    assert paper.mean() > 10 * force.std() / np.sqrt(100_000)  # 3/2 is not enough at θ = 0.3


@pytest.mark.usefixtures("double")
def test_drive_has_five_halves_although_the_force_has_three():
    """-∂/∂u · (F f) / f at low temperature: the trap is to put 5/2 into the force."""
    theta = 1e-6
    u, _ = gaussian_nodes(theta, 8)
    force = TemperatureGradientForce(3.0, ALONG, theta)
    pushed, divergence, x = jax.jit(lambda u: (force(u), force.divergence(u), velocity(u).x))(u)
    drive = -np.asarray(divergence) + sum(np.asarray(a) * b / theta for a, b in zip(pushed, u, strict=True))
    expected = np.asarray(x) / 3.0 * ((u.x**2 + u.y**2) / (2 * theta) - 2.5)
    assert np.allclose(drive, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", ["temperature", "velocity", "sum"])
def test_divergence_is_the_trace_of_the_jacobian_and_flow_starts_along_the_force(kind):
    parts = {"temperature": TemperatureGradientForce(3.0, OBLIQUE, 0.1), "velocity": VelocityGradientForce.gyrotropic(0.2, OBLIQUE)}
    force = parts[kind] if kind in parts else SumForce(*parts.values())

    @jax.jit
    def derivatives(u):
        jacobian = jax.jacfwd(lambda u: jnp.stack(force(Vector(*u))))(u)
        return jacobian, force.divergence(Vector(*u)), jnp.stack(force(Vector(*u)))

    # One program for any time: the exponential of a matrix is a large one.
    flow = jax.jit(lambda u, dt: jax.jvp(lambda dt: jnp.stack(force.flow(Vector(*u), dt)), (dt,), (1.0,)))
    u = np.array([0.3, -0.2, 0.7])
    jacobian, divergence, pushed = map(np.asarray, derivatives(u))
    assert np.allclose(np.trace(jacobian), divergence, atol=QUADRATURE)
    assert np.allclose(flow(u, 0.0)[1], pushed, atol=QUADRATURE)
    back, _ = flow(np.asarray(flow(u, 0.02)[0]), -0.02)
    assert np.allclose(back, u, atol=2e-5)  # third order


@pytest.mark.usefixtures("double")
def test_flow_of_three_forces_is_reversible():
    force = SumForce(*(TemperatureGradientForce(1.0, tuple(map(float, row)), 0.1) for row in np.eye(3)))
    flow = jax.jit(lambda u, dt: jnp.stack(force.flow(Vector(*u), dt)))
    u, dt = np.array([0.3, -0.2, 0.7]), 1e-3
    # Each part comes back to third order; parts in another order on the way back would be off by one of second.
    assert np.abs(flow(flow(u, dt), -dt) - u).max() < 1e-8


STRETCH = jax.jit(lambda rate, time: VelocityGradientForce.gyrotropic(rate, ALONG).flow(Vector(*jnp.ones(3)), time))


@given(st.floats(-2, 2), st.floats(-3, 3))
def test_shear_keeps_volumes_and_parallel_times_perpendicular_squared(rate, time):
    u = jax.tree.map(float, STRETCH(rate, time))
    assert abs(u.x * u.y * u.z - 1) < 2e-5
    assert np.isclose(u.x, np.exp(2 * rate * time / 3), rtol=2e-5)
    assert np.isclose(u.y, np.exp(-rate * time / 3), rtol=2e-5)


def test_shear_map_has_determinant_one_for_any_strain():
    raw = np.array([[0.3, -0.1, 0.2], [0.0, -0.5, 0.4], [0.1, 0.2, 0.6]])
    strain = (raw + raw.T) / 2 - np.trace(raw) / 3 * np.eye(3)
    # All three columns at once, by components.
    matrix = np.stack(jax.jit(lambda rows: VelocityGradientForce(strain).flow(Vector(*rows), 1.7))(np.eye(3)))
    assert abs(np.linalg.det(matrix) - 1) < 1e-5


def test_anisotropy_grows_as_the_affine_map_says():
    """T_∥ T_⊥² stays, Δ ≈ -2 σ t."""

    @jax.jit
    def before_and_after(key):
        u = maxwellian(key, 1e-4, 20_000)
        both = moments(u, ALONG), moments(VelocityGradientForce.gyrotropic(0.1, ALONG).flow(u, 0.5), ALONG)
        return both, [one.anisotropy for one in both]

    (before, after), anisotropies = jax.tree.map(np.asarray, before_and_after(jax.random.key(0)))

    def product(m):
        return m.parallel_pressure * m.perpendicular_pressure**2

    assert np.isclose(product(after), product(before), rtol=1e-4)
    assert np.isclose(after.parallel_pressure / before.parallel_pressure, np.exp(4 * 0.05 / 3), rtol=1e-4)
    assert np.isclose(anisotropies[1] - anisotropies[0], -2 * 0.05, rtol=0.03)


def test_energy_comes_in_at_the_rate_of_the_heat_flux():
    """d⟨γ-1⟩/dt = q/L (with zero drift), whatever the offset."""

    @jax.jit
    def rates(key):
        u = maxwellian(key, 0.1, 2_000)
        drifting, found = Vector(u.x + 0.1, u.y, u.z), []
        for offset in (0.1, "paper", "exact"):
            force = TemperatureGradientForce(5.0, ALONG, 0.1, offset)
            slope = jax.jvp(lambda dt, force=force: kinetic_energy(force.flow(drifting, dt)).mean(), (0.0,), (1.0,))[1]
            found.append((slope, force.offset))
        return moments(drifting, ALONG), found

    now, found = rates(jax.random.key(0))
    for rate, offset in found:
        assert np.isclose(rate, (float(now.heat_flux) - float(offset) * float(now.drift)) / 5.0, rtol=1e-4)


def test_no_force_in_the_limit():
    u = np.random.default_rng(0).normal(size=(3, 100)).astype(np.float32)
    for force in (TemperatureGradientForce(np.inf, OBLIQUE, 0.1), VelocityGradientForce(np.zeros((3, 3)))):
        assert np.array_equal(jax.jit(lambda u, force=force: force.flow(Vector(*u), 0.7))(u), u)


def test_loads_have_their_moments_and_no_drift():
    @functools.partial(jax.jit, static_argnums=0)
    def seen(draw, key):
        u = draw(key, 0.3, 100_000)
        return u, lorentz_factor(u), kinetic_energy(u)

    for draw, energy in ((maxwellian, None), (maxwell_juttner, float(mean_energy(0.3)))):
        u, gamma, energies = jax.tree.map(np.asarray, seen(draw, jax.random.key(3)))
        assert all(abs(part.mean()) < 1e-6 for part in u)
        assert max(abs((a * b).mean() / (a * a).mean()) for a, b in ((u.x, u.y), (u.y, u.z), (u.z, u.x))) < 0.02
        if energy is None:
            assert np.isclose((u.y**2).mean(), 0.3, rtol=0.02)
        else:
            assert np.isclose(energies.mean(), energy, rtol=0.01)
            # Pressure is n T in the relativistic gas too: a temperature read from u² alone is not.
            assert np.isclose((u.y**2 / gamma).mean(), 0.3, rtol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemperatureGradientForce(0.0, ALONG, 0.1), "length must not be 0"),
        (lambda: TemperatureGradientForce(1.0, (1.0, 1.0, 0.0), 0.1), "direction must be three components of a unit vector"),
        (lambda: TemperatureGradientForce(1.0, ALONG, 0.0), "theta must be positive"),
        (lambda: TemperatureGradientForce(1.0, ALONG, 0.1, "mean"), "offset must be 'paper', 'exact' or a number, got 'mean'"),
        (lambda: VelocityGradientForce(np.eye(3)), "strain must be traceless .* got a trace of 3"),
        (lambda: VelocityGradientForce([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), "strain must be symmetric"),
        (lambda: VelocityGradientForce(np.zeros((2, 2))), r"strain must have shape \(3, 3\), got \(2, 2\)"),
        (lambda: VelocityGradientForce.gyrotropic(0.1, (0.0, 0.0, 0.0)), "unit vector"),
        (SumForce, "forces must be at least one"),
        (lambda: maxwellian(jax.random.key(0), -1.0, 2), "theta must be positive"),
        (lambda: maxwell_juttner(jax.random.key(0), 0.1, 3), "n must be a positive even number"),
    ],
)
def test_bad_forces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
