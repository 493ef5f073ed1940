import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import lineax as lx
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from matfree import decomp

from gradatim.numerics import (
    dense_matrix,
    gaussian_density,
    lanczos,
    marchenko_pastur_edges,
    marchenko_pastur_median,
    random_probe,
    trace_estimate,
)

# A few dozen ε, for values of order one.
SINGLE, DOUBLE = 5e-6, 1e-12
# Outliers over a bulk, as a trained network has them: each converges in a few steps, whereupon orthogonality is lost along it.
OUTLIERS = np.array([100.0, 60.0, 30.0, 10.0, 7.0, 5.0, 4.0, 3.0, -2.0])


def spiked(n=400, dtype=jnp.float32):
    bulk = np.linspace(-0.05, 0.3, n - OUTLIERS.size)
    return lx.DiagonalLinearOperator(jnp.asarray(np.concatenate([OUTLIERS, bulk]), dtype))


def matrix(getkey, n, dtype=jnp.float64):
    a = jax.random.normal(getkey(), (n, n), dtype)
    return lx.MatrixLinearOperator((a + a.T) / 2, lx.symmetric_tag)


def test_o6_lanczos_with_all_steps_recovers_a_diagonal(double):
    operator = lx.DiagonalLinearOperator(jnp.arange(1.0, 101.0))
    krylov = lanczos(operator, random_probe(operator, key=jax.random.key(0)), steps=100)
    assert jnp.allclose(krylov.ritz().values, jnp.arange(100.0, 0, -1), atol=100 * DOUBLE)
    assert krylov.overlap < 1e-8


def test_o6_quadrature_is_exact_to_degree_2m_minus_1(getkey, double):
    operator, steps = matrix(getkey, 30), 6
    dense = operator.as_matrix() / 8
    operator = lx.MatrixLinearOperator(dense, lx.symmetric_tag)
    probe = random_probe(operator, key=getkey())
    ritz = lanczos(operator, probe, steps=steps).ritz()
    assert abs(ritz.weights.sum() - 1) < DOUBLE
    errors = [abs(ritz.weights @ ritz.values**q - probe @ jnp.linalg.matrix_power(dense, q) @ probe) for q in range(2 * steps + 1)]
    assert max(errors[: 2 * steps]) < DOUBLE and errors[2 * steps] > 1e-6


def test_o6_density_of_the_identity_is_one_gaussian(double):
    operator = lx.IdentityLinearOperator(jax.ShapeDtypeStruct((50,), jnp.float64))
    ritz = lanczos(operator, random_probe(operator, key=jax.random.key(1)), steps=50).ritz()
    grid = jnp.linspace(0, 2, 201)
    density = gaussian_density(ritz.values, ritz.weights, grid, sigma=0.1)
    exact = jnp.exp(-((grid - 1) ** 2) / 0.02) / (0.1 * jnp.sqrt(2 * jnp.pi))
    assert jnp.allclose(ritz.values, 1, atol=DOUBLE) and jnp.allclose(density, exact, atol=1e-10)


@pytest.mark.parametrize("reorthogonalize", ["measured", "full"])
def test_t1_no_ghosts(reorthogonalize):
    operator = spiked()
    krylov = lanczos(operator, random_probe(operator, key=jax.random.key(2)), steps=100, reorthogonalize=reorthogonalize)
    values = krylov.ritz().values
    exact = np.sort(OUTLIERS)[::-1][:8]
    assert np.allclose(values[:8], exact, rtol=SINGLE) and int(jnp.sum(values > 0.5)) == 8
    assert jnp.abs(krylov.basis @ krylov.basis.T - jnp.eye(100)).max() < 1e-4


def test_t1_without_reorthogonalisation_ghosts_inflate_the_count():
    operator = spiked()
    krylov = lanczos(operator, random_probe(operator, key=jax.random.key(2)), steps=100, reorthogonalize="none")
    assert int(jnp.sum(krylov.ritz().values > 0.5)) > 16


def test_measured_blocks_are_as_orthogonal_as_full_and_give_the_same_values():
    operator = spiked(2000)
    probe = random_probe(operator, key=jax.random.key(3))
    measured, full = (lanczos(operator, probe, steps=150, reorthogonalize=mode) for mode in ("measured", "full"))
    assert jnp.allclose(measured.ritz().values[:20], full.ritz().values[:20], atol=100 * SINGLE)
    assert jnp.abs(measured.basis @ measured.basis.T - jnp.eye(150)).max() < 3e-5


def test_t2_weights_are_squared_first_components(getkey, double):
    # A start along one eigenvector sees that eigenvalue alone; whole eigenvectors would weigh all alike.
    operator = lx.DiagonalLinearOperator(jnp.arange(1.0, 11.0))
    start = jnp.zeros(10).at[3].set(0.6).at[7].set(0.8)
    ritz = lanczos(operator, start, steps=2).ritz()
    assert jnp.allclose(ritz.values, jnp.array([8.0, 4.0]), atol=DOUBLE)
    assert jnp.allclose(ritz.weights, jnp.array([0.64, 0.36]), atol=DOUBLE)


def test_the_three_term_recurrence_holds(getkey, double):
    operator = matrix(getkey, 80)
    krylov = lanczos(operator, random_probe(operator, key=getkey()), steps=40)
    q = krylov.basis
    remainder = q @ operator.as_matrix() - krylov.tridiagonal() @ q
    assert jnp.allclose(remainder[:-1], 0, atol=DOUBLE)
    assert jnp.allclose(jnp.linalg.norm(remainder[-1]), krylov.beta[-1], atol=DOUBLE)


def test_residual_bounds_hold_the_eigenvalues(getkey, double):
    operator = matrix(getkey, 80)
    krylov = lanczos(operator, random_probe(operator, key=getkey()), steps=30)
    ritz = krylov.ritz()
    exact = jnp.linalg.eigvalsh(operator.as_matrix())
    distances = jnp.abs(ritz.values[:, None] - exact[None, :]).min(axis=1)
    assert jnp.all(distances <= ritz.residuals + DOUBLE * 10)
    vectors = krylov.lift(ritz.vectors)
    residuals = jnp.linalg.norm(vectors @ operator.as_matrix() - ritz.values[:, None] * vectors, axis=1)
    assert jnp.allclose(residuals, ritz.residuals, atol=10 * DOUBLE)


def test_an_exhausted_space_goes_on_and_finds_multiple_eigenvalues(double):
    values = jnp.array([3.0, 3.0, 3.0, 1.0, 1.0, 0.0, 0.0, -2.0])
    krylov = lanczos(lx.DiagonalLinearOperator(values), jnp.ones(8), steps=8)
    assert jnp.allclose(krylov.ritz().values, jnp.sort(values)[::-1], atol=DOUBLE)
    assert int(jnp.sum(krylov.beta[:-1] == 0)) >= 2


def test_zero_operator_is_finite():
    krylov = lanczos(lx.DiagonalLinearOperator(jnp.zeros(6)), jnp.ones(6), steps=6)
    assert jnp.all(krylov.ritz().values == 0)


def test_agrees_with_peers(getkey, double):
    operator = matrix(getkey, 120)
    probe = random_probe(operator, key=getkey())
    ours = lanczos(operator, probe, steps=60)
    theirs = decomp.tridiag_sym(60, reortho="full", materialize=True)(lambda v: operator.mv(v), probe)
    assert jnp.allclose(ours.ritz().values, jnp.linalg.eigvalsh(theirs.J_small)[::-1], atol=1e-10)
    scipys = scipy.sparse.linalg.eigsh(np.asarray(operator.as_matrix()), k=4, which="LA", return_eigenvectors=False)
    ours = lanczos(operator, probe, steps=100).ritz().values[:4]
    assert np.allclose(ours, scipys[::-1], atol=1e-8)


def test_vectors_may_be_pytrees(getkey, double):
    dense = matrix(getkey, 6).as_matrix()
    start = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    flat, unravel = ravel_pytree(start)
    operator = lx.FunctionLinearOperator(lambda v: unravel(dense @ ravel_pytree(v)[0]), jax.eval_shape(lambda: start), lx.symmetric_tag)
    assert jnp.allclose(lanczos(operator, start, steps=6).ritz().values, jnp.linalg.eigvalsh(dense)[::-1], atol=DOUBLE)
    assert jnp.allclose(dense_matrix(operator), dense, atol=DOUBLE)
    assert flat.shape == (6,)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_kept(double, dtype):
    operator = lx.DiagonalLinearOperator(jnp.arange(1.0, 21.0, dtype=dtype))
    krylov = lanczos(operator, jnp.ones(20, dtype), steps=10)
    assert {leaf.dtype for leaf in jax.tree.leaves((krylov, krylov.ritz()))} == {jnp.dtype(dtype)}


def test_jit_vmap_and_derivatives(double):
    diagonals = jnp.stack([jnp.arange(1.0, 31.0), jnp.arange(1.0, 31.0) ** 1.5])
    start = jnp.ones(30)

    def top(diagonal):
        return lanczos(lx.DiagonalLinearOperator(diagonal), start, steps=30, throw=False).ritz().values[0]

    alone = jnp.stack([top(d) for d in diagonals])
    assert jnp.allclose(jax.vmap(top)(diagonals), alone, atol=1e-10)
    assert jnp.allclose(jax.jit(jax.vmap(top))(diagonals), alone, atol=1e-10)
    raising = jax.vmap(lambda d: lanczos(lx.DiagonalLinearOperator(d), start, steps=30).alpha)(diagonals)
    assert jnp.all(jnp.isfinite(raising))
    _, slope = jax.jvp(top, (diagonals[0],), (jnp.zeros(30).at[29].set(1.0),))
    assert jnp.allclose(slope, 1, atol=1e-8)


def test_a_second_operator_does_not_compile_again():
    n_traces = 0

    @eqx.filter_jit
    def top(operator, start):
        nonlocal n_traces
        n_traces += 1
        return lanczos(operator, start, steps=5).ritz().values[0]

    for factor in (1.0, 2.0):
        top(lx.DiagonalLinearOperator(factor * jnp.arange(10.0)), jnp.ones(10))
    assert n_traces == 1


def test_products_that_are_not_finite_raise_or_are_left_to_see():
    operator = lx.DiagonalLinearOperator(jnp.array([1.0, jnp.nan, 2.0]))
    with pytest.raises(Exception, match="not finite: check the loss"):
        lanczos(operator, jnp.ones(3), steps=2)
    assert not jnp.all(jnp.isfinite(lanczos(operator, jnp.ones(3), steps=2, throw=False).alpha))


@pytest.fixture
def unchecked():
    """Without the type checks that only the tests have: a user meets the library's own messages."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_bad_input(unchecked):
    operator = lx.DiagonalLinearOperator(jnp.arange(5.0))
    for steps in (0, 6):
        with pytest.raises(ValueError, match=f"steps must lie between 1 and the operator's dimension 5, got {steps}"):
            lanczos(operator, jnp.ones(5), steps=steps)
    with pytest.raises(ValueError, match="reorthogonalize must be"):
        lanczos(operator, jnp.ones(5), steps=3, reorthogonalize="some")
    with pytest.raises(ValueError, match="n_probes must be at least 2, got 1"):
        trace_estimate(operator, key=jax.random.key(0), n_probes=1)
    with pytest.raises(ValueError, match="power must be at least 1, got 0"):
        trace_estimate(operator, key=jax.random.key(0), power=0)
    with pytest.raises(ValueError, match="aspect M/N must be positive"):
        marchenko_pastur_edges(0.0)


@pytest.mark.parametrize("power", [1, 2])
def test_trace_lies_within_its_standard_error(getkey, double, power):
    operator = matrix(getkey, 40)
    estimate = trace_estimate(operator, key=getkey(), n_probes=400, power=power)
    exact = jnp.trace(jnp.linalg.matrix_power(operator.as_matrix(), power))
    assert abs(estimate.value - exact) < 4 * estimate.standard_error
    # Var zᵀAz = 2 Σ_{i≠j} aᵢⱼ² for signs.
    a = jnp.linalg.matrix_power(operator.as_matrix(), power)
    spread = jnp.sqrt(2 * (jnp.sum(a**2) - jnp.sum(jnp.diagonal(a) ** 2)) / 400)
    assert jnp.allclose(estimate.standard_error, spread, rtol=0.2)


@pytest.mark.parametrize("aspect", [0.2, 1.0, 3.0])
def test_marchenko_pastur_median(aspect):
    n = 900
    rows = np.random.default_rng(0).normal(size=(n, int(aspect * n)))
    values = np.linalg.svd(rows / np.sqrt(n), compute_uv=False) ** 2
    assert np.isclose(np.median(values), marchenko_pastur_median(aspect), rtol=0.03)
