"""What the data say about the claims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session

from .config import Config
from .solving import ALIKE, LEARNED, RTOL, TIGHT, named

CG = "conjugate gradients"


def larger_sides(config: Config) -> tuple[int, ...]:
    """Cells a side of the boxes that no network is trained on."""
    return (2 * config.side, 3 * config.side) if config.with_larger else ()


def judge(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> Findings:
    """All measures."""
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    two = named(2)

    def count(where: str, method: str, rtol: float = RTOL) -> np.ndarray:
        """Iterations of each seed, the mean over its right-hand sides; the most that were allowed where they were not enough."""
        steps = trees[where]["iterations"].sel(solver=method, rtol=rtol).values
        return np.where(np.isfinite(steps), steps, config.max_steps).mean(axis=-1)

    measures["C1.iterations_over_cg"] = Measure.paired(count("box", two), count("box", CG), "log-ratio")
    measures["C1.iterations"] = Measure.over_seeds(count("box", two))
    measures["C3.cost_of_two"] = Measure.paired(count("box", two), count("box", named(10)))
    measures["C3.cost_of_none"] = Measure.paired(count("box", named(0)), count("box", two), "log-ratio")
    measures["C4.obstacle_iterations_over_cg"] = Measure.paired(count("disk", two), count("disk", CG), "log-ratio")
    for where in ("box", "disk", "noise"):
        session.note(f"{where.capitalize()}, iterations to {RTOL:g} and to {TIGHT:g}: {_table(trees[where])}")

    if config.with_larger:
        twice, thrice = (f"box_{side}" for side in larger_sides(config))
        measures["C2.iterations_over_cg_64"] = Measure.paired(count(twice, two), count(twice, CG), "log-ratio")
        measures["C2.iterations_over_cg_96"] = Measure.paired(count(thrice, two), count(thrice, CG), "log-ratio")
        growth = count(thrice, two) / count("box", two)
        of_gradients = count(thrice, CG) / count("box", CG)
        measures["C2.growth_over_cg_growth"] = Measure.paired(growth, of_gradients, "log-ratio")
        session.note(
            f"C2: from {config.side} to {3 * config.side} cells a side iterations grow {growth.mean():.2f}-fold, those of conjugate "
            f"gradients {of_gradients.mean():.2f}-fold. That their number is nearly the same on every grid, as the article has it, is not "
            "judged, for want of a bound: a network sees a fixed number of cells to each side"
        )
        costs = [Measure.paired(count(where, two), count(where, ALIKE)) for where in (twice, thrice)]
        measures["C6.cost_of_weighting"] = max(costs, key=lambda cost: cost.intervals()[0][0])
        for where in (twice, thrice):
            session.note(f"{where.removeprefix('box_')} cells a side, iterations to {RTOL:g}: {_table(trees[where])}")
    else:
        why = "grids larger than the trained one are left out of this run"
        untested |= {f"C2.{part}": why for part in ("iterations_over_cg_64", "iterations_over_cg_96", "growth_over_cg_growth")}
        untested["C6.cost_of_weighting"] = why

    measures["C5.time_over_best_classical"], best = _time(trees["timing"])
    # Loops end with the first residual that is small enough.
    measures["C5.reached_residual"] = Measure.exact(float(trees["box"]["residual"].sel(solver=two).min("step").max()))
    _note_time(trees, best, session)

    held = trees["training"]["held_out"].sel(boost=config.training.boost)
    measures["C6.training_loss"] = Measure.over_seeds(held.values)
    _note_training(config, trees, session)
    return Findings(measures, xr.DataTree.from_dict(dict(trees)), untested)


def _table(data: xr.Dataset) -> str:
    """Mean iterations by method and tolerance."""
    parts = []
    for method in data["solver"].values.tolist():
        steps = data["iterations"].sel(solver=method).values
        words = [f"{one.mean():.1f}" if np.isfinite(one).all() else f"not reached in {np.isinf(one).mean():.0%}" for one in steps]
        parts.append(f"{method}: {' and '.join(words)}")
    n_fallbacks = int(data["fallbacks"].sel(solver=named(2)).sum())
    return "; ".join(parts) + f"; steps of {named(2)} along the residual instead: {n_fallbacks}"


def _time(timing: xr.Dataset) -> tuple[Measure, str]:
    """The learned solver's time over that of the classical one which is fastest over all seeds, and the name of this."""
    seconds = timing["seconds"].median("repeat")
    rivals = [name for name in seconds["solver"].values.tolist() if name != LEARNED]
    best = min(rivals, key=lambda name: float(seconds.sel(solver=name).mean()))
    return Measure.paired(seconds.sel(solver=LEARNED).values, seconds.sel(solver=best).values, "log-ratio"), best


def _note_time(trees: Mapping[str, xr.Dataset], best: str, session: Session) -> None:
    timing = trees["timing"]
    seconds = timing["seconds"].median("repeat").mean("seed")
    times = ", ".join(f"{name} {1e3 * float(seconds.sel(solver=name)):.3g} ms" for name in seconds["solver"].values.tolist())
    per_step = seconds.sel(solver=LEARNED) / trees["box"]["iterations"].sel(solver=named(2), rtol=RTOL).mean()
    session.note(
        f"C5: one warm solve to {RTOL:g}, set-up, factors and training apart: {times}; the fastest without learning: {best}; an iteration "
        f"with the network takes {1e3 * float(per_step):.2g} ms; largest relative residual left: {float(timing['left'].max()):.2g}"
    )
    once = trees["box"]["residual"].sel(solver=named(2)).isel(step=1)
    session.note(f"C5: the network without the loop, with the best scale, leaves a relative residual of {float(once.mean()):.2g}")


def _note_training(config: Config, trees: Mapping[str, xr.Dataset], session: Session) -> None:
    held, spectrum = trees["training"]["held_out"], trees["spectrum"]
    losses = ", ".join(f"weight {boost:g}: {float(held.sel(boost=boost).mean()):.3g}" for boost in held["boost"].values)
    low = spectrum["energy"].where(spectrum["is_low"]).sum("ritz")
    shares = ", ".join(f"weight {boost:g}: {float(low.sel(boost=boost)):.1%}" for boost in low["boost"].values)
    session.note(
        f"C6: losses of held-out right-hand sides after {config.training.steps} steps, each of its own kind, {losses}; energy of the "
        f"training set at the low end of the spectrum, {shares}; one learning rate for both, {config.training.learning_rate:g}"
    )
