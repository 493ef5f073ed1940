"""The generation of an evolution strategy that all contestants are timed on: any array library's arrays will do."""

from __future__ import annotations

from typing import Any

POPULATION, DIMENSION = 256, 1000
RADIUS, RATE, START = 0.05, 0.01, 1.0
LENGTH, ROUNDS = 100, 15
"Generations in a scan, and repetitions."
CALLED = "evolution strategy, 256 × 1,000, a generation called"
SCANNED = "evolution strategy, 256 × 1,000, 100 generations in a scan"


def fitness(points: Any) -> Any:
    """Mean square of each point: cheap, so that the strategy itself is timed."""
    return (points * points).mean(-1)
