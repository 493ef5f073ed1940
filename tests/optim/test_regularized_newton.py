import warnings

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from scipy import integrate

from gradatim import datasets
from gradatim.optim import (
    ChebyshevResidual,
    EmpiricalFisher,
    ExactHessian,
    FadingValley,
    FadingWaves,
    FisherTerm,
    GaussNewton,
    GradientNormalizedNewton,
    LinearResidual,
    LogisticRegression,
    LogSumExp,
    LowRankOperator,
    MatrixHessian,
    ResidualPower,
    RosenbrockResidual,
    SlackChain,
    WeightedGaussNewton,
    ZeroHessian,
    power_of_norm,
    value_at,
)
from gradatim.optim.regularized_solves import direct, woodbury

pytestmark = pytest.mark.usefixtures("double")
ROUND_OFF = 1e-11  # double precision, a few hundred operations
SEED = 3124  # of NumPy's legacy generator, as in the authors' notebook
RECORD = 400
ITERATIONS, SOLVES = 2, 0.1  # tolerance of the counts: another order of sums may tip a trial

RESIDUAL = lambda y, objective: objective.residual(y)  # noqa: E731
INEXACT = GaussNewton(RESIDUAL, lambda u, objective: power_of_norm(u, objective.power))
RANK_ONE = FisherTerm(RESIDUAL, lambda objective: objective.power)
WEIGHTED = WeightedGaussNewton(lambda y, objective: objective.scores(y), lambda u, objective: objective.weights(u))
LOGISTIC_FISHER = EmpiricalFisher(lambda y, objective: objective.losses(y), 1e-3)


@eqx.filter_jit
def solved(fn, solver, start, args, how):
    return optx.minimise(fn, solver, start, args, **dict(how))


def descend(fn, solver, start, args=None, **how):
    """optimistix's function in one compiled program, the same one for the same function and the same kinds of settings."""
    numbers = ("gamma0", "gamma_min", "jitter", "memory", "gradient_tol", "value_target")
    solver = eqx.tree_at(
        lambda solver: [getattr(solver, name) for name in numbers],
        solver,
        # Limits that are never met in the place of none.
        [
            jnp.asarray({"gradient_tol": 0.0, "value_target": -jnp.inf}.get(name) if (x := getattr(solver, name)) is None else x)
            for name in numbers
        ],
        is_leaf=lambda leaf: leaf is None,
    )
    return solved(fn, solver, start, args, tuple(how.items()))


def minimise(objective, start, hessian=None, *, max_steps=1000, throw=False, rtol=0.0, atol=0.0, record=RECORD, **settings):
    solver = GradientNormalizedNewton(rtol, atol, hessian=hessian, record=record, **settings)
    return descend(value_at, solver, jnp.asarray(start), objective, max_steps=max_steps, throw=throw)


def traced(solution):
    """The steps that it took, and the trace of them."""
    return int(solution.stats["num_steps"]), jax.tree.map(np.asarray, solution.stats["trace"])


def is_successful(solution):
    return bool(solution.result == optx.RESULTS.successful)


def log_sum_exp(n, room=200):
    """With unknowns and exponentials that nothing depends on, up to `room`, so that all sizes have one program."""
    random = np.random.RandomState(SEED)
    design, offset = random.rand(n, n) * 2 - 1, random.rand(n) * 2 - 1
    weights = np.exp(-offset) / np.exp(-offset).sum()
    rows, metric = np.zeros((room, room)), np.eye(room)
    rows[:n, :n], metric[:n, :n] = design.T - weights @ design.T, design @ design.T
    objective = LogSumExp(jnp.asarray(rows), jnp.asarray(np.concatenate([offset, np.full(room - n, 1e6)])))
    return objective, np.ones(room), {"metric": jnp.asarray(metric), "value_target": np.log(np.exp(-offset).sum()) + 1e-8}


def rosenbrock(power):
    return ResidualPower(RosenbrockResidual(), power), np.array([-2.0, 2.0]), {"value_target": 1e-8}


def linear():
    random = np.random.RandomState(SEED)
    matrix, offset = random.rand(100, 200) * 2 - 1, random.rand(100) * 2 - 1
    objective = ResidualPower(LinearResidual(jnp.asarray(matrix), jnp.asarray(offset)), 4)
    return objective, np.ones(200), {"metric": jnp.asarray(matrix.T @ matrix + 1e-8 * np.eye(200)), "value_target": 1e-8}


class FirstEquations(eqx.Module):
    """Some of Chebyshev's equations, so that all numbers of them have one program."""

    chosen: jax.Array
    every: ChebyshevResidual = ChebyshevResidual()

    def __call__(self, x):
        return self.chosen * self.every(x)


def chebyshev(n, room=200):
    chosen = jnp.arange(room) < n
    start = np.pad(np.random.RandomState(SEED).rand(n), (0, room - n))
    return ResidualPower(FirstEquations(chosen.astype(float)), 4), start, {"value_target": 1e-8}


def logistic(penalty):
    table = datasets.breast_cancer()
    features = (table.features - table.features.mean(0)) / table.features.std(0) * (2 * table.labels - 1)[:, None]
    return LogisticRegression(jnp.asarray(features), jnp.asarray(penalty)), np.zeros(30), {"gradient_tol": 1e-6}


COUNTS = {
    "LogSumExp 100, exact": (lambda: log_sum_exp(100), None, 14, 22),
    "LogSumExp 100, weighted": (lambda: log_sum_exp(100), WEIGHTED, 21, None),
    "LogSumExp 100, zero": (lambda: log_sum_exp(100), ZeroHessian(), 41, None),
    "LogSumExp 200, exact": (lambda: log_sum_exp(200), None, 18, None),
    "LogSumExp 200, weighted": (lambda: log_sum_exp(200), WEIGHTED, 30, None),
    "LogSumExp 200, zero": (lambda: log_sum_exp(200), ZeroHessian(), 64, None),
    "Rosenbrock p=2, exact": (lambda: rosenbrock(2), None, 51, 105),
    "Rosenbrock p=2, inexact": (lambda: rosenbrock(2), INEXACT, 49, None),
    "Rosenbrock p=5, exact": (lambda: rosenbrock(5), None, 56, 114),
    "Rosenbrock p=5, inexact": (lambda: rosenbrock(5), INEXACT, 57, None),
    "linear p=4, exact": (linear, None, 27, 55),
    "linear p=4, rank one": (linear, RANK_ONE, 18, None),
    "linear p=4, zero": (linear, ZeroHessian(), 10, None),
    "Chebyshev 50, exact": (lambda: chebyshev(50), None, 20, None),
    "Chebyshev 50, inexact": (lambda: chebyshev(50), INEXACT, 20, None),
    "Chebyshev 200, exact": (lambda: chebyshev(200), None, 25, None),
    "Chebyshev 200, inexact": (lambda: chebyshev(200), INEXACT, 22, None),
    "logistic, exact": (lambda: logistic(1e-3), None, 9, None),
    "logistic, Fisher": (lambda: logistic(1e-3), LOGISTIC_FISHER, 127, None),
    "logistic, zero": (lambda: logistic(1e-3), ZeroHessian(), 351, None),
    "logistic without penalty, exact": (lambda: logistic(0.0), None, 39, None),
}


@pytest.mark.parametrize("case", COUNTS)
def test_iterations_decrease_and_halvings(case):
    make, hessian, iterations, solves = COUNTS[case]
    objective, start, settings = make()
    solution = minimise(objective, start, hessian, **settings)
    n, trace = traced(solution)
    assert is_successful(solution) and abs(n - iterations) <= ITERATIONS
    if solves is not None:
        assert abs(int(solution.stats["num_solves"]) - solves) <= SOLVES * solves
    if case.startswith("logistic,"):
        assert abs(float(objective(solution.value)) - 0.0598397746) < 1e-9
    # Each accepted step: f(x) - f(x⁺) ≥ γ ‖g⁺‖⁎² / (8 ‖g‖⁎), up to the rounding of f.
    values, norms, radii = trace.value[: n + 1], trace.gradient_norm[: n + 1], trace.radius[:n]
    assert np.isfinite(values).all() and np.isnan(trace.value[n + 1 :]).all()
    assert (values[:-1] - values[1:] >= radii * norms[1:] ** 2 / (8 * norms[:-1]) - 1e-12 * abs(values[:-1])).all()
    assert (np.diff(values) <= 1e-15 * abs(values[:-1])).all()
    np.testing.assert_allclose(trace.regularization[:n], norms[:-1] / radii, rtol=1e-12)
    # A semidefinite H keeps the step within the radius; the exact Hessian of the Chebyshev chain is not.
    if not case.startswith("Chebyshev") or "inexact" in case:
        assert (trace.step_norm[:n] <= radii * (1 + 1e-9)).all()
    # Every success doubles the radius once, so halvings are at most steps and what the radius lost.
    halvings = float(np.nansum(trace.halvings))
    assert halvings == int(solution.stats["num_solves"]) - n
    assert halvings <= n + np.log2(1.0 / radii.min()) + 1e-6


# Small objectives of one program: five unknowns, of which some use the first alone.

SPREAD = np.geomspace(1.0, 100.0, 5)
SMALL = {
    "Rosenbrock": lambda y: (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2,
    "quadratic": lambda y: 0.5 * jnp.sum(jnp.asarray(SPREAD) * y**2),
    "round quadratic": lambda y: 1.5 * jnp.sum(y**2),
    "narrow quadratic": lambda y: y[0] ** 2 + 3 * y[1] ** 2,
    "parabola": lambda y: 0.5 * y[0] ** 2,
    "quartic": lambda y: y[0] ** 4 / 4,
    "cosine": lambda y: jnp.cos(y[0]),
    "hyperbolic cosine": lambda y: jnp.exp(y[0]) + jnp.exp(-y[0]),
    "two of them": lambda y: jnp.sum(jnp.cosh(y[:2] - 1)) + 0.1 * y[0] ** 3,
    "NaN": lambda y: y[0] + jnp.nan,
    "infinity": lambda y: y[0] + jnp.inf,
}


def small(y, args):
    scale, stretch, number = args
    return scale * jax.lax.switch(number, list(SMALL.values()), stretch * y)


def descend_small(name, start, hessian=None, scale=1.0, stretch=1.0, **settings):
    """The solution, its steps, its trace."""
    solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian, record=RECORD, **({"jitter": 0.0} | settings))
    start = np.pad(np.asarray(start, float), (0, 5 - len(start)))
    args = (jnp.asarray(scale), jnp.asarray(stretch), jnp.asarray(list(SMALL).index(name)))
    solution = descend(small, solver, jnp.asarray(start), args, throw=False)
    return solution, *traced(solution)


def test_first_values_of_rosenbrock():
    _, n, trace = descend_small("Rosenbrock", [-2.0, 2.0], value_target=1e-8, jitter=1e-8)
    np.testing.assert_allclose(trace.value[:4], [409.0, 87.403027707, 10.568932891, 6.214620528], rtol=1e-9)
    assert n == 51


def test_scaling_the_objective_changes_no_step():
    plain = descend_small("Rosenbrock", [-2.0, 2.0], value_target=1e-8)[2]
    scaled = descend_small("Rosenbrock", [-2.0, 2.0], scale=1000.0, value_target=1e-5)[2]
    np.testing.assert_allclose(scaled.step_norm, plain.step_norm, rtol=1e-7)
    np.testing.assert_array_equal(scaled.radius, plain.radius)


def test_scaling_the_unknowns_scales_the_radius():
    s = 4.0
    plain, _, trace = descend_small("Rosenbrock", [-2.0, 2.0], value_target=1e-8)
    scaled, _, other = descend_small("Rosenbrock", [-2.0 / s, 2.0 / s], stretch=s, value_target=1e-8, gamma0=1 / s, gamma_min=1e-9 / s)
    np.testing.assert_allclose(other.value, trace.value, rtol=1e-7)
    np.testing.assert_allclose(s * scaled.value, plain.value, rtol=1e-9)


def transformed(y, args):
    objective, transform = args
    return objective(transform @ y)


def course(transform, metric, start):
    objective, _, settings = log_sum_exp(20, room=20)
    solver = GradientNormalizedNewton(0.0, 0.0, value_target=settings["value_target"], metric=jnp.asarray(metric), record=30)
    return descend(transformed, solver, jnp.asarray(start), (objective, jnp.asarray(transform))).stats


def test_a_metric_is_a_change_of_variables():
    _, start, settings = log_sum_exp(20, room=20)
    root = np.linalg.cholesky(settings["metric"]).T  # y = Lᵀx has the identity for a metric
    inside = course(np.eye(20), settings["metric"], start)
    outside = course(np.linalg.inv(root), np.eye(20), root @ start)
    assert int(inside["num_solves"]) == int(outside["num_solves"])
    for name in ("value", "gradient_norm", "step_norm"):
        np.testing.assert_allclose(getattr(outside["trace"], name), getattr(inside["trace"], name), rtol=1e-5)


def test_quadratic_with_its_hessian_doubles_without_halving():
    _, n, trace = descend_small("quadratic", [100.0] * 5, gradient_tol=1e-9)
    np.testing.assert_array_equal(trace.radius[:n], 2.0 ** np.arange(n))
    np.testing.assert_allclose(trace.regularization[:n], trace.gradient_norm[:n] / 2.0 ** np.arange(n), rtol=1e-14)
    rates = trace.gradient_norm[1 : n + 1] / trace.gradient_norm[:n]
    assert (np.diff(rates[2:]) < 0).all() and rates[-1] < 1e-2


def test_zero_hessian_and_the_right_radius_land_on_the_minimum():
    solution, n, trace = descend_small("round quadratic", [3.0, 4.0], ZeroHessian(), gamma0=5.0)
    assert n == 1 and not np.asarray(solution.value).any() and trace.regularization[0] == 3.0


def test_one_step_on_a_quartic():
    solution, n, trace = descend_small("quartic", [2.0], value_target=3.9)
    assert n == 1 and float(trace.regularization[0]) == 8.0
    np.testing.assert_allclose(np.asarray(solution.value)[0], 1.6, rtol=1e-14)


def test_local_rate_is_quadratic_and_regularisation_vanishes():
    _, n, trace = descend_small("two of them", [-2.0, 2.0], gradient_tol=1e-13)
    norms = trace.gradient_norm[: n + 1]
    close = np.flatnonzero((norms[:-1] < 1) & (norms[1:] > 1e-14))
    assert close.size >= 2 and (norms[close + 1] <= 3 * norms[close] ** 2).all()
    assert trace.regularization[n - 1] < 1e-5


def test_a_success_lifts_the_radius_to_its_least_value():
    _, n, trace = descend_small("quadratic", [100.0] * 5, gradient_tol=1e-9, gamma0=1e-3, gamma_min=0.5)
    np.testing.assert_array_equal(trace.radius[:n], [1e-3, *0.5 * 2.0 ** np.arange(n - 1)])


SIX = MatrixHessian(lambda y, _: 6 * jnp.eye(5))


@pytest.mark.parametrize(("test", "halvings"), [("value", 0), ("gradient", 1)])
def test_values_must_fall_by_an_eighth_and_slopes_by_a_quarter(test, halvings):
    """y²/2 from 1 with H = 6: for λ = 1 to 6/7, where 13/98 ≥ (6/7)²/8, but 6/49 < (6/7)²/4; for λ = 2 to 7/8, where 7/64 ≥ (7/8)²/8."""
    solution, n, trace = descend_small("parabola", [1.0], SIX, test=test, value_target=0.49)
    assert n == 1 and trace.halvings[0] == halvings
    np.testing.assert_allclose(np.asarray(solution.value)[0], (6 + halvings) / (7 + halvings), rtol=1e-14)
    assert solution.stats["num_solves"] == 1 + halvings and solution.stats["num_gradients"] == 2 + halvings


def test_conjugate_gradients_that_run_out_of_products_are_refused():
    solution, _, _ = descend_small("quadratic", [100.0] * 5, gradient_tol=1.0, linear_solver="cg", max_products=2)
    assert is_successful(solution) and solution.stats["num_failed_solves"] > 3
    assert solution.stats["num_products"] <= 3 * solution.stats["num_solves"]


# Beyond the paper: a memory of values, and doubling within a step.

FASTER = {"LogSumExp 100, exact": (11, 29), "LogSumExp 200, exact": (14, 34), "Rosenbrock p=2, exact": (24, 55)}


@pytest.mark.parametrize("case", FASTER)
def test_memory_and_doubling_take_fewer_steps(case):
    make, _, paper, _ = COUNTS[case]
    if case.startswith("Rosenbrock"):
        solution, n, trace = descend_small("Rosenbrock", [-2.0, 2.0], scale=0.5, value_target=1e-8, memory=0.85, search="both")
    else:
        objective, start, settings = make()
        solution = minimise(objective, start, memory=0.85, search="both", **settings)
        n, trace = traced(solution)
    steps, solves = FASTER[case]
    assert is_successful(solution) and abs(n - steps) <= ITERATIONS and n < paper
    assert abs(int(solution.stats["num_solves"]) - solves) <= 2 * SOLVES * solves
    # C - f(x⁺) ≥ γ ‖g⁺‖⁎² / (8 ‖g‖⁎), with the mean C of the values before, no less than the last of them.
    values, norms, radii = trace.value[: n + 1], trace.gradient_norm[: n + 1], trace.radius[:n]
    mean, weight = values[0], 1.0
    for k in range(n):
        slack = 1e-12 * abs(mean)
        assert mean >= values[k] - slack and mean - values[k + 1] >= radii[k] * norms[k + 1] ** 2 / (8 * norms[k]) - slack
        mean, weight = (0.85 * weight * mean + values[k + 1]) / (0.85 * weight + 1), 0.85 * weight + 1
    assert float(np.nansum(trace.halvings)) == int(solution.stats["num_solves"]) - n


def test_memory_passes_steps_that_the_last_value_alone_would_not():
    """The first step has nothing to remember; later ones in Rosenbrock's valley are longer for it."""
    plain, remembering = (descend_small("Rosenbrock", [-2.0, 2.0], value_target=1e-8, memory=memory) for memory in (0.0, 0.85))
    np.testing.assert_array_equal(remembering[2].value[:2], plain[2].value[:2])
    assert remembering[1] < 0.6 * plain[1] and remembering[0].stats["num_solves"] < plain[0].stats["num_solves"]
    n, trace = remembering[1], remembering[2]
    demanded = trace.radius[:n] * trace.gradient_norm[1 : n + 1] ** 2 / (8 * trace.gradient_norm[:n])
    assert (trace.value[:n] - trace.value[1 : n + 1] < demanded).any()


def test_doubling_finds_the_radius_of_a_quadratic_in_one_step():
    """λ ‖h‖² falls below a quarter of the decrease once the regularisation is small beside the curvature, and not before."""
    slow, fast = (descend_small("quadratic", [100.0] * 5, gradient_tol=1e-9, search=search) for search in ("halving", "both"))
    assert fast[1] < slow[1] / 2
    radii = fast[2].radius[: fast[1]]
    assert radii[0] >= 64 and fast[2].halvings[0] == np.log2(radii[0]) + (radii[0] != 2.0 ** fast[2].halvings[0])


def test_doubling_stops_at_the_lowest_value_that_passes():
    """From a radius that is a thousandth of the distance to the minimum, every step goes down."""
    solution, n, trace = descend_small("hyperbolic cosine", [3.0], gamma0=1e-3, gradient_tol=1e-6, search="both")
    assert is_successful(solution) and trace.halvings[0] > 5
    assert (np.diff(trace.value[: n + 1]) < 0).all()


# Hessian approximations.


@eqx.filter_jit
def compiled_matrix(hessian, objective, x):
    return hessian(value_at, x, objective).as_matrix()


@eqx.filter_jit
def compiled_exact(objective, x):
    return jax.hessian(objective)(x)


@eqx.filter_jit
def compiled_gradient(objective, x):
    return jax.grad(objective)(x)


@eqx.filter_jit
def residual_derivatives(residual, x):
    return residual(x), jax.jacrev(residual)(x), jax.jacfwd(jax.jacrev(residual))(x)


def matrix(hessian, objective, x):
    return np.asarray(compiled_matrix(hessian, objective, x))


def exact(objective, x):
    return np.asarray(compiled_exact(objective, x))


def test_weighted_gauss_newton_exceeds_the_hessian_by_the_gradients_square():
    objective, start, _ = log_sum_exp(30, room=30)
    objective = LogSumExp(objective.rows, objective.offset, 0.7)
    x = jnp.asarray(start)
    gradient = np.asarray(compiled_gradient(objective, x))
    excess = matrix(WEIGHTED, objective, x) - exact(objective, x)
    np.testing.assert_allclose(excess, np.outer(gradient, gradient) / 0.7, atol=1e-12)


@pytest.mark.parametrize("power", [2, 3, 4, 5])
def test_fisher_term_is_rank_one_in_the_gradient(power):
    x = jnp.array([-2.0, 2.0])
    objective = ResidualPower(RosenbrockResidual(), power)
    gradient, size = np.asarray(compiled_gradient(objective, x)), np.linalg.norm(residual_derivatives(objective.residual, x)[0])
    expected = (power - 2) * size**-power * np.outer(gradient, gradient)
    np.testing.assert_allclose(matrix(RANK_ONE, objective, x), expected, rtol=ROUND_OFF, atol=0)


@pytest.mark.parametrize("power", [2, 4, 5])
def test_inexact_hessian_lacks_the_curvature_of_the_residual(power):
    x = jnp.array([0.3, -0.7, 0.5])
    objective = ResidualPower(ChebyshevResidual(), power)
    u, jacobian, second = (np.asarray(part) for part in residual_derivatives(objective.residual, x))
    size = np.linalg.norm(u)
    curvature = size ** (power - 2) * np.einsum("i,ijk->jk", u, second)
    difference = exact(objective, x) - matrix(INEXACT, objective, x)
    np.testing.assert_allclose(difference, curvature, rtol=ROUND_OFF, atol=1e-12)
    # J^T ‖u‖^{p-2} J + (p-2) ‖u‖^{p-4} (J^T u)(J^T u)^T
    by_hand = size ** (power - 2) * jacobian.T @ jacobian + (power - 2) * size ** (power - 4) * np.outer(jacobian.T @ u, jacobian.T @ u)
    np.testing.assert_allclose(matrix(INEXACT, objective, x), by_hand, rtol=ROUND_OFF, atol=1e-12)


def test_error_of_the_fisher_term_in_the_metric_of_linear_equations():
    random = np.random.RandomState(0)
    rows = random.rand(6, 6)
    objective = ResidualPower(LinearResidual(jnp.asarray(rows), jnp.ones(6)), 4)
    x = jnp.asarray(random.rand(6))
    inverse_root = np.linalg.inv(np.linalg.cholesky(rows.T @ rows))
    error = inverse_root @ (exact(objective, x) - matrix(RANK_ONE, objective, x)) @ inverse_root.T
    dual = np.linalg.norm(inverse_root @ np.asarray(compiled_gradient(objective, x)))
    # C₁ = 0, C₂ = 1, β = 1/(p-1), that is 1 - β = (p-2)/(p-1).
    np.testing.assert_allclose(np.linalg.norm(error, 2), dual ** (2 / 3), rtol=1e-8)


def test_logistic_fisher_error_is_bounded_by_the_value():
    objective, _, _ = logistic(0.0)
    fisher = EmpiricalFisher(lambda y, o: o.losses(y))
    largest = float((np.asarray(objective.features) ** 2).sum(1).max())
    for x in map(jnp.asarray, 0.3 * np.random.default_rng(0).normal(size=(3, 30))):
        assert np.linalg.norm(exact(objective, x) - matrix(fisher, objective, x), 2) <= largest * float(objective(x))


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_empirical_fisher_is_the_mean_square_of_gradients(penalty):
    random = np.random.default_rng(0)
    for examples, n in ((3, 5), (7, 4)):
        features, x = random.normal(size=(examples, n)), random.normal(size=n)
        fisher, objective = EmpiricalFisher(lambda y, o: o.losses(y), penalty), LogisticRegression(jnp.asarray(features), penalty)
        is_low_rank = []

        @jax.jit
        def compiled(x, fisher=fisher, objective=objective, kinds=is_low_rank):
            operator = fisher(value_at, x, objective)
            kinds.append(isinstance(operator, LowRankOperator))
            return operator.as_matrix()

        gradients = -features / (1 + np.exp(features @ x))[:, None]
        expected = gradients.T @ gradients / examples + penalty * np.eye(n)
        np.testing.assert_allclose(compiled(jnp.asarray(x)), expected, atol=1e-14)
        assert is_low_rank[0] == (penalty == 0 and examples < n)


@pytest.mark.parametrize("case", ["LogSumExp 100, weighted", "Rosenbrock p=5, inexact", "linear p=4, rank one", "logistic, Fisher"])
def test_approximations_are_positive_semidefinite(case):
    objective, start, _ = COUNTS[case][0]()
    found = matrix(COUNTS[case][1], objective, jnp.asarray(start + 0.1))
    values = np.linalg.eigvalsh(found)
    np.testing.assert_allclose(found, found.T, rtol=1e-12, atol=1e-14 * abs(found).max())
    assert values[0] >= -1e-10 * values[-1]


@pytest.mark.parametrize(
    "objective", [LogSumExp(jnp.eye(3), jnp.zeros(3)), ResidualPower(ChebyshevResidual(), 4), ResidualPower(RosenbrockResidual(), 5)]
)
def test_hessians_agree_with_finite_differences(objective):
    n = 2 if isinstance(getattr(objective, "residual", None), RosenbrockResidual) else 3
    objective = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), objective)
    x, h = np.linspace(-0.5, 0.7, n), 1e-5
    gradient = lambda x: np.asarray(compiled_gradient(objective, jnp.asarray(x)))  # noqa: E731
    columns = [(gradient(x + h * e) - gradient(x - h * e)) / (2 * h) for e in np.eye(n)]
    np.testing.assert_allclose(matrix(ExactHessian(), objective, jnp.asarray(x)), np.stack(columns, 1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("power", "expected"), [(2, 1.0), (3, 0.0), (4, 0.0), (2.5, 0.0)])
def test_derivatives_at_a_zero_residual(power, expected):
    objective = ResidualPower(LinearResidual(jnp.eye(2), jnp.zeros(2)), power)
    x = jnp.zeros(2)
    assert objective(x) == 0 and not np.asarray(compiled_gradient(objective, x)).any()
    np.testing.assert_array_equal(matrix(INEXACT, objective, x), expected * np.eye(2))
    np.testing.assert_array_equal(matrix(RANK_ONE, objective, x), np.zeros((2, 2)))


@jax.jit
def both_solves(rows, gradient, metric, regularization):
    root = None if metric is None else jnp.linalg.cholesky(metric)
    return woodbury(rows, gradient, root)(regularization)[0], direct(rows.T @ rows, gradient, metric)(regularization)[0]


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.sampled_from([0, 1, 5]), st.booleans(), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_woodbury_is_cholesky(n_rows, has_metric, regularization, seed):
    random = np.random.default_rng(seed)
    rows, gradient = jnp.asarray(random.normal(size=(n_rows, 6))), jnp.asarray(random.normal(size=6))
    square = random.normal(size=(6, 6))
    metric = jnp.asarray(square @ square.T + np.eye(6)) if has_metric else None
    ours, dense = both_solves(rows, gradient, metric, jnp.asarray(regularization))
    np.testing.assert_allclose(ours, dense, rtol=1e-8, atol=1e-10 * np.abs(dense).max())


@pytest.mark.parametrize("case", ["LogSumExp 100, exact", "Chebyshev 50, inexact"])
def test_conjugate_gradients_follow_the_direct_solves(case):
    make, hessian, iterations, _ = COUNTS[case]
    objective, start, settings = make()
    solution = minimise(objective, start, hessian, linear_solver="cg", **settings)
    n, trace = traced(solution)
    assert is_successful(solution) and abs(n - iterations) <= 3 and solution.stats["num_products"] > n
    values, norms = trace.value[: n + 1], trace.gradient_norm[: n + 1]
    assert (values[:-1] - values[1:] >= norms[1:] ** 2 / (8 * trace.regularization[:n])).all()
    assert (trace.step_norm[:n] <= trace.radius[:n] / 0.9).all()


# Traps.


def test_a_decrease_alone_is_not_accepted():
    """From 1, a step of 1.9 lowers y²/2, but to a gradient that is too large."""
    solution, n, trace = descend_small("parabola", [1.0], ZeroHessian(), gamma0=1.9, value_target=0.49)
    assert n == 1 and 0.5 * 0.9**2 < 0.5 and float(trace.halvings[0]) == 1
    np.testing.assert_allclose(np.asarray(solution.value)[0], 1 - 0.95)


def test_failed_factorisations_halve_the_radius_and_are_never_accepted():
    solution, _, trace = descend_small("cosine", [0.5], gradient_tol=1e-10, gamma0=4.0)
    assert is_successful(solution) and int(solution.stats["num_failed_solves"]) >= 2
    np.testing.assert_allclose(np.cos(np.asarray(solution.value)[0]), -1.0)
    assert float(trace.halvings[0]) >= 2
    # λ > -H = cos ½ only for a radius below ½ tan ½ …
    assert float(trace.radius[0]) < np.tan(0.5)


@jax.custom_jvp
def lying(y, args):
    """‖y‖², with a derivative that may lie."""
    return jnp.sum(y**2)


@lying.defjvp
def _(values, tangents):
    (y, (sign, _)), (t, _) = values, tangents
    return jnp.sum(y**2), sign * 2 * jnp.sum(y * t)


def descend_lying(sign, hessian, linear_solver="cholesky"):
    solver = GradientNormalizedNewton(0.0, 0.0, hessian=lambda y, args: args[1], linear_solver=linear_solver, max_trials=5, record=3)
    return descend(lying, solver, jnp.array([1.0, 2.0]), (jnp.asarray(sign), jnp.asarray(hessian)), throw=False, max_steps=1)


def test_exhaustion_is_no_success_and_keeps_the_point():
    solution = descend_lying(1.0, -1e30 * np.eye(2))
    assert solution.result == optx.RESULTS.nonlinear_divergence and "diverged" in optx.RESULTS[solution.result]
    assert int(solution.stats["num_solves"]) == int(solution.stats["num_failed_solves"]) == 5
    np.testing.assert_array_equal(solution.value, [1.0, 2.0])
    assert np.isnan(traced(solution)[1].value[1:]).all()


@pytest.mark.parametrize("linear_solver", ["cholesky", "cg"])
def test_a_wrong_direction_is_never_followed(linear_solver):
    """Each trial goes uphill or fails: an objective whose gradient lies."""
    assert descend_lying(-1.0, np.eye(2), linear_solver).result == optx.RESULTS.nonlinear_divergence


def test_nan_in_the_hessian():
    solution = descend_lying(1.0, np.array([[1.0, np.nan], [np.nan, 1.0]]))
    assert solution.result == optx.RESULTS.nonfinite and int(solution.stats["num_solves"]) == 0
    np.testing.assert_array_equal(solution.value, [1.0, 2.0])


def test_too_few_steps_are_no_success():
    solution = descend_lying(1.0, 2 * np.eye(2))
    assert solution.result == optx.RESULTS.nonlinear_max_steps_reached and (np.abs(solution.value) < [1.0, 2.0]).all()


@pytest.mark.parametrize("value", ["NaN", "infinity"])
def test_a_start_that_is_not_finite(value):
    solution, n, _ = descend_small(value, [1.0])
    assert solution.result == optx.RESULTS.nonfinite and n == 0


def test_values_that_overflow_on_the_way_are_refused():
    solution, _, _ = descend_small("hyperbolic cosine", [3.0], ZeroHessian(), gamma0=1e4, gradient_tol=1e-6, jitter=1e-8)
    assert is_successful(solution) and abs(np.asarray(solution.value)[0]) < 1e-6


def test_single_precision_by_the_gradients_test():
    with jax.enable_x64(False):
        rows = np.random.default_rng(0).normal(size=(40, 10))
        objective = LogSumExp(jnp.asarray(rows - rows.mean(0), jnp.float32), jnp.zeros(40))
        solver = GradientNormalizedNewton(0.0, 0.0, test="gradient", gradient_tol=3e-6)
        solution = descend(value_at, solver, jnp.ones(10), objective, throw=False)
        assert is_successful(solution) and solution.value.dtype == jnp.float32
        assert np.linalg.norm(compiled_gradient(objective, solution.value)) < 3e-6


def test_the_gradients_test_implies_the_decrease_for_convex_objectives():
    objective, start, settings = log_sum_exp(30, room=30)
    solution = minimise(objective, start, test="gradient", **settings)
    n, trace = traced(solution)
    assert is_successful(solution)
    values, norms = trace.value[: n + 1], trace.gradient_norm[: n + 1]
    assert (values[:-1] - values[1:] >= norms[1:] ** 2 / (8 * trace.regularization[:n]) - 1e-15).all()


# Within JAX and optimistix.


def tree_objective(y, args):
    value = jnp.sum((y["a"] - args) ** 2) + jnp.sum(jnp.cosh(y["b"])) + 0.5 * jnp.sum(y["a"]) * y["b"][0, 0]
    return value, {"seen": y["a"][0], "count": jnp.asarray(3)}


TREE = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones((2, 1))}


@pytest.mark.parametrize("linear_solver", ["cholesky", "cg"])
def test_trees_and_auxiliary_output(linear_solver):
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), TREE)
    solver = GradientNormalizedNewton(1e-9, 1e-9, linear_solver=linear_solver)
    solution = descend(tree_objective, solver, start, jnp.asarray(0.5), has_aux=True)
    assert jax.tree.structure(solution.value) == jax.tree.structure(start)
    assert solution.aux["seen"] == np.asarray(solution.value["a"])[0] and int(solution.aux["count"]) == 3
    slope = jax.jit(jax.grad(lambda y: tree_objective(y, 0.5)[0]))(solution.value)
    assert all((np.abs(leaf) < 1e-7).all() for leaf in jax.tree.leaves(slope))


def test_trees_with_a_written_hessian_and_low_rank_rows():
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), TREE)

    def objective(y, _):
        return 0.5 * (jnp.sum(y["a"] ** 2) + 3 * jnp.sum(y["b"] ** 2))

    written = GradientNormalizedNewton(0.0, 0.0, hessian=lambda y, _: jnp.diag(jnp.array([1.0, 1.0, 3.0, 3.0])), gradient_tol=1e-9)
    zero = GradientNormalizedNewton(0.0, 0.0, hessian=ZeroHessian(), gradient_tol=1e-9, jitter=0.0)
    for solver in (written, zero):
        solution = descend(objective, solver, start)
        assert all((np.abs(leaf) < 1e-9).all() for leaf in jax.tree.leaves(solution.value))


def test_the_jitter_bounds_the_regularisation():
    """Without a Hessian λ must reach the curvature, which ‖∇f‖/jitter does not for the smallest gradients."""
    solution, _, _ = descend_small("narrow quadratic", [1.0, 1.0], ZeroHessian(), gradient_tol=1e-12, jitter=1e-8)
    assert solution.result == optx.RESULTS.nonlinear_divergence and (np.abs(solution.value) < 1e-7).all()


def test_vmap_is_a_loop():
    starts = np.array([[-2.0, 2.0], [0.5, -1.0], [1.0, 1.0], [3.0, 3.0]])
    objective, _, settings = rosenbrock(2)

    def solve(start):
        solution = minimise(objective, start, **settings)
        return solution.value, solution.stats["num_steps"], solution.stats["num_solves"]

    together = jax.tree.map(np.asarray, jax.vmap(solve)(starts))
    for i, start in enumerate(starts):
        alone = solve(start)
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-9)
        assert int(together[1][i]) == int(alone[1]) and int(together[2][i]) == int(alone[2])
    assert int(together[1][2]) == 0


def test_compiles_once_and_traces_the_objective_a_bounded_number_of_times():
    traces = []

    def objective(y, shift):
        traces.append(1)
        return jnp.sum(jnp.cosh(y - shift))

    solver = GradientNormalizedNewton(1e-8, 1e-8)
    run = eqx.filter_jit(lambda start, shift: optx.minimise(objective, solver, start, shift).value)
    np.testing.assert_allclose(run(jnp.zeros(3), jnp.asarray(1.0)), jnp.ones(3), atol=1e-7)
    n = len(traces)
    np.testing.assert_allclose(run(jnp.ones(3), jnp.asarray(2.0)), 2 * jnp.ones(3), atol=1e-7)
    assert len(traces) == n


def test_derivative_through_the_minimum():
    solver = GradientNormalizedNewton(1e-12, 1e-12)

    def minimiser(shift):
        return optx.minimise(lambda y, shift: jnp.cosh(y) - shift * y, solver, jnp.array(0.0), shift).value

    np.testing.assert_allclose(jax.jit(jax.grad(minimiser))(jnp.array(0.7)), 1 / np.sqrt(1 + 0.7**2), rtol=1e-9)


def test_cauchy_termination_is_optimistixs():
    objective, start, _ = rosenbrock(2)
    solution = minimise(objective, start, rtol=1e-9, atol=1e-9)
    assert is_successful(solution)
    np.testing.assert_allclose(solution.value, jnp.ones(2), atol=1e-7)


@eqx.filter_jit
def low_rank_facts(operator, vector):
    return operator.mv(vector), operator.as_matrix(), lx.diagonal(operator)


@pytest.mark.parametrize("leaf", [np.ones(3), np.ones((2, 2))])
def test_low_rank_operators_agree_with_their_matrix(leaf):
    random = np.random.default_rng(0)
    operator = LowRankOperator(jnp.asarray(random.normal(size=(2, *leaf.shape))))
    vector = random.normal(size=leaf.shape)
    product, dense, diagonal = map(np.asarray, low_rank_facts(operator, vector))
    np.testing.assert_allclose(product.ravel(), dense @ vector.ravel(), rtol=ROUND_OFF)
    np.testing.assert_allclose(diagonal, np.diagonal(dense), rtol=ROUND_OFF)
    assert lx.is_positive_semidefinite(operator) and lx.is_symmetric(operator) and not lx.is_diagonal(operator)
    assert operator.T is operator and lx.linearise(operator) is operator is lx.materialise(operator) is lx.conj(operator)


def test_a_written_hessian_acts_on_a_point_of_any_shape():
    y = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    operator = MatrixHessian(lambda y, _: jnp.diag(y.ravel()))(lambda y, _: jnp.sum(y**3) / 6, y, None)
    np.testing.assert_array_equal(operator.mv(y), y**2)


# Bad input.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gamma0": 0.0}, "gamma0 must be positive and finite, got 0.0"),
        ({"gamma0": -1.0}, "gamma0 must be positive and finite, got -1.0"),
        ({"gamma0": jnp.inf}, "gamma0 must be positive and finite, got inf"),
        ({"gamma_min": 0.0}, "gamma_min must be positive"),
        ({"jitter": -1e-8}, "jitter must be at least 0, got -1e-08"),
        ({"rtol": -1.0}, "rtol must be at least 0"),
        ({"max_trials": 0}, "max_trials must be at least 1, got 0"),
        ({"forcing": 1.0}, r"forcing must lie in \(0, 1\), got 1.0"),
        ({"memory": 1.0}, r"memory must lie in \[0, 1\), got 1.0"),
        ({"memory": -0.1}, r"memory must lie in \[0, 1\), got -0.1"),
        ({"memory": 0.5, "test": "gradient"}, "memory must be 0 with test 'gradient', which compares no values, got 0.5"),
        ({"search": "doubling"}, "search must be one of halving, both, got 'doubling'"),
        ({"test": "armijo"}, "test must be one of value, gradient, got 'armijo'"),
        ({"linear_solver": "lu"}, "linear_solver must be one of cholesky, cg, got 'lu'"),
        ({"metric": jnp.ones((2, 3))}, r"metric must be a square matrix, got shape \(2, 3\)"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises((ValueError, TypeError), match=message if "metric" not in settings else "metric"):
        GradientNormalizedNewton(**({"rtol": 0.0, "atol": 0.0} | settings))


def test_metric_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"metric must have shape \(2, 2\) for 2 unknowns, got \(3, 3\)"):
        minimise(*rosenbrock(2)[:2], metric=jnp.eye(3))


@pytest.mark.parametrize("metric", [np.eye(20) + 0.5 * np.eye(20, k=1), -np.eye(20)])
def test_metric_that_is_none(metric):
    with pytest.raises(eqx.EquinoxRuntimeError, match="metric must be symmetric and positive definite"):
        course(np.eye(20), metric, np.ones(20))


def test_hessian_that_is_not_symmetric():
    with pytest.raises(eqx.EquinoxRuntimeError, match="hessian must return a symmetric matrix"):
        descend_lying(1.0, np.array([[2.0, 1.0], [0.0, 2.0]]))

    class Untagged(MatrixHessian):
        def __call__(self, fn, y, args):
            return lx.MatrixLinearOperator(self.function(y, args))

    with pytest.raises(ValueError, match="hessian must be a symmetric operator"):
        minimise(*rosenbrock(2)[:2], hessian=Untagged(lambda y, _: jnp.eye(2)))


def test_a_hessian_may_lack_symmetry_by_rounding_and_no_more():
    rounded, crooked = (np.array([[2.0, excess], [0.0, 2.0]]) for excess in (1e-7, 1e-5))
    assert descend_lying(1.0, rounded).stats["num_solves"] > 0
    with pytest.raises(eqx.EquinoxRuntimeError, match="hessian must return a symmetric matrix"):
        descend_lying(1.0, crooked)


def test_hessian_of_the_wrong_shape():
    with pytest.raises(ValueError, match=r"hessian must return a matrix of shape \(2, 2\), got \(3, 3\)"):
        minimise(*rosenbrock(2)[:2], hessian=lambda y, _: jnp.eye(3))


def test_complex_unknowns_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimistix's own on complex numbers comes first
        with pytest.raises(TypeError, match="y must be real, got a complex leaf"):
            descend(lambda y, _: jnp.sum(jnp.abs(y) ** 2), GradientNormalizedNewton(1e-6, 1e-6), jnp.ones(2, complex))


def test_single_precision_with_a_tight_tolerance_warns():
    with jax.enable_x64(False), pytest.warns(UserWarning, match="rtol = 1e-08 is below what float32 can resolve"):
        descend(lambda y, _: jnp.sum(y**2), GradientNormalizedNewton(1e-8, 1e-6), jnp.ones(2, jnp.float32))


@pytest.mark.parametrize("make", [lambda: ResidualPower(RosenbrockResidual(), 1.5), lambda: FisherTerm(RESIDUAL, 1.0)])
def test_powers_below_two_are_refused(make):
    with pytest.raises(ValueError, match=r"power must be at least 2, got 1\.[05]"):
        make()


def test_fading_waves_descend_from_two_on_at_every_phase():
    x = jnp.concatenate([jnp.linspace(2.0, 60.0, 4000), jnp.geomspace(60.0, 1e4, 2000)])
    slopes = jax.jit(lambda rows: jax.lax.map(lambda row: jax.vmap(jax.grad(FadingWaves(row[0], phase=row[1])))(x[:, None]), rows))
    rows = jnp.asarray([(alpha, phase) for alpha in (0.0, 0.25, 0.5, 0.75, 1.0) for phase in np.linspace(0, 2 * np.pi, 13)])
    assert (slopes(rows) < 0).all()
    at_zero = jax.vmap(lambda x: jax.grad(FadingWaves(0.5))(x))(jnp.linspace(0.0, 2.0, 500)[:, None])
    assert (at_zero < 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_fading_waves_turn_at_their_rate(alpha):
    b, c, phase = 1.1, 1.5, 0.7
    x = np.array([0.3, 5.0])
    slopes = jax.jit(jax.vmap(jax.grad(lambda x: FadingWaves(alpha, phase=phase)(x[None]))))(x)
    angles = phase + np.array([integrate.quad(lambda s: (1 + s) ** (alpha * b), 0, end)[0] for end in x])
    envelope = b * (1 + alpha) * (1 + x) ** (-b * (1 + alpha) - 1)
    np.testing.assert_allclose(slopes, -((1 + x) ** -b) * (c + np.sin(angles)) - envelope * np.cos(angles), rtol=1e-9)


def test_the_fading_valley_winds_about_its_floor():
    b, phase = 1.1, 0.7
    for x in (0.3, 5.0):
        floor = (1 + x) ** -b * np.sin(phase + integrate.quad(lambda s: (1 + s) ** b, 0, x)[0])
        value = FadingValley(phase=phase)(jnp.array([x, floor + 0.3]))
        np.testing.assert_allclose(value, (1 + x) ** (1 - b) / (b - 1) + 0.3**2 / 2, rtol=1e-12)


@pytest.mark.parametrize("power", [2, 3])
def test_a_chain_pulls_only_where_its_slack_is_used_up(power):
    chain = SlackChain(0.5, power)
    # Links of 1.2, -1.1 and 0.4.
    np.testing.assert_allclose(chain(jnp.array([0.2, 1.4, 0.3, 0.7])), (0.8**power + 0.7**power + 0.6**power) / power, rtol=1e-14)
    np.testing.assert_array_equal(compiled_gradient(chain, jnp.zeros(4)), [-1.0, 0.0, 0.0, 0.0])
    assert chain(jnp.ones(4)) == 0


def test_a_smoothed_maximum_is_centred_at_any_temperature():
    random = np.random.default_rng(0)
    rows, offset = random.normal(size=(6, 3)), random.normal(size=6)
    objective = LogSumExp.centred(jnp.asarray(rows), jnp.asarray(offset), 0.3)
    np.testing.assert_allclose(compiled_gradient(objective, jnp.zeros(3)), np.zeros(3), atol=1e-14)
    np.testing.assert_allclose(objective(jnp.zeros(3)), 0.3 * np.log(np.exp(-offset / 0.3).sum()), rtol=1e-12)
