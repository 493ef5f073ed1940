"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Quadratic:
    """Least squares on both levels with uniform matrices: badly conditioned, everything known in closed form."""

    rows: Annotated[int, Between(2, 100_000)] = 1000
    "Rows of each matrix."
    columns: Annotated[int, Between(1, 1000)] = 10
    "Columns: unknowns, and parameters."
    accuracies: Annotated[tuple[float, ...], Between(1e-10, 100.0)] = (1e-1, 1e-3, 1e-5)
    "First accuracies, of the lower solution and of the linear system alike; also the fixed ones."
    work: Annotated[int, Between(10, 100_000_000)] = 100_000
    "Lower gradients a run may spend, products counted as two."
    draws: Annotated[int, Between(3, 1000)] = 6
    "Random problems."


@dataclass(frozen=True)
class Well:
    """The same with singular values from 1 to 2, also of what f is made of."""

    rows: Annotated[int, Between(2, 1000)] = 8
    "Rows of each matrix."
    columns: Annotated[int, Between(1, 1000)] = 4
    "Columns."
    draws: Annotated[int, Between(3, 1000)] = 5
    "Random problems."
    accuracies: Annotated[tuple[float, ...], Between(1e-10, 100.0)] = (1.0, 1e-1, 1e-3, 1e-6)
    "First accuracies."
    stop_at: Annotated[float, Between(1e-9, 1.0)] = 1e-5
    "Gradient norm that a run must certify."
    coarse: Annotated[float, Between(1e-10, 100.0)] = 1e-3
    "Fixed accuracy that is too low."
    fine: Annotated[float, Between(1e-10, 100.0)] = 1e-6
    "Fixed accuracy that is nearly high enough."


@dataclass(frozen=True)
class Penalties:
    """A penalty for each weight of a linear classifier of digits."""

    samples: Annotated[int, Between(10, 599)] = 599
    "Digits in each of three parts: training, validation, untouched."
    start: Annotated[float, Between(-10.0, 10.0)] = -3.0
    "First logarithm of each penalty."
    accuracy: Annotated[float, Between(1e-10, 100.0)] = 1e-1
    "First accuracy."
    work: Annotated[int, Between(10, 100_000_000)] = 20_000
    "Lower gradients a run may spend, products counted as two."
    shuffles: Annotated[int, Between(3, 1000)] = 3
    "Random divisions of the digits."
    looks: Annotated[int, Between(2, 1000)] = 6
    "Points of a run at which its true loss is computed."
    precision: Annotated[float, Between(1e-10, 1.0)] = 1e-5
    "Norm of the lower gradient at which a true loss is taken."


@dataclass(frozen=True)
class Denoising:
    """Total variation and a field of experts, learned on pieces of photographs."""

    side: Annotated[int, Between(8, 213)] = 64
    "Pixels of a piece."
    images: Annotated[int, Between(1, 30)] = 4
    "Pieces to learn from; as many others are to be denoised."
    noise: Annotated[float, Between(0.001, 1.0)] = 0.1
    "Standard deviation of the noise; grey values lie in [0, 1]."
    repeats: Annotated[int, Between(3, 1000)] = 6
    "Random choices of pieces and noise."
    accuracy: Annotated[float, Between(1e-8, 1000.0)] = 1e-1
    "First accuracy."
    fixed: Annotated[tuple[float, ...], Between(1e-8, 1000.0)] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    "Fixed accuracies."
    work: Annotated[int, Between(10, 100_000_000)] = 80_000
    "Lower gradients that learning total variation may spend, products counted as two."
    experts_work: Annotated[int, Between(10, 100_000_000)] = 80_000
    "Likewise for the field of experts."
    filter_side: Annotated[int, Between(2, 7)] = 3
    "Pixels of a filter: side² - 1 cosine products."
    coarse_grid: Annotated[tuple[int, int], Between(2, 100)] = (9, 6)
    "Points of the exhaustive search in log 2w and log ν, over the whole range and then over the cells around the best."
    precision: Annotated[float, Between(1e-10, 1.0)] = 1e-2
    "Accuracy of a lower solution for a true loss."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    quadratic: Quadratic = field(default_factory=Quadratic)
    well: Well = field(default_factory=Well)
    penalties: Penalties = field(default_factory=Penalties)
    denoising: Denoising = field(default_factory=Denoising)
