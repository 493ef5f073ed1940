"""Hard constraints by a mixture of experts (arXiv:2402.13412): solves inside a network, block by block, for diffusion with sorption.

The expert of a point is fixed by where it lies; no gate is learnt. The networks are a few narrow Fourier layers on 26 times and 64 places;
all arms share loss, data, points in number, steps, and grids from which each takes the rate and the weight of the conditions that are best
for seeds that are not judged. Each seed draws initial states of its own, to train on and to judge by. Beside the article: rows of the
equation are in non-dimensional time, and each group of rows is divided by the root of its number; rows of the initial condition are
divided by 0.1 instead of an initial concentration that may be tiny; second differences are compact; the equation is asked for inside the
domain only; the right end has the sign of the benchmark's solver. Turbulence in two dimensions takes hours, at 32 × 32 × 16 points too,
of which the article has 64 × 64 × 64: `--with-turbulence`, or the full scale.
"""

from __future__ import annotations

import jax
import xarray as xr

from gradatim.lab import Findings, Session

from .config import Config as Config
from .config import Times as Times
from .config import Turbulence as Turbulence
from .derivatives import measure_derivatives
from .figures import draw as draw
from .interpolation import interpolate_all
from .judging import judge
from .times import time_classical, time_solves
from .training import LOOKED_AT, train_all
from .turbulence import check_turbulence, train_turbulence

PRECISION = "double"
SCALES = {
    "smoke": Config(
        times=8, trained_times=7, places=16, blocks=2, points=40, basis=3, width=3, depth=1, modes=(2, 3), hidden=4, max_steps=8,
        initial_states=8, held_out=3, batch=2, steps=6, rates=(3e-3,), condition_weights=(1.0,), pilot_steps=2, pilot_seeds=2,
        looks=2, seeds=3, reference_cells=64, article_derivative=False, with_times=False, classical_cells=64, explicit_share=0.1,
        classical_repeats=3,
    ),
    "laptop": Config(),
    "full": Config(
        times=101, trained_times=81, places=1024, points=80_000, basis=16, width=64, depth=5, modes=(8, 8), hidden=128, max_steps=50,
        relative_initial=True, initial_states=8000, held_out=100, batch=6, steps=4000, pilot_steps=400, reference_cells=2048,
        with_turbulence=True,
        solves=Times(times=101, places=1024, batch=6, points=(100, 1000, 10_000, 100_000), repeats=64), explicit_share=1.0,
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Peak bytes: activations of a batch and of the held-out states with their terms, points and rows of the solves."""
    grid = config.times * config.places
    row = 6 * config.width * config.depth + 3 * config.hidden + 12 * config.basis
    trained, held_out = 3 * config.batch * grid * row, 2 * min(config.held_out, LOOKED_AT) * grid * (row + 20)
    points = 256 * config.points + 8 * config.points * config.basis * max(config.batch, config.held_out)
    solved, solves = 3 * (config.pilot_seeds + config.seeds) * config.held_out * grid, config.solves
    timed = 0
    if config.with_times:
        timed = solves.batch * solves.times * solves.places * solves.basis * 20 + 2 * solves.repeats * sum(solves.points)
    if config.with_turbulence:
        flow = config.turbulence
        plane = flow.times * flow.side**2
        timed += 3 * flow.batch * plane * (6 * flow.width * flow.depth + 3 * flow.hidden + 12 * flow.basis)
        timed += (
            2 * flow.times * flow.fine_side**2 * (12 * flow.basis + (flow.pilot_seeds + flow.seeds) * flow.held_out)
            + 2 * (flow.pilot_seeds + flow.seeds) * flow.initial_states * flow.side**2
        )
    weights = 40 * config.depth * config.modes[0] * config.modes[1] * config.width**2
    return 8 * (max(trained, held_out) + points + solved + timed + weights + 4 * config.classical_cells * 101)


def run(config: Config, session: Session) -> Findings:
    """Networks of all arms first, then interpolation, derivatives and times."""
    _check(config)
    key_train, key_derivatives, key_times = jax.random.split(session.key, 3)
    trained = train_all(config, session, key_train)
    trees: dict[str, xr.Dataset] = {"training": trained.training, "pilots": trained.pilots}
    trees["interpolation"] = interpolate_all(config, trained)
    trees["derivatives"] = measure_derivatives(config, session, key_derivatives)
    trees["classical"] = time_classical(config, session)
    if config.with_times:
        trees["solves"] = time_solves(config, session, key_times)
    if config.with_turbulence:
        trees["turbulence"] = train_turbulence(config, session, jax.random.fold_in(session.key, 3))
    return judge(config, trees, session)


def _check(config: Config) -> None:
    solves = config.solves
    named = [("places", config.places), ("points", config.points), ("solves.places", solves.places)]
    for name, number in [*named, *(("solves.points", number) for number in solves.points)]:
        if number % config.blocks:
            raise ValueError(f"{name} must be a multiple of the {config.blocks} blocks, got {number}")
    if not 5 <= config.trained_times < config.times:
        raise ValueError(f"trained_times must lie in [5, {config.times}), so that some are left beyond, got {config.trained_times}")
    if len(solves.points) < 2 or list(solves.points) != sorted(set(solves.points)) or solves.points[-1] > solves.times * solves.places:
        raise ValueError(f"solves.points must ascend, at least two and at most {solves.times * solves.places}, got {solves.points}")
    if config.steps % config.looks:
        raise ValueError(f"steps must be a multiple of the {config.looks} looks, got {config.steps}")
    if config.with_turbulence:
        check_turbulence(config.turbulence)
    if config.pilot_steps > config.steps:
        raise ValueError(f"pilot_steps must be at most the {config.steps} steps, got {config.pilot_steps}")
