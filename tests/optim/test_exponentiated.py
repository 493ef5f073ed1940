import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import exponentiated_gradient

pytestmark = pytest.mark.usefixtures("double")
EXACT = 1e-12  # double precision, a handful of operations
# Not so small that a factor leads to numbers which XLA takes for zero.
VECTORS = hypothesis.extra.numpy.arrays(np.float64, 4, elements=st.floats(-5, 5).filter(lambda x: x == 0 or abs(x) > 1e-200))


def moved(optimizer, weights, *gradients):
    state = optimizer.init(weights)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
    return weights


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(lambda weights, gradient, rate: moved(exponentiated_gradient(rate), weights, gradient))


@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(VECTORS, VECTORS, st.floats(0, 3))
def test_o9_weights_are_multiplied_and_keep_their_signs(compiled, weights, gradient, rate):
    after = np.asarray(compiled(jnp.asarray(weights), jnp.asarray(gradient), jnp.asarray(rate)))
    expected = weights * np.exp(-rate * np.sign(weights) * gradient)
    np.testing.assert_allclose(after, expected, rtol=1e-6, atol=1e-13)
    assert (np.sign(after) == np.sign(weights)).all()


def test_o9_a_weight_of_zero_stays(compiled):
    assert compiled(jnp.zeros(4), jnp.array([1.0, -1.0, 100.0, 0.0]), jnp.array(1.0)).tolist() == [0, 0, 0, 0]


def test_the_classic_form_ascends_where_weights_are_negative():
    weights = np.array([2.0, -2.0])
    classic = jax.jit(lambda w: moved(exponentiated_gradient(0.1, signed=False), w, jnp.ones(2)))(weights)
    np.testing.assert_allclose(classic, weights * np.exp(-0.1), rtol=EXACT)


def test_it_is_mirror_descent_with_the_entropy(compiled):
    weights, gradient = np.array([0.5, 3.0, 1.0, 7.0]), np.array([2.0, -1.0, 0.0, 0.3])
    after = compiled(jnp.asarray(weights), jnp.asarray(gradient), jnp.array(0.3))
    np.testing.assert_allclose(np.log(after), np.log(weights) - 0.3 * gradient, rtol=EXACT, atol=EXACT)


def test_rates_may_follow_a_schedule_under_jit():
    optimizer = exponentiated_gradient(lambda count: 0.1 / (1 + count))
    after = jax.jit(lambda w: moved(optimizer, w, jnp.ones(2), jnp.ones(2)))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(after, np.array([1.0, 2.0]) * np.exp(-0.15), rtol=EXACT)


def test_trees_and_dtypes_stay():
    params = {"a": jax.ShapeDtypeStruct((2,), jnp.float32), "b": [jax.ShapeDtypeStruct((), jnp.bfloat16)]}
    after = jax.eval_shape(lambda params: moved(exponentiated_gradient(0.1), params, params), params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"learning_rate must be at least 0, got -0\.1"):
        exponentiated_gradient(-0.1)
    optimizer = exponentiated_gradient(0.1)
    with pytest.raises(ValueError, match="pass them to update as its third argument"):
        optimizer.update(jnp.ones(2), optimizer.init(jnp.ones(2)))
    with pytest.raises(TypeError, match=r"parameters must be real, for a sign, got complex128 at params\['w'\]"):
        optimizer.init({"w": jnp.ones(2, complex)})
    with pytest.raises(TypeError, match="must be real or complex floating point, got int64"):
        optimizer.init(jnp.arange(3))
