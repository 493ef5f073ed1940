"""Energies that a few gradient steps fit to a kind of system never met, by meta-learning (arXiv:2212.01168).

Each of four systems is held out in turn. One network is trained with inner steps on the other three, one without on the same points, one
not at all. Adam's rate, that of the inner steps and that of adaptation are chosen on the same grids, one after the other, by systems
that were trained on, for each arm and by each repeat for itself: the scatter of that choice is as large as what some claims are about.
Layer sizes, rates and numbers of tasks are reconstructed: no code of the authors' is public, and the article has no table.
Beside the claims of order stand two facts: a damped oscillator's field has a part that no energy can produce, and a perceptron of one
particle is a graph network whose links have not been used.
"""

from __future__ import annotations

from gradatim.lab import Findings, Session

from .comparison import Experiment
from .config import Config as Config
from .figures import draw as draw
from .judging import judge
from .trajectories import NAMES

PRECISION = "single"
SCALES = {
    "smoke": Config(
        trajectories=8, test_trajectories=5, times=20, width=8, depth=1, points=10, fewer_points=(5,), inner_steps=2,
        tasks_per_system=1, outer_steps=30, pilot_steps=10, outer_rates=(1e-2, 2e-2), inner_rates=(0.1, 0.3),
        adapt_steps=10, adapt_rates=(0.1, 0.3), tuning_tasks=1, test_tasks=3, rollout_tasks=2, rollouts=1, two_body_tasks=2, seeds=3,
    ),
    "laptop": Config(),
    "full": Config(
        trajectories=10_000, test_trajectories=100, width=200, depth=3, outer_steps=20_000, pilot_steps=2000, tasks_per_system=4, seeds=5,
        outer_rates=(3e-4, 1e-3, 3e-3), test_tasks=100,
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: trajectories with their rates, twice; learners with Adam's memory, their adapted copies; the activations of one outer step."""
    n_params = 4 * config.width + (config.depth - 1) * config.width**2 + (config.depth + 1) * config.width
    paths = 2 * config.seeds * len(NAMES) * (config.trajectories + config.test_trajectories) * (config.times + 1) * 8
    systems, seeds = len(NAMES), config.seeds
    tried = systems * seeds * max(len(config.outer_rates), len(config.inner_rates))
    adapted = max(systems * seeds * config.test_tasks, tried * 3 * config.tuning_tasks)
    learners = 3 * n_params * (16 * tried + 3 * adapted)
    tasks = max(3 * config.tasks_per_system, config.test_tasks)
    activations = tasks * config.points * config.width * config.depth * 40
    return 4 * (3 * paths + learners + activations)


def run(config: Config, session: Session) -> Findings:
    """Pilots, training, adaptation and what it is judged by.

    **Raises:** `ValueError` if few points do not divide the points, or points are more than half of the times or do not divide them.
    """
    for n_points in config.fewer_points:
        if config.points % n_points:
            raise ValueError(f"fewer_points must divide points = {config.points}, got {n_points}")
    return judge(Experiment(config, session).run(), session)
