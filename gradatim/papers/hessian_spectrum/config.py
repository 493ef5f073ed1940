"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class WidthConfig:
    """Networks of growing width on the same data."""

    data: Annotated[str, OneOf("clusters", "mnist")] = "clusters"
    "Two clusters, or MNIST averaged down to 7 x 7 pixels."
    widths: Annotated[tuple[int, ...], Between(2, 200)] = (10, 20, 30)
    "Units of each of the two hidden layers."
    overlap: Annotated[float, Between(0.01, 100)] = 4.0
    "Standard deviation of a cluster; the centres are uniform in [-10, 10]."
    initial_std: Annotated[float, Between(1e-4, 10)] = 0.1
    "Standard deviation of all initial weights and biases."
    steps: Annotated[int, Between(1)] = 20000
    "Steps of gradient descent."
    target: Annotated[float, Between(1e-8, 10)] = 5e-4
    "Training loss at which widths are compared."


@dataclass(frozen=True)
class ClusterConfig:
    """One network, data of growing number and overlap of clusters."""

    width: Annotated[int, Between(2, 200)] = 20
    "Units of each of the two hidden layers."
    clusters: Annotated[tuple[int, ...], Between(2, 50)] = (2, 3, 5, 8)
    "Numbers of clusters, each a class."
    initial_std: Annotated[float, Between(1e-4, 10)] = 0.3
    "Standard deviation of all initial weights and biases."
    steps: Annotated[int, Between(1)] = 5000
    "Steps of gradient descent at most."
    target: Annotated[float, Between(1e-8, 10)] = 0.05
    "Training loss at which a run stops."
    overlaps: Annotated[tuple[float, ...], Between(0.01, 100)] = (1.0, 2.0, 4.0, 8.0)
    "Standard deviations of two clusters, for equally many steps."
    overlap_steps: Annotated[int, Between(1)] = 3000
    "Steps of gradient descent for each overlap."


@dataclass(frozen=True)
class SwitchConfig:
    """From large to small batches, on MNIST averaged down to 7 x 7 pixels."""

    examples: Annotated[int, Between(20, 5000)] = 1000
    "Training examples; the large batch holds all of them."
    over_width: Annotated[int, Between(2, 500)] = 60
    "Units of each hidden layer of the over-parametrised network."
    under_width: Annotated[int, Between(2, 500)] = 12
    "Units of each hidden layer of the network with fewer parameters than examples."
    large_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Learning rate of the large batch."
    large_steps: Annotated[int, Between(1)] = 10_000
    "Steps with the large batch, at most, to the loss at which it ends, and as many again to half that loss."
    over_loss: Annotated[float, Between(1e-6, 10)] = 0.03
    "Loss of the over-parametrised network at which large and small batches are compared and the switch is made."
    under_loss: Annotated[float, Between(1e-6, 10)] = 0.2
    "The same of the other."
    small_batch: Annotated[int, Between(1, 5000)] = 10
    "Examples of a small batch, drawn with replacement."
    over_rate: Annotated[float, Between(1e-5, 10)] = 0.05
    "Small-batch learning rate of the over-parametrised network: half the large batch's."
    under_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Small-batch learning rate of the other: noise decides there."
    small_steps: Annotated[int, Between(1)] = 10_000
    "Steps with small batches, at most."
    points: Annotated[int, Between(3, 1001)] = 21
    "Points on each line."
    lanczos_steps: Annotated[int, Between(2, 500)] = 60
    "Products for the top of each spectrum."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    seeds: Annotated[int, Between(3, 100)] = 32
    "Repetitions of what runs on clusters: data and initialisation anew."
    switch_seeds: Annotated[int, Between(3, 100)] = 6
    "Repetitions of the switch of batches: images and initialisation anew."
    examples: Annotated[int, Between(10, 100000)] = 100
    "Training examples of clusters."
    dimensions: Annotated[int, Between(1, 1000)] = 10
    "Features of clusters."
    learning_rate: Annotated[float, Between(1e-5, 10)] = 0.1
    "Learning rate of full-batch gradient descent."
    width: WidthConfig = WidthConfig()
    cluster: ClusterConfig = ClusterConfig()
    switch: SwitchConfig = SwitchConfig()
    max_size: Annotated[int, Between(1, 50000)] = 6000
    "Largest number of parameters for which the Hessian is made dense."
    density_steps: Annotated[int, Between(2, 1000)] = 60
    "Lanczos products of each probe of the density."
    density_probes: Annotated[int, Between(2, 1000)] = 10
    "Probes of the density."
