import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.transport import FourierBasis, helmholtz_decomposition, linear_helmholtz
from gradatim.transport.helmholtz import project_on_gradients

COVARIANCE = np.array([[1.5, 0.6], [0.6, 0.5]])
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])
ROUND_OFF = 1e-10


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def linear():
    return jax.jit(linear_helmholtz)


def quadratics(x):
    return jnp.concatenate([x, x**2, x[:1] * x[1:]])


def exact_samples(n=400):
    """Samples whose second moments are the covariance, and whose mean is zero."""
    x = np.random.default_rng(0).normal(size=(n, 2))
    x = x - x.mean(axis=0)
    return np.linalg.cholesky(COVARIANCE) @ np.linalg.solve(np.linalg.cholesky(x.T @ x / n), x.T)


def test_o6_the_gradient_part_of_a_score_and_a_rotation_is_not_the_score(linear):
    precision = np.linalg.inv(COVARIANCE)
    parts = linear(jnp.asarray(-precision + TURN), jnp.asarray(COVARIANCE))
    expected = [[-0.682051, 1.038462], [1.038462, -4.446154]]
    np.testing.assert_allclose(parts.gradient, expected, atol=1e-6)
    np.testing.assert_allclose(parts.antisymmetric, 0.39 * TURN, atol=1e-12)
    assert np.abs(parts.gradient + precision).max() > 0.3


@given(st.integers(0, 10_000), st.integers(2, 5))
@settings(max_examples=20)
def test_o6_parts_are_orthogonal_and_the_remainder_is_a_gauge_field(linear, seed, dim):
    random = np.random.default_rng(seed)
    # In five dimensions always, the rest apart and at rest: one program.
    matrix, covariance = np.zeros((5, 5)), np.eye(5)
    matrix[:dim, :dim] = random.normal(size=(dim, dim))
    root = random.normal(size=(dim, dim + 2))
    covariance[:dim, :dim] = root @ root.T
    parts = linear(jax.device_put(matrix), jax.device_put(covariance))
    gradient, remainder = np.asarray(parts.gradient), np.asarray(parts.remainder)
    scale = np.abs(covariance).max() * np.square(matrix).max() * np.linalg.cond(covariance)
    np.testing.assert_allclose(gradient + remainder, matrix, atol=ROUND_OFF * (1 + np.abs(matrix).max()) * np.linalg.cond(covariance))
    assert abs(np.trace(gradient.T @ remainder @ covariance)) < ROUND_OFF * scale
    # div r = tr R, and r · ∇ log p = -xᵀ Rᵀ C⁻¹ x, which is zero for all x where C R is antisymmetric so weighted.
    weighted = np.linalg.solve(covariance, remainder)
    assert abs(np.trace(remainder)) < ROUND_OFF * scale
    np.testing.assert_allclose(weighted, -weighted.T, atol=ROUND_OFF * (1 + np.abs(weighted).max()) * np.linalg.cond(covariance))


@pytest.fixture(scope="module")
def projected():
    """The same field by projection on quadratic potentials, from samples."""
    x = jax.device_put(exact_samples().T)
    matrix = jnp.asarray(-np.linalg.inv(COVARIANCE) + TURN)

    @jax.jit
    def of(x, matrix):
        parts = helmholtz_decomposition(lambda x: matrix @ x, x, quadratics)
        return jax.vmap(parts.conservative)(x), jax.vmap(parts.remainder)(x), parts.share(x), jax.vmap(parts.potential)(x)

    return np.asarray(x), np.asarray(matrix), [np.asarray(part) for part in of(x, matrix)]


def test_o6_projection_of_samples_is_the_closed_form(projected, linear):
    x, matrix, (conservative, remainder, share, potential) = projected
    parts = linear(jnp.asarray(matrix), jnp.asarray(COVARIANCE))
    np.testing.assert_allclose(conservative, x @ np.asarray(parts.gradient), atol=1e-9)
    np.testing.assert_allclose(remainder, x @ np.asarray(parts.remainder).T, atol=1e-9)
    np.testing.assert_allclose(potential, np.einsum("ni,ij,nj->n", x, parts.gradient, x) / 2, atol=1e-9)
    np.testing.assert_allclose(share, np.square(remainder).sum() / np.square(x @ matrix.T).sum(), rtol=1e-9)


def test_o7_the_error_of_a_score_is_that_of_its_gradient_part_and_the_gauge_part(projected):
    x, matrix, (conservative, remainder, *_) = projected
    score = -x @ np.linalg.inv(COVARIANCE)
    error = np.square(x @ matrix.T - score).sum()
    split = np.square(conservative - score).sum() + np.square(remainder).sum()
    np.testing.assert_allclose(error, split, rtol=1e-9)
    assert np.square(remainder).sum() > 0.1 * error < 10 * np.square(conservative - score).sum()


def test_trap_orthogonality_is_under_the_density(projected):
    x, _, (conservative, remainder, *_) = projected
    size = np.sqrt(np.square(conservative).sum() * np.square(remainder).sum())
    assert abs((conservative * remainder).sum()) < 1e-9 * size
    # Under another density, an even one, the same two parts are not.
    even = np.abs(x).max(axis=1) < 0.5
    assert abs((conservative * remainder)[even].sum()) > 1e-3 * size


def test_functions_that_are_constant_or_repeated_do_no_harm():
    x = jax.device_put(exact_samples().T)

    @jax.jit
    def of(x):
        def repeated(x):
            return jnp.concatenate([quadratics(x), quadratics(x)[::-1] * 1e-3, jnp.ones(3)])

        bases = [quadratics, repeated]
        gradients = [jax.vmap(jax.jacfwd(basis))(x) for basis in bases]
        return [jnp.einsum("nkd,k->nd", gradient, project_on_gradients(jnp.sin(x), gradient)) for gradient in gradients]

    once, twice = of(x)
    np.testing.assert_allclose(once, twice, atol=1e-7)


def test_features_have_the_lengths_and_the_phases_of_their_law():
    basis = FourierBasis(2, 4000, scale=4.0, key=jax.random.key(0))
    np.testing.assert_allclose(np.std(basis.frequencies, axis=0), 0.25, rtol=0.06)
    # Even on a whole turn.
    phases = np.sort(basis.phases) / (2 * np.pi)
    assert np.abs(phases - (np.arange(4000) + 0.5) / 4000).max() < 0.03
    x = np.array([0.3, -2.0])
    np.testing.assert_allclose(basis(jnp.asarray(x)), [*np.cos(basis.frequencies @ x + basis.phases), *x], atol=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="covariance must be symmetric and positive definite, got"):
        linear_helmholtz(jnp.eye(2), jnp.diag(jnp.array([1.0, 0.0])))
    with pytest.raises(ValueError, match="covariance must be symmetric and positive definite, got"):
        linear_helmholtz(jnp.eye(2), jnp.array([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"scale must be positive, got -1\.0"):
        FourierBasis(2, 4, scale=-1.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="as many numbers as the basis has functions, 5, got 4"):
        helmholtz_decomposition(lambda x: x, jnp.ones((2, 2)), quadratics)
