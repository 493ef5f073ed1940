"""Everything that changes the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Noise:
    """Matrices that AdamW moves by noise alone."""

    widths: Annotated[tuple[int, ...], Between(4, 4096)] = (32, 64, 128, 256)
    "Sides of the square matrices; four or more for an exponent that is judged."
    rate: Annotated[float, Between(1e-5, 0.5)] = 0.01
    "Learning rate η."
    decays: Annotated[tuple[float, ...], Between(1e-4, 2.0)] = (0.1, 0.4)
    "Decays λ."
    relaxations: Annotated[float, Between(2.0, 100.0)] = 6.0
    "Length of a run, in units of 1/(η λ); its second half is measured."


@dataclass(frozen=True)
class Transfer:
    """Grids of rates and decays of which the best point is sought."""

    widths: Annotated[tuple[int, ...], Between(4, 8192)] = (64, 256)
    "Widths whose best points are compared, the proxy first."
    rates: Annotated[tuple[float, ...], Between(1e-5, 0.5)] = (0.02, 0.04, 0.08, 0.16, 0.32)
    "Learning rates of matrices at the base width, a geometric grid."
    decays: Annotated[tuple[float, ...], Between(1e-4, 2.0)] = (0.00195, 0.0078, 0.03125, 0.125, 0.5)
    "Decays of matrices at the base width, a geometric grid."
    vector_widths: Annotated[tuple[int, ...], Between(4, 8192)] = (32, 256)
    "Widths whose best rates of vectors are compared, the smallest first."
    vector_rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (0.006, 0.012, 0.024, 0.048, 0.096, 0.192)
    "Learning rates of vectors and read-out, a geometric grid."
    steps: Annotated[int, Between(10, 1_000_000)] = 800
    "Steps of each run."


@dataclass(frozen=True)
class Text:
    """A character model of Shakespeare.

    With decay constant a model m times as wide as the first takes m times as long to settle, 1.5 m / (η λ) steps, and that in three
    quarters of the run: by `steps` = 16 / (η λ) all rules do up to m = 8. A step sees 128 characters at every width, as many as tokens
    on the chain.

    Momentum keeps weights that noise alone drives below √(η/2λ), by about the factor (1 + η λ / (1 - b₁))^(-1/2): a tenth at the base
    width, a twenty-fifth at m = 8 by the root rule, which adds 0.03 to an exponent over these widths.
    """

    widths: Annotated[tuple[int, ...], Between(8, 8192)] = (32, 64, 128, 256)
    "Widths over which exponents are fitted, four or more where these are judged; multiples of `head_dim`, the first the base width."
    head_dim: Annotated[int, Between(4, 256)] = 32
    "Of a head, a multiple of 4; wider models have more heads."
    n_layers: Annotated[int, Between(1, 200)] = 2
    "Blocks."
    context: Annotated[int, Between(8, 65_536)] = 64
    "Characters of a text."
    batch_size: Annotated[int, Between(1, 65_536)] = 2
    "Texts a step."
    rate: Annotated[float, Between(1e-5, 0.5)] = 0.02
    "Learning rate of matrices at the base width."
    decay: Annotated[float, Between(1e-4, 2.0)] = 1.25
    "Decay of matrices at the base width."
    vector_rate: Annotated[float, Between(1e-6, 1.0)] = 0.003
    "Learning rate of embedding, gains and read-out."
    steps: Annotated[int, Between(10, 1_000_000)] = 640
    "Steps at a constant rate; the last quarter is measured."
    n_validation: Annotated[int, Between(1, 100_000)] = 32
    "Texts of the works held out."
    n_seeds: Annotated[int, Between(3, 100)] = 6
    "Seeds of every run: first weights and texts; widths and rules share a seed's texts."


@dataclass(frozen=True)
class Config:
    """Noise, a Markov chain at several widths, grids for the transfer of settings, and a character model."""

    noise: Noise = field(default_factory=Noise)
    "Matrices that AdamW moves by noise alone."
    vocabulary: Annotated[int, Between(8, 65_536)] = 256
    "Tokens of the chain."
    n_successors: Annotated[int, Between(2, 64)] = 8
    "Tokens that may follow a token."
    batch_size: Annotated[int, Between(1, 65_536)] = 128
    "Tokens a step."
    widths: Annotated[tuple[int, ...], Between(4, 8192)] = (32, 64, 128, 256)
    "Widths over which exponents are fitted, four or more where these are judged; the first is the base width."
    rate: Annotated[float, Between(1e-5, 0.5)] = 0.02
    "Learning rate of matrices at the base width."
    decay: Annotated[float, Between(1e-4, 2.0)] = 0.5
    "Decay of matrices at the base width."
    vector_rate: Annotated[float, Between(1e-6, 1.0)] = 0.003
    "Learning rate of vectors and read-out."
    b1: Annotated[float, Between(0.0, 0.999)] = 0.9
    "AdamW's b₁."
    b2: Annotated[float, Between(0.0, 0.9999)] = 0.95
    "AdamW's b₂."
    steps: Annotated[int, Between(10, 1_000_000)] = 2000
    "Steps at a constant rate; the last quarter is measured."
    pairs_width: Annotated[int, Between(4, 8192)] = 64
    "Width at which (η, λ) is varied."
    transfer: Transfer = field(default_factory=Transfer)
    "Grids of which the best point is sought."
    text: Text = field(default_factory=Text)
    "The character model."
    n_seeds: Annotated[int, Between(3, 100)] = 3
    "Seeds of every run but those of the character model: first weights and tokens; widths and rules share a seed's chain."
