import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax.projections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from gradatim.implicit import project_affine, project_box_section, project_second_order_cone, projections


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@jax.jit
def _projections(v, A, b):
    affine = project_affine(v, A, b)
    cone = project_second_order_cone(v)
    return A @ affine - b, project_affine(affine, A, b) - affine, A, v - affine, cone, project_second_order_cone(v) - v


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_affine_and_cone_projections_are_feasible_and_leave_an_orthogonal_rest(seed):
    random = np.random.default_rng(seed)
    v, A, b = random.normal(size=4) * 3, random.normal(size=(2, 4)), random.normal(size=2)
    infeasible, again, A, rest, cone, polar = map(np.asarray, _projections(v, A, b))
    np.testing.assert_allclose(infeasible, 0, atol=1e-10)
    np.testing.assert_allclose(again, 0, atol=1e-10)
    np.testing.assert_allclose(rest, A.T @ np.linalg.lstsq(A.T, rest, rcond=None)[0], atol=1e-9)
    # Moreau: v = cone part - dual part, both in the self-dual cone, at right angles.
    for point in (cone, polar):
        assert np.linalg.norm(point[1:]) <= point[0] + 1e-12
    np.testing.assert_allclose(cone @ polar, 0, atol=1e-10)


@pytest.mark.parametrize(
    ("v", "nearest"), [([-7.0, 3.0, 4.0], [0, 0, 0]), ([6.0, 3.0, 4.0], [6, 3, 4]), ([-1.0], [0]), ([3.0, 0.0, 5.0], [4, 0, 4])]
)
def test_second_order_cone_below_inside_and_beside(v, nearest):
    np.testing.assert_allclose(project_second_order_cone(jnp.array(v)), nearest, atol=1e-12)


@pytest.mark.parametrize("v", [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]])
def test_the_cone_has_finite_derivatives_at_its_kinks(v):
    assert np.isfinite(jax.jacrev(project_second_order_cone)(jnp.array(v))).all()


section = jax.jit(project_box_section)


def _section(seed, n=5):
    """A point, a normal, bounds, of which some are infinite, and a value that the box takes."""
    random = np.random.default_rng(seed)
    v, a = random.normal(size=n) * 3, random.normal(size=n)
    lower = random.normal(size=n)
    upper = lower + random.uniform(0, 2, n)
    b = a @ random.uniform(lower, upper)
    lower[random.uniform(size=n) < 0.2] = -np.inf
    upper[random.uniform(size=n) < 0.2] = np.inf
    return v, a, b, lower, upper


@given(st.integers(0, 10**6))
def test_a_box_section_against_a_search_for_its_multiplier(seed):
    v, a, b, lower, upper = _section(seed)
    nu = brentq(lambda nu: a @ np.clip(v - nu * a, lower, upper) - b, -1e7, 1e7, xtol=1e-14, rtol=1e-14)
    np.testing.assert_allclose(section(v, a, b, lower, upper), np.clip(v - nu * a, lower, upper), atol=1e-7)


@given(st.integers(0, 10**6))
def test_a_box_section_is_met_nearest_and_nonexpansive(seed):
    v, a, b, lower, upper = _section(seed)
    w = v + np.random.default_rng(seed + 1).normal(size=v.shape)
    x, y = (np.asarray(section(u, a, b, lower, upper)) for u in (v, w))
    assert (x >= lower - 1e-12).all() and (x <= upper + 1e-12).all()
    # Of numbers up to 1e3, which infinite bounds and small entries of a let x take.
    np.testing.assert_allclose(a @ x, b, atol=1e-11)
    np.testing.assert_allclose(section(x, a, b, lower, upper), x, atol=1e-10)
    assert (v - x) @ (y - x) <= 1e-9
    assert np.linalg.norm(x - y) <= np.linalg.norm(v - w) + 1e-9


def test_sections_that_have_formulas_of_their_own():
    v, a = jnp.array([0.6, 0.3, -0.8, 0.5]), jnp.array([1.0, -2.0, 0.5, 0.0])
    np.testing.assert_allclose(section(v, jnp.ones(4), 1.0, 0.0, jnp.inf), [7 / 15, 1 / 6, 0, 11 / 30], rtol=1e-14)
    plane = optax.projections.projection_hyperplane(v, a, 0.7)
    np.testing.assert_allclose(section(v, a, 0.7, -jnp.inf, jnp.inf), plane, rtol=1e-14)
    # An entry on which a does not act is clipped alone; equal bounds hold.
    np.testing.assert_allclose(
        section(jnp.array([5.0, 5.0, 4.75]), jnp.array([0.0, 1.0, 1.0]), 0.75, 0.0, jnp.array([1, 1, 0.5])), [1, 0.5, 0.25]
    )
    np.testing.assert_allclose(section(jnp.zeros(3), jnp.ones(3), 1.0, jnp.array([0.2, 0, 0]), jnp.array([0.2, 1, 1])), [0.2, 0.4, 0.4])


@pytest.mark.parametrize("seed", range(40))
def test_pieces_of_any_length_are_found_and_the_multiplier_is_exact_on_them(seed):
    # Ends that lie together, or many orders apart, flat pieces between them, and entries that cannot move.
    random = np.random.default_rng(seed)
    n = 40  # one program for all
    a = random.choice([-1.0, 0.0, 1.0], n, p=[0.4, 0.1, 0.5]) * 10 ** random.uniform(-3, 3, n)
    a[0] = 1.0
    v = random.choice([0.0, 1.0, 1e3], n) * random.normal(size=n)
    lower = np.where(random.uniform(size=n) < 0.2, -np.inf, random.choice([0.0, -1.0, -100.0], n))
    upper = np.where(random.uniform(size=n) < 0.2, np.inf, np.maximum(lower, 0) + random.choice([0.0, 0.5, 50.0], n))
    inside = np.clip(random.normal(size=n) * 10 ** random.uniform(-2, 2), lower, upper)
    b = a @ inside
    x = np.asarray(section(v, a, b, lower, upper))
    size = np.abs(a * x).sum() + abs(b) + 1e-300
    assert (x >= lower).all() and (x <= upper).all() and abs(a @ x - b) <= 1e-13 * size
    # One ν has v - x = ν a wherever x is between its bounds, and points outwards where it is not.
    free = (x > lower) & (x < upper) & (a != 0)
    if free.any():
        i = np.flatnonzero(free)[np.argmax(abs(a[free]))]
        pull = v - (v[i] - x[i]) / a[i] * a
        np.testing.assert_allclose(x, np.clip(pull, lower, upper), rtol=1e-10, atol=1e-10 * (1 + np.abs(v).max()))


def test_the_search_for_a_piece_ends_where_round_off_contradicts_itself():
    # What falls from 3 to 0 along its pieces, looked at from the left of an end and from its right with errors of their own.
    first, last, b = jnp.array([0.0, 1.0, 2.0]), jnp.array([1.0, 2.0, 3.0]), jnp.asarray(2.0)
    errors = itertools.cycle([-1e-9, 1e-9])

    def total(nu):
        return jnp.clip(3 - nu, 0, 3) + next(errors)

    for trial in (-5.0, 0.5, 1.0, 2.5, 9.0):
        left, right = jax.jit(lambda trial: projections._bracket(first, last, jnp.ones(3), b, total, trial))(jnp.asarray(trial))
        assert (float(left), float(right)) in {(0.0, 1.0), (1.0, 2.0)}


def test_a_section_of_one_corner_has_the_derivative_zero():
    v, a = jnp.array([0.3, 0.4, 0.1]), jnp.array([1.0, 1.0, -1.0])
    x, slope = jax.jit(lambda v, b: (project_box_section(v, a, b), jax.jacrev(project_box_section, argnums=(0, 2))(v, a, b)))(v, -1.0)
    np.testing.assert_allclose(x, [0, 0, 1])
    np.testing.assert_array_equal(slope[0], 0)
    np.testing.assert_array_equal(slope[1], 0)


def test_derivatives_of_a_section_in_all_it_is_given(check_two_orders):
    # Two entries are free, one is at each bound, and one is not acted on.
    given = (np.array([0.5, -0.2, 4.0, -4.0, 0.3]), np.array([1.0, -0.7, 0.6, 0.9, 0.0]), 0.8, np.full(5, -1.0), np.full(5, 1.5))
    given = tuple(map(jnp.asarray, given))
    x = section(*given)
    assert (x > -1).sum() == 4 and (x < 1.5).sum() == 4
    random = np.random.default_rng(0)
    along = tuple(jnp.asarray(random.normal(size=part.shape)) for part in given)
    weights = jnp.asarray(random.normal(size=5))

    def loss(given):
        return jnp.sin(project_box_section(*given)) @ weights

    check_two_orders(loss, given, along)


def test_sections_may_be_batched():
    given = [_section(seed) for seed in range(6)]
    batch = jax.jit(jax.vmap(project_box_section))(*(jnp.stack(part) for part in zip(*given, strict=True)))
    np.testing.assert_allclose(batch, [section(*one) for one in given], atol=1e-12)


def test_sections_keep_single_precision():
    v, a, b, lower, upper = (jnp.asarray(part, jnp.float32) for part in _section(3))
    x = section(v, a, b, lower, upper)
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, section(*_section(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v": jnp.zeros((2, 2))}, r"v must be a vector, got shape \(2, 2\)"),
        ({"a": jnp.ones(2)}, r"a must have shape \(3,\), got \(2,\)"),
        ({"b": jnp.ones(3)}, r"b must have shape \(\), got \(3,\)"),
        ({"lower": jnp.zeros(2)}, r"lower must have shape \(3,\), got \(2,\)"),
        ({"v": jnp.array([0.0, jnp.nan, 0.0])}, r"v must be finite, got nan at \[1\]"),
        ({"lower": jnp.array([0.0, 0.0, 2.0])}, r"lower must be at most upper.*, got 2.0 at \[2\]"),
        ({"b": jnp.array(3.5)}, "b must lie between 0.0 and 3.0, .* got 3.5"),
    ],
)
def test_sections_that_do_not_fit_are_refused(without_type_checks, change, message):
    given = {"v": jnp.zeros(3), "a": jnp.ones(3), "b": jnp.array(1.0), "lower": 0.0, "upper": 1.0} | change
    with pytest.raises(ValueError, match=message):
        project_box_section(**given)


def test_sections_that_do_not_fit_are_refused_at_run_time(without_type_checks):
    with pytest.raises(RuntimeError, match="no x between lower and upper has aᵀx = b"):
        eqx.filter_jit(project_box_section)(jnp.zeros(3), jnp.ones(3), 3.5)
    with pytest.raises(TypeError, match="single or double precision, got v of int"):
        project_box_section(jnp.zeros(3, int), jnp.ones(3, int), 1, 0, 1)
