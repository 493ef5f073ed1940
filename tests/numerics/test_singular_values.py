import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.numerics.singular_values import top_singular_value, top_singular_value_of_map

top = jax.jit(top_singular_value, static_argnames="iterations")
ROUND_OFF = 1e-5  # single precision, products of a few dozen terms


def with_values(values):
    left, right = (np.linalg.qr(np.random.default_rng(n).normal(size=(n, len(values))))[0] for n in (24, 16))
    return ((left * np.asarray(values)) @ right.T).astype(np.float32)


def test_o6_matches_the_decomposition_where_there_is_a_gap():
    matrix = with_values(np.geomspace(3.0, 0.1, 8))
    value, vector, residual = top(matrix)
    np.testing.assert_allclose(value, np.linalg.svd(matrix, compute_uv=False)[0], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(matrix @ np.asarray(vector)), value, rtol=ROUND_OFF)
    assert residual < 1e-2


def test_o6_exact_for_rank_one():
    matrix = with_values([2.5])
    value, _, residual = top(matrix, iterations=1)
    np.testing.assert_allclose(value, 2.5, rtol=ROUND_OFF)
    assert residual < ROUND_OFF


def test_o6_zero_matrix_is_zero_with_a_zero_gradient():
    zero = jnp.zeros((24, 16))
    value, vector, residual = top(zero)
    assert value == residual == 0 and np.isfinite(vector).all()
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda w: top_singular_value(w).value))(zero), 0.0)


def test_a_warm_start_goes_on_where_the_last_one_ended(getkey):
    matrix = jax.random.normal(getkey(), (24, 16))  # no gap to speak of
    exact = float(np.linalg.svd(matrix, compute_uv=False)[0])
    first = top(matrix, iterations=5)
    errors = [exact - float(first.value)]
    for _ in range(8):
        first = top(matrix, iterations=20, v0=first.vector)
        errors.append(exact - float(first.value))
    assert errors[0] > errors[2] > -ROUND_OFF * exact and abs(errors[-1]) < 1e-4 * exact
    zero_start = top(matrix, iterations=5, v0=jnp.zeros(16))
    np.testing.assert_array_equal(zero_start.value, top(matrix, iterations=5).value)


@hypothesis.given(hypothesis.extra.numpy.arrays(np.float32, (4, 3), elements=st.floats(-10, 10, width=32)))
def test_residual_bounds_the_distance_to_a_singular_value(matrix):
    value, _, residual = top(matrix, iterations=3)
    exact = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    assert value <= exact[0] * (1 + ROUND_OFF) + 1e-6
    assert abs(exact - float(value)).min() <= residual + ROUND_OFF * exact[0] + 1e-6


def test_batches_and_vmap_agree():
    matrices = np.random.default_rng(0).normal(size=(3, 24, 16)).astype(np.float32)
    batched, mapped = top(matrices), jax.jit(jax.vmap(top_singular_value))(matrices)
    np.testing.assert_allclose(batched.value, mapped.value, rtol=ROUND_OFF)
    np.testing.assert_allclose(np.asarray(batched.value)[1], top(matrices[1]).value, rtol=ROUND_OFF)


def test_derivative_is_the_outer_product_of_the_vectors():
    matrix = with_values([3.0, 1.0, 0.3])
    u, _, vt = np.linalg.svd(matrix)
    gradient = jax.jit(jax.grad(lambda w: top_singular_value(w, iterations=40).value))(matrix)
    np.testing.assert_allclose(gradient, np.outer(u[:, 0], vt[0]), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neither_overflows_nor_vanishes(scale):
    matrix = with_values([2.0, 1.0])
    np.testing.assert_allclose(top(np.float32(scale) * matrix).value, 2.0 * scale, rtol=1e-4)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        top_singular_value(jnp.eye(2), iterations=-1)
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        top_singular_value_of_map(lambda v: v, lambda u: u, jnp.zeros(2), iterations=-1)
    with pytest.raises(ValueError, match=r"v0 must have shape \(3,\), got \(2,\)"):
        top_singular_value(jnp.ones((2, 3)), v0=jnp.ones(2))


def test_a_map_has_the_singular_value_of_its_matrix():
    matrix = with_values(np.geomspace(3.0, 0.1, 8))
    of_map = jax.jit(lambda w, v0: top_singular_value_of_map(lambda v: w @ v, lambda u: w.T @ u, v0))
    value, vector, residual = of_map(matrix, jnp.zeros(16))
    np.testing.assert_allclose(value, np.linalg.svd(matrix, compute_uv=False)[0], rtol=1e-4)
    assert residual < 1e-2 and of_map(matrix, vector).residual <= residual + ROUND_OFF
    np.testing.assert_array_equal(of_map(jnp.zeros((24, 16)), jnp.zeros(16)).value, 0.0)


def test_without_iterations_the_start_is_measured():
    matrix, v0 = with_values([3.0, 1.0, 0.3]), np.arange(1, 17, dtype=np.float32)
    v = v0 / np.linalg.norm(v0)
    u = matrix @ v / np.linalg.norm(matrix @ v)
    of_map = jax.jit(lambda w, v0: top_singular_value_of_map(lambda v: w @ v, lambda u: w.T @ u, v0, iterations=0))(matrix, v0)
    for found in (of_map, top(matrix, iterations=0, v0=v0)):
        np.testing.assert_allclose(found.value, np.linalg.norm(matrix @ v), rtol=ROUND_OFF)
        np.testing.assert_allclose(found.vector, v, rtol=ROUND_OFF)
        np.testing.assert_allclose(found.residual, np.linalg.norm(matrix.T @ u - found.value * v), rtol=1e-4)
