import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradatim.landscape import displacement_angle, displacement_norms, distance, fork_training, forked_orders

STEPS, FORKS, DECAY, RATE = 12, (0, 3, 12), 0.9, 0.1
random = np.random.default_rng(0)
TRUNK, BRANCHES, START = random.normal(size=(STEPS, 2)), random.normal(size=(2, STEPS, 2)), random.normal(size=2)


def step(state, noise):
    """Heavy ball on w²/2 with a noise of its own at every step."""
    w, momentum = state
    momentum = DECAY * momentum + w + noise
    return w - RATE * momentum, momentum


@pytest.fixture(scope="module")
def forks():
    with jax.enable_x64(True):
        state = jnp.asarray(START), jnp.zeros(2)
        return fork_training(step, state, jax.device_put(TRUNK), jax.device_put(BRANCHES), FORKS)


def by_hand(fork, child, *, forgetful=False):
    state = START, np.zeros(2)
    for i in range(STEPS):
        if i == fork and forgetful:
            state = state[0], np.zeros(2)
        state = step(state, TRUNK[i] if i < fork else BRANCHES[child, i])
    return state


def test_children_are_runs_that_go_on_with_other_batches(forks, double):
    for number, fork in enumerate(FORKS):
        for child in range(2):
            w, momentum = by_hand(fork, child)
            assert np.allclose(forks.ends[0][number, child], w, atol=1e-12), (fork, child)
            assert np.allclose(forks.ends[1][number, child], momentum, atol=1e-12)


def test_t4_momentum_goes_on_through_a_fork(forks, double):
    assert np.abs(forks.starts[1][1]).max() > 0.1
    assert np.abs(forks.ends[0][1, 0] - by_hand(3, 0, forgetful=True)[0]).max() > 1e-3


def test_starts_are_the_trunk_at_each_fork(forks, double):
    state, seen = (START, np.zeros(2)), {}
    for i in range(STEPS + 1):
        seen[i] = state[0]
        state = step(state, TRUNK[min(i, STEPS - 1)])
    assert np.allclose(forks.starts[0], np.stack([seen[k] for k in FORKS]), atol=1e-12)


def test_o_a_fork_at_the_end_has_distance_zero_and_no_angle(forks, double):
    ends, start = forks.ends[0][-1], forks.starts[0][-1]
    assert distance(ends[0], ends[1]) == 0
    with pytest.warns(RuntimeWarning, match="angle is undefined"):
        assert np.isnan(displacement_angle(start, ends[0], ends[1]))


def test_t5_branches_that_share_their_order_are_refused():
    same = jnp.zeros((2, 4), int)
    with pytest.raises(ValueError, match="branches must differ, or their ends coincide; 0 and 1 are the same"):
        forked_orders(jnp.zeros(4, int), same, [1])


def test_t7_an_angle_needs_its_base(forks, double):
    # A late fork: the common way makes the directions from the start alike, while the ways from the fork are not.
    common, first, second = jnp.array([10.0, 0.0]), jnp.array([11.0, 1.0]), jnp.array([11.0, -1.0])
    assert displacement_angle(jnp.zeros(2), first, second) < 11 and np.isclose(displacement_angle(common, first, second), 90)
    assert np.allclose(displacement_norms(common, first, second), 2**0.5)


@jax.jit
def angles(base, u, v, scale):
    return displacement_angle(base, base + u, base + v), displacement_angle(base, base + scale * u, base + scale * v)


@given(arrays(np.float64, (2, 3), elements=st.floats(-1, 1).map(lambda x: round(x, 3))), st.floats(0.01, 100))
def test_o_angle_does_not_depend_on_a_common_scale(ways, scale):
    with jax.enable_x64(True):
        one, other = angles(jnp.zeros(3), jnp.asarray(ways[0]), jnp.asarray(ways[1]), jnp.asarray(scale))
    norms = np.linalg.norm(ways, axis=1)
    if norms.min() == 0:
        assert np.isnan(one) and np.isnan(other)
    else:
        cosine = np.clip(ways[0] @ ways[1] / norms.prod(), -1, 1)
        assert np.isclose(one, other, atol=1e-5) and np.isclose(one, np.rad2deg(np.arccos(cosine)), atol=1e-5)


def test_small_angles_keep_their_digits_in_single_precision():
    # The arc cosine of 1 - 5e-9 is zero in single precision.
    angle = displacement_angle(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([1.0, 1e-4]))
    assert np.isclose(angle, np.rad2deg(1e-4), rtol=1e-4)


def test_bad_input():
    trunk, branches = jnp.zeros(4, int), jnp.arange(8).reshape(2, 4)
    with pytest.raises(ValueError, match=r"every fork step must lie in \[0, 4\], the number of steps, got 5"):
        forked_orders(trunk, branches, [5])
    with pytest.raises(ValueError, match=r"branches must have shape \(children, 4\), got \(2, 3\)"):
        forked_orders(trunk, branches[:, :3], [1])
    with pytest.raises(ValueError, match=r"fork steps must ascend, got \[2, 1\]"):
        fork_training(lambda w, row: w, jnp.zeros(1), trunk, branches, [2, 1])
    with pytest.raises(ValueError, match="same shapes"):
        distance(jnp.zeros(2), jnp.zeros(3))


def test_only_weights_have_a_way_to_go():
    base, end = ({"act": jnp.tanh, "w": jnp.array([x, 0.0])} for x in (0.0, 3.0))
    assert distance(base, end) == 3 and displacement_angle(base, end, end) == 0
