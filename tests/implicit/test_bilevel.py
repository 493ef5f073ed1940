import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import (
    Bilevel,
    InexactArmijo,
    LinearBilevel,
    certified_loss,
    hoag,
    hypergradient_error_bound,
    inexact_hypergradient,
    maid,
    measured_cross_norm,
    root_vjp,
    solve_lower,
    stationary,
)

ROUND_OFF = 1e-12


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def linear(A1, A2, A3, random):
    """The recipe of the quadratic problem, of which the upper loss can nearly be fitted."""
    x1, x2, theta = (random.uniform(size=A1.shape[1]) for _ in range(3))
    y1, y2 = (random.standard_normal(len(A1)) for _ in range(2))
    b1, b2 = A1 @ x1 + 0.01 * y1, A2 @ x2 + A3 @ theta + 0.01 * y2
    return LinearBilevel.of(*(jnp.asarray(a) for a in (A1, b1, A2, A3, b2)))


@pytest.fixture(scope="module")
def well():
    """Singular values from 1 to 2, those of A₂ and A₃ with the same left vectors, so that f is well conditioned as well."""
    random = np.random.default_rng(29)
    rotations = [np.linalg.qr(random.normal(size=shape))[0] for shape in ((8, 4), (8, 4), (4, 4), (4, 4), (4, 4))]
    left, shared, *right = rotations
    matrices = [u * np.linspace(1, 2, 4) @ v for u, v in zip((left, shared, shared), right, strict=True)]
    return linear(*matrices, random)


@jax.jit
def exact(problem, theta):
    return problem.value(theta), problem.gradient(theta), problem.solution(theta)


@jax.jit
def both(problem, theta, x, accuracy, tolerance):
    """A hypergradient at a point x that is `accuracy` away from the solution, and its bound."""
    norm = measured_cross_norm(problem, theta, x).value
    bound = hypergradient_error_bound(problem, theta, x, accuracy=accuracy, tolerance=tolerance, cross_norm=norm)
    return inexact_hypergradient(problem, theta, x, tolerance), bound, jax.value_and_grad(problem.upper)(x)


solve = jax.jit(solve_lower, static_argnames="max_gradients")

STARTS = (1.0, 0.1, 1e-3, 1e-6)
SETTINGS = {"step_size": 0.01, "share": 0.5, "decrease": 0.25, "step_growth": 10 / 9, "loosen": 1.25}


@pytest.fixture(scope="module")
def runs(well):
    return {accuracy: followed(well, accuracy=accuracy, stop_at=1e-5, **SETTINGS) for accuracy in STARTS}


def followed(problem, **settings):
    steps = []
    found = maid(problem, jnp.ones(4), jnp.zeros(4), callback=steps.append, **settings)
    return found, steps


def test_constants_and_closed_form_of_the_ill_conditioned_quadratic():
    random = np.random.default_rng(29)
    problem = linear(*(random.uniform(size=(1000, 10)) for _ in range(3)), random)
    found = [problem.mu, problem.L, problem.L_g, problem.J_norm, problem.value(jnp.ones(10))]
    np.testing.assert_allclose(found, [69.5693, 2520.605, 2568.61, 2483.48, 4440.0932], rtol=1e-5)
    M = -np.asarray(problem.A1) @ np.linalg.pinv(problem.A2) @ np.asarray(problem.A3)
    offset = np.asarray(problem.A1) @ np.linalg.pinv(problem.A2) @ np.asarray(problem.b2) - np.asarray(problem.b1)
    best = np.linalg.lstsq(M, -offset)[0]
    value, gradient, _ = exact(problem, jnp.asarray(best))
    np.testing.assert_allclose(value, 0.05070717, rtol=1e-6)
    assert np.linalg.norm(gradient) < 1e-8


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(-8, 0), st.floats(-8, 0))
def test_the_bound_covers_the_error_and_the_loss_lies_between_its_bounds(well, seed, log_accuracy, log_tolerance):
    random = np.random.default_rng(seed)
    accuracy, tolerance = 10**log_accuracy, 10**log_tolerance
    theta, direction = random.normal(size=(2, 4))
    value, gradient, solution = map(np.asarray, exact(well, theta))
    x = solution + accuracy * direction / np.linalg.norm(direction)
    found, bound, (upper, slope) = jax.tree.map(np.asarray, both(well, theta, x, accuracy, tolerance))
    assert np.linalg.norm(found.gradient - gradient) <= bound * (1 + ROUND_OFF) + 1e-10
    assert found.certified and found.residual <= tolerance
    armijo = InexactArmijo(0.1, float(well.L_g))
    reach, norm = accuracy * (1 + 1e-9), float(np.linalg.norm(slope))
    room = ROUND_OFF * (1 + float(upper))
    assert armijo.lower_bound(float(upper), norm, reach) - room <= value <= armijo.upper_bound(float(upper), norm, reach) + room


def test_for_a_quadratic_the_bound_has_two_terms(well):
    _, bound, _ = both(well, jnp.ones(4), jnp.zeros(4), 0.25, 0.5)
    factor = 1.0 if well.cross_norm(jnp.zeros(4), jnp.ones(4)) is not None else 1.05
    expected = factor * well.J_norm / well.mu * (0.25 * well.L_g + 0.5)
    np.testing.assert_allclose(bound, expected, rtol=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(-9, 1))
def test_the_gradient_of_the_lower_objective_certifies_a_distance(well, seed, log_accuracy):
    theta, start = np.random.default_rng(seed).normal(size=(2, 4))
    found = solve(well, theta, start, 10**log_accuracy)
    distance = np.linalg.norm(found.x - exact(well, theta)[2])
    assert found.certified and distance <= found.distance * (1 + 1e-6) + ROUND_OFF
    assert found.distance <= 10**log_accuracy


def test_a_scalar_problem_attains_its_bound():
    # h = (x - θ)²/2, g = (x - a)²/2: at x̄ = θ + ε the gradient is off by ε, and a residual δ adds itself.
    problem = Bilevel(scalar_upper, scalar_lower, cross_norm=unit, **UNIT)
    theta = jnp.array(3.0)
    for accuracy, tolerance in ((0.25, 0.5), (1e-3, 1e-6)):
        x = theta + accuracy
        bound = hypergradient_error_bound(problem, theta, x, accuracy=accuracy, tolerance=tolerance, cross_norm=1.0)
        np.testing.assert_allclose(bound, accuracy + tolerance, rtol=ROUND_OFF)
        # Exactly δ away from solving q = x - a.
        q = x - 1.0 + tolerance
        np.testing.assert_allclose(q - (theta - 1.0), bound, rtol=1e-9)


def test_every_term_of_the_bound_has_its_constants():
    constants = {"strong_convexity": 2.0, "upper_smoothness": 3.0, "hessian_lipschitz": 5.0, "cross_lipschitz": 7.0}
    problem = Bilevel(lambda x: 1.5 * x**2, scalar_lower, smoothness=2.0, **constants)
    # Of ‖∇g‖ = 6 and ‖J‖ = 11: (3·11/2 + 5/4·6·11 + 7·6/2) ε + 11/2 δ + 7·3/2 ε².
    numbers = {"accuracy": 0.1, "tolerance": 0.01, "cross_norm": 11.0}
    np.testing.assert_allclose(
        hypergradient_error_bound(problem, jnp.array(0.0), jnp.array(2.0), **numbers), 12 + 0.055 + 0.105, rtol=1e-12
    )


def scalar_upper(x):
    return (x - 1.0) ** 2 / 2


def scalar_lower(x, theta):
    return (x - theta) ** 2 / 2


def unit(x, theta):
    return jnp.ones_like(x)


UNIT = {"strong_convexity": 1.0, "smoothness": 1.0, "upper_smoothness": 1.0, "hessian_lipschitz": 0.0, "cross_lipschitz": 0.0}


def test_every_accepted_step_has_its_promised_decrease_and_descends(well, runs):
    for found, steps in runs.values():
        for step in steps:
            before, gradient, _ = exact(well, step.theta)
            after = float(exact(well, step.next_theta)[0])
            promised = SETTINGS["decrease"] * step.step_size * step.gradient_norm**2
            assert after - before <= -promised + ROUND_OFF * (1 + before)
            assert np.vdot(step.gradient, gradient) > 0
            assert np.linalg.norm(step.gradient - gradient) <= step.error_bound + 1e-10
            assert step.lower_bound - ROUND_OFF <= before <= step.upper_bound + ROUND_OFF
        assert found.status == "converged" and len(found.history.loss) == len(steps)


def test_a_share_is_what_the_bound_leaves_of_the_gradient_and_both_tolerances_move_together(well):
    _, steps = followed(well, accuracy=1.0, tolerance=0.25, loosest=1e9, stop_at=0.1, **{**SETTINGS, "share": 0.9})
    assert len(steps) > 5 and len({step.accuracy for step in steps}) > 2
    for step in steps:
        assert step.error_bound <= 0.1 * step.gradient_norm * (1 + ROUND_OFF)
        np.testing.assert_allclose(step.tolerance, 0.25 * step.accuracy, rtol=1e-9)


def test_a_gradient_that_is_small_but_not_certain_ends_nothing():
    # The start is as good as was asked for, and at it z = 0, which is off by 0.05.
    problem = Bilevel(scalar_upper, scalar_lower, **UNIT)
    found = maid(problem, jnp.array(1.05), jnp.array(1.0), accuracy=0.1, stop_at=0.01)
    assert found.status == "converged" and abs(float(found.theta) - 1) <= 0.01


def test_each_failed_search_is_followed_by_a_longer_one(well):
    found = maid(well, jnp.ones(4), jnp.zeros(4), max_backtracks=1, max_steps=1, **{**SETTINGS, "step_size": 100.0})
    assert found.status == "max_steps" and len(found.history.loss) == 1 and found.history.step_size[0] < 10


@pytest.mark.parametrize("limit", [2, 7])
def test_lower_solutions_that_were_cut_short_are_never_accepted(well, limit):
    start = jnp.ones(4)
    assert len(maid(well, start, jnp.zeros(4), accuracy=1e-6, max_lower_gradients=limit).history.loss) == 0
    # The start is exact, and the trials are not certified.
    found = maid(well, start, exact(well, start)[2], accuracy=1e-6, max_lower_gradients=limit, **{**SETTINGS, "step_size": 0.1})
    assert found.status == "precision" and len(found.history.loss) == 0


def test_an_upper_loss_that_is_not_convex_widens_the_bounds():
    problem = Bilevel(scalar_upper, scalar_lower, is_upper_convex=False, **UNIT)
    found = certified_loss(problem, jnp.array(3.0), jnp.array(2.9), accuracy=0.2)
    np.testing.assert_allclose([found.lower_bound, found.upper_bound], [1.805 - 1.9 * 0.2 - 0.02, 1.805 + 1.9 * 0.2 + 0.02], rtol=1e-12)
    steps = []
    maid(problem, jnp.array(4.0), jnp.array(0.0), accuracy=0.2, max_steps=1, callback=steps.append)
    (step,) = steps
    width = abs(float(step.x) - 1) * step.accuracy + step.accuracy**2 / 2
    np.testing.assert_allclose([step.lower_bound, step.upper_bound], [step.loss - width, step.loss + width], rtol=1e-12)


@pytest.mark.parametrize("cross_norm", [unit, None])
def test_work_is_counted_to_the_last_product(cross_norm):
    problem = Bilevel(scalar_upper, scalar_lower, cross_norm=cross_norm, **UNIT)
    found = maid(problem, jnp.array(4.0), jnp.array(0.0), accuracy=1e-6, step_size=0.1, max_steps=2)
    # Perfectly conditioned: a lower solve looks at its start and its end, and twenty power iterations, then five, make a product each way.
    assert found.history.lower_gradients.tolist() == [4, 6]
    assert found.history.cross_products.tolist() == ([1, 2] if cross_norm else [42, 54])
    # A first residual, one step and the last residual.
    assert found.history.hessian_products.tolist() == [3, 6]
    assert found.work.total == found.history.work[-1] == 6 + 2 * (6 + (2 if cross_norm else 54))


def test_the_first_accuracy_hardly_matters(well, runs):
    gradients = [found.work.lower_gradients for found, _ in runs.values()]
    # Starts that lie six orders of magnitude apart.
    assert max(gradients) < 2 * min(gradients)
    for found, _ in runs.values():
        assert np.linalg.norm(exact(well, found.theta)[1]) <= 1e-5
        assert 20 < len(found.history.loss) < 100 and 1e-8 < found.history.accuracy[-1] < 1e-5


def test_a_fixed_accuracy_stalls_where_it_is_too_coarse(well):
    ends = {}
    for accuracy in STARTS:
        found, steps = followed(well, accuracy=accuracy, tighten=None, stop_at=1e-5, **SETTINGS)
        ends[accuracy] = np.linalg.norm(exact(well, found.theta)[1])
        assert {step.accuracy for step in steps} <= {accuracy}
        assert found.status == "stalled"
    assert ends[1.0] > ends[1e-3] > ends[1e-6] > 1e-5 and ends[1e-3] > 1e-3


@pytest.mark.parametrize("step_size", [1e-3, 1.0, 1e3])
def test_the_first_step_size_does_not_decide(well, step_size):
    found = maid(well, jnp.ones(4), jnp.zeros(4), stop_at=1e-4, **{**SETTINGS, "step_size": step_size})
    assert found.status == "converged" and np.linalg.norm(exact(well, found.theta)[1]) <= 1e-4


def test_failed_backtracks_are_counted(well):
    settings = {**SETTINGS, "step_size": 100.0}
    found, (step,) = followed(well, accuracy=1e-6, max_steps=1, **settings)
    failed = round(np.log(step.step_size / settings["step_size"]) / np.log(0.5))
    direct = maid(well, jnp.ones(4), jnp.zeros(4), accuracy=1e-6, max_steps=1, **{**SETTINGS, "step_size": step.step_size})
    assert failed >= 5 and found.work.lower_gradients >= direct.work.lower_gradients + failed
    assert step.lower_gradients == found.work.lower_gradients


def test_exact_lower_solutions_and_a_small_decrease_give_armijo_descent(well):
    settings = {"step_size": 4.0, "decrease": 1e-8, "step_growth": 1.2, "step_shrink": 0.5}
    _, steps = followed(well, accuracy=1e-9, tolerance=1e-10, max_steps=6, **settings)
    theta, alpha = np.ones(4), settings["step_size"]
    for step in steps:
        value, gradient, _ = exact(well, theta)
        while exact(well, theta - alpha * gradient)[0] > value - settings["decrease"] * alpha * np.sum(gradient**2):
            alpha *= settings["step_shrink"]
        np.testing.assert_allclose(step.step_size, alpha, rtol=1e-9)
        theta, alpha = theta - alpha * gradient, settings["step_growth"] * alpha
        np.testing.assert_allclose(step.next_theta, theta, atol=1e-6)


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 5), st.floats(0, 5), st.floats(0.01, 1), st.floats(0, 1))
def test_what_is_certified_grows_with_accuracy(after, before, slope, steep, accuracy, share):
    armijo = InexactArmijo(0.1, 2.0)

    def excess(accuracy):
        return armijo.excess(armijo.upper_bound(after, slope, accuracy), armijo.lower_bound(before, steep, accuracy), 0.1, 1.0)

    assert excess(share * accuracy) <= excess(accuracy) + ROUND_OFF
    # For ε = 0: Armijo's rule.
    np.testing.assert_allclose(excess(0.0), after - before + 0.1 * 0.1, atol=ROUND_OFF)


def test_a_plain_comparison_accepts_an_ascent_that_the_bounds_refuse():
    # f(θ) = (θ - 1)²/2 rises from θ = 2 to 2.1; lower solutions half a unit off on the right sides make g fall.
    x, x_next, accuracy = 2.0 + 0.5, 2.1 - 0.5, 0.5
    before, after = (x - 1) ** 2 / 2, (x_next - 1) ** 2 / 2
    assert after < before
    armijo = InexactArmijo(0.1, 1.0)
    assert armijo.excess(armijo.upper_bound(after, abs(x_next - 1), accuracy), armijo.lower_bound(before, x - 1, accuracy), 0.1, 1.0) > 0


def test_a_loss_that_is_not_convex_has_a_lower_bound_with_its_bend():
    assert InexactArmijo(0.1, 2.0, is_upper_convex=False).lower_bound(1.0, 1.0, 0.1) == pytest.approx(0.89)


def test_tolerances_are_absolute(well):
    def scaled(problem, factor):
        # Everything of the lower problem times a factor: the same solution, and μ a factor larger.
        A2, A3, b2 = (jnp.sqrt(factor) * a for a in (problem.A2, problem.A3, problem.b2))
        return LinearBilevel.of(problem.A1, problem.b1, A2, A3, b2)

    for factor in (1.0, 1e6):
        problem = scaled(well, factor)
        found = solve(problem, jnp.ones(4), jnp.zeros(4), 1e-3)
        assert np.linalg.norm(found.x - exact(problem, jnp.ones(4))[2]) <= 1e-3
        for tolerance in (1e-2, 1e-8):
            hypergradient = both(problem, jnp.ones(4), found.x, 1e-3, tolerance)[0]
            H, slope = problem.A2.T @ problem.A2, problem.A1.T @ (problem.A1 @ found.x - problem.b1)
            assert np.linalg.norm(H @ hypergradient.adjoint - slope) <= tolerance * (1 + 1e-6)


def test_a_warm_start_costs_one_gradient_and_saves_products(well):
    first = solve(well, jnp.ones(4), jnp.zeros(4), 1e-8)
    assert first.gradients > 1 and solve(well, jnp.ones(4), first.x, 1e-8).gradients == 1
    again = jax.jit(lambda x, q: inexact_hypergradient(well, jnp.ones(4), x, 1e-8, adjoint=q))
    cold = again(first.x, jnp.zeros(4))
    assert again(first.x, cold.adjoint).products < cold.products


def test_a_perfectly_conditioned_lower_problem_takes_one_step():
    problem = Bilevel(scalar_upper, scalar_lower, **UNIT)
    found = solve_lower(problem, jnp.array(3.0), jnp.array(-5.0), 1e-9)
    assert found.gradients == 2 and found.x == 3.0


def test_the_lower_solve_is_accelerated():
    curvature = jnp.geomspace(1.0, 1e4, 20)
    problem = Bilevel(
        jnp.sum, lambda x, theta: jnp.sum(curvature * (x - theta) ** 2) / 2,
        strong_convexity=1.0, smoothness=1e4, upper_smoothness=0.0, hessian_lipschitz=0.0, cross_lipschitz=0.0,
    )  # fmt: skip
    found = jax.jit(lambda theta, x: solve_lower(problem, theta, x, 1e-8))(jnp.ones(20), jnp.zeros(20))
    # √κ log(κ/ε) = 2763, where plain descent takes κ log(κ/ε).
    assert found.certified and found.gradients < 2763
    np.testing.assert_allclose(found.x, 1, atol=1e-8)


def test_what_round_off_would_forge_is_not_certified(well):
    by_chance = solve_lower(Bilevel(scalar_upper, scalar_lower, **UNIT), jnp.array(3.0), jnp.array(3.0), 1e-18)
    assert by_chance.distance == 0 and not by_chance.certified
    found = solve(well, jnp.ones(4), jnp.ones(4), 1e-18)
    assert not found.certified and found.finest > 1e-18 and found.gradients < 1000
    cut = solve(well, jnp.ones(4), jnp.ones(4), 1e-8, max_gradients=3)
    assert not cut.certified and cut.gradients == 3


def test_accuracy_that_is_not_to_be_had_ends_the_descent(well):
    found = maid(well, jnp.ones(4), jnp.zeros(4), accuracy=1e-6, **SETTINGS)
    assert found.status == "precision"
    assert np.linalg.norm(exact(well, found.theta)[1]) < 1e-8


def test_accuracy_grows_no_further_than_allowed(well):
    found = maid(well, jnp.ones(4), jnp.zeros(4), accuracy=1e-6, loosest=1e-4, stop_at=1e-4, **SETTINGS)
    assert found.history.accuracy.max() <= 1e-4


def test_work_is_limited_and_the_history_counts_it(well):
    found = maid(well, jnp.ones(4), jnp.zeros(4), work_limit=300, **SETTINGS)
    history = found.history
    assert found.status == "work_limit" and 300 <= found.work.total < 500
    np.testing.assert_array_equal(history.work, history.lower_gradients + 2 * (history.hessian_products + history.cross_products))
    assert (np.diff(history.work) > 0).all() and history.work[-1] <= found.work.total


@pytest.mark.parametrize("schedule", [lambda k: 0.9**k, lambda k: (k + 1.0) ** -2, lambda k: (k + 1.0) ** -3])
def test_schedules_of_hoag_converge(well, schedule):
    found = hoag(well, jnp.ones(4), jnp.zeros(4), schedule=schedule, max_steps=150)
    start = np.linalg.norm(exact(well, jnp.ones(4))[1])
    assert np.linalg.norm(exact(well, found.theta)[1]) < 1e-2 * start
    assert np.isinf(found.history.error_bound).all() and (found.history.accuracy >= 1e-12).all()


def hoag_by_hand(upper, slope, theta, x, schedule, n_steps):
    """With h = ‖x - θ‖²/2, of which each lower problem and linear system is solved at once, unless its start will do."""

    def better(start, exact, accuracy):
        return start if np.linalg.norm(start - exact) <= accuracy else exact

    accuracy, share, steps = schedule(0), 1.0, []
    x = better(x, theta, accuracy)
    q = better(np.zeros_like(x), slope(x), accuracy)
    curvature = np.linalg.norm(q) / np.sqrt(len(q))
    for k in range(1, n_steps + 1):
        following = schedule(k) * share
        moved = np.clip(theta - q / curvature, -1000, 1000)
        x_moved = better(x, moved, following)
        if upper(x_moved) >= upper(x) + 0.2 * abs(upper(x)):
            curvature, share = 2 * curvature, share / 2
            accuracy = schedule(k) * share
            x = better(x, theta, accuracy)
            q = better(q, slope(x), accuracy)
            continue
        length = np.linalg.norm(q) / curvature
        steps.append((*theta, *moved, 1 / curvature))
        if upper(x_moved) <= upper(x) + following / 4 + 1.25 * accuracy * length - curvature * length**2:
            curvature *= 0.95
        theta, x, accuracy = moved, x_moved, following
        q = better(q, slope(x), accuracy)
    return np.array(steps)


@pytest.mark.parametrize("case", ["refused and forgiven", "into the box"])
def test_hoag_takes_the_steps_of_its_rule(case):
    if case == "into the box":
        weights, middle, start = np.array([-1.0, -2.0]), np.zeros(2), np.array([998.5, 900.0])
    else:
        weights, middle, start = np.array([3.0, 1.0]), np.ones(2), np.array([1.4, 0.8])

    def upper(x):
        return ((x - middle) ** 2 * weights).sum() / 2

    def schedule(k):
        return 0.3 * 0.9**k

    exact = hoag_by_hand(upper, lambda x: weights * (x - middle), start, start + 1.0, schedule, 25)
    problem = Bilevel(upper, lambda x, theta: jnp.sum((x - theta) ** 2) / 2, **{**UNIT, "upper_smoothness": 3.0})
    steps = []
    hoag(problem, jnp.asarray(start), jnp.asarray(start + 1.0), schedule=schedule, max_steps=25, callback=steps.append)
    np.testing.assert_allclose([(*step.theta, *step.next_theta, step.step_size) for step in steps], exact, rtol=1e-9)
    grown = np.diff(exact[:, -1]) > 0
    assert grown.any()
    assert exact[:, :4].max() == 1000 if case == "into the box" else len(exact) < 25 and not grown.all()


def test_hoag_says_why_it_ends(well):
    flat = Bilevel(lambda x: 0.0 * x, scalar_lower, **UNIT)
    assert hoag(flat, jnp.array(4.0), jnp.array(0.0), schedule=lambda k: 0.01**k, max_steps=50).status == "converged"
    cut = hoag(well, jnp.ones(4), jnp.zeros(4), schedule=lambda k: 1e-6, max_lower_gradients=2)
    assert cut.status == "precision" and len(cut.history.loss) == 0
    spent = hoag(well, jnp.ones(4), jnp.zeros(4), schedule=lambda k: 0.9**k, work_limit=200)
    assert spent.status == "work_limit" and 200 <= spent.work.total < 300


def test_hoag_takes_an_upper_loss_below_zero():
    # The test of a step is relative: 1.2 g is less than g, and all steps would be refused.
    problem = Bilevel(lambda x: scalar_upper(x) - 10.0, scalar_lower, **UNIT)
    found = hoag(problem, jnp.array(4.0), jnp.array(0.0), schedule=lambda k: 0.9**k, max_steps=40)
    assert len(found.history.loss) > 5 and float(found.theta) == pytest.approx(1.0, abs=0.05)


def test_hoag_ends_where_every_step_is_refused():
    # Without a minimum in reach: any step leads to a loss that is no number.
    problem = Bilevel(lambda x: jnp.where(x >= 3.99, scalar_upper(x), jnp.nan), scalar_lower, **UNIT)
    found = hoag(problem, jnp.array(4.0), jnp.array(4.0), schedule=lambda k: 1e-6, max_steps=5)
    assert found.status == "max_steps" and len(found.history.loss) == 0 and float(found.theta) == 4.0


# A signal in one dimension, total variation with one weight: everything known from elsewhere.
CLEAN = np.repeat([0.0, 1.0, 0.5], [40, 30, 30])
NOISY = CLEAN + 0.1 * np.random.default_rng(0).standard_normal(100)


def signal_upper(x):
    return jnp.sum((x - jnp.asarray(CLEAN)) ** 2) / 2


def signal_lower(x, theta, rounding=0.01):
    return jnp.sum((x - jnp.asarray(NOISY)) ** 2) / 2 + jnp.exp(theta) * jnp.sum(jnp.sqrt(jnp.diff(x) ** 2 + rounding**2))


def signal_of(rounding):
    """The signal's problem with its constants; those of third derivatives grow as the square of one over the rounding."""
    return Bilevel(
        signal_upper,
        lambda x, theta: signal_lower(x, theta, rounding),
        strong_convexity=1.0,
        smoothness=lambda theta: 1 + 4 * jnp.exp(theta) / rounding,
        upper_smoothness=1.0,
        hessian_lipschitz=lambda theta: 0.8587 * 4 * np.sqrt(2) * jnp.exp(theta) / rounding**2,
        cross_lipschitz=lambda theta: 4 * jnp.exp(theta) / rounding,
    )


@pytest.fixture(scope="module")
def signal():
    return signal_of(0.01)


def test_total_variation_of_a_signal(signal):
    assert float(signal.upper(jnp.asarray(NOISY))) == pytest.approx(0.46613585, rel=1e-6)
    found = maid(signal, jnp.array(-3.0), jnp.asarray(NOISY), step_size=10.0, stop_at=1e-3, max_steps=100)
    assert found.status == "converged" and float(found.theta) == pytest.approx(-0.92005, abs=5e-3)
    assert found.loss == pytest.approx(0.08330330, rel=1e-3)
    assert 10 * np.log10(1 / np.mean((np.asarray(found.x) - CLEAN) ** 2)) == pytest.approx(27.783, abs=5e-3)


@pytest.mark.parametrize(("rounding", "accuracy", "most"), [(0.01, 1e-5, 1e4), (1.0, 1e-3, 5), (1.0, 1.0, 10)])
def test_where_no_term_vanishes_the_bound_covers_the_error_of_a_signal(rounding, accuracy, most):
    problem, theta = signal_of(rounding), jnp.array(-1.5)
    tolerance = 1e-3 * accuracy

    @jax.jit
    def precise():
        x = solve_lower(problem, theta, jnp.asarray(NOISY), 1e-12).x
        # Where the error grows the most.
        slope = jax.grad(lambda x: inexact_hypergradient(problem, theta, x, 1e-10).gradient)(x)
        return x, inexact_hypergradient(problem, theta, x, 1e-12).gradient, slope

    solution, gradient, slope = precise()

    @jax.jit
    def at(direction):
        # As far away as is allowed.
        x = solution + accuracy * direction / jnp.linalg.norm(direction)
        norm = measured_cross_norm(problem, theta, x).value
        bound = hypergradient_error_bound(problem, theta, x, accuracy=accuracy, tolerance=tolerance, cross_norm=norm)
        return jnp.abs(inexact_hypergradient(problem, theta, x, tolerance).gradient - gradient), bound

    directions = np.random.default_rng(1).normal(size=(20, 100))
    errors, bounds = jax.lax.map(at, jnp.asarray([*directions, slope, -slope]))
    assert (errors <= bounds).all()
    # 3.8 and 7 times where total variation is smooth; 7 000 where it is sharp: as if every place were at its worst at once.
    assert 1 < (bounds / errors).min() < most


def test_in_the_limit_the_gradient_is_the_implicit_one(signal):
    theta = jnp.array(-1.5)

    @jax.jit
    def limit(theta):
        x = solve_lower(signal, theta, jnp.asarray(NOISY), 1e-10).x
        cotangent = jax.grad(signal.upper)(x)
        by_rule = root_vjp(stationary(signal_lower), x, (theta,), cotangent).theta[0]
        return signal.upper(x), inexact_hypergradient(signal, theta, x, 1e-10).gradient, by_rule

    _, ours, by_rule = limit(theta)
    np.testing.assert_allclose(ours, by_rule, rtol=1e-8)
    difference = (limit(theta + 1e-4)[0] - limit(theta - 1e-4)[0]) / 2e-4
    np.testing.assert_allclose(ours, difference, rtol=1e-5)


def test_a_flat_upper_loss_has_the_gradient_zero(well):
    problem = Bilevel(lambda x: 0.0 * jnp.sum(x), well.lower, hessian_lipschitz=0.0, cross_lipschitz=0.0,
                      strong_convexity=well.mu, smoothness=well.L, upper_smoothness=0.0)  # fmt: skip
    found = jax.jit(lambda x: inexact_hypergradient(problem, jnp.ones(4), x, 1e-8))(jnp.ones(4))
    assert (found.gradient == 0).all() and found.residual == 0 and found.certified


def test_nothing_is_compiled_again_and_trees_are_taken():
    traced = []

    def lower(x, theta):
        traced.append(None)
        return scalar_lower(x["a"], theta["b"][0]) + scalar_lower(x["c"], 2 * theta["b"][1])

    problem = Bilevel(lambda x: scalar_upper(x["a"]) + scalar_upper(x["c"]), lower, **UNIT)
    theta, x = {"b": jnp.array([3.0, 4.0])}, {"a": jnp.array(0.0), "c": jnp.array(0.0)}
    found = maid(problem, theta, x, stop_at=1e-3)
    np.testing.assert_allclose(found.theta["b"], [1.0, 0.5], atol=1e-3)
    once = len(traced)
    maid(problem, theta, x, accuracy=1e-3, step_size=0.5, stop_at=1e-3)
    # The structure is looked at, at the start.
    assert len(traced) <= once + 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accuracy": 0.0}, "accuracy must be positive, got 0.0"),
        ({"tolerance": -1.0}, "tolerance must be positive, got -1.0"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"decrease": 0.5}, r"decrease must be below share, 0.5, got 0.5"),
        ({"decrease": 0.0}, r"decrease must lie in \(0, 1\), got 0.0"),
        ({"share": 1.0}, r"share must lie in \(0, 1\), got 1.0"),
        ({"step_shrink": 1.0}, r"step_shrink must lie in \(0, 1\), got 1.0"),
        ({"tighten": 1.5}, r"tighten must lie in \(0, 1\), got 1.5"),
        ({"step_growth": 1.0}, "step_growth must be above 1, got 1.0"),
        ({"loosen": 1.0}, "loosen must be above 1, got 1.0"),
        ({"max_backtracks": 0}, "max_backtracks must be at least 1, got 0"),
        ({"accuracy": 1e-17}, "accuracy must be at least .* that float64 can certify here, got 1e-17"),
    ],
)
def test_wrong_arguments_are_refused(well, changed, message):
    with pytest.raises(ValueError, match=message):
        maid(well, jnp.ones(4), jnp.zeros(4), **changed)


def test_wrong_problems_are_refused(well):
    problem = Bilevel(scalar_upper, scalar_lower, **UNIT)
    with pytest.raises(ValueError, match=r"strong_convexity must be positive, got 0.0"):
        Bilevel(scalar_upper, scalar_lower, **{**UNIT, "strong_convexity": 0.0})
    with pytest.raises(ValueError, match=r"smoothness must be at least 0, got -1.0"):
        Bilevel(scalar_upper, scalar_lower, **{**UNIT, "smoothness": -1.0})
    concave = Bilevel(scalar_upper, scalar_lower, **{**UNIT, "strong_convexity": lambda theta: theta - 4.0})
    with pytest.raises(ValueError, match=r"strong_convexity must be positive at theta, got -1.0"):
        maid(concave, jnp.array(3.0), jnp.array(0.0))
    nowhere = Bilevel(scalar_upper, scalar_lower, **{**UNIT, "strong_convexity": lambda theta: theta * jnp.nan})
    with pytest.raises(ValueError, match=r"strong_convexity must be positive at theta, got nan"):
        maid(nowhere, jnp.array(3.0), jnp.array(0.0))
    with pytest.raises(ValueError, match=r"must be finite at the start, got a loss of .* and a gradient that is not"):
        maid(problem, jnp.array(jnp.nan), jnp.array(0.0))
    with pytest.raises(TypeError, match="theta must hold floating-point arrays only"):
        maid(problem, jnp.array(3), jnp.array(0.0))
    trees = Bilevel(lambda x: scalar_upper(x["a"]), lambda x, theta: scalar_lower(x["a"], theta["b"]), **UNIT)
    with pytest.raises(ValueError, match=r"x must be what the upper loss takes, got .*'c'.*KeyError: 'a'"):
        maid(trees, {"b": jnp.array(3.0)}, {"c": jnp.array(0.0)})
    with pytest.raises(ValueError, match=r"x and theta must be what the lower objective takes, got .*'a'.*'c'.*KeyError: 'b'"):
        maid(trees, {"c": jnp.array(3.0)}, {"a": jnp.array(0.0)})
    with pytest.raises(ValueError, match=r"the upper loss (must be one number|takes)"):
        maid(Bilevel(scalar_upper, lambda x, theta: scalar_lower(x, theta).sum(), **UNIT), jnp.ones(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="schedule must be at least 0, got -1"):
        hoag(problem, jnp.array(3.0), jnp.array(0.0), schedule=lambda k: -1.0)
    with pytest.raises(ValueError, match=r"A2 must have at least as many rows as columns, got shape \(2, 3\)"):
        LinearBilevel.of(jnp.eye(3), jnp.ones(3), jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(2))


def test_single_precision_is_refused_where_it_cannot_certify():
    problem = Bilevel(scalar_upper, scalar_lower, **UNIT)
    theta, x = jnp.array(3.0, jnp.float32), jnp.array(0.0, jnp.float32)
    with pytest.raises(ValueError, match=r"accuracy must be at least .* that float32 can certify here, got 1e-07; use double precision"):
        maid(problem, theta, x, accuracy=1e-7)
    found = maid(problem, theta, x, accuracy=1e-2, stop_at=1e-2)
    assert found.theta.dtype == jnp.float32 and found.status == "converged"
