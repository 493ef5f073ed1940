"""Wall time split into compiling and running."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

_COMPILING = "/jax/core/compile/"


class _Compilations:
    """The seconds this process has spent tracing, lowering and compiling, from JAX's own monitoring."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def __call__(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.startswith(_COMPILING):
            end = time.perf_counter()
            start = end - duration_secs
            # A function traced inside another reports first: its span lies in the outer one and must not count twice.
            while self._spans and self._spans[-1][0] >= start:
                self._spans.pop()
            self._spans.append((start, end))

    def since(self, start: float) -> float:
        """Seconds compiled after the moment `start`."""
        total = 0.0
        for begin, end in reversed(self._spans):
            if end <= start:
                break
            total += end - max(begin, start)
        return total


_compilations = _Compilations()
jax.monitoring.register_event_duration_secs_listener(_compilations)


@contextmanager
def counted(seconds: dict[str, float]) -> Iterator[None]:
    """Adds the time spent inside to `seconds["compile"]` and `seconds["run"]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        wall, compiling = time.perf_counter() - start, _compilations.since(start)
        seconds["compile"] += min(compiling, wall)
        seconds["run"] += max(wall - compiling, 0.0)
