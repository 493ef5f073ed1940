import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from optax.projections import projection_box, projection_simplex

from gradatim.implicit import (
    FixedPointConditions,
    block_proximal_gradient,
    custom_fixed_point,
    entropic_descent,
    gradient_step,
    implicit_solution,
    iterate,
    mirror_descent,
    newton_step,
    projected_gradient,
    prox_elastic_net,
    prox_l1,
    prox_ridge,
    proximal_gradient,
    stationary,
)
from gradatim.papers.implicit_differentiation.data import classification, diabetes
from gradatim.papers.implicit_differentiation.machine import MachineData, block_coordinate_descent, dual_objective, outer_loss


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def ridge():
    table = diabetes()
    X, y = jax.device_put(table.features), jax.device_put(table.targets)

    def f(w, theta):
        return jnp.sum((X @ w - y) ** 2) / 2 + theta / 2 * jnp.sum(w**2)

    eta = 0.15
    kinds = {
        "stationary": stationary(f),
        "gradient": FixedPointConditions(gradient_step(f, stepsize=eta)),
        "newton": FixedPointConditions(newton_step(stationary(f), stepsize=0.5)),
        "mirror": FixedPointConditions(mirror_descent(f, jnp.sinh, jnp.arcsinh, stepsize=eta)),
    }

    @jax.jit
    def solve(theta):
        w = jnp.linalg.solve(X.T @ X + theta * jnp.eye(10), X.T @ y)
        exact = -jnp.linalg.solve(X.T @ X + theta * jnp.eye(10), w)
        return (
            w,
            exact,
            {name: jax.jacrev(lambda t, F=F: implicit_solution(F, w, t))(theta) for name, F in kinds.items() if name != "mirror"},
        )

    return solve


def test_ridge_regression_on_diabetes_data(ridge):
    w, exact, found = ridge(1.0)
    np.testing.assert_allclose(np.linalg.norm(w), 511.595124, rtol=1e-8)
    np.testing.assert_allclose(w[:4], [29.466112, -83.154276, 306.35268, 201.627734], rtol=1e-7)
    np.testing.assert_allclose(exact[:4], [10.857468, 68.383144, -119.362946, -68.54995], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(exact), 194.408137, rtol=1e-8)
    for name, slope in found.items():
        np.testing.assert_allclose(slope, exact, rtol=1e-8, err_msg=name)


@pytest.mark.parametrize(("theta", "norm"), [(0.1, 1030.393172), (10.0, 11.030079)])
def test_ridge_regression_at_other_penalties(ridge, theta, norm):
    _, _, found = ridge(theta)
    np.testing.assert_allclose([np.linalg.norm(slope) for slope in found.values()], norm, rtol=1e-7)


def test_lasso_on_diabetes_data():
    table = diabetes()
    X, y = jnp.asarray(table.features), jnp.asarray(table.targets - table.targets.mean())
    n = len(y)

    def f(w, data):
        return jnp.sum((data[0] @ w - data[1]) ** 2) / (2 * n)

    eta = n / 4.1
    step = proximal_gradient(f, prox_l1, stepsize=eta)
    halves = block_proximal_gradient(lambda x, data: f(jnp.concatenate(x), data), (prox_l1, prox_elastic_net), (eta, eta / 2))

    @jax.jit
    def both(alpha):
        solve = custom_fixed_point(step)(iterate(step, n_steps=4000))
        w, slope = solve(jnp.zeros(10), (X, y), alpha), jax.jacrev(solve, argnums=2)(jnp.zeros(10), (X, y), alpha)

        def blocks(alpha):
            return implicit_solution(FixedPointConditions(halves), (w[:5], w[5:]), (X, y), ((alpha,), (alpha, 0.0)))

        return w, slope, jnp.concatenate(jax.jacfwd(blocks)(alpha))

    w, slope, by_blocks = both(0.5)
    support = [2, 3, 6, 8]
    assert np.flatnonzero(w).tolist() == support
    np.testing.assert_allclose(w[jnp.array(support)], [471.0136, 136.5169, -58.3401, 408.0219], rtol=1e-5)
    np.testing.assert_allclose(slope[jnp.array(support)], [-168.5402, -266.3113, 271.2255, -153.9122], rtol=1e-5)
    assert np.count_nonzero(slope) == 4
    np.testing.assert_allclose(by_blocks, slope, rtol=1e-6, atol=1e-6)


def test_projection_on_the_simplex_and_its_derivative():
    def f(x, theta):
        return jnp.sum((x - theta) ** 2) / 2

    y = jnp.array([0.6, 0.3, -0.8, 0.5])
    x = jnp.array([7 / 15, 1 / 6, 0.0, 11 / 30])

    @jax.jit
    def jacobians(y):
        conditions = [FixedPointConditions(projected_gradient(f, projection_simplex, stepsize=eta)) for eta in (1.0, 0.3)]
        conditions.append(FixedPointConditions(entropic_descent(f, stepsize=0.5)))
        return projection_simplex(y), [jax.jacrev(lambda y, F=F: implicit_solution(F, x, y))(y) for F in conditions]

    found, slopes = jacobians(y)
    s = np.array([1.0, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(found, x, atol=1e-14)
    for slope in slopes:
        np.testing.assert_allclose(slope, np.diag(s) - np.outer(s, s) / 3, atol=1e-12)


def test_constraints_may_be_differentiated_too():
    step = projected_gradient(lambda x, theta: jnp.sum((x - theta) ** 2) / 2, lambda y, box: projection_box(y, *box), stepsize=0.7)
    x, theta, box = jnp.array([0.0, 0.5, 1.0]), jnp.array([-1.0, 0.5, 3.0]), (jnp.zeros(3), jnp.ones(3))

    def solve(theta, box):
        return implicit_solution(FixedPointConditions(step), x, theta, box)

    in_theta, (in_low, in_high) = jax.jit(jax.jacrev(solve, argnums=(0, 1)))(theta, box)
    for found, active in ((in_theta, 1), (in_low, 0), (in_high, 2)):
        np.testing.assert_allclose(found, np.diag(np.arange(3) == active), atol=1e-12)


def test_mirror_descent_in_a_curved_geometry():
    def f(x, theta):
        return jnp.sum(jnp.cosh(x) - theta * x)

    theta = jnp.array([0.5, 2.0])
    x = jnp.arcsinh(theta)
    step = mirror_descent(f, jnp.sinh, jnp.arcsinh, stepsize=0.3)
    slope = jax.jit(jax.jacrev(lambda theta: implicit_solution(FixedPointConditions(step), x, theta)))(theta)
    np.testing.assert_allclose(slope, np.diag(1 / np.cosh(x)), rtol=1e-12)


def test_entropic_descent_is_finite_at_zeros_and_far_values():
    step = entropic_descent(lambda x, theta: x @ theta)
    x = jnp.array([0.0, 1.0, 0.0])
    value, slope = jax.jit(lambda t: (step(x, t), jax.jacfwd(step, argnums=(0, 1))(x, t)))(jnp.array([-1e4, 3.0, 1e4]))
    assert value.tolist() == [0, 1, 0]
    assert all(np.isfinite(part).all() for part in slope)


@pytest.fixture(scope="module")
def machine():
    X, labels = classification(60, 20, classes=3, informative=10, seed=0)
    data = MachineData.split(X, labels, train=40)

    @jax.jit
    def solve(log_theta):
        theta = jnp.exp(log_theta)
        x = block_coordinate_descent(data.start, theta, data, n_sweeps=3000)

        def hypergradient(step):
            def solution(log):
                return implicit_solution(FixedPointConditions(step), x, (jnp.exp(log), data), linear_solver=lx.LU())

            return jax.grad(lambda log: outer_loss(solution(log), jnp.exp(log), data))(log_theta)

        steps = (
            projected_gradient(dual_objective, jax.vmap(projection_simplex), stepsize=theta / 20),
            entropic_descent(dual_objective, stepsize=theta),
        )
        return dual_objective(x, (theta, data)), outer_loss(x, theta, data), [hypergradient(step) for step in steps]

    return solve


@pytest.mark.parametrize(
    ("log_theta", "dual", "outer", "slope"),
    [(0.0, 21.227878290, 9.234157045, -3.75275165), (-2.0, 32.465120716, 25.075485749, -17.71606376)],
)
def test_hypergradient_of_a_multiclass_support_vector_machine(machine, log_theta, dual, outer, slope):
    found_dual, found_outer, slopes = machine(log_theta)
    np.testing.assert_allclose([found_dual, found_outer], [dual, outer], rtol=1e-8)
    # The projected-gradient and the mirror-descent conditions, at the answer of block coordinate descent.
    np.testing.assert_allclose(slopes, slope, rtol=1e-6)


def test_steps_are_as_long_as_they_are_asked_to_be():
    x, slope = np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0, 0.5])
    exact = x * np.exp(-0.7 * slope) / np.sum(x * np.exp(-0.7 * slope))

    def f(x, theta):
        return x @ theta

    np.testing.assert_allclose(entropic_descent(f, stepsize=0.7)(jnp.asarray(x), jnp.asarray(slope)), exact, rtol=1e-12)
    # What follows theta goes to the projection.
    mirror = mirror_descent(f, jnp.log, lambda y, total: total * jax.nn.softmax(y), stepsize=0.7)
    np.testing.assert_allclose(mirror(jnp.asarray(x), jnp.asarray(slope), 2.0), 2 * exact, rtol=1e-12)
    # G = 2 - 8 = -6, G' = 4.
    assert newton_step(lambda x, a, b: a * x**2 - b, stepsize=0.5)(jnp.array(1.0), 2.0, 8.0) == 1.75
    # Without penalties each prox has its own: v / (1 + η).
    blocks = block_proximal_gradient(lambda x, theta: theta * (x[0] + x[1]), (prox_ridge, prox_ridge), (0.5, 0.25))
    np.testing.assert_allclose(blocks((jnp.array(1.0), jnp.array(2.0)), 3.0), [-0.5 / 1.5, 1.25 / 1.25], rtol=1e-12)


def test_step_sizes_and_blocks_that_do_not_fit_are_refused():
    def f(x, theta):
        return jnp.sum((x[0] - theta) ** 2)

    for build in (
        lambda: gradient_step(f, stepsize=0.0),
        lambda: entropic_descent(f, stepsize=-1.0),
        lambda: mirror_descent(f, jnp.log, jnp.exp, stepsize=-1.0),
        lambda: newton_step(f, stepsize=0.0),
    ):
        with pytest.raises(ValueError, match="stepsize must be positive, got"):
            build()
    with pytest.raises(ValueError, match="proxes and stepsizes must be one for each block, got 1 and 2"):
        block_proximal_gradient(f, (prox_l1,), (1.0, 1.0))
    with pytest.raises(ValueError, match="x must be a tuple of 1 blocks, one for each prox, got 2"):
        block_proximal_gradient(f, (prox_l1,), (1.0,))((jnp.ones(2), jnp.ones(2)), 1.0)
