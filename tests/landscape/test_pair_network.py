import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.landscape import accuracy, all_pairs, class_centred_loss, cyclic_group, pair_network, ridge_readout

ORDER, NODES = 5, 12


@pytest.fixture(scope="module")
def network():
    return pair_network(ORDER, NODES, key=jax.random.key(0))


def test_outputs_are_those_of_one_hot_inputs(network):
    table = all_pairs(cyclic_group(ORDER))
    pairs = np.asarray(table.pairs)
    X = np.concatenate([np.eye(ORDER)[pairs[:, 0]], np.eye(ORDER)[pairs[:, 1]]], axis=1)
    expected = (X @ np.asarray(network.first)) ** 2 @ np.asarray(network.readout)
    assert np.allclose(jax.jit(lambda network, pairs: network(pairs))(network, table.pairs), expected, atol=1e-6)


def test_weights_are_drawn_as_pytorch_draws_them(network):
    for weights, n in ((network.first, 2 * ORDER), (network.readout, NODES)):
        assert weights.dtype == jnp.float32 and np.abs(weights).max() <= 1 / math.sqrt(n)
        assert np.isclose(np.asarray(weights).std(), 1 / math.sqrt(3 * n), rtol=0.2)
    louder = pair_network(ORDER, NODES, key=jax.random.key(0), readout_scale=3.0)
    assert np.array_equal(louder.first, network.first) and np.allclose(louder.readout, 3 * network.readout)
    still = pair_network(ORDER, NODES, key=jax.random.key(0), readout_scale=0.0)
    assert np.array_equal(still.first, network.first) and not np.asarray(still.readout).any()


def test_t3_the_loss_centres_over_classes():
    random = np.random.default_rng(0)
    outputs, labels = random.normal(size=(7, 4)), random.integers(0, 4, 7)
    centred = outputs - outputs.mean(axis=1, keepdims=True)
    expected = np.sum((centred - (np.eye(4)[labels] - 1 / 4)) ** 2, axis=1)
    seen = np.arange(7) < 4
    loss = jax.jit(class_centred_loss)
    assert np.isclose(loss(outputs, labels), expected.mean(), rtol=1e-5)
    assert np.isclose(loss(outputs, labels, seen=seen), expected[:4].mean(), rtol=1e-5)
    shifted = loss(outputs + random.normal(size=(7, 1)), labels)
    assert np.isclose(shifted, expected.mean(), rtol=1e-5)


def test_accuracy_counts_what_is_seen():
    outputs, labels, of = np.array([[1.0, 0.0], [0.0, 1.0], [np.nan, 0.0], [2.0, 3.0]]), np.array([0, 0, 1, 1]), jax.jit(accuracy)
    assert of(outputs, labels) == 0.5
    assert of(outputs, labels, seen=np.array([True, False, False, True])) == 1
    # A read-out of zeros knows nothing: it says the first element to all.
    assert of(np.zeros((4, 2)), labels) == 0.5


@pytest.mark.parametrize("n", [7, 20], ids=["dual", "primal"])
def test_ridge_read_out_is_that_of_the_normal_equations_on_what_is_seen(n):
    random = np.random.default_rng(n)
    F, labels = random.normal(size=(n, NODES)), random.integers(0, ORDER, n)
    seen = np.arange(n) < n - 2
    with jax.enable_x64(True):
        V = ridge_readout(jax.device_put(F), jax.device_put(labels), ORDER, decay=0.3, seen=jax.device_put(seen))
    F, Y = F[seen], np.eye(ORDER)[labels[seen]] - 1 / ORDER
    assert np.allclose(V, np.linalg.solve(F.T @ F + 0.3 * np.eye(NODES), F.T @ Y), atol=1e-10)


def test_ridge_read_out_is_where_decay_in_the_gradient_pulls_the_trained_one():
    random = np.random.default_rng(3)
    F, labels, decay = random.normal(size=(20, NODES)), random.integers(0, ORDER, 20), 0.05
    with jax.enable_x64(True):
        V = np.asarray(ridge_readout(jnp.asarray(F), jnp.asarray(labels), ORDER, decay=decay * 20 / 2, seen=jnp.ones(20, bool)))
    # The gradient of mean |o - (e - 1/M)|², whose centring over the classes V needs no more.
    error = F @ V - F @ V.mean(axis=1, keepdims=True) - (np.eye(ORDER)[labels] - 1 / ORDER)
    assert np.abs(2 / 20 * F.T @ error + decay * V).max() < 1e-10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_network(0, 3, key=jax.random.key(0)), "order must be at least 1, got 0"),
        (lambda: pair_network(3, 0, key=jax.random.key(0)), "n_nodes must be at least 1, got 0"),
        (lambda: ridge_readout(jnp.eye(3), jnp.arange(3), 3, decay=0.0), "decay must be positive, got 0.0"),
        (lambda: ridge_readout(jnp.eye(3), jnp.arange(3), 3, decay=-1.0), "decay must be at least 0, got -1.0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_of_no_samples_both_means_are_zero_but_for_the_constant():
    outputs, labels, none = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0]), jnp.zeros(2, bool)
    assert accuracy(outputs, labels, seen=none) == 0
    assert np.isclose(class_centred_loss(outputs, labels, seen=none), 1 - 1 / 2)
