"""The numbers are those of u₀ = sin x, ν = 0.01, at t = 1 where no other time is named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics import PeriodicGrid
from gradatim.sciml import reference_burgers, reference_convection_diffusion, snapshot_width

NU, N = 0.01, 512
X = 2 * np.pi * np.arange(N) / N
carried = jax.jit(reference_convection_diffusion)
LABELS = 2 * np.pi * np.arange(16) / 16


@pytest.fixture(scope="module")
def solve():
    with jax.enable_x64(True):
        return jax.jit(lambda mean: reference_burgers(jnp.sin(X) + mean, jnp.asarray(LABELS), diffusivity=NU, horizon=1.0))


@pytest.fixture(scope="module")
def resting(solve):
    with jax.enable_x64(True):
        return jax.device_get(solve(0.0))


def test_viscous_burgers_at_its_known_values(resting):
    last = resting.field[-1]
    slope = np.fft.irfft(1j * np.arange(N // 2 + 1) * np.fft.rfft(last))
    waves = np.fft.rfft(last) / N

    def at(x):
        return (waves[0] + 2 * waves[1:] @ np.exp(1j * np.arange(1, N // 2 + 1) * x)).real

    found = [last.max(), abs(slope).max(), (last**2).mean(), at(np.pi / 2), at(3 * np.pi / 4), at(0.9 * np.pi)]
    assert np.allclose(found, [0.98999, 10.89, 0.484897, 0.736430, 0.973970, 0.93451], rtol=5e-4)
    # Far from the front all printed digits are those of the known values.
    assert np.allclose([found[0], *found[2:5]], [0.98999, 0.484897, 0.736430, 0.973970], rtol=0, atol=9e-6)


def test_characteristics_of_the_true_field(resting):
    assert np.isclose(resting.paths[-1, 4], 2.565780, rtol=2e-6)
    # The least lies at ξ = π, the greatest at 0.
    assert np.isclose(resting.jacobian[-1].min(), 0.0546, rtol=2e-3) and np.isclose(resting.jacobian[-1].max(), 1.997, rtol=3e-4)
    # Before the front the displacement has few waves in the label, and its spectral derivative is the other way to ∂X/∂ξ.
    displacement = resting.paths[40] - LABELS
    spectral = 1 + np.fft.irfft(1j * np.arange(9) * np.fft.rfft(displacement))
    assert np.allclose(spectral, resting.jacobian[40], atol=1e-3)


def test_a_mean_only_carries_the_solution_along(solve, resting, double):
    moving = jax.device_get(solve(10.0))
    waves = np.fft.rfft(resting.field, axis=1) * np.exp(-10j * np.arange(N // 2 + 1) * resting.t[:, None])
    assert np.abs(moving.field - 10 - np.fft.irfft(waves, axis=1)).max() < 2e-8
    assert np.allclose(moving.paths, resting.paths + 10 * resting.t[:, None], atol=1e-9)
    assert np.allclose(moving.jacobian, resting.jacobian, atol=1e-9)


def test_mass_stays_and_energy_goes_where_it_is_dissipated(resting):
    assert np.abs(resting.field.mean(axis=1)).max() < 1e-14
    energy = (resting.field**2).mean(axis=1) / 2
    slope = np.fft.irfft(1j * np.arange(N // 2 + 1) * np.fft.rfft(resting.field, axis=1), axis=1)
    loss = NU * (slope**2).mean(axis=1)
    # Simpson's rule between snapshots two apart.
    gone = (loss[:-2:2] + 4 * loss[1::2] + loss[2::2]) * (resting.t[2] - resting.t[0]) / 6
    assert np.allclose(energy[:-2:2] - energy[2::2], gone, rtol=1e-5)


def burgers_fields(resting, mean):
    waves = np.fft.rfft(resting.field, axis=1) * np.exp(-1j * mean * np.arange(N // 2 + 1) * resting.t[:, None])
    return np.fft.irfft(waves, axis=1).T


@pytest.fixture(scope="module")
def modes():
    with jax.enable_x64(True):
        found = jax.jit(lambda snapshots, tolerances: jax.vmap(snapshot_width(snapshots).modes)(tolerances))
        yield lambda snapshots: found(jax.device_put(snapshots), jnp.array([1e-1, 1e-2, 1e-3])).tolist()


@pytest.mark.parametrize(("mean", "known"), [(0, [2, 3, 5]), (1, [2, 5, 9]), (10, [6, 19, 34]), (30, [6, 19, 35]), (50, [6, 22, 36])])
def test_modes_of_burgers_by_speed(resting, modes, double, mean, known):
    assert modes(burgers_fields(resting, mean)) == known


@pytest.mark.parametrize(("speed", "known"), [(0, [1, 1, 1]), (1, [2, 3, 4]), (10, [5, 7, 9]), (50, [5, 7, 9])])
def test_modes_of_a_gaussian_that_is_carried_along(modes, double, speed, known):
    x, t = 2 * np.pi * np.arange(N) / N, np.linspace(0, 1, 101)
    offset = (x[:, None] - speed * t[None, :]) % (2 * np.pi) - np.pi
    assert modes(np.exp(-(offset**2) / (2 * (np.pi / 4) ** 2))) == known


@pytest.mark.parametrize("speed", [1, 10, 50])
def test_a_sine_that_is_carried_along_has_two_modes_at_any_speed(modes, double, speed):
    field = carried(np.sin(X), np.linspace(0, 1, 101), speed=float(speed), diffusivity=NU)
    assert modes(np.asarray(field).T) == [2, 2, 2]


def test_convection_diffusion_is_a_sine_that_dies_out(double):
    t = jnp.array([0.0, 0.3, 1.0])
    field = reference_convection_diffusion(jnp.sin(X), t, speed=30.0, diffusivity=NU)
    assert np.allclose(field, np.exp(-NU * t)[:, None] * np.sin(X[None] - 30 * t[:, None]), atol=1e-13)


def test_the_reference_conserves_the_mean_of_any_profile(double):
    profile = np.exp(np.cos(X[::8]))
    field = np.asarray(carried(profile, np.linspace(0, 1, 3), speed=7.0, diffusivity=0.1))
    assert np.allclose(field.mean(axis=1), profile.mean(), rtol=1e-14) and PeriodicGrid((64,), 2 * np.pi).n_cells == profile.size


@pytest.mark.parametrize("settings", [{"n_snapshots": 0}, {"steps_between": 0}])
def test_counts_below_one_are_refused(settings):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        reference_burgers(jnp.ones(8), jnp.ones(1), diffusivity=0.1, horizon=1.0, **settings)


def test_another_period_is_another_unit_of_length(double):
    x, labels, scale = X[::8], LABELS[:3], 3.0
    small = {"horizon": 0.5, "n_snapshots": 2, "steps_between": 20}

    @jax.jit
    def both(profile):
        units = [
            reference_burgers(profile, jnp.asarray(labels), diffusivity=0.1, **small),
            reference_burgers(scale * profile, scale * jnp.asarray(labels), diffusivity=scale**2 * 0.1, period=scale * 2 * np.pi, **small),
        ]
        return units, reference_convection_diffusion(profile, jnp.array([0.5]), speed=6.0, diffusivity=0.9, period=scale * 2 * np.pi)

    (one, other), field = both(jnp.sin(x) + 0.3)
    np.testing.assert_allclose(other.field, scale * one.field, atol=1e-11)
    np.testing.assert_allclose(other.paths, scale * one.paths, atol=1e-11)
    np.testing.assert_allclose(other.jacobian, one.jacobian, atol=1e-11)
    np.testing.assert_allclose(field[0], 0.3 + np.exp(-0.05) * np.sin(x - 1.0), atol=1e-12)
