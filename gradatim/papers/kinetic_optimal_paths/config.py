"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Images:
    """Estimates of the data separation of digits and of patches of photographs."""

    digits: Annotated[int, Between(10, 1797)] = 1797
    "Points, averaged to 2 × 2 and 4 × 4 pixels, and as they are."
    patches: Annotated[int, Between(10, 100_000)] = 2000
    "Points of a replicate, the same places for all sides."
    sides: Annotated[tuple[int, ...], Between(1, 256)] = (4, 8, 16, 32)
    "Pixels a side, ascending."
    nodes: Annotated[int, Between(8, 1024)] = 96
    "Angles from 0 to π/2 at which λ is estimated."
    noise: Annotated[int, Between(16, 100_000)] = 512
    "Noisy points an estimate."
    replicates: Annotated[int, Between(3, 100)] = 4
    "Estimates with noise of their own, and patches from places of their own, for the intervals."
    samples: Annotated[int, Between(16, 10_000_000)] = 65_536
    "Of times, data and noise behind each energy by Monte Carlo."
    stable_points: Annotated[int, Between(10, 100_000)] = 8000
    "Patches of 8 × 8 pixels for the stability of the estimate, against half of them."
    stable_noise: Annotated[int, Between(16, 100_000)] = 2048
    "Noisy points for it, against half of them."
    stable_repeats: Annotated[int, Between(3, 100)] = 5
    "Of it, with patches and noise of their own."


@dataclass(frozen=True)
class Solver:
    """The flow of the exact velocity of the digits."""

    replicates: Annotated[int, Between(3, 100)] = 8
    "Each with an optimal path from an estimate of its own, and with starting points of its own."
    noise: Annotated[int, Between(16, 100_000)] = 2048
    "Noisy points behind an optimal path."
    samples: Annotated[int, Between(1, 10_000)] = 32
    "Starting points of a replicate, the same for all paths."
    tolerance: Annotated[float, Between(1e-9, 1e-1)] = 1e-5
    "Absolute and relative, per step."


@dataclass(frozen=True)
class Checkerboard:
    """Networks trained on a checkerboard."""

    points: Annotated[int, Between(10, 100_000)] = 4000
    "Points behind a seed's estimate of the data separation, which makes its optimal path."
    noise: Annotated[int, Between(16, 100_000)] = 4096
    "Noisy points behind that estimate."
    nodes: Annotated[int, Between(8, 1024)] = 64
    "Angles."
    floor: Annotated[float, Between(1e-4, 1)] = 0.05
    "Least √γ of the optimal path: it bounds the variance of the training target at the noise."
    width: Annotated[int, Between(1, 4096)] = 64
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 20)] = 4
    "Hidden layers."
    batch_size: Annotated[int, Between(1, 100_000)] = 256
    "Fresh points a step."
    steps: Annotated[int, Between(1, 10_000_000)] = 10_000
    "Of Adam."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 1e-3
    "Constant, the same for all paths."
    seeds: Annotated[int, Between(3, 100)] = 15
    "Networks a path; those of one seed share initial weights, data, noise and times, and each seed has an optimal path of its own."
    euler: Annotated[tuple[int, ...], Between(1, 4096)] = (2, 6, 10, 16)
    "Counts of steps."
    samples: Annotated[int, Between(16, 1_000_000)] = 8192
    "Points drawn from a network, and held out to compare them with."
    directions: Annotated[int, Between(1, 1000)] = 32
    "Of the sliced distance."
    energy_samples: Annotated[int, Between(16, 10_000_000)] = 32_768
    "Behind each kinetic energy."


@dataclass(frozen=True)
class Config:
    """Images, a solver and a checkerboard."""

    images: Images = Images()
    "What is known of data in noise."
    solver: Solver = Solver()
    "What an adaptive solver takes."
    checkerboard: Checkerboard = Checkerboard()
    "What few steps do."
