"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Rates:
    """Errors of the limits on an interval: n₀ = 5 (1 + 0.8 cos πx), c₀ = 2 + cos 2πx, w₀ = 1."""

    cells: Annotated[int, Between(8, 4096)] = 64
    "Cells of the interval (0, 1)."
    spreading: Annotated[float, Between(1e-3, 100.0)] = 0.2
    "τ of the elliptic limit."
    time_scales: Annotated[tuple[float, ...], Between(1e-8, 0.2)] = (0.04, 0.02, 0.01, 0.005)
    "ε of the elliptic limit, falling."
    joint: Annotated[tuple[float, ...], Between(1e-8, 0.2)] = (0.02, 0.01, 0.005)
    "ε = τ of the direct limit, falling."
    spreadings: Annotated[tuple[float, ...], Between(1e-8, 10.0)] = (0.02, 0.01, 0.005)
    "τ of the direct limit at a fixed time scale, falling."
    small_time_scale: Annotated[float, Between(1e-8, 0.2)] = 1e-4
    "That time scale."
    time: Annotated[float, Between(1e-3, 100.0)] = 0.5
    "End time."
    layer_steps: Annotated[int, Between(20, 100_000)] = 1600
    "Steps up to 10 ε; half of them for the error bound."
    later_steps: Annotated[int, Between(20, 100_000)] = 3200
    "Growing steps after that."
    ball_cells: Annotated[int, Between(8, 4096)] = 80
    "Shells of a ball in four dimensions, at half the critical mass."
    square_cells: Annotated[int, Between(8, 1024)] = 64
    "Cells of a square along each side, for two time scales."


@dataclass(frozen=True)
class Layer:
    """How the signals fall onto the manifold of the limit."""

    time_scales: Annotated[tuple[float, ...], Between(1e-8, 0.2)] = (1e-3, 5e-4, 2.5e-4)
    "ε, falling."
    time: Annotated[float, Between(1e-4, 10.0)] = 0.03
    "End time, some tens of the largest ε."
    steps_per_scale: Annotated[int, Between(10, 10_000)] = 100
    "Steps in the smallest ε."


@dataclass(frozen=True)
class Waves:
    """Growth of the first cosine on a uniform state."""

    densities: Annotated[tuple[float, ...], Between(1e-3, 100.0)] = (0.6, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.4)
    "Mean densities, in units of the threshold."
    time_scales: Annotated[tuple[float, ...], Between(1e-8, 10.0)] = (0.1, 0.01)
    "ε, beside the limit."
    dt: Annotated[float, Between(1e-6, 0.1)] = 5e-4
    "Time step; half of it too, to extrapolate."


@dataclass(frozen=True)
class Balls:
    """Gaussians of various masses in the unit ball, four dimensions (indirect) and two (direct)."""

    cells: Annotated[int, Between(20, 4096)] = 240
    "Shells."
    width: Annotated[float, Between(1e-2, 0.5)] = 0.1
    "Of the Gaussian exp(-(r/width)²)."
    masses: Annotated[tuple[float, ...], Between(0.1, 10.0)] = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.5)
    "In units of the critical mass, rising."
    spreading: Annotated[float, Between(1e-3, 100.0)] = 1.0
    "τ in four dimensions; a quarter of it too."
    time: Annotated[float, Between(1e-4, 1.0)] = 0.02
    "End time."
    brisk: Annotated[float, Between(1e-4, 0.2)] = 0.01
    "Largest relative change in a step; a fifth of it lets the step grow."
    refinements: Annotated[int, Between(0, 6)] = 2
    "Times that the interval between falling and growing peaks is divided again."


@dataclass(frozen=True)
class Patterns:
    """Aggregates from a nearly uniform start, on a long interval and in a square."""

    cells: Annotated[int, Between(8, 1024)] = 96
    "Cells along each side of the square; three times as many on the interval."
    side: Annotated[float, Between(0.5, 100.0)] = 4.0
    "Of the square; the interval is three times as long."
    density: Annotated[float, Between(0.1, 1000.0)] = 6.0
    "Mean density on the interval."
    square_density: Annotated[float, Between(0.1, 1000.0)] = 8.0
    "Mean density in the square."
    time_scale: Annotated[float, Between(1e-8, 10.0)] = 0.05
    "ε of the full system."
    spreading: Annotated[float, Between(1e-3, 100.0)] = 0.3
    "τ of the indirect systems."
    time: Annotated[float, Between(0.01, 1000.0)] = 8.0
    "End time in the square; three times as long on the interval."
    dt: Annotated[float, Between(1e-6, 1.0)] = 2e-3
    "Time step."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    rates: Rates = field(default_factory=Rates)
    layer: Layer = field(default_factory=Layer)
    waves: Waves = field(default_factory=Waves)
    balls: Balls = field(default_factory=Balls)
    patterns: Patterns = field(default_factory=Patterns)
