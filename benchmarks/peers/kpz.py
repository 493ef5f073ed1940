"""The surface that all contestants let grow, and the rule that makes their speeds comparable: equal error. NumPy only.

    ∂φ/∂t = ∇²φ + ½ (∇φ)²   (M. Kardar, G. Parisi and Y.-C. Zhang 1986): the signal of polar chemotaxis with μ₁ = 0 and μ₂ = -½

On n or n × n cells of side ½, without noise, from a smooth start with slopes of order one, until shocks have formed. Each contestant's time
step is the largest of `TIME_STEPS` with which it ends within `TARGET` (relative, root mean square, without the mean) of its own run with a
step so small that its error in time is gone. With noise, on a line of `NOISY` cells of side 1, all take the same steps: φ's slope u obeys

    ∂u/∂t = ∂ₓ²u + ½ ∂ₓ(u²) + √(2T) ξ,   whose variance, from modes with S_u ~ 1/k at long wavelengths, settles at some 7 T here
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import timing  # pyright: ignore[reportMissingImports]: beside this file, which is run as a script

DX = 0.5
END = 16.0
TARGET = 1e-3
CASES = ((1, 512), (2, 256))
TIME_STEPS = tuple(END / n for n in (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192, 16384))
REFERENCE = END / 8192

NOISY = 512
NOISE = 0.1
NOISY_DT = 0.04
NOISY_STEPS = 20_000


@functools.cache
def start(dim: int, n: int) -> np.ndarray:
    """Random plane waves a sixteenth of the box and more long, slopes of order one, mean zero; made once, for it is no part of the work."""
    rng = np.random.default_rng(11)
    x = 2 * np.pi * np.arange(n) / n
    field = np.zeros((n,) * dim)
    for _ in range(24):
        k = rng.integers(-16, 17, dim)
        if not k.any():
            continue
        phase = sum(q * x.reshape([-1 if i == j else 1 for j in range(dim)]) for i, q in enumerate(k)) + rng.uniform(0, 2 * np.pi)
        field += rng.normal() * np.cos(phase) / np.sqrt((k**2).sum())
    slopes = np.stack(np.gradient(field, DX)) if dim > 1 else np.gradient(field, DX)[None]
    return (field - field.mean()) / np.sqrt((slopes**2).sum(0).mean())


def distance(field: np.ndarray, reference: np.ndarray) -> float:
    """Relative, root mean square, without the means."""
    a, b = field - field.mean(), reference - reference.mean()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b)) if np.isfinite(a).all() else np.inf


def rows(
    solve: Callable[[int, int, float], np.ndarray],
    name: str,
    reference: np.ndarray,
    dim: int,
    n: int,
    steps: Sequence[float] = TIME_STEPS,
) -> list[dict[str, Any]]:
    """The row of one contestant in one case; `solve(dim, n, dt)` must have compiled, and must wait, when it returns."""
    for dt in steps:
        error = distance(solve(dim, n, dt), reference)
        if error <= TARGET:
            return [row(name, dim, n, dt, timing.median(lambda dt=dt: solve(dim, n, dt)), error)]
    return []


def row(name: str, dim: int, n: int, dt: float, seconds: float, error: float) -> dict[str, Any]:
    """One row: seconds for `END` units of time."""
    info = {"time units a second": END / seconds, "dt": dt, "error in time": error}
    return {"group": group(dim, n), "name": name, "seconds": seconds, "info": info}


def group(dim: int, n: int) -> str:
    """Name of a case."""
    return f"surface growth {n}{'²' if dim == 2 else ''}"
