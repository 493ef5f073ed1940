import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from gradatim.numerics import (
    BlockMean,
    fit_line,
    fit_power_law,
    fit_scattered_line,
    local_exponents,
    scattered_line_log_likelihood,
    scattered_line_posterior,
)

pytestmark = pytest.mark.usefixtures("double")


@given(st.floats(-4, 4), st.floats(0.01, 100))
def test_an_exact_power_law_is_found_exactly(exponent, prefactor):
    with jax.enable_x64(True):
        x = jnp.array([1.0, 2.0, 3.0, 5.0, 8.0])
        law = fit_power_law(x, prefactor * x**exponent)
        assert abs(law.exponent - exponent) < 1e-12 and abs(law.prefactor / prefactor - 1) < 1e-11 and law.standard_error < 1e-11
        assert np.allclose(local_exponents(x, prefactor * x**exponent), exponent, atol=1e-11)


def test_fit_and_its_error_are_those_of_linear_regression():
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 30, 12)
    rows = x[None] ** np.array([[-2.0], [0.5]]) * np.exp(0.1 * rng.normal(size=(2, 12)))
    law = fit_power_law(jnp.asarray(x), jnp.asarray(rows))
    for i, row in enumerate(rows):
        reference = stats.linregress(np.log(x), np.log(row))
        assert np.isclose(law.exponent[i], reference.slope) and np.isclose(law.standard_error[i], reference.stderr)


def test_a_weight_of_zero_leaves_a_point_out():
    x, y = jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([1.0, 4.0, 16.0, 1.0])
    assert np.isclose(fit_power_law(x, y, weights=jnp.array([1.0, 1.0, 1.0, 0.0])).exponent, 2.0)


@pytest.mark.parametrize("block", [1, 5])
def test_block_mean_is_numpys(block):
    samples = np.random.default_rng(2).normal(5, 2, (53, 3))
    step = lambda mean, sample: (mean.update(sample), None)  # noqa: E731
    mean, _ = jax.lax.scan(step, BlockMean(jnp.zeros(3), block), jnp.asarray(samples))
    full = samples[: 53 // block * block].reshape(-1, block, 3).mean(1)
    assert np.allclose(mean.value, full.mean(0)) and np.allclose(mean.standard_error, full.std(0, ddof=1) / np.sqrt(len(full)))


def test_standard_error_of_correlated_samples_needs_blocks():
    rng = np.random.default_rng(3)
    samples = np.zeros((200, 4000))
    for i in range(1, 4000):
        samples[:, i] = 0.9 * samples[:, i - 1] + rng.normal(size=200)
    spread = samples.mean(1).std(ddof=1)

    @jax.jit
    def error(samples, like):
        return jax.lax.scan(lambda mean, sample: (mean.update(sample), None), like, samples)[0].standard_error.mean()

    assert abs(error(samples.T, BlockMean(jnp.zeros(200), 200)) / spread - 1) < 0.15
    assert error(samples.T, BlockMean(jnp.zeros(200), 1)) < 0.4 * spread


def test_no_error_without_two_blocks():
    assert BlockMean(jnp.zeros(()), 2).update(jnp.asarray(1.0)).standard_error == jnp.inf


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ([1.0, 2.0], [1.0, 2.0], "x must hold at least 3 points, got 2"),
        ([1.0, 2.0, 3.0], [1.0, 2.0], "y must hold one value for each of the 3 points"),
        ([0.0, 2.0, 3.0], [1.0, 2.0, 3.0], "x must be positive, got a minimum of 0.0"),
        ([1.0, 2.0, 3.0], [1.0, -2.0, 3.0], "y must be positive, got a minimum of -2.0"),
    ],
)
def test_points_that_have_no_logarithm_are_refused(x, y, match):
    with pytest.raises(ValueError, match=match):
        fit_power_law(jnp.array(x), jnp.array(y))


def test_blocks_and_samples_must_fit():
    with pytest.raises(ValueError, match="block must be at least 1, got 0"):
        BlockMean(jnp.zeros(3), 0)
    with pytest.raises(ValueError, match=r"sample must have shape \(3,\), got \(2,\)"):
        BlockMean(jnp.zeros(3)).update(jnp.zeros(2))


@pytest.fixture(scope="module")
def population():
    """25 points with errors in both variables, about y = -0.005 - 0.015 x with a scatter of 0.015."""
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, 25)
    y_errors = rng.uniform(0.004, 0.012, 25)
    y = -0.005 - 0.015 * x + 0.015 * rng.normal(size=25) + y_errors * rng.normal(size=25)
    x_errors = np.full(25, 0.1)
    return x + x_errors * rng.normal(size=25), y, x_errors, y_errors


def best_line(x, y, x_errors, y_errors, form="vertical"):
    line = fit_scattered_line(*map(jnp.asarray, (x, y)), x_errors=jnp.asarray(x_errors), y_errors=jnp.asarray(y_errors), form=form)
    return np.array([float(line.intercept), float(line.slope), float(line.scatter)]), float(line.log_likelihood)


def height(p, x, y, x_errors, y_errors, form):
    a, b, s = p
    stretch = 1 + b**2 if form == "orthogonal" else 1.0
    v = stretch * s**2 + y_errors**2 + b**2 * x_errors**2
    found = -0.5 * np.sum(np.log(2 * np.pi * v) + (y - a - b * x) ** 2 / v)
    return found + (len(x) / 2 * np.log1p(b**2) if form == "orthogonal" else 0)


def test_oracle_weighted_least_squares_in_closed_form(population):
    x, y, _, errors = population
    line = fit_line(*map(jnp.asarray, (x, y, errors)))
    A, W = np.stack([np.ones(25), x], axis=1), np.diag(errors**-2)
    covariance = np.linalg.inv(A.T @ W @ A)
    assert np.allclose([line.intercept, line.slope], covariance @ A.T @ W @ y, rtol=1e-12, atol=1e-15)
    assert np.allclose(line.covariance, covariance, rtol=1e-12)


@pytest.mark.parametrize("form", ["vertical", "orthogonal"])
def test_oracle_likeliest_line_is_that_of_brute_force(population, form):
    scale = population[1].std() / population[0].std() if form == "orthogonal" else 1.0
    x, y, x_errors, y_errors = population[0], population[1] / scale, population[2], population[3] / scale
    found, top = best_line(x, y, x_errors, y_errors, form)
    fn = lambda p: -height(p, x, y, x_errors, y_errors, form)  # noqa: E731
    results = [optimize.minimize(fn, found * k, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12}) for k in (0.5, 1.3)]
    best = min(results, key=lambda result: result.fun)
    assert np.allclose(found, [*best.x[:2], abs(best.x[2])], atol=1e-5 / scale) and abs(top + best.fun) < 1e-6
    line = tuple(jnp.asarray(value) for value in found)
    arrays = {"x_errors": jnp.asarray(x_errors), "y_errors": jnp.asarray(y_errors)}
    assert abs(scattered_line_log_likelihood(jnp.asarray(x), jnp.asarray(y), line, form=form, **arrays) - top) < 1e-9


def test_oracle_without_errors_in_x_or_scatter_it_is_least_squares(population):
    x, _, _, errors = population
    # Less scatter than the errors say: none of its own.
    y = 0.3 + 0.2 * x + 0.3 * errors * np.random.default_rng(1).normal(size=25)
    found, _ = best_line(x, y, 0 * x, errors)
    line = fit_line(*map(jnp.asarray, (x, y, errors)))
    assert found[2] < 1e-6 and np.allclose(found[:2], [line.intercept, line.slope], atol=1e-6)


def test_oracle_shifts_and_scales_carry_over(population):
    x, y, x_errors, y_errors = population
    (a, b, s), _ = best_line(x, y, x_errors, y_errors)
    shifted, _ = best_line(x + 3, y, x_errors, y_errors)
    assert np.allclose(shifted, [a - 3 * b, b, s], atol=1e-7)
    scaled, _ = best_line(x, 7 * y, x_errors, 7 * y_errors)
    assert np.allclose(scaled, [7 * a, 7 * b, 7 * s], atol=1e-7)


def test_oracle_only_the_orthogonal_form_knows_no_dependent_variable(population):
    x, y, x_errors, y_errors = population[0], 60 * population[1], population[2], 60 * population[3]
    (_, b, s), _ = best_line(x, y, x_errors, y_errors, "orthogonal")
    (_, swapped, other), _ = best_line(y, x, y_errors, x_errors, "orthogonal")
    assert abs(b * swapped - 1) < 1e-5 and abs(s - other) < 1e-5
    vertical, _ = best_line(x, y, x_errors, y_errors)
    back, _ = best_line(y, x, y_errors, x_errors + 1e-12)
    assert abs(vertical[1] * back[1]) < 0.8


def test_posterior_is_that_of_a_grid_in_three_dimensions(population):
    x, y, x_errors, y_errors = population
    best, _ = best_line(*population)
    axes = [np.linspace(-0.03, 0.02, 61), np.linspace(-0.06, 0.03, 61), np.linspace(0, 0.05, 81)]
    a, b, s = np.meshgrid(*axes, indexing="ij", sparse=True)
    log = sum(
        -0.5 * (np.log(v := s**2 + ey**2 + b**2 * ex**2) + (yi - a - b * xi) ** 2 / v)
        for xi, yi, ex, ey in zip(x, y, x_errors, y_errors, strict=True)
    )
    mass = np.exp(log - log.max())
    found = scattered_line_posterior(*map(jnp.asarray, (x, y)), x_errors=jnp.asarray(x_errors), y_errors=jnp.asarray(y_errors))
    for i, quantiles in enumerate(found):
        density = mass.sum(axis=tuple(j for j in range(3) if j != i))
        below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        expected = np.interp(np.array([0.16, 0.5, 0.84]) * below[-1], below, axes[i])
        # A twentieth of the interval: both are grids.
        assert np.allclose(quantiles, expected, atol=0.05 * (expected[2] - expected[0]))
    # Trap: the likeliest scatter is too small, and the spread of the points, which holds their errors, too large.
    assert best[2] < found.scatter[1] < (y - best[0] - best[1] * x).std(ddof=2)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: fit_line(x[:1], x[:1], x[:1]), "x must hold at least 2 points, got 1"),
        (lambda x: fit_line(x, x, 0 * x), "errors must be positive, got a minimum of 0.0"),
        (lambda x: fit_scattered_line(x[:2], x[:2], x_errors=x[:2], y_errors=x[:2]), "x must hold at least 3 points, got 2"),
        (lambda x: fit_scattered_line(x, x, x_errors=x, y_errors=-x), "y_errors must be positive, got a minimum of -3.0"),
        (lambda x: fit_scattered_line(x, x, x_errors=-x, y_errors=x), "x_errors must be at least 0, got a minimum of -3.0"),
        (
            lambda x: fit_scattered_line(x, x, x_errors=x, y_errors=x, form="both"),
            "form must be 'vertical' or 'orthogonal'|Type-check error",
        ),
        (lambda x: scattered_line_posterior(x, x, x_errors=x, y_errors=x, probabilities=(0.5, 1.0)), r"probabilities must lie in \(0, 1\)"),
    ],
)
def test_lines_that_cannot_be_are_refused(call, match):
    with pytest.raises(Exception, match=match):
        call(jnp.array([1.0, 2.0, 3.0]))


def test_weights_are_inverse_variances():
    rng = np.random.default_rng(6)
    x, weights = np.geomspace(1, 30, 8), rng.uniform(0.2, 3, 8)
    y = 2 * x**-1.5 * np.exp(0.1 * rng.normal(size=8))
    law = fit_power_law(*map(jnp.asarray, (x, y)), weights=jnp.asarray(weights))
    (slope, offset), covariance = np.polyfit(np.log(x), np.log(y), 1, w=np.sqrt(weights), cov=True)
    assert np.allclose([law.exponent, law.prefactor, law.standard_error], [slope, np.exp(offset), np.sqrt(covariance[0, 0])])


def test_rows_have_local_exponents_of_their_own():
    x = np.array([1.0, 2.0, 5.0])
    exponents = np.array([[1.0], [-2.0]])
    assert np.allclose(local_exponents(jnp.asarray(x), jnp.asarray(x[None] ** exponents)), np.broadcast_to(exponents, (2, 2)))


def test_an_infinite_error_leaves_a_point_out(population):
    x, y, _, errors = population
    errors = np.where(np.arange(25) < 20, errors, np.inf)
    line, of_twenty = (fit_line(*(jnp.asarray(values[:n]) for values in (x, y, errors))) for n in (25, 20))
    for found, expected in zip(line, of_twenty, strict=True):
        assert np.allclose(found, expected, rtol=1e-10)
    residual = (y - float(line.intercept) - float(line.slope) * x) / errors
    assert np.isclose(line.chi_squared, residual @ residual)


def test_the_posterior_moves_with_the_points(population):
    x, y, x_errors, y_errors = (jnp.asarray(values) for values in population)
    here, there = (scattered_line_posterior(x + shift, y, x_errors=x_errors, y_errors=y_errors, probabilities=(0.5,)) for shift in (0, 3))
    assert np.allclose([there.slope, there.scatter], [here.slope, here.scatter], rtol=1e-4)
    assert abs(there.intercept[0] - (here.intercept[0] - 3 * here.slope[0])) < 2e-3


def test_negative_weights_are_refused():
    x = jnp.array([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="weights must be at least 0, got a minimum of -1"):
        fit_power_law(x, x, weights=-x[::-1] + 2)
