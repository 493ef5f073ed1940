import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import cauchy_derivative, check_holomorphic, steep_sigmoid

POINTS = (1, 2, 3, 4, 5, 8)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@jax.jit
def of_polynomial(coefficients, radius):
    powers = jnp.arange(len(coefficients))
    return [cauchy_derivative(lambda b: jnp.sum(coefficients * b**powers), radius=radius, points=n) for n in POINTS]


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=10, max_size=10), st.floats(0.1, 2.0))
def test_n_points_are_exact_but_for_the_coefficients_they_alias(coefficients, radius):
    for n, found in zip(POINTS, of_polynomial(jnp.array(coefficients), radius), strict=True):
        aliased = sum(coefficients[1 + m * n] * radius ** (m * n) for m in range((len(coefficients) - 2) // n + 1))
        scale = sum(abs(a) * radius ** max(k - 1, -1) for k, a in enumerate(coefficients))
        assert abs(found - aliased) <= 1e-13 * (1 + scale)


def test_a_tree_of_arrays_and_a_known_value_at_the_origin():
    def f(b):
        return {"a": jnp.exp(b) * jnp.ones(2), "b": (jnp.sin(3 * b),)}

    found = jax.jit(lambda r: cauchy_derivative(f, radius=r, points=8))(0.1)
    np.testing.assert_allclose([*found["a"], found["b"][0]], [1, 1, 3], rtol=1e-6)
    one = cauchy_derivative(lambda b: b**2 + 7, radius=0.5, points=1, value=jnp.array(7.0))
    assert one == 0.5


def test_a_larger_radius_with_more_points_costs_no_digits():
    ways = (1e-10, 2), (0.5, 16)
    small, large = jax.jit(lambda: [cauchy_derivative(lambda b: jnp.exp(b + 5), radius=r, points=n) for r, n in ways])()
    exact = np.exp(5.0)
    assert abs(large / exact - 1) < 1e-14 < 1e-8 < abs(small / exact - 1)


@pytest.mark.parametrize("fn", [steep_sigmoid, jnp.tanh, lambda u: u, lambda u: u**3, jnp.sin])
def test_smooth_functions_pass(fn):
    check_holomorphic(fn)


@pytest.mark.parametrize("fn", [jax.nn.relu, jax.nn.leaky_relu, jax.nn.elu, jnp.abs, lambda u: jnp.clip(u.real, 0, 1), jax.nn.hard_sigmoid])
def test_kinks_and_absolute_values_do_not(fn):
    with pytest.raises(ValueError, match="phi must be holomorphic around the real line for complex nudges"):
        check_holomorphic(fn, "phi")


@pytest.mark.parametrize(
    ("radius", "points", "message"),
    [
        (0.0, 4, "radius must be positive and finite, got 0.0"),
        (-1.0, 4, "radius must be"),
        (np.inf, 4, "radius must be"),
        (0.1, 0, "points must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_is_refused(radius, points, message):
    with pytest.raises(ValueError, match=message):
        cauchy_derivative(jnp.exp, radius=radius, points=points)
