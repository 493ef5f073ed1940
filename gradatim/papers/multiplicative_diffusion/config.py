"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Exact:
    """What is known in closed form: paths of the motion, samplers with the exact score, losses."""

    paths: Annotated[int, Between(100, 10_000_000)] = 4096
    "Of the motion, each simulated through all times."
    path_steps: Annotated[int, Between(16, 100_000)] = 512
    "Of Euler and Maruyama, in the space itself; a multiple of eight."
    sampler_steps: Annotated[tuple[int, ...], Between(2, 100_000)] = (5, 10, 20, 40, 80)
    "Counts at which both samplers are drawn from, ascending."
    samples: Annotated[int, Between(100, 10_000_000)] = 100_000
    "Of either sampler at each of them."
    recursion_steps: Annotated[tuple[int, ...], Between(2, 100_000)] = (25, 50, 100, 200, 400, 800)
    "Counts at which the variance is followed exactly, for the order of its error."
    mirror_steps: Annotated[int, Between(2, 100_000)] = 100
    "Of the path that is compared with mirrored Langevin dynamics."
    models: Annotated[int, Between(3, 100)] = 5
    "Random models whose losses are compared, and as many others for the integration by parts."
    loss_samples: Annotated[int, Between(100, 10_000_000)] = 100_000
    "Behind the losses."


@dataclass(frozen=True)
class Generation:
    """Networks trained on one data set, and what is drawn from them."""

    width: Annotated[int, Between(1, 8192)] = 256
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 20)] = 3
    "Hidden layers."
    batch_size: Annotated[int, Between(1, 100_000)] = 128
    "Examples a step."
    steps: Annotated[int, Between(1, 10_000_000)] = 4000
    "Of Adam, its rate along a cosine to zero."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-4, 1e-3, 3e-3, 1e-2)
    "Learning rates, from which every arm takes its best by the mean held-out loss of pilot runs."
    pilot_steps: Annotated[int, Between(1, 10_000_000)] = 600
    "Of these pilots: too few of them tell rates apart by little but chance."
    pilots: Annotated[int, Between(3, 100)] = 3
    "Networks at each rate, which are not judged."
    seeds: Annotated[int, Between(3, 100)] = 3
    "Networks an arm; those of one seed share initial weights, batches and noise."
    beside: Annotated[int, Between(1, 100)] = 3
    "Of these, how many are trained and drawn from where no claim rests on it."
    sampler_steps: Annotated[int, Between(4, 100_000)] = 200
    "The same for every sampler; a multiple of four."
    copies: Annotated[int, Between(1, 1000)] = 3
    "Points drawn for each held-out one."
    directions: Annotated[int, Between(1, 10_000)] = 256
    "Of the sliced distance, for every seed its own."


@dataclass(frozen=True)
class Regression:
    """Sparse positive regression with more weights than examples, by exponentiated and by plain gradient descent."""

    runs: Annotated[int, Between(3, 100_000)] = 200
    "Problems of their own."
    weights: Annotated[int, Between(10, 100_000)] = 100
    "Inputs."
    examples: Annotated[int, Between(2, 100_000)] = 25
    "Of each problem."
    active: Annotated[int, Between(1, 100_000)] = 10
    "Weights of the teacher that are not zero."
    rates: Annotated[tuple[float, ...], Between(1e-6, 100.0)] = (0.03, 0.1, 0.3, 1.0)
    "Learning rates, from which both descents take the best by their mean final loss."
    steps: Annotated[int, Between(1, 10_000_000)] = 3000
    "Of all examples."


@dataclass(frozen=True)
class Config:
    """Closed forms, two spirals, images, and a regression."""

    sigma: Annotated[float, Between(0.01, 100.0)] = 0.8
    "Of the motion, constant, from time 0 to 1, with the drift σ²/2."
    exact: Exact = Exact()
    "What needs no network."
    with_spirals: bool = True
    "Whether points of the plane are learnt too, which no claim rests on."
    spirals: Generation = Generation(
        width=64, batch_size=256, steps=3000, rates=(1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1), pilot_steps=1000, copies=1, directions=64
    )
    "Points of the plane, on two arms."
    spiral_points: Annotated[int, Between(10, 1_000_000)] = 4096
    "For training, and as many held out."
    images: Generation = Generation(seeds=10)
    "Handwritten digits, or clothes."
    data: Annotated[str, OneOf("digits", "mnist-5k", "fashion-mnist")] = "digits"
    "Which images."
    side: Annotated[int, Between(1, 28)] = 8
    "Pixels a side, to which they are averaged."
    n_images: Annotated[int, Between(10, 60_000)] = 1437
    "For training; the data set's test part is held out."
    n_held_out: Annotated[int, Between(10, 10_000)] = 360
    "Images to compare with."
    regression: Regression = Regression()
    "Weights, and how they are distributed."
