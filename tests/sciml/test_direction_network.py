import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.sciml import GridResNet, MaskedDirection
from gradatim.sciml.direction_network import _convolved, _shifted

ROUND_OFF = 1e-5  # single precision, sums of a hundred terms


def count(*args, **kwargs):
    shapes = jax.tree.leaves(eqx.filter_eval_shape(lambda: GridResNet(*args, key=jax.random.key(0), **kwargs)))
    return sum(leaf.size for leaf in shapes if isinstance(leaf, jax.ShapeDtypeStruct))


@pytest.fixture(scope="module")
def network():
    return eqx.filter_jit(GridResNet)(2, channels=3, pairs_before=1, pairs_below=1, pairs_above=0, key=jax.random.key(1))


call = jax.jit(lambda network, b: (network(b), network.by_convolutions(b)))


def test_oracle_parameters_of_the_authors_network():
    # 448 + 14 · 6928 + 17, and in two dimensions without biases 144 + 14 · 2304 + 16.
    assert count(3) == 97_457
    assert count(2, use_bias=False) == 32_416


@pytest.mark.parametrize("grid", [(6, 4), (4, 2, 6)])
def test_shifts_and_a_product_are_a_convolution(grid):
    random = np.random.default_rng(0)
    x, kernel = (random.normal(size=shape).astype(np.float32) for shape in ((*grid, 2), (3 ** len(grid), 2, 5)))
    shifted, convolved = jax.jit(lambda x, kernel: (_shifted(x, kernel), _convolved(x, kernel)))(x, kernel)
    np.testing.assert_allclose(shifted, convolved, atol=ROUND_OFF)
    # Written out in one place: the window around a cell, zeros outside.
    cell = tuple(1 for _ in grid)
    window = x[tuple(slice(c - 1, c + 2) for c in cell)]
    padded = np.zeros((*(3 for _ in grid), 2), np.float32)
    padded[tuple(slice(0, n) for n in window.shape[:-1])] = window
    np.testing.assert_allclose(shifted[cell], np.einsum("wi,wio->o", padded.reshape(-1, 2), kernel), atol=ROUND_OFF)


def test_both_ways_to_evaluate_agree(network):
    random = np.random.default_rng(3)
    biases = [jax.device_put(random.normal(size=bias.shape).astype(np.float32)) for bias in network.biases]
    network = eqx.tree_at(lambda n: (n.biases, n.offset), network, (biases, jnp.asarray(0.5, jnp.float32)))
    here, there = call(network, jax.device_put(random.normal(size=(8, 8)).astype(np.float32)))
    np.testing.assert_allclose(here, there, atol=ROUND_OFF * np.abs(there).max())


def test_without_biases_it_is_homogeneous_though_not_odd(network):
    # They begin as zeros.
    b = jax.device_put(np.random.default_rng(1).normal(size=(8, 8)).astype(np.float32))
    direction = np.asarray(call(network, b)[0])
    size = np.abs(direction).max()
    np.testing.assert_allclose(call(network, 4 * b)[0], 4 * direction, atol=ROUND_OFF * size)
    assert np.abs(call(network, -b)[0] + direction).max() > 1e-2 * size


def test_trap_a_mask_keeps_directions_out_of_solid_cells_and_in_the_precision_of_the_residual(double):
    is_fluid = np.ones((8, 8), bool)
    is_fluid[2:4, 3:6] = False
    r = jax.device_put(np.random.default_rng(2).normal(size=(8, 8)))
    masked = eqx.filter_jit(MaskedDirection(lambda r: r.astype(jnp.float32) + 5, jax.device_put(is_fluid)))(r)
    masked = np.asarray(masked)
    assert masked.dtype == np.float64 and (masked[~is_fluid] == 0).all() and (masked[is_fluid] != 0).all()


def test_bad_inputs_are_refused(network):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="ndim must be 2 or 3, got 1"):
        GridResNet(1, key=key)
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        GridResNet(2, channels=0, key=key)
    with pytest.raises(ValueError, match=r"numbers of residual pairs must be at least 0, got \(1, -1, 2\)"):
        GridResNet(2, pairs_below=-1, key=key)
    for shape in ((7, 8), (8,), (2, 2, 2)):
        with pytest.raises(ValueError, match="b must have 2 dimensions, each an even number of cells"):
            network(jnp.ones(shape))


def test_the_network_is_its_levels_one_after_another(network):
    random = np.random.default_rng(4)
    biases = [jax.device_put(random.normal(size=bias.shape).astype(np.float32)) for bias in network.biases]
    network = eqx.tree_at(lambda n: (n.biases, n.offset), network, (biases, jnp.asarray(0.5, jnp.float32)))
    b = random.normal(size=(6, 4)).astype(np.float32)
    kernels = [(np.asarray(k).reshape(3, 3, *k.shape[1:]), np.asarray(bias)) for k, bias in zip(network.kernels, biases, strict=True)]

    def linear(i, x):
        kernel, bias = kernels[i]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        return sum(padded[r : r + len(x), c : c + x.shape[1]] @ kernel[r, c] for r, c in np.ndindex(3, 3)) + bias

    def rectified(i, x):
        return np.maximum(linear(i, x), 0)

    x = rectified(1, linear(0, b[..., None]))
    kept = rectified(2, x)
    kept = rectified(4, rectified(3, kept) + x)
    half = kept.reshape(3, 2, 2, 2, -1).mean(axis=(1, 3))
    half = rectified(6, rectified(5, half)) + half
    expected = (np.repeat(np.repeat(half, 2, axis=0), 2, axis=1) + kept) @ np.asarray(network.mix) + 0.5
    np.testing.assert_allclose(call(network, jnp.asarray(b))[0], expected, rtol=1e-4, atol=1e-4)
