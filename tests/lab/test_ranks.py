import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradatim.lab import rank_correlation


def test_ties_share_their_ranks_and_a_row_without_order_has_none():
    rows = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [0.0, 5.0, 9.0], [2.0, 1.0, 1.0]])
    assert np.allclose(rank_correlation([0, 1, 5], rows), [-1, 0, 1, -np.sqrt(3) / 2])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_it_is_that_of_scipy(pairs):
    x, y = np.array(pairs, float).T
    if np.ptp(x) > 0 and np.ptp(y) > 0:
        assert np.isclose(rank_correlation(x, y[None])[0], stats.spearmanr(x, y).statistic)
