import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.physics.phase_field import (
    Scales,
    centre_of_mass,
    elongation,
    heat_of_transport_from_profile,
    indicator,
    interface_positions,
    label_particles,
    soret_steady_state,
)

pytestmark = pytest.mark.usefixtures("double")
X = np.arange(64) + 0.5
positions = jax.jit(interface_positions)


def slab(left, right, tanh=np.tanh):
    return (tanh((X - left) / 2.5) - tanh((X - right) / 2.5)) / 2


def discs(centres, shape=(64, 48)):
    x, y = np.arange(shape[0]) + 0.5, np.arange(shape[1]) + 0.5
    field = np.zeros(shape)
    for cx, cy, radius in centres:
        dy = (y - cy + shape[1] / 2) % shape[1] - shape[1] / 2
        field += (1 - np.tanh((np.hypot((x - cx)[:, None], dy) - radius) / 2.5)) / 2
    return field


@jax.jit
def area(phases):
    return indicator(phases).sum((1, 2))


@pytest.mark.parametrize("shift", [0.0, 0.13, 0.5, 0.87])
def test_interfaces_are_found_within_a_cell(shift):
    found = positions(slab(20 + shift, 44 - shift), X)
    assert np.allclose(found, [20 + shift, 44 - shift], atol=1e-4)


@pytest.mark.parametrize("phase", [np.zeros(64), np.ones(64), np.full(64, 0.3)], ids=["none", "all", "below"])
def test_a_lost_slab_is_nan(phase):
    assert np.isnan(positions(phase, X)).all()


def test_a_slab_at_the_wall_has_lost_that_interface():
    found = np.asarray(positions(slab(-20.0, 30.0), X))
    assert np.isnan(found[0]) and np.isclose(found[1], 30, atol=1e-4)


def test_position_has_a_gradient():
    first = lambda left: interface_positions(slab(left, 44.0, jnp.tanh), jnp.asarray(X))[0]  # noqa: E731
    assert np.isclose(jax.jit(jax.grad(first))(20.3), 1, atol=1e-2)


def test_area_is_an_integral_not_a_count():
    areas = np.asarray(area(np.stack([discs([(32 + s, 24, 10.0)]) for s in np.linspace(0, 1, 9)])))
    assert np.ptp(areas) < 1e-3 * areas.mean() and np.allclose(areas, np.pi * 100, rtol=0.02)


def test_area_leaves_out_a_supersaturated_matrix():
    assert area(np.full((1, 64, 64), 0.02))[0] < 1


def test_particles_are_joined_across_the_periodic_edge():
    found = label_particles(discs([(16, 0.5, 7.0), (46, 24, 9.0)]))
    order = np.argsort(found.centroids[:, 0])
    assert np.allclose(found.areas[order], np.pi * np.array([49, 81]), rtol=0.03)
    assert np.allclose(found.centroids[order, 0], [16, 46], atol=0.05)
    assert np.allclose((found.centroids[order, 1] - [0.5, 24] + 24) % 48 - 24, 0, atol=0.05)


def test_lengths_are_counted_in_cells_and_specks_are_left_out():
    phase = np.zeros((12, 8))
    phase[1:4, 2:4] = phase[7:9, 5:8] = phase[10, 0:3] = 1
    cells, lengths = label_particles(phase), label_particles(phase, dx=0.5)
    assert np.allclose(cells.areas, [6, 6 + 3]) or np.allclose(cells.areas, [6, 6])
    assert np.allclose(lengths.areas, cells.areas / 4) and np.allclose(lengths.centroids, cells.centroids / 2)
    assert cells.labels.max() == 2 and label_particles(phase, at_least=3).labels.max() == 3


def test_what_spreads_across_the_periodic_edge_goes_to_the_particle_on_its_other_side():
    phase = np.zeros((9, 8))
    phase[2:6, [0, 4]], phase[2:6, 7] = 1, 0.4
    tail = float(indicator(jnp.asarray(0.4)))
    assert np.allclose(label_particles(phase).areas, [4 + 4 * tail, 4])


def test_a_particle_that_meets_the_edge_more_than_once_is_one():
    phase = np.zeros((9, 8))
    phase[1:8, -1] = phase[1:3, :2] = phase[5:7, :2] = 1
    found = label_particles(phase)
    assert np.allclose(found.areas, [7 + 4 + 4]) and found.labels.max() == 1


def test_no_particles():
    assert label_particles(np.zeros((8, 8))).areas.size == 0


def test_centre_of_mass_of_a_disc():
    found = jax.jit(lambda phase, x: centre_of_mass(indicator(phase), x))(discs([(20, 10, 8.0)]), X)
    assert np.isclose(found, 20, atol=1e-3)


def test_elongation():
    ratio = jax.jit(elongation)
    assert np.isclose(ratio(discs([(32, 24, 10.0)])), 1, atol=1e-3)
    x, y = X[:, None], np.arange(48) + 0.5
    stretched = (1 - np.tanh((np.hypot((x - 32) / 1.5, y - 24) - 8) / 2)) / 2
    assert np.isclose(ratio(stretched), 1.5, rtol=0.02)


def test_heat_of_transport_comes_back_from_its_profile():
    T = np.linspace(973.0, 1073.0, 64)
    back = jax.jit(lambda T, mean: heat_of_transport_from_profile(soret_steady_state(T, -100e3, mean), T))
    for mean in (1e-6, 0.3):
        assert np.isclose(back(T, mean), -100e3, rtol=1e-9)


def test_a_unit_of_energy_holds_its_share_of_the_gas_constant():
    scales = Scales(length=2e-9, diffusivity=1e-16, model_diffusivity=1.28, temperature=1100.0, thermal_energy=0.3)
    assert np.isclose(scales.heat_of_transport(8.31446261815324 * 1100.0), 0.3, rtol=1e-12)
    # A temperature that rises by T₀ over a unit of length.
    assert np.isclose(scales.gradient(1.0) * 2e-9, 1100.0)


def test_scales_are_one_diffusivity():
    scales = Scales(length=1e-9, diffusivity=1e-16, model_diffusivity=1.28, temperature=1000.0)
    assert np.isclose(scales.length**2 / scales.time * 1.28, 1e-16)
    assert np.isclose(scales.velocity, 1e-9 / scales.time)
    with pytest.raises(ValueError, match="diffusivity must be positive, got 0"):
        Scales(length=1e-9, diffusivity=0.0, model_diffusivity=1.28, temperature=1000.0)


@pytest.mark.parametrize("rows", [[0, 1, -1], [0], [-1, 0], [3, 4]])
def test_centroids_across_the_edge_lie_in_the_box(rows):
    phase = np.zeros((9, 8))
    phase[2:6, rows] = 1
    ((x, y),) = label_particles(phase, at_least=1).centroids
    assert x == 4.0 and 0 <= y < 8
    expected = (np.angle(np.exp(2j * np.pi * np.array(rows) / 8).sum()) * 8 / (2 * np.pi) + 0.5) % 8
    assert min(abs(y - expected), 8 - abs(y - expected)) < 1e-9
