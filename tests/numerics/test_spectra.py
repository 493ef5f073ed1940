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
    random_probe,
    trace_estimate,
)

# A few dozen ε, for values of order one.
SINGLE, DOUBLE = 5e-6, 1e-12
# Outliers over a bulk, as a trained network has them: each converges in a few steps, whereupon orthogonality is lost along it.
OUTLIERS = np.array([100.0, 60.0, 30.0, 10.0, 7.0, 5.0, 4.0, 3.0, -2.0])
# Sizes that tests share, for each operator, size and number of steps is a program of its own.
N = 40


@eqx.filter_jit
def decomposed(operator, start, steps):
    krylov = lanczos(operator, start, steps=steps)
    return krylov, krylov.ritz()


def probe(n, seed=0):
    direction = np.random.default_rng(seed).normal(size=n)
    return jnp.asarray(direction / np.linalg.norm(direction))


def diagonal(values):
    """All `N` steps on a diagonal operator of that size."""
    return decomposed(lx.DiagonalLinearOperator(jnp.asarray(values)), probe(N), N)


def matrix(n, scale=1.0, seed=1):
    a = scale * np.random.default_rng(seed).normal(size=(n, n))
    return lx.MatrixLinearOperator(jnp.asarray((a + a.T) / 2), lx.symmetric_tag)


@pytest.fixture(scope="module")
def outliers():
    """A hundred steps on outliers over a bulk of a thousand, in each mode, in single precision."""
    operator = lx.DiagonalLinearOperator(jnp.asarray(np.concatenate([OUTLIERS, np.linspace(-0.05, 0.3, 991)]), jnp.float32))
    start = jax.jit(lambda key: random_probe(operator, key=key))(jax.random.key(2))
    assert np.isclose(np.linalg.norm(start), 1, rtol=SINGLE)
    runs = {mode: lanczos(operator, start, steps=100, reorthogonalize=mode) for mode in ("measured", "full", "none")}
    ritz = jax.jit(lambda krylov: (krylov.ritz().values, krylov.basis))
    return {mode: tuple(map(np.asarray, ritz(krylov))) for mode, krylov in runs.items()}


def test_o6_lanczos_with_all_steps_recovers_a_diagonal(double):
    krylov, ritz = diagonal(np.arange(1.0, N + 1))
    assert np.allclose(ritz.values, np.arange(N, 0.0, -1), atol=100 * DOUBLE)
    assert krylov.overlap < 1e-8


def test_o6_quadrature_is_exact_to_degree_2m_minus_1(double):
    operator, steps, start = matrix(N, 1 / 8), 6, probe(N)
    _, ritz = decomposed(operator, start, steps)
    assert abs(np.asarray(ritz.weights).sum() - 1) < DOUBLE
    start = np.asarray(start)
    exact = [start @ np.linalg.matrix_power(operator.matrix, q) @ start for q in range(2 * steps + 1)]
    errors = [abs(np.asarray(ritz.weights) @ np.asarray(ritz.values) ** q - moment) for q, moment in enumerate(exact)]
    assert max(errors[: 2 * steps]) < DOUBLE and errors[2 * steps] > 1e-6


def test_o6_density_of_the_identity_is_one_gaussian(double):
    _, ritz = diagonal(np.ones(N))
    grid = np.linspace(0, 2, 201)
    density = jax.jit(gaussian_density)(ritz.values, ritz.weights, grid, sigma=0.1)
    exact = np.exp(-((grid - 1) ** 2) / 0.02) / (0.1 * np.sqrt(2 * np.pi))
    assert np.allclose(ritz.values, 1, atol=DOUBLE) and np.allclose(density, exact, atol=1e-10)


@pytest.mark.parametrize("reorthogonalize", ["measured", "full"])
def test_t1_no_ghosts(outliers, reorthogonalize):
    values, basis = outliers[reorthogonalize]
    assert np.allclose(values[:8], OUTLIERS[:8], rtol=SINGLE) and np.sum(values > 0.5) == 8
    assert np.abs(basis @ basis.T - np.eye(100)).max() < 1e-4


def test_t1_without_reorthogonalisation_ghosts_inflate_the_count(outliers):
    assert np.sum(outliers["none"][0] > 0.5) > 16


def test_measured_blocks_are_as_orthogonal_as_full_and_give_the_same_values(outliers):
    (measured, basis), (full, _) = outliers["measured"], outliers["full"]
    assert np.allclose(measured[:20], full[:20], atol=100 * SINGLE)
    assert np.abs(basis @ basis.T - np.eye(100)).max() < 3e-5


def test_t2_weights_are_squared_first_components(double):
    # A start along one eigenvector sees that eigenvalue alone; whole eigenvectors would weigh all alike.
    start = np.zeros(10)
    start[3], start[7] = 0.6, 0.8
    _, ritz = decomposed(lx.DiagonalLinearOperator(jnp.arange(1.0, 11.0)), jnp.asarray(start), 2)
    assert np.allclose(ritz.values, [8.0, 4.0], atol=DOUBLE)
    assert np.allclose(ritz.weights, [0.64, 0.36], atol=DOUBLE)


@pytest.fixture(scope="module")
def halfway():
    """A matrix, and thirty steps on it, half of what it takes to exhaust the space."""
    with jax.enable_x64(True):
        operator = matrix(60)
        krylov, ritz = decomposed(operator, probe(60), 30)
        lifted = jax.jit(lambda: krylov.lift(ritz.vectors))()
    return np.asarray(operator.matrix), krylov, ritz, np.asarray(lifted)


def test_the_three_term_recurrence_holds(halfway):
    dense, krylov, _, _ = halfway
    q, beta = np.concatenate(krylov.blocks), np.asarray(krylov.beta)
    remainder = q @ dense - (np.diag(krylov.alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)) @ q
    assert np.allclose(remainder[:-1], 0, atol=DOUBLE)
    assert np.isclose(np.linalg.norm(remainder[-1]), beta[-1], atol=DOUBLE)


def test_residual_bounds_hold_the_eigenvalues(halfway):
    dense, _, ritz, vectors = halfway
    values, bounds = np.asarray(ritz.values), np.asarray(ritz.residuals)
    distances = np.abs(values[:, None] - np.linalg.eigvalsh(dense)[None, :]).min(axis=1)
    assert np.all(distances <= bounds + DOUBLE * 10)
    residuals = np.linalg.norm(vectors @ dense - values[:, None] * vectors, axis=1)
    assert np.allclose(residuals, bounds, atol=10 * DOUBLE)


def test_an_exhausted_space_goes_on_and_finds_multiple_eigenvalues(double):
    # From each start, one direction an eigenvalue; then β all but vanishes, and whatever overlap there was grows by its inverse.
    values = np.repeat([3.0, 1.0, 0.5, 0.0, -2.0], N // 5)
    krylov, ritz = diagonal(values)
    assert np.sum(np.asarray(krylov.beta)[:-1] < 1e-6) >= 3
    basis = np.concatenate(krylov.blocks)
    assert np.abs(basis @ basis.T - np.eye(N)).max() < DOUBLE
    assert np.allclose(ritz.values, values, atol=DOUBLE)


def test_zero_operator_is_finite(double):
    assert not np.asarray(diagonal(np.zeros(N))[1].values).any()


def test_agrees_with_peers(halfway, double):
    dense, _, ritz, _ = halfway
    theirs = jax.jit(decomp.tridiag_sym(30, reortho="full", materialize=True), static_argnums=0)(lambda v: dense @ v, probe(60))
    assert np.allclose(ritz.values, np.linalg.eigvalsh(theirs.J_small)[::-1], atol=1e-10)
    scipys = scipy.sparse.linalg.eigsh(dense[:N, :N], k=4, which="LA", return_eigenvectors=False)
    _, whole = decomposed(lx.MatrixLinearOperator(jnp.asarray(dense[:N, :N]), lx.symmetric_tag), probe(N), N)
    assert np.allclose(np.asarray(whole.values)[:4], scipys[::-1], atol=1e-8)


def test_vectors_may_be_pytrees(double):
    dense = np.asarray(matrix(6).matrix)
    start = {"a": jnp.ones((2, 2)), "b": jnp.ones(2)}
    unravel = ravel_pytree(start)[1]
    operator = lx.FunctionLinearOperator(lambda v: unravel(dense @ ravel_pytree(v)[0]), jax.eval_shape(lambda: start), lx.symmetric_tag)
    assert np.allclose(decomposed(operator, start, 6)[1].values, np.linalg.eigvalsh(dense)[::-1], atol=DOUBLE)
    assert np.allclose(dense_matrix(operator), dense, atol=DOUBLE)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_is_kept(double, dtype):
    operator = lx.DiagonalLinearOperator(jnp.asarray(np.arange(1.0, 21.0), dtype))
    found = eqx.filter_eval_shape(decomposed, operator, jnp.ones(20, dtype), 10)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


def test_jit_vmap_and_derivatives(double):
    n = 20
    diagonals, start = np.stack([np.arange(1.0, n + 1), np.arange(1.0, n + 1) ** 1.5]), jnp.ones(n)

    def top(diagonal):
        return lanczos(lx.DiagonalLinearOperator(diagonal), start, steps=n, throw=False).ritz().values[0]

    assert np.allclose(jax.jit(jax.vmap(top))(diagonals), diagonals.max(1), atol=1e-10)
    raising = jax.vmap(lambda d: lanczos(lx.DiagonalLinearOperator(d), start, steps=n).alpha)(jnp.asarray(diagonals))
    assert np.all(np.isfinite(raising))
    value, slope = jax.jit(lambda d, along: jax.jvp(top, (d,), (along,)))(diagonals[0], np.eye(n)[-1])
    assert np.isclose(value, n, atol=1e-10) and np.isclose(slope, 1, atol=1e-8)


def test_a_second_operator_does_not_compile_again():
    n_traces = 0

    @eqx.filter_jit
    def top(operator, start):
        nonlocal n_traces
        n_traces += 1
        return lanczos(operator, start, steps=5).ritz().values[0]

    for factor in (1, 2):
        top(lx.DiagonalLinearOperator(jnp.asarray(factor * np.arange(10.0))), jnp.ones(10))
    assert n_traces == 1


def test_products_that_are_not_finite_raise_or_are_left_to_see():
    operator = lx.DiagonalLinearOperator(jnp.array([1.0, jnp.nan, 2.0]))
    with pytest.raises(Exception, match="not finite: check the loss"):
        lanczos(operator, jnp.ones(3), steps=2)
    assert not np.isfinite(lanczos(operator, jnp.ones(3), steps=2, throw=False).alpha).all()


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


@pytest.mark.parametrize("power", [1, 2])
def test_trace_lies_within_its_standard_error(getkey, double, power):
    operator = matrix(N)
    estimate = trace_estimate(operator, key=getkey(), n_probes=400, power=power)
    a = np.linalg.matrix_power(operator.matrix, power)
    assert abs(estimate.value - np.trace(a)) < 4 * estimate.standard_error
    # Var zᵀAz = 2 Σ_{i≠j} aᵢⱼ² for signs.
    spread = np.sqrt(2 * (np.sum(a**2) - np.sum(np.diagonal(a) ** 2)) / 400)
    assert np.isclose(estimate.standard_error, spread, rtol=0.2)


def test_probes_are_uniform_on_the_sphere(double):
    operator = lx.DiagonalLinearOperator(jnp.ones(3))
    probes = np.asarray(jax.jit(jax.vmap(lambda key: random_probe(operator, key=key)))(jax.random.split(jax.random.key(3), 4000)))
    assert np.allclose(np.linalg.norm(probes, axis=1), 1)
    # Means of x, x xᵀ and x⁴ over the sphere, within five standard errors.
    assert np.abs(probes.mean(axis=0)).max() < 5 * np.sqrt(1 / 3 / 4000)
    assert np.abs(probes.T @ probes / 4000 - np.eye(3) / 3).max() < 5 * np.sqrt(4 / 45 / 4000)
    assert np.abs((probes**4).mean(axis=0) - 1 / 5).max() < 5 * np.sqrt((1 / 9 - 1 / 25) / 4000)
