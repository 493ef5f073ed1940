import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import Convolution, layer_indices
from gradatim.numerics import dual_norm, sharp
from gradatim.optim import (
    drop_layers,
    drop_muon,
    drop_step,
    every_layer,
    muon,
    starts_from_marginals,
    switched_step,
    truncated_value_and_grad,
    uniform_starts,
)

ROUND_OFF = 1e-5
LAYERS = {"a": {"w": 1, "b": 1}, "c": 2, "d": 3}
DECAYING = {"weight_decay": 0.1, "adam_learning_rate": 1e-2}


class Net(eqx.Module):
    """Three convolutions and a read-out that is in no layer."""

    convolutions: list
    readout: eqx.nn.Linear

    def __init__(self, key, widths=(4, 6, 8)):
        keys = jax.random.split(key, len(widths) + 1)
        self.convolutions = [Convolution(n, m, key=k) for n, m, k in zip((1, *widths), widths, keys, strict=False)]
        self.readout = eqx.nn.Linear(widths[-1], 3, key=keys[-1])

    def __call__(self, image):
        for convolution in self.convolutions:
            image = jax.nn.relu(convolution(image))
        return self.readout(image.mean((0, 1)))


def loss_of(net, images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(images), labels).mean()


@pytest.fixture(scope="module")
def problem():
    net = eqx.filter_jit(Net)(jax.random.key(0))
    images = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8, 8, 1)), jnp.float32)
    return net, layer_indices(net, net.convolutions), (images, jnp.asarray(np.arange(16) % 3))


def _numbers(params):
    return jax.tree.map(lambda leaf: optax.contrib.MuonDimensionNumbers((0, 1, 2), 3) if leaf.ndim == 4 else None, params)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def params_of():
    return {"a": {"w": normal(0, 5, 3), "b": normal(1, 3)}, "c": normal(2, 3, 4), "d": normal(3, 4, 4)}


def trajectory(optimizer, params, steps=4, **extra):
    def step(carry, i):
        params, state = carry
        updates, state = optimizer.update(jax.tree.map(lambda p: jnp.sin(3 * p + i), params), state, params, **extra)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    return jax.jit(lambda params: jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(float(steps))))(params)


@pytest.mark.parametrize("rate", [0.05, optax.linear_schedule(0.1, 0.0, 4)], ids=["constant", "schedule"])
def test_o3_every_layer_is_optax_muon(rate):
    ours = drop_muon(rate, LAYERS, nesterov=True, weight_decay=0.1)
    theirs = optax.contrib.muon(rate, weight_decay=0.1)
    expected = trajectory(theirs, params_of())[1]
    for extra in ({}, {"active": every_layer(3).variants[0]}):
        path = trajectory(ours, params_of(), **extra)[1]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), path, expected)


def test_o6_layers_left_alone_keep_every_bit():
    optimizer = drop_muon(0.1, LAYERS, **DECAYING)
    params = params_of()
    (params, state), _ = trajectory(optimizer, params, steps=2)
    updates, after = jax.jit(lambda p, s: optimizer.update(p, s, p, active=(False, True, True)))(params, state)
    moved = optax.apply_updates(params, updates)
    assert jax.tree.all(jax.tree.map(np.array_equal, (moved["a"], after.layers[0]), (params["a"], state.layers[0])))
    assert not np.array_equal(moved["c"], params["c"]) and not np.array_equal(moved["d"], params["d"])
    assert [int(layer.count) for layer in after.layers] == [2, 3, 3, 3] and int(after.count) == 3


def test_o6_momentum_of_a_layer_is_that_of_its_own_gradients():
    optimizer = drop_muon(0.0, {"a": 1, "b": 2}, beta=0.75, adam_learning_rate=0.0)
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((2, 2))}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update, static_argnames="active")
    for k, active in enumerate([(True, True), (False, True), (True, True)]):
        _, state = update(jax.tree.map(lambda p, k=k: np.full(p.shape, k + 1, np.float32), params), state, params, active=active)
    momenta = [next(leaf for leaf in jax.tree.leaves(layer) if leaf.ndim == 2) for layer in state.layers[:2]]
    # β is the weight of the old momentum.
    np.testing.assert_allclose(momenta[0], 0.75 * (0.25 * 1) + 0.25 * 3, rtol=ROUND_OFF)
    np.testing.assert_allclose(momenta[1], 0.75 * (0.75 * (0.25 * 1) + 0.25 * 2) + 0.25 * 3, rtol=ROUND_OFF)


def test_trap_bias_correction_counts_the_steps_of_the_layer():
    """A vector, which Adam moves, left alone for two steps: its first step is as long as the rate, as any first step of Adam's is."""
    optimizer = drop_muon(0.1, {"a": 1, "b": 2}, adam_learning_rate=0.01)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state, gradient = optimizer.init(params), {"a": jnp.array([3.0, -0.2]), "b": jnp.ones(2)}
    update = jax.jit(optimizer.update, static_argnames="active")
    for active in [(False, True), (False, True), (True, True)]:
        updates, state = update(gradient, state, params, active=active)
    np.testing.assert_allclose(updates["a"], [-0.01, 0.01], rtol=1e-4)


def test_trap_residual_blocks_pass_gradients_on_to_the_blocks_before():
    """Blocks are layers: the gradient of one from which back-propagation starts goes through all later ones, and no further."""
    params = {name: 0.5 * np.asarray(normal(i, 3, 3)) for i, name in enumerate("abc")}
    params, layers, x = jax.tree.map(jnp.asarray, params), {"a": 1, "b": 2, "c": 3}, normal(4, 5, 3)

    def loss(params, x):
        for name in "abc":
            x = x + jnp.tanh(x @ params[name])
        return (x**2).sum()

    variants = uniform_starts(3).variants
    whole, *parts = jax.jit(
        lambda p, x: [jax.grad(loss)(p, x), *(truncated_value_and_grad(loss, layers, active)(p, x)[1] for active in variants)]
    )(params, x)
    for active, part in zip(variants, parts, strict=True):
        for name, is_active in zip("abc", active, strict=True):
            assert np.allclose(part[name], whole[name], rtol=ROUND_OFF) if is_active else part[name] is None


def test_o7_truncated_gradient_is_the_full_one_on_the_suffix(problem):
    net, layers, batch = problem
    full = eqx.filter_jit(eqx.filter_value_and_grad(loss_of))(net, *batch)
    for active in uniform_starts(3).variants:
        value, gradient = eqx.filter_jit(truncated_value_and_grad(loss_of, layers, active))(net, *batch)
        assert np.allclose(value, full[0], rtol=1e-6)
        for is_active, ours, theirs in zip(active, gradient.convolutions, full[1].convolutions, strict=True):
            assert np.allclose(ours.weight, theirs.weight, atol=1e-6) if is_active else ours.weight is None
        assert np.allclose(gradient.readout.weight, full[1].readout.weight, atol=1e-6)


def test_o7_compiled_operations_fall_with_the_start(problem):
    net, layers, batch = problem
    optimizer = drop_muon(0.05, layers, muon_weight_dimension_numbers=_numbers)
    state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))
    flops = []
    for active in uniform_starts(3).variants:
        lowered = eqx.filter_jit(drop_step(loss_of, optimizer, layers, active)).lower(net, state, *batch)
        flops.append(lowered.compile().compiled.cost_analysis()["flops"])
    # Masking a full gradient would leave it as it is. The first layer, with one channel of input, is cheap.
    assert flops[1] < 0.9 * flops[0] and flops[2] < 0.7 * flops[1], flops


def test_a_step_leaves_what_is_below_its_start_alone(problem):
    net, layers, batch = problem
    optimizer = drop_muon(0.05, layers, muon_weight_dimension_numbers=_numbers, weight_decay=0.1)
    state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))
    after, moved, value = eqx.filter_jit(drop_step(loss_of, optimizer, layers, (False, False, True)))(net, state, *batch)
    unchanged = [np.array_equal(a.weight, b.weight) for a, b in zip(after.convolutions, net.convolutions, strict=True)]
    assert unchanged == [True, True, False] and not np.array_equal(after.readout.weight, net.readout.weight)
    assert np.isfinite(value) and jax.tree.structure(moved) == jax.tree.structure(state)
    assert jax.tree.all(jax.tree.map(np.array_equal, moved.layers[:2], state.layers[:2]))


def test_switched_step_is_the_chosen_step():
    params = params_of()

    def loss(params, x):
        return (jnp.tanh(x @ params["a"]["w"] + params["a"]["b"][None]) @ params["c"] @ params["d"]).var()

    optimizer = drop_muon(0.05, LAYERS)
    variants = uniform_starts(3).variants
    x = normal(4, 7, 5)
    switched = eqx.filter_jit(switched_step(loss, optimizer, LAYERS, variants))
    for number in (0, 2):
        chosen = eqx.filter_jit(drop_step(loss, optimizer, LAYERS, variants[number]))(params, optimizer.init(params), x)
        other = switched(params, optimizer.init(params), jnp.asarray(number), x)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=ROUND_OFF, atol=1e-6), chosen, other)


def quadratic(constants, targets):
    return lambda params: sum(c / 2 * ((params[k] - targets[k]) ** 2).sum() for k, c in constants.items())


def test_o1_a_quadratic_layer_is_solved_the_first_time_it_is_updated():
    constants = {"a": 1.0, "b": 4.0, "c": 2.0}
    layers, targets = {"a": 1, "b": 2, "c": 3}, {k: np.full((2, 3), c, np.float32) for k, c in constants.items()}
    solve = optax.stateless(lambda g, _: {k: None if g[k] is None else -g[k] / constants[k] for k in g})
    optimizer = drop_layers(lambda rate, _: solve, 1.0, layers)
    params = {k: jnp.zeros((2, 3)) for k in constants}
    state = optimizer.init(params)
    gradient = jax.jit(jax.grad(quadratic(constants, targets)))
    solved = []
    for active in [(False, False, True), (False, True, True), (True, True, True)]:
        updates, state = optimizer.update(gradient(params), state, params, active=active)
        params = optax.apply_updates(params, updates)
        solved.append([np.allclose(params[k], targets[k], atol=1e-6) for k in constants])
    assert solved == [[False, False, True], [False, True, True], [True, True, True]]


def test_o1_everything_is_solved_at_the_first_start_at_one():
    sampler = uniform_starts(4)
    chains = np.asarray(jax.jit(jax.vmap(lambda key: sampler.draw(key, 80)))(jax.random.split(jax.random.key(0), 4000)))
    first = (chains == 0).argmax(1) + 1
    assert abs(first.mean() - 4) < 4 * np.sqrt(12 / 4000)


@pytest.mark.parametrize("norm", ["frobenius", "spectral", "sign"])
def test_o2_expected_descent(norm):
    """With equality: a step along U Vᵀ, or along the signs, is as long in the Frobenius norm as its own norm allows."""
    p, curvatures = np.array([0.25, 0.5, 1.0]), np.array([1.0, 4.0, 2.0])
    sampler = starts_from_marginals(jnp.asarray(p))
    wider = {"frobenius": 1.0, "spectral": 3.0, "sign": 12.0}[norm]
    x = np.random.default_rng(0).normal(size=(3, 4, 3))
    value = lambda x: (curvatures * (x**2).sum((1, 2))).sum() / 2  # noqa: E731
    gradient = jnp.asarray(curvatures[:, None, None] * x, jnp.float32)
    steps = np.asarray(sharp(gradient, norm, method="svd")) / (wider * curvatures)[:, None, None]
    after = np.stack([value(x - np.asarray(active)[:, None, None] * steps) for active in sampler.variants])
    bound = value(x) - (p * np.asarray(dual_norm(gradient, norm, method="svd")) ** 2 / (2 * wider * curvatures)).sum()
    mean = np.asarray(sampler.probabilities()) @ after
    assert np.allclose(value(x) - mean, value(x) - bound, rtol=1e-4)


def test_schedules_count_all_steps_or_those_of_the_layer():
    rate = lambda count: jnp.where(count == 0, 0.0, 1.0)  # noqa: E731
    moved = {}
    for by in ("step", "layer"):
        optimizer = drop_layers(lambda rate, _: optax.sgd(rate), rate, {"a": 1, "b": 2}, schedule_by=by)
        params = {"a": jnp.zeros(()), "b": jnp.zeros(())}
        state = optimizer.init(params)
        for active in [(False, True), (True, True)]:
            updates, state = optimizer.update({"a": jnp.ones(()), "b": jnp.ones(())}, state, params, active=active)
        moved[by] = updates
    assert moved == {"step": {"a": -1, "b": -1}, "layer": {"a": 0, "b": -1}}


def test_zero_gradients_and_not_a_number():
    optimizer = drop_muon(0.1, LAYERS)
    params = params_of()
    zero = optax.tree.zeros_like(params)
    updates, state = jax.jit(lambda g, s, p: optimizer.update(g, s, p, active=(True, True, True)))(zero, optimizer.init(params), params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
    bad = zero | {"c": jnp.asarray(np.where(np.arange(12).reshape(3, 4) == 0, np.nan, 0), jnp.float32)}
    updates, after = jax.jit(lambda g, s, p: optimizer.update(g, s, p, active=(False, False, True)))(bad, state, params)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
    assert jax.tree.all(jax.tree.map(lambda leaf: np.isfinite(leaf).all(), after))


def test_half_precision_keeps_its_dtype():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params_of())
    (after, state), _ = trajectory(drop_muon(0.1, LAYERS, weight_decay=0.1), params, steps=2, active=(False, True, True))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim} == {jnp.dtype("bfloat16")}


def test_bad_layers_and_rates():
    params = params_of()
    with pytest.raises(ValueError, match="must not leave a gap, got no parameter in layer 2 of 3"):
        drop_muon(0.1, {"a": 1, "c": 3, "d": 3})
    with pytest.raises(ValueError, match="at least one layer, got none"):
        drop_muon(0.1, {"a": None, "c": None, "d": None})
    with pytest.raises(ValueError, match=r"learning_rate must be at least 0, got -0\.1"):
        drop_muon(-0.1, LAYERS)
    with pytest.raises(ValueError, match="learning_rate times weight_decay must be at most 1"):
        drop_muon(0.5, LAYERS, weight_decay=3.0)
    with pytest.raises(ValueError, match="schedule_by must be 'step' or 'layer', got 'epoch'"):
        drop_muon(0.1, LAYERS, schedule_by="epoch")
    matrices = jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(), params)
    with pytest.raises(ValueError, match=r"parameter \['a'\]\['b'\] of shape \(3,\) is no matrix"):
        drop_muon(0.1, LAYERS, muon_weight_dimension_numbers=matrices).init(params)
    with pytest.raises(TypeError, match=r"parameter \['c'\] must be real or complex floating point, got int32"):
        drop_muon(0.1, LAYERS).init(params | {"c": jnp.ones((2, 2), jnp.int32)})


def test_bad_active():
    optimizer, params = drop_muon(0.1, LAYERS), params_of()
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="active must have one entry for each of 3 layers, got 2"):
        optimizer.update(params, state, params, active=(True, True))
    with pytest.raises(TypeError, match=r"known before compilation.*: draw it outside, or take switched_step"):
        jax.jit(lambda active: optimizer.update(params, state, params, active=active))(jnp.array([True, True, True]))


def test_optimiser_state_shares_no_buffer():
    state = drop_muon(0.1, LAYERS).init(params_of())
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers)


def test_a_wrapper_of_muon_alone_computes_the_same_as_layers_together():
    optimizers = muon(0.1), drop_muon(0.1, LAYERS, nesterov=True)
    one, each = jax.jit(lambda p: [optimizer.update(p, optimizer.init(p), p)[0] for optimizer in optimizers])(params_of())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=ROUND_OFF, atol=1e-6), one, each)


@pytest.mark.parametrize("options", [{}, {"adaptive": True}, {"consistent_rms": 0.2}], ids=["none", "adaptive", "consistent rms"])
def test_options_are_those_of_muon(options):
    optimizers = muon(0.1, nesterov=False, **options), drop_muon(0.1, LAYERS, **options)
    one, each = jax.jit(lambda p: [optimizer.update(p, optimizer.init(p), p)[0] for optimizer in optimizers])(params_of())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, each)


def test_momentum_is_stored_as_it_is_told_to():
    state = drop_muon(0.1, LAYERS, mu_dtype=jnp.bfloat16).init(params_of())
    assert [str(leaf.dtype) for leaf in jax.tree.leaves(state)].count("bfloat16") == 4


def test_rates_of_adam_follow_their_own_schedule():
    """A constant gradient, under which every step of Adam's is as long as its rate."""
    optimizer = drop_muon(0.5, {"a": 1, "b": 2}, adam_learning_rate=lambda count: 0.1 / (1 + count))
    params, lengths = {"a": jnp.zeros(2), "b": jnp.zeros(2)}, []
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(3):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        lengths.append(-np.asarray(updates["a"])[0])
    np.testing.assert_allclose(lengths, [0.1, 0.05, 0.1 / 3], rtol=1e-4)


def test_further_arguments_go_to_the_optimiser_of_every_layer():
    scaled = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(), lambda g, state, params=None, *, factor: (jax.tree.map(lambda x: factor * x, g), state)
    )
    params = {"a": jnp.array(1.0), "b": jnp.array(2.0)}
    optimizer = drop_layers(lambda rate, _: scaled, 0.1, {"a": 1, "b": None})
    updates, _ = optimizer.update(params, optimizer.init(params), params, factor=3.0)
    assert updates == {"a": 3.0, "b": 6.0}
