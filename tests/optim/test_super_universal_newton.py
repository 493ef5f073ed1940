import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
import scipy.optimize

from gradatim.optim import (
    AbstractHessian,
    FisherTerm,
    GradientNormalizedNewton,
    LinearResidual,
    MatrixHessian,
    ResidualPower,
    SuperUniversalNewton,
    value_at,
)

from .ravine import METRIC, ROUND_OFF, ROWS, START, descend, gradient, ravine, value

pytestmark = pytest.mark.usefixtures("double")
CURVATURE = np.array([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.3]])


def reference(start, constant, alpha, metric, steps):
    """The method in NumPy on the ravine: values, norms of gradients, λ, trials after the first, where it ends."""

    def dual(g):
        return np.sqrt(g @ np.linalg.solve(metric, g))

    x, rows = start, [(value(start), dual(gradient(start)), np.nan, np.nan)]
    for _ in range(steps):
        g = gradient(x)
        hessian = ROWS.T @ np.diag(1 - np.tanh(ROWS @ x - 0.3) ** 2) @ ROWS + 0.02 * np.eye(3)
        refused = 0
        while True:
            shift = constant * dual(g) ** alpha
            new = x - np.linalg.solve(hessian + shift * metric, g)
            if gradient(new) @ (x - new) >= dual(gradient(new)) ** 2 / (4 * shift):
                break
            constant, refused = 4 * constant, refused + 1
        x, constant = new, constant / 4
        rows.append((value(x), dual(gradient(x)), shift, refused))
    return x, np.array(rows)


@pytest.mark.parametrize("metric", [None, METRIC], ids=["identity", "metric"])
@pytest.mark.parametrize("alpha", [2 / 3, 0.8, 1.0])
def test_on_a_quadratic_every_step_is_closed_form_and_accepted(metric, alpha):
    """x⁺ = (A + λB)⁻¹ λB x; ⟨∇f(x⁺), -h⟩ = λ‖h‖², of which the test asks for a quarter."""
    B, solver_metric = (np.eye(3), None) if metric is None else (metric, jnp.asarray(metric))
    solver = SuperUniversalNewton(0.0, 0.0, alpha=alpha, metric=solver_metric, constant=5.0, record=4)
    solution = descend(lambda y, _: y @ CURVATURE @ y / 2, solver, jnp.asarray(START), None, 4)
    x, shifts = START, []
    for k in range(4):
        g = CURVATURE @ x
        shifts.append(5.0 / 4**k * np.sqrt(g @ np.linalg.solve(B, g)) ** alpha)
        x = np.linalg.solve(CURVATURE + shifts[-1] * B, shifts[-1] * B @ x)
    np.testing.assert_allclose(solution.stats["trace"].regularization, shifts, rtol=ROUND_OFF)
    np.testing.assert_allclose(solution.value, x, rtol=1e-7)
    assert solution.stats["num_solves"] == 4 and solution.stats["num_gradients"] == 5 and solution.stats["num_failed_solves"] == 0


@pytest.mark.parametrize(("metric", "alpha"), [(None, 1.0), (METRIC, 2 / 3)], ids=["identity", "metric"])
def test_the_course_is_that_of_a_plain_loop(metric, alpha):
    # One more step ends at the rounding of the gradient.
    steps = 7
    solver_metric, B = (None, np.eye(3)) if metric is None else (jnp.asarray(metric), metric)
    solver = SuperUniversalNewton(0.0, 0.0, alpha=alpha, metric=solver_metric, constant=1e-3, record=steps)
    solution = descend(ravine, solver, jnp.asarray(START), (1.0, 1.0), steps)
    x, rows = reference(START, 1e-3, alpha, B, steps)
    trace = solution.stats["trace"]
    np.testing.assert_allclose(solution.value, x, atol=ROUND_OFF)
    np.testing.assert_allclose(trace.value, rows[:, 0], rtol=ROUND_OFF)
    np.testing.assert_allclose(trace.gradient_norm, rows[:, 1], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(trace.regularization, rows[1:, 2], rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(trace.halvings, rows[1:, 3])
    # Trials were refused on the way.
    assert rows[1:, 3].max() > 1 and solution.stats["num_solves"] == steps + rows[1:, 3].sum()


@pytest.mark.parametrize("alpha", [2 / 3, 1.0])
@pytest.mark.parametrize("constant", [1e-4, 1.0, 1e3])
def test_every_step_falls_by_what_the_test_implies_for_convex_functions(alpha, constant):
    solver = SuperUniversalNewton(0.0, 0.0, alpha=alpha, constant=constant, gradient_tol=1e-9, record=60)
    solution = descend(ravine, solver, jnp.asarray(START), (1.0, 1.0), 60)
    trace, n = solution.stats["trace"], int(solution.stats["num_steps"])
    assert solution.result == optx.RESULTS.successful
    values, norms, shifts = (np.asarray(a) for a in (trace.value, trace.gradient_norm, trace.regularization))
    fall, promised = values[:n] - values[1 : n + 1], norms[1 : n + 1] ** 2 / (4 * shifts[:n])
    assert (fall >= promised - 1e-14 * values[0]).all()
    # H: what λ is over the power of the gradient's norm, doubled twice a refusal and halved twice a step.
    H = shifts[:n] / norms[:n] ** alpha
    np.testing.assert_allclose(H[0], constant * 4.0 ** trace.halvings[0], rtol=1e-9)
    np.testing.assert_allclose(H[1:], H[:-1] / 4 * 4.0 ** np.asarray(trace.halvings)[1:n], rtol=1e-6)


def test_the_minimum_is_scipys():
    solution = descend(ravine, SuperUniversalNewton(0.0, 0.0, gradient_tol=1e-10), jnp.asarray(START), (1.0, 1.0), 100)
    value, gradient = (jax.jit(function) for function in (ravine, jax.grad(ravine)))
    found = scipy.optimize.minimize(
        lambda y: float(value(y, (1.0, 1.0))), START, jac=lambda y: np.asarray(gradient(y, (1.0, 1.0))), method="BFGS", tol=1e-9
    )
    np.testing.assert_allclose(solution.value, found.x, atol=1e-6)


@pytest.mark.parametrize(("scale", "stretch"), [(1024.0, 1.0), (1.0, 8.0)], ids=["value", "length"])
@pytest.mark.parametrize("alpha", [2 / 3, 1.0])
def test_other_units_change_nothing_but_the_constant(scale, stretch, alpha):
    """H goes as f^(1 - α) and, the gradient being 1/s as long, as s^(2 - α)."""
    ends = []
    for c, s in ((1.0, 1.0), (scale, stretch)):
        solver = SuperUniversalNewton(0.0, 0.0, alpha=alpha, constant=1e-3 * c ** (1 - alpha) * s ** (2 - alpha), record=6)
        solution = descend(ravine, solver, jnp.asarray(START / s), (c, s), 6)
        ends.append((np.asarray(solution.value) * s, np.asarray(solution.stats["trace"].halvings)))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-6)
    np.testing.assert_array_equal(ends[0][1], ends[1][1])


def test_a_metric_is_a_change_of_variables():
    root = np.linalg.cholesky(METRIC)
    inside = SuperUniversalNewton(0.0, 0.0, metric=jnp.asarray(METRIC), record=6)
    there = descend(ravine, inside, jnp.asarray(START), (1.0, 1.0), 6)
    outside = SuperUniversalNewton(0.0, 0.0, record=6)
    back = jnp.asarray(np.linalg.inv(root.T))
    here = descend(lambda z, args: ravine(back @ z, args), outside, jnp.asarray(root.T @ START), (1.0, 1.0), 6)
    np.testing.assert_allclose(back @ here.value, there.value, atol=1e-8)
    for field in ("gradient_norm", "step_norm", "regularization", "radius"):
        ours, theirs = (getattr(solution.stats["trace"], field) for solution in (there, here))
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_the_first_step_with_power_one_is_gradient_regularised_newtons():
    ours = descend(ravine, SuperUniversalNewton(0.0, 0.0, constant=0.5), jnp.asarray(START), (1.0, 1.0), 1)
    other = GradientNormalizedNewton(0.0, 0.0, gamma0=2.0, jitter=0.0, test="gradient")
    theirs = descend(ravine, other, jnp.asarray(START), (1.0, 1.0), 1)
    assert ours.stats["num_solves"] == theirs.stats["num_solves"] == 1
    np.testing.assert_allclose(ours.value, theirs.value, rtol=ROUND_OFF)


def test_few_rows_are_solved_as_their_matrix_is(getkey):
    objective = ResidualPower(LinearResidual(jax.random.normal(getkey(), (6, 3)), jnp.ones(6)), 4)
    few = FisherTerm(lambda y, objective: objective.residual(y), 4.0)
    dense = MatrixHessian(lambda y, objective: few(value_at, y, objective).as_matrix())
    ends = [descend(value_at, SuperUniversalNewton(0.0, 0.0, hessian=h), jnp.asarray(START), objective, 5) for h in (few, dense)]
    np.testing.assert_allclose(ends[0].value, ends[1].value, rtol=1e-7)
    assert ends[0].stats["num_solves"] == ends[1].stats["num_solves"]


def double_well(y, _):
    return jnp.sum(y**4 / 4 - y**2 / 2)


def test_a_factorisation_that_fails_is_refused():
    """At 0.1 f″ = -0.97 and |f′| = 0.099: λ = 0.099 and 0.396 leave the matrix negative, 1.584 does not."""
    solution = descend(double_well, SuperUniversalNewton(0.0, 0.0, record=1), jnp.array([0.1]), None, 1)
    assert solution.stats["num_failed_solves"] == 2 and solution.stats["num_solves"] == 3
    np.testing.assert_allclose(solution.stats["trace"].regularization, [16 * 0.099], rtol=1e-12)
    np.testing.assert_allclose(solution.value, [0.1 + 0.099 / (16 * 0.099 - 0.97)], rtol=1e-12)
    never = descend(double_well, SuperUniversalNewton(0.0, 0.0, max_trials=2), jnp.array([0.1]), None, 5)
    assert never.result == optx.RESULTS.nonlinear_divergence and float(never.value[0]) == 0.1
    assert never.stats["num_failed_solves"] == never.stats["num_solves"] == 2


def test_what_is_not_finite_is_no_success():
    nan = descend(lambda y, _: jnp.sum(jnp.sqrt(y - 1)), SuperUniversalNewton(0.0, 0.0), jnp.zeros(1), None, 10)
    assert nan.result == optx.RESULTS.nonfinite
    hessian = MatrixHessian(lambda y, _: jnp.full((3, 3), jnp.nan))
    held = descend(ravine, SuperUniversalNewton(0.0, 0.0, hessian=hessian), jnp.asarray(START), (1.0, 1.0), 10)
    assert held.result == optx.RESULTS.nonfinite and held.stats["num_solves"] == 0
    np.testing.assert_array_equal(held.value, START)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_trees_auxiliary_output_and_either_precision(dtype):
    solver = SuperUniversalNewton(1e-3, 1e-4, alpha=2 / 3, record=50)

    @eqx.filter_jit
    def solve(start):
        objective = lambda y, _: (jnp.sum(jnp.cosh(y["a"] - 1)) + jnp.cosh(y["b"] - 2), y["b"])  # noqa: E731
        return optx.minimise(objective, solver, {"a": start, "b": start[0]}, has_aux=True, max_steps=200)

    found = solve(jnp.zeros(2, dtype))
    np.testing.assert_allclose(found.value["a"], 1, atol=1e-3)
    np.testing.assert_array_equal(found.aux, found.value["b"])
    assert found.value["a"].dtype == found.stats["trace"].regularization.dtype == dtype


def test_vmap_over_starts_and_settings_is_a_loop():
    def solve(start, constant, alpha):
        solver = SuperUniversalNewton(0.0, 0.0, constant=constant, alpha=alpha, gradient_tol=1e-6)
        solution = optx.minimise(ravine, solver, start, (1.0, 1.0), max_steps=100, throw=False)
        return solution.value, solution.stats["num_steps"]

    starts, constants, alphas = jnp.array([START, -START]), jnp.array([1e-3, 10.0]), jnp.array([2 / 3, 1.0])
    together = jax.jit(jax.vmap(solve))(starts, constants, alphas)
    for i, row in enumerate(zip(starts, constants, alphas, strict=True)):
        alone = jax.jit(solve)(*row)
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-9)
        assert together[1][i] == alone[1]
    assert together[1][0] != together[1][1]


class Lopsided(AbstractHessian):
    size: int

    def __call__(self, fn, y, args):
        tags = () if self.size == 3 else lx.symmetric_tag
        return lx.MatrixLinearOperator(jnp.eye(self.size), tags)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.6}, r"alpha must lie in \[2/3, 1\], got 0.6"),
        ({"alpha": 1.1}, r"alpha must lie in \[2/3, 1\], got 1.1"),
        ({"constant": 0.0}, "constant must be positive and finite, got 0.0"),
        ({"hessian": Lopsided(2)}, "hessian must act on 3 unknowns, got an operator on 2"),
        ({"hessian": Lopsided(3)}, "hessian must be a symmetric operator"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        optx.minimise(ravine, SuperUniversalNewton(**{"rtol": 0.0, "atol": 0.0, **settings}), jnp.asarray(START), (1.0, 1.0))
