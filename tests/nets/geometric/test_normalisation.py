import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.nets.geometric import FieldDropout, FieldNorm, act_on_maps, dihedral, equivariance_error

# A mean and a variance of single precision.
ROUND_OFF = 1e-5
GROUP = dihedral(4)
MAPS = act_on_maps(GROUP)
X = np.random.default_rng(0).normal(size=(5, 5, 8, 3)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)[:, None]


def error_of(f):
    return equivariance_error(eqx.filter_jit(f), GROUP, X, MAPS, MAPS).worst


def test_statistics_that_the_group_shares_keep_the_symmetry():
    assert error_of(FieldNorm(3)) < ROUND_OFF
    y = np.asarray(FieldNorm(3)(jnp.asarray(X)))
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(axis=(0, 1, 2)), 1, atol=1e-4)


def test_trap_statistics_kept_for_each_orientation_break_the_group():
    # As batch normalisation does after training: numbers that were found once, a set for each map.
    means = jnp.asarray(X.mean(axis=(0, 1)))
    assert error_of(lambda x: x - means[None, None]) > 1e-2


def test_trap_dropout_of_single_maps_breaks_the_group():
    key = jax.random.key(1)
    assert error_of(lambda x: FieldDropout(0.5)(x, key=key)) < ROUND_OFF
    kept = jax.random.bernoulli(key, 0.5, (8, 3))
    assert error_of(lambda x: x * kept[None, None]) > 1e-2


def test_dropout_keeps_the_mean_and_stops_without_a_key():
    x = jnp.ones((2, 2, 8, 4000))
    y = np.asarray(FieldDropout(0.25)(x, key=jax.random.key(0)))
    assert abs(y.mean() - 1) < 0.05 and (FieldDropout(0.25)(x, key=None) == x).all()


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_shares_out_of_range_are_refused(p):
    with pytest.raises(ValueError, match=rf"p must lie in \[0, 1\), got {p}"):
        FieldDropout(p)


def test_channels_are_scaled_and_shifted_afterwards():
    norm = eqx.tree_at(lambda one: (one.scale, one.shift), FieldNorm(3), (jnp.array([2.0, 1.0, -1.0]), jnp.array([0.0, 5.0, 1.0])))
    plain, moved = eqx.filter_jit(lambda norms, x: [one(x) for one in norms])([FieldNorm(3), norm], X)
    np.testing.assert_allclose(moved, np.asarray(plain) * [2, 1, -1] + [0, 5, 1], rtol=1e-5, atol=1e-5)
