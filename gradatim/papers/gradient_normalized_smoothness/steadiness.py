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

SYSTEMS = {"Rosenbrock, p = 5": (RosenbrockResidual(), 5, 2, 3.0), "Chebyshev 10, p = 4": (ChebyshevResidual(), POWER, 10, 1.0)}
"Residual, power, unknowns, and half the side of the cube that starts are uniform in."
HESSIANS = {"exact": ExactHessian(), "Gauss–Newton": GAUSS_NEWTON}


@eqx.filter_jit
def _from_starts(objective: ResidualPower, starts: Array, hessian: AbstractHessian, max_steps: int) -> dict[str, Array]:
    def one(start: Array) -> dict[str, Array]:
        solver = GradientNormalizedNewton(0.0, 0.0, hessian=hessian, value_target=GAP)
        solution = optx.minimise(value_at, solver, start, objective, max_steps=max_steps, throw=False)
        return {
            "reached": (objective(solution.value) < GAP) & (solution.result == optx.RESULTS.successful),
            "steps": solution.stats["num_steps"],
            "failures": solution.stats["num_failed_solves"],
        }

    return jax.vmap(one)(starts)


def compare(config: Config, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """The exact Hessian and its semidefinite part from the same starts."""
    found: dict[str, list[Any]] = {"reached": [], "steps": [], "failures": []}
    for index, (name, (residual, power, n, side)) in enumerate(SYSTEMS.items()):
        key = jax.random.fold_in(session.key, index)
        starts = jax.random.uniform(key, (config.n_starts, n), minval=-side, maxval=side)
        objective = ResidualPower(residual, power)
        runs = [
            session.once(f"{name}, {hessian_name}", _from_starts, objective, starts, hessian, config.nonconvex_steps)
            for hessian_name, hessian in HESSIANS.items()
        ]
        for key_name, into in found.items():
            into.append(np.stack([np.asarray(run[key_name]) for run in runs]))
    arrays = {name: np.stack(values) for name, values in found.items()}
    reached, failures = arrays["reached"].astype(float), arrays["failures"]
    for i, name in enumerate(SYSTEMS):
        shares = [f"{reached[i, j].mean():.3f} ({failures[i, j].sum()} factorisations fail)" for j in range(2)]
        session.note(f"{name}: share of starts that arrive, exact Hessian {shares[0]}, its semidefinite part {shares[1]}")
    measures = {
        "C9.failed_factorisations": Measure.exact(float(failures[:, 1].sum())),
        "C9.success_difference": Measure.paired(reached[:, 1].ravel(), reached[:, 0].ravel()),
    }
    data = xr.Dataset(
        {name: (("system", "hessian", "start"), values.astype(float), {"units": "1"}) for name, values in arrays.items()},
        {"system": list(SYSTEMS), "hessian": list(HESSIANS)},
    )
    return measures, data
