from functools import partial

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradatim.optim import ScaleByDiffgradState, diffgrad, diffgrad_friction, scale_by_diffgrad

pytestmark = pytest.mark.usefixtures("double")
EXACT = 1e-12  # double precision, a handful of operations
HISTORY = hypothesis.extra.numpy.arrays(
    np.float64, (5, 4), elements=st.floats(-1e3, 1e3).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
)  # below, squares vanish beside eps


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def updates(optimizer, gradients, params=None):
    state = optimizer.init(jnp.zeros_like(jnp.asarray(gradients[0])))
    steps = []
    for gradient in gradients:
        step, state = optimizer.update(jnp.asarray(gradient), state, params)
        steps.append(step)
    return jnp.stack(steps), state


def test_o1_repeated_gradient_is_adam_at_half_the_rate():
    gradients = [jnp.array([1.0, -2.0, 3.0])] * 5
    ours, adam = (np.asarray(updates(optimizer, gradients)[0]) for optimizer in (diffgrad(0.1), optax.adam(0.1)))
    np.testing.assert_allclose(ours[1:], 0.5 * adam[1:], rtol=EXACT)
    assert not np.allclose(ours[0], 0.5 * adam[0], rtol=1e-2)


def test_o2_three_steps():
    gradients = [jnp.array(gradient) for gradient in ([1.0, -2.0, 0.0], [0.5, -2.0, 1e-3], [-1.0, -2.0, 0.0])]
    steps, _ = updates(diffgrad(0.1, 0.9, 0.999, 1e-8), gradients)
    expected = [
        [-0.0731058571319, 0.0880797073574, 0.0],
        [-0.131130247851, 0.138079707107, -0.0372249182892],
        [-0.140187588897, 0.188079706857, -0.0659997964583],
    ]
    np.testing.assert_allclose(np.cumsum(steps, 0), expected, rtol=1e-11, atol=1e-15)  # to the digits given
    optimizer = scale_by_diffgrad()
    state = optimizer.init(gradients[0])
    friction = []
    for gradient in gradients:
        friction.append(diffgrad_friction(state, gradient))
        _, state = optimizer.update(gradient, state)
    expected = [[0.73105858, 0.88079708, 0.5], [0.62245933, 0.5, 0.50025], [0.81757448, 0.5, 0.50025]]
    np.testing.assert_allclose(friction, expected, atol=5e-9)


@jax.jit
def both_directions(gradients):
    return updates(scale_by_diffgrad(), gradients)[0], updates(optax.scale_by_adam(), gradients)[0]


@hypothesis.given(HISTORY)
def test_o3_between_half_of_adam_and_adam(gradients):
    ours, adam = map(np.asarray, both_directions(gradients))
    assert (abs(ours) <= abs(adam) * (1 + EXACT)).all() and (abs(ours) >= 0.5 * abs(adam) * (1 - EXACT)).all()


@pytest.mark.parametrize("settings", [{}, {"eps_root": 1e-6}, {"nesterov": True}, {"b1": 0.0, "eps": 0.1}])
def test_o4_without_friction_it_is_adam_to_the_bit(settings):
    gradients = normal(6, 5)
    ours, _ = updates(scale_by_diffgrad(**settings, friction=jnp.ones_like), gradients)
    assert jnp.array_equal(ours, updates(optax.scale_by_adam(**settings), gradients)[0])


def test_settings_reach_the_direction():
    gradients, settings = normal(3, 5), {"b1": 0.8, "b2": 0.9, "eps": 0.1, "eps_root": 0.01, "nesterov": True}
    ours, _ = updates(diffgrad(0.1, **settings, friction=jnp.ones_like), gradients)
    np.testing.assert_allclose(ours, updates(optax.adam(0.1, **settings), gradients)[0], rtol=EXACT)
    state = diffgrad(0.1, mu_dtype="bfloat16").init(jnp.zeros(3))
    assert optax.tree.get(state, "mu").dtype == optax.tree.get(state, "previous").dtype == "bfloat16"


def test_o5_signs_and_permutations_pass_through():
    gradients = normal(6, 5)
    order, signs = np.array([3, 0, 4, 1, 2]), np.array([1.0, -1.0, -1.0, 1.0, -1.0])
    plain, _ = updates(diffgrad(0.1), gradients)
    changed, _ = updates(diffgrad(0.1), (gradients * signs)[:, order])
    assert np.array_equal(changed, (np.asarray(plain) * signs)[:, order])


def test_o5_the_scale_of_the_loss_matters():
    gradients = normal(6, 5)

    def friction(scale):
        return np.asarray(diffgrad_friction(updates(scale_by_diffgrad(), scale * gradients[:5])[1], scale * gradients[5]))

    assert abs(friction(1e3) - friction(1.0)).max() > 0.1
    np.testing.assert_allclose(friction(1e-6), 0.5, atol=1e-5)


@partial(jax.jit, static_argnums=0)
def last_of_reddis_walk(transformation, big):
    optimizer = transformation(0.0, 1 / (1 + big**2))

    def step(i, carry):
        x, state = carry
        direction, state = optimizer.update(jnp.where((i + 1) % 3 == 1, big, -1.0), state)
        return jnp.clip(x - 0.1 / jnp.sqrt(i + 1) * direction, -1.0, 1.0), state

    return jax.lax.fori_loop(0, 30_000, step, (jnp.zeros(()), optimizer.init(jnp.zeros(()))))[0]


@pytest.mark.parametrize("big", [2.5, 3.0, 4.0, 10.0])
@pytest.mark.parametrize("transformation", [optax.scale_by_adam, scale_by_diffgrad])
def test_o6_both_end_at_the_worst_point_of_reddis_problem(transformation, big):
    # The mean loss (C - 2) x / 3 is least at -1.
    assert last_of_reddis_walk(transformation, big) > 0.99


def test_o7_a_zero_gradient_feels_the_one_before():
    optimizer = scale_by_diffgrad()
    _, state = optimizer.update(jnp.array(2.0), optimizer.init(jnp.array(0.0)))
    np.testing.assert_allclose(diffgrad_friction(state, jnp.array(0.0)), jax.nn.sigmoid(2.0), rtol=EXACT)
    step, _ = optimizer.update(jnp.array(0.0), state)
    assert step > 0.3


def test_first_step_compares_with_zero():
    step, _ = updates(diffgrad(1.0, eps=0.0), [jnp.array([3.0])])
    np.testing.assert_allclose(step, [[-jax.nn.sigmoid(3.0)]], rtol=EXACT)


def test_an_aliased_previous_gradient_is_adam_at_half_the_rate():
    """What one version of the authors' code does: gₜ₋₁ refers to the array that gₜ is written into."""
    gradients = normal(5, 3)
    optimizer, state, steps = scale_by_diffgrad(), scale_by_diffgrad().init(gradients[0]), []
    for t, gradient in enumerate(map(jnp.asarray, gradients)):
        aliased = state if t == 0 else state._replace(previous=gradient)
        step, state = optimizer.update(gradient, aliased)
        steps.append(step)
    adam, ours = (np.asarray(updates(one, gradients)[0]) for one in (optax.scale_by_adam(), optimizer))
    np.testing.assert_allclose(steps[1:], 0.5 * adam[1:], rtol=EXACT)
    assert abs(ours[1:] / adam[1:] - 0.5).max() > 0.05


def test_coupled_decay_enters_the_friction_and_decoupled_does_not():
    params, gradient = jnp.array([2.0]), jnp.array([1.0])
    coupled, after = diffgrad(0.1, weight_decay=0.5).update(gradient, diffgrad(0.1, weight_decay=0.5).init(params), params)
    np.testing.assert_allclose(coupled, -0.1 * jax.nn.sigmoid(jnp.array([2.0])), rtol=1e-7)
    assert optax.tree.get(after, "previous") == 2.0
    optimizer = diffgrad(0.1, weight_decay=0.5, decoupled=True)
    decoupled, after = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(decoupled, -0.1 * (jax.nn.sigmoid(jnp.array([1.0])) + 1.0), rtol=1e-7)
    assert optax.tree.get(after, "previous") == 1.0


def test_decay_spares_masked_leaves():
    params = {"w": jnp.ones(2), "b": jnp.ones(2)}
    optimizer = diffgrad(0.1, weight_decay=0.5, decoupled=True, mask={"w": True, "b": False})
    step, _ = optimizer.update(optax.tree.zeros_like(params), optimizer.init(params), params)
    np.testing.assert_allclose(step["w"], -0.05, rtol=EXACT)
    np.testing.assert_array_equal(step["b"], 0.0)


def test_complex_leaves_use_the_modulus():
    gradients = np.array([[1.0 + 1.0j, 2.0j], [3.0 - 4.0j, 2.0j]])
    state = updates(scale_by_diffgrad(), gradients[:1])[1]
    np.testing.assert_allclose(diffgrad_friction(state, gradients[1]), jax.nn.sigmoid(jnp.array([29.0**0.5, 0.0])), rtol=EXACT)
    steps, state = updates(scale_by_diffgrad(), gradients)
    assert steps.dtype == state.previous.dtype == jnp.complex128
    np.testing.assert_allclose(steps[0], jax.nn.sigmoid(abs(gradients[0])) * gradients[0] / abs(gradients[0]), rtol=1e-7)


def test_storage_dtype():
    optimizer = scale_by_diffgrad(mu_dtype="bfloat16")
    step, state = optimizer.update(jnp.ones(3, jnp.float32), optimizer.init(jnp.ones(3, jnp.float32)))
    assert (step.dtype, state.mu.dtype, state.nu.dtype, state.previous.dtype) == ("float32", "bfloat16", "float32", "bfloat16")


def test_friction_is_found_inside_a_chain():
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), diffgrad(0.1))
    np.testing.assert_allclose(diffgrad_friction(optimizer.init(jnp.zeros(2)), jnp.zeros(2)), 0.5, rtol=EXACT)
    with pytest.raises(ValueError, match="state must hold one diffGrad state, got 0"):
        diffgrad_friction(optax.adam(0.1).init(jnp.zeros(2)), jnp.zeros(2))


def test_state_has_the_documented_fields():
    state = scale_by_diffgrad().init(jnp.zeros(2))
    assert ScaleByDiffgradState._fields == ("count", "mu", "nu", "previous") and isinstance(state, ScaleByDiffgradState)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"b1": 1.0}, r"b1 must lie in \[0, 1\), got 1.0"),
        ({"b2": -0.1}, r"b2 must lie in \[0, 1\), got -0.1"),
        ({"b1": float("nan")}, r"b1 must lie in \[0, 1\), got nan"),
        ({"eps": -1e-8}, "eps must be at least 0, got -1e-08"),
        ({"eps_root": -1.0}, "eps_root must be at least 0, got -1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        diffgrad(0.1, **wrong)


def test_only_decoupled_decay_can_overshoot():
    with pytest.raises(ValueError, match=r"learning_rate times weight_decay must be at most 1, .* got 0\.1 × 11\.0"):
        diffgrad(0.1, weight_decay=11.0, decoupled=True)
    diffgrad(0.1, weight_decay=11.0)


def test_gradients_through_the_step_are_finite():
    optimizer = diffgrad(0.1, eps_root=1e-12)

    def step(g):
        return optimizer.update(g, optimizer.init(g))[0].sum()

    assert np.isfinite(jax.jit(jax.grad(step))(np.array([0.0, 1.0, -1e-3]))).all()
