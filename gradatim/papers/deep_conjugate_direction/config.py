"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Training:
    """Networks and the right-hand sides that they learn from."""

    channels: Annotated[int, Between(1, 256)] = 16
    "Of every convolution."
    pairs: Annotated[tuple[int, ...], Between(0, 20)] = (1, 3, 2)
    "Residual pairs before, below and above the half resolution: three numbers."
    use_bias: bool = False
    "Without, the network is positively homogeneous."
    ritz_steps: Annotated[int, Between(4, 20_000)] = 256
    "Of Lanczos, on the empty box."
    boost: Annotated[float, Between(1.0, 1000.0)] = 9.0
    "Standard deviation of the coefficients at the low end of the spectrum; beside it networks are trained with 1."
    low_fraction: Annotated[float, Between(0.0, 1.0)] = 0.55
    "Of the Ritz vectors, which are at the low end."
    samples: Annotated[int, Between(10, 1_000_000)] = 2000
    "Right-hand sides for each network, of which a tenth is held out."
    batch_size: Annotated[int, Between(1, 10_000)] = 16
    "Right-hand sides a step."
    steps: Annotated[int, Between(1, 10_000_000)] = 300
    "Of Adam, its rate along a cosine to zero."
    learning_rate: Annotated[float, Between(1e-6, 1.0)] = 2e-3
    "At the start."
    clip: Annotated[float, Between(1e-3, 1e6)] = 1.0
    "Largest norm of a gradient."
    seeds: Annotated[int, Between(3, 100)] = 10
    "Networks of either kind; those of one seed share first weights, coefficients and batches."


@dataclass(frozen=True)
class Config:
    """Networks trained on one box, and the systems that they are used for."""

    dimensions: Annotated[int, Between(2, 3)] = 2
    "Of the boxes."
    side: Annotated[int, Between(8, 1024)] = 32
    "Cells a side of the box for training; even."
    with_larger: bool = True
    "Whether boxes twice and three times as wide are solved too, without training anew."
    radius: Annotated[float, Between(0.01, 0.45)] = 0.15
    "Of the solid disk, or ball, in units of the side."
    training: Training = Training()
    "Of the networks."
    right_hand_sides: Annotated[int, Between(1, 10_000)] = 8
    "Smooth ones for each seed, and as many of white noise."
    right_hand_sides_larger: Annotated[int, Between(1, 10_000)] = 4
    "On larger boxes."
    histories: Annotated[tuple[int, ...], Between(0, 100)] = (0, 1, 2, 3, 5, 10)
    "Earlier directions to conjugate against; 0, 2 and 10 must be among them."
    histories_larger: Annotated[tuple[int, ...], Between(0, 100)] = (0, 1, 2, 5)
    "On larger boxes; 2 must be among them."
    max_steps: Annotated[int, Between(10, 100_000)] = 200
    "Of the loop with learned directions."
    deflated: Annotated[int, Between(1, 1000)] = 16
    "Lowest Ritz vectors that deflation solves for, the authors' number."
    repeats: Annotated[int, Between(1, 10_000)] = 25
    "Of each solver that is timed, for each seed."
