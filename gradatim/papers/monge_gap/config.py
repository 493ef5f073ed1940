"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Exact:
    """Gaps by assignment, without any training."""

    linear_points: Annotated[int, Between(100, 20_000)] = 2000
    "Points of a standard normal law in the plane, for linear maps."
    repeats: Annotated[int, Between(3, 1000)] = 5
    "Samples for them."
    sizes: Annotated[tuple[int, ...], Between(8, 20_000)] = (16, 64, 256, 1024)
    "Points for the quarter turn, ascending."
    size_repeats: Annotated[int, Between(3, 1000)] = 40
    "Samples of each size."
    points: Annotated[int, Between(16, 5000)] = 256
    "Points for random and for optimal maps."
    maps: Annotated[int, Between(3, 1000)] = 20
    "Random maps of each kind, and subsets of the sample of an optimal one."
    pairs: Annotated[int, Between(3, 10_000)] = 100
    "Pairs of images for convexity."
    pair_points: Annotated[int, Between(8, 2000)] = 64
    "Points of each."


@dataclass(frozen=True)
class Training:
    """A network, what it is trained on, and for how long."""

    steps: Annotated[int, Between(1, 10_000_000)]
    "Of Adam, its rate falling to zero along a cosine."
    batch_size: Annotated[int, Between(8, 8192)]
    "Points of source and of target a step."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Repetitions: samples, first weights and batches."
    pool: Annotated[int, Between(16, 1_000_000)] = 4096
    "Points of source and of target to train on."
    held_out: Annotated[int, Between(16, 5000)] = 512
    "Points to judge the map on."
    width: Annotated[int, Between(1, 4096)] = 64
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 20)] = 3
    "Hidden layers."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 3e-3
    "At the start."
    fit_share: Annotated[float, Between(1e-4, 10)] = 0.1
    "ε of the divergence over the mean cost within the target."
    gap_share: Annotated[float, Between(1e-4, 10)] = 0.03
    "ε of the gap over the mean cost between source and target."


@dataclass(frozen=True)
class Plane:
    """A known map in the plane, with each regulariser."""

    training: Training = Training(steps=500, batch_size=128, seeds=10)
    weights: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.1, 1.0, 10.0)
    "Of the gap, and of the displacement cost that stands beside it; the article's is 1."
    debiased: bool = True
    "Whether the gap without the bias of its entropy is tried at these weights too."


@dataclass(frozen=True)
class Costs:
    """Maps for other costs, with and without the gap, and known ones also with the gap of a cost that is not theirs."""

    euclidean: Training = Training(steps=1000, batch_size=128, gap_share=0.01)
    "Moons to an S-curve."
    euclidean_weight: Annotated[float, Between(0, 1e6)] = 2.0
    "Of the gap."
    sphere: Training = Training(steps=500, batch_size=128, gap_share=0.01)
    "One patch to two."
    sphere_weight: Annotated[float, Between(0, 1e6)] = 1.0
    "Of the gap."
    p_norm: Training = Training(steps=1000, batch_size=128)
    "Known maps for powers of p-norms."
    powers: Annotated[tuple[float, ...], Between(1.1, 10)] = (1.5, 3.0)
    "The p of these norms, and the powers that they are raised to."
    p_norm_weight: Annotated[float, Between(0, 1e6)] = 1.0
    "Of the gap, that of the squared distance too: the article's."
    asymmetry_weight: Annotated[float, Between(0, 1e6)] = 0.01
    "Where the map is a structured one: the article's."


@dataclass(frozen=True)
class Dimensions:
    """Known maps in many dimensions, from the Gaussian map on."""

    training: Training = Training(steps=300, batch_size=256, seeds=6, pool=1024, held_out=1024)
    fresh: Annotated[int, Between(16, 10_000_000)] = 65_536
    "Points of a network that is not held to the pool that the others share."
    dimensions: Annotated[tuple[int, ...], Between(2, 1024)] = (2, 8, 16, 32)
    "Ascending; the grid of weights is for the last."
    gap_weights: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.1, 1.0, 10.0)
    "Of the grid."
    asymmetry_weights: Annotated[tuple[float, ...], Between(0, 1e6)] = (0.001, 0.01, 0.1)
    "Of the grid."
    gap_weight: Annotated[float, Between(0, 1e6)] = 1.0
    "The article's, up to 64 dimensions; one of the grid."
    asymmetry_weight: Annotated[float, Between(0, 1e6)] = 0.01
    "The article's, up to 64 dimensions; one of the grid."
    entropic_shares: Annotated[tuple[float, ...], Between(1e-5, 10)] = (0.003, 0.01, 0.03, 0.1, 0.3)
    "ε of the entropic map over the mean cost, ascending: each seed is given that which is best for the others."


@dataclass(frozen=True)
class Digits:
    """Images of one digit to those of another, by their leading principal components."""

    training: Training = Training(steps=400, batch_size=128, seeds=3, pool=136, held_out=34)
    components: Annotated[int, Between(2, 64)] = 16
    "Dimensions."
    source: Annotated[int, Between(0, 9)] = 3
    "The digit that is moved."
    target: Annotated[int, Between(0, 9)] = 8
    "The digit that it becomes."
    gap_weight: Annotated[float, Between(0, 1e6)] = 1.0
    "The article's, up to 64 dimensions."
    asymmetry_weight: Annotated[float, Between(0, 1e6)] = 0.01
    "The article's, up to 64 dimensions."


@dataclass(frozen=True)
class Config:
    """What is measured without training, and five trainings."""

    exact: Exact = Exact()
    plane: Plane = Plane()
    costs: Costs = Costs()
    dimensions: Dimensions = Dimensions()
    digits: Digits = Digits()
