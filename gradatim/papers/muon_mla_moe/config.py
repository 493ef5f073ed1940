"""Everything that changes the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf

KINDS = ("multi_head, dense", "latent, dense", "multi_head, experts", "latent, experts")
"Attention and feed-forward part of each model."


@dataclass(frozen=True)
class Size:
    """A decoder and the training of it."""

    width: Annotated[int, Between(8, 8192)] = 64
    "Of tokens; latents are half, rotary keys an eighth as wide."
    n_layers: Annotated[int, Between(1, 200)] = 2
    "Blocks."
    n_heads: Annotated[int, Between(1, 256)] = 4
    "Attention heads."
    hidden: Annotated[int, Between(8, 65_536)] = 176
    "Feed-forward units that a token passes through, with experts and without."
    context: Annotated[int, Between(8, 65_536)] = 64
    "Characters of a text."
    batch_size: Annotated[int, Between(1, 4096)] = 16
    "Texts a step."
    steps: Annotated[int, Between(10, 10_000_000)] = 200
    "Steps of a run, 5 % of them warm-up, then a cosine down to a tenth of the rate."


@dataclass(frozen=True)
class Theory:
    """The exact facts about steepest descent under the spectral norm."""

    n_rivals: Annotated[int, Between(10, 1_000_000)] = 1000
    "Directions that are tried against the orthogonal factor, for each matrix."
    lengths: Annotated[tuple[int, ...], Between(4, 100_000)] = (32, 64, 128, 256, 512, 1024)
    "Steps of the descents whose mean gradient norm is fitted."
    rates_per_octave: Annotated[int, Between(1, 10)] = 3
    "How finely the rate is tuned, within a factor of 8 of the one in the theorem."
    n_problems: Annotated[int, Between(3, 1000)] = 8
    "Random quadratics."


@dataclass(frozen=True)
class Config:
    """Language models on Shakespeare's characters.

    At laptop scale rates are chosen from one seed of its own and half as many steps, and judged on fresh seeds: the whole grid with
    every seed in full length would take four times as long. The other attention and feed-forward parts take the rates of the
    dense model, which favours that one.
    """

    model: Size = field(default_factory=Size)
    "The comparisons."
    small: Size = field(default_factory=lambda: Size(32, 2, 4, 88, 32, batch_size=8, steps=60))
    "Many runs: stability, and the norms of the weights at every step."
    n_train: Annotated[int, Between(64, 10_000_000)] = 60_000
    "Texts to train on, cut from the beginning of the corpus."
    n_validation: Annotated[int, Between(8, 100_000)] = 128
    "Texts of the works held out."
    weight_decay: Annotated[float, Between(0.0, 1.0)] = 0.1
    "Of the matrices that Muon orthogonalises, with either optimiser."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
    "The grid of both optimisers; Muon's steps are scaled to the length of AdamW's."
    tuning_steps: Annotated[int, Between(10, 10_000_000)] = 100
    "Steps of the runs that choose a rate."
    batch_sizes: Annotated[tuple[int, ...], Between(1, 4096)] = (8, 128)
    "Beside the model's own, smallest first, with the same number of tokens."
    kinds: Annotated[tuple[str, ...], OneOf(*KINDS)] = KINDS
    "Models to compare; the first and the last are always among them."
    beside: bool = True
    "Whether AdamW runs where no part asks for it: latent attention with experts, weight norms, many small runs."
    n_routed: Annotated[int, Between(1, 4096)] = 6
    "Routed experts a layer."
    n_shared: Annotated[int, Between(0, 64)] = 2
    "Shared experts a layer."
    top_k: Annotated[int, Between(1, 64)] = 2
    "Routed experts a token; with the shared ones a divisor of `hidden`."
    n_seeds: Annotated[int, Between(3, 100)] = 5
    "Paired seeds of every judged run."
    stability_rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (0.004, 0.0126, 0.04)
    "Rates of the many small runs."
    stability_seeds: Annotated[int, Between(3, 1000)] = 34
    "Seeds of the many small runs."
    decode_width: Annotated[int, Between(8, 8192)] = 256
    "Of the models whose decoding is timed, with as many heads of 32 as fit."
    decode_context: Annotated[int, Between(32, 1_000_000)] = 1024
    "Characters in the cache when decoding is timed."
    theory: Theory = field(default_factory=Theory)
    "Steepest descent itself."
