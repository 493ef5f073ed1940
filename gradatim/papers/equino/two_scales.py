"""A membrane whose material is the cell: solved at every point, or replaced by operators, interpolation, or a straight line."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.lab.draws import host_generator
from gradatim.sciml import (
    COOK,
    CellConstitutive,
    OperatorConstitutive,
    clamped_and_sheared,
    solve_macro,
    stresses_and_tangents,
    structured_quads,
)

from .cells import SIZES, GridInterpolation, Solved
from .config import Config
from .training import ANCHORED, Trained

NO_SOLUTION = 100.0
"The error, %, of a law with which Newton's method does not converge."
SIMULATIONS = 3
"Times that the membrane is timed, with cells solved and with an operator: the former takes seconds."


def two_scale_arms(config: Config) -> list[str]:
    """Operators that stand for the cell: of the claim, from all snapshots, and from the restricted ones otherwise trained."""
    counts = dict.fromkeys((config.restricted, config.snapshots[-1]))
    return [*(f"equilibrium {n}" for n in counts), *(f"{kind} {config.restricted}" for kind in (*ANCHORED, "regression"))]


def run_sizes(config: Config, solved: Solved, trained: dict[str, Trained], session: Session) -> dict[str, xr.Dataset]:
    """Averaged stresses by the size of the strain, relative errors in %, means over directions."""
    strains, truth = solved.sized.average_strain, solved.sized.average_stress
    tangent = solved.cell.solve(np.zeros(3)).tangent

    def off(stress: np.ndarray) -> np.ndarray:
        relative = np.linalg.norm(stress - truth, axis=1) / np.linalg.norm(truth, axis=1)
        return 100 * relative.reshape(len(SIZES), -1).mean(axis=1)

    def operators() -> dict[str, np.ndarray]:
        on_device, arms = jnp.asarray(strains), two_scale_arms(config)
        laws = [[trained[arm].operator(seed) for seed in range(len(trained[arm].parameters))] for arm in arms]
        rows = [[off(np.asarray(stresses_and_tangents(law, on_device)[0])) for law in row] for row in laws]
        return {"operator": np.array([_filled(row, config.seeds, np.full(len(SIZES), np.nan)) for row in rows])}

    found = session.once("errors by size of strain", operators)["operator"]
    variables = {
        "operator": (("arm", "seed", "size"), np.asarray(found), {"units": "%"}),
        "interpolation": ("size", off(GridInterpolation(solved.grid)(strains)[0]), {"units": "%"}),
        "straight_line": ("size", off(strains @ tangent.T), {"units": "%"}),
    }
    return {"sizes": xr.Dataset(variables, {"arm": two_scale_arms(config), "size": config.strain_limit * np.array(SIZES)})}


def _filled(row: list[Any], count: int, empty: Any) -> list[Any]:
    """A row of the arm's own seeds, as long as that of the arm which has all."""
    return row + [empty] * (count - len(row))


def run_membrane(config: Config, solved: Solved, trained: dict[str, Trained], session: Session) -> dict[str, xr.Dataset]:
    """Displacements and reactions of all laws, beside finite elements on both scales, and how long these and an operator take."""
    mesh = structured_quads(config.macro_elements, config.macro_elements, corners=COOK)
    tangent = solved.cell.solve(np.zeros(3)).tangent

    def straight(strains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return strains @ tangent.T, np.tile(tangent, (len(strains), 1, 1))

    is_fixed, unit = clamped_and_sheared(mesh, 1.0)
    height = config.macro_strain / abs(solve_macro(mesh, straight, is_fixed=is_fixed, values=unit).strain).max()
    is_pulled = is_fixed[1] & ~is_fixed[0]

    def membrane(law: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
        with warnings.catch_warnings():
            # On its way Newton's method may pass beyond the limit; how far its end lies is reported.
            warnings.filterwarnings("ignore", message="average strains lie beyond")
            found = solve_macro(mesh, law, is_fixed=is_fixed, values=height * unit)
        return {
            "displacement": found.displacement, "reaction": float(found.reaction[1, is_pulled].sum()), "steps": found.steps,
            "strain": found.strain, "stress": found.stress,
        }  # fmt: skip

    def on_both_scales() -> dict[str, Any]:
        cells = CellConstitutive(solved.cell)
        return {**membrane(cells), "solves": cells.solves}

    truth = session.once("finite elements on both scales", on_both_scales)
    arms = two_scale_arms(config)

    def all_laws() -> dict[str, Any]:
        rows: dict[str, list[Any]] = {name: [] for name in ("displacement_error", "reaction_error", "reach", "steps")}
        example: dict[str, np.ndarray] = {}
        for arm in arms:
            laws = [OperatorConstitutive(trained[arm].operator(seed)) for seed in range(len(trained[arm].parameters))]
            found = [compared(law) for law in laws]
            for name, values in rows.items():
                values.append(_filled([float(one[name]) for one in found], config.seeds, np.nan))
            if arm == arms[0]:
                example = {"displacement": found[0]["displacement"]}
        baselines: dict[str, Any] = {"interpolation": compared(GridInterpolation(solved.grid)), "straight line": compared(straight)}
        return {**{name: np.array(values) for name, values in rows.items()}, "baselines": baselines, **example}

    def compared(law: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
        try:
            found = membrane(law)
        except RuntimeError:
            nothing = np.full_like(truth["displacement"], np.nan)
            return {
                "displacement_error": NO_SOLUTION, "reaction_error": NO_SOLUTION, "reach": 1.0, "steps": 0, "displacement": nothing,
            }  # fmt: skip
        free, reference = found["displacement"][~is_fixed], truth["displacement"][~is_fixed]
        return {
            "displacement_error": 100 * float(np.linalg.norm(free - reference) / np.linalg.norm(reference)),
            "reaction_error": 100 * abs(found["reaction"] / truth["reaction"] - 1),
            "reach": float(abs(found["strain"]).max() / config.strain_limit),
            "steps": found["steps"], "displacement": found["displacement"],
        }  # fmt: skip

    found = session.once("laws of the membrane", all_laws)
    units = {"displacement_error": "%", "reaction_error": "%", "reach": "1", "steps": "steps"}
    variables: dict[str, Any] = {name: (("arm", "seed"), np.asarray(found[name]), {"units": unit}) for name, unit in units.items()}
    for name in ("displacement_error", "reaction_error"):
        rows = [float(found["baselines"][law][name]) for law in ("interpolation", "straight line")]
        variables[f"baseline_{name}"] = ("law", rows, {"units": "%"})
    variables |= {
        "displacement": (("axis", "node"), np.asarray(truth["displacement"]), {"units": "mm"}),
        "operator_displacement": (("axis", "node"), np.asarray(found["displacement"]), {"units": "mm"}),
        "place": (("axis", "node"), mesh.nodes.T, {"units": "mm"}),
        "strain": (("point", "component"), np.asarray(truth["strain"]), {"units": "1"}),
        "reaction": ((), float(truth["reaction"]), {"units": "N/mm"}),
        "height": ((), float(height), {"units": "mm"}),
        "solves": ((), int(truth["solves"]), {"units": "cells"}),
        "truth_steps": ((), int(truth["steps"]), {"units": "steps"}),
        "corners": (("element", "corner"), mesh.elements[:, :4], {"units": "1"}),
    }
    coords = {"arm": arms, "law": ["interpolation", "straight line"], "axis": ["x", "y"], "component": ["xx", "yy", "xy"]}
    trees = {"membrane": xr.Dataset(variables, coords)}
    arm = f"equilibrium {config.snapshots[-1]}"
    solving = np.flatnonzero(trees["membrane"]["steps"].sel(arm=arm) > 0)
    if not solving.size:
        session.note(f"C3: Newton's method converges for the membrane with no operator of {config.snapshots[-1]} snapshots")
        return trees
    operator = trained[arm].operator(int(solving[0]))
    seconds = session.timed(
        "the membrane",
        {"solved": lambda: membrane(CellConstitutive(solved.cell)), "operator": lambda: membrane(OperatorConstitutive(operator))},
        repeats=SIMULATIONS,
    )
    rows = np.stack([np.asarray(seconds[way]) for way in ("solved", "operator")])
    trees["simulation"] = xr.Dataset({"seconds": (("way", "repeat"), rows, {"units": "s"})}, {"way": ["solved", "operator"]})
    return trees


def run_speed(config: Config, solved: Solved, trained: dict[str, Trained], session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Seconds of averaged stress and tangent for one strain: solved, by an operator in a batch, and interpolated."""
    strains = config.strain_limit * host_generator(key).uniform(-1, 1, (config.batch, 3))
    on_device = jnp.asarray(strains)
    main = trained[f"equilibrium {config.snapshots[-1]}"].operator(0)
    few, interpolation = strains[:5], GridInterpolation(solved.grid)
    seconds = session.timed(
        "one strain",
        {
            "solved": lambda: [solved.cell.solve(strain).tangent for strain in few],
            "operator": lambda: stresses_and_tangents(main, on_device),
            "interpolated": lambda: interpolation(strains),
        },
        repeats=config.repeats,
    )
    counts = {"solved": len(few), "operator": config.batch, "interpolated": config.batch}
    rows = np.stack([np.asarray(seconds[name]) / count for name, count in counts.items()])
    variables = {"seconds": (("way", "repeat"), rows, {"units": "s"})}
    return {"speed": xr.Dataset(variables, {"way": list(counts)})}
