"""The sizes of the experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Linear:
    """Linear students of noisy linear teachers, drawn."""

    parameters: Annotated[int, Between(20, 10_000)] = 400
    "N, input dimensions and weights."
    ratios: Annotated[tuple[float, ...], Between(0.05, 20)] = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
    "α, samples over parameters; 0.25, 0.5, 1, 2 and 4 must be among them."
    draws: Annotated[int, Between(15, 100_000)] = 160
    "Sets of inputs at each ratio."
    teachers: Annotated[int, Between(1, 10_000)] = 128
    "Teachers with noise and initial weights of their own on each set of inputs."
    snr: Annotated[float, Between(0.01, 1000)] = 5.0
    "Variance of the teacher's weights over that of the noise."
    motion_steps: Annotated[int, Between(10, 1_000_000)] = 1000
    "Steps of plain gradient descent, in which motion in frozen directions is looked for."


@dataclass(frozen=True)
class Students:
    """Students with a random first layer of ReLU units, of a noiseless ReLU teacher."""

    inputs: Annotated[int, Between(2, 1000)] = 15
    "Input dimensions, normal with variance 1."
    teacher_units: Annotated[int, Between(1, 1000)] = 20
    "Hidden units of the teacher."
    samples: Annotated[int, Between(8, 10_000)] = 50
    "Training samples P."
    widths: Annotated[tuple[float, ...], Between(0.02, 100)] = (0.1, 0.2, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 4.0, 8.0)
    "Hidden units over samples; 1 and 8 must be among them."
    trials: Annotated[int, Between(5, 100_000)] = 240
    "Teachers, samples and first layers."
    scaled: Annotated[tuple[float, ...], Between(1, 100)] = (2.0, 4.0)
    "Multiples of the samples at which the peak is looked for again, at widths of up to twice the samples."
    scaled_trials: Annotated[int, Between(3, 100_000)] = 20
    "Trials of these."
    spectrum_samples: Annotated[int, Between(10, 10_000)] = 300
    "Samples behind the spectra of hidden-layer correlations."
    spectrum_inputs: Annotated[int, Between(2, 10_000)] = 100
    "Input dimensions there."
    spectrum_draws: Annotated[int, Between(3, 1000)] = 5
    "Draws of them."


@dataclass(frozen=True)
class Digits:
    """Random ReLU features of handwritten digits, least squares on ten classes."""

    data: Annotated[str, OneOf("mnist-5k", "fashion-mnist", "digits")] = "mnist-5k"
    "Images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Pixels a side, to which the images are averaged down."
    samples: Annotated[int, Between(20, 10_000)] = 500
    "Training images."
    test: Annotated[int, Between(20, 10_000)] = 1000
    "Test images; the first half chooses when to stop, the second half is what is measured."
    widths: Annotated[tuple[float, ...], Between(0.02, 100)] = (0.2, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 2.0, 4.0)
    "Units over images."
    seeds: Annotated[int, Between(3, 1000)] = 5
    "Training sets, halves of the test images and first layers."


@dataclass(frozen=True)
class Trained:
    """Two-layer ReLU networks with both layers trained, on noisy labels of a ReLU teacher."""

    samples: Annotated[int, Between(8, 100_000)] = 100
    "Training samples."
    test: Annotated[int, Between(100, 100_000)] = 2000
    "Test samples."
    widths: Annotated[tuple[int, ...], Between(1, 65_536)] = (4, 16, 64, 256, 1024)
    "Hidden units."
    snr: Annotated[float, Between(0.01, 1000)] = 5.0
    "Mean square of the teacher's output, ½, over the variance of the label noise."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1)] = (1e-3, 3e-3, 1e-2)
    "Of Adam, ascending; each width has the first, nearest to gradient flow, that ends with as small a training error as any."
    steps: Annotated[int, Between(10, 10_000_000)] = 3000
    "Full-batch steps."
    seeds: Annotated[int, Between(3, 1000)] = 3
    "Teachers, samples and initial weights."


@dataclass(frozen=True)
class Config:
    """Linear theory and draws, random first layers, digits, trained networks."""

    linear: Linear = Linear()
    "Claims 1, 2, 4, 5 and 6."
    students: Students = Students()
    "Claims 7 and 8."
    digits: Digits = Digits()
    "Claim 7 on images."
    trained: Trained = Trained()
    "Claim 7 with both layers trained."
