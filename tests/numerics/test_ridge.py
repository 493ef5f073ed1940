import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from scipy.linalg import expm

from gradatim.numerics import LeastSquares, least_squares
from gradatim.numerics.ridge import descent_filter, flow_filter, ridge_filter

PENALTIES, TIMES, STEPS, STEP_SIZE = np.array([0.0, 0.1, 10.0]), np.array([0.0, 0.7, 30.0, np.inf]), np.array([0, 1, 2, 7, 50]), 0.04
SAMPLES = {"fewer samples": 6, "more samples": 15}
PARAMETERS, OUTPUTS = 10, 2


@jax.jit
def solve(inputs, targets, start):
    problem = least_squares(inputs, targets)
    total = lambda penalty: jnp.sum(problem.ridge(penalty, start).weights ** 2)  # noqa: E731
    return {
        "ridge": problem.ridge(jnp.asarray(PENALTIES), start),
        "flow": problem.gradient_flow(jnp.asarray(TIMES), start),
        "descent": problem.gradient_descent(jnp.asarray(STEPS), start, step_size=STEP_SIZE),
        "minimum": problem.minimum_norm(start),
        "from zero": problem.minimum_norm(),
        "frozen": problem.frozen_fraction,
        "slope": jax.grad(total)(0.1),
        "nearby": jax.vmap(total)(jnp.array([0.1 - 1e-6, 0.1 + 1e-6])),
    }


@pytest.fixture(scope="module", params=SAMPLES)
def problem(request):
    n = SAMPLES[request.param]
    random = np.random.default_rng(0)
    inputs, targets, start = (
        random.normal(size=(n, PARAMETERS)),
        random.normal(size=(n, OUTPUTS)),
        random.normal(size=(PARAMETERS, OUTPUTS)),
    )
    with jax.enable_x64(True):
        return inputs, targets, start, jax.device_get(solve(*map(jnp.asarray, (inputs, targets, start))))


def test_ridge_solves_the_normal_equations(problem):
    X, y, w0, found = problem
    for penalty, weights in list(zip(PENALTIES, found["ridge"].weights, strict=True))[1:]:
        exact = w0 + np.linalg.solve(X.T @ X + penalty * np.eye(PARAMETERS), X.T @ (y - X @ w0))
        assert np.allclose(weights, exact, rtol=1e-10)
    assert np.allclose(found["ridge"].weights[0], found["minimum"].weights, rtol=1e-10)


def test_flow_is_the_exponential_of_its_matrix(problem):
    X, y, w0, found = problem
    for time, weights in zip(TIMES[:3], found["flow"].weights, strict=False):
        # The augmented system: dw/dt = Xᵀy - XᵀX w.
        system = np.block([[-X.T @ X, X.T @ y], [np.zeros((OUTPUTS, PARAMETERS + OUTPUTS))]])
        exact = (expm(time * system) @ np.vstack([w0, np.eye(OUTPUTS)]))[:PARAMETERS]
        assert np.allclose(weights, exact, atol=1e-10)
    assert np.allclose(found["flow"].weights[-1], found["minimum"].weights, rtol=1e-10)


def test_descent_is_its_loop(problem):
    X, y, w0, found = problem
    weights, path = w0, []
    for _ in range(STEPS[-1] + 1):
        path.append(weights)
        weights = weights + STEP_SIZE * X.T @ (y - X @ weights)
    assert np.allclose(found["descent"].weights, np.stack(path)[STEPS], atol=1e-11)


def test_minimum_norm_is_the_pseudo_inverse(problem):
    X, y, w0, found = problem
    assert np.allclose(found["from zero"].weights, np.linalg.pinv(X) @ y, rtol=1e-10)
    assert np.allclose(found["minimum"].weights, w0 + np.linalg.pinv(X) @ (y - X @ w0), rtol=1e-10)


def test_training_error_from_the_spectrum_is_that_of_the_weights(problem):
    X, y, _, found = problem
    for name in ("ridge", "flow", "descent", "minimum"):
        exact = np.mean((y - X @ found[name].weights) ** 2, axis=-2)
        assert np.allclose(found[name].training_error, exact, rtol=0, atol=1e-10)


def test_frozen_subspace_never_moves(problem):
    X, _, w0, found = problem
    n = len(X)
    null = np.eye(PARAMETERS) - np.linalg.pinv(X) @ X
    for name in ("ridge", "flow", "descent"):
        assert np.abs(null @ (found[name].weights - w0)).max() < 1e-12
    assert np.isclose(found["frozen"], max(0, 1 - n / PARAMETERS))


def test_derivative_in_the_penalty(problem):
    found = problem[3]
    assert np.isclose(found["slope"], np.diff(found["nearby"])[0] / 2e-6, rtol=1e-6)


def test_t8_null_directions_of_single_precision_stay_where_they_are():
    random = np.random.default_rng(1)
    rows = random.normal(size=(5, 10)).astype(np.float32)
    inputs, targets = np.concatenate([rows, rows]), np.concatenate([np.ones(5), np.zeros(5)]).astype(np.float32)
    fits = jax.jit(lambda X, y: least_squares(X, y).gradient_flow(jnp.array([1e3, 1e9, jnp.inf])))(inputs, targets)
    exact = np.linalg.pinv(rows.astype(float)) @ np.full(5, 0.5)
    assert fits.weights.dtype == jnp.float32
    assert np.allclose(fits.weights, exact[None], atol=1e-4) and np.allclose(fits.training_error, 0.25, atol=1e-4)


def test_filters_where_eigenvalues_are_zero():
    filters = jax.jit(lambda x, g, k: (flow_filter(x, 3.0), ridge_filter(x, g), descent_filter(x, k, step_size=0.9)))
    flow, ridge, descent = filters(jnp.array([0.0, 2.0]), jnp.array([0.0, 1.0]), jnp.array([0, 3]))
    assert np.allclose(flow, [3, (1 - np.exp(-6)) / 2])
    assert np.allclose(ridge, [[0, 0.5], [1, 1 / 3]])
    assert np.allclose(descent, [[0, 0], [2.7, (1 + 0.8**3) / 2]])


def test_bad_numbers_are_refused():
    problem = LeastSquares(jnp.eye(2), jnp.ones(2), jnp.ones(2), jnp.eye(2))
    with pytest.raises(ValueError, match="penalty must be at least 0, got -1"):
        problem.ridge(-1.0)
    with pytest.raises(ValueError, match="time must be at least 0, got"):
        problem.gradient_flow(jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="n_steps must be at least 0, got -1"):
        problem.gradient_descent(-1, step_size=0.1)
    with pytest.raises(ValueError, match="step_size must be positive, got 0"):
        problem.gradient_descent(1, step_size=0.0)
    with pytest.raises(RuntimeError, match="step_size is beyond 2 / "):
        problem.gradient_descent(1, step_size=2.1).weights.block_until_ready()
    with pytest.raises(ValueError, match=r"cutoff must lie in \[0, 1\), got 1"):
        least_squares(jnp.eye(2), jnp.ones(2), cutoff=1.0)
    with pytest.raises(ValueError, match=r"start must have shape \(2,\), parameters by outputs, got \(3,\)"):
        problem.minimum_norm(jnp.ones(3))
    # Where shapes are checked as they are declared, that check comes first.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="targets"):
        least_squares(jnp.eye(2), jnp.ones(3))


@pytest.mark.parametrize(("cutoff", "weights"), [(0.0, [1.0, 10.0, 100.0]), (1e-3, [1.0, 10.0, 0.0]), (0.5, [1.0, 0.0, 0.0])])
def test_directions_below_the_cutoff_count_as_none(double, cutoff, weights):
    # Eigenvalues are squares of singular values: 1, 0.01 and 0.0001.
    problem = least_squares(jnp.diag(jnp.array([1.0, 0.1, 0.01])), jnp.ones(3), cutoff=cutoff)
    assert np.allclose(problem.minimum_norm().weights, weights) and problem.rank == np.count_nonzero(weights)
