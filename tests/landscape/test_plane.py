import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.landscape import plane_slice, plane_through


@jax.jit
def seen(points):
    plane = plane_through(*points)
    coordinates = jnp.stack([plane.coordinates(point) for point in points])
    back = plane.at(coordinates[2, 0], coordinates[2, 1])
    return coordinates, jnp.sqrt(sum(jnp.sum((back[k] - points[2][k]) ** 2) for k in back))


@given(st.integers(0, 2**32 - 1))
def test_distances_in_the_plane_are_those_between_the_parameters(seed):
    flat = np.random.default_rng(seed).normal(size=(3, 7))
    with jax.enable_x64(True):
        points = [{"w": jnp.asarray(x[:6].reshape(2, 3)), "b": jnp.asarray(x[6])} for x in flat]
        coordinates, rest = jax.device_get(seen(points))
    for i in range(3):
        for j in range(i):
            assert np.isclose(np.linalg.norm(flat[i] - flat[j]), np.linalg.norm(coordinates[i] - coordinates[j]), atol=1e-9)
    assert rest < 1e-9 and np.allclose(coordinates[0], 0) and abs(coordinates[1, 1]) < 1e-9 and coordinates[2, 1] > 0


def test_the_slice_is_the_loss_at_its_points():
    plane = plane_through(jnp.zeros(3), jnp.array([2.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0]))
    x, y = jnp.array([0.0, 0.5, 1.0]), jnp.array([-1.0, 1.0])
    values = plane_slice(lambda w: w[0] ** 2 + 10 * w[1] + 100 * w[2], plane, x, y)
    assert np.allclose(values, x[:, None] ** 2 + 10 * jnp.broadcast_to(y, (3, 2)))


def test_networks_with_leaves_that_are_no_arrays():
    a, b, c = (eqx.nn.MLP(2, 1, 3, 1, activation=jnp.tanh, key=jax.random.key(i)) for i in range(3))
    plane = plane_through(a, b, c)
    x, y = plane.coordinates(c)
    back = plane.at(x, y)
    assert back.activation is a.activation
    far = jax.tree.map(lambda one, other: float(abs(one - other).max()), eqx.filter(back, eqx.is_array), eqx.filter(c, eqx.is_array))
    assert max(jax.tree.leaves(far)) < 1e-5
    values = plane_slice(lambda net: net(jnp.ones(2))[0], plane, x[None], y[None])
    assert np.allclose(values, c(jnp.ones(2)), atol=1e-5)


def test_points_on_one_line_are_refused():
    with pytest.raises(ValueError, match="three points that are not on one line"):
        plane_through(jnp.zeros(2), jnp.ones(2), 3 * jnp.ones(2))
    with pytest.raises(ValueError, match="three points that are not on one line"):
        plane_through(jnp.ones(2), jnp.ones(2), jnp.zeros(2))


def test_axes_are_at_right_angles_in_single_precision_for_points_nearly_on_one_line():
    random = np.random.default_rng(0)
    along, aside = random.normal(size=(2, 50))
    points = (np.float32(x) for x in (np.zeros(50), along, 0.7 * along + 1e-4 * aside))
    plane = plane_through(*map(jnp.asarray, points))
    assert abs(np.asarray(plane.first, float) @ np.asarray(plane.second, float)) < 1e-6
