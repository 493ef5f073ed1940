"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Config:
    """Networks in fixed and in moving coordinates, with the same points, widths and steps."""

    places: Annotated[int, Between(4, 1024)] = 24
    "Collocation points in a period, also labels of the moving coordinates."
    times: Annotated[int, Between(4, 1024)] = 24
    "Collocation points in time."
    width: Annotated[int, Between(2, 512)] = 32
    "Units of each hidden layer."
    depth_state: Annotated[int, Between(1, 10)] = 4
    "Hidden layers of the state."
    depth_path: Annotated[int, Between(1, 10)] = 2
    "Hidden layers of the displacement."
    steps: Annotated[int, Between(20, 10_000_000)] = 4000
    "Steps of Adam over all points, a multiple of 20 and of the windows; the rate falls to zero as a cosine."
    rate: Annotated[float, Between(1e-6, 1)] = 0.01
    "Of the first step, the authors'."
    amsgrad: bool = False
    "Whether Adam keeps its largest second moment, as the authors' does: in few steps the first gradients then hold it back for good."
    other_rates: Annotated[tuple[float, ...], Between(1e-6, 1)] = (0.003, 0.03)
    "With which the usual network is tried once more at speeds 10 and 30, so that its failure is not the rate's."
    speeds: Annotated[tuple[float, ...], Between(0.01, 1000)] = (1.0, 10.0, 30.0, 50.0)
    "Of convection–diffusion, both methods."
    fixed_burgers: Annotated[tuple[float, ...], Between(0, 1000)] = (0.0, 10.0, 30.0)
    "Means of the states of Burgers, at which their shocks travel, for the usual network."
    moving_burgers: Annotated[tuple[float, ...], Between(0, 1000)] = (0.0, 10.0)
    "Likewise for the moving coordinates; at the first that is not 0 both methods also have to learn the mean."
    by_label: bool = True
    "Whether the first of those is also learnt with the label's diffusion."
    seeds: Annotated[int, Between(3, 100)] = 6
    "Networks for each, paired among methods."
    diffusivity: Annotated[float, Between(1e-3, 1)] = 0.01
    "ν."
    windows: Annotated[int, Between(2, 16)] = 4
    "Of time, trained one after another; also the stages of the curriculum."
    cells: Annotated[int, Between(64, 8192)] = 512
    "Of the reference solutions."
    lanczos_steps: Annotated[int, Between(4, 500)] = 32
    "Products with a Hessian."
    grid: Annotated[int, Between(3, 201)] = 21
    "Points a side of a slice of the loss."
