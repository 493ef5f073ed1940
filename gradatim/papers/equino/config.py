"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Config:
    """A square cell with fibres, operators from few solutions of it, and a membrane made of such cells."""

    cell: Annotated[str, OneOf("disk", "two_fibres", "ellipse", "three_circles")] = "disk"
    "What the fibres are: one in the middle, or one of the article's three: the middle and the corners, an ellipse, three circles."
    elements: Annotated[int, Between(2, 64)] = 12
    "A side of the cell, of eight nodes each."
    radius: Annotated[float, Between(0.05, 0.49)] = 0.3
    "Of the disk, over the side; an element belongs to a fibre if its centre does."
    strain_limit: Annotated[float, Between(1e-3, 0.2)] = 0.04
    "Of each component of the average strains, with the engineering shear."
    snapshots: Annotated[tuple[int, ...], Between(2, 10_000)] = (8, 16, 32, 48)
    "Solved cells that modes are taken from, ascending; the last is the main one."
    restricted: Annotated[int, Between(2, 10_000)] = 16
    "Of those the number that a restricted data set has."
    rank: Annotated[int, Between(1, 100)] = 16
    "Modes of either kind, at most as many as snapshots."
    tests: Annotated[int, Between(3, 10_000)] = 20
    "Unseen strains."
    collocation: Annotated[int, Between(4, 100_000)] = 100
    "Strains without solutions on which operators are trained."
    width: Annotated[int, Between(2, 1024)] = 64
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 10)] = 4
    "Hidden layers."
    seeds: Annotated[int, Between(3, 100)] = 5
    "Snapshots, strains without solutions, unseen strains, and networks of each kind with first weights and batches."
    variational_seeds: Annotated[int, Between(3, 100)] = 5
    "Of them so many for the variational operator, whose steps are the dearest."
    beside_seeds: Annotated[int, Between(1, 100)] = 1
    "Of them so many for what no claim is judged by: anchored operators, other numbers of snapshots, and regression of all of them."
    points: Annotated[int, Between(4, 100_000)] = 64
    "Magic points of the loss; at most six for each mode."
    all_points_seeds: Annotated[int, Between(0, 100)] = 0
    "Networks whose loss has all points instead, as the authors' has, beside the main ones; 0 leaves them out."
    adam_steps: Annotated[int, Between(1, 1_000_000)] = 1000
    "On batches of 10 strains, at the rate 0.001."
    lbfgs_steps: Annotated[int, Between(1, 1_000_000)] = 4000
    "On all strains."
    variational_lbfgs_steps: Annotated[int, Between(0, 1_000_000)] = 2000
    "Likewise for the variational operator, whose steps take two and a half times as long: it has more seconds than the others."
    memory: Annotated[int, Between(1, 100)] = 50
    "Pairs that L-BFGS keeps, as many as the authors."
    grid: Annotated[int, Between(4, 20)] = 4
    "Solved cells a side of the grid on which the averaged stress is interpolated: the fewest for cubics."
    macro_elements: Annotated[int, Between(1, 64)] = 4
    "A side of the membrane, of eight nodes each."
    macro_strain: Annotated[float, Between(1e-4, 0.2)] = 0.03
    "The largest component that the membrane would have with its tangent at no load: how far it is pulled."
    batch: Annotated[int, Between(10, 1_000_000)] = 1000
    "Strains in one call of the operator, for its time."
    repeats: Annotated[int, Between(3, 1000)] = 7
    "Of each timing."
