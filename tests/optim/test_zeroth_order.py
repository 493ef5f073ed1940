"""Estimators from directional differences, in one shape: `(params, *args, key=key) -> (value, estimate)`."""

import functools
import math

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import (
    finite_differences,
    forward_gradient,
    gaussian_smoothing,
    guided_directions,
    random_directions,
    spsa,
    spsa_gains,
    taylor_step,
    with_estimated_gradient,
)
from gradatim.optim.zeroth_order.probes import BLOCK, draw_probe, probe_seed, shifted

ROUND_OFF = 2e-5  # single precision, differences of losses of order one over a radius of order one
SIGMAS = 4.5  # of a standard error: one chance in 10⁵ that a right estimator is called wrong
KEY = jax.random.key(7)
CURVATURE = np.diag(np.array([1.0, 2.0, 0.5, 3.0], np.float32)) + np.float32(0.1)
SLOPE = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


def quadratic(x):
    return x @ CURVATURE @ x / 2 + SLOPE @ x


def gradient_of_quadratic(x):
    return np.asarray(x) @ CURVATURE + SLOPE


def linear(x):
    return SLOPE @ x


ESTIMATORS = {
    "central": functools.partial(random_directions, radius=0.1),
    "forward": functools.partial(random_directions, radius=0.01, difference="forward"),
    "one point": functools.partial(random_directions, radius=0.5, difference="one_point"),
    "sphere": functools.partial(random_directions, radius=0.1, distribution="sphere"),
    "spsa": functools.partial(spsa, radius=0.1),
    "smoothing": functools.partial(gaussian_smoothing, radius=0.1),
    "forward gradient": forward_gradient,
}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def samples(value_and_grad, *args, n=4000, key=KEY):
    return np.asarray(jax.jit(jax.vmap(lambda k: value_and_grad(*args, key=k)[1]))(jax.random.split(key, n)))


def assert_unbiased(draws, expected, bias=0.0):
    error = draws.mean(0) - expected
    assert (abs(error) <= SIGMAS * draws.std(0) / math.sqrt(len(draws)) + bias).all(), error


@every_estimator
def test_unbiased(estimator):
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    bias = 0.05 if estimator is ESTIMATORS["forward"] else 0.0  # E[zᵀHz z] h / 2 is zero for symmetric z; rounding
    assert_unbiased(samples(estimator(quadratic), x), gradient_of_quadratic(x), bias)


@every_estimator
def test_shape_of_value_and_grad(estimator):
    params = {"a": jnp.ones((2, 3)), "b": (jnp.zeros(()), jnp.ones(4))}

    def fun(p, scale):
        return scale * optax.tree.sum(jax.tree.map(lambda leaf: (leaf**2).sum(), p))

    value, estimate = jax.eval_shape(lambda params, key: estimator(fun)(params, 2.0, key=key), params, KEY)
    assert value.shape == () and jax.tree.map(jnp.shape, estimate) == jax.tree.map(jnp.shape, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, estimate) == jax.tree.map(lambda leaf: leaf.dtype, params)


@every_estimator
def test_optax_behind_it_and_no_second_compile(estimator):
    value_and_grad, optimizer, traces = estimator(quadratic, n_probes=4), optax.adam(0.03), []

    @jax.jit
    def step(x, state, key):
        traces.append(1)
        updates, state = optimizer.update(value_and_grad(x, key=key)[1], state)
        return optax.apply_updates(x, updates), state

    x = jnp.ones(4)
    state, start = optimizer.init(x), quadratic(np.ones(4))
    for key in jax.random.split(KEY, 40):
        x, state = step(x, state, key)
    assert len(traces) == 1 and quadratic(np.asarray(x)) < start


@every_estimator
def test_vmap_is_a_loop(estimator):
    value_and_grad = estimator(quadratic)
    batch = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4), jax.random.split(KEY, 3)
    estimate = lambda pair: value_and_grad(pair[0], key=pair[1])[1]  # noqa: E731
    together, one_by_one = jax.jit(lambda batch: (jax.vmap(estimate)(batch), jax.lax.map(estimate, batch)))(batch)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-3, atol=1e-3)


@every_estimator
def test_batches_of_probes_change_nothing(estimator):
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    whole, parts = jax.jit(lambda k: [estimator(quadratic, n_probes=6, batch_size=b)(x, key=k) for b in (None, 2)])(KEY)
    np.testing.assert_allclose(whole[0], parts[0], rtol=ROUND_OFF)
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-3, atol=1e-3)


@jax.jit
def differences_at(x, matrix, slope, radius, seed):
    """Central on a quadratic, beside (z·∇f) z; forward and central on a line."""
    key = jax.random.key(seed)
    fun, line = (lambda x: x @ matrix @ x / 2 + slope @ x), (lambda x: slope @ x)
    z = draw_probe(probe_seed(key), x)
    central, *on_a_line = (
        random_directions(f, radius=radius, difference=d)(x, key=key)[1]
        for f, d in ((fun, "central"), (line, "forward"), (line, "central"))
    )
    return central, (z @ jax.grad(fun)(x)) * z, *on_a_line


def differences(radius, seed):
    with jax.enable_x64(True):
        arrays = (np.asarray(a, np.float64) for a in ([0.3, -0.2, 0.5, 0.1], CURVATURE, SLOPE))
        return differences_at(*map(jnp.asarray, arrays), radius, seed)


@hypothesis.given(st.floats(1e-2, 1e2), st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=25)
def test_central_on_a_quadratic_forgets_the_radius(radius, seed):
    estimate, expected, _, _ = differences(radius, seed)
    np.testing.assert_allclose(estimate, expected, rtol=ROUND_OFF, atol=ROUND_OFF)  # of directions, drawn twice in single precision


@hypothesis.given(st.floats(0.1, 10.0), st.integers(0, 2**31 - 1))
@hypothesis.settings(max_examples=25)
def test_forward_is_central_on_a_line(radius, seed):
    _, _, forward, central = differences(radius, seed)
    np.testing.assert_allclose(forward, central, rtol=ROUND_OFF, atol=ROUND_OFF)


def test_smoothed_modulus():
    x, h = 0.3, 0.5
    value, slope = 0.468672732242, 0.451493764500
    exact = h * math.sqrt(2 / math.pi) * math.exp(-(x**2) / (2 * h**2)) + x * math.erf(x / (h * math.sqrt(2)))
    assert math.isclose(exact, value, rel_tol=1e-11) and math.isclose(math.erf(x / (h * math.sqrt(2))), slope, rel_tol=1e-11)
    run = jax.jit(jax.vmap(lambda k: gaussian_smoothing(jnp.abs, radius=h)(jnp.array(x), key=k)))
    values, slopes = run(jax.random.split(KEY, 200_000))
    for draws, expected in ((np.asarray(values), value), (np.asarray(slopes), slope)):
        assert abs(draws.mean() - expected) <= SIGMAS * draws.std() / math.sqrt(draws.size)


@pytest.mark.parametrize(("distribution", "ratio"), [("gaussian", 22.0), ("rademacher", 20.0), ("sphere", 20.0)])
def test_second_moment_law(distribution, ratio):
    """E‖ĝ‖²/‖g‖² is d + 2 for Gaussian, d for the others: the mean norm shows a forgotten 1/h or a second 1/K, a curve does not."""
    direction = np.full(20, 1 / math.sqrt(20), np.float32)
    make = functools.partial(random_directions, lambda x: x @ direction, radius=1.0, distribution=distribution)

    @jax.jit
    def second_moments(keys):
        return [jax.vmap(lambda key, k=k: (make(n_probes=k)(jnp.zeros(20), key=key)[1] ** 2).sum())(keys) for k in (1, 3)]

    found = map(np.asarray, second_moments(jax.random.split(KEY, 20_000)))
    for moments, expected in zip(found, (ratio, 1 + (ratio - 1) / 3), strict=True):
        assert abs(moments.mean() - expected) <= SIGMAS * moments.std() / math.sqrt(moments.size) + 1e-4 * expected


@pytest.mark.parametrize("d", [10, 100])
def test_mean_cosine_of_one_direction(d):
    estimates = samples(random_directions(lambda x: x[0], radius=1.0), jnp.zeros(d), n=20_000)
    cosines = estimates[:, 0] / np.linalg.norm(estimates, axis=1)
    expected = math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)
    assert abs(cosines.mean() - expected) <= SIGMAS * cosines.std() / math.sqrt(cosines.size)
    assert math.isclose(expected, {10: 0.25869, 100: 0.079988}[d], rel_tol=1e-4)


@pytest.mark.parametrize("make", [forward_gradient, functools.partial(random_directions, radius=0.1)], ids=["jvp", "central"])
def test_as_many_orthogonal_directions_as_dimensions_give_the_gradient(make):
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    _, estimate = jax.jit(lambda x, key: make(quadratic, n_probes=4, distribution="orthogonal")(x, key=key))(x, KEY)
    np.testing.assert_allclose(estimate, gradient_of_quadratic(x), rtol=1e-4, atol=1e-4)


def test_orthogonal_directions_are_unbiased_when_fewer():
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    draws = samples(forward_gradient(quadratic, n_probes=2, distribution="orthogonal"), x)
    assert_unbiased(draws, gradient_of_quadratic(x))
    moment = (draws**2).sum(1).mean() / (gradient_of_quadratic(x) ** 2).sum()
    np.testing.assert_allclose(moment, 2.0, rtol=0.05)  # d/K


def test_mirroring_cancels_the_even_terms():
    """On x² + x⁴ about 0.5 the forward bias falls as h, the central one as h²; measured on E over Gaussian z by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    fun = lambda x: np.exp(x)  # noqa: E731

    def bias(h, central):
        difference = (fun(h * nodes) - fun(-h * nodes)) / (2 * h) if central else (fun(h * nodes) - 1) / h
        return abs((weights * difference * np.sign(nodes)).sum() - (weights * abs(nodes)).sum())

    assert math.isclose(math.log2(bias(0.1, True) / bias(0.05, True)), 2.0, abs_tol=0.05)
    assert bias(0.1, True) < bias(0.1, False) + 1e-12
    # The same radius, in the library: per direction, forward errs by h zᵀHz/2, central not at all.

    @jax.jit
    def estimates(x, key):
        both = [random_directions(quadratic, radius=0.5, difference=d)(x, key=key)[1] for d in ("forward", "central")]
        return draw_probe(probe_seed(key), x), *both

    z, forward, central = map(np.asarray, estimates(jnp.zeros(4), KEY))
    np.testing.assert_allclose(forward - central, 0.25 * (z @ CURVATURE @ z) * z, rtol=1e-4, atol=1e-4)


def test_a_baseline_keeps_the_mean_and_lowers_the_variance():
    x = jnp.ones(4)

    @jax.jit
    def draws(keys, baseline):
        estimate = random_directions(quadratic, radius=0.5, difference="one_point", baseline=baseline)
        return jax.vmap(lambda key: estimate(x, key=key)[1])(keys)

    plain, based = (np.asarray(draws(jax.random.split(KEY, 4000), b)) for b in (jnp.array(0.0), jnp.asarray(quadratic(np.asarray(x)))))
    assert_unbiased(plain, gradient_of_quadratic(x))
    assert_unbiased(based, gradient_of_quadratic(x))
    assert based.var(0).sum() < 0.8 * plain.var(0).sum()


def test_both_evaluations_see_the_same_dropout():
    """One key among the arguments: with two, the difference would be of order 1/h."""

    def noisy(x, key):
        return x @ x + 100 * jax.random.normal(key)

    @jax.jit
    def estimate_and_probe(x, noise, key):
        return random_directions(noisy, radius=1e-2)(x, noise, key=key)[1], draw_probe(probe_seed(key), x)

    estimate, z = map(np.asarray, estimate_and_probe(jnp.ones(3), jax.random.key(3), KEY))
    np.testing.assert_allclose(estimate, 2 * z.sum() * z, rtol=2e-2)


def test_values_are_those_of_the_points_that_were_evaluated():
    x, h = jnp.array([0.3, -0.2, 0.5, 0.1]), 0.5

    @jax.jit
    def values(x, key):
        found = {d: random_directions(quadratic, radius=h, difference=d)(x, key=key)[0] for d in ("central", "forward", "one_point")}
        return found | {"jvp": forward_gradient(quadratic)(x, key=key)[0]}, draw_probe(probe_seed(key), x)

    found, z = values(x, KEY)
    after, before = (quadratic(np.asarray(x) + s * h * np.asarray(z)) for s in (1, -1))
    here = quadratic(np.asarray(x))
    expected = {"central": (after + before) / 2, "forward": here, "one_point": after, "jvp": here}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@every_estimator
def test_every_estimator_drops_what_is_not_finite(estimator):
    dropping = estimator(lambda x: jnp.nan * x.sum(), n_probes=2, nonfinite="drop")
    value, estimate = jax.jit(lambda x, key: dropping(x, key=key))(jnp.ones(3), KEY)
    assert np.isnan(value) and not np.asarray(estimate).any()


def test_a_sphere_is_that_of_all_leaves_together():
    like = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    z = jax.jit(jax.vmap(lambda k: draw_probe(probe_seed(KEY), like, k, distribution="sphere")))(jnp.arange(20))
    first, second = ((np.asarray(leaf).reshape(20, -1) ** 2).sum(1) for leaf in (z["a"], z["b"]))
    np.testing.assert_allclose(first + second, 7, rtol=1e-5)
    assert np.ptp(first) > 1


def test_signs_divide_as_they_multiply():
    z = np.asarray(draw_probe(probe_seed(KEY), jnp.zeros(100), distribution="rademacher"))
    assert np.array_equal(z, 1 / z) and set(np.unique(z)) == {-1.0, 1.0}


def test_finite_differences():
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    for value, gradient in jax.jit(lambda x: [finite_differences(quadratic, radius=0.1, batch_size=size)(x) for size in (None, 3)])(x):
        np.testing.assert_allclose(gradient, gradient_of_quadratic(x), rtol=1e-4)
        np.testing.assert_allclose(value, quadratic(np.asarray(x)), rtol=1e-6)
    assert jax.eval_shape(lambda x, key: finite_differences(quadratic)(x, key=key)[1], x, KEY).shape == (4,)


def test_default_radius_and_a_warning_below_it():
    x = jnp.ones(4)
    np.testing.assert_allclose(jax.jit(finite_differences(lambda x: jnp.sin(x).sum()))(x)[1], np.cos(x), atol=2e-4)
    for dtype, bad in (("float32", 1e-4), ("bfloat16", 1e-2), ("float16", 1e-3)):
        estimate = random_directions(lambda x: (x**2).sum(), radius=bad)
        with pytest.warns(UserWarning, match=rf"radius {bad:g} is so small for {dtype} that differences of losses are mostly rounding"):
            jax.eval_shape(lambda x, key, estimate=estimate: estimate(x, key=key), jax.ShapeDtypeStruct((4,), dtype), KEY)


@every_estimator
def test_bfloat16_parameters(estimator):
    radius = {} if estimator is forward_gradient else {"radius": 0.25}
    x = jnp.array([0.5, -1.0, 2.0, 0.25], jnp.bfloat16)
    value_and_grad = estimator(lambda x: (x.astype(jnp.float32) ** 2).sum(), n_probes=64, **radius)
    value, estimate = jax.jit(lambda x, key: value_and_grad(x, key=key))(x, KEY)
    assert estimate.dtype == jnp.bfloat16 and np.isfinite(value)
    assert np.asarray(estimate, np.float32) @ np.asarray(x, np.float32) > 0


def test_double_precision():
    with jax.enable_x64(True):
        value_and_grad = random_directions(lambda x: (x**3).sum(), n_probes=2, distribution="orthogonal")
        _, estimate = jax.jit(lambda x, key: value_and_grad(x, key=key))(jnp.array([0.5, -1.0]), KEY)
        assert estimate.dtype == jnp.float64
        np.testing.assert_allclose(estimate, [0.75, 3.0], rtol=1e-6)


def test_losses_that_are_not_finite():
    def cliff(x):
        return jnp.where(x[0] > 0, jnp.nan, x @ x / 2)

    x, n = jnp.array([-0.05, 1.0]), 4000
    estimate = jax.jit(lambda x, k: random_directions(cliff, radius=0.1, n_probes=n, nonfinite="drop")(x, key=k))
    value, kept = estimate(x, KEY)
    assert np.isfinite(value) and abs(np.asarray(kept)[1] - 1) < 0.2
    nowhere = random_directions(lambda x: x @ x * jnp.nan, radius=0.1, n_probes=3, nonfinite="drop")
    (_, kept), (value, none) = jax.jit(
        lambda x, k: (random_directions(cliff, radius=0.1, n_probes=8)(x, key=k), nowhere(x, key=k)),
    )(x, KEY)
    assert np.isnan(kept).any()
    assert np.isnan(value) and not np.asarray(none).any()
    raising = eqx.filter_jit(lambda x, k: random_directions(cliff, radius=0.1, n_probes=8, nonfinite="raise")(x, key=k))
    with pytest.raises(RuntimeError, match="fun was not finite at a probe: lower the radius, or drop such probes"):
        jax.block_until_ready(raising(x, KEY))


def test_guided_directions_drop_or_refuse_what_is_not_finite():
    cliff = lambda x: jnp.where(x[0] > 0, jnp.nan, x @ x / 2)  # noqa: E731
    surrogate = jnp.array([[1.0, 0.0]])
    make = functools.partial(guided_directions, surrogates=surrogate, radius=0.1, n_probes=8)
    nowhere, somewhere = (make(f, nonfinite="drop") for f in (lambda x: x @ x * jnp.nan, cliff))
    x = jnp.array([-0.05, 1.0])
    (value, none), (kept_value, kept) = jax.jit(lambda x, key: (nowhere(x, key=key), somewhere(x, key=key)))(x, KEY)
    assert np.isnan(value) and not np.asarray(none).any()
    assert np.isfinite(kept_value) and np.isfinite(kept).all()
    raising = eqx.filter_jit(lambda x, k: make(cliff, nonfinite="raise")(x, key=k))
    with pytest.raises(RuntimeError, match="fun was not finite at a probe: lower the radius, or drop such probes"):
        jax.block_until_ready(raising(x, KEY))


def test_finite_differences_evaluate_each_coordinate_twice_and_the_point():
    calls = []
    jax.jit(finite_differences(lambda x: jax.debug.callback(lambda _: calls.append(1), x) or x @ x, radius=0.1))(jnp.ones(3))
    jax.effects_barrier()
    assert len(calls) == 7


def test_losses_without_derivative():
    """Wrong answers counted: whole numbers, flat almost everywhere."""
    labels = jnp.array([1, 0, 1, 1])
    points = jnp.array([[1.0, 0.2], [-1.0, 0.1], [0.5, -0.3], [0.8, 0.9]])
    value_and_grad = random_directions(lambda w: ((points @ w > 0) != labels).sum(), radius=1.0, n_probes=4000)
    value, estimate = jax.jit(lambda w, key: value_and_grad(w, key=key))(jnp.zeros(2), KEY)
    assert value.dtype == jnp.float32 and np.asarray(estimate)[0] < 0


def test_estimated_gradient_under_grad():
    net = eqx.filter_jit(eqx.nn.MLP)(2, 1, 4, 1, key=KEY)
    arrays, rest = eqx.partition(net, eqx.is_inexact_array)

    def fun(arrays, x):
        return (jax.vmap(eqx.combine(arrays, rest))(x) ** 2).mean()

    value_and_grad, x = random_directions(fun, radius=0.1), jnp.ones((3, 2))
    loss = with_estimated_gradient(value_and_grad)
    both = jax.jit(lambda arrays, x, key: (jax.value_and_grad(loss)(arrays, x, key=key), value_and_grad(arrays, x, key=key)))
    (value, gradient), (expected, estimate) = both(arrays, x, KEY)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), gradient, estimate)


def test_guided_directions_have_the_stated_mean():
    x, surrogate = jnp.array([0.3, -0.2, 0.5, 0.1]), jnp.array([[1.0, -1.0, 0.0, 2.0]])
    u = np.asarray(surrogate)[0] / np.linalg.norm(surrogate)
    g = gradient_of_quadratic(x)

    @jax.jit
    def draws(keys, share):
        return jax.vmap(lambda key: guided_directions(quadratic, surrogate, radius=0.1, share=share)(x, key=key)[1])(keys)

    keys = jax.random.split(KEY, 4000)
    assert_unbiased(np.asarray(draws(keys, 0.4)), 0.4 * g + 0.6 * 4 * (u @ g) * u)
    assert_unbiased(np.asarray(draws(keys, 1.0)), g)


def test_guided_directions_spread_over_all_surrogates():
    """Two of them, as trees: E[ĝ] = (α I + (1 - α) d/2 U Uᵀ) ∇f."""
    x = np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    surrogates = np.array([[1.0, -1.0, 0.0, 2.0], [0.5, 1.0, 1.0, 0.0]], np.float32)
    basis, g = np.linalg.qr(surrogates.T)[0], gradient_of_quadratic(x)
    split = lambda rows: {"a": jnp.asarray(rows[..., :1]), "b": jnp.asarray(rows[..., 1:])}  # noqa: E731
    fun = lambda p: quadratic(jnp.concatenate([p["a"], p["b"]]))  # noqa: E731
    estimate = guided_directions(fun, split(surrogates), radius=0.1, share=0.4, n_probes=2)
    draws = jax.jit(jax.vmap(lambda key: estimate(split(x), key=key)[1]))(jax.random.split(KEY, 4000))
    joined = np.concatenate([np.asarray(draws["a"]), np.asarray(draws["b"])], 1)
    assert_unbiased(joined, 0.4 * g + 0.6 * 4 / 2 * basis @ (basis.T @ g))


def test_spsa_gains_have_spalls_exponents():
    gains = spsa_gains(0.5, 0.1, stability=10.0)
    np.testing.assert_allclose(gains.learning_rate(4), 0.5 / 15**0.602)
    np.testing.assert_allclose(gains.radius(jnp.array(4)), 0.1 / 5**0.101, rtol=1e-6)
    # Σ aₖ diverges and Σ aₖ²/cₖ² converges: the exponents lie on either side of 1.
    assert 0.602 < 1 < 2 * (0.602 - 0.101)


def test_draws_are_standard_and_independent():
    seed = probe_seed(KEY)
    draw = jax.jit(jax.vmap(lambda k: draw_probe(seed, {"a": jnp.zeros(3 * BLOCK + 5), "b": jnp.zeros(7)}, k)))
    z = draw(jnp.arange(8))
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(z)])
    n = flat.size
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((flat**power).mean() - moment) <= SIGMAS * math.sqrt(spread / n)
    correlations = np.corrcoef(np.asarray(z["a"]))
    assert abs(correlations - np.eye(8)).max() < SIGMAS / math.sqrt(3 * BLOCK)
    assert len(np.unique(flat)) > 0.99 * n


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_blocks_are_the_whole_draw(distribution):
    seed = probe_seed(KEY)
    x = [np.zeros(shape, np.float32) for shape in (1, 2, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 3, (3, 5))]
    whole, blocks = (lambda x: draw_probe(seed, x, distribution=distribution), lambda x: shifted(x, seed, 1.0, distribution=distribution))
    z, blocks = jax.jit(lambda x: (whole(x), blocks(x)))(x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), z, blocks)


@pytest.mark.parametrize("key", [jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)], ids=["rbg", "raw"])
def test_other_kinds_of_keys(key):
    assert jax.jit(lambda x, key: random_directions(quadratic, radius=0.1)(x, key=key))(jnp.ones(4), key)[1].shape == (4,)


@pytest.mark.parametrize("order", [1, 2])
def test_taylor_steps_minimise_their_model(order):
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    step = jax.jit(lambda x: taylor_step(quadratic, x, order=order, rate=0.1 if order == 1 else 1.0))(x)
    g, curvature = gradient_of_quadratic(x), np.eye(4) / 0.1 if order == 1 else CURVATURE
    np.testing.assert_allclose(g + curvature @ np.asarray(step), 0, atol=1e-5)


def test_damping_and_rate_enter_the_higher_orders(double):
    x, rate, damping, a = 0.3, 0.4, 0.7, 0.5
    fun = lambda x: jnp.exp(x).sum() - x.sum()  # noqa: E731
    second, third = jax.jit(lambda x: [taylor_step(fun, x, order=n, rate=rate, damping=damping, super_halley=a) for n in (2, 3)])(
        jnp.array([x])
    )
    newton = (math.exp(x) - 1) / (math.exp(x) + damping)
    ratio = math.exp(x) * newton / (math.exp(x) + damping)
    np.testing.assert_allclose(second, -rate * newton, rtol=1e-12)
    np.testing.assert_allclose(third, -rate * (1 + ratio / (1 - a * ratio) / 2) * newton, rtol=1e-12)


def test_halley_triples_the_digits():
    with jax.enable_x64(True):
        fun = lambda x: jnp.exp(x).sum() - x.sum()  # noqa: E731
        third = jax.jit(lambda x, a: x + taylor_step(fun, x, order=3, super_halley=a))
        for a in (0.0, 0.5, 1.0):
            x, errors = jnp.array([0.3]), []
            for _ in range(3):
                x = third(x, a)
                errors.append(abs(float(x[0])))
            assert math.log(errors[1]) / math.log(errors[0]) > 2.7
        x, second = jnp.array([0.3]), jax.jit(lambda x: x + taylor_step(fun, x, order=2))
        newton = [abs(float((x := second(x))[0])) for _ in range(3)]
        assert 1.7 < math.log(newton[2]) / math.log(newton[1]) < 2.5


def test_an_estimator_takes_the_first_order_step():
    x = jnp.array([0.3, -0.2, 0.5, 0.1])
    estimator = forward_gradient(quadratic, n_probes=4, distribution="orthogonal")
    step = functools.partial(taylor_step, quadratic, order=1, rate=0.1)
    estimated, exact = jax.jit(lambda x, key: (step(x, value_and_grad=estimator, key=key), step(x)))(x, KEY)
    np.testing.assert_allclose(estimated, exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_directions(quadratic, radius=0.0), "radius must be positive and finite, got 0.0"),
        (lambda: random_directions(quadratic, radius=-1.0), "radius must be positive and finite, got -1.0"),
        (lambda: gaussian_smoothing(quadratic, radius=math.nan), "radius must be positive and finite, got nan"),
        (lambda: finite_differences(quadratic, radius=math.inf), "radius must be positive and finite, got inf"),
        (lambda: spsa(quadratic, n_probes=0), "n_probes must be at least 1, got 0"),
        (lambda: finite_differences(quadratic, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: forward_gradient(quadratic, n_probes=-2), "n_probes must be at least 1, got -2"),
        (lambda: spsa(quadratic, n_probes=4, batch_size=3), "batch_size must divide n_probes, got 3 and 4"),
        (
            lambda: forward_gradient(quadratic, n_probes=5, distribution="orthogonal")(jnp.ones(4), key=KEY),
            "n_probes must be at most 4, the number of parameters, for orthogonal directions, got 5",
        ),
        (lambda: jax.jit(random_directions(lambda x: x))(jnp.ones(4), key=KEY), r"fun must return a scalar, got shape \(4,\): take a mean"),
        (lambda: finite_differences(lambda x: x)(jnp.ones(4)), r"fun must return a scalar, got shape \(4,\)"),
        (lambda: random_directions(quadratic)({}, key=KEY), "params must hold at least one array, got an empty tree"),
        (lambda: random_directions(quadratic)(jnp.ones(4), key=jax.random.split(KEY, 2)), "key must be a single key"),
        (lambda: guided_directions(quadratic, jnp.ones((1, 4)), share=2.0), r"share must lie in \[0, 1\], got 2.0"),
        (lambda: spsa_gains(0.1, 0.0), "radius must be positive and finite, got 0.0"),
        (lambda: spsa_gains(0.1, 0.1, stability=-1.0), "stability must be at least 0 and finite, got -1.0"),
        (lambda: taylor_step(quadratic, jnp.ones(4), order=2, value_and_grad=spsa(quadratic)), "value_and_grad serves order 1 only"),
        (lambda: taylor_step(quadratic, jnp.ones(4), order=2, damping=-1.0), "damping must be at least 0, got -1.0"),
    ],
)
def test_bad_numbers_and_shapes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"k": jnp.arange(3)}, r"parameter \['k'\] must be real floating point, got int32"),
        (jnp.arange(3), "the parameter must be real floating point, got int32"),
        (jnp.ones(2, jnp.complex64), "the parameter must be real floating point, got complex64"),
        ({"f": jnp.sin}, r"parameter \['f'\] must be real floating point, got .*; take it out with eqx.partition"),
    ],
)
@every_estimator
def test_leaves_that_cannot_be_perturbed_are_refused(estimator, params, message):
    with pytest.raises(TypeError, match=message):
        estimator(lambda x: 0.0)(params, key=KEY)


@every_estimator
def test_a_missing_key_is_refused(estimator):
    with pytest.raises(TypeError, match="key"):
        estimator(quadratic)(jnp.ones(4))
    with pytest.raises(TypeError, match=r"key must be a JAX random key \(jax.random.key\), got None"):
        estimator(quadratic)(jnp.ones(4), key=None)
