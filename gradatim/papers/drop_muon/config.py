"""What the experiment on Drop-Muon can be asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf

ARMS = ("muon", "uniform", "shift", "reversed", "independent", "deep")


@dataclass(frozen=True)
class Theory:
    """Layered problems whose constants are known."""

    n_groups: Annotated[int, Between(20, 1000)] = 24
    "Groups of chains; the interval is over these."
    n_chains: Annotated[int, Between(10, 1_000_000)] = 2000
    "Chains of each group, for each layer that holds the whole distance to the minimum at first."
    cost_steps: Annotated[int, Between(20, 10_000)] = 200
    "Steps of each chain: all is solved long before."
    descent_steps: Annotated[int, Between(5, 10_000)] = 50
    "Steps along which the bound on one step is checked."
    horizons: Annotated[tuple[int, ...], Between(10, 10_000_000)] = (100, 300, 1000, 3000, 10_000)
    "Numbers of steps between which the rate under noise is fitted."
    noise: Annotated[float, Between(0.0, 100.0)] = 0.5
    "Standard deviation of each entry of the gradient."
    n_seeds: Annotated[int, Between(3, 1000)] = 16
    "Paired seeds under noise."


@dataclass(frozen=True)
class Images:
    """Small convolutional networks on images.

    At laptop scale the images are 10 000, each convolution halves the image, and a judged run ends soon after the second target.
    Rates are chosen by the mean over short pilots, whose seeds none of the judged runs has.
    """

    dataset: Annotated[str, OneOf("fashion-mnist", "mnist-5k", "digits")] = "fashion-mnist"
    "Images to classify."
    n_train: Annotated[int, Between(64, 60_000)] = 10_000
    "Training images."
    n_test: Annotated[int, Between(16, 10_000)] = 2000
    "Test images."
    n_looked_at: Annotated[int, Between(16, 60_000)] = 1000
    "Of the training images and of the test images, those on which accuracy is measured along the way."
    widths: Annotated[tuple[int, ...], Between(1, 4096)] = (16, 32, 64)
    "Channels of each convolution."
    stride: Annotated[int, Between(1, 4)] = 2
    "Pixels between outputs of each convolution."
    batch_size: Annotated[int, Between(1, 60_000)] = 500
    "Images a step."
    arms: Annotated[tuple[str, ...], OneOf(*ARMS)] = ARMS
    "What is compared."
    rates: Annotated[tuple[float, ...], Between(1e-6, 10.0)] = (0.02, 0.05, 0.1, 0.2)
    "Learning rates of the convolutions, the same grid for every arm."
    adam_rate: Annotated[float, Between(1e-6, 1.0)] = 0.003
    "Learning rate of the read-out, which every step updates."
    momentum: Annotated[float, Between(0.0, 0.999)] = 0.9
    "Weight of the old momentum."
    shift: Annotated[float, Between(0.0, 100.0)] = 0.5
    "How strongly the shifting distributions, and the deep one, prefer one end."
    target: Annotated[float, Between(0.0, 100.0)] = 95.0
    "Training accuracy that is raced for, percent."
    higher_target: Annotated[float, Between(0.0, 100.0)] = 97.0
    "A second one, later on the way."
    tuning_steps: Annotated[int, Between(1, 1_000_000)] = 120
    "Steps of the runs that choose a rate."
    n_pilots: Annotated[int, Between(1, 100)] = 3
    "Seeds of the runs that choose a rate."
    steps: Annotated[int, Between(5, 10_000_000)] = 250
    "Steps of the runs that are judged."
    every: Annotated[int, Between(1, 100_000)] = 10
    "Steps between two looks at the accuracy."
    n_seeds: Annotated[int, Between(3, 100)] = 6
    "Paired seeds of the judged runs."
    repeats: Annotated[int, Between(3, 10_000)] = 30
    "Timings of each kind of step."


@dataclass(frozen=True)
class Config:
    """Costs and descent where theory is exact, and a race on images."""

    theory: Theory = field(default_factory=Theory)
    "Layered problems whose constants are known."
    images: Images = field(default_factory=Images)
    "The race on images."


SCALES = {
    "smoke": Config(
        Theory(n_groups=20, n_chains=60, cost_steps=60, descent_steps=20, horizons=(10, 30, 100), n_seeds=3),
        Images(
            "digits", 512, 128, 128, (8, 16), 1, 128, ("muon", "uniform"), rates=(0.05,),
            target=50.0, higher_target=60.0, tuning_steps=1, steps=15, every=5, n_seeds=3, repeats=5,
        ),
    ),
    "laptop": Config(),
    "full": Config(
        Theory(horizons=(100, 1000, 10_000, 100_000)),
        Images(
            n_train=60_000, n_test=10_000, n_looked_at=10_000, widths=(64, 128, 256), stride=1, batch_size=8192,
            tuning_steps=200, steps=2000, every=10, n_seeds=5,
        ),
    ),
}  # fmt: skip
