"""Evolution strategies, and MeZO's steps that draw their direction again."""

import math

import equinox as eqx
import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import (
    SearchDistribution,
    best_half_directions,
    centered_ranks,
    evolution_strategy,
    log_ranks,
    mezo_step,
    natural_evolution_strategy,
    random_directions,
    raw_losses,
    replay_updates,
    standardized,
    without_mean,
)
from gradatim.optim.zeroth_order.probes import draw_probe, probe_seed

KEY = jax.random.key(11)
SIGMAS = 4.5  # of a standard error
LOSSES = hypothesis.extra.numpy.arrays(np.float32, 9, elements=st.integers(-1000, 1000).map(float), unique=True)


def bowl(x):
    return ((x - 1) ** 2).sum()


ranks_of, standard = jax.jit(centered_ranks), jax.jit(standardized)


@hypothesis.given(LOSSES)
def test_centred_ranks_sum_to_zero_and_ignore_monotone_maps(losses):
    ranks = np.asarray(ranks_of(losses))
    assert ranks.min() == -0.5 and ranks.max() == 0.5 and abs(ranks.sum()) < 1e-6
    assert np.array_equal(ranks, ranks_of(3 * losses + 7))
    assert np.array_equal(ranks, ranks_of(np.arctan(losses / 1000) * 5))
    assert np.array_equal(np.argsort(ranks), np.argsort(losses))


@hypothesis.given(LOSSES, st.integers(1, 8), st.integers(-100, 100))
def test_standardized_losses_ignore_affine_maps(losses, scale, shift):
    plain = np.asarray(standard(losses))
    np.testing.assert_allclose(plain, standard(scale * losses + shift), atol=1e-4)
    np.testing.assert_allclose((plain**2).mean(), 1, rtol=1e-4)
    assert not np.asarray(standard(np.full(9, 3, np.float32))).any()


def test_a_loss_that_is_nan_ranks_worst():
    assert np.asarray(ranks_of(jnp.array([1.0, jnp.nan, 0.0])))[1] == 0.5


def test_the_best_half_of_the_directions():
    losses = jnp.array([1.0, 5.0, 2.0, 9.0, 4.0, 7.0, 3.0, 8.0])  # pairs (1, 4), (5, 7), (2, 3), (9, 8)
    shaped = jax.jit(best_half_directions)(losses)
    np.testing.assert_allclose(shaped, 2 * np.array([1.0, 0, 2, 0, 4, 0, 3, 0]) / np.std([1, 4, 2, 3]), rtol=1e-6)


def test_of_an_odd_number_of_directions_the_middle_one_is_kept():
    shaped = best_half_directions(jnp.array([1.0, 5.0, 2.0, 4.0, 7.0, 3.0]))  # pairs (1, 4), (5, 7), (2, 3)
    np.testing.assert_allclose(shaped, 3 / 2 * np.array([1.0, 0, 2, 4, 0, 3]) / np.std([1, 4, 2, 3]), rtol=1e-6)


def test_the_best_half_is_of_pairs():
    with pytest.raises(ValueError, match="losses must be those of a mirrored population, an even number, got 7"):
        best_half_directions(jnp.ones(7))
    with pytest.raises(ValueError, match="mirrored must be True for best_half_directions, got False"):
        evolution_strategy(bowl, radius=0.1, population=8, mirrored=False, shaping=best_half_directions)


@pytest.mark.parametrize("mirrored", [True, False])
def test_losses_that_are_not_finite_are_dropped_or_refused(mirrored):
    cliff = lambda x: jnp.where(x[0] > 0.01, jnp.inf, bowl(x))  # noqa: E731
    make = lambda fun, nonfinite: evolution_strategy(  # noqa: E731
        fun, radius=0.1, population=4000, mirrored=mirrored, shaping=without_mean, nonfinite=nonfinite
    )
    x = jnp.array([0.0, -1.0])
    nowhere, dropping, plain = make(lambda x: bowl(x) * jnp.nan, "drop"), make(cliff, "drop"), make(cliff, "propagate")
    (value, none), (kept_value, kept), (_, lost) = jax.jit(lambda x, k: [f(x, key=k) for f in (nowhere, dropping, plain)])(x, KEY)
    assert np.isnan(value) and not np.asarray(none).any()
    assert np.isfinite(kept_value) and abs(np.asarray(kept)[1] + 4) < 0.5
    assert not np.isfinite(lost).all()
    raising = eqx.filter_jit(lambda x, k: make(cliff, "raise")(x, key=k))
    with pytest.raises(RuntimeError, match="fun was not finite at a probe"):
        jax.block_until_ready(raising(x, KEY))


@pytest.mark.parametrize("mirrored", [True, False])
def test_populations_along_an_axis_are_shaped_as_one(mirrored):
    x = jnp.linspace(-1.0, 1.0, 5)
    seen = []

    def ranks(losses):
        seen.append(losses.shape)
        return centered_ranks(losses)

    make = lambda **more: evolution_strategy(bowl, radius=0.1, population=6, mirrored=mirrored, shaping=ranks, **more)  # noqa: E731
    spread = jax.jit(jax.vmap(lambda _: make(axis_name="device")(x, key=KEY), axis_name="device"))
    values, estimates = map(np.asarray, spread(jnp.arange(3)))
    assert seen == [(18,)]
    assert np.ptp(values) == 0 and np.ptp(estimates, axis=0).max() == 0
    # By hand: three populations of keys of their own, their losses ranked together.
    keys = [jax.random.fold_in(KEY, i) for i in range(3)]
    n = 3 if mirrored else 6
    z = np.concatenate([jax.vmap(lambda k, key=key: draw_probe(probe_seed(key), x, k))(jnp.arange(n)) for key in keys])
    z = np.concatenate([z, -z]) if mirrored else z
    losses = jax.vmap(bowl)(np.asarray(x) + np.float32(0.1) * z)
    np.testing.assert_allclose(estimates[0], np.asarray(centered_ranks(losses)) @ z / (18 * 0.1), rtol=1e-4, atol=1e-5)


def test_natural_gradients_are_those_of_the_expected_loss():
    """E f for f = Σ aᵢ xᵢ²/2 is Σ aᵢ (μᵢ² + σᵢ²)/2, the Fisher matrix 1/σᵢ² for μ and 2 for log σ."""
    a, mean, radius = (np.array(v, np.float32) for v in ([1.0, 4.0, 0.5], [0.5, -1.0, 2.0], [0.3, 1.0, 0.5]))
    search = SearchDistribution(jnp.asarray(mean), jnp.log(radius))
    expected = radius**2 * a * mean, a * radius**2 / 2
    for mirrored in (True, False):
        make = natural_evolution_strategy(lambda x: a @ x**2 / 2, population=8, mirrored=mirrored, shaping=raw_losses)
        estimates = jax.jit(jax.vmap(lambda k, make=make: make(search, key=k)[1]))(jax.random.split(KEY, 8000))
        for draws, exact in zip(map(np.asarray, estimates), expected, strict=True):
            assert (abs(draws.mean(0) - exact) < SIGMAS * draws.std(0) / math.sqrt(8000) + 1e-3).all()


def test_natural_evolution_is_the_authors_algorithm():
    """Separable NES, algorithm 6: s ~ N(0, I), ∇μ = Σ uₖ sₖ, ∇σ = Σ uₖ (sₖ² - 1), μ += σ ∇μ, σ *= exp(ησ/2 ∇σ)."""
    mean, radius, rate, n = np.array([0.5, -1.0, 2.0], np.float32), np.array([0.3, 1.0, 0.5], np.float32), 0.4, 6
    s = np.asarray(jax.vmap(lambda k: draw_probe(probe_seed(KEY), mean, k))(jnp.arange(n)))
    order = np.argsort(((mean + radius * s - 1) ** 2).sum(1))
    raw = np.maximum(0, np.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
    u = np.zeros(n)
    u[order] = raw / raw.sum() - 1 / n
    search = SearchDistribution(jnp.asarray(mean), jnp.log(radius))
    _, estimate = natural_evolution_strategy(bowl, population=n, mirrored=False)(search, key=KEY)
    np.testing.assert_allclose(mean - np.asarray(estimate.mean), mean + radius * (u @ s), rtol=1e-4)
    np.testing.assert_allclose(
        radius * np.exp(-rate * np.asarray(estimate.log_radius)), radius * np.exp(rate / 2 * (u @ (s**2 - 1))), rtol=1e-4
    )


def test_natural_evolution_drops_or_refuses_what_is_not_finite():
    make = lambda how: natural_evolution_strategy(lambda x: jnp.nan * x.sum(), population=4, nonfinite=how)  # noqa: E731
    search = SearchDistribution.around(jnp.zeros(2), 1.0)
    value, estimate = jax.jit(lambda s, k: make("drop")(s, key=k))(search, KEY)
    assert np.isnan(value) and not np.asarray(estimate.mean).any() and not np.asarray(estimate.log_radius).any()
    with pytest.raises(RuntimeError, match="fun was not finite at a probe"):
        jax.block_until_ready(eqx.filter_jit(lambda s, k: make("raise")(s, key=k))(search, KEY))


def test_natural_evolution_learns_the_scale_of_each_parameter():
    scales = 10.0 ** jnp.arange(4)
    value_and_grad = natural_evolution_strategy(lambda x: scales @ (x - 1) ** 2, population=20)

    def step(search, key):
        _, estimate = value_and_grad(search, key=key)
        return SearchDistribution(search.mean - estimate.mean, search.log_radius - 0.4 * estimate.log_radius), None

    start = SearchDistribution.around(jnp.zeros(4), 1.0)
    end, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(KEY, 150)))(start)
    np.testing.assert_allclose(end.mean, 1.0, atol=1e-3)
    # In equilibrium σ² is as 1/scale: each step down the list is narrower.
    assert (np.diff(np.asarray(end.log_radius)) < 0).all()


def test_weights_by_rank_sum_to_zero_and_treat_the_worse_half_alike():
    weights = np.asarray(log_ranks(jnp.array([3.0, jnp.nan, -1.0, 5.0, 4.0, 9.0])))
    np.testing.assert_allclose(weights.sum(), 0, atol=1e-5)
    assert weights[1] == weights[5] == weights[3] == 1 and weights[2] < weights[0] < weights[4] < 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: natural_evolution_strategy(bowl, population=7), ValueError, "population must be even to be mirrored, got 7"),
        (lambda: SearchDistribution.around(jnp.ones(2), 0.0), ValueError, "radius must be positive and finite, got 0.0"),
        (
            lambda: natural_evolution_strategy(bowl, population=8)(jnp.ones(2), key=KEY),
            TypeError,
            "params must be a SearchDistribution, got",
        ),
    ],
)
def test_bad_searches_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_unshaped_and_mirrored_it_is_central_differences():
    x = jnp.linspace(-1.0, 1.0, 5)
    ours, theirs = evolution_strategy(bowl, radius=0.1, population=12, shaping=raw_losses), random_directions(bowl, radius=0.1, n_probes=6)
    (value, estimate), (expected_value, expected) = jax.jit(lambda key: (ours(x, key=key), theirs(x, key=key)))(KEY)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    np.testing.assert_allclose(estimate, expected, rtol=1e-4, atol=1e-4)


def test_unbiased_with_the_other_losses_as_baseline():
    x = np.array([0.0, 0.5, 2.0], np.float32)
    spreads = []
    for shaping in (without_mean, raw_losses):
        make = evolution_strategy(bowl, radius=0.3, population=8, mirrored=False, shaping=shaping)
        draws = np.asarray(jax.jit(jax.vmap(lambda k, make=make: make(jnp.asarray(x), key=k)[1]))(jax.random.split(KEY, 8000)))
        assert (abs(draws.mean(0) - 2 * (x - 1)) < SIGMAS * draws.std(0) / math.sqrt(8000)).all()
        spreads.append(draws.std(0).sum())
    assert spreads[0] < spreads[1]


def test_ranks_follow_a_growing_transform_of_the_loss():
    x = jnp.linspace(-1.0, 1.0, 5)
    losses = (bowl, lambda x: jnp.exp(bowl(x) / 5))
    plain, warped = jax.jit(lambda key: [evolution_strategy(f, radius=0.1, population=16)(x, key=key)[1] for f in losses])(KEY)
    assert np.array_equal(plain, warped)


@pytest.mark.parametrize("shaping", [None, standardized, best_half_directions], ids=["ranks", "standardized", "best half"])
def test_minimises_inside_a_scan(shaping):
    value_and_grad, optimizer = evolution_strategy(bowl, radius=0.1, population=32, shaping=shaping), optax.adam(0.1)

    def step(carry, key):
        x, state = carry
        value, estimate = value_and_grad(x, key=key)
        updates, state = optimizer.update(estimate, state)
        return (optax.apply_updates(x, updates), state), value

    start = jnp.full(6, -2.0)
    (x, _), values = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), jax.random.split(KEY, 150)))(start)
    values = np.asarray(values)
    assert bowl(np.asarray(x)) < 1e-2 * bowl(np.asarray(start)) and values[-1] < values[0]


def test_parts_of_a_population_change_nothing():
    x = jnp.linspace(-1.0, 1.0, 5)
    make = lambda size: evolution_strategy(bowl, radius=0.1, population=16, batch_size=size)  # noqa: E731
    whole, parts = jax.jit(lambda key: [make(size)(x, key=key)[1] for size in (None, 3)])(KEY)
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"population": 7}, "population must be even to be mirrored, got 7"),
        ({"population": 1}, "population must be at least 2, got 1"),
        ({"radius": 0.0}, "radius must be positive and finite, got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_populations_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        evolution_strategy(bowl, **({"radius": 0.1, "population": 8} | wrong))


def test_bad_losses_and_parameters_are_refused():
    make = evolution_strategy(lambda x: x, radius=0.1, population=4)
    with pytest.raises(ValueError, match=r"fun must return a scalar, got shape \(3,\)"):
        jax.jit(make)(jnp.ones(3), key=KEY)
    with pytest.raises(TypeError, match="must be real floating point, got int32"):
        make(jnp.arange(3), key=KEY)
    with pytest.raises(TypeError, match="key must be a JAX random key"):
        make(jnp.ones(3), key=3)
    with pytest.raises(ValueError, match=r"shaping must keep the shape \(4,\), got \(\)"):
        jax.jit(evolution_strategy(bowl, radius=0.1, population=4, shaping=jnp.sum))(jnp.ones(3), key=KEY)


# MeZO


def net(params, x):
    for weight, bias in params:
        # A sort is never fused away with the products, so that what inference needs is seen.
        x = x @ weight + bias[None]
        x = jnp.sin(x) + 0.1 * jnp.sort(x, 1)
    return (x**2).mean()


def weights(depth, width=8):
    random = np.random.default_rng(0)
    matrices = random.normal(size=(depth, width, width)) / math.sqrt(width)
    return [(jnp.asarray(matrix, jnp.float32), jnp.full(width, 0.1)) for matrix in matrices]


INPUTS = jnp.asarray(np.random.default_rng(1).normal(size=(4, 8)), jnp.float32)


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_a_step_is_central_spsa(distribution):
    params, x = weights(2), INPUTS
    in_place, apart = (mezo_step(net, learning_rate=0.1, radius=1e-2, in_place=how, distribution=distribution) for how in (True, False))
    value_and_grad = random_directions(net, radius=1e-2, distribution=distribution)
    steps = jax.jit(lambda p, k: (in_place(p, x, key=k), apart(p, x, key=k), value_and_grad(p, x, key=k)))
    *ours, (expected_value, estimate) = steps(params, KEY)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, params, estimate)
    # In place, the second point lies three roundings off, and the difference is divided by the radius.
    for (after, value, slope), tolerance in zip(ours, (1e-4, 1e-6), strict=True):
        jax.tree.map(lambda a, b, t=tolerance: np.testing.assert_allclose(a, b, rtol=t, atol=t), after, expected)
        np.testing.assert_allclose(value, expected_value, rtol=1e-6)
        assert slope.shape == ()


def test_drift_of_the_way_back():
    """θ + hz - 2hz + hz is not θ: in place the parameters wander with the roundings, apart from θ they stay."""
    params = np.random.default_rng(0).normal(size=1000).astype(np.float32)

    def run(in_place):
        step = mezo_step(bowl, learning_rate=0.0, radius=1e-3, in_place=in_place)
        walk = jax.jit(lambda p: jax.lax.scan(lambda p, k: (step(p, key=k).params, None), p, jax.random.split(KEY, 100))[0])
        return abs(np.asarray(walk(params)) - params).max()

    assert run(False) == 0.0
    assert 1e-8 < run(True) < 1e-5


def test_memory_is_that_of_inference_whatever_the_depth():
    key = jax.eval_shape(lambda: jax.random.key(0))
    ratios, temporary = {}, {}
    for depth in (2, 6):
        layer = jax.ShapeDtypeStruct((256, 256), jnp.float32), jax.ShapeDtypeStruct((256,), jnp.float32)
        params = [layer] * depth
        x = jax.ShapeDtypeStruct((128, 256), jnp.float32)
        step = mezo_step(net, learning_rate=1e-3, weight_decay=0.1)
        inference = jax.jit(net).lower(params, x).compile().memory_analysis()
        replayed = jax.jit(lambda p, x, k, step=step: step(p, x, key=k), donate_argnums=0).lower(params, x, key).compile().memory_analysis()
        ratios[depth] = peak(replayed) / peak(inference)
        temporary[depth] = replayed.temp_size_in_bytes
    assert all(ratio <= 1.05 for ratio in ratios.values()), ratios
    assert temporary[6] <= 1.1 * temporary[2], temporary


def peak(memory):
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def test_decay_spares_biases():
    params = [(jnp.ones((2, 2)), jnp.ones(2))]
    still = lambda p: 0.0 * p[0][0].sum()  # noqa: E731
    make = lambda how: mezo_step(still, learning_rate=0.1, weight_decay=0.5, in_place=how)  # noqa: E731
    for after in jax.jit(lambda p, k: [make(how)(p, key=k).params for how in (True, False)])(params, KEY):
        ((weight, bias),) = after
        np.testing.assert_allclose(weight, 0.95, rtol=1e-5)
        np.testing.assert_allclose(bias, 1.0, rtol=1e-5)
    chosen = mezo_step(still, learning_rate=0.1, weight_decay=0.5, decays=lambda p: jax.tree.map(lambda leaf: leaf.ndim == 1, p))
    np.testing.assert_allclose(jax.jit(lambda p, k: chosen(p, key=k).params)(params, KEY)[0][1], 0.95, rtol=1e-5)


def test_keys_and_slopes_are_the_whole_run():
    params, x, keys = weights(2), INPUTS, jax.random.split(KEY, 5)
    step = mezo_step(net, learning_rate=0.05, radius=1e-2, in_place=False)

    def body(p, k):
        p, _, slope = step(p, x, key=k)
        return p, slope

    end, slopes = jax.jit(lambda p: jax.lax.scan(body, p, keys))(params)
    again = jax.jit(lambda p, s: replay_updates(p, keys, s, learning_rate=0.05))(params, slopes)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), end, again)


def test_a_run_along_signs_is_walked_again_along_them():
    keys, settings = jax.random.split(KEY, 1), {"learning_rate": 0.05, "distribution": "rademacher"}
    step = mezo_step(bowl, in_place=False, **settings)

    @jax.jit
    def both(start):
        after, _, slope = step(start, key=keys[0])
        return after, replay_updates(start, keys, slope[None], **settings)

    np.testing.assert_allclose(*both(jnp.linspace(-1.0, 1.0, 5)), rtol=1e-6)


def test_it_descends_with_donated_buffers():
    # Rate below 2/(L (d + 2)), L = 2.
    step = jax.jit(lambda p, k: mezo_step(bowl, learning_rate=0.02, radius=1e-2)(p, key=k), donate_argnums=0)
    params = jnp.zeros(20)
    for key in jax.random.split(KEY, 100):
        params, _, _ = step(params, key)
    assert bowl(np.asarray(params)) < 1.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"radius": 0.0}, "radius must be positive and finite, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"weight_decay": float("nan")}, "weight_decay must be at least 0, got nan"),
    ],
)
def test_bad_settings_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        mezo_step(bowl, **({"learning_rate": 0.1} | wrong))


def test_half_precision_keeps_its_dtype():
    params = jnp.linspace(-1.0, 1.0, 8).astype(jnp.bfloat16)
    step = mezo_step(lambda p: (p.astype(jnp.float32) ** 2).sum(), learning_rate=0.01, radius=0.25)
    assert jax.eval_shape(lambda p, k: step(p, key=k), params, KEY).params.dtype == jnp.bfloat16


def test_integers_and_missing_keys_are_refused():
    step = mezo_step(bowl, learning_rate=0.1)
    with pytest.raises(TypeError, match="the parameter must be real floating point, got int32"):
        step(jnp.arange(3), key=KEY)
    with pytest.raises(TypeError, match="key must be a JAX random key"):
        step(jnp.ones(3), key=None)
    with pytest.raises(ValueError, match="fun must return a scalar"):
        jax.jit(mezo_step(lambda x: x, learning_rate=0.1))(jnp.ones(3), key=KEY)
