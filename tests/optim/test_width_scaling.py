import math

import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.nets import label_by_growth
from gradatim.optim import (
    WidthScaling,
    adamw_by_label,
    relaxation_steps,
    steady_state_rms,
    width_adamw,
)

EXACT = 1e-12  # double precision on the host
RULES = (WidthScaling.square_root_decay, WidthScaling.constant_decay, WidthScaling.independent_decay)
N_SEEDS = 3


@pytest.fixture(scope="module")
def noise_walk():
    """Mean square of a width x width matrix under AdamW fed with noise, after every step: `(seed, step)`, and the last matrix."""

    @eqx.filter_jit
    def walk(key, optimizer, width, steps, scale=1.0):
        def step(carry, key):
            w, state = carry
            updates, state = optimizer.update(scale * jax.random.normal(key, w.shape), state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), jnp.mean(w**2)

        def run(key):
            w = jnp.zeros((width, width))
            (w, _), squares = jax.lax.scan(step, (w, optimizer.init(w)), jax.random.split(key, steps))
            return w, squares

        return jax.vmap(run)(jax.random.split(key, N_SEEDS))

    return walk


def adamw(rate, decay, **settings):
    return adamw_by_label({"matrix": (rate, decay)}, lambda _: "matrix", **settings)


@pytest.mark.parametrize(("rate", "decay"), [(0.01, 0.4), pytest.param(0.02, 0.2, marks=pytest.mark.laptop)])
def test_o1_noise_settles_at_the_root_of_rate_over_twice_the_decay(noise_walk, rate, decay):
    width, steps = 96, round(6 / (rate * decay))
    w, squares = noise_walk(jax.random.key(0), adamw(rate, decay), width, steps)
    rms = np.sqrt(np.mean(np.asarray(squares)[:, steps // 2 :], axis=1))
    assert (abs(rms / steady_state_rms(rate, decay) - 0.985) < 0.035).all(), rms
    # The mean of seeds: a single one fluctuates by 0.4 width^(-2/3), 2 %, about 1 - 0.4 width^(-2/3) (Tracy and Widom).
    ratio = np.mean(np.linalg.svd(w, compute_uv=False)[:, 0] / (2 * math.sqrt(width) * rms))
    assert 0.94 <= ratio <= 1.04


def test_o2_relaxation_from_zero(noise_walk):
    # b₂ near 1: otherwise √v̂ follows the very gradients that it divides, and the level lies a few per cent low.
    rate, decay = 0.02, 0.1
    shrink = rate * decay
    _, squares = noise_walk(jax.random.key(1), adamw(rate, decay, b1=0.5, b2=0.999), 64, round(2 / shrink))
    for fraction in (0.25, 0.5, 1.0, 2.0):
        step = round(fraction / shrink)
        expected = steady_state_rms(rate, decay) ** 2 * -math.expm1(-2 * shrink * step)
        np.testing.assert_allclose(np.mean(np.asarray(squares)[:, step - 1]), expected, rtol=0.05)


def test_o2_relaxation_steps_are_where_the_tolerance_is_met():
    for tolerance in (0.05, 0.5):
        steps = relaxation_steps(0.01, 0.5, tolerance=tolerance)
        assert math.exp(-2 * 0.005 * steps) <= tolerance < math.exp(-2 * 0.005 * (steps - 1))
    assert relaxation_steps(0.01, 0.5) == pytest.approx(1.5 / 0.005, rel=0.01)


def test_o3_constant_gradient_ends_at_the_inverse_decay():
    optimizer, gradient = adamw(0.02, 2.0), jnp.array([[3.0, -1e-3], [-7.0, 0.5]])

    def step(_, carry):
        w, state = carry
        updates, state = optimizer.update(gradient, state, w)
        return optax.apply_updates(w, updates), state

    w, _ = jax.jit(lambda w: jax.lax.fori_loop(0, 600, step, (w, optimizer.init(w))))(jnp.zeros((2, 2)))
    np.testing.assert_allclose(w, -np.sign(gradient) / 2.0, rtol=1e-4)


def test_o4_the_table():
    scaled = WidthScaling(256, 2048).scale(4e-3, 0.1)
    assert scaled["matrix"] == pytest.approx((5e-4, 0.282842712474619), rel=EXACT)
    assert scaled["vector"] == scaled["output"] == (4e-3, 0.0)
    assert WidthScaling(256, 2048).output_multiplier == 1 / 8
    assert WidthScaling(256, 2048, vector_decay=0.05).scale(4e-3, 0.1)["vector"] == (4e-3, 0.05)
    own = WidthScaling(256, 2048).scale(4e-3, 0.1, vector_learning_rate=1e-2)
    assert own["vector"].learning_rate == 1e-2 and own["matrix"] == scaled["matrix"]
    growing = WidthScaling(64, 256, vector_rate_exponent=0.5).scale(0.1, 0.2)
    assert growing["vector"] == growing["output"] == pytest.approx((0.2, 0.0), rel=EXACT)


@pytest.mark.parametrize("rule", RULES)
def test_o4_equal_widths_change_nothing(rule):
    assert rule(64, 64).scale(0.01, 0.3)["matrix"] == (0.01, 0.3)


@pytest.mark.parametrize("rule", RULES)
def test_o4_scalings_compose(rule):
    at_once = rule(256, 1024).scale(4e-3, 0.1)["matrix"]
    in_two = rule(512, 1024).scale(*rule(256, 512).scale(4e-3, 0.1)["matrix"])["matrix"]
    assert at_once == pytest.approx(in_two, rel=EXACT)


@hypothesis.given(st.integers(1, 4096), st.integers(1, 4096), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0))
def test_o5_the_predicted_top_singular_value_is_the_same_at_every_width(base, width, rate, decay):
    scaled = WidthScaling.square_root_decay(base, width).scale(rate, decay)["matrix"]
    predicted = (scaled.learning_rate / scaled.weight_decay) ** 0.5 * width**0.75
    assert predicted == pytest.approx((rate / decay) ** 0.5 * base**0.75, rel=EXACT)


def test_trap_decay_proportional_to_width_is_another_rule():
    root, independent = WidthScaling.square_root_decay(64, 256), WidthScaling.independent_decay(64, 256)
    assert root.scale(0.01, 0.1)["matrix"].weight_decay == pytest.approx(0.2)
    assert independent.scale(0.01, 0.1)["matrix"].weight_decay == pytest.approx(0.4)
    rate, decay = independent.scale(0.01, 0.1)["matrix"]
    assert rate * decay == pytest.approx(0.01 * 0.1)


def test_o9_all_matrices_at_one_width_is_adamw_to_the_bit():
    random = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)  # noqa: E731
    params = {"a": normal(4, 3), "b": [normal(3, 3)]}
    labels = {"a": "matrix", "b": ["matrix"]}
    ours, theirs = width_adamw(WidthScaling(64, 64), 0.01, 0.3, labels), optax.adamw(0.01, b2=0.95, weight_decay=0.3)
    ours_state, theirs_state, p, q = ours.init(params), theirs.init(params), params, params
    for _ in range(4):
        gradient = jax.tree.map(lambda p: normal(*p.shape), params)
        updates, ours_state = ours.update(gradient, ours_state, p)
        p = optax.apply_updates(p, updates)
        updates, theirs_state = theirs.update(gradient, theirs_state, q)
        q = optax.apply_updates(q, updates)
    assert jax.tree.all(jax.tree.map(np.array_equal, p, q))


def test_settings_reach_the_adam_of_every_class():
    params = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.array([0.1, -0.2])}
    settings = {"b1": 0.8, "b2": 0.7, "eps": 0.3}
    ours = width_adamw(WidthScaling(64, 128), 0.1, 0.2, {"w": "matrix", "b": "vector"}, vector_learning_rate=0.03, **settings)
    theirs = {"w": optax.adamw(0.05, weight_decay=0.2 * 2**0.5, **settings), "b": optax.adam(0.03, **settings)}

    @jax.jit
    def second_steps(params):
        found = {}
        for name, optimizer, p in [("ours", ours, params), *((name, theirs[name], params[name]) for name in theirs)]:
            _, state = optimizer.update(p, optimizer.init(p), p)
            found[name] = optimizer.update(jax.tree.map(jnp.sin, p), state, p)[0]
        return found

    steps = second_steps(params)
    for name in theirs:
        np.testing.assert_allclose(steps["ours"][name], steps[name], rtol=1e-6)


def test_trap_vectors_and_output_do_not_decay():
    params = {"w": jnp.ones((2, 2)), "gain": jnp.ones(2), "embedding": jnp.ones((3, 2)), "readout": jnp.ones((3, 2))}
    labels = {"w": "matrix", "gain": "vector", "embedding": "vector", "readout": "output"}
    optimizer = width_adamw(WidthScaling(64, 128), 0.1, 0.2, labels)
    updates, _ = jax.jit(lambda p: optimizer.update(optax.tree.zeros_like(p), optimizer.init(p), p))(params)
    np.testing.assert_allclose(updates["w"], -0.05 * 0.2 * 2**0.5, rtol=1e-6)
    assert not any(np.asarray(updates[name]).any() for name in ("gain", "embedding", "readout"))


def test_trap_decay_follows_the_current_rate():
    params = {"w": jnp.ones((2, 2))}
    optimizer = width_adamw(WidthScaling(64, 256), lambda count: 0.1 / (1 + count), 0.2, {"w": "matrix"})
    state, steps, update = optimizer.init(params), [], jax.jit(optimizer.update)
    for _ in range(2):
        updates, state = update({"w": np.zeros((2, 2), np.float32)}, state, params)
        steps.append(np.asarray(updates["w"])[0, 0])
    np.testing.assert_allclose(steps, [-0.025 * 0.4, -0.0125 * 0.4], rtol=1e-6)


def test_trap_coupled_decay_has_no_such_law(noise_walk):
    """The level under AdamW does not know the size of gradients; with L2 in the gradient it does."""

    def level(optimizer, scale):
        _, squares = noise_walk(jax.random.key(0), optimizer, 16, 1500, jnp.asarray(scale))
        return float(np.asarray(squares)[:, 750:].mean()) ** 0.5

    decoupled, coupled = adamw(0.02, 0.4), optax.chain(optax.add_decayed_weights(0.4), optax.adam(0.02, b2=0.95))
    assert level(decoupled, 100.0) == pytest.approx(level(decoupled, 1.0), rel=1e-3)
    assert level(coupled, 0.1) < 0.5 * level(coupled, 1.0)


def test_equinox_models_by_growth(getkey):
    small, large = (eqx.filter_jit(eqx.nn.MLP)(3, 2, width, 2, key=getkey()) for width in (8, 16))
    params = eqx.filter(small, eqx.is_inexact_array)
    optimizer = width_adamw(WidthScaling(4, 8), 0.1, 0.1, label_by_growth(small, large))
    updates, _ = jax.jit(lambda p: optimizer.update(p, optimizer.init(p), p))(params)
    np.testing.assert_allclose(np.abs(updates.layers[0].weight), 0.1, rtol=1e-3)  # only its outputs grow
    weight = np.asarray(params.layers[1].weight)
    np.testing.assert_allclose(updates.layers[1].weight, -0.05 * (np.sign(weight) + 0.1 * 2**0.5 * weight), rtol=1e-3)


def test_rates_may_be_traced():
    params, labels = {"w": jnp.ones((2, 2))}, {"w": "matrix"}

    def step(rate, decay):
        optimizer = width_adamw(WidthScaling(64, 256), rate, decay, labels)
        return optimizer.update(params, optimizer.init(params), params)[0]["w"][0, 0]

    rates, decays = np.array([0.1, 0.2], np.float32), np.array([0.0, 0.3], np.float32)
    np.testing.assert_allclose(jax.jit(jax.vmap(step))(rates, decays), -rates / 4 * (1 + 2 * decays), rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WidthScaling(0, 64), "base_width must be positive, got 0"),
        (lambda: WidthScaling(64, -1), "width must be positive, got -1"),
        (lambda: WidthScaling(64, 64, matrix_decay_exponent=math.nan), "matrix_decay_exponent must be finite, got nan"),
        (lambda: WidthScaling(64, 64, vector_decay=-0.1), "vector_decay must be at least 0, got -0.1"),
        (lambda: WidthScaling(64, 64).scale(0.1, -0.1), "weight_decay must be at least 0, got -0.1"),
        (lambda: WidthScaling(64, 64).scale(-0.1, 0.1), "learning_rate must be at least 0, got -0.1"),
        (lambda: WidthScaling(64, 64).scale(0.1, 0.1, vector_learning_rate=-1.0), "vector_learning_rate must be at least 0, got -1.0"),
        (lambda: width_adamw(WidthScaling(64, 64), 0.5, 3.0, {}), "must be at most 1, got 1.5 for matrix: it overshoots zero"),
        (lambda: width_adamw(WidthScaling(64, 64), 0.1, math.nan, {}), "weight_decay must be at least 0, got nan"),
        (lambda: steady_state_rms(0.1, 0.0), "weight_decay must be positive, got 0.0: without decay there is no steady state"),
        (lambda: steady_state_rms(2.0, 1.0), "must be at most 1, got 2 for a weight"),
        (lambda: relaxation_steps(0.0, 0.1), "learning_rate must be positive, got 0.0"),
        (lambda: relaxation_steps(0.1, 0.1, tolerance=1.0), r"tolerance must lie in \(0, 1\), got 1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_large_shrink_warns():
    with pytest.warns(UserWarning, match="learning_rate times weight_decay is 0.2 for matrix: above 0.1"):
        width_adamw(WidthScaling(64, 64), 0.2, 1.0, {})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"w": "matrix"}, r"\['b'\] is missing in labels"),
        ({"w": "matrix", "b": "vector", "c": "vector"}, r"\['c'\] of labels is no parameter"),
        ({"w": "matrix", "b": "matrix"}, r"\['b'\] must have two axes or more to be labelled 'matrix', got shape \(2,\)"),
        ({"w": "matrix", "b": "bias"}, r"label of \['b'\] must be one of matrix, vector, output, got 'bias'"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_their_path(labels, message):
    with pytest.raises(ValueError, match=message):
        width_adamw(WidthScaling(64, 64), 0.1, 0.1, labels).init({"w": jnp.ones((2, 2)), "b": jnp.ones(2)})
