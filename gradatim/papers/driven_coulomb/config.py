"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Correlations:
    """Structure factors in two dimensions, sampled, and correlations in three."""

    cells: Annotated[int, Between(8, 1024)] = 64
    "Cells along each side of the sampled box, one Debye length wide."
    fields: Annotated[tuple[float, ...], Between(0.0, 50.0)] = (0.0, 0.5, 2.0, 5.0)
    "Fields at which modes are sampled, thermal energies over a Debye length."
    samples: Annotated[int, Between(16, 10**6)] = 600
    "Independent samples of each field."
    smallest_box: Annotated[float, Between(10.0, 1e5)] = 640.0
    "Side of the box whose smallest modes give the ratio along and across the field."
    smallest_samples: Annotated[int, Between(16, 10**7)] = 60_000
    "Independent samples of these modes."
    seeds: Annotated[int, Between(3, 1000)] = 3
    "Repetitions of the sampling."
    distances: Annotated[tuple[float, float], Between(5.0, 1e4)] = (5.0, 500.0)
    "Distances in three dimensions, in Debye lengths: the exponents are judged at the largest, the line beside them begins at the smallest."
    space_field: Annotated[float, Between(0.1, 10.0)] = 1.0
    "Field there."
    space_cells: Annotated[int, Between(48, 512)] = 128
    "Cells along each side of a periodic box beside it, one Debye length wide."
    settling_field: Annotated[float, Between(0.1, 50.0)] = 2.0
    "Field that is switched on to see the longest waves of that box settle."
    settling_samples: Annotated[int, Between(16, 10**6)] = 8000
    "Copies of the box that settle, in eight groups."
    strip_field: Annotated[float, Between(0.0, 50.0)] = 5.0
    "Field that is switched on for the strip of pictures."


@dataclass(frozen=True)
class Plates:
    """The force between plates; no simulation, so that all scales are alike."""

    separations: Annotated[tuple[float, ...], Between(1.0, 1e4)] = (25.0, 50.0, 100.0, 200.0)
    "Distances, in Debye lengths."
    separation_field: Annotated[float, Between(0.01, 20.0)] = 1.0
    "Field at these distances."
    weak_fields: Annotated[tuple[float, ...], Between(1e-3, 0.2)] = (0.01, 0.02, 0.05, 0.1)
    "Fields of the test that the force grows with their square."
    fields: Annotated[int, Between(3, 1000)] = 60
    "Fields between 0.1 and 10 at which the force is looked at."
    transient_fields: Annotated[tuple[float, ...], Between(0.1, 20.0)] = (0.5, 1.0, 2.0, 5.0)
    "Fields that are switched on."
    times: Annotated[int, Between(3, 1000)] = 24
    "Times between 3 and 100 diffusion times of the gap."


@dataclass(frozen=True)
class Ions:
    """Brownian ions in two dimensions."""

    pairs: Annotated[int, Between(16, 10**7)] = 2048
    "Ions of each sign."
    cells: Annotated[int, Between(8, 4096)] = 32
    "Cells along each side of the box, one Debye length wide."
    field: Annotated[float, Between(0.0, 20.0)] = 2.0
    "Field."
    dt: Annotated[float, Between(1e-4, 0.1)] = 0.05
    "Time step, in 1/(D κ²)."
    steps: Annotated[int, Between(100, 10**8)] = 12_000
    "Steps, of which the first sixth is left out."
    seeds: Annotated[int, Between(3, 100)] = 3
    "Runs."


@dataclass(frozen=True)
class Line:
    """The critical theory along a line, where it is Burgers's equation."""

    cells: Annotated[int, Between(32, 65536)] = 2048
    "Cells, of side 1."
    noise: Annotated[float, Between(1e-6, 100.0)] = 0.1
    "T."
    coupling: Annotated[float, Between(0.0, 100.0)] = 1.0
    "λ = μ₁ - 2μ₂."
    velocity: Annotated[float, Between(0.0, 10.0)] = 1.0
    "Mean velocity of the boosted run."
    dt: Annotated[float, Between(1e-4, 1.0)] = 0.04
    "Time step."
    warm_steps: Annotated[int, Between(20, 10**9)] = 80_000
    "Steps before anything is measured."
    steps: Annotated[int, Between(20, 10**9)] = 240_000
    "Steps that are measured."
    every: Annotated[int, Between(1, 1000)] = 40
    "Steps between two records."
    seeds: Annotated[int, Between(3, 1000)] = 8
    "Runs, each also boosted and without the nonlinear term."
    window: Annotated[tuple[int, int], Between(1, 1000)] = (2, 8)
    "Lowest and highest mode of the fits."
    control_window: Annotated[tuple[int, int], Between(1, 1000)] = (16, 64)
    "The same for the run without the nonlinear term, whose lower modes do not relax in the time."


@dataclass(frozen=True)
class Plane:
    """The critical theory in two dimensions at strong coupling."""

    cells: Annotated[int, Between(16, 4096)] = 80
    "Cells along each side, of side 1."
    noise: Annotated[float, Between(1e-6, 100.0)] = 1.0
    "T."
    mu_ks: Annotated[float, Between(-10.0, 10.0)] = 0.0
    "μ₁, the Keller–Segel term."
    mu_polar: Annotated[float, Between(-100.0, 100.0)] = -4.0
    "μ₂, the polarity term."
    control_mu_ks: Annotated[float, Between(-10.0, 10.0)] = 0.3
    "μ₁ of the runs beside them, which are to scale alike."
    dt: Annotated[float, Between(1e-5, 1.0)] = 0.005
    "Time step."
    warm_steps: Annotated[int, Between(20, 10**9)] = 20_000
    "Steps before anything is measured."
    steps: Annotated[int, Between(20, 10**9)] = 40_000
    "Steps that are measured."
    every: Annotated[int, Between(1, 1000)] = 40
    "Steps between two records."
    seeds: Annotated[int, Between(3, 1000)] = 4
    "Runs, each also with the other μ₁ and without the nonlinear terms."
    window: Annotated[tuple[int, int], Between(1, 1000)] = (2, 10)
    "Lowest and highest shell of the fits of the structure factor."
    life_window: Annotated[tuple[int, int], Between(1, 1000)] = (2, 8)
    "The same for the half-lives."
    control_window: Annotated[tuple[int, int], Between(1, 1000)] = (3, 10)
    "The same for the half-lives without nonlinear terms."
    sides: Annotated[tuple[int, ...], Between(1, 1024)] = (4, 5, 6, 8, 10, 13, 16, 20)
    "Sides of the boxes in which numbers are counted, in cells; the largest at most a quarter of the grid."


@dataclass(frozen=True)
class Vertices:
    """The two nonlinear terms on random fields."""

    cells: Annotated[int, Between(16, 1024)] = 64
    "Cells along each side of the plane."
    stretches: Annotated[tuple[float, ...], Between(1.0, 100.0)] = (1.0, 2.0, 4.0)
    "Factors by which the signal is stretched."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    correlations: Correlations = field(default_factory=Correlations)
    plates: Plates = field(default_factory=Plates)
    ions: Ions = field(default_factory=Ions)
    line: Line = field(default_factory=Line)
    plane: Plane = field(default_factory=Plane)
    vertices: Vertices = field(default_factory=Vertices)
