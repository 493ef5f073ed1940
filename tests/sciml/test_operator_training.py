import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jaxtyping import PyTree

from gradatim.sciml import AbstractOperator, DenseNetwork, fit_operator


class Bowl(AbstractOperator):
    """A narrow valley, which Adam alone does not get through: Rosenbrock's, shifted by the mean of the samples."""

    point: jax.Array

    def loss(self, samples: PyTree) -> jax.Array:
        x, y = self.point + jnp.mean(samples)
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    def networks(self) -> tuple[PyTree, ...]:
        return (self.point,)

    def renewed(self, key):
        return Bowl(jax.random.uniform(key, (2,), float, -1, 0))


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


SAMPLES = jnp.zeros(20)


def fitted():
    keys = jax.random.split(jax.random.key(0), 3)
    return fit_operator(Bowl(jnp.zeros(2)), SAMPLES, keys, adam_steps=30, lbfgs_steps=60, learning_rate=1e-2, memory=5)


@pytest.fixture(scope="module")
def fit():
    return fitted()


def test_the_second_part_ends_where_adam_does_not(fit):
    assert fit.parameters.shape == (3, 2) and fit.adam_loss.shape == (3, 30) and fit.lbfgs_loss.shape == (3, 60)
    np.testing.assert_allclose(fit.parameters, 1, atol=1e-6)
    assert np.abs(np.asarray(fit.after_adam) - 1).max(axis=1).min() > 0.5
    assert (fit.adam_loss[:, -1] < fit.adam_loss[:, 0]).all() and (fit.lbfgs_loss[:, 0] < fit.adam_loss[:, -1]).all()


def test_losses_are_those_of_the_parameters_and_searches_lower_them(fit):
    for row, loss in zip(fit.parameters, fit.lbfgs_loss, strict=True):
        model = Bowl(jnp.zeros(2)).with_parameters(row)
        np.testing.assert_allclose(model.loss(SAMPLES), loss[-1], atol=1e-15)
        assert (np.diff(loss)[np.asarray(loss[1:]) > 1e-20] <= 0).all()
    # Failing where nothing is left to gain is said.
    assert fit.is_search_failed.dtype == bool and not fit.is_search_failed[:, :10].any()


@pytest.mark.laptop
def test_keys_give_different_starts_and_the_same_ones_again(fit):
    assert np.unique(fit.after_adam[:, 0]).size == 3
    again = fitted()
    assert all(np.array_equal(one, other) for one, other in zip(fit, again, strict=True))


def test_steps_below_zero_are_refused():
    keys = jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="lbfgs_steps must be at least 0, got -1"):
        fit_operator(Bowl(jnp.zeros(2)), SAMPLES, keys, lbfgs_steps=-1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        fit_operator(Bowl(jnp.zeros(2)), SAMPLES, keys, lbfgs_steps=1, batch_size=0)


def test_a_network_is_drawn_within_its_bounds_and_computes_layers():
    x = np.array([0.1, -0.2, 0.3])

    @eqx.filter_jit
    def drawn(key):
        network = DenseNetwork(3, 2, width=5, depth=2, activation="tanh", key=key)
        return network, network(jnp.asarray(x))

    network, value = drawn(jax.random.key(0))
    bounds = [np.sqrt(6 / (3 + 5)), np.sqrt(6 / 10), np.sqrt(6 / 7)]
    assert all(0.5 * bound < np.abs(weight).max() <= bound for weight, bound in zip(network.weights, bounds, strict=True))
    one, two, three = (np.asarray(weight) for weight in network.weights)
    np.testing.assert_allclose(value, three @ np.tanh(two @ np.tanh(one @ x)), rtol=1e-12)
    shapes = jax.eval_shape(lambda key: DenseNetwork(3, 16, width=64, depth=4, key=key), jax.random.key(0))
    assert shapes.n_parameters == 13_776
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        DenseNetwork(3, 2, width=0, depth=2, key=jax.random.key(0))
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="activation"):
        DenseNetwork(3, 2, width=1, depth=2, activation="relu", key=jax.random.key(0))  # pyright: ignore[reportArgumentType]


def test_all_samples_count_in_both_parts():
    # The valley's end lies where the point and the mean of the samples add up to one.
    samples, keys = jnp.linspace(-1.0, 3.0, 20), jax.random.split(jax.random.key(0), 1)
    fit = fit_operator(Bowl(jnp.zeros(2)), samples, keys, adam_steps=4, lbfgs_steps=60, learning_rate=1e-9, batch_size=5, memory=5)
    np.testing.assert_allclose(fit.parameters, 0, atol=1e-6)
    # The first part all but stands still: only its batches differ.
    assert np.unique(np.round(fit.adam_loss, 4)).size == 4 and np.ptp(fit.after_adam) < 1


def test_swish_is_the_activation_by_default():
    network = DenseNetwork(2, 1, width=3, depth=1, key=jax.random.key(0))
    x = np.array([0.5, -2.0])
    z = np.asarray(network.weights[0]) @ x
    np.testing.assert_allclose(network(jnp.asarray(x)), np.asarray(network.weights[1]) @ (z / (1 + np.exp(-z))), rtol=1e-12)
