import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import GatedUpdate, SimpleRNN, chrono_bias, rnn_fixed_point_init, run_rnn, time_warp, with_chrono_bias

DELAY = 4
SIGNAL = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def plain():
    """A network whose update is a contraction, with a bias."""
    cell = SimpleRNN(2, 5, gain=0.5, key=jax.random.key(0))
    return eqx.tree_at(lambda cell: cell.bias, cell, jax.device_put(np.linspace(-1, 1, 5, dtype=np.float32)))


@pytest.fixture(scope="module")
def runs(plain):
    silence = np.zeros((DELAY, 2), np.float32)
    ways = np.stack([np.concatenate([SIGNAL, silence]), np.concatenate([silence, SIGNAL])])

    @jax.jit
    def measure(cell, ways):
        found = rnn_fixed_point_init(cell, 2, jnp.zeros(5))
        starts = jnp.stack([found.state, jnp.zeros(5)])
        states = jax.vmap(lambda x: jax.vmap(lambda start: run_rnn(cell, x, start))(starts))(ways)

        def total(bias):
            return jnp.sum(rnn_fixed_point_init(eqx.tree_at(lambda cell: cell.bias, cell, bias), 2, jnp.zeros(5)).state)

        return found, cell(jnp.zeros(2), found.state), states, jax.grad(total)(cell.bias)

    return jax.device_get(measure(plain, ways))


def test_o12_a_state_at_rest_makes_shifts_commute(runs):
    _, _, (now, later), _ = runs
    np.testing.assert_allclose(later[0, DELAY:], now[0, :-DELAY], atol=1e-6)


def test_o12_a_state_of_zero_does_not(runs):
    _, _, (now, later), _ = runs
    assert np.abs(later[1, DELAY:] - now[1, :-DELAY]).max() > 0.05


def test_the_state_at_rest_is_one(runs, plain):
    found, after, _, slope = runs
    assert found.is_converged
    np.testing.assert_allclose(after, found.state, atol=1e-6)
    # The implicit derivative: (1 - diag(1 - h²) U)⁻¹ diag(1 - h²), of all entries' sum.
    D = np.diag(1 - found.state**2)
    np.testing.assert_allclose(slope, np.linalg.solve(np.eye(5) - D @ np.asarray(plain.state_weight), D).sum(axis=0), rtol=1e-4)


def test_a_network_without_rest_says_so():
    found = jax.jit(lambda h: rnn_fixed_point_init(lambda z, h: h + 1, 1, h, max_steps=20))(jnp.zeros(1))
    assert not found.is_converged


def test_o12_chrono_gates_are_the_inverse_of_their_memories():
    gates = np.asarray(jax.jit(lambda key: jax.nn.sigmoid(chrono_bias(key, 40_000, longest=100.0)))(jax.random.key(0)), np.float64)
    # Mean of 1/U: log(50)/98, here within three standard errors.
    assert abs(gates.mean() - 0.039919) < 3 * gates.std() / 200
    # 1/Γ is uniform; trap: the range of gates is [1/T_h, 1/T_l].
    memories = np.sort(1 / gates)
    assert memories[0] > 1.99 and memories[-1] < 100.01
    assert np.abs(memories - np.linspace(2, 100, 40_000)).max() < 1.5


def test_an_lstm_begins_with_long_memories():
    make = eqx.filter_jit(lambda *keys: with_chrono_bias(eqx.nn.LSTMCell(1, 50, key=keys[0]), longest=30.0, key=keys[1]))
    cell = make(jax.random.key(0), jax.random.key(1))
    b_i, b_f, *others = np.split(np.asarray(cell.bias), 4)
    assert (b_i == -b_f).all() and not np.any(others)
    memories = 1 + np.exp(b_f)
    assert memories.min() >= 1.99 and memories.max() <= 30.01


def test_o12_a_leaky_network_nears_a_steady_input_geometrically():
    gate = 0.2
    cell = GatedUpdate(1, 1, update=lambda z, h: z, gate_bias=jnp.full(1, np.log(gate / (1 - gate))), key=jax.random.key(0))
    cell = eqx.tree_at(lambda cell: (cell.input_weight, cell.state_weight), cell, (jnp.zeros((1, 1)), jnp.zeros((1, 1))))
    states = np.asarray(run_rnn(cell, jnp.full((6, 1), 3.0), jnp.zeros(1)))[:, 0]
    np.testing.assert_allclose(states, 3 * (1 - (1 - gate) ** np.arange(1, 7)), rtol=1e-5)
    # At half the speed the gates halve, and nothing else.
    slow = np.asarray(run_rnn(cell.slowed(0.5), jnp.full((6, 1), 3.0), jnp.zeros(1)))[:, 0]
    np.testing.assert_allclose(slow, 3 * (1 - (1 - gate / 2) ** np.arange(1, 7)), rtol=1e-5)


def test_warping_reads_between_the_steps():
    x = jax.device_put(SIGNAL)
    warped = np.asarray(time_warp(x, jnp.array([0.0, 0.25, 1.0, 8.0, 11.0])))
    expected = [SIGNAL[0], 0.75 * SIGNAL[0] + 0.25 * SIGNAL[1], SIGNAL[1], SIGNAL[8], SIGNAL[8]]
    np.testing.assert_allclose(warped, expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_is_refused():
    def halve(z, h):
        return h / 2

    with pytest.raises(ValueError, match="tolerance must lie in"):
        rnn_fixed_point_init(halve, 1, jnp.zeros(1), tolerance=0.0)
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        rnn_fixed_point_init(halve, 1, jnp.zeros(1), max_steps=0)
    with pytest.raises(ValueError, match=r"memories must be 1 < shortest < longest steps, got 2\.0 and 2"):
        chrono_bias(jax.random.key(0), 3, longest=2.0)
    with pytest.raises(ValueError, match="cell must have biases"):
        with_chrono_bias(eqx.nn.LSTMCell(1, 2, use_bias=False, key=jax.random.key(0)), longest=9.0, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\], for a gate beyond 1 would overshoot, got 2"):
        GatedUpdate(1, 1, key=jax.random.key(0)).slowed(2.0)


def test_updates_are_those_of_their_equations(getkey):
    random = np.random.default_rng(1)
    shapes = eqx.filter_eval_shape(lambda key: GatedUpdate(2, 3, key=key), getkey())
    cell = jax.tree.map(
        lambda leaf: jax.device_put(random.normal(size=leaf.shape).astype(np.float32)) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf,
        shapes,
    )
    z, h = (random.normal(size=n).astype(np.float32) for n in (2, 3))

    def affine(part):
        return np.asarray(part.input_weight) @ z + np.asarray(part.state_weight) @ h + np.asarray(part.bias)

    gate = 1 / (1 + np.exp(-affine(cell)))
    np.testing.assert_allclose(eqx.filter_jit(cell)(z, h), gate * np.tanh(affine(cell.update)) + (1 - gate) * h, rtol=1e-5, atol=1e-6)


def test_weights_of_the_state_begin_within_the_gain():
    one, other = (eqx.filter_jit(SimpleRNN)(2, 16, gain=gain, key=jax.random.key(0)) for gain in (1.0, 0.5))
    np.testing.assert_allclose(other.state_weight, 0.5 * np.asarray(one.state_weight), rtol=1e-6)
    np.testing.assert_array_equal(other.input_weight, one.input_weight)
    assert 0.9 < 4 * np.abs(np.asarray(one.state_weight)).max() <= 1
