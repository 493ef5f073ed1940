import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog

from gradatim.implicit import project_birkhoff, project_polyhedron, project_transportation


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


project = jax.jit(project_transportation)
doubly_stochastic = jax.jit(project_birkhoff)


def _sums(m, n):
    """Which rows and columns of the flattened matrix sum to what."""
    return np.concatenate([np.kron(np.eye(m), np.ones(n)), np.kron(np.ones(m), np.eye(n))])


def _problem(seed, m=4, n=3):
    random = np.random.default_rng(seed)
    v = random.normal(size=(m, n)) * 10 ** random.uniform(-2, 2)
    a, b = random.uniform(size=m), random.uniform(size=n)
    a[random.integers(m)] *= random.uniform() < 0.5
    return v, a / a.sum(), b / b.sum()


@given(st.integers(0, 10**6))
def test_no_feasible_matrix_lies_further_along_the_rest(seed):
    v, a, b = _problem(seed)
    x, size = np.asarray(project(v, a, b)), max(1, np.abs(v).max())
    assert (x >= 0).all()
    np.testing.assert_allclose(x.sum(1), a, atol=1e-14 * size)
    np.testing.assert_allclose(x.sum(0), b, atol=1e-14 * size)
    rest = (v - x).ravel()
    furthest = linprog(-rest, A_eq=_sums(*v.shape)[:-1], b_eq=np.concatenate([a, b])[:-1])
    assert -furthest.fun <= rest @ x.ravel() + 1e-12 * size**2


@given(st.integers(0, 10**6))
def test_a_transportation_polytope_is_projected_on_itself_and_nonexpansively(seed):
    v, a, b = _problem(seed)
    w = v + np.random.default_rng(seed + 1).normal(size=v.shape)
    x, y = (np.asarray(project(u, a, b)) for u in (v, w))
    np.testing.assert_allclose(project(x, a, b), x, atol=1e-12)
    assert np.linalg.norm(x - y) <= np.linalg.norm(v - w) + 1e-11


def test_it_is_the_projection_on_the_polyhedron_of_its_sums():
    v, a, b = map(jnp.asarray, _problem(7))
    x = project_polyhedron(v.ravel(), jnp.asarray(_sums(4, 3)), jnp.concatenate([a, b]), -jnp.eye(12), jnp.zeros(12))
    np.testing.assert_allclose(project(v, a, b).ravel(), x, atol=1e-12)


@given(st.lists(st.floats(-2, 2), min_size=4, max_size=4))
def test_two_by_two_has_a_formula(entries):
    v = np.array(entries).reshape(2, 2)
    t = np.clip((v[0, 0] + v[1, 1] - v[0, 1] - v[1, 0]) / 4 + 0.5, 0, 1)
    np.testing.assert_allclose(doubly_stochastic(v), [[t, 1 - t], [1 - t, t]], atol=1e-13)


def test_derivative_of_two_by_two():
    slope = jax.jit(jax.jacrev(project_birkhoff))(jnp.array([[0.9, 0.2], [0.0, 0.1]]))
    signs = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_allclose(slope, signs[:, :, None, None] * signs / 4, atol=1e-14)


@pytest.mark.parametrize("size", [0.01, 1.0, 1000.0])
def test_thirty_by_thirty_is_nearest(size):
    v = np.random.default_rng(0).normal(size=(30, 30)) * size
    x = np.asarray(doubly_stochastic(v))
    np.testing.assert_allclose([x.sum(0), x.sum(1)], 1, atol=1e-13 * max(1, size))
    rest = v - x
    furthest = rest[linear_sum_assignment(rest, maximize=True)].sum()
    assert furthest <= np.vdot(rest, x) + 1e-12 * max(1, size) ** 2


def test_far_away_it_is_the_best_assignment_with_the_derivative_zero():
    v = jnp.asarray(np.random.default_rng(1).uniform(size=(6, 6)))
    x, slope = jax.jit(lambda v: (project_birkhoff(v), jax.jacrev(project_birkhoff)(v)))(300 * v)
    best = np.zeros((6, 6))
    best[linear_sum_assignment(v, maximize=True)] = 1
    np.testing.assert_allclose(x, best, atol=1e-12)
    np.testing.assert_allclose(slope, 0, atol=1e-13)


def test_one_row_and_empty_rows():
    b = jnp.array([0.3, 0.0, 0.7])
    np.testing.assert_allclose(project_transportation(jnp.array([[5.0, 1.0, -3.0]]), jnp.ones(1), b), b[None], atol=1e-15)
    v = jnp.array([[1.0, 2.0, 3.0], [4.0, -1.0, 2.0]])
    x, slope = jax.jit(
        lambda v: (project_transportation(v, jnp.array([0.0, 1.0]), b), jax.jacrev(project_transportation)(v, jnp.array([0.0, 1.0]), b))
    )(v)
    np.testing.assert_allclose(x, [[0, 0, 0], b], atol=1e-15)
    np.testing.assert_allclose(slope, 0, atol=1e-13)
    np.testing.assert_array_equal(project_transportation(v, jnp.zeros(2), jnp.zeros(3)), 0)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_derivatives_in_the_matrix_and_in_its_sums(check_two_orders, shape):
    random = np.random.default_rng(2)
    v, moved = random.normal(size=(2, *shape)) * 0.3
    a, b = (random.uniform(0.5, 1.5, size) for size in shape)
    along = [moved, *(random.normal(size=size) for size in shape)]
    # Totals stay equal.
    along[1] -= along[1].mean()
    along[2] -= along[2].mean()
    given = tuple(map(jnp.asarray, (v, a / a.sum(), b / b.sum())))
    x = project(*given)
    assert 2 < (x == 0).sum() < 8
    weights = jnp.asarray(random.normal(size=shape))

    def loss(given):
        return jnp.sum(jnp.sin(3 * project_transportation(*given)) * weights)

    check_two_orders(loss, given, tuple(map(jnp.asarray, along)))


def test_derivative_where_the_support_falls_apart():
    # Two blocks that have no row and no column in common: each has a shift of its own that changes nothing.
    random = np.random.default_rng(3)
    v, moved = np.full((4, 4), -50.0), random.normal(size=(4, 4))
    v[:2, :2], v[2:, 2:] = random.normal(size=(2, 2, 2)) * 0.1
    pushed = jax.jit(lambda v, moved: jax.jvp(project_birkhoff, (v,), (moved,))[1])(v, moved)
    difference = (doubly_stochastic(v + 1e-4 * moved) - doubly_stochastic(v - 1e-4 * moved)) / 2e-4
    np.testing.assert_allclose(pushed, difference, atol=1e-9)
    assert np.abs(pushed).max() > 0.1


def test_matrices_may_be_batched():
    given = [_problem(seed) for seed in range(6)]
    batch = jax.jit(jax.vmap(project_transportation))(*(jnp.stack(part) for part in zip(*given, strict=True)))
    np.testing.assert_allclose(batch, [project(*one) for one in given], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_matrix_in_single_precision(seed):
    v, a, b = _problem(seed)
    x = project(*(jnp.asarray(part, jnp.float32) for part in (v, a, b)))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, project(v, a, b), atol=3e-6 * max(1, np.abs(v).max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": jnp.zeros(2)}, r"v must be a matrix with at least one entry, got shape \(2,\)"),
        ({"v": jnp.full((2, 2), jnp.nan)}, r"v must be finite, got nan at \[0, 0\]"),
        ({"a": jnp.ones(3)}, r"a must have shape \(2,\), got \(3,\)"),
        ({"b": jnp.array([1.5, -0.5])}, r"b must be at least 0 and finite, got -0.5 at \[1\]"),
        ({"a": jnp.array([0.5, 0.75])}, "a and b must have the same total to round-off, got 1.25 and 1.0"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_sums_that_do_not_fit_are_refused(without_type_checks, change, message):
    given = {"v": jnp.zeros((2, 2)), "a": jnp.array([0.5, 0.5]), "b": jnp.array([0.25, 0.75])} | change
    with pytest.raises(ValueError, match=message):
        project_transportation(**given)


def test_what_is_traced_is_refused_at_run_time(without_type_checks):
    ones = jnp.ones(2)
    for v, a, b, message in (
        (jnp.zeros((2, 2)), ones, 2 * ones, "a and b must have the same total"),
        (jnp.zeros((2, 2)), jnp.array([3.0, -1.0]), ones, "a must be at least 0"),
        (jnp.full((2, 2), jnp.nan), ones, ones, "v must be finite"),
    ):
        with pytest.raises(RuntimeError, match=message):
            eqx.filter_jit(project_transportation)(v, a, b)
    with pytest.raises(RuntimeError, match="are not met within max_steps=1"):
        eqx.filter_jit(project_birkhoff)(jnp.asarray(np.random.default_rng(0).normal(size=(5, 5)) * 100), max_steps=1)
    with pytest.raises(ValueError, match=r"v must be a square matrix, got shape \(2, 3\)"):
        project_birkhoff(jnp.zeros((2, 3)))
    with pytest.raises(TypeError, match="single or double precision"):
        project_birkhoff(jnp.zeros((2, 2), int))
