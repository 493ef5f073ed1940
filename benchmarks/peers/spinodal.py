"""The Cahn–Hilliard problem that all contestants solve, and the rule that makes their speeds comparable: equal error. NumPy only.

    ∂u/∂t = ∇²(u³ - u - γ ∇²u),   γ = 3.125: interfaces with δ = 2.5 cells; n × n cells of side 1

The start is smooth, periodic and even about x = 0, so that walls and periodic edges give the same solution. Each contestant's time step is
the largest of `TIME_STEPS` with which it ends within `TARGET` (relative, root mean square) of its own run with a step so small that its
error in time is gone: the grid's own error is no part of the comparison.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import timing  # pyright: ignore[reportMissingImports]: beside this file, which is run as a script

GAMMA = 3.125
END = 32.0
TARGET = 1e-3
SIZES = (256, 512)
TIME_STEPS = tuple(END / n for n in (16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048))
REFERENCE = 0.00390625


@functools.cache
def start(n: int) -> np.ndarray:
    """Bands of random plane waves some ten interface widths long, amplitude of order one; made once, for it is no part of the work."""
    rng = np.random.default_rng(7)
    x = 2 * np.pi * (np.arange(n) + 0.5) / n
    shortest = n // 24
    field = np.zeros((n, n))
    for k in range(shortest // 2, shortest + 1):
        for m in range(0, shortest + 1, 2):
            field += rng.normal() * np.cos(k * x)[:, None] * np.cos(m * x + rng.uniform(0, 2 * np.pi))[None, :]
    return np.tanh(2 * field / field.std())


def error(end: np.ndarray, reference: np.ndarray) -> float:
    """Relative, root mean square."""
    return float(np.linalg.norm(end - reference) / np.linalg.norm(reference)) if np.isfinite(end).all() else np.inf


def rows(
    solve: Callable[[int, float, float], np.ndarray], name: str, reference: np.ndarray, n: int, steps: Sequence[float] = TIME_STEPS
) -> list[dict[str, Any]]:
    """The row of one contestant at one size; `solve(n, dt, end)` must have compiled, and must wait, when it returns."""
    for dt in steps:
        distance = error(solve(n, dt, END), reference)
        if distance <= TARGET:
            return [row(name, n, dt, timing.median(lambda dt=dt: solve(n, dt, END)), distance)]
    return []


def row(name: str, n: int, dt: float, seconds: float, distance: float | None) -> dict[str, Any]:
    """One row: seconds for `END` units of time."""
    info = {"time units a second": END / seconds, "dt": dt, "error in time": "not measured" if distance is None else distance}
    return {"group": f"cahn-hilliard {n}²", "name": name, "seconds": seconds, "info": info}
