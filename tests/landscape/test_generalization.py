from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

from gradatim.landscape import (
    gradient_descent_errors,
    gradient_flow_errors,
    infinite_time_errors,
    linear_teacher,
    optimal_ridge,
    optimal_stopping_time,
    ridge_risk,
    sample_errors,
)

# SNR, α, best time, test error then, with the best ridge, without stopping; to the digits of an independent minimisation.
TABLE = np.array(
    [
        [5, 0.5, 2.70716, 4.130329, 4.108495, 4.5],
        [5, 1, 3.06707, 2.837580, 2.791288, np.inf],
        [5, 2, 2.39352, 1.770357, 1.741657, 2],
        [5, 4, 1.32725, 1.313818, 1.306624, 4 / 3],
        [1, 0.5, 0.696508, 1.783590, 1.780776, 2.5],
        [1, 1, 0.680955, 1.624589, (1 + 5**0.5) / 2, np.inf],
        [1, 2, 0.618524, 1.423232, 2**0.5, 2],
        [100, 1, 60.3998, 10.779361, 10.512492, np.inf],
        [100, 0.5, 19.94097, 51.977675, 51.962237, 52],
    ]
)
# Many samples; no signal; no noise; the first row's signal with a start of 3 added: of these only some facts mean something.
LIMITS = np.array([[5, 1e6], [0, 0.5], [np.inf, 0.5], [8, 0.5]])
BESIDE = np.array([[5, 0.5 - 1e-4], [5, 0.5 + 1e-4], [1, 2 - 1e-4], [1, 2 + 1e-4]])
"Rows next to the first and the seventh of the table."
NODES = 1024
"Enough for the latest of these at equal numbers."
TIMES = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 37), [np.inf]])


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None))
def facts(alpha, snr, inr):
    time = optimal_stopping_time(alpha, snr, n_nodes=NODES)
    penalty, ridge = optimal_ridge(alpha, snr)
    times = jnp.asarray(TIMES)
    paths = jax.vmap(lambda inr: gradient_flow_errors(times, alpha, snr, inr, n_nodes=NODES))(jnp.stack([0 * inr, inr]))
    return {
        "time": time,
        "now": gradient_flow_errors(time, alpha, snr, n_nodes=NODES),
        "slope": jax.grad(lambda t: gradient_flow_errors(t, alpha, snr, n_nodes=NODES).test)(time),
        "time_slope": jax.grad(partial(optimal_stopping_time, n_nodes=NODES))(alpha, snr),
        "ridge": ridge,
        "risk": ridge_risk(alpha, snr, penalty),
        "ridge_slope": jax.grad(lambda g: ridge_risk(alpha, snr, g))(penalty),
        "path": jax.tree.map(lambda x: x[0], paths),
        "noisy_start": jax.tree.map(lambda x: x[1], paths),
        "ridge_path": jax.vmap(lambda t: ridge_risk(alpha, snr, 1 / t))(times[1:-1]),
        "end": infinite_time_errors(alpha, snr, inr),
    }


@pytest.fixture(scope="module")
def rows():
    snr, alpha = np.concatenate([TABLE[:, :2], LIMITS, BESIDE]).T
    with jax.enable_x64(True):
        return jax.device_get(facts(jnp.asarray(alpha), jnp.asarray(snr), 3.0))


@pytest.fixture(scope="module")
def theory(rows):
    return jax.tree.map(lambda x: x[: len(TABLE)], rows)


@pytest.fixture(scope="module")
def limits(rows):
    return jax.tree.map(lambda x: x[len(TABLE) :], rows)


def test_best_times_and_their_errors(theory):
    assert np.allclose(theory["time"], TABLE[:, 2], rtol=3e-6) and np.allclose(theory["now"].test, TABLE[:, 3], atol=1e-6)
    assert np.allclose(theory["now"].train[:3], [0.200568, 0.315362, 0.552059], atol=2e-6)


def test_best_ridge_and_the_end_of_training(theory):
    assert np.allclose(theory["ridge"], TABLE[:, 4], atol=1e-6) and np.allclose(theory["risk"], theory["ridge"], rtol=1e-12)
    assert np.allclose(theory["path"].test[:, -1], TABLE[:, 5], rtol=1e-12)


def test_both_optima_are_stationary(theory):
    assert np.abs(theory["slope"]).max() < 1e-10 and np.abs(theory["ridge_slope"]).max() < 1e-9


def test_early_stopping_is_at_most_a_fortieth_worse_than_ridge(theory):
    ratio = theory["now"].test / theory["ridge"]
    assert (ratio > 1).all() and np.isclose(ratio.max(), 1.0254, atol=1e-4) and ratio.argmax() == 7


def test_theorem_of_ali_kolter_and_tibshirani(theory):
    # Of what is lost in estimation, without the noise of new samples: best against best, and along the paths with penalty 1/t.
    best = (theory["now"].test - 1) / (theory["ridge"] - 1)
    assert (best >= 1).all() and best.max() <= 1.22
    assert ((theory["path"].test[:, 1:-1] - 1) / (theory["ridge_path"] - 1)).max() <= 1.6862


def test_derivative_of_the_best_time_in_alpha(theory, limits):
    differences = np.diff(limits["time"][len(LIMITS) :].reshape(2, 2), axis=1)[:, 0] / 2e-4
    assert np.allclose(theory["time_slope"][[0, 6]], differences, rtol=1e-3)


def test_t5_start_of_training_and_the_floor_of_new_noise(theory):
    for name, inr in (("path", 0.0), ("noisy_start", 3.0)):
        assert np.allclose(theory[name].test[:, 0], 1 + TABLE[:, 0] + inr) and np.allclose(theory[name].train[:, 0], 1 + TABLE[:, 0] + inr)
        assert np.allclose(theory[name].weight_norm[:, 0], inr)
        assert (theory[name].test >= 1).all()


def test_training_error_falls_to_what_cannot_be_fitted(theory):
    train = theory["noisy_start"].train
    assert (np.diff(train, axis=1) <= 1e-12).all()
    assert np.allclose(train[:, -1], np.maximum(0, 1 - 1 / TABLE[:, 1]))


def test_weights_grow_from_zero_and_with_the_noise(theory):
    assert (np.diff(theory["path"].weight_norm, axis=1) >= -1e-12).all()
    # In units of the teacher: at α = ½ for SNR 5, 1 and 100.
    norms = theory["path"].weight_norm[[0, 4, 8], -1] / TABLE[[0, 4, 8], 0]
    assert norms[1] > norms[0] > norms[2]


def test_t3_the_frozen_share_keeps_its_start(theory):
    finite = TABLE[:, 1] != 1
    extra = theory["noisy_start"].test[finite, -1] - theory["path"].test[finite, -1]
    assert np.allclose(extra, 3 * np.maximum(0, 1 - TABLE[finite, 1]), atol=1e-12)
    # The integral at late times runs into the closed form.
    assert np.allclose(theory["path"].test[finite, -2], theory["path"].test[finite, -1], atol=1e-9)
    for name in ("path", "noisy_start"):
        assert np.allclose(theory[name].weight_norm[finite, -2], theory[name].weight_norm[finite, -1], rtol=1e-9)
        assert np.allclose(theory[name].train[:, -2], theory[name].train[:, -1], atol=1e-2)
    assert np.allclose(theory["noisy_start"].test[:, -1], theory["end"].test)


@pytest.fixture(scope="module")
def stepped():
    @jax.jit
    def compute(steps):
        flow = gradient_flow_errors(jnp.array([2.0, 1e6]), jnp.array(1.0), 5.0, 1.0, n_nodes=16384)
        many = gradient_descent_errors(steps, 1.0, 5.0, 1.0, step_size=2.0 / 64)
        few = jax.vmap(lambda k: gradient_descent_errors(64 // k, 1.0, 5.0, 1.0, step_size=2.0 * k / 64))(jnp.array([2, 8]))
        return flow, many, few

    with jax.enable_x64(True):
        return jax.device_get(compute(jnp.asarray(64)))


def test_growth_at_equal_numbers_is_with_the_root_of_time(theory, stepped):
    values = [theory["path"].test[1, i] for i in np.searchsorted(TIMES, [99.9, 9999])]
    assert np.allclose(values, [7.318422, 66.619780], rtol=1e-7)
    # The start is long forgotten.
    assert np.isclose(stepped[0].test[1], 661.491299, rtol=1e-6)
    slope = 2 * (2 - 2**0.5) / np.pi**0.5
    assert np.isclose(slope, 0.660983, atol=1e-6) and np.isclose((stepped[0].test[1] - values[1]) / (1e3 - 1e2), slope, rtol=1e-4)


def test_limits(limits):
    assert np.allclose(limits["path"].test[0, -1], 1, atol=1e-5)
    assert limits["time"][1] == 0 and np.isinf(limits["time"][2])


def test_the_test_error_knows_only_the_sum_of_both_variances(theory, limits):
    assert np.allclose(limits["path"].test[3], theory["noisy_start"].test[0], rtol=1e-13)


def test_t6_few_large_steps_are_not_the_flow(stepped):
    flow, many, few = stepped
    fine, (coarse, coarsest) = abs(many.test - flow.test[0]), abs(few.test - flow.test[0])
    # Of first order in a small step.
    assert np.isclose(coarse / fine, 2, rtol=0.1) and coarsest > 5 * fine
    assert np.allclose([many.train, many.weight_norm], [flow.train[0], flow.weight_norm[0]], rtol=0.05)


def test_t4_integral_against_scipy():
    # λ = s² at α = 1: the density is √(4 - s²)/π on [0, 2].
    def integrand(s, t=100.0):
        return np.sqrt(4 - s**2) / np.pi * (5 * np.exp(-2 * s**2 * t) + (np.expm1(-(s**2) * t) / s) ** 2)

    exact = 1 + integrate.quad(integrand, 0, 2, limit=500, points=[0.05, 0.2])[0]
    assert np.isclose(exact, 7.318422, rtol=1e-6)


@jax.jit
def drawn(key):
    draw = linear_teacher(20, 12, snr=5.0, inr=2.0, n_teachers=3, key=key)
    times = jnp.array([0.0, 1.0, 50.0])
    return draw, sample_errors(draw, times), draw.problem.gradient_flow(times, draw.start).weights


def test_a_draw_is_measured_exactly(getkey, double):
    draw, errors, weights = jax.device_get(drawn(getkey()))
    X, y = draw.problem.inputs, draw.problem.targets
    assert np.allclose(errors.train, np.mean((y - X @ weights) ** 2, axis=1), atol=1e-10)
    assert np.allclose(errors.test, np.mean((weights - draw.teacher) ** 2, axis=1) + 1)
    assert np.allclose(errors.weight_norm, np.mean(weights**2, axis=1)) and np.allclose(weights[0], draw.start)


def test_t2_inputs_have_variance_one_over_their_number(getkey, double):
    X = np.asarray(drawn(getkey())[0].problem.inputs)
    assert np.isclose(np.mean(X**2) * 20, 1, atol=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_flow_errors(1.0, 0.0, 1.0), "alpha, samples over parameters, must be positive, got 0"),
        (lambda: gradient_flow_errors(1.0, 1.0, -1.0), "snr must be at least 0, got -1"),
        (lambda: gradient_flow_errors(1.0, 1.0, 1.0, -1.0), "inr must be at least 0, got -1"),
        (lambda: gradient_flow_errors(-1.0, 1.0, 1.0), "time must be at least 0, got -1"),
        (lambda: gradient_descent_errors(-1, 1.0, 1.0, step_size=0.1), "n_steps must be at least 0, got -1"),
        (lambda: gradient_descent_errors(1, 1.0, 1.0, step_size=0.5), r"step_size must lie in \(0, 0.5\), below"),
        (lambda: ridge_risk(1.0, 1.0, 0.0), "penalty must be positive, got 0"),
        (lambda: optimal_ridge(1.0, 0.0), "snr must be positive for a best penalty, got 0"),
        (lambda: linear_teacher(0, 5, snr=1.0, key=jax.random.key(0)), "n_parameters must be at least 1, got 0"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_draws_have_the_variances_that_were_asked_for():
    draw = linear_teacher(20, 12, snr=5.0, inr=2.0, n_teachers=400, key=jax.random.key(0))
    noise = draw.problem.targets - draw.problem.inputs @ draw.teacher
    # Three to four standard errors of 4800 squares.
    for values, variance in ((draw.teacher, 5), (draw.start, 2), (noise, 1)):
        assert np.isclose(np.var(values), variance, rtol=0.08)
    assert abs(np.corrcoef(np.ravel(draw.teacher), np.ravel(draw.start))[0, 1]) < 0.05
