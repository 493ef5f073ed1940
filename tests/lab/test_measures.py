import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gradatim.lab import Measure
from gradatim.lab.claims import Criterion

finite = st.floats(-1e6, 1e6)


def _coverage(n_samples, repetitions, draw):
    """Share of simulated experiments whose interval holds the true mean 0."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(repetitions):
        measure = Measure.over_seeds(draw(rng, n_samples))
        hits += measure.low <= 0 <= measure.high
    return hits / repetitions


@pytest.mark.parametrize("n_samples", [3, 5])
def test_t_interval_covers_95_percent(n_samples):
    # Three binomial standard errors of 2,000 experiments are 1.5 %.
    assert abs(_coverage(n_samples, 2000, lambda rng, n: rng.normal(size=n)) - 0.95) < 0.015


@pytest.mark.parametrize("n_samples", [3, 5])
def test_t_interval_covers_95_percent_of_paired_differences(n_samples):
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(2000):
        control = rng.normal(scale=50, size=n_samples)
        measure = Measure.paired(control + rng.normal(2.0, 0.1, n_samples), control)
        hits += measure.low <= 2.0 <= measure.high
    assert abs(hits / 2000 - 0.95) < 0.015


@pytest.mark.parametrize("draw", [lambda rng, n: rng.normal(size=n), lambda rng, n: rng.exponential(size=n) - 1])
def test_bootstrap_covers_nearly_95_percent_of_twenty(draw):
    # BCa of 20 falls short by 1 to 4 %, more for a skewed distribution; 400 experiments add 3.3 % (three standard errors).
    assert 0.88 < _coverage(20, 400, draw) < 0.985


def test_oracle_the_jackknife_of_a_mean_is_students_interval():
    samples = np.array([1.0, 1.2, 1.1, 0.7])
    of_mean = Measure.jackknife(samples.mean(), {"seeds": (samples.sum() - samples) / 3})
    np.testing.assert_allclose(of_mean.intervals(), Measure.over_seeds(samples).intervals())
    logs = Measure.jackknife(np.exp(samples.mean()), {"seeds": np.exp((samples.sum() - samples) / 3)}, scale="log")
    np.testing.assert_allclose(logs.intervals(), np.exp(Measure.over_seeds(samples).intervals()))


def test_the_jackknife_covers_95_percent_where_two_kinds_of_repetition_cross():
    rng, hits, hits_of_rows = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        table = rng.normal(size=(8, 1)) + rng.normal(size=(1, 5)) + rng.normal(size=(8, 5))
        left = {name: [np.delete(table, i, axis).mean() for i in range(table.shape[axis])] for axis, name in enumerate(("rows", "columns"))}
        both, rows = Measure.jackknife(table.mean(), left), Measure.over_seeds(table.mean(1))
        hits += both.low <= 0 <= both.high
        hits_of_rows += rows.low <= 0 <= rows.high
    # Rows alone, whose columns are the same, do not.
    assert hits / 1000 > 0.93 and hits_of_rows / 1000 < 0.88


def read_at_the_best_of_the_others(table):
    """Of a table of choices and repetitions, each repetition's value at the choice whose mean over the others is least."""
    others = (table.sum(1, keepdims=True) - table) / (table.shape[1] - 1)
    return table[others.argmin(0), np.arange(table.shape[1])]


def test_repetitions_that_choose_for_one_another_are_covered_only_if_one_after_the_other_is_left_out():
    random = np.random.default_rng(0)
    held = {"seeds": 0, "left out": 0}
    for table in random.normal(size=(300, 5, 10)):
        # All five choices are alike: the value is 0.
        whole = Measure.over_seeds(read_at_the_best_of_the_others(table))
        left = Measure.leave_one_out(lambda kept, table=table: read_at_the_best_of_the_others(table[:, kept]).mean(), 10)
        assert np.isclose(whole.value, left.value)
        held["seeds"] += whole.low <= 0 <= whole.high
        held["left out"] += left.low <= 0 <= left.high
    assert held["seeds"] < 0.85 * 300 and held["left out"] > 0.9 * 300


def test_repetitions_that_choose_alike_have_students_interval():
    table = np.random.default_rng(1).normal(size=(3, 8)) + 100 * np.arange(3)[:, None]
    left = Measure.leave_one_out(lambda kept: read_at_the_best_of_the_others(table[:, kept]).mean(), 8, of="networks")
    np.testing.assert_allclose(left.intervals(), Measure.over_seeds(table[0]).intervals())
    assert left.method == "jackknife over 8 networks"
    with pytest.raises(ValueError, match="n must be at least 3, got 2"):
        Measure.leave_one_out(lambda kept: 1.0, 2)


def test_the_jackknife_says_what_is_wrong():
    with pytest.raises(ValueError, match="at least one kind"):
        Measure.jackknife(1.0, {})
    with pytest.raises(ValueError, match="left_out of seeds must hold at least 3 repetitions, got 2"):
        Measure.jackknife(1.0, {"seeds": [1.0, 1.1]})
    with pytest.raises(ValueError, match="positive values, got -1"):
        Measure.jackknife(1.0, {"seeds": [1.0, 1.1, -1.0]}, scale="log")
    assert Measure.jackknife(0.3, {"seeds": [0.3] * 4}).intervals() == [(0.3, 0.3, 0.3)]
    # A correlation of one has an interval.
    assert Measure.jackknife(1.0, {"seeds": [1.0, 1.0, 0.9]}, scale="fisher").low < 1.0


@pytest.mark.parametrize("n_samples", [6, 9, 20])
def test_order_statistics_hold_the_median_with_at_least_95_percent(n_samples):
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        # Skewed, so that an interval of the mean would miss: the median is log 2, the mean 1.
        measure = Measure.median(rng.exponential(size=n_samples))
        hits += measure.low <= math.log(2) <= measure.high
    assert hits / 2000 > 0.95 - 0.015
    assert hits / 2000 == pytest.approx(float(measure.method.split()[-2]) / 100, abs=0.015)


def test_order_statistics_by_hand():
    ten = Measure.median(np.arange(10.0)[::-1])
    assert (ten.low, ten.value, ten.high) == (1, 4.5, 8)
    five = Measure.median([3.0, 1.0, 2.0, 5.0, 4.0])
    assert five.samples == (3, 1, 2, 5, 4) and (five.low, five.high) == (1, 5) and five.method == "order statistics of 5 seeds, 93.8 %"


def test_bootstrap_from_twenty_on():
    rng = np.random.default_rng(0)
    assert Measure.over_seeds(rng.normal(size=19)).method == "Student's t over 19 seeds"
    assert Measure.over_seeds(rng.normal(size=20)).method == "bootstrap over 20 seeds"


def test_bootstrap_is_a_function_of_the_samples():
    samples = np.random.default_rng(0).normal(size=25)
    assert Measure.over_seeds(samples) == Measure.over_seeds(samples)


def test_t_interval_of_three_by_hand():
    measure = Measure.over_seeds([1.0, 2.0, 3.0])
    # With 2 degrees of freedom the quantile has a closed form, t = (2p - 1) / √(2p (1 - p)); the standard deviation is 1.
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert measure.value == 2 and measure.samples == (1, 2, 3)
    assert (measure.low, measure.high) == pytest.approx((2 - half, 2 + half), rel=1e-12)


def test_log_ratio_is_the_geometric_mean():
    measure = Measure.paired([2.0, 8.0, 4.0], [1.0, 1.0, 1.0], "log-ratio")
    assert measure.value == pytest.approx(4.0, rel=1e-12)
    assert measure.low * measure.high == pytest.approx(16.0, rel=1e-12)
    assert measure.samples == pytest.approx((2, 8, 4), rel=1e-12)


@given(st.lists(finite, min_size=3, max_size=30), st.floats(-1e3, 1e3))
def test_a_common_shift_of_both_leaves_their_difference(values, shift):
    ours, control = np.asarray(values), np.asarray(values)[::-1]
    a, b = Measure.paired(ours, control), Measure.paired(ours + shift, control + shift)
    # Adding the shift rounds at 1e6 · 2⁻⁵².
    assert b.value == pytest.approx(a.value, abs=1e-8)
    assert a.low <= a.value <= a.high


def test_no_spread_has_an_interval_without_width():
    measure = Measure.over_seeds([0.1, 0.1, 0.1])
    assert measure.low == measure.value == measure.high
    assert measure.method == "no spread over 3 seeds"


def test_exact():
    assert Measure.exact(2).intervals() == [(2.0, 2.0, 2.0)]
    assert Measure.exact(2, 0.5).intervals() == [(2.0, 1.5, 2.5)]
    assert Measure.exact(2).method == "exact" and Measure.exact(2, 0.5).method == "error bound"
    assert isinstance(Measure.exact(2).value, float)


def test_sequence_keeps_the_order():
    measure = Measure.sequence([Measure.exact(3), Measure.exact(1, 0.5), Measure.exact(2)])
    assert measure.intervals() == [(3, 3, 3), (1, 0.5, 1.5), (2, 2, 2)]
    assert measure.method == "exact; error bound"
    assert repr(measure).startswith("Measure(3 [3, 3], 1 [0.5, 1.5]")


def test_an_order_is_judged_by_paired_differences():
    shared = 10 * np.arange(8.0)
    rows = [shared + level + 0.1 * np.random.default_rng(level).normal(size=8) for level in range(3)]
    paired, apart = Measure.paired_sequence(rows), Measure.sequence([Measure.over_seeds(row) for row in rows])
    assert paired.intervals() == apart.intervals()
    assert paired.rises() == [Measure.paired(after, before).intervals()[0][1:] for before, after in pairwise(rows)]
    assert all(low > 0 for low, _ in paired.rises()) and all(low < 0 < high for low, high in apart.rises())
    assert paired.method == "Student's t over 8 seeds; order by paired differences"
    ascending, descending = (Criterion.parse({"ordered": order}) for order in ("ascending", "descending"))
    assert ascending.judge(paired) == "holds" and descending.judge(paired) == "fails" and ascending.judge(apart) == "undecided"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Measure.over_seeds([1.0, 2.0]), "values must hold at least 3 repetitions, got 2"),
        (lambda: Measure.over_seeds([1.0, math.inf, 2.0]), "values must be finite, got"),
        (lambda: Measure.median([1.0, 2.0]), "values must hold at least 3 repetitions, got 2"),
        (lambda: Measure.median([1.0, math.nan, 2.0]), "values must be finite, got"),
        (lambda: Measure.paired([1.0, 2.0, 3.0], [1.0, 2.0]), "control must hold at least 3"),
        (lambda: Measure.paired([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]), "must be paired, got 3 and 4"),
        (lambda: Measure.paired([1.0, 2.0, 0.0], [1.0, 2.0, 3.0], "log-ratio"), "needs positive values, got a minimum of 0"),
        (lambda: Measure.paired([1.0, 2.0, 3.0], [1.0, 2.0, 0.0], "log-ratio"), "needs positive values, got a minimum of 0"),
        (lambda: Measure.exact(1.0, -0.1), "error must be at least 0, got -0.1"),
        (lambda: Measure.exact(math.nan), "must not be NaN"),
        (lambda: Measure.exact(1.0, math.nan), "error must be at least 0, got nan"),
        (lambda: Measure(1.0, 2.0, 3.0), r"must lie in its interval, got 1.0 outside \[2.0, 3.0\]"),
        (lambda: Measure((1.0, 2.0), (1.0,), (1.0, 2.0)), "must have one length"),
        (lambda: Measure((), (), ()), "must have one length"),
        (lambda: Measure((1.0, 2.0), (1.0, 2.0), (1.0, 2.0), steps=((0.0, 1.0),) * 2), "one fewer than entries, got 2 of 2"),
        (lambda: Measure((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (1.0, 2.0, 3.0), steps=((0.0, 1.0),)), "one fewer than entries, got 1 of 3"),
        (lambda: Measure.paired_sequence([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]]), "must be paired, got 4 and 3"),
        (lambda: Measure.sequence([]), "at least one measure, got none"),
        (lambda: Measure.sequence([Measure.sequence([Measure.exact(1), Measure.exact(2)])]), "plain measures, got a sequence of 2"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bootstrap_is_as_wide_as_a_normal_interval_and_leans_to_the_long_tail():
    samples = -np.log1p(-(np.arange(50) + 0.5) / 50)  # quantiles of an exponential distribution
    measure = Measure.over_seeds(samples)
    error, skewness, z = samples.std() / 50**0.5, stats.skew(samples), 1.96
    assert measure.high - measure.low == pytest.approx(2 * z * error, rel=0.1)
    # What BCa moves the middle by, of second order; percentiles alone would move it by (z² - 1), a third of that.
    shift = error * skewness * (2 * z**2 + 1) / (6 * 50**0.5)
    assert (measure.low + measure.high) / 2 - measure.value == pytest.approx(shift, rel=0.3)


def test_a_paired_measure_is_that_of_its_differences_or_their_logarithms():
    ours, control = np.array([3.0, 5.0, 9.0]), np.array([1.0, 2.0, 3.0])
    paired, alone = Measure.paired(ours, control), Measure.over_seeds([2.0, 3.0, 6.0])
    assert paired.intervals() == alone.intervals() and paired.samples == (2, 3, 6)
    assert paired.method == "Student's t over 3 paired differences"
    ratio, logs = Measure.paired(ours, control, "log-ratio"), Measure.over_seeds(np.log(ours / control))
    assert ratio.intervals()[0] == pytest.approx(np.exp(logs.intervals()[0]), rel=1e-12)
    assert ratio.method == "Student's t over 3 paired log-ratios"
