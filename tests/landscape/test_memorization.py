import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.landscape import memorization_solution

P = np.array([0.35, 0.3, 0.2, 0.15])


def value(s, power):
    return (P * np.maximum(s, 0) ** power).sum(axis=-1)


def test_o10_a_rectifier_spreads_in_proportion_and_a_square_takes_one_pair():
    assert np.allclose(memorization_solution(jax.device_put(P), 1.0), 2**0.5 * P / np.linalg.norm(P), atol=1e-6)
    square = memorization_solution(jnp.asarray(P))
    assert np.allclose(square, [2**0.5, 0, 0, 0]) and np.isclose(value(np.asarray(square), 2), 2 * P.max())


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
def test_nothing_on_the_sphere_is_higher(power):
    best = np.asarray(memorization_solution(jnp.asarray(P, jnp.float32), power), np.float64)
    assert np.isclose(np.linalg.norm(best), 2**0.5)
    others = np.random.default_rng(0).normal(size=(20_000, 4))
    near = best + 0.05 * others
    for s in (others, near):
        s = 2**0.5 * s / np.linalg.norm(s, axis=1, keepdims=True)
        assert value(s, power).max() <= value(best, power) * (1 + 1e-6)


@given(st.floats(1.0, 1.95))
def test_every_pair_has_the_same_multiplier(power):
    with jax.enable_x64(True):
        s = np.asarray(memorization_solution(jnp.asarray(P), power))
    multiplier = P * power * s ** (power - 2)
    assert np.allclose(multiplier, multiplier[0], rtol=1e-6)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0])
def test_compiled_with_a_traced_power(power):
    p = jnp.asarray(P, jnp.float32)
    assert np.allclose(jax.jit(memorization_solution)(p, jnp.asarray(power, jnp.float32)), memorization_solution(p, power), atol=1e-6)
    assert jnp.isfinite(jax.jacobian(memorization_solution, 1)(p, jnp.asarray(power, jnp.float32))).all()


@pytest.mark.parametrize(
    ("p", "power", "message"),
    [([0.5, 0.5], 0.9, "power must be at least 1, got 0.9"), ([-0.1, 1.1], 1.0, "not be negative"), ([0.0, 0.0], 1.0, "not all 0")],
)
def test_bad_input_is_refused(p, power, message):
    with pytest.raises(ValueError, match=message):
        memorization_solution(jnp.asarray(p), power)


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_of_equally_probable_pairs_the_first_is_remembered(power):
    assert np.allclose(memorization_solution(jnp.array([0.2, 0.4, 0.4]), power), [0, 2**0.5, 0])
