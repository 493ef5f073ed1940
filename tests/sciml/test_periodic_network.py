import math

import equinox as eqx
import jax
import numpy as np
import pytest

from gradatim.sciml import PeriodicNetwork


@pytest.fixture(scope="module")
def network():
    with jax.enable_x64(True):
        return PeriodicNetwork(6, 2, period=3.0, key=jax.random.key(1))


def test_derivatives_are_those_of_nested_differentiation(network, double):
    def at(x, t):
        return network(x[None], t[None])[0]

    @jax.jit
    def both(x, t):
        by_x = jax.grad(at)
        nested = jax.vmap(lambda x, t: (at(x, t), jax.grad(at, 1)(x, t), by_x(x, t), jax.jvp(lambda x: by_x(x, t), (x,), (1.0,))[1]))
        return network.jet(x, t), nested(x, t)

    carried, nested = both(np.linspace(-1, 4, 5), np.linspace(0, 1, 5))
    assert all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(carried, nested, strict=True))


def test_one_period_on_everything_is_the_same(network, double):
    x, t = jax.device_put(np.linspace(0, 3, 4)), jax.device_put(np.full(4, 0.7))
    here, there = eqx.filter_jit(lambda network: (network.jet(x, t), network.jet(x + 3.0, t)))(network)
    assert all(np.allclose(a, b, atol=1e-12) for a, b in zip(here, there, strict=True))


def test_a_last_gain_of_zero_begins_as_zero():
    assert not PeriodicNetwork(4, 1, period=1.0, last_gain=0.0, key=jax.random.key(0)).weights[-1].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 1.0), "width must be at least 1, got 0"),
        ((1, 0, 1.0), "depth must be at least 1, got 0"),
        ((1, 1, math.inf), "period must be positive and finite, got inf"),
    ],
)
def test_shapes_that_cannot_be_are_refused(arguments, message):
    width, depth, period = arguments
    with pytest.raises(ValueError, match=message):
        PeriodicNetwork(width, depth, period=period, key=jax.random.key(0))


def test_first_weights_lie_within_one_over_the_root_of_their_inputs():
    network = PeriodicNetwork(64, 2, period=1.0, last_gain=0.5, key=jax.random.key(0))
    for weight, bias, gain in zip(network.weights, network.biases, (1, 1, 0.5), strict=True):
        bound = gain / np.sqrt(weight.shape[1])
        assert 0.9 * bound < np.abs(weight).max() <= bound and np.abs(bias).max() <= bound
