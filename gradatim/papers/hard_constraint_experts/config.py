"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between, OneOf


@dataclass(frozen=True)
class Times:
    """Solves over a fixed basis, timed with one block and with several."""

    times: Annotated[int, Between(4, 100_000)] = 64
    "Of the grid."
    places: Annotated[int, Between(4, 100_000)] = 256
    "Of the grid; a multiple of the blocks."
    basis: Annotated[int, Between(1, 4096)] = 16
    "Functions."
    batch: Annotated[int, Between(1, 1000)] = 2
    "Initial states at once."
    points: Annotated[tuple[int, ...], Between(4, 10_000_000)] = (256, 1024, 4096, 16_000)
    "Constrained points in all, ascending; multiples of the blocks."
    repeats: Annotated[int, Between(3, 1000)] = 20
    "Of each timing, in turns, each at points drawn anew."


@dataclass(frozen=True)
class Turbulence:
    """Vorticity in a periodic plane of side 1."""

    times: Annotated[int, Between(4, 1000)] = 16
    "Of the grid, from 0 to the horizon."
    horizon: Annotated[float, Between(0.01, 100.0)] = 5.0
    "The last time; vorticities are of order one."
    viscosity: Annotated[float, Between(0.0, 1.0)] = 1e-4
    "One over the Reynolds number."
    side: Annotated[int, Between(4, 1024)] = 32
    "Places a side, where networks are trained."
    fine_side: Annotated[int, Between(4, 1024)] = 64
    "Where they are judged; a multiple of the side."
    reference_side: Annotated[int, Between(4, 2048)] = 128
    "Of the solutions that errors refer to; a multiple of both."
    basis: Annotated[int, Between(1, 4096)] = 16
    "Functions that are weighed."
    width: Annotated[int, Between(1, 1024)] = 16
    "Channels of a Fourier layer."
    depth: Annotated[int, Between(1, 32)] = 4
    "Fourier layers."
    modes: Annotated[tuple[int, int, int], Between(1, 512)] = (4, 6, 6)
    "Kept along time and x, of both signs, and along y."
    hidden: Annotated[int, Between(1, 4096)] = 64
    "Units of the layer before the last."
    splits: Annotated[int, Between(2, 16)] = 2
    "Blocks along x, and as many along y."
    points: Annotated[int, Between(1, 10_000_000)] = 4096
    "Constrained points in all; a multiple of the blocks."
    max_steps: Annotated[int, Between(1, 1000)] = 50
    "Of a solve."
    tolerance: Annotated[float, Between(1e-14, 0.1)] = 1e-7
    "Of a solve's last step beside the weights."
    initial_states: Annotated[int, Between(1, 1_000_000)] = 512
    "For training, drawn anew for every seed."
    held_out: Annotated[int, Between(1, 10_000)] = 8
    "Of every seed, as many for those that choose rates as for those that are judged."
    batch: Annotated[int, Between(1, 10_000)] = 4
    "Initial states a step."
    steps: Annotated[int, Between(2, 10_000_000)] = 10_000
    "Of Adam, its rate along a cosine to zero."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (1e-3, 3e-3, 1e-2)
    "From which every arm takes its best."
    pilot_steps: Annotated[int, Between(1, 10_000_000)] = 1000
    "Of the short runs that choose."
    pilot_seeds: Annotated[int, Between(1, 100)] = 3
    "By whose mean each arm's rate is chosen; none of them is judged."
    looks: Annotated[int, Between(1, 1000)] = 10
    "Times at which held-out states are solved for."
    seeds: Annotated[int, Between(3, 100)] = 3
    "Networks an arm that are judged."


@dataclass(frozen=True)
class Config:
    """Diffusion with sorption, by a penalised network, by one solve over a learnt basis, and block by block."""

    times: Annotated[int, Between(6, 10_000)] = 26
    "Of the grid, from 0 to 500 s."
    trained_times: Annotated[int, Between(5, 10_000)] = 21
    "Those that training sees, from the first on."
    places: Annotated[int, Between(8, 100_000)] = 64
    "Of the grid; a multiple of the blocks."
    blocks: Annotated[int, Between(2, 256)] = 4
    "Into which the places are cut."
    points: Annotated[int, Between(2, 10_000_000)] = 512
    "Constrained points in all, as many for one solve as for all blocks together; a multiple of the blocks."
    basis: Annotated[int, Between(1, 4096)] = 8
    "Functions that are weighed."
    width: Annotated[int, Between(1, 1024)] = 16
    "Channels of a Fourier layer."
    depth: Annotated[int, Between(1, 32)] = 3
    "Fourier layers."
    modes: Annotated[tuple[int, int], Between(1, 512)] = (4, 6)
    "Kept along time, of both signs, and along place."
    hidden: Annotated[int, Between(1, 4096)] = 32
    "Units of the layer before the last."
    max_steps: Annotated[int, Between(1, 1000)] = 20
    "Of a solve."
    tolerance: Annotated[float, Between(1e-14, 0.1)] = 1e-4
    "Of a solve's last step beside the weights."
    relative_initial: bool = False
    "Whether rows of the initial condition are divided by the initial concentration, as the authors do, and not by its mean of 0.1."
    interface: Annotated[str, OneOf("include", "exclude")] = "include"
    "Whether the loss sees the jumps from block to block, as that of the authors does."
    initial_states: Annotated[int, Between(1, 1_000_000)] = 64
    "For training, drawn anew for every seed."
    held_out: Annotated[int, Between(1, 100_000)] = 16
    "Of every seed, as many for those that choose rates as for those that are judged."
    batch: Annotated[int, Between(1, 10_000)] = 2
    "Initial states a step."
    steps: Annotated[int, Between(2, 10_000_000)] = 1000
    "Of Adam, its rate along a cosine to zero."
    rates: Annotated[tuple[float, ...], Between(1e-6, 1.0)] = (3e-3, 1e-2, 3e-2)
    "From which every arm takes its best."
    condition_weights: Annotated[tuple[float, ...], Between(1e-3, 1e4)] = (1.0, 10.0, 100.0)
    "Of initial and boundary terms beside the equation, in the loss and in the solves; every arm takes its best."
    pilot_steps: Annotated[int, Between(1, 10_000_000)] = 200
    "Of the short runs that choose, not more than the steps."
    pilot_seeds: Annotated[int, Between(1, 100)] = 3
    "By whose mean each arm's rate and weight are chosen; none of them is judged."
    looks: Annotated[int, Between(1, 1000)] = 10
    "Times at which held-out states are solved for, of which the steps are a multiple; in the short runs only at the start and the end."
    seeds: Annotated[int, Between(3, 100)] = 10
    "Networks an arm that are judged; those of one seed share initial states, batches and, in number, points."
    reference_cells: Annotated[int, Between(16, 100_000)] = 512
    "Of the solutions that errors refer to."
    article_derivative: bool = True
    "Whether the derivative by the article's formula is shown beside the exact one."
    with_times: bool = True
    "Whether solves are timed."
    solves: Times = Times()
    "What is timed."
    with_turbulence: bool = False
    "Whether networks are trained on two-dimensional turbulence too, which takes hours on a processor."
    turbulence: Turbulence = Turbulence()
    "Its sizes."
    classical_cells: Annotated[int, Between(16, 100_000)] = 1024
    "Of the classical solver that is timed, at 101 times."
    explicit_share: Annotated[float, Between(1e-5, 1.0)] = 0.01
    "Of the time span through which the explicit solver is timed, for it needs as many steps everywhere."
    classical_repeats: Annotated[int, Between(3, 1000)] = 5
    "Of these timings."
