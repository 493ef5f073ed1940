"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Training:
    """Equilibrium networks of two hidden layers on images: every arm at every learning rate, from every seed."""

    data: Annotated[str, OneOf("fashion-mnist", "digits")] = "fashion-mnist"
    "Images."
    n_train: Annotated[int, Between(50, 60_000)] = 5000
    "Training images."
    n_test: Annotated[int, Between(50, 10_000)] = 1000
    "Test images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Pixels a side, to which the images are averaged down."
    width: Annotated[int, Between(2, 2048)] = 64
    "Units of a hidden layer."
    gain: Annotated[float, Between(0.01, 4)] = 0.6
    "Standard deviation of the first weights times the root of the number of inputs; at 1 a symmetric network swings instead of settling."
    batch_size: Annotated[int, Between(1, 1000)] = 50
    "Images a step."
    epochs: Annotated[int, Between(1, 1000)] = 5
    "Passes over the training images, along which rates fall to zero on a cosine."
    sgd_rates: Annotated[tuple[float, ...], Between(1e-5, 10)] = (0.03, 0.1, 0.3)
    "Learning rates of descent with momentum, the same grid for every arm of the angles and of the loop."
    adam_rates: Annotated[tuple[float, ...], Between(1e-6, 1)] = (1e-3, 3e-3, 1e-2)
    "Learning rates of AdamW, the same grid for every arm of the homeostasis."
    free_steps: Annotated[int, Between(10, 10_000)] = 150
    "Most steps of a free phase."
    response_steps: Annotated[int, Between(2, 10_000)] = 20
    "Steps of a response, or of recurrent backpropagation, while training."
    tolerance: Annotated[float, Between(0, 0.1)] = 1e-4
    "Move of a unit at which a free phase ends."
    n_probes: Annotated[int, Between(1, 1000)] = 5
    "Probes of the homeostatic loss for each image."
    chain_coefficient: Annotated[float, Between(0, 1000)] = 1.0
    "Of the homeostatic loss where layers are joined both ways."
    loop_coefficient: Annotated[float, Between(0, 1000)] = 0.1
    "Of the homeostatic loss, and of the weight decay beside it, where they form a loop."
    seeds: Annotated[int, Between(3, 100)] = 7
    "First weights and orders of the images."
    watched: Annotated[int, Between(10, 10_000)] = 100
    "Test images whose gradients are compared."


@dataclass(frozen=True)
class Nudging:
    """Errors of the response of the trained networks, in double precision."""

    radii: Annotated[tuple[float, ...], Between(1e-6, 100)] = (
        1e-3, 2e-3, 5e-3, 0.01, 0.015, 0.02, 0.03, 0.045, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5, 2.0,
    )  # fmt: skip
    "Of the circles, ascending."
    share: Annotated[float, Between(0.01, 1)] = 0.25
    "Of the radius of convergence, up to which slopes are taken."
    points: Annotated[tuple[int, ...], Between(1, 64)] = (1, 2, 4, 6, 8)
    "On a circle."
    steps: Annotated[int, Between(10, 100_000)] = 600
    "Of a phase, at most."
    examples: Annotated[int, Between(1, 1000)] = 8
    "Test images, for each seed."
    n_probes: Annotated[int, Between(100, 1_000_000)] = 20_000
    "Of the homeostatic loss, against the dense Jacobian."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    training: Training = field(default_factory=Training)
    nudging: Nudging = field(default_factory=Nudging)
