"""Measured numbers with a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

CONFIDENCE = 0.95
BOOTSTRAP_FROM = 20
"Samples from which the bootstrap takes over from Student's t (below, its coverage falls short: 75 % at three)."


@dataclass(frozen=True)
class Measure:
    """A number, or an ordered tuple of numbers, with its 95 % interval and how that was made.

    **Arguments:** `value`, `low`, `high`: floats, or tuples of equal length for a measure that is judged by its order;
    `method`: one line on the interval; `samples`: the per-seed values behind it; `steps`: intervals `(low, high)` of each entry
    less the one before, where both were measured on the same seeds; an order is judged by them.

    **Raises:** `ValueError` if a number is NaN, if the lengths differ, if not `low <= value <= high`, or unless there are no steps or
    one fewer than entries.

    >>> Measure.over_seeds([1.0, 1.2, 1.1])
    Measure(1.1 [0.8516, 1.348], Student's t over 3 seeds)
    """

    value: float | tuple[float, ...]
    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    method: str = ""
    samples: tuple[float, ...] = ()
    steps: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        parts = [_as_tuple(part) for part in (self.low, self.value, self.high)]
        if len({len(part) for part in parts}) != 1 or not parts[0]:
            raise ValueError(f"value, low and high must have one length, got {[len(part) for part in parts]}")
        for low, value, high in zip(*parts, strict=True):
            if math.isnan(low) or math.isnan(value) or math.isnan(high):
                raise ValueError(f"a measure must not be NaN, got value {value}, interval [{low}, {high}]")
            if not low <= value <= high:
                raise ValueError(f"value must lie in its interval, got {value} outside [{low}, {high}]")
        if self.steps and len(self.steps) != len(parts[0]) - 1:
            raise ValueError(f"steps must be one fewer than entries, got {len(self.steps)} of {len(parts[0])}")
        if not isinstance(self.value, tuple):
            for name in ("value", "low", "high"):
                object.__setattr__(self, name, float(getattr(self, name)))

    def __repr__(self) -> str:
        if isinstance(self.value, tuple):
            inner = ", ".join(f"{v:.4g} [{a:.4g}, {b:.4g}]" for v, a, b in self.intervals())
        else:
            inner = f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"
        return f"Measure({inner}, {self.method})"

    def intervals(self) -> list[tuple[float, float, float]]:
        """`(value, low, high)` of each entry; one entry for a plain number."""
        return list(zip(_as_tuple(self.value), _as_tuple(self.low), _as_tuple(self.high), strict=True))

    def rises(self) -> list[tuple[float, float]]:
        """Intervals of each entry less the one before: the `steps`, or else what the entries' own intervals allow."""
        if self.steps:
            return list(self.steps)
        return [(b_low - a_high, b_high - a_low) for (_, a_low, a_high), (_, b_low, b_high) in pairwise(self.intervals())]

    @classmethod
    def exact(cls, value: float, error: float = 0.0) -> Measure:
        """A deterministic number with a bound on its error: `[value - error, value + error]`."""
        if not error >= 0:
            raise ValueError(f"error must be at least 0, got {error}")
        return cls(value, value - error, value + error, "exact" if error == 0 else "error bound")

    @classmethod
    def over_seeds(cls, values: Sequence[float] | np.ndarray) -> Measure:
        """Mean of independent repetitions: Student's t below 20 samples, bootstrap (BCa) from there on.

        **Raises:** `ValueError` for fewer than three values or any that is not finite (a diverged seed is not a number).
        """
        samples = _samples(values, "values")
        low, high, method = _mean_interval(samples, "seeds")
        return cls(float(samples.mean()), low, high, method, tuple(map(float, samples)))

    @classmethod
    def median(cls, values: Sequence[float] | np.ndarray) -> Measure:
        """Median of independent repetitions, between order statistics, whatever the distribution.

            P(x₍ₖ₊₁₎ ≤ median ≤ x₍ₙ₋ₖ₎) = 1 - 2 P(B ≤ k),     B ~ Binomial(n, ½),

        with the largest k that leaves 95 %; below six samples none does: the interval then ends at the extremes, and `method` says
        what they reach.

        **Raises:** `ValueError` for fewer than three values or any that is not finite.

        >>> Measure.median([3.0, 1.0, 2.0, 5.0, 4.0])
        Measure(3 [1, 5], order statistics of 5 seeds, 93.8 %)
        """
        from scipy import special

        samples = _samples(values, "values")
        ordered, n = np.sort(samples), samples.size
        missed = 2 * special.bdtr(np.arange(n // 2), n, 0.5)
        k = max(int(np.count_nonzero(missed <= 1 - CONFIDENCE)) - 1, 0)
        method = f"order statistics of {n} seeds, {100 * (1 - missed[k]):.3g} %"
        return cls(float(np.median(ordered)), float(ordered[k]), float(ordered[-1 - k]), method, tuple(map(float, samples)))

    @classmethod
    def paired(
        cls,
        ours: Sequence[float] | np.ndarray,
        control: Sequence[float] | np.ndarray,
        kind: Literal["difference", "log-ratio"] = "difference",
    ) -> Measure:
        """Ours against the control, seed by seed: the mean of `ours - control`, or the geometric mean of `ours / control`.

        **Raises:** `ValueError` if the lengths differ, for fewer than three pairs, for values that are not finite, or, with
        `"log-ratio"`, for values that are not positive.
        """
        a, b = _samples(ours, "ours"), _samples(control, "control")
        if a.shape != b.shape:
            raise ValueError(f"ours and control must be paired, got {a.size} and {b.size} values")
        if kind == "difference":
            low, high, method = _mean_interval(a - b, "paired differences")
            return cls(float((a - b).mean()), low, high, method, tuple(map(float, a - b)))
        if kind != "log-ratio":
            raise ValueError(f"kind must be 'difference' or 'log-ratio', got {kind!r}")
        if min(a.min(), b.min()) <= 0:
            raise ValueError(f"a log-ratio needs positive values, got a minimum of {min(a.min(), b.min())}")
        logs = np.log(a / b)
        low, high, method = _mean_interval(logs, "paired log-ratios")
        value = float(np.exp(logs.mean()))
        return cls(value, min(math.exp(low), value), max(math.exp(high), value), method, tuple(map(float, np.exp(logs))))

    @classmethod
    def jackknife(
        cls, value: float, left_out: Mapping[str, Sequence[float] | np.ndarray], scale: Literal["plain", "log", "fisher"] = "plain"
    ) -> Measure:
        """A statistic of independent repetitions that is no mean of theirs, its interval from leaving out one after the other.

            s² = Σⱼ (nⱼ - 1)²/nⱼ · var θ₋ᵢ

        with Student's t of n - 1 degrees of freedom (Tukey's jackknife). Repetitions may cross, as networks and the trials that all of
        them take: each kind j has its variance, and their degrees of freedom join as Satterthwaite's do.

        **Arguments:** `value`: of all repetitions; `left_out`: for each kind of repetition, by its name, the value without the first,
        without the second, and so on; `scale`: on which the statistic spreads evenly: `"log"` for ratios, `"fisher"` (the inverse
        hyperbolic tangent) for correlations.

        **Raises:** `ValueError` for no kind, for one of fewer than three repetitions, for values that are not finite or, with `"log"`,
        not positive.

        >>> Measure.jackknife(1.1, {"seeds": [1.15, 1.05, 1.1]})  # the mean of 1.0, 1.2 and 1.1
        Measure(1.1 [0.8516, 1.348], jackknife over 3 seeds)
        """
        if not left_out:
            raise ValueError("left_out must hold the values of at least one kind of repetition, got none")
        there, back = _SCALES[scale]
        kinds = [_samples(values, f"left_out of {name}") for name, values in left_out.items()]
        smallest = min(value, *(float(values.min()) for values in kinds))
        if scale == "log" and smallest <= 0:
            raise ValueError(f"a log scale needs positive values, got {smallest}")
        method = f"jackknife over {' and '.join(f'{values.size} {name}' for name, values in zip(left_out, kinds, strict=True))}"
        sizes = np.array([values.size for values in kinds], float)
        spreads = np.array([(n - 1) ** 2 / n * there(values).var(ddof=1) for n, values in zip(sizes, kinds, strict=True)])
        if not spreads.any():
            return cls(value, value, value, f"{method}, no spread")
        degrees = spreads.sum() ** 2 / (spreads**2 / (sizes - 1)).sum()
        half = student_factor(degrees + 1) * math.sqrt(spreads.sum())
        low, high = (float(back(there(np.asarray(value)) + sign * half)) for sign in (-1, 1))
        return cls(value, min(low, value), max(high, value), method)

    @classmethod
    def leave_one_out(
        cls, statistic: Callable[[np.ndarray], float], n: int, *, of: str = "seeds", scale: Literal["plain", "log", "fisher"] = "plain"
    ) -> Measure:
        """The jackknife of a statistic that is taken again without each of `n` repetitions.

        For what the repetitions say of each other, as where each is read at the choice that is best for all the others
        ([`choice_by_others`][gradatim.lab.choice_by_others]): where choices are nearly tied, one repetition turns those of all others, and
        Student's interval of the values that are read holds the true one in four of five cases only. This one then is wider, and the same
        where all choose alike.

        **Arguments:** `statistic`: takes the numbers of the repetitions that are there, ascending, and gives a number; `n`: how many there
        are, at least three; `of`: what is repeated; `scale`: as of
        `jackknife`.

        **Raises:** `ValueError` for fewer than three repetitions, and as `jackknife` does.

        >>> values = np.array([1.0, 1.2, 1.1, 1.3])
        >>> Measure.leave_one_out(lambda kept: values[kept].mean(), 4)
        Measure(1.15 [0.9446, 1.355], jackknife over 4 seeds)
        """
        if n < 3:
            raise ValueError(f"n must be at least 3, got {n}")
        left_out = [float(statistic(np.delete(np.arange(n), i))) for i in range(n)]
        return cls.jackknife(float(statistic(np.arange(n))), {of: left_out}, scale)

    @classmethod
    def sequence(cls, measures: Sequence[Measure]) -> Measure:
        """Several plain measures as one, to be judged by their order.

        **Raises:** `ValueError` for none, or for one that is a sequence already.
        """
        if not measures:
            raise ValueError("a sequence must hold at least one measure, got none")
        for measure in measures:
            if len(measure.intervals()) != 1:
                raise ValueError(f"a sequence must hold plain measures, got a sequence of {len(measure.intervals())} in it")
        rows = [m.intervals()[0] for m in measures]
        values, lows, highs = (tuple(column) for column in zip(*rows, strict=True))
        return cls(values, lows, highs, "; ".join(dict.fromkeys(m.method for m in measures)))

    @classmethod
    def paired_sequence(cls, rows: Sequence[Sequence[float] | np.ndarray]) -> Measure:
        """Means at several levels from the same seeds, to be judged by their order: by the paired differences of neighbours.

        What the seeds share cancels; that the levels' own intervals overlap then does not mean that the order is unknown.

        **Raises:** `ValueError` if the lengths differ, for no level, fewer than three seeds or values that are not finite.

        >>> Measure.paired_sequence([[1.0, 2.0, 3.0], [1.1, 2.2, 3.3]])
        Measure(2 [-0.4841, 4.484], 2.2 [-0.5326, 4.933], Student's t over 3 seeds; order by paired differences)
        """
        levels = cls.sequence([cls.over_seeds(row) for row in rows])
        steps = [cls.paired(after, before) for before, after in pairwise(rows)]
        method = f"{levels.method}; order by paired differences" if steps else levels.method
        return replace(levels, method=method, steps=tuple(step.intervals()[0][1:] for step in steps))


def _fisher(correlation: Any) -> Any:
    # A correlation of one has no finite z.
    return np.arctanh(np.clip(correlation, 1e-6 - 1, 1 - 1e-6))


_SCALES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "plain": (np.asarray, np.asarray),
    "log": (np.log, np.exp),
    "fisher": (_fisher, np.tanh),
}
"There and back."


def student_factor(n: float) -> float:
    """The half width of Student's 95 % interval over the standard error of n samples.

    >>> print(f"{student_factor(3):.3f}")
    4.303
    """
    # The function behind `scipy.stats.t.ppf`, without the second that scipy.stats takes to import.
    from scipy import special

    return float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def _as_tuple(number: float | tuple[float, ...]) -> tuple[float, ...]:
    return number if isinstance(number, tuple) else (number,)


def _samples(values: Sequence[float] | np.ndarray, name: str) -> np.ndarray:
    samples = np.asarray(values, np.float64).ravel()
    if samples.size < 3:
        raise ValueError(f"{name} must hold at least 3 repetitions, got {samples.size}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} must be finite, got {samples.tolist()}")
    return samples


def _mean_interval(samples: np.ndarray, what: str) -> tuple[float, float, str]:
    n, mean, spread = samples.size, float(samples.mean()), float(samples.std(ddof=1))
    # Not spread == 0: the mean of equal numbers is rounded, and they then seem to differ from it.
    if samples.min() == samples.max():
        return mean, mean, f"no spread over {n} {what}"
    if n < BOOTSTRAP_FROM:
        half = student_factor(n) * spread / math.sqrt(n)
        return mean - half, mean + half, f"Student's t over {n} {what}"
    from scipy import stats

    # A fixed generator: the interval is a function of the samples alone.
    interval = stats.bootstrap(
        (samples,), np.mean, confidence_level=CONFIDENCE, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return min(float(interval.low), mean), max(float(interval.high), mean), f"bootstrap over {n} {what}"
