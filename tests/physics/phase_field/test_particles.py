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
X = jnp.arange(64) + 0.5


def slab(left, right):
    return (jnp.tanh((X - left) / 2.5) - jnp.tanh((X - right) / 2.5)) / 2


def discs(centres, shape=(64, 48)):
    x, y = jnp.arange(shape[0]) + 0.5, jnp.arange(shape[1]) + 0.5
    field = jnp.zeros(shape)
    for cx, cy, radius in centres:
        dy = (y - cy + shape[1] / 2) % shape[1] - shape[1] / 2
        field = field + (1 - jnp.tanh((jnp.hypot((x - cx)[:, None], dy[None, :]) - radius) / 2.5)) / 2
    return field


@pytest.mark.parametrize("shift", [0.0, 0.13, 0.5, 0.87])
def test_interfaces_are_found_within_a_cell(shift):
    found = jax.jit(interface_positions)(slab(20 + shift, 44 - shift), X)
    assert jnp.allclose(found, jnp.array([20 + shift, 44 - shift]), atol=1e-4)


@pytest.mark.parametrize("phase", [jnp.zeros(64), jnp.ones(64), jnp.full(64, 0.3)], ids=["none", "all", "below"])
def test_a_lost_slab_is_nan(phase):
    assert jnp.isnan(interface_positions(phase, X)).all()


def test_a_slab_at_the_wall_has_lost_that_interface():
    found = interface_positions(slab(-20.0, 30.0), X)
    assert jnp.isnan(found[0]) and jnp.allclose(found[1], 30, atol=1e-4)


def test_position_has_a_gradient():
    assert jnp.allclose(jax.grad(lambda left: interface_positions(slab(left, 44.0), X)[0])(20.3), 1, atol=1e-2)


def test_area_is_an_integral_not_a_count():
    areas = jnp.stack([indicator(discs([(32 + s, 24, 10.0)])).sum() for s in jnp.linspace(0, 1, 9)])
    assert jnp.ptp(areas) < 1e-3 * areas.mean() and jnp.allclose(areas, jnp.pi * 100, rtol=0.02)


def test_area_leaves_out_a_supersaturated_matrix():
    assert indicator(jnp.full((64, 64), 0.02)).sum() < 1


def test_particles_are_joined_across_the_periodic_edge():
    found = label_particles(discs([(16, 0.5, 7.0), (46, 24, 9.0)]))
    order = np.argsort(found.centroids[:, 0])
    assert np.allclose(found.areas[order], np.pi * np.array([49, 81]), rtol=0.03)
    assert np.allclose(found.centroids[order, 0], [16, 46], atol=0.05)
    assert np.allclose((found.centroids[order, 1] - [0.5, 24] + 24) % 48 - 24, 0, atol=0.05)


def test_no_particles():
    assert label_particles(np.zeros((8, 8))).areas.size == 0


def test_centre_of_mass_of_a_disc():
    assert jnp.allclose(centre_of_mass(indicator(discs([(20, 10, 8.0)])), X), 20, atol=1e-3)


def test_elongation():
    assert jnp.allclose(elongation(discs([(32, 24, 10.0)])), 1, atol=1e-3)
    x, y = X[:, None], (jnp.arange(48) + 0.5)[None, :]
    stretched = (1 - jnp.tanh((jnp.hypot((x - 32) / 1.5, y - 24) - 8) / 2)) / 2
    assert jnp.allclose(elongation(stretched), 1.5, rtol=0.02)


def test_heat_of_transport_comes_back_from_its_profile():
    T = jnp.linspace(973.0, 1073.0, 64)
    for mean in (1e-6, 0.3):
        assert jnp.allclose(heat_of_transport_from_profile(soret_steady_state(T, -100e3, mean), T), -100e3, rtol=1e-9)


def test_scales_are_one_diffusivity():
    scales = Scales(length=1e-9, diffusivity=1e-16, model_diffusivity=1.28, temperature=1000.0)
    assert np.isclose(scales.length**2 / scales.time * 1.28, 1e-16)
    assert np.isclose(scales.velocity, 1e-9 / scales.time)
    with pytest.raises(ValueError, match="diffusivity must be positive, got 0"):
        Scales(length=1e-9, diffusivity=0.0, model_diffusivity=1.28, temperature=1000.0)
