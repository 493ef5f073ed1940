"""Perturbed weights, nodes and activities; plasticity; Ornstein–Uhlenbeck adaptation."""

import functools
import math

import diffrax
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.optim import (
    DecorrelatedMLP,
    activity_gradient,
    activity_perturbation,
    decorrelated,
    eligibility_trace,
    hebbian,
    layer_pass,
    node_perturbation,
    oja,
    ornstein_uhlenbeck_adaptation,
    reward_modulated_hebbian,
    weight_perturbation,
)
from gradatim.optim.zeroth_order.probes import draw_probe, probe_seed

KEY = jax.random.key(5)
SIGMAS = 4.5  # of a standard error
mlp = eqx.filter_jit(eqx.nn.MLP)
NET = mlp(4, 3, 6, 2, key=KEY)
INPUTS = jax.random.normal(jax.random.key(6), (10, 4))
TARGETS = jax.random.normal(jax.random.key(7), (10, 3))
ESTIMATORS = {"weight": weight_perturbation, "node": node_perturbation, "activity": activity_perturbation}
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)


def squared(output, target):
    return ((output - target) ** 2).sum() / 2


def batch_loss(net):
    return jax.vmap(squared)(jax.vmap(net)(INPUTS), TARGETS).mean()


def flat(tree):
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))])


@pytest.fixture(scope="module")
def gradient():
    return np.asarray(eqx.filter_jit(lambda net: flat(eqx.filter_grad(batch_loss)(net)))(NET))


@functools.cache
def drawer(estimator, settings):
    """One compiled function of networks and batches for each estimator of the small squared error."""
    value_and_grad = estimator(squared, radius=1e-2, **dict(settings))
    return eqx.filter_jit(lambda net, batch, keys: jax.vmap(lambda key: flat(value_and_grad(net, *batch, key=key)[1]))(keys))


def draws_of(estimator, net, *batch, n=4000, **settings):
    return np.asarray(drawer(estimator, tuple(settings.items()))(net, batch, jax.random.split(KEY, n)))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("one_layer", [False, True])
def test_node_perturbation_is_unbiased(one_layer, gradient):
    draws = draws_of(node_perturbation, NET, INPUTS, TARGETS, one_layer=one_layer)
    error = draws.mean(0) - gradient
    assert (abs(error) <= SIGMAS * draws.std(0) / math.sqrt(len(draws)) + 5e-3).all()


def test_weight_perturbation_is_unbiased(gradient):
    draws = draws_of(weight_perturbation, NET, INPUTS, TARGETS)
    error = draws.mean(0) - gradient
    assert (abs(error) <= SIGMAS * draws.std(0) / math.sqrt(len(draws)) + 5e-2).all()


def test_activity_perturbation_points_downhill(gradient):
    """Where noise passes through layers its mean is not the gradient, but near it."""
    draws = draws_of(activity_perturbation, NET, INPUTS, TARGETS)
    assert cosine(draws.mean(0), gradient) > 0.8


def test_perturbing_one_layer_at_a_time_has_less_variance():
    together, apart = (draws_of(node_perturbation, NET, INPUTS, TARGETS, one_layer=one).var(0).sum() for one in (False, True))
    assert apart < together


def test_second_moments_of_one_linear_layer():
    """One example: E‖NP‖² = (n_out + 2) ‖g‖², E‖WP‖² = (n_out n_in + 2) ‖g‖²."""
    n_in, n_out = 5, 3
    layer = mlp(n_in, n_out, 0, 0, use_final_bias=False, key=KEY)
    x, t = jnp.asarray(np.random.default_rng(0).normal(size=(1, n_in)), jnp.float32), jnp.ones((1, n_out))
    gradient = np.asarray(eqx.filter_jit(lambda net: flat(eqx.filter_grad(lambda net: squared(net(x[0]), t[0]))(net)))(layer))
    for estimator, factor in ((node_perturbation, n_out + 2), (weight_perturbation, n_out * n_in + 2)):
        moments = (draws_of(estimator, layer, x, t, n=40_000) ** 2).sum(1) / (gradient @ gradient)
        assert abs(moments.mean() - factor) <= SIGMAS * moments.std() / math.sqrt(moments.size) + 0.01 * factor


@pytest.mark.parametrize("depth", [0, 2])
def test_activity_perturbation_follows_its_formula(depth):
    """N (ℓ̃ - ℓ) δa/‖δa‖², the norm and N over all layers, δa with what earlier layers passed on; for one layer δa is h ξ."""
    net, x, t, h = mlp(4, 3, 6, depth, key=KEY), INPUTS[:1], TARGETS[:1], 0.1

    @eqx.filter_jit
    def passes(net, key):
        clean = layer_pass(net, x)
        noise = draw_probe(probe_seed(key), clean.pre_activations)
        estimates = [estimator(squared, radius=h)(net, x, t, key=key)[1] for estimator in (activity_perturbation, node_perturbation)]
        return clean, noise, layer_pass(net, x, [h * z for z in noise]), *estimates

    clean, noise, noisy, estimate, node = jax.tree.map(np.asarray, passes(net, KEY))
    moves = [(after - a)[0] for after, a in zip(noisy.pre_activations, clean.pre_activations, strict=True)]
    change = squared(noisy.output[0], np.asarray(t)[0]) - squared(clean.output[0], np.asarray(t)[0])
    weight = sum(move.size for move in moves) * change / sum((move**2).sum() for move in moves)
    for layer, move, seen in zip(estimate.layers, moves, clean.inputs, strict=True):
        np.testing.assert_allclose(layer.bias, weight * move, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(layer.weight, weight * move[:, None] * seen, rtol=1e-3, atol=1e-5)
    if depth == 0:
        np.testing.assert_allclose(moves[0], h * noise[0][0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(estimate.layers[0].weight, 3 / (noise[0] ** 2).sum() * node.layers[0].weight, rtol=1e-3)


def test_measured_moves_give_the_estimate_of_drawn_ones():
    """Noise that only the device knows: two passes are measured, and the estimate is that of the drawn noise that moved them so."""
    value_and_grad = activity_perturbation(squared, radius=1e-2)

    @eqx.filter_jit
    def both(net, key):
        clean = layer_pass(net, INPUTS)
        noise = [1e-2 * z for z in draw_probe(probe_seed(key), clean.pre_activations)]
        noisy = layer_pass(net, INPUTS, noise)
        moves = [after - a for after, a in zip(noisy.pre_activations, clean.pre_activations, strict=True)]
        changes = jax.vmap(squared)(noisy.output, TARGETS) - jax.vmap(squared)(clean.output, TARGETS)
        return flat(activity_gradient(net, clean.inputs, moves, changes)), flat(value_and_grad(net, INPUTS, TARGETS, key=key)[1])

    measured, drawn = both(NET, KEY)
    np.testing.assert_allclose(measured, drawn, rtol=1e-4, atol=1e-6)


def test_an_example_that_nothing_moved_teaches_nothing():
    layer = mlp(2, 1, 0, 0, use_final_bias=False, key=KEY)
    inputs, moves = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[0.5], [0.0]])
    estimate = activity_gradient(layer, [inputs], [moves], jnp.array([0.25, 7.0]))
    np.testing.assert_allclose(estimate.layers[0].weight, [[0.25, 0.5]], rtol=1e-6)


def test_probes_are_averaged():
    """Each with a noise of its own."""
    h, n = 0.1, 3

    @eqx.filter_jit
    def both(net, key):
        clean = layer_pass(net, INPUTS)
        before, alone = jax.vmap(squared)(clean.output, TARGETS), []
        for k in range(n):
            noisy = layer_pass(net, INPUTS, [h * z for z in draw_probe(probe_seed(key), clean.pre_activations, k)])
            moves = [after - a for after, a in zip(noisy.pre_activations, clean.pre_activations, strict=True)]
            alone.append(flat(activity_gradient(net, clean.inputs, moves, jax.vmap(squared)(noisy.output, TARGETS) - before)))
        together = activity_perturbation(squared, radius=h, n_probes=n)
        return flat(together(net, INPUTS, TARGETS, key=key)[1]), jnp.stack(alone)

    together, alone = map(np.asarray, both(NET, KEY))
    assert np.ptp(alone, axis=0).max() > 0.1
    np.testing.assert_allclose(together, alone.mean(0), rtol=1e-3, atol=1e-4)


def test_moves_that_do_not_fit_the_layers_are_refused():
    inputs, moves = [jnp.ones((5, 4)), jnp.ones((5, 6)), jnp.ones((5, 6))], [jnp.ones((5, 6)), jnp.ones((5, 6)), jnp.ones((5, 3))]
    with pytest.raises(ValueError, match=r"moves must have shapes \[\(5, 6\), \(5, 6\), \(5, 3\)\], got \[\(5, 6\)\]"):
        activity_gradient(NET, inputs, moves[:1], jnp.ones(5))
    with pytest.raises(ValueError, match=r"inputs must have shapes \[\(5, 4\)"):
        activity_gradient(NET, moves, moves, jnp.ones(5))


def test_noise_is_each_examples_own():
    """The same example ten times: with one noise for the batch the estimate would be that of one example, with own noise it averages."""
    same = jnp.broadcast_to(INPUTS[:1], INPUTS.shape), jnp.broadcast_to(TARGETS[:1], TARGETS.shape)
    one = draws_of(node_perturbation, NET, INPUTS[:1], TARGETS[:1], one_layer=False).var(0).sum()
    ten = draws_of(node_perturbation, NET, *same, one_layer=False).var(0).sum()
    assert 7 < one / ten < 14
    weight_one, weight_ten = (draws_of(weight_perturbation, NET, *batch).var(0).sum() for batch in ((INPUTS[:1], TARGETS[:1]), same))
    assert 0.8 < weight_one / weight_ten < 1.25


def test_inputs_are_those_of_the_clean_pass():
    _, estimate = eqx.filter_jit(node_perturbation(squared, radius=1e-2))(NET, INPUTS[:1], TARGETS[:1], key=KEY)
    for layer, x in zip(estimate.layers, eqx.filter_jit(layer_pass)(NET, INPUTS[:1]).inputs, strict=True):
        # Rank one, with the clean input as its row space.
        np.testing.assert_allclose(layer.weight, np.outer(layer.bias, x), rtol=1e-5, atol=1e-7)


def test_the_pass_is_the_networks_own():
    passed, decorrelated, own = eqx.filter_jit(
        lambda net, x: (layer_pass(net, x).output, jax.vmap(DecorrelatedMLP(net))(x), jax.vmap(net)(x))
    )(NET, INPUTS)
    np.testing.assert_allclose(passed, own, rtol=1e-6)
    np.testing.assert_allclose(decorrelated, own, rtol=1e-6)


def test_the_pass_mixes_inputs_and_ends_with_the_final_activation():
    net, random = mlp(4, 3, 6, 1, final_activation=jnp.tanh, key=KEY), np.random.default_rng(0)
    mixing = [random.normal(size=(n, n)).astype(np.float32) for n in (4, 6)]
    model = eqx.tree_at(lambda m: m.mixing, DecorrelatedMLP(net), tuple(map(jnp.asarray, mixing)))
    x, expected = np.asarray(INPUTS), None
    for layer, matrix, activation in zip(net.layers, mixing, (lambda a: np.maximum(a, 0), np.tanh), strict=True):
        expected = activation((x @ matrix.T) @ np.asarray(layer.weight).T + np.asarray(layer.bias))
        x = expected
    passed, called = eqx.filter_jit(lambda m: (layer_pass(m, INPUTS).output, jax.vmap(m)(INPUTS)))(model)
    np.testing.assert_allclose(passed, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(called, expected, rtol=1e-4, atol=1e-5)


@every_estimator
def test_value_is_the_clean_loss_and_the_estimate_is_like_the_model(estimator):
    value, estimate = eqx.filter_jit(estimator(squared, n_probes=3))(NET, INPUTS, TARGETS, key=KEY)
    np.testing.assert_allclose(value, eqx.filter_jit(batch_loss)(NET), rtol=1e-5)
    assert jax.tree.structure(estimate) == jax.tree.structure(eqx.filter(NET, eqx.is_inexact_array))


@every_estimator
def test_decorrelated_networks_learn_their_weights_alone(estimator):
    model = eqx.filter_jit(decorrelated)(DecorrelatedMLP(NET), INPUTS, rate=0.01)
    _, estimate = eqx.filter_jit(estimator(squared))(model, INPUTS, TARGETS, key=KEY)
    assert not any(np.asarray(matrix).any() for matrix in estimate.mixing)
    assert all(np.asarray(layer.weight).any() for layer in estimate.mlp.layers)


def test_decorrelation_takes_correlations_away_and_keeps_variances_apart():
    mixing = np.array([[1.0, 0.9, 0, 0], [0, 0.4, 0.3, 0], [0, 0, 1.0, 0], [0.5, 0, 0, 0.6]])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(500, 4)) @ mixing, jnp.float32)
    model = DecorrelatedMLP(NET)
    step, inputs = eqx.filter_jit(lambda m: decorrelated(m, x, rate=0.05)), eqx.filter_jit(lambda m: layer_pass(m, x).inputs[0])

    def correlation(m):
        seen = np.asarray(inputs(m))
        products = seen.T @ seen / len(seen)
        return abs(products - np.diag(np.diag(products))).max()

    before = correlation(model)
    for _ in range(300):
        model = step(model)
    assert correlation(model) < 1e-2 * before
    assert (np.diag(model.mixing[0]) > 0.1).all()


@every_estimator
def test_bad_networks_and_batches_are_refused(estimator):
    value_and_grad = estimator(squared)
    with pytest.raises(ValueError, match="inputs and targets must be of one length, got 10 and 3"):
        value_and_grad(NET, INPUTS, TARGETS[:3], key=KEY)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, features\), got \(4,\)"):
        value_and_grad(NET, INPUTS[0], TARGETS, key=KEY)
    with pytest.raises(ValueError, match=r"fun must return a scalar, got shape \(3,\)"):
        estimator(lambda y, t: y - t)(NET, INPUTS, TARGETS, key=KEY)
    with pytest.raises(ValueError, match=r"radius must be positive and finite, got -0\.1"):
        estimator(squared, radius=-0.1)
    with pytest.raises(ValueError, match="n_probes must be at least 1, got 0"):
        estimator(squared, n_probes=0)
    with pytest.raises(TypeError, match="key must be a JAX random key"):
        value_and_grad(NET, INPUTS, TARGETS, key=None)
    whole = jax.tree.map(lambda leaf: leaf.astype(jnp.int32) if eqx.is_array(leaf) else leaf, NET)
    with pytest.raises(TypeError, match="must be real floating point, got int32"):
        value_and_grad(whole, INPUTS, TARGETS, key=KEY)


@every_estimator
def test_a_loss_that_is_nan_shows(estimator):
    _, estimate = eqx.filter_jit(estimator(lambda y, t: jnp.nan * y.sum()))(NET, INPUTS, TARGETS, key=KEY)
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(estimate))


# plasticity


def test_oja_finds_the_leading_eigenvector_and_hebb_diverges():
    covariance, first, rate = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([0.3, 0.1]), 0.01
    eigenvalues, vectors = np.linalg.eigh(covariance)
    root = np.linalg.cholesky(covariance)
    # The mean change over a cloud of points that has just this covariance.
    cloud = jnp.asarray(np.sqrt(2.0) * np.concatenate([root.T, -root.T]), jnp.float32)

    def walk(rule):
        def step(w, _):
            return w + rate * jax.vmap(lambda x: rule(w, x, w @ x))(cloud).mean(0), None

        return np.asarray(jax.jit(lambda w: jax.lax.scan(step, w, None, length=2000)[0])(jnp.asarray([first], jnp.float32)))

    learnt = walk(oja)[0]
    np.testing.assert_allclose(abs(learnt @ vectors[:, 1]), 1.0, rtol=1e-3)
    grown = walk(lambda w, x, y: hebbian(x, y))[0]
    start = abs(first @ vectors[:, 1])
    np.testing.assert_allclose(np.log(np.linalg.norm(grown) / start), 2000 * np.log1p(rate * eigenvalues[1]), rtol=1e-2)


def test_units_of_oja_share_what_they_explain():
    """y xᵀ - y yᵀ W, with the products of different units."""
    w, x = np.random.default_rng(0).normal(size=(2, 3)), np.array([1.0, -2.0, 0.5])
    y = w @ x
    change = oja(*(jnp.asarray(a, jnp.float32) for a in (w, x, y)))
    np.testing.assert_allclose(change, np.outer(y, x) - np.outer(y, y) @ w, rtol=1e-5)


def test_reward_modulated_learning_follows_the_gradient():
    """A linear Gaussian unit: E ΔW = σ² ∂R/∂W."""
    w, x, sigma, target = jnp.array([[0.5, -1.0]]), jnp.array([1.0, 2.0]), 0.3, 1.0

    def reward(y):
        return -((y - target) ** 2).sum()

    def change(key, baseline):
        xi = sigma * jax.random.normal(key, (1,))
        return reward_modulated_hebbian(x, xi, reward(w @ x + xi), baseline)

    expected = sigma**2 * np.asarray(jax.jit(jax.grad(lambda w: reward(w @ x)))(w))
    changes = jax.jit(jax.vmap(change, (0, None)))
    spreads = []
    for baseline in (0.0, float(reward(w @ x))):
        draws = np.asarray(changes(jax.random.split(KEY, 100_000), baseline))
        assert (abs(draws.mean(0) - expected) <= SIGMAS * draws.std(0) / math.sqrt(len(draws))).all()
        spreads.append(draws.std())
    assert spreads[1] < spreads[0]


@hypothesis.given(st.floats(0, 0.99), st.integers(1, 20))
@hypothesis.settings(max_examples=20)
def test_traces_decay(decay, n):
    trace, one = jnp.zeros((1, 1)), jnp.ones(1)
    for _ in range(n):
        trace = eligibility_trace(trace, one, one, decay=decay)
    np.testing.assert_allclose(trace, (1 - decay**n) / (1 - decay), rtol=1e-4)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_bad_decays_are_refused(decay):
    with pytest.raises(ValueError, match=rf"decay must lie in \[0, 1\), got {decay}"):
        eligibility_trace(jnp.zeros((1, 1)), jnp.ones(1), jnp.ones(1), decay=decay)


# Ornstein–Uhlenbeck adaptation


def adapt(reward, start, keys, **settings):
    return jax.jit(jax.vmap(lambda key: ornstein_uhlenbeck_adaptation(reward, start, key=key, **settings)))(keys)


def test_without_learning_it_is_an_ornstein_uhlenbeck_process():
    """θ has mean μ + (θ₀ - μ) e^(-λt) and variance σ² (1 - e^(-2λt))/(2λ); λ dt = 0.01 of discretisation."""
    n, rate, sigma, dt = 4000, 2.0, 0.5, 0.005
    settings = {"duration": 1.0, "dt": dt, "noise": sigma, "reversion_rate": rate, "learning_rate": 0.0, "n_saved": 4}
    found = adapt(lambda t, x: x.sum(), jnp.array([0.7]), jax.random.split(KEY, n), **settings)
    theta, times = np.asarray(found.parameters)[..., 0], np.asarray(found.times)[0]
    variance = sigma**2 * (1 - np.exp(-2 * rate * times)) / (2 * rate)
    np.testing.assert_allclose(theta.var(0)[1:], variance[1:], rtol=SIGMAS * math.sqrt(2 / n) + rate * dt)
    assert (abs(theta.mean(0) - 0.7)[1:] <= SIGMAS * np.sqrt(variance[1:] / n)).all()
    assert (np.asarray(found.means) == np.float32(0.7)).all()


def test_means_learn_at_the_stated_rate():
    """Linear reward cθ with the mean held: E[dμ/dt] = η c σ²/(2 (λ + ε)) = 0.125."""
    # So slow a mean that it is held; its drift over the time tells the rate.
    n, slow = 2000, 1e-3
    settings = {"duration": 30.0, "dt": 0.02, "noise": 0.5, "learning_rate": slow, "first_reward_average": 0.0, "n_saved": 2}
    found = adapt(lambda t, x: 2 * x[0], jnp.zeros(1), jax.random.split(KEY, n), **settings)
    means = np.asarray(found.means)
    rates = (means[:, 2, 0] - means[:, 1, 0]) / 15.0 / slow
    assert abs(rates.mean() - 0.125) <= SIGMAS * rates.std() / math.sqrt(n) + 0.01 * 0.125


def test_without_noise_nothing_is_learnt():
    settings = {"duration": 5.0, "noise": 0.0}
    found = jax.jit(lambda key: ornstein_uhlenbeck_adaptation(lambda t, x: -((x[0] - 1) ** 2), jnp.zeros(1), key=key, **settings))(KEY)
    assert not np.asarray(found.means).any() and not np.asarray(found.parameters).any()
    np.testing.assert_allclose(np.asarray(found.cumulative_reward)[-1], -5.0, rtol=1e-4)


def test_expectations_follow_a_reward_that_changes_at_their_own_rate():
    """r = t without noise: r̄ and ∫ r dt by Euler's steps, as which the solver takes the drift."""
    settings = {"duration": 1.003, "dt": 0.01, "noise": 0.0, "reward_rate": 3.0, "first_reward_average": 0.0, "n_saved": 2}
    found = jax.jit(lambda key: ornstein_uhlenbeck_adaptation(lambda t, x: t, jnp.zeros(1), key=key, **settings))(KEY)
    average, total, expected = 0.0, 0.0, [(0.0, 0.0, 0.0)]
    for k in range(100):
        average, total = average + 0.01 * 3.0 * (0.01 * k - average), total + 0.01 * 0.01 * k
        if k in (49, 99):
            expected.append((0.01 * (k + 1), average, total))
    for array, column in zip((found.times, found.reward_average, found.cumulative_reward), np.transpose(expected), strict=True):
        np.testing.assert_allclose(array, column, rtol=1e-4)


def test_solvers_agree_where_noise_is_additive():
    settings = {"duration": 2.0, "dt": 0.01, "n_saved": 2}
    reward = lambda t, x: -((x[0] - 1) ** 2)  # noqa: E731
    solve = lambda solver, key: ornstein_uhlenbeck_adaptation(reward, jnp.zeros(1), key=key, solver=solver, **settings)  # noqa: E731
    heun, euler = jax.jit(lambda key: [solve(solver, key) for solver in (None, diffrax.Euler())])(KEY)
    np.testing.assert_allclose(heun.means, euler.means, atol=1e-5)


def test_adaptation_can_be_differentiated_forwards():
    def last(start):
        return ornstein_uhlenbeck_adaptation(lambda t, x: -(x[0] ** 2), start, key=KEY, duration=1.0, n_saved=1).means[-1, 0]

    both = jax.jit(lambda start: jax.jvp(last, (start,), (jnp.ones(1),)))
    (before, _), (_, slope), (after, _) = (both(jnp.array([start])) for start in (0.99, 1.0, 1.01))
    np.testing.assert_allclose(slope, (after - before) / 0.02, rtol=1e-2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dt": 0.0}, "dt must be positive and finite, got 0.0"),
        ({"duration": -1.0}, "duration must be positive and finite, got -1.0"),
        ({"duration": 0.01}, "duration must be at least one step of 0.05, got 0.01"),
        ({"noise": -0.5}, "noise must be at least 0 and finite, got -0.5"),
        ({"reversion_rate": float("nan")}, "reversion_rate must be at least 0 and finite, got nan"),
        ({"n_saved": 0}, "n_saved must be at least 1, got 0"),
    ],
)
def test_bad_numbers_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ornstein_uhlenbeck_adaptation(lambda t, x: x.sum(), jnp.zeros(1), key=KEY, **({"duration": 1.0} | wrong))


def test_a_reward_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"reward must return a scalar, got shape \(1,\)"):
        ornstein_uhlenbeck_adaptation(lambda t, x: x, jnp.zeros(1), key=KEY, duration=1.0)
