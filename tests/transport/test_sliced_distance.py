import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gradatim.transport import sliced_distance

RANDOM = np.random.default_rng(0)
DIRECTIONS = np.linalg.qr(RANDOM.normal(size=(2, 2)))[0]


def by_assignment(found, data):
    """The best pairing along each line, every datum taken equally often."""
    data = np.concatenate([data] * (len(found) // len(data)))
    costs = [np.square(found[:, None] @ line - data[None] @ line) for line in DIRECTIONS]
    return np.sqrt(np.mean([cost[linear_sum_assignment(cost)].mean() for cost in costs]))


@pytest.mark.parametrize("times", [1, 3])
def test_along_every_line_it_is_the_best_pairing(times):
    found, data = RANDOM.normal(size=(4 * times, 2)), 2 * RANDOM.normal(size=(4, 2)) + 1
    np.testing.assert_allclose(sliced_distance(found, data, DIRECTIONS), by_assignment(found, data), rtol=1e-12)


def test_leading_axes_are_broadcast():
    found, data = RANDOM.normal(size=(3, 1, 6, 2)), RANDOM.normal(size=(2, 3, 2))
    expected = [[by_assignment(one[0], other) for other in data] for one in found]
    np.testing.assert_allclose(sliced_distance(found, data, DIRECTIONS), expected, rtol=1e-12)


def test_numbers_that_are_no_multiple_are_refused():
    with pytest.raises(ValueError, match="found must hold a multiple of data's 3 points, got 4"):
        sliced_distance(np.ones((4, 2)), np.ones((3, 2)), DIRECTIONS)
