"""What changes the outcome of the zeroth-order experiments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf

ESTIMATORS = ("backpropagation", "node", "activity", "forward_gradient", "weight", "spsa", "spsa_16")


@dataclass(frozen=True)
class Networks:
    """The training of a small perceptron by every estimator."""

    dataset: Annotated[str, OneOf("digits", "mnist-5k", "fashion-mnist")] = "digits"
    "Images to classify."
    n_train: Annotated[int, Between(64, 60_000)] = 1437
    "Training images."
    n_validation: Annotated[int, Between(16, 10_000)] = 287
    "Of these, kept back to choose the rates on."
    n_test: Annotated[int, Between(16, 10_000)] = 360
    "Test images."
    pool: Annotated[int, Between(4, 28)] = 8
    "Pixels a side after averaging."
    width: Annotated[int, Between(2, 4096)] = 32
    "Units of the hidden layer."
    batch_size: Annotated[int, Between(1, 4096)] = 100
    "Images a step."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    "Adam's learning rates, the same grid for every estimator."
    estimators: Annotated[tuple[str, ...], OneOf(*ESTIMATORS)] = ESTIMATORS[:6]
    "Whose training is compared."
    steps: Annotated[int, Between(10, 10_000_000)] = 20_000
    "Steps of every zeroth-order estimator."
    backpropagation_steps: Annotated[int, Between(10, 10_000_000)] = 2000
    "Steps of backpropagation, and of the sixteen-direction average."
    radius: Annotated[float, Between(4e-4, 1.0)] = 1e-3
    "Perturbations' size."
    n_seeds: Annotated[int, Between(3, 100)] = 8
    "Paired seeds of every run."
    quality_draws: Annotated[int, Between(16, 1_000_000)] = 500
    "Estimates at initialisation, a seed."
    quality_seeds: Annotated[int, Between(3, 100)] = 5
    "Initialisations at which their variance is measured."


@dataclass(frozen=True)
class Config:
    """Estimates of known gradients, networks, noisy learners and two wells."""

    moment_draws: Annotated[int, Between(1000, 100_000_000)] = 400_000
    "Draws for each moment of an estimate."
    dimensions: Annotated[tuple[int, ...], Between(2, 100_000)] = (10, 30, 100, 300, 1000)
    "Dimensions of the quadratic that is descended."
    descents: Annotated[int, Between(2, 100_000)] = 2000
    "Descents a group in one dimension; in d dimensions there are d times fewer, their spread being less."
    networks: Networks = field(default_factory=Networks)
    "The training of a perceptron."
    plasticity_draws: Annotated[int, Between(1000, 100_000_000)] = 1_000_000
    "Updates of the reward-modulated unit."
    noise_levels: Annotated[tuple[float, ...], Between(0.0, 100.0)] = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
    "Noise of the Ornstein–Uhlenbeck learner, ascending from 0."
    learners: Annotated[int, Between(3, 100_000)] = 500
    "Learners at each noise level."
    duration: Annotated[float, Between(1.0, 1e5)] = 300.0
    "Time that they have."
    walkers: Annotated[int, Between(20, 1_000_000)] = 1000
    "Descents in the two wells."
    well_steps: Annotated[int, Between(100, 100_000_000)] = 30_000
    "Steps of each."
    temperature: Annotated[float, Between(0.05, 2.0)] = 0.25
    "Noise of the descents in the wells, which are 0.5 deep."
