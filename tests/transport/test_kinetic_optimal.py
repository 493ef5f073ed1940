"""The oracles of least kinetic energy, in double precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.transport import (
    AbstractGaussianPath,
    Coefficients,
    CondOT,
    DataSeparation,
    Trigonometric,
    VariancePreserving,
    conditional_kinetic_energy,
    energy_lower_bound,
    kinetic_energy,
    kinetic_optimal_path,
    line_separation_gap,
    separation_area_bound,
    separation_of_gap,
)

NODES = 1024
GRID = 1e-5  # of the piecewise linear √γ at so many nodes: errors fall as the square
ROUND_OFF = 1e-12
FLOOR = 1e-3
LAST = 1 - 1e-3
FINE = {"n_points": 256}
QUADRATURE = 2e-6  # of a function with kinks at 1024 nodes


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


TWO = jnp.array([-1.0, 1.0])


@pytest.fixture(scope="module")
def separations():
    return {
        "gaussian": separation_of_gap(lambda s: 1 / (1 + s**2), n_nodes=NODES),
        "one": separation_of_gap(lambda s: 0 * s, n_nodes=NODES),
        "two points": separation_of_gap(lambda s: line_separation_gap(TWO.astype(s.dtype), s), n_nodes=NODES),
    }


class Bumped(AbstractGaussianPath):
    """A path whose radius and angle are moved by bumps that vanish at the ends."""

    path: AbstractGaussianPath
    radial: jax.Array
    turning: jax.Array

    def coefficients(self, t):
        def bump(t):
            sines = jnp.sin(jnp.pi * jnp.arange(1, 4) * t)
            return (1 + jnp.sum(self.radial * sines)) * jnp.exp(1j * jnp.sum(self.turning * sines))

        c = self.path.coefficients(t)
        # As m + i a, so that a turn is a factor.
        z, dz = c.m + 1j * c.a, c.dm + 1j * c.da
        value, slope = jax.vmap(lambda t: jax.jvp(bump, (t,), (jnp.ones_like(t),)))(t)
        moved, speed = value * z, value * dz + slope * z
        return Coefficients(moved.imag, moved.real, speed.imag, speed.real)


@eqx.filter_jit
def energies(separation):
    optimal = kinetic_optimal_path(separation, floor=FLOOR)
    t = jnp.linspace(0.0, 1.0, 101)
    c = optimal.coefficients(t)
    r = jnp.hypot(c.a, c.m)
    dr, turning = (c.a * c.da + c.m * c.dm) / r, (c.m * c.da - c.a * c.dm) / r**2
    # By the floored γ, of which the path is the optimum.
    gamma = DataSeparation(optimal.angles, optimal.speeds).gamma(jnp.arctan2(c.a, c.m))
    phi = optimal.arc[-1]
    return {
        "optimal": kinetic_energy(optimal, separation, **FINE),
        "straight": kinetic_energy(CondOT(), separation, **FINE),
        "trigonometric": kinetic_energy(Trigonometric(), separation, **FINE),
        "preserving": kinetic_energy(VariancePreserving(), separation, end=LAST, **FINE),
        "least": separation.least_energy,
        "arc": separation.total_arc,
        "area": separation.area,
        "coefficients": c,
        "integrand": dr**2 + r**2 * gamma * turning**2,
        "radius": r,
        "chord": jnp.abs(1 - t + t * jnp.exp(1j * phi)),
        "theorem": jnp.sqrt(1 - (2 - 2 * jnp.cos(phi)) * t * (1 - t)),
    }


@pytest.fixture(scope="module")
def found(separations):
    return {name: energies(separation) for name, separation in separations.items()}


def test_o1_gaussian_data_need_no_energy(found):
    one = found["gaussian"]
    assert abs(one["least"]) < ROUND_OFF and abs(one["arc"]) < 1e-8 and one["optimal"] < GRID
    assert abs(one["straight"] - (2 - np.pi / 2)) < 1e-9 and one["trigonometric"] < ROUND_OFF


def test_o2_separated_points_make_the_straight_path_optimal(found):
    one, t = found["one"], np.linspace(0, 1, 101)
    assert abs(one["arc"] - np.pi / 2) < ROUND_OFF and abs(one["least"] - 2) < ROUND_OFF
    for values, expected in zip(one["coefficients"], (t, 1 - t, np.ones(101), -np.ones(101)), strict=True):
        np.testing.assert_allclose(values, expected, atol=1e-8)
    assert abs(one["trigonometric"] - np.pi**2 / 4) < 1e-9
    # Up to the last 1e-3, where the energy grows without bound: ∫ β² / (4 (e^T - 1)) dτ.
    assert abs(one["preserving"] - 3.6507981) < 1e-4


def test_o3_two_points(found):
    ratios = jnp.array([0.25, 0.5, 1, 1.5, 2, 3])
    known = [0.0589460, 0.2040543, 0.5504005, 0.8027575, 0.9314026, 0.9958489]
    np.testing.assert_allclose(1 - line_separation_gap(TWO, ratios), known, atol=1e-7)
    one = found["two points"]
    assert abs(one["area"] - 1.0176017) < GRID
    assert abs(one["straight"] - 0.9823983) < GRID and abs(one["trigonometric"] - 0.8689562) < GRID
    # By adaptive quadrature of √γ.
    assert abs(one["arc"] - 0.6912644) < GRID and abs(one["least"] - (2 - 2 * np.cos(0.6912644))) < GRID
    # In one dimension the straight path is no optimum.
    assert one["optimal"] < one["trigonometric"] < one["straight"]


def test_o3_energies_follow_from_the_area(found):
    for one in found.values():
        assert abs(one["straight"] - (2 - one["area"])) < QUADRATURE
        assert abs(one["trigonometric"] - np.pi / 2 * (np.pi / 2 - one["area"])) < QUADRATURE


def test_o4_separation_of_two_points_scales_with_the_root_of_the_dimension():
    dim = 16
    separation = separation_of_gap(lambda s: line_separation_gap(TWO.astype(s.dtype), dim**0.5 * s), n_nodes=NODES)
    assert abs(separation.area - 1.0176017 / dim**0.5) < 3 * GRID
    assert separation.area < separation_area_bound(2, dim) == 1.5


def test_o5_sandwich(found):
    for name, one in found.items():
        rivals = [one["straight"], one["trigonometric"], one["preserving"]]
        assert one["least"] <= min(rivals) + ROUND_OFF, name
        assert all(energy <= bound for energy, bound in zip(rivals, (2 + ROUND_OFF, np.pi**2 / 4 + ROUND_OFF, 3.6509), strict=True))
    # Transport from N(0, 1) to two points, each half going to its own.
    assert 2 - 2 * np.sqrt(2 / np.pi) <= found["two points"]["least"]


def test_o6_constant_speed_along_a_chord(found):
    for name in ("one", "two points"):
        one = found[name]
        energy = one["integrand"][50]
        np.testing.assert_allclose(one["integrand"], energy, rtol=1e-9)
        assert abs(one["optimal"] - one["least"]) < 4 * FLOOR and abs(energy - one["least"]) < 4 * FLOOR
        np.testing.assert_allclose(one["radius"], one["chord"], atol=ROUND_OFF)
        np.testing.assert_allclose(one["radius"], one["theorem"], atol=ROUND_OFF)


@eqx.filter_jit
def bumped_energy(path, separation, radial, turning):
    return kinetic_energy(Bumped(path, radial, turning), separation, **FINE)


@settings(max_examples=10)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6), st.sampled_from([0.1, 0.05]))
def test_o8_no_bump_lowers_the_energy(separations, found, bumps, size):
    # The floored function, whose exact optimum this path is; a hundredth of the angle's range, so that it stays inside.
    path = kinetic_optimal_path(separations["two points"], floor=0.05)
    floored = DataSeparation(path.angles, path.speeds)
    radial, turning = (jnp.asarray(bumps[i : i + 3]) * size * scale for i, scale in ((0, 1.0), (3, 0.0)))
    once = bumped_energy(path, floored, radial, turning) - floored.least_energy
    half = bumped_energy(path, floored, radial / 2, turning) - floored.least_energy
    assert once >= -1e-5 and half >= -1e-5
    # Of second order: a quarter for half of the bump.
    assert abs(once - 4 * half) < 2e-5 + 0.5 * size * abs(once)


def test_o8_no_turn_lowers_the_energy(separations):
    path = kinetic_optimal_path(separations["one"])
    for size in (0.02, -0.02):
        turned = bumped_energy(path, separations["one"], jnp.zeros(3), size * jnp.array([0.0, 1.0, 0.0]))
        assert 2 < turned < 2.02


def test_theorem_4_2_and_its_condition():
    energy, bound = conditional_kinetic_energy(CondOT()), energy_lower_bound(CondOT(), 2, 10_000)
    assert abs(energy - 2) < ROUND_OFF and abs(bound - (2 - 6 * 2 / 100)) < ROUND_OFF
    assert bound < 2 - 1.0176017 / 100 < energy
    assert abs(conditional_kinetic_energy(Trigonometric()) - np.pi**2 / 4) < 1e-9
    falling = Bumped(Trigonometric(), jnp.zeros(3), jnp.array([0.0, 0.0, 0.5]))
    with pytest.raises(ValueError, match="path must have a rising ratio of signal to noise"):
        energy_lower_bound(falling, 2, 4)


def test_energies_of_two_stretches_of_time_add_up(separations):
    path = VariancePreserving()
    for energy, of in ((conditional_kinetic_energy, (path,)), (kinetic_energy, (path, separations["gaussian"]))):
        first, second, both = (energy(*of, start=a, end=b, **FINE) for a, b in ((0.0, 0.3), (0.3, 0.8), (0.0, 0.8)))
        assert abs(first + second - both) < GRID


def test_theorem_4_2_takes_the_largest_coefficient_squared():
    # |a′| is π/2 at the noise.
    np.testing.assert_allclose(energy_lower_bound(Trigonometric(), 2, 10_000), np.pi**2 / 4 * (1 - 6 * 2 / 100), rtol=1e-5)


def test_gradients_are_finite_at_the_noise(separations):
    two = separations["two points"]

    @jax.jit
    @jax.grad
    def rate(scale):
        return kinetic_optimal_path(DataSeparation(two.angles, two.root_gamma * scale)).coefficients(jnp.zeros(())).da

    assert np.isfinite(rate(0.9))


def test_bad_input_is_refused(separations):
    with pytest.raises(ValueError, match=r"floor must lie in \(0, 1\], got 0"):
        kinetic_optimal_path(separations["one"], floor=0)
    with pytest.raises(ValueError, match=r"times must obey 0 <= start < end <= 1, got 0\.5 and 0\.2"):
        kinetic_energy(CondOT(), separations["one"], start=0.5, end=0.2)
    with pytest.raises(ValueError, match="n_points must be at least 8, got 3"):
        conditional_kinetic_energy(CondOT(), n_points=3)
