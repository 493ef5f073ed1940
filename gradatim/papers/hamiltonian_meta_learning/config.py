"""The sizes of the experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gradatim.lab import Between


@dataclass(frozen=True)
class Config:
    """Four systems, each held out in turn; of every one as many trajectories to train on, and others to be judged by."""

    trajectories: Annotated[int, Between(2, 100_000)] = 300
    "Of each system, to train on."
    test_trajectories: Annotated[int, Between(4, 10_000)] = 30
    "Of each system, to choose rates on, or, of the system held out, to be judged by."
    times: Annotated[int, Between(20, 10_000)] = 200
    "Of a trajectory, over ten units of time."
    width: Annotated[int, Between(2, 2048)] = 64
    "Units of a hidden layer."
    depth: Annotated[int, Between(1, 10)] = 2
    "Hidden layers."
    points: Annotated[int, Between(1, 1000)] = 50
    "Of a task, to adapt to, and as many to be judged by."
    fewer_points: Annotated[tuple[int, ...], Between(1, 1000)] = (5, 10, 25)
    "Divisors of these, for the comparison of few points; the first is the claim's."
    inner_steps: Annotated[int, Between(0, 100)] = 3
    "Of gradient descent, differentiated through."
    inner_rates: Annotated[tuple[float, ...], Between(1e-5, 10)] = (0.03, 0.1, 0.3, 1.0, 3.0)
    "Of these: the grid; the middle one while Adam's rate is chosen."
    tasks_per_system: Annotated[int, Between(1, 1000)] = 2
    "In one outer step."
    outer_steps: Annotated[int, Between(1, 10_000_000)] = 450
    "Of Adam, its rate falling to zero along a cosine."
    pilot_steps: Annotated[int, Between(1, 10_000_000)] = 30
    "The same in the shorter trainings, on data and from a start of their own, by which each seed chooses Adam's and the inner steps' rate."
    outer_rates: Annotated[tuple[float, ...], Between(1e-6, 1)] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    "Of Adam: the grid, for every arm."
    clip: Annotated[float, Between(1e-3, 1e6)] = 10.0
    "Longest outer gradient."
    adapt_steps: Annotated[int, Between(1, 10_000)] = 50
    "Of gradient descent on the system held out."
    adapt_rates: Annotated[tuple[float, ...], Between(1e-5, 10)] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    "Of these: the grid, for every arm and seed, tried on systems that were trained on."
    tuning_tasks: Annotated[int, Between(1, 1000)] = 4
    "Of each system trained on, to choose that rate by."
    test_tasks: Annotated[int, Between(2, 1000)] = 30
    "Of the system held out."
    rollout_tasks: Annotated[int, Between(1, 1000)] = 10
    "Of these, whose adapted networks predict whole trajectories."
    rollouts: Annotated[int, Between(1, 100)] = 3
    "Other trajectories that each predicts."
    two_body_tasks: Annotated[int, Between(2, 1000)] = 10
    "Pairs of bodies."
    damping: Annotated[float, Between(1e-3, 2)] = 0.5
    "Of the oscillator that no energy can produce."
    seeds: Annotated[int, Between(3, 100)] = 6
    "Repetitions: data, initialisations and tasks."
