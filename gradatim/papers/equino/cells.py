"""The cell, what was solved of it, and interpolation between solved cells."""

from __future__ import annotations

import dataclasses
import time
from typing import NamedTuple

import jax
import numpy as np

from gradatim.lab import Session
from gradatim.lab.draws import host_generator
from gradatim.sciml import CellSolution, PeriodicCell, linear_elastic, ramberg_like_elastic

from .config import Config

FIBRE = {"bulk": 43452.381, "shear": 29918.0328}
"Glass, MPa."
MATRIX = {"bulk": 4780.0, "a1": 50.0, "a2": 0.06}
"MPa, MPa, and a strain."


def make_cell(config: Config) -> PeriodicCell:
    """Matrix, and a fibre in its middle; the norm with the component out of the plane, for which an energy exists."""
    materials = [ramberg_like_elastic(MATRIX["bulk"], MATRIX["a1"], MATRIX["a2"]), linear_elastic(**FIBRE)]
    return PeriodicCell.structured(config.elements, materials=materials, material_id=lambda x, y: x**2 + y**2 < config.radius**2)


def latin_hypercube(random: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """`count` points of a cube from -limit to limit, of which each of `count` slices along each axis holds one."""
    slices = np.stack([random.permutation(count) for _ in range(3)], axis=1)
    return limit * (2 * (slices + random.uniform(size=slices.shape)) / count - 1)


class Solved(NamedTuple):
    """What everything is made from, and measured against."""

    cell: PeriodicCell
    snapshots: CellSolution
    tests: CellSolution
    collocation: np.ndarray
    grid: CellSolution
    "On a cube of `config.grid` points a side, the first component slowest."
    seconds: float
    "Of one solution, mean over the snapshots."


def solve(config: Config, session: Session, key: jax.Array) -> Solved:
    """Snapshots, unseen strains and the grid of the interpolation."""
    random = host_generator(key)
    limit = config.strain_limit
    strains = {
        "snapshots": latin_hypercube(random, config.snapshots[-1], limit),
        "tests": latin_hypercube(random, config.tests, limit),
        "grid": np.stack(np.meshgrid(*[np.linspace(-limit, limit, config.grid)] * 3, indexing="ij"), axis=-1).reshape(-1, 3),
    }
    collocation = latin_hypercube(random, config.collocation, limit)
    cell = make_cell(config)

    def solutions() -> dict[str, dict[str, np.ndarray] | float]:
        cell.solve(strains["tests"][0])
        found, start = {}, time.perf_counter()
        for name, rows in strains.items():
            found[name] = cell.snapshots(rows)._asdict()
        seconds = time.perf_counter() - start
        # Of the grid only averages are needed.
        found["grid"] = {name: rows if name in _AVERAGES else np.zeros(0) for name, rows in found["grid"].items()}
        return {**found, "seconds": seconds / sum(map(len, strains.values()))}

    found = session.once("solved cells", solutions)
    solved = {name: CellSolution(**{part: np.asarray(rows) for part, rows in found[name].items()}) for name in strains}
    return Solved(cell, solved["snapshots"], solved["tests"], collocation, solved["grid"], float(found["seconds"]))


_AVERAGES = ("average_strain", "average_stress", "tangent", "steps", "residual")


def first(snapshots: CellSolution, count: int) -> CellSolution:
    """The first `count` of them."""
    return CellSolution(*(rows[:count] for rows in snapshots))


@dataclasses.dataclass(frozen=True)
class GridInterpolation:
    """The averaged stress as the product of splines along each component of the strain, cubic, through a grid of solved cells.

    With four points a side that is one polynomial. Its tangent is its own derivative. Knows no fields.
    """

    grid: CellSolution

    def __call__(self, strains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stresses (points, 3) and tangents (points, 3, 3)."""
        from scipy.interpolate import CubicSpline

        side = round(len(self.grid.average_strain) ** (1 / 3))
        places = self.grid.average_strain[:side, 2]
        values = self.grid.average_stress.reshape(side, side, side, 3)
        spline = CubicSpline(places, np.eye(side))
        weights, slopes = (np.stack([spline(strains[:, c], order) for c in range(3)]) for order in (0, 1))
        stress = np.einsum("pi,pj,pk,ijks->ps", *weights, values, optimize=True)
        columns = []
        for c in range(3):
            parts = [slopes[axis] if axis == c else weights[axis] for axis in range(3)]
            columns.append(np.einsum("pi,pj,pk,ijks->ps", *parts, values, optimize=True))
        return stress, np.stack(columns, axis=-1)


@dataclasses.dataclass(frozen=True)
class RadialInterpolation:
    """The averaged stress by cubic radial functions through scattered solved cells, with a linear part; no tangent."""

    snapshots: CellSolution

    def __call__(self, strains: np.ndarray) -> np.ndarray:
        """Stresses (points, 3)."""
        from scipy.interpolate import RBFInterpolator

        return RBFInterpolator(self.snapshots.average_strain, self.snapshots.average_stress, kernel="cubic")(strains)
