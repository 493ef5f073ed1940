import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import SetAttention, SetTransformerBlock

KEY = jax.random.key(0)
ROUND_OFF = 2e-5  # a few operations of single precision
X, Y = (np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32) for seed, n in ((0, 5), (1, 7)))
WHOLE, THROUGH = (SetTransformerBlock(6, n_heads=2, n_points=m, width=8, key=KEY) for m in (None, 3))


def _attention(layer, x, y):
    """Written out in NumPy, head by head."""
    out = []
    for h in range(layer.query.shape[1]):
        q, k, v = (of @ np.asarray(weight)[:, h] for of, weight in ((x, layer.query), (y, layer.key), (y, layer.value)))
        scores = q @ k.T / np.sqrt(q.shape[1])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(out, axis=1) + np.asarray(layer.bias)


def _norm(x):
    return (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)


def _attended(layer, x, y):
    h = _norm(x + _attention(layer.attention, x, y))
    first, last = layer.perceptron.layers
    hidden = np.maximum(h @ np.asarray(first.weight).T + np.asarray(first.bias), 0)
    return _norm(h + hidden @ np.asarray(last.weight).T + np.asarray(last.bias))


@eqx.filter_jit
def _apply(net, *sets):
    return net(*sets)


def test_attention_to_another_set_is_that_of_the_equation_whatever_its_order():
    layer = SetAttention(6, 4, n_heads=2, key=KEY)
    found = _apply(layer, X, Y)
    np.testing.assert_allclose(found, _attention(layer, X, Y), atol=ROUND_OFF)
    np.testing.assert_allclose(_apply(layer, X, Y[::-1].copy()), found, atol=ROUND_OFF)


def test_oracle_a_block_is_that_of_the_equations():
    np.testing.assert_allclose(_apply(WHOLE, X), _attended(WHOLE.whole, X, X), atol=ROUND_OFF)
    between = _attended(THROUGH.through, np.asarray(THROUGH.points), X)
    np.testing.assert_allclose(_apply(THROUGH, X), _attended(THROUGH.whole, X, between), atol=ROUND_OFF)


@pytest.mark.parametrize("net", [WHOLE, THROUGH], ids=["whole", "through points"])
def test_a_block_moves_with_permutations_and_not_with_positions(net):
    order = np.array([3, 0, 4, 1, 2])
    found = _apply(net, X)
    np.testing.assert_allclose(_apply(net, X[order]), np.asarray(found)[order], atol=ROUND_OFF)
    # The control: positions break it.
    places = np.arange(5, dtype=np.float32)[:, None]
    assert np.abs(_apply(net, X[order] + places) - np.asarray(_apply(net, X + places))[order]).max() > 0.01


def test_through_points_the_work_grows_with_the_set_and_not_with_its_square():
    def operations(net, n):
        return jax.jit(lambda x: net(x)).lower(jax.ShapeDtypeStruct((n, 6), jnp.float32)).compile().cost_analysis()["flops"]

    growth = [operations(net, 2048) / operations(net, 256) for net in (WHOLE, THROUGH)]
    assert growth[0] > 30 and growth[1] <= 8


def test_blocks_out_of_range_are_refused():
    with pytest.raises(ValueError, match="n_points must be at least 1, got 0"):
        SetTransformerBlock(4, n_points=0, key=KEY)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        SetTransformerBlock(4, width=0, key=KEY)
    with pytest.raises(ValueError, match="n_heads must divide the channels that come out, 4, got 3"):
        SetTransformerBlock(4, n_heads=3, key=KEY)
