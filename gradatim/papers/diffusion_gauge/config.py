"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Exact:
    """Normal data and the sphere, whose scores are known."""

    dims: Annotated[tuple[int, ...], Between(3, 20)] = (3, 5)
    "Dimensions of the space around the sphere."
    starts: Annotated[int, Between(4, 10_000)] = 64
    "Points of noise from which singular values are followed."
    samples: Annotated[int, Between(16, 1_000_000)] = 2048
    "Points behind a sliced distance."
    replicates: Annotated[int, Between(3, 1000)] = 20
    "Sliced distances, each with noise and data of its own."
    steps: Annotated[int, Between(10, 100_000)] = 200
    "Of the reverse diffusion, shrinking towards the data."
    directions: Annotated[int, Between(1, 1000)] = 32
    "Of a sliced distance."


@dataclass(frozen=True)
class Learned:
    """Networks trained on a rolled sheet and on a sphere."""

    dims: Annotated[tuple[int, ...], Between(3, 20)] = (3, 5)
    "Dimensions of the space around the surfaces."
    points: Annotated[int, Between(64, 1_000_000)] = 10_000
    "Of a network's data."
    width: Annotated[int, Between(1, 4096)] = 128
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 20)] = 3
    "Hidden layers."
    batch_size: Annotated[int, Between(1, 100_000)] = 512
    "Noisy points a step."
    steps: Annotated[int, Between(1, 10_000_000)] = 5000
    "Of Adam, its rate falling to zero along a cosine."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1)] = (3e-3, 1e-2, 3e-2)
    "Learning rates to choose from, the same for both kinds of network."
    pilot_steps: Annotated[int, Between(1, 10_000_000)] = 1000
    "Of the runs in three dimensions that choose."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Networks of a kind, each with data of its own; both kinds share initial weights, data, batches and noise."
    starts: Annotated[int, Between(0, 10_000)] = 64
    "Points at which the dimension is read from the flows of networks; zero leaves that out."
    samples: Annotated[int, Between(64, 1_000_000)] = 4096
    "Noisy points from which the parts of a field are found, and as many others on which they are measured."
    features: Annotated[int, Between(1, 10_000)] = 150
    "Random potentials of the projection, beside the density's own and that of the gradient network."


@dataclass(frozen=True)
class Penalised:
    """Fields of a gradient and a free part, trained on a sphere with the gauge penalty and without."""

    width: Annotated[int, Between(1, 4096)] = 48
    "Units of a hidden layer, of as many layers as the other networks have."
    batch_size: Annotated[int, Between(1, 100_000)] = 128
    "Noisy points a step."
    steps: Annotated[int, Between(1, 10_000_000)] = 4000
    "Of Adam, its rate falling to zero along a cosine."
    seeds: Annotated[int, Between(3, 100)] = 12
    "Fields with the penalty and without, in pairs."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 3e-3
    "At the start, for both."
    weight: Annotated[float, Between(1e-6, 1e6)] = 1.0
    "Of the penalty."


@dataclass(frozen=True)
class Config:
    """What is known exactly, what networks learn, and the penalty."""

    exact: Exact = Exact()
    "Normal data and the sphere."
    learned: Learned = Learned()
    "Gradient networks and free ones."
    penalised: Penalised = Penalised()
    "The gauge condition in the loss."
