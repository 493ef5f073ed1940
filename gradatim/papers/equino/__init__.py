"""Equilibrium neural operators on two scales (Eivazi and others, arXiv:2504.07976).

One cell with a round fibre on a mesh of moderate size stands for the article's three, which `cell` chooses; its material laws, sizes of
the networks, first steps of Adam and the box of strains are the authors', whose tens of thousands of steps of L-BFGS on all points are
some thousand here on points chosen by Q-DEIM. The law's norm has the component out of the plane, so that an energy exists, which the
variational operator minimises.
"""

from __future__ import annotations

from itertools import pairwise

import jax
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session

from .cells import Drawn, GridInterpolation, RadialInterpolation, Solved, solve
from .config import Config as Config
from .figures import draw as draw
from .judging import judge
from .training import COMPONENTS, Trained, projection_errors, train_operators
from .two_scales import run_membrane, run_sizes, run_speed

PRECISION = "double"
SCALES = {
    "smoke": Config(
        elements=4, snapshots=(6, 10), restricted=6, rank=6, tests=4, collocation=20, width=16, depth=1, seeds=3, variational_seeds=3,
        beside_seeds=1, points=24, all_points_seeds=0, adam_steps=200, lbfgs_steps=40, variational_lbfgs_steps=0, memory=5,
        macro_elements=1, batch=100, repeats=3,
    ),
    "laptop": Config(),
    "full": Config(
        cell="two_fibres", elements=32, snapshots=(16, 48, 100), tests=100, collocation=1000, points=96, adam_steps=1000,
        lbfgs_steps=50_000, variational_lbfgs_steps=50_000, memory=50, grid=5, macro_elements=8, beside_seeds=3,
    ),
}  # fmt: skip


def memory(config: Config) -> int:
    """Bytes: energies of a batch at all points with what their gradient keeps, L-BFGS pairs and fields of all seeds."""
    points, nodes = 9 * config.elements**2, 3 * config.elements**2
    samples = 8 * (30 * config.collocation + 10 * config.seeds * (config.snapshots[-1] + config.tests)) * points
    trunk = 8 * 12 * nodes * config.width * (config.depth + 1) + 8 * 4 * 6 * config.rank * points
    sizes = [3, *(config.width for _ in range(config.depth)), config.rank]
    parameters = 2 * sum((m + 1) * n for m, n in pairwise(sizes))
    fields = 8 * 12 * config.seeds * config.tests * 3 * points
    return samples + trunk + 16 * (config.memory + 4) * parameters + fields + 8 * 400 * points


def run(config: Config, session: Session) -> Findings:
    """Solved cells, operators from them, the membrane, and times."""
    _check(config)
    key_cells, key_train, key_speed = jax.random.split(session.key, 3)
    solved = solve(config, session, key_cells)
    trained = train_operators(config, solved, session, key_train)
    trees: dict[str, xr.Dataset] = {name.replace(" ", "_"): found.data for name, found in trained.items()}
    trees["projection"] = projection_errors(config, solved)
    trees["baselines"] = _baselines(solved)
    trees["solved"] = xr.Dataset(
        {
            "residual": (("seed", "snapshot"), np.stack([drawn.snapshots.residual for drawn in solved.draws]), {"units": "1"}),
            "steps": (("seed", "snapshot"), np.stack([drawn.snapshots.steps for drawn in solved.draws]), {"units": "steps"}),
            "seconds": ((), solved.seconds, {"units": "s"}),
        }
    )
    trees["fields"] = _fields(config, solved, trained)
    trees |= run_sizes(config, solved, trained, session)
    trees |= run_membrane(config, solved, trained, session)
    trees |= run_speed(config, solved, trained, session, key_speed)
    return judge(config, trees, session)


def _check(config: Config) -> None:
    if list(config.snapshots) != sorted(set(config.snapshots)):
        raise ValueError(f"snapshots must ascend, got {config.snapshots}")
    if config.restricted not in config.snapshots:
        raise ValueError(f"restricted must be among snapshots {config.snapshots}, got {config.restricted}")
    for name in ("variational_seeds", "beside_seeds", "all_points_seeds"):
        if getattr(config, name) > config.seeds:
            raise ValueError(f"{name} must be at most the {config.seeds} seeds, got {getattr(config, name)}")


def _baselines(solved: Solved) -> xr.Dataset:
    """Of averaged stresses alone, at the unseen strains, %."""
    at_zero, interpolation = solved.cell.solve(np.zeros(3)).tangent, GridInterpolation(solved.grid)

    def off(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        flat, other = found.reshape(len(found), -1), truth.reshape(len(truth), -1)
        return 100 * np.linalg.norm(flat - other, axis=1) / np.linalg.norm(other, axis=1)

    def of(drawn: Drawn) -> dict[str, np.ndarray]:
        strains, truth = drawn.tests.average_strain, drawn.tests.average_stress
        stress, tangent = interpolation(strains)
        return {
            "grid_average": off(stress, truth),
            "grid_tangent": off(tangent, drawn.tests.tangent),
            "radial_average": off(RadialInterpolation(drawn.snapshots)(strains), truth),
            "linear_average": off(strains @ at_zero.T, truth),
        }

    rows = [of(drawn) for drawn in solved.draws]
    variables = {name: (("seed", "test"), np.stack([row[name] for row in rows]), {"units": "%"}) for name in rows[0]}
    return xr.Dataset({**variables, "solves": ((), len(solved.grid.average_strain), {"units": "cells"})})


def _fields(config: Config, solved: Solved, trained: dict[str, Trained]) -> xr.Dataset:
    """Stresses at the unseen strain whose error is the median, of the first seed, on the grid that the Gauss points make."""
    main = trained[f"equilibrium {config.snapshots[-1]}"]
    off = main.data["tensor"].values[0]
    test = int(np.argsort(off)[len(off) // 2])
    n, tests = config.elements, solved.draws[0].tests

    def on_grid(values: np.ndarray) -> np.ndarray:
        return values.reshape(*values.shape[:-1], n, n, 3, 3).swapaxes(-3, -2).reshape(*values.shape[:-1], 3 * n, 3 * n)

    fields = {
        "solved": tests.stress[test],
        "equilibrium": main.examples["stress"][test],
        "variational": trained["variational"].examples["stress"][test],
    }
    x, y = (on_grid(place) for place in solved.cell.places)
    variables = {name: (("component", "y", "x"), on_grid(values), {"units": "MPa"}) for name, values in fields.items()}
    strain = ("component", tests.average_strain[test], {"units": "1"})
    return xr.Dataset({**variables, "average_strain": strain}, {"component": list(COMPONENTS), "x": x[0], "y": y[:, 0]})
