import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import (
    prox_elastic_net,
    prox_group_lasso,
    prox_l1,
    prox_log_barrier,
    prox_ridge,
)

PENALTIES = {
    "l1": (prox_l1, lambda x: jnp.sum(jnp.abs(x))),
    "ridge": (prox_ridge, lambda x: jnp.sum(x**2) / 2),
    "elastic net": (prox_elastic_net, lambda x: jnp.sum(jnp.abs(x)) + jnp.sum(x**2) / 2),
    "group lasso": (prox_group_lasso, jnp.linalg.norm),
    "log barrier": (prox_log_barrier, lambda x: -jnp.sum(jnp.log(x))),
}


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@jax.jit
def _excess(v, eta, strength, elsewhere):
    """By how much each prox, and each point beside it, misses the least value of ‖x - v‖²/2 + ηλ g(x)."""
    found = {}
    for name, (prox, penalty) in PENALTIES.items():

        def value(x, penalty=penalty):
            return jnp.sum((x - v) ** 2) / 2 + eta * strength * penalty(x)

        x = prox(v, eta, strength)
        found[name] = jax.vmap(value)(x[None] + elsewhere) - value(x)
    return found


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_a_prox_is_the_minimum_that_defines_it(seed, eta, strength):
    random = np.random.default_rng(seed)
    v, elsewhere = random.normal(size=4) * 2, random.normal(size=(200, 4)) * 10.0 ** random.uniform(-3, 0, (200, 1))
    for name, excess in _excess(v, eta, strength, elsewhere).items():
        # Outside of its domain the barrier is NaN, which is no smaller value.
        assert not (excess < -1e-12).any(), name


def test_derivatives_are_finite_at_kinks():
    slopes = jax.jit(lambda v: [jax.jacfwd(prox)(v, 1.0, 1.0) for prox, _ in PENALTIES.values()])
    for v in (jnp.zeros(3), jnp.ones(3), jnp.array([-1.0, 0.0, 0.0])):
        assert all(np.isfinite(slope).all() for slope in slopes(v))


def test_an_elastic_net_with_a_ridge_of_its_own_is_stationary():
    x = np.asarray(prox_elastic_net(jnp.array([3.0, -4.0]), 0.5, 2.0, 3.0))
    np.testing.assert_allclose(x - np.array([3.0, -4.0]) + 0.5 * 2.0 * (np.sign(x) + 3.0 * x), 0, atol=1e-12)


def test_each_array_of_a_tree_is_a_group():
    found = prox_group_lasso({"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}, 1.0, 1.0)
    np.testing.assert_allclose([*found["a"], *found["b"]], [2.4, 3.2, 0], rtol=1e-12)


def test_log_barrier_keeps_its_digits_far_below_zero():
    np.testing.assert_allclose(prox_log_barrier(jnp.array(-1e9), 1.0, 1.0), 1e-9, rtol=1e-12)


def test_strengths_may_differ_from_leaf_to_leaf():
    found = prox_l1({"a": jnp.array([3.0]), "b": jnp.array([3.0])}, 1.0, {"a": 1.0, "b": 2.0})
    assert found["a"].tolist() == [2] and found["b"].tolist() == [1]
