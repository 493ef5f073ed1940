import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gradatim.landscape import (
    Population,
    deep_linear_flow,
    deep_linear_time,
    error_parts,
    rademacher_complexity,
    relu_features,
    relu_kernel,
    relu_population,
)
from gradatim.numerics import least_squares

SAMPLES, INPUTS, MOST = 12, 5, 30
WIDTHS = np.array([4, 12, 30])


@jax.jit
def split(inputs, teacher, weights, units):
    targets = relu_features(inputs, teacher) @ weights
    whole = relu_population(units, teacher, weights)
    features = relu_features(inputs, units)

    def one(width):
        used = jnp.arange(MOST) < width
        covariance = jnp.where(used[:, None] & used[None], whole.covariance, jnp.eye(MOST))
        population = Population(covariance, jnp.where(used, whole.correlation, 0), whole.power)
        seen = jnp.where(used[None], features, 0)
        parts = error_parts(seen, targets, population)
        fit = least_squares(seen, targets)
        return parts, population.best(), fit.minimum_norm(), fit.frozen_fraction

    return whole, features, targets, jax.lax.map(one, jnp.asarray(WIDTHS))


@pytest.fixture(scope="module")
def student():
    random = np.random.default_rng(0)
    inputs, teacher = random.normal(size=(SAMPLES, INPUTS)), random.normal(size=(3, INPUTS))
    weights, units = random.normal(size=3), random.normal(size=(MOST, INPUTS))
    with jax.enable_x64(True):
        return (inputs, teacher, weights, units), jax.device_get(split(inputs, teacher, weights, units))


def test_population_is_the_mean_over_inputs(student):
    (_, teacher, weights, units), (population, *_) = student
    x = np.random.default_rng(1).normal(size=(400_000, INPUTS))
    features, targets = np.maximum(x @ units[:4].T, 0), np.maximum(x @ teacher.T, 0) @ weights
    assert np.allclose(population.covariance[:4, :4], features.T @ features / len(x), rtol=0.03)
    assert np.allclose(population.correlation[:4], features.T @ targets / len(x), rtol=0.03, atol=0.02)
    assert np.isclose(population.power, np.mean(targets**2), rtol=0.03)


def test_best_read_out_and_the_error_it_leaves(student):
    population, _, _, (parts, best, *_) = student[1]
    for i, width in enumerate(WIDTHS):
        covariance, correlation = population.covariance[:width, :width], population.correlation[:width]
        exact = np.linalg.solve(covariance, correlation)
        assert np.allclose(best[i, :width], exact, rtol=1e-6) and not best[i, width:].any()
        assert np.isclose(parts.approximation[i], population.power - correlation @ exact, rtol=1e-6)


def test_parts_are_those_of_the_definition(student):
    population, features, targets, (parts, _, fit, _) = student[1]
    for i, width in enumerate(WIDTHS):
        F, C, k = features[:, :width], population.covariance[:width, :width], population.correlation[:width]
        best, pinv = np.linalg.solve(C, k), np.linalg.pinv(F)
        missed, noise = (np.eye(width) - pinv @ F) @ best, pinv @ (targets - F @ best)
        assert np.isclose(parts.null_space[i], missed @ C @ missed, rtol=1e-5, atol=1e-10)
        assert np.isclose(parts.overfitting[i], noise @ C @ noise, rtol=1e-5)
        # The rest is the cross term, without which they would be the whole.
        total = parts.approximation[i] + parts.null_space[i] + parts.overfitting[i] - 2 * missed @ C @ noise
        assert np.isclose(parts.test[i], total, rtol=1e-5)
        weights = fit.weights[i, :width]
        assert np.isclose(parts.test[i], population.power - 2 * k @ weights + weights @ C @ weights, rtol=1e-5)


def test_small_students_have_no_null_space_and_wide_ones_have_it(student):
    parts, _, fit, frozen = student[1][3]
    assert parts.null_space[0] < 1e-12 < parts.null_space[2] and (np.diff(parts.approximation) < 0).all()
    # Masked units are directions that no sample has either.
    assert np.allclose(frozen, 1 - np.minimum(WIDTHS, SAMPLES) / MOST)
    assert fit.training_error[0] > 1e-4 and (fit.training_error[1:] < 1e-12).all()


def test_kernel_of_parallel_opposite_and_missing_rows():
    rows = jnp.array([[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    assert np.allclose(relu_kernel(rows, rows), [[2, 0, 0], [0, 0.5, 0], [0, 0, 0]], atol=1e-6)


def test_complexity_and_its_bad_norm():
    assert np.isclose(rademacher_complexity(jnp.ones((4, 9)), 2.0), 3.0)
    with pytest.raises(ValueError, match="norm must be at least 0, got -1"):
        rademacher_complexity(jnp.ones((2, 2)), -1.0)


SHARES = np.array([0.01, 0.1, 0.5, 0.9, 0.999])


@pytest.mark.parametrize("depth", [1.0, 2.0, 3.0, 7.5])
def test_deep_modes_take_the_time_that_their_equation_takes(double, depth):
    s, eigenvalue, start = 1.5, 0.5, 0.01
    times = np.asarray(deep_linear_time(jnp.asarray(SHARES), s, eigenvalue, depth=depth, start=start))
    end = s / eigenvalue
    solution = solve_ivp(
        lambda t, b: depth * b ** (2 - 2 / depth) * (s - eigenvalue * b), (0, times[-1]), [start], "DOP853", times, rtol=1e-11, atol=1e-13
    )
    assert np.allclose(solution.y[0] / end, SHARES, rtol=1e-7)
    if depth == 1:
        assert np.allclose(times, np.log((1 - start / end) / (1 - SHARES)) / eigenvalue, rtol=1e-12)
    if depth == 2:
        odds = SHARES / (1 - SHARES)
        assert np.allclose(times, np.log(odds / (start / (end - start))) / (2 * s), rtol=1e-12)


@pytest.mark.parametrize("depth", [1.0, 3.0])
def test_the_flow_of_a_deep_mode_is_the_inverse_of_its_times(double, depth):
    times = deep_linear_time(jnp.asarray(SHARES), 1.5, 0.5, depth=depth, start=0.01)
    found = deep_linear_flow(times, 1.5, 0.5, depth=depth, start=0.01)
    assert np.allclose(found / 3, SHARES, rtol=1e-6)


def test_modes_that_cannot_be_are_refused():
    for name, numbers in {"correlation": (0.0, 1.0, 0.1), "eigenvalue": (1.0, -1.0, 0.1), "start": (1.0, 1.0, 0.0)}.items():
        with pytest.raises(ValueError, match=f"{name} must be positive, got"):
            deep_linear_time(0.5, numbers[0], numbers[1], depth=2.0, start=numbers[2])
    with pytest.raises(ValueError, match=r"depth must be at least 1, got 0\.5"):
        deep_linear_time(0.5, 1.0, 1.0, depth=0.5, start=0.1)
    for times in ([1.0, 0.5], [-1.0, 0.5]):
        with pytest.raises(ValueError, match="time must not be negative and must ascend"):
            deep_linear_flow(jnp.array(times), 1.0, 1.0, depth=2.0, start=0.1)
    for share in (0.05, 1.0):
        with pytest.raises(ValueError, match=r"share must lie between that of the start, 0.1, and 1, got"):
            deep_linear_time(share, 1.0, 1.0, depth=2.0, start=0.1)


def test_complexity_of_each_norm_holds_all_singular_values():
    features, norms = np.random.default_rng(0).normal(size=(4, 3)), np.array([0.5, 2.0])
    singular = np.linalg.svd(features, compute_uv=False)
    found = rademacher_complexity(jnp.asarray(features), jnp.asarray(norms))
    assert np.allclose(found, norms * np.sqrt(np.sum(singular**2)) / 4, rtol=1e-6)
