import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.landscape import barrier, cumulative_lines, interpolate_layers, layers_by_module, layerwise_lines
from gradatim.nets import layer_indices

ROUND_OFF = 1e-12


@pytest.fixture(scope="module")
def linear_net():
    """A deep linear network with squared loss: from a solution to random weights, and to the opposite solution."""
    random = np.random.default_rng(0)
    a, b = ([random.normal(size=size) for size in ((4, 5), (5, 2))] for _ in range(2))
    inputs = random.normal(size=(30, 4))
    targets = inputs @ a[0] @ a[1]

    def loss(weights):
        outputs = inputs
        for weight in weights:
            outputs = outputs @ weight
        return jnp.mean((outputs - targets) ** 2)

    @jax.jit
    def measure(a, b):
        return {
            "single": layerwise_lines(loss, a, b),
            "grown": cumulative_lines(loss, a, b),
            "from_output": cumulative_lines(loss, a, b, order=(2, 1)),
            "whole": barrier(loss, a, b, n_refinements=0).height,
            "back": layerwise_lines(loss, b, a),
            "ends": jnp.stack([loss(a), loss(b), loss([a[0], b[1]]), loss([b[0], a[1]])]),
        }

    with jax.enable_x64(True):
        return tuple(measure(*jax.tree.map(jnp.asarray, (a, end))) for end in (b, [-w for w in a]))


def test_o_deep_linear_net_has_no_barrier_in_any_layer(linear_net, double):
    for found in linear_net:
        assert found["single"].barriers.shape == (2, 2) and np.abs(found["single"].barriers).max() <= ROUND_OFF
    assert linear_net[1]["whole"] > 0.01


def test_lines_start_at_the_network_that_holds_the_rest(linear_net, double):
    found = linear_net[0]
    a, b, ab, ba = found["ends"]
    # Layer 1 into a: from (a₁, a₂) to (b₁, a₂); into b: from (b₁, b₂) to (a₁, b₂).
    loss = found["single"].loss
    assert np.allclose(loss[0, :, 0], [a, b]) and np.allclose(loss[0, :, -1], [ba, ab])
    assert np.allclose(loss[1, :, 0], [a, b]) and np.allclose(loss[1, :, -1], [ab, ba])


def test_exchanging_the_networks_exchanges_the_defaults(linear_net, double):
    assert np.allclose(linear_net[0]["back"].loss, linear_net[0]["single"].loss[:, ::-1])


def test_a_growing_set_ends_with_the_whole_network(linear_net, double):
    for found in linear_net:
        for name, first in (("grown", 0), ("from_output", 1)):
            assert np.allclose(found[name].barriers[-1], found["whole"]), name
            assert np.allclose(found[name].loss[0], found["single"].loss[first]), name
    # Between opposite networks either layer makes the same line; from a solution to random weights it does not.
    assert not np.allclose(linear_net[0]["single"].loss[0], linear_net[0]["single"].loss[1], rtol=1e-2)


@pytest.fixture(scope="module")
def exchanged():
    """Two hidden tanh units of which each weight is a layer: the toy whose ends differ by a permutation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()

    def loss(w):
        return jnp.sum(weights * (jnp.tanh(w[0] * nodes) + jnp.tanh(w[1] * nodes) - jnp.tanh(nodes) - jnp.tanh(3 * nodes)) ** 2) / 2

    with jax.enable_x64(True):
        a, b = [jnp.array(1.0), jnp.array(3.0)], [jnp.array(3.0), jnp.array(1.0)]
        return jax.jit(lambda a, b: (layerwise_lines(loss, a, b), barrier(loss, a, b)))(a, b)


def test_o_toy_2_barrier_of_two_exchanged_units(exchanged, double):
    _, found = exchanged
    assert abs(found.height - 0.0081288) <= 1e-7 and abs(found.at - 0.5) <= 1e-3
    assert abs(found.line.loss[5] - 0.0048383) <= 1e-7 and found.line.loss[0] <= ROUND_OFF


def test_t10_for_permuted_networks_one_layer_is_worse_than_all(exchanged, double):
    lines, found = exchanged
    assert np.allclose(lines.loss[..., -1], 0.0464360, atol=1e-7) and (lines.loss.max(axis=-1) > 5 * found.height).all()


def test_t8_the_two_defaults_give_two_answers():
    # A unit of the second layer that is saturated in one network and not in the other.
    def loss(w):
        return jnp.tanh(w[0] * w[1])

    lines = jax.jit(lambda a, b: layerwise_lines(loss, a, b))([jnp.array(0.0), jnp.array(2.0)], [jnp.array(2.0), jnp.array(0.1)])
    assert lines.barriers[0, 0] > 0.3 and lines.barriers[0, 1] < 0.01


def test_layers_are_modules_or_arrays_at_the_top_or_what_is_said():
    shapes = eqx.filter_eval_shape(eqx.nn.MLP, 4, 2, 8, 2, key=jax.random.key(0))
    filled = lambda value: jax.tree.map(  # noqa: E731
        lambda x: jax.device_put(np.full(x.shape, value, np.float32)) if isinstance(x, jax.ShapeDtypeStruct) else x, shapes
    )
    net = filled(0)
    layers = layers_by_module(net).layers
    assert [(layer.weight, layer.bias) for layer in layers] == [(1, 1), (2, 2), (3, 3)]
    assert layers_by_module({"a": jnp.ones(1), "b": (jnp.ones(1), jnp.ones(1)), "n": 3}) == {"a": 1, "b": (2, 2), "n": None}
    two = layer_indices(net, [net.layers[:2], net.layers[2]])
    moved = interpolate_layers(net, filled(1), jnp.array([0.25, 1.0]), layers=two)
    assert [float(np.asarray(layer.weight)[0, 0]) for layer in moved.layers] == [0.25, 0.25, 1.0]


def test_bad_input():
    a, b = [jnp.zeros(2), jnp.zeros(1)], [jnp.ones(2), jnp.ones(1)]

    def loss(w):
        return jnp.sum(w[0])

    with pytest.raises(ValueError, match=r"t must hold one number for each of the 2 layers, got shape \(3,\)"):
        interpolate_layers(a, b, jnp.zeros(3))
    with pytest.raises(ValueError, match="order must hold each of the layers 1 to 2 once, got"):
        cumulative_lines(loss, a, b, order=(1, 1))
    with pytest.raises(ValueError, match="n_points must be at least 3, got 2"):
        layerwise_lines(loss, a, b, n_points=2)
    with pytest.raises(ValueError, match=r"every floating-point array must be in a layer, \[1\] is in none"):
        layerwise_lines(loss, a, b, layers=[1, None])
    with pytest.raises(ValueError, match="same shapes"):
        layerwise_lines(loss, a, [jnp.ones(2), jnp.ones(2)])
