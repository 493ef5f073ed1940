"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Arm:
    """A network and its training."""

    activation: Annotated[str, OneOf("relu", "tanh")]
    "Of the hidden layers."
    initial_gain: Annotated[float, Between(0.01, 10)]
    "Standard deviation of the first weights times the root of the number of inputs; biases start at zero."
    learning_rate: Annotated[float, Between(1e-5, 10)]
    "Constant, with heavy-ball momentum."
    epochs: Annotated[int, Between(1, 10_000)]
    "In all, before and after the fork."


@dataclass(frozen=True)
class Config:
    """Forks of networks on images, each with two children, and one network of another initialisation for each seed."""

    data: Annotated[str, OneOf("mnist-5k", "fashion-mnist", "digits")] = "mnist-5k"
    "Images."
    n_train: Annotated[int, Between(100, 60_000)] = 4000
    "Training images."
    n_test: Annotated[int, Between(100, 10_000)] = 1000
    "Test images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Pixels a side, to which the images are averaged down."
    width: Annotated[int, Between(2, 2048)] = 128
    "Units of a hidden layer."
    hidden_layers: Annotated[int, Between(1, 10)] = 2
    "Hidden layers."
    batch_size: Annotated[int, Between(1, 4096)] = 50
    "Images a step."
    momentum: Annotated[float, Between(0, 0.999)] = 0.9
    "Of both arms."
    fork_epochs: Annotated[tuple[int, ...], Between(0, 10_000)] = (0, 1, 2, 5, 10)
    "Epochs after which runs part, ascending from 0."
    seeds: Annotated[int, Between(3, 100)] = 18
    "Repetitions: initialisations and orders of the data."
    relu: Arm = Arm("relu", 2**0.5, 0.03, 20)
    "He's initialisation: the network of practice, at a rate that leaves little noise."
    tanh: Arm = Arm("tanh", 1.5, 0.1, 15)
    "Smooth, as the theory wants it, with larger weights and steps for a taller ridge."
    points: Annotated[int, Between(5, 1001)] = 21
    "Points of a line."
    layer_points: Annotated[int, Between(5, 1001)] = 11
    "Points of a line on which one layer moves."
    nodes: Annotated[int, Between(2, 64)] = 16
    "Nodes of the integral on either side of the middle, also where one layer moves."
    watched: Annotated[int, Between(10, 60_000)] = 1000
    "Training images on which losses are followed during training, and drawn in the plane."
    grid: Annotated[int, Between(5, 201)] = 33
    "Points a side of the plane through a fork and its two ends."
