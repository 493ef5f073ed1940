"""Least squares on both levels: every bound and every decrease beside the truth (C1 to C4)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.implicit import BilevelStep, LinearBilevel, maid
from gradatim.lab import Session

from .config import Quadratic, Well

SETTINGS = {"step_size": 0.01, "share": 0.5, "decrease": 0.25, "step_growth": 10 / 9}
LOOSEN = 1.25
FIXED: dict[str, Any] = {"tighten": None}
"The accuracy stays as it is given."
"Growth of the accuracy after a step; with SETTINGS the constants of the authors' quadratic experiment."
LOOKS = 80
"Points along the work at which runs are drawn."
ROUND_OFF = 1e-12
"Of a loss, relative to 1 + f."
UNITS = {"work": "lower gradients", "lower_gradients": "1", "steps": "1", "violations": "1", "ascents": "1", "broken_promises": "1"}


class Truth:
    """f and ∇f of a linear bilevel problem: f = ½‖Mθ + m‖²."""

    def __init__(self, problem: LinearBilevel) -> None:
        pseudo = np.asarray(problem.A1) @ np.linalg.pinv(problem.A2)
        self.M = -pseudo @ np.asarray(problem.A3)
        self.m = pseudo @ np.asarray(problem.b2) - np.asarray(problem.b1)
        self.least = float(self.values(np.linalg.lstsq(self.M, -self.m)[0][None])[0])

    def values(self, thetas: np.ndarray) -> np.ndarray:
        """f, of rows."""
        return np.sum((thetas @ self.M.T + self.m) ** 2, axis=1) / 2

    def gradients(self, thetas: np.ndarray) -> np.ndarray:
        """∇f, of rows."""
        return (thetas @ self.M.T + self.m) @ self.M


def uniform_problem(config: Quadratic, random: np.random.Generator) -> tuple[LinearBilevel, np.ndarray]:
    """A problem as the paper draws it, and the lower start."""
    return _problem([random.uniform(size=(config.rows, config.columns)) for _ in range(3)], random)


def well_problem(config: Well, random: np.random.Generator) -> LinearBilevel:
    """Singular values from 1 to 2; A₂ and A₃ share their left vectors, so that x̂ follows θ in every direction."""

    def rotation(rows: int) -> np.ndarray:
        return np.linalg.qr(random.normal(size=(rows, config.columns)))[0]

    values, shared = np.linspace(1, 2, config.columns), rotation(config.rows)
    matrices = [left * values @ rotation(config.columns).T for left in (rotation(config.rows), shared, shared)]
    return _problem(matrices, random)[0]


def _problem(matrices: list[np.ndarray], random: np.random.Generator) -> tuple[LinearBilevel, np.ndarray]:
    A1, A2, A3 = matrices
    x1, x2, theta = (random.uniform(size=A1.shape[1]) for _ in range(3))
    y1, y2 = (random.standard_normal(len(A1)) for _ in range(2))
    b1, b2 = A1 @ x1 + 0.01 * y1, A2 @ x2 + A3 @ theta + 0.01 * y2
    return LinearBilevel.of(*(jnp.asarray(a) for a in (A1, b1, A2, A3, b2))), x2


def followed(problem: LinearBilevel, theta: np.ndarray, x: np.ndarray, **settings: Any) -> dict[str, np.ndarray]:
    """A run with the truth at each of its steps, one entry a step."""
    steps: list[BilevelStep] = []
    found = maid(problem, jnp.asarray(theta), jnp.asarray(x), callback=steps.append, **SETTINGS, **settings)
    truth, size = Truth(problem), len(theta)
    thetas, after = (np.array([getattr(s, name) for s in steps]).reshape(-1, size) for name in ("theta", "next_theta"))
    directions = np.array([s.gradient for s in steps]).reshape(-1, size)
    value, next_value, gradients = truth.values(thetas), truth.values(after), truth.gradients(thetas)
    promised = SETTINGS["decrease"] * found.history.step_size * found.history.gradient_norm**2
    last = np.asarray(found.theta)[None]
    return {
        "work": found.history.work,
        "lower_gradients": found.history.lower_gradients,
        "gap": next_value - truth.least,
        "slope": np.linalg.norm(truth.gradients(after), axis=1),
        "error_over_bound": np.linalg.norm(directions - gradients, axis=1) / found.history.error_bound,
        "bound_over_gradient": found.history.error_bound / found.history.gradient_norm,
        "accuracy": found.history.accuracy,
        "is_broken": next_value - value > -promised + ROUND_OFF * (1 + value),
        "is_ascent": np.sum(directions * gradients, axis=1) <= 0,
        "end": np.array([truth.values(last)[0] - truth.least, np.linalg.norm(truth.gradients(last)), found.work.lower_gradients]),
    }


def run_quadratic(config: Quadratic, session: Session) -> dict[str, xr.Dataset]:
    """The badly conditioned problem, each draw from every first accuracy, and at every fixed one, with equal work."""
    key = np.asarray(jax.random.key_data(session.key)).tolist()
    theta = np.ones(config.columns)
    grid = np.geomspace(config.work / 1000, config.work, LOOKS)
    draws, first_gaps = [], []
    for i in range(config.draws):
        problem, x = uniform_problem(config, np.random.default_rng([*key, 3, i]))
        rows: dict[str, list[dict[str, Any]]] = {"adaptive": [], "fixed": []}
        for accuracy in config.accuracies:
            for way, more in (("adaptive", {"loosen": LOOSEN}), ("fixed", FIXED)):
                settings = {"accuracy": accuracy, "work_limit": config.work, "max_steps": 10**6, **more}

                def one_run(problem: Any = problem, x: Any = x, settings: Any = settings) -> dict[str, np.ndarray]:
                    return followed(problem, theta, x, **settings)

                run = session.once(f"quadratic {i}, {way}, {accuracy:g}", one_run)
                rows[way].append(_looked_at(run, grid, config.work))
        draws.append(_stacked([rows["adaptive"], rows["fixed"]], ("way", "accuracy")))
        truth = Truth(problem)
        first_gaps.append(float(truth.values(theta[None])[0]) - truth.least)
    data = xr.concat(draws, "draw").assign(first_gap=("draw", first_gaps, {"units": "1"}))
    return {"quadratic": data.assign_coords(way=["adaptive", "fixed"], accuracy=list(config.accuracies), work=grid)}


def run_well(config: Well, session: Session) -> dict[str, xr.Dataset]:
    """The well conditioned problem, each draw from every first accuracy, and at two fixed ones."""
    key = np.asarray(jax.random.key_data(session.key)).tolist()
    draws = []
    for i in range(config.draws):
        problem = well_problem(config, np.random.default_rng([*key, 0, i]))
        theta, x = np.ones(config.columns), np.zeros(config.columns)
        settings = {"stop_at": config.stop_at, "max_steps": 2000}
        arms = [{"accuracy": a, "loosen": LOOSEN} for a in config.accuracies]
        arms += [{"accuracy": a, **FIXED} for a in (config.coarse, config.fine)]

        def all_runs(arms: Any = arms, problem: Any = problem, theta: Any = theta, x: Any = x, settings: Any = settings) -> list:
            return [followed(problem, theta, x, **settings, **more) for more in arms]

        runs = session.once(f"well conditioned, {i}", all_runs)
        # The norm that all of them reach, that of the fixed fine accuracy's end where it stalls above the others'.
        target = max(config.stop_at, float(runs[-1]["end"][1]) * (1 + 1e-9))
        draws.append([{**_summary(run), "gradients_to_target": _first(run, target), "target": target} for run in runs])
    data = _stacked(draws, ("draw", "arm"))
    arms = [f"adaptive {a:g}" for a in config.accuracies] + [f"fixed {a:g}" for a in (config.coarse, config.fine)]
    return {"well": data.assign_coords(arm=arms)}


def _first(run: dict[str, np.ndarray], target: float) -> float:
    """Lower gradients until the true gradient is at most the target."""
    reached = np.flatnonzero(run["slope"] <= target)
    return float(run["lower_gradients"][reached[0]]) if reached.size else np.nan


def _summary(run: dict[str, np.ndarray]) -> dict[str, Any]:
    return {
        "final_gap": run["end"][0],
        "final_slope": run["end"][1],
        "lower_gradients": run["end"][2],
        "steps": len(run["gap"]),
        "violations": np.sum(run["error_over_bound"] > 1),
        "worst_error_over_bound": np.max(run["error_over_bound"], initial=0),
        "broken_promises": np.sum(run["is_broken"]),
        "ascents": np.sum(run["is_ascent"]),
    }


def _looked_at(run: dict[str, np.ndarray], grid: np.ndarray, limit: float) -> dict[str, Any]:
    """A summary, and the state at given amounts of work: NaN before the first step."""
    last = np.searchsorted(run["work"], grid, side="right") - 1

    def at(name: str) -> tuple[str, np.ndarray]:
        values = np.append(np.asarray(run[name], float), np.nan)
        return "work", values[last]

    within = np.flatnonzero(run["work"] <= limit)
    equal = {"gap_at_equal_work": run["gap"][within[-1]] if within.size else np.nan}
    return {**_summary(run), **equal, **{name: at(name) for name in ("gap", "error_over_bound", "bound_over_gradient", "accuracy")}}


def _stacked(rows: list[list[dict[str, Any]]], dims: tuple[str, str]) -> xr.Dataset:
    first = rows[0][0]
    data = {}
    for name, entry in first.items():
        inner = (entry[0],) if isinstance(entry, tuple) else ()
        values = [[np.asarray(cell[name][1] if inner else cell[name], float) for cell in row] for row in rows]
        data[name if name != "accuracy" else "present_accuracy"] = ((*dims, *inner), np.array(values), {"units": UNITS.get(name, "1")})
    return xr.Dataset(data)
