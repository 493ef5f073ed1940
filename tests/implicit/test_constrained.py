import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from gradatim.implicit import (
    ConicPoint,
    KKTPoint,
    QuadraticProgram,
    conic_program,
    dual_cone_projection,
    implicit_solution,
    kkt,
    quadratic_program,
    root_vjp,
)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def test_quadratic_program_with_an_equality():
    program = QuadraticProgram(jnp.array([[2.0, 0.5], [0.5, 1.0]]), jnp.ones(2), jnp.ones((1, 2)), jnp.ones(1))
    point = KKTPoint(jnp.array([0.25, 0.75]), jnp.array([-1.875]))

    @jax.jit
    def solve(program):
        def solution(program):
            return implicit_solution(quadratic_program, point, program).primal

        return quadratic_program(point, program), jax.jacrev(solution)(program)

    value, slope = solve(program)
    np.testing.assert_allclose(np.concatenate([value.primal, value.equality]), 0, atol=1e-15)
    np.testing.assert_allclose(slope.c, [[-0.5, 0.5], [0.5, -0.5]], atol=1e-14)
    np.testing.assert_allclose(slope.d, [[0.25], [0.75]], atol=1e-14)


def test_active_and_inactive_inequalities():
    # min ‖x - θ‖²/2 subject to x₀ ≤ 1 (active) and x₁ ≤ 5 (not).
    conditions = kkt(lambda x, t: jnp.sum((x - t[0]) ** 2) / 2, inequality=lambda x, t: x - t[1])
    theta = (jnp.array([3.0, 2.0]), jnp.array([1.0, 5.0]))
    point = KKTPoint(jnp.array([1.0, 2.0]), None, jnp.array([2.0, 0.0]))
    in_target, in_bound = jax.jit(jax.jacfwd(lambda t: implicit_solution(conditions, point, t).primal))(theta)
    np.testing.assert_allclose(in_target, np.diag([0.0, 1.0]), atol=1e-14)
    np.testing.assert_allclose(in_bound, np.diag([1.0, 0.0]), atol=1e-14)


def test_redundant_constraints_need_least_squares():
    conditions = kkt(lambda x, t: jnp.sum((x - t) ** 2) / 2, equality=lambda x, t: jnp.stack([x.sum() - 1, 2 * x.sum() - 2]))
    theta = jnp.array([0.8, 0.6])
    point = KKTPoint(jnp.array([0.6, 0.4]), jnp.array([0.2, 0.0]))

    def pull(**settings):
        return root_vjp(conditions, point, (theta,), KKTPoint(jnp.array([1.0, 0.0]), jnp.zeros(2)), **settings).theta[0]

    np.testing.assert_allclose(eqx.filter_jit(pull)(linear_solver=lx.SVD(rcond=1e-10)), [0.5, -0.5], atol=1e-12)
    with pytest.raises(RuntimeError, match="singular"):
        jax.block_until_ready(eqx.filter_jit(pull)())


def test_weakly_active_constraint_is_reported_as_singular():
    conditions = kkt(lambda x, t: (x - t) ** 2 / 2, inequality=lambda x, t: x - 1.0)
    with pytest.raises(RuntimeError, match="singular"):
        root_vjp(
            conditions, KKTPoint(jnp.array(1.0), None, jnp.array(0.0)), (jnp.array(1.0),), KKTPoint(jnp.array(1.0), None, jnp.array(0.0))
        )


def test_linear_function_on_a_ball_as_a_conic_program():
    # min cᵀx subject to ‖x‖ ≤ r: x = -r c/‖c‖.
    c, r, n = jnp.array([1.0, -2.0, 2.0]), 1.5, 3
    A = jnp.concatenate([jnp.zeros((1, n)), -jnp.eye(n)])
    b = jnp.concatenate([jnp.array([r]), jnp.zeros(n)])
    x = -r * c / 3
    y, s = jnp.concatenate([jnp.array([3.0]), c]), jnp.concatenate([jnp.array([r]), x])
    point = ConicPoint(x, y - s)
    conditions = conic_program(dual_cone_projection(second_order=(n + 1,)))

    @jax.jit
    def solve(b, c):
        def solution(b, c):
            return implicit_solution(conditions, point, A, b, c).u

        return conditions(point, A, b, c), jax.jacrev(solution, argnums=(0, 1))(b, c)

    value, (in_b, in_c) = solve(b, c)
    np.testing.assert_allclose(np.concatenate(value), 0, atol=1e-14)
    np.testing.assert_allclose(in_b[:, 0], -c / 3, atol=1e-12)
    np.testing.assert_allclose(in_c, -r * (np.eye(n) / 3 - np.outer(c, c) / 27), atol=1e-12)


def test_linear_program_as_a_conic_program():
    # min x₀ + 2 x₁ subject to x₀ + x₁ = b₀, x ≥ 0: all in x₀.
    A = jnp.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    b, c = jnp.array([3.0, 0.0, 0.0]), jnp.array([1.0, 2.0])
    y, s = jnp.array([-1.0, 0.0, 1.0]), jnp.array([0.0, 3.0, 0.0])
    conditions = conic_program(dual_cone_projection(zero=1, nonnegative=2))
    point = ConicPoint(jnp.array([3.0, 0.0]), y - s)
    in_b = jax.jit(jax.jacfwd(lambda b: implicit_solution(conditions, point, A, b, c).u))(b)
    np.testing.assert_allclose(in_b, [[1, 0, 1], [0, 0, -1]], atol=1e-12)


def test_quadratic_program_with_both_kinds_of_constraints_against_differences():
    random = np.random.default_rng(0)
    root = random.normal(size=(3, 3))
    # The first inequality is active, the second is not.
    program = QuadraticProgram(
        root @ root.T + np.eye(3), np.array([1.0, -2.0, 0.5]), np.ones((1, 3)), np.ones(1), np.eye(3)[1:], np.array([0.2, 9.0])
    )
    direction = QuadraticProgram(*(random.normal(size=part.shape) for part in program))
    direction = direction._replace(Q=direction.Q + direction.Q.T)

    def answer(step):
        Q, c, E, d, M, h = (part + step * move for part, move in zip(program, direction, strict=True))
        rows = np.concatenate([E, M[:1]])
        return np.linalg.solve(np.block([[Q, rows.T], [rows, np.zeros((2, 2))]]), np.concatenate([-c, d, h[:1]]))

    x, (nu, active) = answer(0.0)[:3], answer(0.0)[3:]
    assert active > 0.1 and x[2] < 9
    point = KKTPoint(jnp.asarray(x), jnp.asarray([nu]), jnp.asarray([active, 0.0]))

    @jax.jit
    def solve(program, direction):
        value = quadratic_program(point, program)
        return value, jax.jvp(lambda program: implicit_solution(quadratic_program, point, program), (program,), (direction,))[1]

    value, moved = solve(*(jax.tree.map(jnp.asarray, part) for part in (program, direction)))
    np.testing.assert_allclose(np.concatenate(value), 0, atol=1e-14)
    exact = (answer(1e-6) - answer(-1e-6)) / 2e-6
    np.testing.assert_allclose(np.concatenate(moved), [*exact, 0], rtol=1e-7, atol=1e-8)


def test_cones_stand_one_behind_the_other():
    projection = dual_cone_projection(zero=1, nonnegative=2, second_order=(2, 3))
    found = projection(jnp.array([-1.0, -2.0, 3.0, 0.0, 4.0, 0.0, 3.0, 4.0]))
    np.testing.assert_allclose(found, [-1, 0, 3, 2, 2, 2.5, 1.5, 2], rtol=1e-12)


def test_points_and_cones_that_do_not_fit_are_refused():
    conditions = kkt(lambda x, t: x @ x, equality=lambda x, t: x.sum())
    with pytest.raises(ValueError, match="a point must have equality multipliers exactly where the problem has equality constraints"):
        conditions(KKTPoint(jnp.ones(2)), 1.0)
    with pytest.raises(ValueError, match="sizes must be at least 0"):
        dual_cone_projection(zero=-1)
    with pytest.raises(ValueError, match=r"v must have shape \(3,\), the sum of the cones' sizes, got \(2,\)"):
        dual_cone_projection(zero=1, nonnegative=2)(jnp.ones(2))
    with pytest.raises(ValueError, match="sizes must be at least 0, and 1 for a second-order cone, got 0, 0 and"):
        dual_cone_projection(second_order=(0,))
    with pytest.raises(ValueError, match=r"a point must have inequality multipliers exactly .* got some and none"):
        conditions(KKTPoint(jnp.ones(2), jnp.array(1.0), jnp.ones(1)), 1.0)
