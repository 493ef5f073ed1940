import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from gradatim.sciml import (
    Deflation,
    PoissonSystem,
    TriangularPreconditioner,
    box_with_ball,
    conjugate_gradients,
    host_conjugate_gradients,
    incomplete_cholesky,
)

SYSTEM = PoissonSystem(box_with_ball((12, 12), radius=0.2))
MATRIX = SYSTEM.as_csr()
EIGENVALUES, EIGENVECTORS = np.linalg.eigh(MATRIX.toarray())
B = np.random.default_rng(0).normal(size=MATRIX.shape[0])
pytestmark = pytest.mark.usefixtures("double")


@jax.jit
def plain(b, diagonal):
    return conjugate_gradients(SYSTEM, b, preconditioner=lambda r: r / diagonal, rtol=1e-10)


@jax.jit
def deflated(b, vectors):
    return Deflation(SYSTEM, vectors).solve(SYSTEM, b, rtol=1e-10)


def test_conjugate_gradients_are_those_of_scipy():
    found = plain(jax.device_put(SYSTEM.extend(B)), jnp.ones((12, 12)))
    x, norms = host_conjugate_gradients(MATRIX, B, rtol=1e-10)
    assert found.is_converged and found.num_steps == len(norms) - 1
    np.testing.assert_allclose(SYSTEM.restrict(found.value), x, atol=1e-8)
    np.testing.assert_allclose(found.residual_norms[: len(norms)], norms, atol=1e-9 * norms[0])


def test_the_diagonal_as_preconditioner():
    diagonal = jnp.where(SYSTEM.is_fluid, SYSTEM.neighbours, 1).astype(float)
    found = plain(jnp.asarray(SYSTEM.extend(B)), diagonal)
    jacobi = sparse.diags_array(1 / MATRIX.diagonal())
    assert found.num_steps == len(host_conjugate_gradients(MATRIX, B, preconditioner=jacobi, rtol=1e-10)[1]) - 1
    np.testing.assert_allclose(MATRIX @ SYSTEM.restrict(found.value), B, atol=1e-8)


def test_deflation_solves_the_system_in_fewer_steps():
    vectors = np.stack([SYSTEM.extend(v) for v in EIGENVECTORS.T[:8]])
    b = jnp.asarray(SYSTEM.extend(B))
    found = deflated(b, jax.device_put(vectors))
    assert found.is_converged and found.num_steps < 0.7 * plain(b, jnp.ones((12, 12))).num_steps
    np.testing.assert_allclose(MATRIX @ SYSTEM.restrict(found.value), B, atol=1e-8)
    # What lies in the span takes no step at all.
    inside = SYSTEM.extend(EIGENVECTORS[:, 3])
    at_once = deflated(jnp.asarray(inside), jnp.asarray(vectors))
    assert at_once.num_steps == 0
    np.testing.assert_allclose(at_once.value, inside / EIGENVALUES[3], atol=1e-10)


def test_incomplete_cholesky_is_exact_on_its_pattern():
    L = incomplete_cholesky(MATRIX)
    product = (L @ L.T).toarray()
    on_pattern = MATRIX.toarray() != 0
    np.testing.assert_allclose(product[on_pattern], MATRIX.toarray()[on_pattern], atol=1e-12)
    assert np.abs(product[~on_pattern]).max() > 0.1


def test_incomplete_cholesky_of_a_full_matrix_is_cholesky():
    random = np.random.default_rng(1).normal(size=(6, 6))
    full = random @ random.T + 6 * np.eye(6)
    np.testing.assert_allclose(incomplete_cholesky(sparse.csr_array(full)).toarray(), np.linalg.cholesky(full), atol=1e-12)


def test_incomplete_cholesky_saves_iterations():
    L = incomplete_cholesky(MATRIX)
    preconditioner = TriangularPreconditioner(L)
    np.testing.assert_allclose(preconditioner(B), np.linalg.solve((L @ L.T).toarray(), B), atol=1e-12)
    x, norms = host_conjugate_gradients(MATRIX, B, preconditioner=preconditioner.operator(), rtol=1e-10)
    np.testing.assert_allclose(MATRIX @ x, B, atol=1e-8)
    assert len(norms) < 0.6 * len(host_conjugate_gradients(MATRIX, B, rtol=1e-10)[1])


def test_nothing_to_solve_takes_no_step():
    found = plain(jnp.zeros((12, 12)), jnp.ones((12, 12)))
    assert found.num_steps == 0 and found.is_converged and (found.value == 0).all()


def test_bad_inputs_are_refused():
    with pytest.raises(ValueError, match=r"matrix must have positive pivots on its own pattern, got -3\.0 in row 1"):
        incomplete_cholesky(sparse.csr_array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="matrix must have a diagonal without zeros, got none in row 1"):
        incomplete_cholesky(sparse.csr_array([[1.0, 2.0], [2.0, 0.0]]))
    with pytest.raises(ValueError, match="max_steps must be enough to reach rtol 1e-10, got 2"):
        host_conjugate_gradients(MATRIX, B, rtol=1e-10, max_steps=2)


@pytest.mark.parametrize(("max_steps", "is_enough"), [(3, False), (80, True)])
def test_steps_that_run_out_are_said_to(max_steps, is_enough):
    b = jnp.asarray(SYSTEM.extend(B))
    found = jax.jit(lambda b: conjugate_gradients(SYSTEM, b, rtol=1e-8, max_steps=max_steps))(b)
    assert bool(found.is_converged) == is_enough and (found.num_steps == max_steps) == (not is_enough)
    left = np.linalg.norm(B - MATRIX @ SYSTEM.restrict(found.value))
    np.testing.assert_allclose(found.residual_norms[found.num_steps], left, rtol=1e-5)
    assert found.residual_norms.shape == (max_steps + 1,)


def test_a_residual_that_is_only_believed_to_be_small_is_not_converged():
    # A product that changes from the first step on to the last, so that recursion and residual part.
    scales, b = jnp.geomspace(1.0, 1e4, 64, dtype=jnp.float32), jnp.asarray(np.random.default_rng(5).normal(size=64), jnp.float32)
    found = jax.jit(lambda b: conjugate_gradients(lambda x: scales * x, b, rtol=1e-9, max_steps=900))(b)
    assert found.residual_norms[found.num_steps] <= 1e-9 * found.residual_norms[0] and not found.is_converged
