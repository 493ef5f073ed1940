"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf

from .deformations import DeformationsConfig
from .directions import Directions
from .surfaces import SurfacesConfig


@dataclass(frozen=True)
class Symmetry:
    """What holds to rounding, of layers with random weights."""

    channels: Annotated[int, Between(2, 256)] = 6
    "Of every layer."
    side: Annotated[int, Between(5, 64)] = 7
    "Of the images, odd, and one more of an image whose pixels a stride then picks unevenly."
    things: Annotated[int, Between(4, 1000)] = 10
    "Nodes, elements and points."
    sampled: Annotated[int, Between(2, 1000)] = 8
    "Permutations and motions, where there are too many to try them all."
    seeds: Annotated[int, Between(1, 100)] = 3
    "Random weights of the networks that tell graphs apart."


@dataclass(frozen=True)
class Samples:
    """Turned images, learnt from few."""

    data: Annotated[str, OneOf("fashion-mnist", "mnist-5k")] = "fashion-mnist"
    "Which."
    side: Annotated[int, Between(2, 14)] = 14
    "Pixels a side, to which they are averaged; twice an odd number."
    sizes: Annotated[tuple[int, ...], Between(10, 60_000)] = (100, 300, 1000, 3000)
    "Of the training set, ascending; the claim is about 1000."
    pool: Annotated[int, Between(20, 60_000)] = 60_000
    "Images that training sets are drawn from, those to choose rates on aside."
    held_out: Annotated[int, Between(10, 10_000)] = 1000
    "Of the pool, to choose rates on."
    test: Annotated[int, Between(10, 10_000)] = 2000
    "Of the data's own test part, other ones for each seed."
    channels: Annotated[int, Between(2, 512)] = 12
    "Of the plain network's first layer, even: later ones have twice as many, those of the equivariant one half of them for each turn."
    steps: Annotated[int, Between(1, 1_000_000)] = 1000
    "Of Adam, its rate falling to zero along a cosine, or as many as `passes` take if that is more."
    warm_up: Annotated[float, Between(0.001, 1.0)] = 0.1
    "Share of the steps along which the rate rises first."
    passes: Annotated[int, Between(1, 10_000)] = 32
    "Through the training set: steps grow with it."
    batch_size: Annotated[int, Between(1, 4096)] = 32
    "Images a step."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-3, 1e-2, 3e-2, 1e-1)
    "From which every network takes what is best on held-out images by the worst of its pilots."
    rate_size: Annotated[int, Between(10, 60_000)] = 1000
    "Of the training set for that."
    pilots: Annotated[int, Between(1, 20)] = 4
    "Networks that choose a rate, by the worst of them, each with a training set and first weights of its own."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Training sets, first weights and batches, shared by all networks."


@dataclass(frozen=True)
class Curse:
    """Nearest neighbours of a Lipschitz function on a torus."""

    sizes: Annotated[tuple[int, ...], Between(8, 1_000_000)] = (512, 1024, 2048, 4096, 8192, 16_384)
    "Examples, ascending."
    saving_sizes: Annotated[tuple[int, ...], Between(8, 1_000_000)] = (256, 512, 1024)
    "At which the examples saved by a symmetry are counted."
    test: Annotated[int, Between(100, 1_000_000)] = 4096
    "Points to answer at."
    centres: Annotated[int, Between(1, 1000)] = 3
    "Places to which the function is the distance."
    seeds: Annotated[int, Between(3, 1000)] = 12
    "Functions, examples and points."


@dataclass(frozen=True)
class Homophily:
    """Classes of nodes in random graphs with communities."""

    levels: Annotated[tuple[float, ...], Between(0.0, 1.0)] = (0.1, 0.3, 0.5, 0.7, 0.9)
    "Shares of edges within a class; the claim is about 0.9."
    nodes: Annotated[int, Between(8, 100_000)] = 160
    "Of a graph, a multiple of the classes."
    classes: Annotated[int, Between(2, 100)] = 4
    "Of equal size."
    degree: Annotated[int, Between(1, 1000)] = 10
    "Mean number of neighbours."
    features: Annotated[int, Between(1, 1000)] = 16
    "Of a node: the mean of its class and noise."
    separation: Annotated[float, Between(0.0, 100.0)] = 1.0
    "Standard deviation of the means' entries over that of the noise, times the root of the number of features over four."
    labelled: Annotated[int, Between(2, 100_000)] = 60
    "Nodes of the training graph whose class is told; the others choose the rate."
    test_graphs: Annotated[int, Between(1, 1000)] = 12
    "New graphs with the same means of classes."
    width: Annotated[int, Between(1, 1024)] = 16
    "Hidden channels."
    steps: Annotated[int, Between(1, 100_000)] = 100
    "Of Adam on the whole graph."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    "From which every layer takes what is best at each level for the other seeds."
    seeds: Annotated[int, Between(3, 100)] = 6
    "Means of classes, graphs and first weights, shared by all layers."


@dataclass(frozen=True)
class Warping:
    """Which of two signals came first, told at any speed."""

    hidden: Annotated[int, Between(1, 1024)] = 24
    "Units of the gated network."
    length: Annotated[int, Between(10, 10_000)] = 40
    "Steps of a sequence."
    sequences: Annotated[int, Between(8, 1_000_000)] = 512
    "For training, and as many to judge."
    batch_size: Annotated[int, Between(1, 100_000)] = 64
    "Sequences a step."
    steps: Annotated[int, Between(1, 1_000_000)] = 300
    "Of Adam."
    learning_rate: Annotated[float, Between(1e-6, 1.0)] = 1e-2
    "Its rate."
    speed: Annotated[float, Between(0.05, 1.0)] = 0.5
    "Of the sequences that are judged over that of those learnt from."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Data and first weights."


@dataclass(frozen=True)
class Memory:
    """Symbols to be repeated after a long time."""

    lag: Annotated[int, Between(1, 100_000)] = 200
    "Steps of silence between the symbols and their repetition."
    symbols: Annotated[int, Between(1, 100)] = 2
    "In a row."
    alphabet: Annotated[int, Between(2, 100)] = 8
    "Different ones."
    hidden: Annotated[int, Between(1, 1024)] = 24
    "Units of every network."
    batch_size: Annotated[int, Between(1, 4096)] = 16
    "Sequences a step."
    steps: Annotated[int, Between(1, 1_000_000)] = 200
    "Of Adam with clipped gradients."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    "From which every network takes what is best for the other seeds."
    held_out: Annotated[int, Between(1, 100_000)] = 64
    "Sequences to choose rates on, and as many to judge."
    seeds: Annotated[int, Between(3, 100)] = 15
    "Sequences and first weights, shared by all networks."


@dataclass(frozen=True)
class Config:
    """What holds to rounding, and what is learnt."""

    symmetry: Symmetry = Symmetry()
    "Layers of all domains."
    surfaces: SurfacesConfig = SurfacesConfig()  # noqa: RUF009
    "Meshes."
    deformations: DeformationsConfig = DeformationsConfig()  # noqa: RUF009
    "Stretched signals."
    curse: Curse = Curse()
    "Dimensions."
    with_training: bool = True
    "Whether networks are trained; else only what needs no training is measured."
    directions: Directions = Directions()  # noqa: RUF009
    "Where curvature grows."
    samples: Samples = Samples()
    "Symmetry against augmentation."
    homophily: Homophily = Homophily()
    "Convolution against richer layers."
    warping: Warping = Warping()
    "Slowed time."
    memory: Memory = Memory()
    "Long dependencies."
