"""Random starts of nonlinear equations: how often a factorisation fails and the minimum is reached (claim 9)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optimistix as optx
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session
from gradatim.optim import (
    AbstractHessian,
    ChebyshevResidual,
    ExactHessian,
    GradientNormalizedNewton,
    ResidualPower,
    RosenbrockResidual,
    value_at,
)

from .config import Config
from .problems import GAP, GAUSS_NEWTON, POWER

HESSIANS = {"exact": ExactHessian(), "Gauss–Newton": GAUSS_NEWTON}

BLOCK = 125
"Starts side by side: each step of a block has as many trials as its slowest, and what is held of a block fits into a cache."


def systems(config: Config) -> dict[str, tuple[Any, int, int, float]]:
    """Residual, power, unknowns, and half the side of the cube that starts are uniform in."""
    n = config.chebyshev_starts
    return {"Rosenbrock, p = 5": (RosenbrockResidual(), 5, 2, 3.0), f"Chebyshev {n}, p = {POWER}": (ChebyshevResidual(), POWER, n, 1.0)}


@eqx.filter_jit
def _from_starts(objective: ResidualPower, starts: Array, hessian: AbstractHessian, max_steps: int) -> dict[str, Array]:
    def one(start: Array) -> dict[str, Array]:
        solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian, value_target=GAP)
        solution = optx.minimise(value_at, solver, start, objective, max_steps=max_steps, throw=False)
        return {
            "reached": (objective(solution.value) < GAP) & (solution.result == optx.RESULTS.successful),
            "steps": solution.stats["num_steps"],
            "solves": solution.stats["num_solves"],
            "failures": solution.stats["num_failed_solves"],
        }

    return jax.lax.map(one, starts, batch_size=BLOCK)


def compare(config: Config, session: Session) -> tuple[dict[str, Measure], dict[str, str], xr.Dataset]:
    """The exact Hessian and its semidefinite part from the same starts: measures, reasons for what is not measured, and data."""
    found: dict[str, list[Any]] = {"reached": [], "steps": [], "solves": [], "failures": []}
    ratios: dict[str, Measure] = {}
    for index, (name, (residual, power, n, side)) in enumerate(systems(config).items()):
        key = jax.random.fold_in(session.key, index)
        starts = jax.random.uniform(key, (config.n_starts, n), minval=-side, maxval=side)
        objective = ResidualPower(residual, power)
        runs = [
            session.once(f"{name}, {hessian_name}", _from_starts, objective, starts, hessian, config.nonconvex_steps)
            for hessian_name, hessian in HESSIANS.items()
        ]
        arrays = {key_name: np.stack([np.asarray(run[key_name]) for run in runs]) for key_name in found}
        for key_name, into in found.items():
            into.append(arrays[key_name])
        both = arrays["reached"].all(axis=0)
        words = [
            f"{arrays['reached'][j].mean():.3f} (median {np.median(arrays['solves'][j]):.0f} solves, {arrays['failures'][j].sum()} of all "
            "factorisations fail)"
            for j in range(2)
        ]
        session.note(f"{name}: share of starts that arrive, exact Hessian {words[0]}, its semidefinite part {words[1]}")
        if both.sum() >= 3:
            ratios[name] = Measure.paired(arrays["solves"][1, both], arrays["solves"][0, both], "log-ratio")
            session.note(
                f"{name}: solves to arrival, semidefinite part over exact Hessian, geometric mean over {both.sum()} starts "
                f"{ratios[name].value:.3f} [{ratios[name].low:.3f}, {ratios[name].high:.3f}]"
            )
    data = xr.Dataset(
        {name: (("system", "hessian", "start"), np.stack(values).astype(float), {"units": "1"}) for name, values in found.items()},
        {"system": list(systems(config)), "hessian": list(HESSIANS)},
    )
    reached = data["reached"].values
    measures = {"C9.success_difference": Measure.paired(reached[:, 1].ravel(), reached[:, 0].ravel())}
    if len(ratios) < len(systems(config)):
        reason = f"fewer than three starts arrive with both Hessians within {config.nonconvex_steps} steps"
        return measures, {"C9.solves_over_exact": reason}, data
    measures["C9.solves_over_exact"] = max(ratios.values(), key=lambda ratio: float(np.asarray(ratio.value)))
    return measures, {}, data
