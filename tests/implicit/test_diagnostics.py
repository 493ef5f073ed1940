import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import check_implicit, implicit_solution, stationary


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def objective(x, theta):
    """Strongly convex: a quadratic with a diagonal that is differentiated, and a quartic."""
    Q, diagonal, target = theta
    return x @ Q @ x / 2 + jnp.sum(diagonal * x**2) / 2 - target @ x + jnp.sum(x**4) / 12


conditions = stationary(objective)


@jax.jit
def _found(x, theta):
    check = check_implicit(conditions, x, theta, tags=lx.positive_semidefinite_tag, iterations=60)
    jacobian = jax.jacfwd(lambda d: implicit_solution(conditions, x, (theta[0], d, theta[2])))(theta[1])

    def newton(_, x):
        return x - jnp.linalg.solve(jax.hessian(objective)(x, theta), jax.grad(objective)(x, theta))

    solution = jax.lax.fori_loop(0, 30, newton, x)
    exact = jax.jacfwd(lambda d: implicit_solution(conditions, solution, (theta[0], d, theta[2])))(theta[1])
    return check, jacobian, solution, exact, jax.hessian(objective)(x, theta)


def draw(seed, distance):
    random = np.random.default_rng(seed)
    root = random.normal(size=(4, 4))
    theta = (root @ root.T / 4 + 0.2 * np.eye(4), random.uniform(0.5, 2, 4), random.normal(size=4))
    x = random.normal(size=4)
    # A target that makes x a solution, and a point beside it.
    gradient = np.asarray(theta[0] @ x + theta[1] * x + x**3 / 3)
    return x + distance * random.normal(size=4), (theta[0], theta[1], gradient)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(1e-4, 0.3))
def test_the_bound_of_theorem_1_holds_with_its_true_constants(seed, distance):
    near, theta = draw(seed, distance)
    _, jacobian, solution, exact, _ = _found(near, theta)
    gap = np.linalg.norm(near - solution)
    # A = Q + diag(d + x²), B = diag(x) up to their sign: on the ball around x*, β = 1, γ = 2 max|x|, R = max|x*|.
    alpha = np.linalg.eigvalsh(theta[0] + np.diag(theta[1]))[0]
    beta, gamma, R = 1.0, 2 * (np.abs(solution).max() + gap), np.abs(solution).max()
    assert np.linalg.norm(jacobian - exact, 2) <= (beta / alpha + gamma * R / alpha**2) * gap * (1 + 1e-9)


def test_the_check_measures_what_it_names():
    near, theta = draw(3, 1e-3)
    check, _, solution, _, hessian = _found(near, theta)
    values = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(check.residual, np.linalg.norm(jax.grad(objective)(near, theta)), rtol=1e-10)
    np.testing.assert_allclose(check.distance, np.linalg.norm(near - solution), rtol=1e-2)
    np.testing.assert_allclose([check.smallest, check.largest], [values[0], values[-1]], rtol=1e-3)
    np.testing.assert_allclose(check.condition, values[-1] / values[0], rtol=2e-3)
    assert check.linear_residual < 1e-10


def test_the_estimated_error_covers_the_error():
    ratios = []
    for seed in range(10):
        near, theta = draw(seed, 1e-2)
        check, jacobian, _, exact, _ = _found(near, theta)
        ratios.append(np.linalg.norm(jacobian - exact, 2) / float(check.jacobian_error))
    # The check is for the derivative in all of theta, of which the diagonal is a part.
    assert max(ratios) < 1


def test_at_a_solution_there_is_no_error_left():
    near, theta = draw(0, 0.1)
    solution = _found(near, theta)[2]
    check = _found(solution, theta)[0]
    assert float(check.residual) < 1e-12 and float(check.jacobian_error) < 1e-10 and np.isfinite(check.linear_residual)


def test_every_number_of_a_check_is_that_of_dense_algebra_where_nothing_is_symmetric():
    M, b, x = np.array([[2.0, 1.5], [-0.5, 1.0]]), np.array([1.0, 0.5]), np.array([0.6, 0.4])

    def jacobians(x):
        return M + 3 * np.diag(x**2), np.concatenate([np.kron(np.eye(2), x), -np.eye(2)], axis=1)

    value = M @ x + x**3 - b
    A, B = jacobians(x)
    move = np.linalg.solve(A, value)
    A_next, B_next = jacobians(x - move)
    norms = [np.linalg.norm(matrix, 2) for matrix in (A_next - A, B, B_next - B)]
    values = np.linalg.svd(A, compute_uv=False)

    @jax.jit
    def check(x, M, b):
        return check_implicit(lambda x, M, b: M @ x + x**3 - b, x, M, b, iterations=60)

    found = check(*map(jax.device_put, (x, M, b)))
    np.testing.assert_allclose([found.residual, found.distance], [np.linalg.norm(value), np.linalg.norm(move)], rtol=1e-10)
    np.testing.assert_allclose([found.smallest, found.largest], values[::-1], rtol=1e-6)
    np.testing.assert_allclose(found.jacobian_error, norms[2] / values[1] + norms[0] * norms[1] / values[1] ** 2, rtol=1e-6)


def test_iterations_are_checked():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        check_implicit(conditions, jnp.ones(4), draw(0, 0.0)[1], iterations=0)
