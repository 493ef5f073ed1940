import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.sciml import ConjugateDirection, PoissonSystem, conjugate_directions, iterations_to

ROUND_OFF = 1e-9  # of residuals relative to the first, double precision, sixty steps of two algorithms that are one
SIDE, HISTORY, STEPS = 16, 5, 60
MATRIX = PoissonSystem(np.ones((SIDE, SIDE), bool)).as_csr().toarray()
N = len(MATRIX)
INVERSE = np.linalg.inv(MATRIX)
B = np.random.default_rng(0).normal(size=N)
IDENTITY = np.eye(N)
pytestmark = pytest.mark.usefixtures("double")


@jax.jit
def _solve(A, M, bend, offset, b, x0, used, rtol):
    return conjugate_directions(
        lambda x: A @ x,
        b,
        lambda r: M @ r + bend * jnp.abs(r) + offset,
        x0=x0,
        history=HISTORY,
        used=used,
        rtol=rtol,
        max_steps=STEPS,
    )


def solve(M, *, A=MATRIX, bend=0.0, offset=0.0, b=B, x0=0.0, used=2, rtol=1e-10):
    """Along directions M r + bend |r| + offset; one program for all tests."""
    arrays = [jnp.asarray(x, float) for x in (A, M, bend, np.full(N, offset), b, np.full(N, x0))]
    found = _solve(*arrays, jnp.asarray(used, jnp.int32), jnp.asarray(rtol, float))
    return jax.tree.map(np.asarray, found)


def written_out(M, *, bend=0.0, used=2, steps=30):
    """The loop in NumPy: iterates, residuals and directions."""
    x, r = np.zeros(N), B.copy()
    xs, rs, ps = [x], [r], []
    for _ in range(steps):
        unit = r / np.linalg.norm(r)
        p = M @ unit + bend * np.abs(unit)
        for q in ps[::-1][:used]:
            p = p - (p @ MATRIX @ q) / (q @ MATRIX @ q) * q
        x = x + (p @ r) / (p @ MATRIX @ p) * p
        r = B - MATRIX @ x
        xs, rs, ps = [*xs, x], [*rs, r], [*ps, p]
    return np.array(xs), np.array(rs), np.array(ps)


def preconditioned(M, steps, *, bend=0.0, is_flexible=False):
    """Residual norms of preconditioned conjugate gradients, with the usual short formula for β, or Polak's and Ribière's."""
    r = B.copy()
    z = M @ r + bend * np.abs(r)
    p, norms = z, [np.linalg.norm(r)]
    for _ in range(steps):
        Ap = MATRIX @ p
        alpha = (r @ z) / (p @ Ap)
        before, old, r = r @ z, r, r - alpha * Ap
        z = M @ r + bend * np.abs(r)
        p = z + ((r - old if is_flexible else r) @ z) / before * p
        norms.append(np.linalg.norm(r))
    return np.array(norms)


def some_positive_matrix(seed=1):
    random = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(random.normal(size=(N, N)))
    return (basis * random.uniform(0.5, 2.0, N)) @ basis.T


def test_oracle_the_identity_gives_conjugate_gradients():
    found, norms = solve(IDENTITY), preconditioned(IDENTITY, STEPS)
    steps = int(found.num_steps)
    assert 30 < steps <= STEPS and found.is_converged and found.fallbacks == 0
    np.testing.assert_allclose(found.residual_norms[: steps + 1], norms[: steps + 1], atol=ROUND_OFF * norms[0])


def test_oracle_one_earlier_direction_is_the_flexible_method_of_conjugate_gradients():
    M, steps = some_positive_matrix(), 30
    norms = preconditioned(M, steps, bend=0.4, is_flexible=True)
    found = solve(M, bend=0.4, used=1)
    np.testing.assert_allclose(found.residual_norms[: steps + 1], norms, atol=ROUND_OFF * norms[0])
    # The control: with a preconditioner that is not linear, the other formula is another method.
    assert np.abs(preconditioned(M, steps, bend=0.4) - norms).max() > 0.01 * norms[0]


def test_oracle_one_earlier_direction_is_enough_for_a_positive_matrix_and_more_change_nothing():
    M = some_positive_matrix()
    norms = preconditioned(M, STEPS)
    for used in (1, 2, 5):
        found = solve(M, used=used)
        upto = int(found.num_steps) + 1
        np.testing.assert_allclose(found.residual_norms[:upto], norms[:upto], atol=ROUND_OFF * norms[0])


@given(st.sampled_from([-1.0, 1.0]), st.floats(-100, 100))
def test_oracle_the_inverse_up_to_any_scale_takes_one_step(sign, exponent):
    found = solve(sign * 10.0**exponent * INVERSE)
    assert found.num_steps == 1 and found.is_converged and found.fallbacks == 0
    np.testing.assert_allclose(found.value, INVERSE @ B, atol=1e-9)


@pytest.mark.parametrize("used", [0, 2, 5])
def test_each_step_is_that_of_the_equations(used):
    M, steps = some_positive_matrix(), 30
    xs, rs, _ = written_out(M, bend=0.4, used=used, steps=steps)
    found = solve(M, bend=0.4, used=used, rtol=np.linalg.norm(rs[-1]) / np.linalg.norm(B) * (1 + 1e-6))
    upto = int(found.num_steps) + 1
    np.testing.assert_allclose(found.residual_norms[:upto], np.linalg.norm(rs, axis=1)[:upto], rtol=1e-6)
    np.testing.assert_allclose(found.value, xs[upto - 1], atol=1e-7 * np.abs(xs).max())
    assert np.isnan(found.residual_norms[upto:]).all()


def test_oracle_each_step_lessens_the_error_by_what_it_should_and_leaves_nothing_along_the_last_directions():
    M = some_positive_matrix()
    xs, rs, ps = written_out(M, bend=0.4, used=2)
    errors = INVERSE @ B - xs
    squares = np.einsum("ki,ij,kj->k", errors, MATRIX, errors)
    gains = [(p @ r) ** 2 / (p @ MATRIX @ p) for p, r in zip(ps, rs[:-1], strict=True)]
    np.testing.assert_allclose(-np.diff(squares), gains, rtol=1e-6)
    assert (np.diff(squares) < 0).all()
    for k in range(2, len(ps)):
        for p in ps[k - 2 : k + 1]:
            assert abs(rs[k + 1] @ p) < 1e-10 * np.linalg.norm(rs[k]) * np.linalg.norm(p)


def test_two_earlier_directions_repair_what_is_not_linear_and_none_do_not():
    # A rough inverse, bent, as a network's might be.
    steps = {used: int(solve(INVERSE + 0.1 * IDENTITY, bend=0.3, used=used).num_steps) for used in (0, 1, 2, 5)}
    assert steps[5] <= steps[2] < steps[1] < steps[0], steps


def test_trap_the_short_formula_for_beta_breaks_with_directions_that_are_not_symmetric():
    M = INVERSE + 0.05 * IDENTITY + 0.05 * np.random.default_rng(7).normal(size=(N, N)) / np.sqrt(N)
    found, norms = solve(M), preconditioned(M, 40)
    assert found.is_converged and found.num_steps < 20 and norms.min() / norms[0] > 1e-6


@pytest.mark.parametrize("of_no_use", [0.0, np.nan, np.inf])
def test_directions_of_no_use_are_replaced_by_the_residual_and_counted(of_no_use):
    found, plain = solve(0 * IDENTITY, bend=of_no_use), solve(IDENTITY)
    assert found.fallbacks == found.num_steps == plain.num_steps and found.is_converged
    np.testing.assert_allclose(found.value, plain.value, atol=1e-9)


def test_a_direction_that_is_always_the_same_is_of_use_once():
    # After one step along it nothing is left of it once it has been made conjugate.
    found = solve(0 * IDENTITY, offset=1.0, used=HISTORY)
    assert 10 < found.fallbacks < found.num_steps
    error, start = found.value - INVERSE @ B, INVERSE @ B
    assert error @ MATRIX @ error < 1e-2 * (start @ B)


def test_nothing_to_solve_takes_no_step():
    found = solve(IDENTITY, b=np.zeros(N))
    assert found.num_steps == 0 and found.is_converged and (found.value == 0).all()
    started = solve(IDENTITY, b=MATRIX @ np.ones(N), x0=1.0)
    assert started.num_steps == 0 or started.residual_norms[0] < 1e-12


def test_trap_the_tolerance_is_relative_to_the_first_residual():
    far = solve(IDENTITY, x0=1e6, rtol=1e-4)
    assert far.residual_norms[0] > 1e4 * np.linalg.norm(B)
    last = far.residual_norms[far.num_steps]
    assert far.is_converged and np.linalg.norm(B) * 1e-4 < last <= 1e-4 * far.residual_norms[0]


def test_steps_that_run_out_are_said_to():
    found = solve(IDENTITY, used=0, rtol=1e-14)
    assert found.num_steps == STEPS and not found.is_converged and np.isfinite(found.residual_norms).all()


def test_a_matrix_without_descent_ends_the_loop():
    found = solve(IDENTITY, A=-MATRIX)
    assert found.num_steps == 1 and not found.is_converged and (found.value == 0).all()


def test_vmap_is_a_loop_and_nothing_is_compiled_twice():
    Bs = np.random.default_rng(3).normal(size=(3, N)) * np.array([[1.0], [0.0], [1e-3]])
    arrays = [jnp.asarray(x, float) for x in (MATRIX, INVERSE + 0.1 * IDENTITY, 0.3, np.zeros(N))]
    batched = jax.vmap(lambda b: _solve(*arrays, b, jnp.zeros(N), jnp.asarray(2, jnp.int32), jnp.asarray(1e-10)))(jax.device_put(Bs))
    size = _solve._cache_size()
    for i, b in enumerate(Bs):
        one = solve(INVERSE + 0.1 * IDENTITY, bend=0.3, b=b)
        assert one.num_steps == batched.num_steps[i]
        np.testing.assert_allclose(batched.value[i], one.value, atol=1e-9)
    assert _solve._cache_size() == size


@pytest.mark.parametrize("normalize", [True, False])
def test_trap_an_offset_drowns_residuals_that_are_not_brought_to_length_one(normalize):
    # The identity and an offset that a unit vector is not lost in.
    offset = jax.device_put(np.random.default_rng(4).normal(size=8) * 0.3)
    scales = jnp.geomspace(1.0, 50.0, 8)
    found = jax.jit(
        lambda b: conjugate_directions(
            lambda x: scales * x, b, lambda r: r / scales + offset, history=1, rtol=1e-9, max_steps=100, normalize=normalize
        )
    )(1e-3 * jnp.ones(8))
    assert bool(found.fallbacks == 0) == normalize


@pytest.mark.parametrize("true_residual", [True, False])
def test_trap_a_recursive_residual_drifts_in_single_precision(true_residual):
    scales = np.geomspace(1.0, 1e4, 64).astype(np.float32)
    b = np.random.default_rng(5).normal(size=64).astype(np.float32)
    found = jax.jit(
        lambda b: conjugate_directions(
            lambda x: jnp.asarray(scales) * x, b, lambda r: r, history=1, rtol=1e-7, max_steps=600, true_residual=true_residual
        )
    )(jax.device_put(b))
    assert found.value.dtype == np.float32
    told = float(found.residual_norms[found.num_steps] / found.residual_norms[0])
    left = np.linalg.norm(b - scales.astype(float) * np.asarray(found.value, float)) / np.linalg.norm(b)
    if true_residual:
        assert told < 3 * left + 1e-7 and left < 3 * told + 1e-7
    else:
        assert found.is_converged and left > 2 * told


def test_bad_inputs_are_refused():
    def bad(**settings):
        conjugate_directions(lambda x: x, jnp.ones(3), lambda r: r, **settings)

    with pytest.raises(ValueError, match="history must be at least 0, got -1"):
        bad(history=-1)
    with pytest.raises(ValueError, match=r"rtol must be at least 0, got -0\.1"):
        bad(rtol=-0.1)
    with pytest.raises(ValueError, match="atol must be at least 0, got nan"):
        bad(atol=float("nan"))
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        bad(max_steps=0)
    with pytest.raises(ValueError, match=r"x0 must have the shape of b, \(3,\), got \(4,\)"):
        bad(x0=jnp.ones(4))
    with pytest.raises(ValueError, match=r"direction must return arrays of the shape it is given, got \(2,\) for \(3,\)"):
        conjugate_directions(lambda x: x, jnp.ones(3), lambda r: r[:2])
    with pytest.raises(ValueError, match="history must be at least 0, got -2"):
        ConjugateDirection(lambda r: r, history=-2)


def test_iterations_to_a_tolerance():
    norms = jnp.array([4.0, 5.0, 0.3, 0.5, 0.03, jnp.nan])
    found = jax.jit(jax.vmap(iterations_to, (None, 0)))(norms, jnp.array([1.0, 0.1, 0.01, 0.001]))
    assert found.tolist() == [0, 2, 4, -1]


class Scaled(eqx.Module):
    factor: jax.Array

    def __call__(self, r):
        return self.factor * r


SMALL = np.array([[4.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 2.0]])


def tagged(A):
    return lx.MatrixLinearOperator(jnp.asarray(A), lx.positive_semidefinite_tag)


def test_a_solver_of_lineax_differentiates_the_solution_and_not_the_network():
    b, c = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.5, -1.0, 2.0])

    def value(A, b, factor=2.0):
        solution = lx.linear_solve(tagged(A), b, ConjugateDirection(Scaled(jnp.asarray(factor)), rtol=1e-12, max_steps=20))
        return c @ solution.value, solution.stats

    (found, stats), (of_A, of_b) = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(jax.device_put(SMALL), b)
    x, adjoint = np.linalg.solve(SMALL, b), np.linalg.solve(SMALL, c)
    np.testing.assert_allclose(found, c @ x)
    np.testing.assert_allclose(of_b, adjoint)
    # Of a symmetric matrix: the part that keeps it so.
    symmetric = -(np.outer(adjoint, x) + np.outer(x, adjoint)) / 2
    np.testing.assert_allclose((of_A + of_A.T) / 2, symmetric, atol=1e-10)
    assert stats["num_steps"] == 3 and stats["max_steps"] == 20 and stats["fallbacks"] == 0
    np.testing.assert_allclose(stats["residual_norms"][0], np.linalg.norm(b))
    with pytest.raises(Exception, match="solver"):
        jax.grad(lambda factor: value(SMALL, b, factor)[0])(2.0)


def test_a_solver_of_lineax_starts_from_y0_and_says_when_steps_ran_out():
    b, start = jnp.array([1.0, 2.0, 3.0]), jnp.ones(3)
    solver = ConjugateDirection(Scaled(jnp.asarray(1.0)), max_steps=1)
    _, result, stats = solver.compute(solver.init(tagged(SMALL), {}), b, {"y0": start})
    assert result == lx.RESULTS.max_steps_reached and stats["num_steps"] == 1
    np.testing.assert_allclose(stats["residual_norms"][0], np.linalg.norm(b - SMALL @ start))


def test_a_solver_of_lineax_says_what_it_needs():
    solver = ConjugateDirection(Scaled(jnp.asarray(1.0)))
    with pytest.raises(ValueError, match=r"operator must be tagged lineax\.positive_semidefinite_tag"):
        lx.linear_solve(lx.MatrixLinearOperator(jnp.asarray(SMALL)), jnp.ones(3), solver)
    pair = {"a": jnp.ones(2)}
    operator = lx.FunctionLinearOperator(lambda x: x, jax.eval_shape(lambda: pair), lx.positive_semidefinite_tag)
    with pytest.raises(ValueError, match="operator must act on one array"):
        lx.linear_solve(operator, pair, solver)


def test_an_absolute_tolerance_ends_the_loop_where_it_is_larger():
    scales, b = jnp.geomspace(1.0, 50.0, 8), jnp.arange(1.0, 9.0)
    run = jax.jit(lambda atol: conjugate_directions(lambda x: scales * x, b, lambda r: r, rtol=1e-12, atol=atol))
    whole = run(1e-30)
    norms = np.asarray(whole.residual_norms)
    early = run(1.0)
    assert norms[early.num_steps] <= 1 < norms[early.num_steps - 1] and early.is_converged and early.num_steps < whole.num_steps


@pytest.mark.parametrize(
    "settings",
    [{"history": 0, "rtol": 1e-2, "true_residual": False, "normalize": False, "max_steps": 60}, {"atol": 0.5, "max_steps": 50}],
    ids=["relative", "absolute"],
)
def test_a_solver_of_lineax_goes_by_its_settings(settings):
    A, b = np.diag(np.geomspace(1, 50, 6)).astype(np.float32), np.arange(1, 7, dtype=np.float32)
    bent = lambda r: r + 0.3 * jnp.abs(r) + 0.1 * r**2  # noqa: E731
    solver = ConjugateDirection(bent, **settings)

    @jax.jit
    def both(A, b):
        value, _, stats = solver.compute(solver.init(tagged(A), {}), b, {})
        expected = conjugate_directions(lambda x: A @ x, b, bent, **settings)
        return (value, stats["residual_norms"]), (expected.value, expected.residual_norms)

    for ours, theirs in zip(*jax.device_get(both(A, b)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
