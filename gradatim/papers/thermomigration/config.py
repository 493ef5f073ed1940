"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Bars:
    """Iron with carbon or nitrogen in a closed bar from 973.15 to 1073.15 K."""

    cells: Annotated[int, Between(8, 4096)] = 128
    "Cells along the bar."
    mean: Annotated[float, Between(1e-9, 0.9)] = 1e-4
    "Mean fraction of filled interstitial sites."
    relaxation_times: Annotated[int, Between(1, 1000)] = 30
    "How long to wait, in relaxation times of the slowest mode."


@dataclass(frozen=True)
class Slabs:
    """Flat precipitates between walls that pass the matrix's own flux."""

    widths: Annotated[tuple[int, ...], Between(20, 4096)] = (60, 120, 240)
    "Widths, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 5e-4
    "Temperature gradient, T₀ per cell."
    gradients: Annotated[tuple[float, ...], Between(1e-6, 1e-2)] = (2.5e-4, 5e-4, 1e-3, 2e-3)
    "Gradients of the test of linearity, on the middle width."
    heat_differences: Annotated[tuple[float, ...], Between(-2.0, 2.0)] = (0.0, 0.128, 0.256, 0.384, 0.512)
    "Heat of transport of the precipitate minus the matrix's, around where the speed changes sign."
    time: Annotated[float, Between(1.0, 1e7)] = 4000.0
    "End time; the speed is taken from the second half."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.25
    "Time step."


@dataclass(frozen=True)
class Discs:
    """Round precipitates, one in each box, in a matrix at equilibrium."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (128, 96)
    "Cells of the box along and across the gradient."
    radii: Annotated[tuple[float, ...], Between(4.0, 1000.0)] = (10.0, 14.0, 20.0)
    "Radii, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 1e-3
    "Temperature gradient, T₀ per cell."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Pairs:
    """A large precipitate at low x and a small one at high x, in a closed box."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (192, 64)
    "Cells of the box along and across the gradient."
    large: Annotated[float, Between(3.0, 1000.0)] = 14.0
    "Radius of the large one, in cells."
    small: Annotated[float, Between(3.0, 1000.0)] = 9.0
    "Radius of the small one, in cells."
    gap: Annotated[float, Between(3.0, 1000.0)] = 37.0
    "Matrix between them, in cells."
    other_gaps: Annotated[tuple[float, ...], Between(3.0, 1000.0)] = (24.0, 54.0)
    "Further distances, for the gradient at which ripening turns around."
    gradients: Annotated[tuple[float, ...], Between(0.0, 1e-2)] = (0.0, 4e-4, 1e-3, 2e-3, 4e-3)
    "Gradients from zero up, T₀ per cell; each also with the small one on the cold side."
    heat_of_transport: Annotated[float, Between(-2.0, 2.0)] = -0.2
    "Of both phases; negative drives solute to the hot side."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Many:
    """Many precipitates of random sizes and places in a closed box."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (256, 128)
    "Cells of the box along and across the gradient."
    particles: Annotated[int, Between(1, 100000)] = 20
    "How many to begin with."
    radii: Annotated[tuple[float, ...], Between(3.0, 1000.0)] = (6.0, 11.0)
    "Least and largest radius, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 2e-3
    "Temperature gradient, T₀ per cell; the control has none."
    seeds: Annotated[int, Between(3, 1000)] = 24
    "Arrangements, each with and without the gradient."
    heat_of_transport: Annotated[float, Between(-2.0, 2.0)] = -0.2
    "Of both phases."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    bars: Bars = field(default_factory=Bars)
    slabs: Slabs = field(default_factory=Slabs)
    discs: Discs = field(default_factory=Discs)
    pairs: Pairs = field(default_factory=Pairs)
    many: Many = field(default_factory=Many)
