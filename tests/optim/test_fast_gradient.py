import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize

from gradatim.optim import FastGradient, GradientDescent

from .ravine import METRIC, ROUND_OFF, START, descend, gradient, ravine, value

pytestmark = pytest.mark.usefixtures("double")
SPECTRUM = np.geomspace(1e-6, 1.0, 120)


def quadratic(y, curvatures):
    return curvatures @ y**2 / 2


def reference(start, constant, metric, restart, steps):
    """The method in NumPy on the ravine: values, norms of gradients, L, trials after the first; where it ends, and restarts."""

    inverse = np.linalg.inv(metric)
    x, v, A, restarts = start, start, 0.0, 0
    rows = [(value(x), np.sqrt(gradient(x) @ inverse @ gradient(x)), np.nan, np.nan)]
    for _ in range(steps):
        refused = 0
        while True:
            a = (1 + np.sqrt(1 + 4 * A * constant)) / (2 * constant)
            y = (A * x + a * v) / (A + a)
            g = gradient(y)
            new = y - inverse @ g / constant
            if value(new) <= value(y) + g @ (new - y) + constant / 2 * (new - y) @ metric @ (new - y):
                break
            constant, refused = 2 * constant, refused + 1
        if restart and g @ (new - x) > 0:
            v, A, restarts = new, 0.0, restarts + 1
        else:
            v, A = new + A / a * (new - x), A + a
        x = new
        rows.append((value(x), np.sqrt(gradient(x) @ inverse @ gradient(x)), constant, refused))
        constant /= 2
    return x, np.array(rows), restarts


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("metric", [None, METRIC], ids=["identity", "metric"])
def test_the_course_is_that_of_a_plain_loop(metric, restart):
    # Later the values agree but for their rounding, and so do not tell which L passes.
    steps = 24
    solver_metric, B = (None, np.eye(3)) if metric is None else (jnp.asarray(metric), metric)
    solver = FastGradient(0.0, 0.0, metric=solver_metric, constant=0.1, restart=restart, record=steps)
    solution = descend(ravine, solver, jnp.asarray(START), (1.0, 1.0), steps)
    x, rows, restarts = reference(START, 0.1, B, restart, steps)
    trace = solution.stats["trace"]
    np.testing.assert_array_equal(trace.halvings, rows[1:, 3])
    np.testing.assert_array_equal(trace.regularization, rows[1:, 2])
    np.testing.assert_allclose(solution.value, x, atol=1e-7)
    np.testing.assert_allclose(trace.value, rows[:, 0], rtol=ROUND_OFF)
    np.testing.assert_allclose(trace.gradient_norm, rows[:, 1], rtol=1e-5, atol=1e-8)
    trials = steps + int(rows[1:, 3].sum())
    assert solution.stats["num_solves"] == trials and solution.stats["num_gradients"] == 1 + 2 * trials
    assert rows[1, 3] > 1 and (restarts > 0) == restart


def test_the_gap_keeps_its_bounds_and_falls_twice_as_fast_as_gradient_descents():
    """Curvatures evenly spread in their logarithm, unit distances: gaps of k⁻¹ without and of k⁻² with momentum."""
    steps, start = 400, jnp.ones(SPECTRUM.size)
    traces = [
        descend(quadratic, method(0.0, 0.0, record=steps), start, jnp.asarray(SPECTRUM), steps).stats["trace"]
        for method in (FastGradient, GradientDescent)
    ]
    k, late = np.arange(1, steps + 1), slice(40, None)
    fast, plain = (np.asarray(trace.value)[1:] for trace in traces)
    slopes = [np.polyfit(np.log(k[late]), np.log(gap[late]), 1)[0] for gap in (fast, plain)]
    np.testing.assert_allclose(slopes, [-2, -1], atol=0.1)
    constants, square, A = np.asarray(traces[0].regularization), float(SPECTRUM.size), 0.0
    for i, L in enumerate(constants):
        A += (1 + np.sqrt(1 + 4 * A * L)) / (2 * L)
        assert fast[i] <= square / (2 * A) * (1 + ROUND_OFF)
        assert square / (2 * A) <= 2 * constants[: i + 1].max() * square / (i + 2) ** 2 * (1 + ROUND_OFF)


def test_the_first_step_is_gradient_descents():
    ends = [
        descend(ravine, method(0.0, 0.0, constant=0.1, metric=jnp.asarray(METRIC)), jnp.asarray(START), (1.0, 1.0), 1)
        for method in (FastGradient, GradientDescent)
    ]
    np.testing.assert_allclose(ends[0].value, ends[1].value, rtol=ROUND_OFF)
    assert ends[0].stats["num_solves"] == ends[1].stats["num_solves"]


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_the_norm_is_that_of_the_gradient_where_it_ends(steps):
    solution = descend(ravine, FastGradient(0.0, 0.0, record=steps), jnp.asarray(START), (1.0, 1.0), steps)
    expected = jnp.linalg.norm(jax.jit(jax.grad(ravine))(solution.value, (1.0, 1.0)))
    np.testing.assert_allclose(solution.stats["trace"].gradient_norm[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("restart", [False, True])
def test_it_stops_at_the_first_gradient_below_the_tolerance(restart):
    solver = FastGradient(0.0, 0.0, restart=restart, gradient_tol=1e-2, record=400)
    solution = descend(ravine, solver, jnp.asarray(START), (1.0, 1.0), 400)
    n, norms = int(solution.stats["num_steps"]), np.asarray(solution.stats["trace"].gradient_norm)
    assert solution.result == optx.RESULTS.successful
    assert n > 1 and norms[n] < 1e-2 and (norms[:n] >= 1e-2).all()


def test_a_restart_makes_convergence_linear():
    curvatures = jnp.array([0.01, 0.3, 1.0])
    steps = {
        restart: int(
            descend(quadratic, FastGradient(0.0, 0.0, restart=restart, value_target=1e-18), jnp.ones(3), curvatures, 500).stats["num_steps"]
        )
        for restart in (False, True)
    }
    assert steps[True] < 100 < 300 < steps[False]


def test_the_minimum_is_scipys():
    solution = descend(ravine, FastGradient(0.0, 0.0, gradient_tol=1e-6, restart=True), jnp.asarray(START), (1.0, 1.0), 1000)
    value, gradient = (jax.jit(function) for function in (ravine, jax.grad(ravine)))
    found = scipy.optimize.minimize(
        lambda y: float(value(y, (1.0, 1.0))), START, jac=lambda y: np.asarray(gradient(y, (1.0, 1.0))), method="BFGS", tol=1e-9
    )
    assert solution.result == optx.RESULTS.successful
    # The gradient's tolerance over the least curvature.
    np.testing.assert_allclose(solution.value, found.x, atol=5e-5)


@pytest.mark.parametrize(("scale", "stretch"), [(1024.0, 1.0), (1.0, 8.0)], ids=["value", "length"])
def test_other_units_change_nothing_but_the_constant(scale, stretch):
    ends = []
    for c, s in ((1.0, 1.0), (scale, stretch)):
        solver = FastGradient(0.0, 0.0, constant=c * s**2, restart=True, record=30)
        solution = descend(ravine, solver, jnp.asarray(START / s), (c, s), 30)
        ends.append((np.asarray(solution.value) * s, np.asarray(solution.stats["trace"].halvings)))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-7)
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_a_metric_is_a_change_of_variables():
    root = np.linalg.cholesky(METRIC)
    there = descend(ravine, FastGradient(0.0, 0.0, metric=jnp.asarray(METRIC), record=25), jnp.asarray(START), (1.0, 1.0), 25)
    back = jnp.asarray(np.linalg.inv(root.T))
    turned = lambda z, args: ravine(back @ z, args)  # noqa: E731
    here = descend(turned, FastGradient(0.0, 0.0, record=25), jnp.asarray(root.T @ START), (1.0, 1.0), 25)
    np.testing.assert_allclose(back @ here.value, there.value, atol=1e-8)
    for field in ("gradient_norm", "step_norm", "regularization"):
        ours, theirs = (getattr(solution.stats["trace"], field) for solution in (there, here))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)


def test_what_is_not_finite_or_never_passes_is_no_success():
    nan = descend(lambda y, _: jnp.sum(jnp.sqrt(y - 1)), FastGradient(0.0, 0.0), jnp.zeros(1), None, 10)
    assert nan.result == optx.RESULTS.nonfinite
    # Its derivative is another function's.
    ascent = lambda y, _: jnp.sum(jax.lax.stop_gradient(y)) * 2 - jnp.sum(y)  # noqa: E731
    refused = descend(ascent, FastGradient(0.0, 0.0, max_trials=7), jnp.ones(1), None, 10)
    assert refused.result == optx.RESULTS.nonlinear_divergence and float(refused.value[0]) == 1.0
    assert refused.stats["num_solves"] == 7 and refused.stats["num_gradients"] == 15


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_trees_auxiliary_output_and_either_precision(dtype):
    solver = FastGradient(1e-3, 1e-4, restart=True, record=50)

    @eqx.filter_jit
    def solve(start):
        objective = lambda y, _: (jnp.sum((y["a"] - 1) ** 2) + 5 * (y["b"] - 2.0) ** 2, y["b"])  # noqa: E731
        return optx.minimise(objective, solver, {"a": start, "b": start[0]}, has_aux=True, max_steps=200)

    found = solve(jnp.zeros(2, dtype))
    np.testing.assert_allclose(found.value["a"], 1, atol=1e-2)
    np.testing.assert_array_equal(found.aux, found.value["b"])
    assert found.value["a"].dtype == found.stats["trace"].regularization.dtype == dtype


def test_vmap_over_starts_and_constants_is_a_loop():
    def solve(start, constant):
        solver = FastGradient(0.0, 0.0, constant=constant, gradient_tol=1e-2)
        solution = optx.minimise(ravine, solver, start, (1.0, 1.0), max_steps=200, throw=False)
        return solution.value, solution.stats["num_steps"]

    starts, constants = jnp.array([START, -0.1 * START]), jnp.array([1e-3, 100.0])
    together = jax.jit(jax.vmap(solve))(starts, constants)
    for i, row in enumerate(zip(starts, constants, strict=True)):
        alone = jax.jit(solve)(*row)
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-6)
        assert together[1][i] == alone[1]
    assert together[1][0] != together[1][1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"constant": -1.0}, "constant must be positive and finite, got -1.0"),
        ({"atol": -1.0}, "atol must be at least 0, got -1.0"),
        ({"metric": jnp.eye(2)}, r"metric must have shape \(3, 3\) for 3 unknowns, got \(2, 2\)"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        optx.minimise(ravine, FastGradient(**{"rtol": 0.0, "atol": 0.0, **settings}), jnp.asarray(START), (1.0, 1.0))


@pytest.mark.filterwarnings("ignore:Complex support")
def test_complex_unknowns_are_refused():
    with pytest.raises(TypeError, match="y must be real, got a complex leaf"):
        optx.minimise(lambda y, _: jnp.sum(jnp.abs(y) ** 2), FastGradient(1e-3, 1e-3), jnp.ones(2) + 0j)
