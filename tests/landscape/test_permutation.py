from itertools import pairwise, permutations
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.landscape import barrier, match_permutation

SHALLOW, DEEP = (5, 8, 3), (5, 8, 6, 3)


class Layer(eqx.Module):
    weight: Any
    bias: Any


class Net(eqx.Module):
    layers: list[Layer]

    def __call__(self, x):
        for number, layer in enumerate(self.layers):
            x = x @ layer.weight.T + (0 if layer.bias is None else layer.bias[None])
            x = jnp.tanh(x) if number + 1 < len(self.layers) else x
        return x


def network(random, sizes, *, bias=True):
    return Net([Layer(random.normal(size=(n, m)), random.normal(size=n) if bias else None) for m, n in pairwise(sizes)])


def shuffled(net, random):
    """The same function with its hidden units in another order, and that order."""
    orders = [random.permutation(len(layer.weight)) for layer in net.layers[:-1]]
    before = [np.arange(net.layers[0].weight.shape[1]), *orders]
    after = [*orders, np.arange(len(net.layers[-1].weight))]
    layers = [
        Layer(layer.weight[after[i]][:, before[i]], None if layer.bias is None else layer.bias[after[i]])
        for i, layer in enumerate(net.layers)
    ]
    return Net(layers), orders


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_o_a_permutation_that_keeps_the_function_is_found_again(seed, bias):
    random = np.random.default_rng(seed)
    net = network(random, SHALLOW, bias=bias)
    other, (order,) = shuffled(net, random)
    found = match_permutation(net, other)
    assert (order[found.permutations[0]] == np.arange(len(order))).all()
    for ours, theirs in zip(jax.tree.leaves(found.model), jax.tree.leaves(net), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.fixture(scope="module")
def heights():
    random = np.random.default_rng(0)
    net, far = network(random, DEEP), network(random, DEEP)
    other, _ = shuffled(net, random)
    inputs = random.normal(size=(20, DEEP[0]))
    near = match_permutation(net, far)
    with jax.enable_x64(True):

        @jax.jit
        def measure(a, b):
            target = a(inputs)
            return barrier(lambda net: jnp.mean((net(inputs) - target) ** 2), a, b).height, b(inputs)

        ends = {"exchanged": other, "matched": match_permutation(net, other).model, "far": far, "near": near.model}
        found = {name: measure(*(jax.tree.map(jnp.asarray, tree) for tree in (net, end))) for name, end in ends.items()}
        return jax.device_get(found), near


def test_o_matched_units_have_no_barrier_although_exchanged_ones_do(heights):
    found, _ = heights
    assert found["exchanged"][0] > 0.1 and found["matched"][0] <= 1e-12
    assert np.allclose(found["exchanged"][1], found["matched"][1])


def test_matching_keeps_the_function_of_any_network(heights):
    found, near = heights
    assert np.allclose(found["far"][1], found["near"][1]) and near.sweeps < 20


def test_bad_input():
    net = Net([Layer(np.ones((2, 3)), None), Layer(np.ones((1, 2)), None)])
    with pytest.raises(ValueError, match="max_sweeps must be at least 1, got 0"):
        match_permutation(net, net, max_sweeps=0)
    with pytest.raises(ValueError, match="two at least, got 1 and 1"):
        match_permutation(Net(net.layers[:1]), Net(net.layers[:1]))
    with pytest.raises(ValueError, match=r"layer 0 of reference and model must have the same shapes, got \(2, 3\) and \(2, 4\)"):
        match_permutation(net, Net([Layer(np.ones((2, 4)), None), net.layers[1]]))
    bad = Net([net.layers[0], Layer(np.ones((1, 5)), None)])
    with pytest.raises(ValueError, match="layer 1 must take the 2 units of the one before, got 5 inputs"):
        match_permutation(bad, bad)


@pytest.mark.parametrize("bias", [True, False])
def test_o_one_hidden_layer_is_matched_as_well_as_can_be(bias):
    for seed in range(5):
        random = np.random.default_rng(seed)
        net, far = network(random, (2, 5, 2), bias=bias), network(random, (2, 5, 2), bias=bias)
        (ours, _), (theirs, following) = ((one.layers[0], one.layers[1]) for one in (net, far))

        def gain(order, net=net, ours=ours, theirs=theirs, following=following):
            order = list(order)
            found = np.sum(ours.weight * theirs.weight[order]) + np.sum(net.layers[1].weight * following.weight[:, order])
            return found + (ours.bias @ theirs.bias[order] if bias else 0)

        assert tuple(match_permutation(net, far).permutations[0]) == max(permutations(range(5)), key=gain)


def test_sweeps_end_at_their_limit_or_with_one_that_changed_nothing():
    random = np.random.default_rng(0)
    net, far = network(random, DEEP), network(random, DEEP)
    enough, one = match_permutation(net, far), match_permutation(net, far, max_sweeps=1)
    assert enough.sweeps > 1 and one.sweeps == 1
    again = match_permutation(net, enough.model)
    assert again.sweeps == 1 and all((order == np.arange(len(order))).all() for order in again.permutations)
