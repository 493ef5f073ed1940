"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Mixtures:
    """What needs no training: equality of the two mixtures, parameters, memory and time of a step."""

    macro_widths: Annotated[tuple[int, ...], Between(1, 512)] = (16, 32, 64)
    "Options of the width of each layer of the supernet that is weighed."
    macro_kernels: Annotated[tuple[int, ...], Between(1, 15)] = (3, 5, 7)
    "Options of the kernel of each layer, odd."
    side: Annotated[int, Between(8, 64)] = 14
    "Of its images, pixels."
    batch_size: Annotated[int, Between(1, 1024)] = 32
    "Images a step."
    repeats: Annotated[int, Between(1, 1000)] = 7
    "Timed steps of each supernet."


@dataclass(frozen=True)
class Search:
    """Architectures for images: gradient search and search in two stages, from the same data and first weights."""

    spaces: Annotated[tuple[str, ...], OneOf("cell", "macro")] = ("cell", "macro")
    "64 architectures of the reducing cells, scored by accuracy, and 81 of widths and kernels, scored less a cost of their parameters."
    points_per_doubling: Annotated[float, Between(0, 1000)] = 0.5
    "Accuracy that twice the parameters cost in the macro space."
    dataset: Annotated[str, OneOf("fashion-mnist", "mnist-5k", "digits")] = "fashion-mnist"
    "Images."
    pool: Annotated[int, Between(4, 28)] = 14
    "Side of the images after averaging, pixels."
    n_train: Annotated[int, Between(20, 60_000)] = 5000
    "Images to train on: half of them for weights and half for logits during a search, all for networks trained alone."
    n_test: Annotated[int, Between(10, 10_000)] = 2000
    "Test images for networks trained alone."
    n_inherited: Annotated[int, Between(10, 10_000)] = 500
    "Test images for networks with inherited weights, which are many."
    n_scored: Annotated[int, Between(10, 30_000)] = 250
    "Validation images on which the second stage scores a network."
    channels: Annotated[int, Between(4, 64)] = 8
    "Of a node in the first two cells of the cell network; a multiple of 4."
    repeats: Annotated[int, Between(1, 4)] = 1
    "How often a separable operation of it is run over; the authors' is, twice."
    hidden: Annotated[int, Between(1, 1024)] = 64
    "Units before its last layer."
    steps: Annotated[int, Between(1, 100_000)] = 200
    "Of each search, one gradient by the weights each, as many for networks trained alone."
    batch_size: Annotated[int, Between(1, 1024)] = 32
    "Images of a gradient."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 3e-3
    "Of Adam for the weights, falling to a tenth along a cosine."
    logit_rate: Annotated[float, Between(1e-6, 10)] = 3e-2
    "Of Adam for the logits; the authors' 3e-4 is for a hundred epochs."
    seeds: Annotated[int, Between(3, 100)] = 15
    "Searches of each kind in the cell space."
    macro_seeds: Annotated[int, Between(3, 100)] = 10
    "Searches of each kind in the macro space."
    n_evaluations: Annotated[int, Between(1, 10_000)] = 30
    "Networks that the second stage scores."
    population: Annotated[int, Between(2, 1000)] = 10
    "Of the evolutionary second stage; the authors' 30 would be all of its evaluations."
    table_seeds: Annotated[int, Between(3, 100)] = 12
    "Trainings of each architecture alone."
    rebuild: bool = False
    "Whether all architectures are trained alone anew, for minutes a space, in place of reading the tables that come with the package."

    def seeds_of(self, space: str) -> int:
        """Searches of each kind in a space."""
        return self.macro_seeds if space == "macro" else self.seeds


@dataclass(frozen=True)
class Language:
    """A character model of Shakespeare."""

    widths: Annotated[tuple[int, ...], Between(1, 1024)] = (8, 16, 32)
    "Options, ascending."
    heads: Annotated[tuple[int, ...], Between(1, 64)] = (1, 2, 4)
    "Options, ascending; each divides every width."
    ratios: Annotated[tuple[int, ...], Between(1, 16)] = (1, 2, 4)
    "Options of hidden units over width, ascending."
    depths: Annotated[tuple[int, ...], Between(1, 48)] = (1, 2)
    "Options of the number of blocks, ascending."
    context: Annotated[int, Between(2, 4096)] = 32
    "Characters of a text."
    batch_size: Annotated[int, Between(1, 1024)] = 16
    "Texts of a gradient."
    steps: Annotated[int, Between(1, 1_000_000)] = 150
    "Of the search, and of each network trained alone."
    learning_rate: Annotated[float, Between(1e-6, 1)] = 1e-2
    "Of Adam for the weights, falling to a tenth along a cosine."
    logit_rate: Annotated[float, Between(1e-6, 10)] = 3e-2
    "Of Adam for the logits."
    seeds: Annotated[int, Between(3, 100)] = 10
    "Searches, each with its own random networks beside it."
    n_random: Annotated[int, Between(1, 100)] = 3
    "Random architectures a seed."
    n_validation: Annotated[int, Between(1, 10_000)] = 128
    "Texts to judge on."


@dataclass(frozen=True)
class Config:
    """Three parts: without training, images, language."""

    mixtures: Mixtures = Mixtures()
    search: Search = Search()
    language: Language = Language()
