import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.projections
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from gradatim.implicit import project_affine, project_polyhedron


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


project = jax.jit(project_polyhedron)


def _polyhedron(seed, n=4, p=1, q=8):
    """A point and constraints around another, some of which go through that."""
    random = np.random.default_rng(seed)
    inside = random.normal(size=n)
    A, G = random.normal(size=(p, n)), random.normal(size=(q, n)) * 10 ** random.uniform(-1, 1, (q, 1))
    slack = np.where(random.uniform(size=q) < 0.3, 0, random.uniform(size=q))
    return random.normal(size=n) * 3, A, A @ inside, G, G @ inside + slack


def _least_distance(v, A, b, G, h):
    """By non-negative least squares (Lawson and Hanson, chapter 23)."""
    C, d = np.concatenate([-A, A, -G]), np.concatenate([-b, b, -h])
    rows = np.concatenate([C.T, (d - C @ v)[None]])
    last = np.eye(len(v) + 1)[-1]
    rest = rows @ nnls(rows, last)[0] - last
    return v - rest[:-1] / rest[-1]


@given(st.integers(0, 10**6))
def test_a_polyhedron_against_non_negative_least_squares(seed):
    given = _polyhedron(seed)
    np.testing.assert_allclose(project(*given), _least_distance(*given), atol=1e-9)


@given(st.integers(0, 10**6))
def test_a_polyhedron_is_met_nearest_and_nonexpansive(seed):
    v, A, b, G, h = _polyhedron(seed)
    w = v + np.random.default_rng(seed + 1).normal(size=v.shape)
    x, y = (np.asarray(project(u, A, b, G, h)) for u in (v, w))
    np.testing.assert_allclose(A @ x, b, atol=1e-11)
    assert (G @ x <= h + 1e-11 * np.linalg.norm(G, axis=1)).all()
    np.testing.assert_allclose(project(x, A, b, G, h), x, atol=1e-11)
    assert (v - x) @ (y - x) <= 1e-10
    assert np.linalg.norm(x - y) <= np.linalg.norm(v - w) + 1e-10


def test_a_larger_polyhedron_against_sequential_programming():
    v, A, b, G, h = _polyhedron(1, n=12, p=3, q=30)
    constraints = [{"type": "eq", "fun": lambda x: A @ x - b}, {"type": "ineq", "fun": lambda x: h - G @ x}]
    peer = minimize(lambda x: (x - v) @ (x - v) / 2, v, jac=lambda x: x - v, constraints=constraints, options={"ftol": 1e-15})
    np.testing.assert_allclose(project(v, A, b, G, h), peer.x, atol=1e-6)


def test_polyhedra_that_have_formulas_of_their_own():
    v, A, b, G, _ = map(jnp.asarray, _polyhedron(2))
    np.testing.assert_allclose(project_polyhedron(v, A, b), project_affine(v, A, b), rtol=1e-13)
    for limit in (-3.0, 30.0):
        half = optax.projections.projection_halfspace(v, G[0], limit)
        np.testing.assert_allclose(project_polyhedron(v, G=G[:1], h=jnp.array([limit])), half, rtol=1e-13)
    assert project_polyhedron(v) is v
    # A row of zeros says nothing where it holds.
    np.testing.assert_array_equal(project_polyhedron(v, G=jnp.zeros((1, 4)), h=jnp.zeros(1)), v)


def test_redundant_rows_and_overfull_corners_do_no_harm():
    v, A, b, G, h = _polyhedron(5)
    rows = (np.concatenate([A, 2 * A, -A]), np.concatenate([b, 2 * b, -b]), np.concatenate([G, G, 3 * G]), np.concatenate([h, h, 3 * h]))
    x, slope = jax.jit(lambda v, *rows: (project_polyhedron(v, *rows), jax.jacrev(project_polyhedron)(v, *rows)))(v, *rows)
    np.testing.assert_allclose(x, project(v, A, b, G, h), atol=1e-12)
    np.testing.assert_allclose(slope, jax.jacfwd(project)(v, A, b, G, h), atol=1e-10)
    # Twenty edges of a polygon's cone through one point, which is the nearest to all that lies behind it.
    angles = np.linspace(-1, 1, 20)
    G = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(project(np.array([2.0, 0.1]), None, None, G, np.zeros(20)), 0, atol=1e-14)


def test_derivatives_of_a_polyhedron_in_all_it_is_given(check_two_orders):
    given = tuple(map(jnp.asarray, _polyhedron(7)))
    G, h = given[3:]
    gaps = h - G @ project(*given)
    # Two rows are active besides the equality, and one dimension is left.
    assert (gaps < 1e-9).sum() == 2 and (gaps[gaps > 1e-9] > 1e-2).all()
    random = np.random.default_rng(0)
    along = tuple(jnp.asarray(random.normal(size=part.shape)) for part in given)
    weights = jnp.asarray(random.normal(size=4))
    check_two_orders(lambda given: jnp.sin(project_polyhedron(*given)) @ weights, given, along)


def test_polyhedra_may_be_batched():
    given = [_polyhedron(seed) for seed in range(6)]
    batch = jax.jit(jax.vmap(project_polyhedron))(*(jnp.stack(part) for part in zip(*given, strict=True)))
    np.testing.assert_allclose(batch, [project(*one) for one in given], atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_polyhedron_in_single_precision(seed):
    given = _polyhedron(seed)
    x = project(*(jnp.asarray(part, jnp.float32) for part in given))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, project(*given), atol=1e-4)


EMPTY = (jnp.zeros(2), None, None, jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.array([-1.0, 0.5]))
APART = (jnp.zeros(2), jnp.ones((2, 2)), jnp.array([1.0, 2.0]))


@pytest.mark.parametrize("given", [EMPTY, APART], ids=["inequalities", "equalities"])
def test_an_empty_polyhedron_is_refused(given):
    with pytest.raises(ValueError, match="A, b, G and h must allow a point: no x has A x = b and G x <= h"):
        project_polyhedron(*given)
    with pytest.raises(RuntimeError, match="no x has A x = b and G x <= h"):
        eqx.filter_jit(project_polyhedron)(*given)


def test_too_few_steps_are_an_error():
    given = tuple(map(jnp.asarray, _polyhedron(7)))
    for call in (project_polyhedron, eqx.filter_jit(project_polyhedron)):
        with pytest.raises(RuntimeError, match="the active constraints were not found within max_steps=1"):
            call(*given, max_steps=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": jnp.zeros((2, 2))}, r"v must be a vector with at least one entry, got shape \(2, 2\)"),
        ({"A": jnp.ones((1, 2))}, "A and b must be given both or neither, got b=None"),
        ({"G": None}, "G and h must be given both or neither, got G=None"),
        ({"G": jnp.ones((1, 3))}, r"G must have 2 columns, one for each entry of v, got shape \(1, 3\)"),
        ({"h": jnp.ones(2)}, r"h must have shape \(1,\), got \(2,\)"),
        ({"h": jnp.array([jnp.inf])}, r"h must be finite, got inf at \[0\]"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
    ],
)
def test_polyhedra_that_do_not_fit_are_refused(without_type_checks, change, message):
    given = {"v": jnp.zeros(2), "G": jnp.ones((1, 2)), "h": jnp.ones(1)} | change
    with pytest.raises(ValueError, match=message):
        project_polyhedron(**given)


def test_numbers_of_another_kind_are_refused(without_type_checks):
    with pytest.raises(TypeError, match="single or double precision, got v of int"):
        project_polyhedron(jnp.zeros(2, int))
