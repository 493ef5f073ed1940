"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf

from .arms import ACTIVATIONS, OPTIMIZERS


@dataclass(frozen=True)
class Images:
    """The training comparison on images.

    At laptop scale the choice of rates has two epochs, one seed and images of its own, and the judged runs six epochs and six
    fresh seeds: the whole grid with every seed would take 240 runs of full length instead of 48.
    """

    dataset: Annotated[str, OneOf("fashion-mnist", "mnist-5k", "digits")] = "fashion-mnist"
    "Images to classify."
    n_train: Annotated[int, Between(64, 60_000)] = 8000
    "Training images."
    n_validation: Annotated[int, Between(16, 10_000)] = 1000
    "Of these, kept back while rates are chosen."
    n_test: Annotated[int, Between(16, 10_000)] = 2000
    "Test images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Pixels a side after averaging."
    widths: Annotated[tuple[int, ...], Between(4, 1024)] = (16, 32, 64)
    "Channels of each stage, multiples of 4."
    n_blocks: Annotated[int, Between(1, 100)] = 1
    "Residual blocks a stage."
    stem_stride: Annotated[int, Between(1, 4)] = 2
    "Stride of the first convolution; 2 makes a step about three times cheaper."
    batch_size: Annotated[int, Between(1, 4096)] = 128
    "Images a step."
    optimizers: Annotated[tuple[str, ...], OneOf(*OPTIMIZERS)] = tuple(OPTIMIZERS)
    "Optimisers to compare."
    factors: Annotated[tuple[float, ...], Between(1e-4, 1e4)] = (0.3, 1.0, 3.0, 10.0, 30.0)
    "Grid of rates, as multiples of each optimiser's customary one; with a single one there is nothing to choose."
    tuning_epochs: Annotated[int, Between(1, 1000)] = 2
    "Epochs of the runs that choose a rate, one seed, judged on the images kept back."
    epochs: Annotated[int, Between(1, 1000)] = 6
    "Epochs of the runs that are judged."
    activations: Annotated[tuple[str, ...], OneOf(*ACTIVATIONS)] = tuple(ACTIVATIONS)
    "Activation functions to compare."
    activation_epochs: Annotated[int, Between(1, 1000)] = 2
    "Epochs of the runs with other activations."
    n_seeds: Annotated[int, Between(3, 100)] = 6
    "Paired seeds of every judged run."


@dataclass(frozen=True)
class Config:
    """One-dimensional functions, online losses, images."""

    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (0.1, 0.075, 0.06, 0.05, 0.03)
    "Learning rates on the one-dimensional functions; the first is the paper's."
    n_starts: Annotated[int, Between(3, 1_000_001)] = 2001
    "Starting points, evenly spaced in [-1, 1]."
    descent_steps: Annotated[int, Between(10, 1_000_000)] = 299
    "Steps from each starting point."
    online_rounds: Annotated[int, Between(1000, 10_000_000)] = 100_000
    "Rounds of the online problems, 100 being the first that counts."
    online_rate: Annotated[float, Between(1e-4, 10.0)] = 0.1
    "Learning rate of round 1; it falls with the square root of the round."
    counterexample: Annotated[float, Between(2.1, 100.0)] = 3.0
    "The large slope C of the periodic losses."
    images: Images = field(default_factory=Images)
    "The training comparison on images."
