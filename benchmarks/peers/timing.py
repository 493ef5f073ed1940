"""How long a call takes, the same way for all contestants. The standard library only."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(call: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def rounds(call: Callable[[], object]) -> int:
    """How often to repeat a call, to be told by one of them: for a second, but from three to five hundred times."""
    return min(max(round(1 / seconds(call)), 3), 500)


def median(call: Callable[[], object]) -> float:
    """The median of as many calls."""
    return statistics.median(seconds(call) for _ in range(rounds(call)))


def beyond_start(solve: Callable[[float], object], end: float, times: int) -> float:
    """Seconds of a solution until `end` whose every call compiles: what `times` as many more steps take beyond it, by one of them.

    With enough of them compilation, which does not always take the same time, does not count.
    """
    short, long = (seconds(lambda until=until: solve(until)) for until in (end, (1 + times) * end))
    return (long - short) / times
