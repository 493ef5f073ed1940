"""Times rivals in turns: what slows the machine for a while slows all of them, and their ratio stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Rival:
    """Work to be timed, and what makes its arguments, untimed, before each time."""

    run: Callable[..., Any]
    prepare: Callable[[], tuple[Any, ...]] = tuple
    info: Mapping[str, Any] = field(default_factory=dict)


def in_turns(benchmark: Any, group: str, rivals: Mapping[str, Rival], *, rounds: int, warmup_rounds: int = 1) -> dict[str, float]:
    """Runs every rival once a round, in the order given, and files the median seconds of each as a row of its own."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}

    def turn() -> None:
        for name, rival in rivals.items():
            arguments = rival.prepare()
            start = time.perf_counter()
            rival.run(*arguments)
            seconds[name].append(time.perf_counter() - start)

    benchmark.group = group
    benchmark.pedantic(turn, rounds=rounds, warmup_rounds=warmup_rounds)
    medians = {name: median(times[warmup_rounds:]) for name, times in seconds.items()}
    benchmark.extra_info["rows"] = [{"name": name, "seconds": medians[name], "info": dict(rival.info)} for name, rival in rivals.items()]
    return medians
