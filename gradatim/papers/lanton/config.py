"""Everything that changes the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between, OneOf

ARMS = ("adamw", "muon", "scion", "lanton")
PER_STEP = {"ns, every step": 1, "ns, every tenth step": 10}
"Steps between two measurements of the noise."
TIMED = ("muon", "scion", "quadrature, every step", *PER_STEP)


@dataclass(frozen=True)
class Testbed:
    """Six quadratic layers, W of each drawn to zero, whose gradients carry independent noise of known sizes."""

    width: Annotated[int, Between(2, 256)] = 12
    "Rows and columns of a layer."
    noise: Annotated[tuple[float, ...], Between(0.0, 100.0)] = (0.02, 0.02, 0.1, 0.1, 0.5, 0.5)
    "Standard deviation of the noise in an entry of each layer's gradient."
    travel: Annotated[tuple[float, ...], Between(0.0, 100.0)] = (5.0, 5.0, 2.0, 2.0, 0.5, 0.5)
    "Standard deviation of the entries at the start, in the variant where layers differ in the way to go; 1 in the other."
    rates: Annotated[tuple[float, ...], Between(1e-6, 100.0)] = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    "Grid of base rates, the same for all."
    alphas: Annotated[tuple[float, ...], Between(1e-6, 1e6)] = (0.1, 1.0, 10.0)
    "Thresholds; the claims are judged with 1, the default."
    lengths: Annotated[tuple[int, ...], Between(10, 1_000_000)] = (50, 100, 200, 400)
    "Numbers of steps, each with a cosine to zero of its own; the last one is that of the comparison."
    n_seeds: Annotated[int, Between(3, 1000)] = 5
    "Paired seeds."


@dataclass(frozen=True)
class Language:
    """A decoder of Shakespeare's characters.

    Rates are chosen by the mean over shorter pilots and judged with fresh seeds: the whole grid with every one of those in full
    length would take longer than all else.
    """

    width: Annotated[int, Between(8, 8192)] = 64
    "Of tokens."
    n_layers: Annotated[int, Between(1, 200)] = 4
    "Blocks."
    n_heads: Annotated[int, Between(1, 256)] = 4
    "Attention heads."
    context: Annotated[int, Between(8, 65_536)] = 64
    "Characters of a text."
    batch_size: Annotated[int, Between(1, 4096)] = 8
    "Texts a step."
    steps: Annotated[int, Between(10, 10_000_000)] = 250
    "Steps of a run: 5 % warm-up, then a cosine to a tenth."
    n_train: Annotated[int, Between(64, 10_000_000)] = 40_000
    "Training texts."
    n_validation: Annotated[int, Between(8, 1_000_000)] = 32
    "Texts of works held out."
    factors: Annotated[tuple[float, ...], Between(1e-4, 1e4)] = (0.25, 0.5, 1.0, 2.0, 4.0)
    "Grid of base rates, as multiples of each optimiser's customary one; with a single one there is nothing to choose."
    arms: Annotated[tuple[str, ...], OneOf(*ARMS)] = ARMS
    "Optimisers to compare: LANTON is always among them."
    tuning_steps: Annotated[int, Between(10, 10_000_000)] = 150
    "Steps of the runs that choose rates, with a schedule as long."
    n_pilots: Annotated[int, Between(1, 100)] = 3
    "Seeds of those runs, and of the noise that thresholds are chosen by; none of them is judged."
    n_seeds: Annotated[int, Between(3, 100)] = 6
    "Paired seeds of the judged runs."
    n_batches: Annotated[int, Between(4, 100_000)] = 24
    "Batches of a noise report, an even number."
    timed: Annotated[tuple[str, ...], OneOf(*TIMED)] = TIMED
    "Steps whose seconds are compared: those of Muon, and of LANTON that measures by Newton–Schulz, are always among them."
    timed_width: Annotated[int, Between(8, 8192)] = 128
    "Width of the model whose steps are timed."
    timed_steps: Annotated[int, Between(10, 10_000)] = 10
    "Steps of one timed call, a multiple of ten."
    repeats: Annotated[int, Between(3, 1000)] = 15
    "Timed calls of each."


@dataclass(frozen=True)
class Config:
    """Layers of known noise, and a language model."""

    testbed: Testbed = field(default_factory=Testbed)
    "Quadratic layers with known noise."
    language: Language = field(default_factory=Language)
    "The character model."
