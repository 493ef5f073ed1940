import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from gradatim.optim import CubicNewton, GaussNewton, GradientDescent, LogSumExp, ResidualPower, RosenbrockResidual, power_of_norm, value_at
from gradatim.optim.model_descent import Point
from gradatim.optim.regularized_solves import dual_norm

pytestmark = pytest.mark.usefixtures("double")
METHODS = {"gradient": GradientDescent, "cubic": CubicNewton}
ROUND_OFF = 1e-9


@eqx.filter_jit
def descend(fn, solver, start, args, max_steps):
    return optx.minimise(fn, solver, start, args, max_steps=max_steps, throw=False)


def indefinite(y, _):
    return jnp.sum(y**4) / 4 + y @ jnp.diag(jnp.array([-2.0, 0.5, 3.0])) @ y / 2 + y[0] * y[1] + jnp.sum(y)


METRIC = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])


@pytest.mark.parametrize("metric", [None, METRIC], ids=["identity", "metric"])
@pytest.mark.parametrize("constant", [1e-3, 1.0, 1e4])
def test_a_cubic_step_is_where_the_models_gradient_vanishes(metric, constant):
    y = jnp.array([0.3, -0.2, 0.1])
    gradient, hessian = jax.grad(indefinite)(y, None), jax.hessian(indefinite)(y, None)
    assert jnp.linalg.eigvalsh(hessian)[0] < 0

    @eqx.filter_jit
    def proposed(constant):
        root = None if metric is None else jnp.linalg.cholesky(jnp.asarray(metric))
        at = Point(indefinite(y, None), gradient, dual_norm(root, gradient), root, None)
        return CubicNewton(0.0, 0.0).model(indefinite, y, None, at).propose(constant)

    found = proposed(jnp.asarray(constant))
    B = jnp.eye(3) if metric is None else metric
    h, length = found.step, jnp.sqrt(found.step @ B @ found.step)
    np.testing.assert_allclose(found.regularization, constant * length / 2, rtol=1e-9)
    np.testing.assert_allclose(gradient + hessian @ h + constant / 2 * length * B @ h, 0, atol=ROUND_OFF * jnp.linalg.norm(gradient))
    # The global minimum of the model: H + λB is positive definite.
    assert jnp.linalg.eigvalsh(hessian + found.regularization * B)[0] > -ROUND_OFF
    model = gradient @ h + h @ hessian @ h / 2 + constant / 6 * length**3
    np.testing.assert_allclose(found.change, model, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_every_step_falls_as_its_model_promises(method):
    objective = ResidualPower(RosenbrockResidual(), 2)
    solution = descend(value_at, METHODS[method](0.0, 0.0, record=300, gradient_tol=1e-8), jnp.array([-2.0, 2.0]), objective, 300)
    trace, steps = solution.stats["trace"], int(solution.stats["num_steps"])
    values, norms, lambdas = (np.asarray(a)[:steps] for a in (trace.value, trace.gradient_norm, trace.regularization))
    fall = values - np.asarray(trace.value)[1 : steps + 1]
    # Of L for gradient descent; a cubic model falls by at least λ‖h‖²/3 + ½⟨(H + λB)h, h⟩ ≥ λ‖h‖²/3.
    promised = norms**2 / (2 * lambdas) if method == "gradient" else lambdas * np.asarray(trace.step_norm)[:steps] ** 2 / 3
    assert (fall >= promised * (1 - 1e-6) - 1e-14 * (1 + values)).all()
    assert method == "gradient" or (solution.result == optx.RESULTS.successful and np.allclose(solution.value, 1))


def test_gradient_descent_finds_the_constant_of_a_quadratic():
    solution = descend(lambda y, a: a @ y**2 / 2, GradientDescent(0.0, 0.0, record=60), jnp.ones(3), jnp.array([1.0, 7.0, 50.0]), 60)
    lambdas = np.asarray(solution.stats["trace"].regularization)
    assert np.nanmax(lambdas) <= 100


def test_constants_are_doubled_until_they_pass_and_then_halved():
    """Of L y²/2 with L = 5, which M = 8 is the first to bound; the next steps begin at 4."""
    solution = descend(lambda y, _: 5 * y @ y / 2, GradientDescent(0.0, 0.0, record=3), jnp.ones(1), None, 3)
    trace = solution.stats["trace"]
    np.testing.assert_allclose(trace.regularization, [8.0, 8.0, 8.0])
    np.testing.assert_array_equal(trace.halvings, [3, 1, 1])
    np.testing.assert_allclose(solution.value, (1 - 5 / 8) ** 3, rtol=1e-12)
    assert solution.stats["num_solves"] == 4 + 2 + 2 and solution.stats["num_gradients"] == 1 + 4 + 2 + 2


@pytest.mark.parametrize("stop", [{"value_target": 1e-3}, {"gradient_tol": 1e-2}])
def test_descent_ends_at_the_first_point_below_its_target(stop):
    solution = descend(lambda y, a: a @ y**2 / 2, GradientDescent(0.0, 0.0, record=40, **stop), jnp.ones(2), jnp.array([0.3, 1.7]), 40)
    trace, n = solution.stats["trace"], int(solution.stats["num_steps"])
    watched = np.asarray(trace.value if "value_target" in stop else trace.gradient_norm)
    (level,) = stop.values()
    assert solution.result == optx.RESULTS.successful
    assert n > 1 and watched[n] < level <= watched[n - 1]


def test_trials_of_a_step_are_limited():
    ascent = lambda y, _: jnp.sum(jax.lax.stop_gradient(y)) * 2 - jnp.sum(y)  # noqa: E731
    refused = descend(ascent, GradientDescent(0.0, 0.0, max_trials=7), jnp.ones(1), None, 10)
    assert refused.result == optx.RESULTS.nonlinear_divergence and refused.stats["num_solves"] == 7


def test_a_gradient_step_and_its_norms_are_those_of_the_metric():
    matrix, y, constant = np.diag([1.0, 2.0, 3.0]), np.array([0.3, -0.2, 0.1]), 50.0
    solver = GradientDescent(0.0, 0.0, metric=jnp.asarray(METRIC), constant=constant, record=1)
    quadratic = lambda y, _: y @ matrix @ y / 2  # noqa: E731
    solution = descend(quadratic, solver, jnp.asarray(y), None, 1)
    slopes = [matrix @ np.asarray(point) for point in (y, solution.value)]
    step = -np.linalg.solve(METRIC, slopes[0]) / constant
    np.testing.assert_allclose(solution.value, y + step, rtol=1e-12)
    trace = solution.stats["trace"]
    np.testing.assert_allclose(trace.gradient_norm, [np.sqrt(g @ np.linalg.solve(METRIC, g)) for g in slopes], rtol=1e-12)
    np.testing.assert_allclose(trace.step_norm, [np.sqrt(step @ METRIC @ step)], rtol=1e-12)
    root = np.linalg.cholesky(METRIC)
    at = Point(jnp.zeros(()), jnp.asarray(slopes[0]), jnp.ones(()), jnp.asarray(root), None)
    change = jax.jit(lambda at: solver.model(quadratic, y, None, at).propose(constant).change)(at)
    np.testing.assert_allclose(change, slopes[0] @ step + constant / 2 * step @ METRIC @ step, rtol=1e-12)


def test_the_cube_is_the_worst_case_of_the_cubic_model():
    # f = |x|³/3 has a Hessian with the Lipschitz constant 2; with M = 2 the step leaves x > 0 for no further than 0.
    solution = descend(
        lambda y, _: jnp.sum(jnp.abs(y) ** 3) / 3, CubicNewton(0.0, 0.0, constant=2.0, gradient_tol=1e-10), jnp.ones(1), None, 100
    )
    assert solution.result == optx.RESULTS.successful and abs(float(solution.value[0])) < 1e-4


def test_log_sum_exp_in_its_metric_and_an_approximate_hessian(getkey):
    rows, offset = jax.random.normal(getkey(), (30, 20)), jax.random.normal(getkey(), (30,))
    objective = LogSumExp.centred(rows, offset)
    metric = rows.T @ rows
    steps = {}
    for name, solver in (
        ("gradient", GradientDescent(0.0, 0.0, metric=metric, gradient_tol=1e-6)),
        ("cubic", CubicNewton(0.0, 0.0, metric=metric, gradient_tol=1e-6)),
    ):
        solution = descend(value_at, solver, jnp.ones(20), objective, 500)
        assert solution.result == optx.RESULTS.successful
        np.testing.assert_allclose(solution.value, 0, atol=1e-4)
        steps[name] = int(solution.stats["num_steps"])
    assert steps["cubic"] < steps["gradient"]
    inexact = GaussNewton(lambda y, objective: objective.residual(y), lambda u, objective: power_of_norm(u, objective.power))
    solver = CubicNewton(0.0, 0.0, hessian=inexact, gradient_tol=1e-8)
    found = descend(value_at, solver, jnp.array([-2.0, 2.0]), ResidualPower(RosenbrockResidual(), 2), 300)
    np.testing.assert_allclose(found.value, 1, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_trees_auxiliary_output_and_vmap(method):
    solver = METHODS[method](1e-8, 1e-8)

    @eqx.filter_jit
    def solve(start):
        objective = lambda y, _: (jnp.sum((y["a"] - 1) ** 2) + (y["b"] - 2.0) ** 2, y["b"])  # noqa: E731
        return optx.minimise(objective, solver, {"a": start, "b": start[0]}, has_aux=True, max_steps=200)

    found = solve(jnp.zeros(2))
    np.testing.assert_allclose(found.value["a"], 1, atol=1e-6)
    np.testing.assert_allclose(found.aux, 2, atol=1e-6)
    starts = jnp.array([[0.0, 1.0], [5.0, -3.0]])
    together = jax.vmap(lambda start: solve(start).value["b"])(starts)
    np.testing.assert_allclose(together, [solve(start).value["b"] for start in starts], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_or_never_passes_is_no_success(method):
    nan = descend(lambda y, _: jnp.sum(jnp.sqrt(y - 1)), METHODS[method](0.0, 0.0), jnp.zeros(1), None, 10)
    assert nan.result == optx.RESULTS.nonfinite
    # Its derivative is another function's.
    ascent = lambda y, _: jnp.sum(jax.lax.stop_gradient(y)) * 2 - jnp.sum(y)  # noqa: E731
    refused = descend(ascent, METHODS[method](0.0, 0.0), jnp.ones(1), None, 10)
    assert refused.result == optx.RESULTS.nonlinear_divergence and float(refused.value[0]) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"constant": 0.0}, "constant must be positive and finite, got 0.0"),
        ({"rtol": -1.0}, "rtol must be at least 0, got -1.0"),
        ({"max_trials": 0}, "max_trials must be at least 1, got 0"),
        ({"record": -1}, "record must be at least 0, got -1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        GradientDescent(**{"rtol": 0.0, "atol": 0.0, **settings})


@pytest.mark.filterwarnings("ignore:Complex support")
def test_complex_unknowns_are_refused():
    with pytest.raises(TypeError, match="y must be real, got a complex leaf"):
        optx.minimise(lambda y, _: jnp.sum(jnp.abs(y) ** 2), GradientDescent(1e-3, 1e-3), jnp.ones(2) + 0j)
