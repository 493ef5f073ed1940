from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.optim import (
    ExactHessian,
    LogSumExp,
    MatrixHessian,
    ZeroHessian,
    gradient_normalized_smoothness,
    smoothness_upper_bound,
    value_at,
)

pytestmark = pytest.mark.usefixtures("double")
GRID = 5e-3  # the step of the grid of lengths at its default resolution
T_STAR = 1.256431208626  # solves exp(t) = 2t + 1


EXACT, ZERO = ExactHessian(), ZeroHessian()


@partial(jax.jit, static_argnames=("function", "hessian", "restrict"))
def smoothness(function, y, args, max_radius, hessian, restrict):
    return gradient_normalized_smoothness(function, y, args, hessian=hessian, max_radius=max_radius, restrict=restrict)


def radius(function, y, args=None, hessian=EXACT, max_radius=1e3, restrict=True):
    """Of `function(y, args)`: what varies goes into `args`, so that it is no new program."""
    found = smoothness(function, jnp.asarray(y), args, max_radius, hessian, restrict)
    assert found.low <= found.high
    return found


def assert_is(found, value):
    assert found.low <= value * (1 + 1e-9) and found.high >= value * (1 - 1e-9)
    assert found.high <= value * (1 + GRID) and found.low >= value * (1 - GRID)


def test_a_quadratic_with_its_hessian_has_no_limit():
    found = radius(lambda y, _: 3 * y**2 + y, 2.0)
    assert found.high == np.inf and found.low >= 1e3


def parabola(y, curvature):
    return curvature * y**2 / 2


@pytest.mark.parametrize("curvature", [0.5, 3.0])
def test_a_quadratic_without_a_hessian(curvature):
    """γ = ‖x‖ = ‖g‖/L: with it λ = L, and the method is gradient descent."""
    assert_is(radius(parabola, 2.0, curvature, ZERO), 2.0)


@pytest.mark.parametrize(("restrict", "expected"), [(False, 1.0), (True, 2.0)])
def test_a_cube(restrict, expected):
    """f = L x³/6: γ = x = √(2|g|/L), and twice that within O."""
    found = radius(lambda y, _: 0.7 * y**3 / 6, 1.3, restrict=restrict)
    assert_is(found, 1.3 * expected)
    assert found.high >= np.sqrt(2 * (0.35 * 1.3**2) / 0.7) * (1 - 1e-9)


def exponential(y, _):
    return jnp.exp(y)


@pytest.mark.parametrize("y", [-3.0, 0.0, 4.0])
def test_the_exponential_needs_the_region(y):
    """Quasi-self-concordant with M = 1: γ ≥ t* only within O."""
    within, without = radius(exponential, y), radius(exponential, y, restrict=False)
    assert within.low >= T_STAR
    assert_is(within, np.e)
    assert_is(without, 1.146193)
    assert without.high < T_STAR


def power(y, nu):
    return jnp.abs(y) ** (2 + nu)


def test_hoelder_hessians_have_their_bound():
    """Hölder of degree ν with H_ν: γ ≥ ((1+ν)‖g‖/H_ν)^(1/(1+ν)); |x|^(2+ν) has H_ν ≤ (2+ν)(1+ν) 2^(1-ν)."""
    for nu in (0.25, 0.5, 1.0):
        for x in (0.4, 2.0):
            constant = (2 + nu) * (1 + nu) * 2 ** (1 - nu)
            gradient = (2 + nu) * x ** (1 + nu)
            bound = ((1 + nu) * gradient / constant) ** (1 / (1 + nu))
            assert radius(power, x, nu, restrict=False).low >= bound * (1 - GRID)


def beyond_quartic(y, nu):
    return jnp.abs(y) ** (3 + nu)


def test_hoelder_third_derivatives_have_their_bound():
    """f‴ Hölder of degree ν, f convex: γ ≥ ((1+ν)(2+ν)‖g‖/((4+ν)H))^(1/(2+ν)) within O, the degree α = 1/(2+ν) from ½ down to ⅓.

    Convexity at x ± γ bounds |f‴| γ by f″ + H γ^(1+ν)/(1+ν), and in O f″ |h| ≤ ‖g‖: the error is at most
    ‖g‖ |h|/(2γ) + H γ^(1+ν) |h| (4+ν)/(2(1+ν)(2+ν)), where the definition asks for ‖g‖ |h|/γ.
    """
    for nu in (0.25, 0.5, 1.0):
        for x in (0.4, 2.0):
            constant = (3 + nu) * (2 + nu) * (1 + nu) * 2 ** (1 - nu)
            gradient = (3 + nu) * x ** (2 + nu)
            bound = ((1 + nu) * (2 + nu) * gradient / ((4 + nu) * constant)) ** (1 / (2 + nu))
            assert radius(beyond_quartic, x, nu).low >= bound * (1 - GRID)


def catenary(y, _):
    return jnp.cosh(y)


def test_a_gradient_whose_slope_grows_with_it_has_its_bound():
    """|f″| ≤ L₀ + L₁|f′| without a Hessian: γ ≥ log(1 + L₁‖g‖/(L₀ + L₁‖g‖))/L₁, by Grönwall; cosh has L₀ = L₁ = 1."""
    for x in (0.05, 0.9, 5.0):
        gradient = np.sinh(x)
        found = radius(catenary, x, hessian=ZERO, restrict=False)
        assert found.low >= np.log(1 + gradient / (1 + gradient)) * (1 - GRID)
        # Not far above: that would be another class.
        assert found.high <= 3 * gradient / (1 + gradient)


WRONG = MatrixHessian(lambda y, error: (jnp.cosh(y) + error)[None, None])


@pytest.mark.parametrize("error", [-0.4, 0.3, 2.0])
def test_an_error_of_the_hessian_enters_as_a_harmonic_sum(error):
    exact = radius(catenary, 0.9, restrict=False)
    inexact = radius(catenary, 0.9, error, WRONG, restrict=False)
    bound = 1 / (1 / exact.high + abs(error) / np.sinh(0.9))
    assert inexact.low >= bound * (1 - GRID)


def weighted_sum(y, weights):
    return weights[0] * jnp.cosh(y) + weights[1] * y**4


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.01), (3.0, -0.05)])
def test_a_sum_has_a_harmonic_bound(weights):
    """Errors add: γ ≥ min(γ₁, γ₂, ‖g₁ + g₂‖/(‖g₁‖/γ₁ + ‖g₂‖/γ₂)), Hessians added as well."""
    x, (a, b) = 0.9, weights
    first, second, both = (radius(weighted_sum, x, pair, restrict=False) for pair in ((a, 0.0), (0.0, b), weights))
    sizes = a * np.sinh(x), 4 * b * x**3
    harmonic = abs(sum(sizes)) / (abs(sizes[0]) / first.high + abs(sizes[1]) / second.high)
    assert both.low >= min(float(first.high), float(second.high), float(harmonic)) * (1 - GRID)


def tilted_catenary(y, scales):
    return scales[0] * (jnp.cosh(scales[1] * y) + scales[1] * y)


def test_scaling_the_objective_and_the_variable():
    plain = radius(tilted_catenary, 0.8, (1.0, 1.0))
    scaled = radius(tilted_catenary, 0.8, (1000.0, 1.0))
    stretched = radius(tilted_catenary, 0.2, (1.0, 4.0), max_radius=250.0)
    np.testing.assert_allclose(scaled.high, plain.high, rtol=1e-9)
    np.testing.assert_allclose(4 * stretched.high, plain.high, rtol=1e-9)


@partial(jax.jit, static_argnames=("function", "hessian", "num_directions", "resolution", "restrict"))
def upper_bound(function, y, args, key, hessian, num_directions=64, metric=None, max_radius=1e3, resolution=100, restrict=True):
    settings = {
        "metric": metric,
        "max_radius": max_radius,
        "num_directions": num_directions,
        "resolution": resolution,
        "restrict": restrict,
    }
    return smoothness_upper_bound(function, y, args, hessian=hessian, key=key, **settings)


def test_samples_bound_from_above_and_agree_in_one_variable(getkey):
    one = upper_bound(lambda y, _: jnp.exp(y[0]), jnp.zeros(1), None, getkey(), EXACT, resolution=2000)
    assert np.e * (1 - 1e-9) <= one <= np.e * (1 + 2 * GRID)


def bowl(y, _):
    return 1.5 * jnp.sum(y**2)


def test_samples_find_the_radius_of_an_isotropic_quadratic(getkey):
    y, key = jnp.array([3.0, 4.0]), getkey()
    np.testing.assert_allclose(upper_bound(bowl, y, None, key, ZERO, resolution=400), 5.0, rtol=4e-2)
    # In the metric 4 I the gradient is half as long and each step twice as long: γ = ‖y‖ = 10.
    inside = upper_bound(bowl, y, None, key, ZERO, metric=4 * np.eye(2), resolution=400)
    np.testing.assert_allclose(inside, 10.0, rtol=4e-2)


def test_log_sum_exp_keeps_its_bound(getkey):
    """Quasi-self-concordant with M = 2 max ‖aᵢ‖/μ: no sample may fall below t*/M."""
    rows = np.random.default_rng(0).normal(size=(12, 4))
    objective = LogSumExp(jnp.asarray(rows), jnp.zeros(12), 0.5)
    constant = 2 * np.linalg.norm(rows, axis=1).max() / 0.5
    bound = upper_bound(value_at, jnp.ones(4), objective, getkey(), EXACT, max_radius=1e2)
    assert T_STAR / constant <= bound < np.inf


def test_under_jit_and_vmap():
    points = jnp.array([0.3, 1.0, 2.0])
    settings = {"hessian": EXACT, "max_radius": 1e3, "resolution": 500}
    find = lambda y: gradient_normalized_smoothness(lambda y, _: y**4, y, **settings).high  # noqa: E731
    together, one_by_one = jax.jit(lambda points: (jax.vmap(find)(points), [find(y) for y in points]))(points)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)


def test_more_than_one_variable_is_refused():
    with pytest.raises(ValueError, match="y must be one variable, got 3; smoothness_upper_bound samples directions"):
        gradient_normalized_smoothness(lambda y, _: jnp.sum(y), jnp.ones(3), hessian=ZeroHessian(), max_radius=1.0)


@pytest.mark.parametrize("max_radius", [0.0, -1.0, np.nan, np.inf])
def test_a_radius_that_is_not_positive_and_finite_is_refused(max_radius):
    with pytest.raises(ValueError, match=f"max_radius must be positive and finite, got {max_radius}"):
        gradient_normalized_smoothness(exponential, jnp.array(0.0), hessian=EXACT, max_radius=max_radius)
    with pytest.raises(ValueError, match=f"max_radius must be positive and finite, got {max_radius}"):
        smoothness_upper_bound(bowl, jnp.ones(2), hessian=ZERO, key=jax.random.key(0), max_radius=max_radius)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_directions": -1}, "num_directions must be at least 0, got -1"),
        ({"resolution": 1}, "resolution must be at least 2, got 1"),
        ({"metric": jnp.eye(3)}, r"metric must have shape \(2, 2\) for 2 unknowns, got \(3, 3\)"),
    ],
)
def test_what_cannot_be_sampled_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        smoothness_upper_bound(bowl, jnp.ones(2), hessian=ZERO, key=jax.random.key(0), max_radius=1.0, **changed)


def test_a_metric_that_is_none_is_refused():
    with pytest.raises(RuntimeError, match="metric must be symmetric and positive definite"):
        jax.block_until_ready(upper_bound(bowl, jnp.ones(2), None, jax.random.key(0), ZERO, metric=-jnp.eye(2)))


def test_the_gradients_direction_alone_will_do():
    alone = smoothness_upper_bound(
        bowl, jnp.array([3.0, 4.0]), hessian=ZERO, key=jax.random.key(0), max_radius=1e3, num_directions=0, resolution=400
    )
    np.testing.assert_allclose(alone, 5.0, rtol=4e-2)


@pytest.mark.parametrize(("restrict", "expected"), [(True, np.e), (False, 1.146193)])
def test_along_one_line_both_ways_are_looked_at(restrict, expected):
    """Within O the exponential is bound downhill, without it uphill."""
    alone = upper_bound(lambda y, _: jnp.exp(y[0]), jnp.zeros(1), None, jax.random.key(0), EXACT, 0, restrict=restrict, resolution=2000)
    assert expected * (1 - 1e-6) <= alone <= expected * (1 + 2 * GRID)


def turned(z, args):
    turn, bend = args
    y = turn @ z
    return y[0] + jnp.cosh(bend @ y)


@pytest.mark.parametrize("bend", [(1.0, 0.3), (0.0, 2.0)])
@pytest.mark.parametrize("restrict", [True, False])
def test_a_metric_is_a_change_of_variables(restrict, bend, getkey):
    """With B = L Lᵀ, in the variables Lᵀy the metric is the identity: where the gradient leads, and where other directions bind alone."""
    metric, y, key = np.array([[9.0, 2.0 * bend[0]], [2.0 * bend[0], 0.7]]), np.array([0.8, -0.5 * bend[0]]), getkey()
    across = np.linalg.cholesky(metric).T
    inside, outside = (
        upper_bound(turned, jnp.asarray(start), (jnp.asarray(turn), jnp.array(bend)), key, EXACT, 8, jnp.asarray(B), restrict=restrict)
        for start, turn, B in ((y, np.eye(2), metric), (across @ y, np.linalg.inv(across), np.eye(2)))
    )
    np.testing.assert_allclose(inside, outside, rtol=1e-6)


def test_at_a_stationary_point_any_error_is_too_large_and_none_is_no_limit(getkey):
    exact, none = (radius(parabola, 0.0, 3.0, hessian, restrict=False) for hessian in (EXACT, ZERO))
    assert exact.low >= 1e3 * (1 - 1e-12) and exact.high == np.inf and none.low == 0 and none.high <= 1.001e-5
    exact, none = (upper_bound(bowl, jnp.zeros(2), None, getkey(), hessian, 8, restrict=False) for hessian in (EXACT, ZERO))
    assert exact == np.inf and none <= 1.001e-5
    assert np.isnan(upper_bound(bowl, jnp.array([jnp.nan, 0.0]), None, getkey(), EXACT, 8, restrict=False))


@pytest.mark.parametrize("restrict", [True, False])
def test_where_no_error_shows_the_largest_radius_bounds_from_below(restrict):
    found = radius(parabola, 2.0, 3.0, max_radius=1.0, restrict=restrict)
    np.testing.assert_allclose(found.low, 1.0, rtol=1e-12)
    assert found.high == np.inf
