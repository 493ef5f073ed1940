import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.sciml import pod

ROUND_OFF = 1e-12


def snapshots(seed=0, count=8):
    return np.random.default_rng(seed).normal(size=(count, 3, 50))


@given(st.integers(0, 1000), st.integers(1, 12))
def test_o9_as_many_modes_as_snapshots_reproduce_them(seed, count):
    rows = snapshots(seed, count)
    found = pod(rows, count)
    gram = np.tensordot(found.modes, found.modes, ((1, 2), (1, 2)))
    np.testing.assert_allclose(gram, np.eye(count), atol=ROUND_OFF)
    np.testing.assert_allclose(np.tensordot(found.coefficients.T, found.modes, 1), rows, atol=ROUND_OFF * 10)
    assert found.truncation_error == 0


def test_coefficients_are_projections_and_the_rest_is_the_truncation_error():
    rows = snapshots()
    found = pod(rows, 5)
    np.testing.assert_allclose(found.coefficients, np.tensordot(found.modes, rows, ((1, 2), (1, 2))), atol=ROUND_OFF * 10)
    left = rows - np.tensordot(found.coefficients.T, found.modes, 1)
    np.testing.assert_allclose(np.linalg.norm(left) / np.linalg.norm(rows), found.truncation_error, rtol=1e-10)
    share = 1 - found.truncation_error**2
    assert len(pod(rows, energy=share).modes) == 5 and len(pod(rows, energy=share + 1e-9).modes) == 6
    assert len(pod(rows, energy=1.0).modes) == 8


def test_weights_are_those_of_the_inner_product():
    weights = np.random.default_rng(1).uniform(0.1, 2, (3, 50))
    found = pod(snapshots(), 8, weights=weights)
    np.testing.assert_allclose(np.tensordot(found.modes * weights, found.modes, ((1, 2), (1, 2))), np.eye(8), atol=ROUND_OFF)
    np.testing.assert_allclose(np.tensordot(found.coefficients.T, found.modes, 1), snapshots(), atol=ROUND_OFF * 10)


def test_trap_a_mean_that_is_taken_off_leaves_no_way_to_zero():
    rows = snapshots() + 3
    centred, plain = pod(rows, 4, center=True), pod(rows, 4)
    assert not plain.mean.any()
    # The nearest to zero that mean and modes reach.
    parts = np.tensordot(centred.modes, centred.mean, ((1, 2), (0, 1)))
    nearest = centred.mean - np.tensordot(parts, centred.modes, 1)
    assert np.linalg.norm(nearest) > 0.5 * np.linalg.norm(centred.mean)


def test_what_cannot_be_asked_for_is_refused():
    for words, arguments in (
        (r"rank must lie in \[1, 8\] for 8 snapshots of 150 entries, got 9", {"rank": 9}),
        ("either rank or energy must be given, got rank None and energy None", {}),
        ("either rank or energy must be given, got rank 2", {"rank": 2, "energy": 0.5}),
        (r"energy must lie in \(0, 1\], got 1\.5", {"energy": 1.5}),
        ("weights must be positive, got 0", {"rank": 2, "weights": np.zeros((3, 50))}),
    ):
        with pytest.raises(ValueError, match=words):
            pod(snapshots(), **arguments)


def test_what_was_taken_off_and_all_modes_make_the_snapshots():
    rows = snapshots() + 3
    found = pod(rows, 7, center=True)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0))
    np.testing.assert_allclose(found.mean + np.tensordot(found.coefficients.T, found.modes, 1), rows, atol=ROUND_OFF * 100)
    np.testing.assert_allclose(found.coefficients.sum(axis=1), 0, atol=ROUND_OFF * 100)
