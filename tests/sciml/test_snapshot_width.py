import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.sciml import snapshot_width


@jax.jit
def widths(snapshots):
    found = snapshot_width(snapshots)
    return found.width, found.modes(1e-2)


@given(st.integers(0, 2**32 - 1))
def test_width_is_the_error_of_the_best_modes(seed):
    snapshots = np.random.default_rng(seed).normal(size=(7, 5)) @ np.diag([1, 1e-1, 3e-2, 1e-3, 0])
    with jax.enable_x64(True):
        width, modes = jax.device_get(widths(jax.device_put(snapshots)))
    left, values, right = np.linalg.svd(snapshots)
    for n in range(6):
        rest = snapshots - left[:, :n] * values[:n] @ right[:n]
        assert np.isclose(width[n], np.linalg.norm(rest) / np.linalg.norm(snapshots), atol=1e-12)
    assert np.isclose(width[0], 1) and (np.diff(width) <= 0).all() and width[modes] <= 1e-2 < width[modes - 1]


def test_nothing_has_no_modes():
    assert widths(jnp.zeros((7, 5)))[1] == 0


def test_a_vector_is_no_snapshot_matrix():
    with pytest.raises(Exception, match="snapshots"):
        snapshot_width(jnp.zeros(5))
