import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.implicit import (
    ConditionsAdjoint,
    FixedPointConditions,
    RelativeTolerance,
    custom_fixed_point,
    custom_root,
    default_solver,
    implicit_solution,
    iterate,
    one_step,
    root_jvp,
    root_vjp,
    stationary,
)


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


def cubic(x, theta):
    return x**3 + x - theta


@jax.jit
def solve_cubic(init, theta):
    return jax.lax.while_loop(lambda x: jnp.abs(cubic(x, theta)) > 1e-13, lambda x: x - cubic(x, theta) / (3 * x**2 + 1), init)


solution_of_cubic = custom_root(cubic)(solve_cubic)


def test_cubic_first_and_second_derivative_in_both_modes():
    @jax.jit
    def derivatives(theta):
        f = functools.partial(solution_of_cubic, jnp.asarray(0.3))
        modes = [f, jax.jacfwd(f), jax.jacrev(f), jax.hessian(f), jax.jacrev(jax.jacrev(f)), jax.jacrev(jax.jacfwd(f))]
        return [g(theta) for g in modes]

    np.testing.assert_allclose(derivatives(2.0), [1, 0.25, 0.25, -0.09375, -0.09375, -0.09375], rtol=1e-12)


def test_a_solution_does_not_depend_on_its_start():
    assert jax.jit(jax.grad(solution_of_cubic))(0.3, 2.0) == 0


def test_batches_by_vmap():
    theta = jnp.array([2.0, 10.0, 30.0])
    x = jnp.array([1.0, 2.0, 3.0])
    batch = jax.jit(jax.vmap(jax.value_and_grad(solution_of_cubic, argnums=1), in_axes=(None, 0)))
    np.testing.assert_allclose(batch(0.5, theta), [x, 1 / (3 * x**2 + 1)], rtol=1e-12)


def spiral(x, theta, shift):
    """Not symmetric: a rotation and a cubic."""
    a, b = x["a"], x["b"]
    return {"a": theta[0] * a + b + a**3 - shift, "b": -a + theta[1] * b}


POINT = {"a": np.array([0.3, -0.2]), "b": np.array([0.1, 0.4])}
SCALES = (np.array([2.0, 3.0]), np.array([4.0, 1.5]))


def test_pytrees_jvp_is_the_transpose_of_vjp_and_of_dense_algebra():
    shift = jnp.array(0.0)

    @jax.jit
    def all_ways(tangent, cotangent):
        def f(theta):
            return implicit_solution(spiral, POINT, theta, shift)

        forward = jax.jvp(f, (SCALES,), (tangent,))[1]
        (backward,) = jax.vjp(f, SCALES)[1](cotangent)
        pushed = root_jvp(spiral, POINT, (SCALES, shift), (tangent, None))
        pulled = root_vjp(spiral, POINT, (SCALES, shift), cotangent)
        jacobians = jax.jacfwd(spiral, argnums=(0, 1))(POINT, SCALES, shift)
        return forward, backward, pushed, pulled, jacobians

    tangent = (jnp.array([1.0, -1.0]), jnp.array([0.5, 2.0]))
    cotangent = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([-1.0, 0.5])}
    forward, backward, pushed, pulled, jacobians = all_ways(tangent, cotangent)

    def flat(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    A = -np.block([[jacobians[r][0][c] for c in "ab"] for r in "ab"])
    B = np.block([[jacobians[r][1][c] for c in (0, 1)] for r in "ab"])
    exact = np.linalg.solve(A, B @ flat(tangent))
    np.testing.assert_allclose(flat(forward), exact, rtol=1e-10)
    np.testing.assert_allclose(flat(pushed), exact, rtol=1e-10)
    np.testing.assert_allclose(flat(backward), B.T @ np.linalg.solve(A.T, flat(cotangent)), rtol=1e-10)
    np.testing.assert_allclose(flat(pulled.theta[0]), flat(backward), rtol=1e-10)
    np.testing.assert_allclose(flat(pulled.adjoint), np.linalg.solve(A.T, flat(cotangent)), rtol=1e-10)
    np.testing.assert_allclose(flat(backward) @ flat(tangent), flat(cotangent) @ flat(forward), rtol=1e-12)


def test_scaling_the_conditions_leaves_the_derivative():
    mix = jnp.array([[2.0, 1.0], [-1.0, 3.0]])

    def conditions(x, theta):
        return x**3 + x[::-1] - theta

    def mixed(x, theta):
        return mix @ conditions(x, theta)

    x = jnp.array([0.7, -0.4])
    jacobians = jax.jit(lambda theta: [jax.jacrev(lambda t, f=f: implicit_solution(f, x, t))(theta) for f in (conditions, mixed)])
    plain, scaled = jacobians(jnp.ones(2))
    np.testing.assert_allclose(plain, scaled, rtol=1e-12)


def test_envelope_theorem():
    def f(x, theta):
        return theta[0] * jnp.sum(x**2) + jnp.sum(jnp.cosh(x - theta[1]))

    theta = jnp.array([0.7, 0.9])
    x = jnp.zeros(3)
    newton = jax.jit(lambda x: x - jnp.linalg.solve(jax.hessian(f)(x, theta), jax.grad(f)(x, theta)))
    for _ in range(8):
        x = newton(x)

    def value(theta):
        return f(implicit_solution(stationary(f), x, theta, tags=lx.positive_semidefinite_tag), theta)

    through, partial = jax.jit(lambda theta: (jax.grad(value)(theta), jax.grad(f, argnums=1)(x, theta)))(theta)
    np.testing.assert_allclose(through, partial, rtol=1e-10)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 3.0))
def test_linear_conditions_have_the_derivative_of_the_inverse(seed, scale):
    random = np.random.default_rng(seed)
    A = random.normal(size=(3, 3)) + 4 * np.eye(3)
    b, v = random.normal(size=(2, 3)) * scale
    x, u, pulled = _linear(A, b, v)
    np.testing.assert_allclose(u, np.linalg.solve(A.T, v), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(pulled, -np.outer(u, x), rtol=1e-8, atol=1e-10)


@jax.jit
def _linear(A, b, v):
    x = jnp.linalg.solve(A, b)
    (in_A, in_b) = jax.vjp(lambda A, b: implicit_solution(lambda x, A, b: A @ x - b, x, A, b), A, b)[1](v)
    return x, in_b, in_A


def test_what_the_conditions_close_over_is_differentiated():
    def closed(theta):
        return implicit_solution(lambda x: x**3 + x - theta, jnp.asarray(1.0))

    def solver_too(theta):
        # The loop must not be differentiated either: in reverse it could not be.
        return custom_root(lambda x: x**3 + x - theta)(lambda init: solve_cubic(init, theta))(0.5)

    np.testing.assert_allclose(jax.jit(lambda t: (jax.grad(closed)(t), jax.grad(solver_too)(t)))(2.0), 0.25, rtol=1e-12)


def test_solvers_outside_of_jax_are_never_traced():
    seen = []

    @custom_root(lambda x, theta: x * x - theta)
    def with_numpy(init, theta):
        seen.append(float(theta))
        return np.sqrt(np.asarray(theta)) * np.asarray(init)

    value, slope = jax.value_and_grad(lambda theta: with_numpy(np.array([1.0]), theta).sum())(4.0)
    assert (value, slope, seen) == (2.0, 0.25, [4.0])


def test_integers_none_and_static_arguments_in_theta():
    def conditions(x, theta):
        return x * theta["scale"] - theta["n"] - (0.0 if theta["nothing"] is None else 1.0)

    theta = {"scale": jnp.array(2.0), "n": jnp.array(6), "nothing": None, "word": "static"}
    found = root_vjp(conditions, jnp.array(3.0), (theta,), jnp.array(1.0))
    assert found.theta[0]["n"] is None and found.theta[0]["nothing"] is None and found.theta[0]["scale"] == -1.5
    one = {"scale": jnp.array(1.0), "n": None, "nothing": None, "word": None}
    assert root_jvp(conditions, jnp.array(3.0), (theta,), (one,)) == -1.5
    gradient = eqx.filter_grad(lambda theta: implicit_solution(conditions, jnp.array(3.0), theta))(theta)
    assert gradient["scale"] == -1.5 and gradient["n"] is None


def test_aux_is_returned_and_gets_no_derivative():
    @custom_root(cubic, has_aux=True)
    def solve(init, theta):
        return solve_cubic(init, theta), {"theta": theta, "steps": 3}

    def both(theta):
        x, aux = solve(0.3, theta)
        return x + aux["theta"], aux["steps"]

    slope, steps = jax.grad(both, has_aux=True)(2.0)
    np.testing.assert_allclose(slope, 0.25, rtol=1e-12)
    assert steps == 3


def test_what_a_solver_closes_over_gives_no_derivative_to_its_answer_or_aux():
    def newton(x, theta):
        return (x + theta / x) / 2

    def both(theta):
        x, aux = custom_fixed_point(newton, has_aux=True)(lambda init, t: (jnp.sqrt(theta) * init, 7 * theta))(1.0, theta)
        return x + aux

    def stepped(theta):
        return one_step(lambda x, t: t / x)(lambda init, t: jnp.sqrt(theta) * init)(1.0, theta)

    slopes = jax.jit(lambda theta: (jax.grad(both)(theta), jax.grad(stepped)(theta)))(4.0)
    np.testing.assert_allclose(slopes, [1 / 4, 1 / 2], rtol=1e-12)


def test_keyword_arguments_reach_solver_and_conditions():
    @custom_root(lambda x, *, scale: x * scale - 1)
    def solve(init, *, scale):
        return init * 0 + 1 / scale

    np.testing.assert_allclose(jax.grad(lambda scale: solve(1.0, scale=scale))(2.0), -0.25)
    with pytest.raises(TypeError, match=r"conditions must take what the solver is called with, got 0 after x and scale, steps by name"):
        solve(1.0, scale=2.0, steps=3)


@functools.partial(jax.custom_vjp)
def only_reverse(theta):
    return jnp.sqrt(theta)


only_reverse.defvjp(lambda theta: (only_reverse(theta), theta), lambda theta, g: (g * 1e9,))


def test_a_solver_with_a_rule_of_its_own_for_reverse_mode_does_not_block_forward_mode():
    solve = custom_root(lambda x, theta: x**2 - theta)(lambda init, theta: only_reverse(theta))
    first, second = jax.jit(lambda t: (jax.jacfwd(solve, 1)(1.0, t), jax.jacfwd(jax.grad(solve, 1), 1)(1.0, t)))(4.0)
    np.testing.assert_allclose([first, second], [1 / 4, -1 / 32], rtol=1e-12)


def test_fixed_points_and_one_step_and_unrolling():
    def step(x, theta):
        return jnp.cos(theta * x)

    few, many = iterate(step, n_steps=5), iterate(step, n_steps=200)

    @jax.jit
    def slopes(theta):
        ways = (custom_fixed_point(step)(many), many, few, one_step(step)(many), custom_fixed_point(step)(few))
        return many(0.5, theta), [jax.grad(solve, argnums=1)(0.5, theta) for solve in ways]

    x, (implicit, unrolled, early, one, implicit_early) = slopes(1.0)
    exact = -x * np.sin(x) / (1 + np.sin(x))
    np.testing.assert_allclose([implicit, unrolled], exact, rtol=1e-10)
    np.testing.assert_allclose(one, -x * np.sin(x), rtol=1e-10)
    assert abs(implicit_early - exact) < abs(early - exact)


def test_fixed_points_do_not_depend_on_the_size_of_the_step():
    def f(x, theta):
        return jnp.sum(jnp.cosh(x) - theta * x)

    x, theta = jnp.arcsinh(jnp.array([0.5, 2.0])), jnp.array([0.5, 2.0])

    @jax.jit
    def slope(eta):
        def step(x, theta):
            return x - eta * jax.grad(f)(x, theta)

        return jax.jacrev(lambda theta: implicit_solution(FixedPointConditions(step), x, theta))(theta)

    for eta in (1e-3, 1.0, 50.0):
        np.testing.assert_allclose(slope(eta), np.diag(1 / np.cosh(x)), rtol=1e-9, atol=1e-12)


def test_optimistix_takes_conditions_of_our_own():
    adjoint = ConditionsAdjoint(lambda y, a: jnp.exp(y) - a)

    @jax.jit
    def slope(a):
        # The minimiser knows nothing of the root: its own conditions would be singular in y⁴.
        def fn(y, a):
            return (y - jnp.log(a)) ** 4

        return optx.minimise(fn, optx.BFGS(1e-6, 1e-6), jnp.asarray(0.0), a, adjoint=adjoint, throw=False).value

    a = 3.0
    y, dy = jax.value_and_grad(slope)(a)
    np.testing.assert_allclose(dy, np.exp(-y), rtol=1e-12)


N = 600


@pytest.fixture(scope="module")
def large():
    """Solves of more unknowns than are factorised: gradient of a convex function, and a fixed point that is not symmetric."""
    diagonal = jnp.linspace(1.0, 5.0, N)

    def gradient(x, theta):
        return diagonal * x + 0.1 * (x - jnp.roll(x, 1)) + 0.1 * (x - jnp.roll(x, -1)) - theta

    def turn(x, theta):
        return (diagonal - 0.5) / 6 * jnp.roll(x, 1) + theta

    turned = FixedPointConditions(turn)
    x = jnp.zeros(N)

    @jax.jit
    def solve(v):
        symmetric = root_vjp(gradient, x, (x,), v, tags=lx.positive_semidefinite_tag)
        general = root_vjp(turned, x, (x,), v)
        return symmetric.adjoint, general.adjoint

    eye = np.eye(N)
    matrix = np.diag(diagonal + 0.2) - 0.1 * np.roll(eye, 1, 0) - 0.1 * np.roll(eye, -1, 0)
    return solve, -matrix, -(eye - np.asarray((diagonal - 0.5) / 6)[:, None] * np.roll(eye, 1, 0))


@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_large_systems_are_solved_without_a_matrix_at_any_scale(large, scale):
    solve, symmetric, general = large
    v = np.zeros(N)
    v[7], v[300] = scale, -2 * scale
    for found, matrix in zip(solve(jax.device_put(v)), (symmetric, general), strict=True):
        np.testing.assert_allclose(found, np.linalg.solve(matrix.T, v), rtol=0, atol=1e-8 * scale)


def test_a_cotangent_of_zeros_gives_zeros(large):
    assert all((np.asarray(found) == 0).all() for found in large[0](jnp.zeros(N)))


def test_the_default_solver_needs_a_tag_for_conjugate_gradients():
    structure = jax.ShapeDtypeStruct((N,), jnp.float64)
    untagged = lx.FunctionLinearOperator(lambda v: 2 * v, structure)
    tagged = lx.FunctionLinearOperator(lambda v: 2 * v, structure, lx.positive_semidefinite_tag)
    assert isinstance(default_solver(untagged).solver, lx.GMRES)
    assert isinstance(default_solver(tagged).solver, lx.CG)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-10), (jnp.float32, 1e-5)])
def test_the_default_solver_depends_on_size_tags_and_precision(dtype, tolerance):
    def solver_of(n, tags=()):
        return default_solver(lx.FunctionLinearOperator(lambda v: -2 * v, jax.ShapeDtypeStruct((n,), dtype), tags))

    assert isinstance(solver_of(500), lx.AutoLinearSolver) and isinstance(solver_of(501), RelativeTolerance)
    negative = solver_of(501, lx.negative_semidefinite_tag).solver
    assert isinstance(negative, lx.CG)
    assert {negative.rtol, negative.atol, solver_of(501).solver.rtol, solver_of(501).solver.atol} == {tolerance}


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_warm_start_ends_an_iterative_solve_at_once(scale):
    diagonal = jnp.linspace(1.0, 3.0, 20)
    operator = lx.DiagonalLinearOperator(diagonal)
    tagged = lx.TaggedLinearOperator(operator, lx.positive_semidefinite_tag)
    solver = RelativeTolerance(lx.CG(rtol=1e-8, atol=1e-8))
    cold = lx.linear_solve(tagged, jnp.full(20, scale), solver)
    warm = lx.linear_solve(tagged, jnp.full(20, scale), solver, options={"y0": cold.value})
    assert int(warm.stats["num_steps"]) <= 1 < int(cold.stats["num_steps"])
    np.testing.assert_allclose(warm.value, scale / diagonal, rtol=1e-7)


def test_an_earlier_answer_starts_the_next_similar_solve():
    diagonal = jnp.linspace(1.0, 3.0, 20)
    few = {"linear_solver": lx.CG(rtol=1e-9, atol=1e-9, max_steps=3), "tags": lx.positive_semidefinite_tag}
    call = lambda x, theta: diagonal * x - theta, jnp.zeros(20), (jnp.zeros(20),)
    adjoint = root_vjp(*call, jnp.ones(20)).adjoint
    np.testing.assert_allclose(root_vjp(*call, jnp.ones(20), options={"y0": adjoint}, **few).adjoint, -1 / diagonal, rtol=1e-8)
    tangent = root_jvp(*call, (jnp.ones(20),))
    np.testing.assert_allclose(root_jvp(*call, (jnp.ones(20),), options={"y0": tangent}, **few), 1 / diagonal, rtol=1e-8)
    with pytest.raises(RuntimeError, match="maximum number of solver steps"):
        jax.block_until_ready(root_vjp(*call, jnp.ones(20), **few).adjoint)


def test_singular_systems_raise_and_a_ridge_or_least_squares_solve_them():
    # Translation is free: only the difference is held.
    def conditions(x, theta):
        return jnp.array([1.0, -1.0]) * (x[0] - x[1] - theta)

    x = jnp.array([0.5, -0.5])

    def slope(**settings):
        return jax.jacfwd(lambda theta: implicit_solution(conditions, x, theta, **settings))(1.0)

    np.testing.assert_allclose(eqx.filter_jit(slope)(linear_solver=lx.SVD(rcond=1e-9)), [0.5, -0.5], rtol=1e-10)
    np.testing.assert_allclose(eqx.filter_jit(slope)(ridge=1e-6), [0.5, -0.5], rtol=1e-5)
    with pytest.raises(RuntimeError, match="singular"):
        jax.block_until_ready(eqx.filter_jit(slope)())


def test_a_failed_solve_ends_in_numbers_that_are_not_finite_where_it_may_not_raise():
    def conditions(x, theta):
        return jnp.array([1.0, -1.0]) * (x[0] - x[1] - theta)

    x, theta, one, settings = jnp.array([0.5, -0.5]), jnp.asarray(1.0), jnp.ones(2), {"throw": False}

    def solver(init, theta):
        return x

    @jax.jit
    def found(theta):
        ways = (
            lambda theta: implicit_solution(conditions, x, theta, **settings),
            lambda theta: custom_root(conditions, **settings)(solver)(x, theta),
            lambda theta: custom_fixed_point(lambda x, theta: x - conditions(x, theta), **settings)(solver)(x, theta),
        )
        tangent = root_jvp(conditions, x, (theta,), (jnp.ones_like(theta),), **settings)
        return [jax.jacfwd(way)(theta) for way in ways], tangent, root_vjp(conditions, x, (theta,), one, **settings).theta

    for leaf in jax.tree.leaves(found(theta)):
        assert not np.isfinite(leaf).any()


@pytest.mark.parametrize("linear_solver", [None, lx.GMRES(1e-12, 1e-12)])
def test_without_raising_derivatives_of_any_order_and_mode_are_the_same(linear_solver):
    # Not symmetric, and of several leaves.
    def conditions(x, theta):
        return {"a": x["a"] ** 3 + x["a"] - theta * jnp.arange(1.0, 4.0), "b": 2 * x["b"] + x["a"].sum() - theta**2}

    def steps(_, x):
        residual, slope = conditions(x, 2.0), 3 * x["a"] ** 2 + 1
        a = x["a"] - residual["a"] / slope
        return {"a": a, "b": (4.0 - a.sum()) / 2}

    x = jax.lax.fori_loop(0, 60, steps, {"a": jnp.ones(3), "b": jnp.ones(())})

    @functools.partial(jax.jit, static_argnums=1)
    def found(theta, throw):
        def value(theta):
            return sum(
                leaf.sum() for leaf in jax.tree.leaves(implicit_solution(conditions, x, theta, linear_solver=linear_solver, throw=throw))
            )

        slopes = jax.grad(value)(theta), jax.jacfwd(value)(theta)
        return *slopes, jax.grad(jax.grad(value))(theta), jax.jacfwd(jax.grad(value))(theta), jax.vmap(jax.grad(value))(theta * jnp.ones(2))

    a = jax.vmap(jax.grad(lambda theta, a: theta * a), (None, 0))(2.0, jnp.arange(1.0, 4.0)) / (3 * x["a"] ** 2 + 1)
    np.testing.assert_allclose(found(2.0, False)[0], a.sum() / 2 + 2, rtol=1e-9)
    for one, other in zip(found(2.0, False), found(2.0, True), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def twice(x, theta):
    return 2 * x - theta


def test_a_ridge_adds_to_the_derivative_of_the_conditions_in_every_way():
    def solver(init, theta):
        return init * 0 + theta / 2

    def by_optimistix(theta):
        adjoint = ConditionsAdjoint(twice, ridge=0.5)
        return adjoint.apply(lambda inputs: (inputs[3] / 2, None), lambda *_: None, (None, None, None, theta), frozenset())[0]

    @jax.jit
    def slopes(theta):
        ways = (
            lambda theta: implicit_solution(twice, theta / 2, theta, ridge=0.5),
            lambda theta: custom_root(twice, ridge=0.5)(solver)(1.0, theta),
            lambda theta: custom_fixed_point(lambda x, theta: theta - x, ridge=0.5)(solver)(1.0, theta),
            by_optimistix,
        )
        pushed = root_jvp(twice, theta / 2, (theta,), (jnp.ones_like(theta),), ridge=0.5)
        return *(jax.grad(way)(theta) for way in ways), pushed, root_vjp(twice, theta / 2, (theta,), 1 + 0 * theta, ridge=0.5).theta[0]

    np.testing.assert_allclose(slopes(jnp.asarray(3.0)), 1 / 2.5, rtol=1e-12)


def test_a_solver_of_linear_systems_is_used_in_every_way():
    # Singular for a factorisation: only the difference is held.
    def conditions(x, theta):
        return jnp.array([1.0, -1.0]) * (x[0] - x[1] - theta)

    def solver(init, theta):
        return jnp.array([0.5, -0.5]) * theta

    svd = lx.SVD(rcond=1e-9)

    def by_optimistix(theta):
        adjoint = ConditionsAdjoint(conditions, linear_solver=svd)
        return adjoint.apply(lambda inputs: (solver(None, inputs[3]), None), lambda *_: None, (None, None, None, theta), frozenset())[0]

    def by_steps(theta):
        return custom_fixed_point(lambda x, theta: x - conditions(x, theta), linear_solver=svd)(solver)(jnp.zeros(2), theta)

    found = jax.jit(lambda theta: [jax.jacfwd(way)(theta) for way in (by_optimistix, by_steps)])(1.0)
    np.testing.assert_allclose(found, [[0.5, -0.5]] * 2, rtol=1e-10)


@pytest.mark.parametrize("decorate", [functools.partial(custom_root, twice), functools.partial(custom_fixed_point, lambda x, t: t - x)])
def test_the_residual_that_is_limited_is_a_euclidean_norm(decorate):
    def solve(limit):
        off = decorate(max_residual=limit)(lambda init, theta: theta / 2 + init)
        return jax.block_until_ready(eqx.filter_jit(off)(jnp.array([0.0015, 0.002]), jnp.ones(2)))

    assert solve(0.0051).shape == (2,)
    with pytest.raises(RuntimeError, match=r"above max_residual=0\.0049"):
        solve(0.0049)


def test_an_unconverged_solution_raises_where_asked_to():
    solve = eqx.filter_jit(lambda x: implicit_solution(cubic, x, 2.0, max_residual=1e-3))
    assert solve(jnp.asarray(1.0)) == 1
    with pytest.raises(RuntimeError, match=r"above max_residual=0\.001"):
        jax.block_until_ready(solve(jnp.asarray(1.1)))
    with pytest.raises(RuntimeError, match=r"above max_residual=0\.001"):
        jax.block_until_ready(solve(jnp.asarray(jnp.nan)))


@pytest.mark.parametrize(
    ("conditions", "x", "error", "message"),
    [
        (lambda x, t: x[:1] - t, np.ones(2), ValueError, r"conditions must return the shapes of x, \(2,\) at itself, got \(1,\)"),
        (lambda x, t: (x - t,), np.ones(2), ValueError, "conditions must return the structure of x"),
        (lambda x, t: x - t, np.ones(2, int), TypeError, "x must hold floating-point arrays only, got int64 at itself"),
        (lambda x, t: x["a"] - t, {"a": "word"}, TypeError, r"x must hold floating-point arrays only, got str at \['a'\]"),
        (FixedPointConditions(lambda x, t: x[:1]), np.ones(2), ValueError, "step must return the shapes of x"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(conditions, x, error, message):
    with pytest.raises(error, match=message):
        implicit_solution(conditions, x, 1.0)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="ridge must be at least 0, got -1"):
        implicit_solution(cubic, 1.0, 2.0, ridge=-1.0)
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        iterate(cubic, n_steps=0)
    with pytest.raises(ValueError, match="tangents must hold one entry for each of the 1 arguments of theta, got 2"):
        root_jvp(cubic, 1.0, (2.0,), (1.0, 1.0))


def test_single_precision_stays_single():
    x, theta = jnp.asarray(1.0, jnp.float32), jnp.asarray(2.0, jnp.float32)
    value, slope = jax.value_and_grad(lambda t: implicit_solution(cubic, x, t))(theta)
    assert value.dtype == slope.dtype == jnp.float32
