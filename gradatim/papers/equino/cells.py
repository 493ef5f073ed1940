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


SIZES = (0.025, 0.08, 0.25, 0.5, 1.0)
"Largest components of strains, over the limit, at which averaged stresses are compared."
LAPLACE = 0.25
"Scale of the distribution that has more small strains than the box, over the limit; the authors' code has 0.01 for a limit of 0.04."


def is_fibre(config: Config, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether places of the unit square around the origin lie in a fibre. The three circles have the article's share, 0.133, and two sizes;
    where they lie is ours.
    """
    if config.cell == "two_fibres":
        return (x**2 + y**2 < 0.2958**2) | ((abs(x) - 0.5) ** 2 + (abs(y) - 0.5) ** 2 < 0.2958**2)
    if config.cell == "ellipse":
        along, across = (np.cos(np.pi / 6) * a + np.sin(np.pi / 6) * b for a, b in ((x, y), (y, -x)))
        return (along / 0.35) ** 2 + (across / 0.175) ** 2 < 1
    circles = [(0.0, 0.0, config.radius)]
    if config.cell == "three_circles":
        circles = [(-0.2, -0.15, 0.15), (0.25, 0.2, 0.1), (0.15, -0.3, 0.1)]
    return np.any([(x - a) ** 2 + (y - b) ** 2 < radius**2 for a, b, radius in circles], axis=0)


def make_cell(config: Config) -> PeriodicCell:
    """Matrix and fibres; the norm with the component out of the plane, for which an energy exists."""
    materials = [ramberg_like_elastic(MATRIX["bulk"], MATRIX["a1"], MATRIX["a2"]), linear_elastic(**FIBRE)]
    return PeriodicCell.structured(config.elements, materials=materials, material_id=lambda x, y: is_fibre(config, x, y))


def latin_hypercube(random: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """`count` points of a cube from -limit to limit, of which each of `count` slices along each axis holds one."""
    slices = np.stack([random.permutation(count) for _ in range(3)], axis=1)
    return limit * (2 * (slices + random.uniform(size=slices.shape)) / count - 1)


def folded_laplace(random: np.random.Generator, count: int, limit: float) -> np.ndarray:
    """`count` points of a cube from -limit to limit, most of them near the middle: each component Laplace's, folded back at the limits."""
    drawn = random.laplace(scale=LAPLACE * limit, size=(count, 3))
    return limit - abs((drawn - limit) % (4 * limit) - 2 * limit)


class Drawn(NamedTuple):
    """What one seed is made from, and measured against: no other seed has the same strains."""

    snapshots: CellSolution
    tests: CellSolution
    collocation: np.ndarray
    small_collocation: np.ndarray
    "Likewise without solutions, most of them small."


class Solved(NamedTuple):
    """What everything is made from, and measured against."""

    cell: PeriodicCell
    draws: tuple[Drawn, ...]
    "Seed by seed."
    sized: CellSolution
    "The first seed's unseen strains, their largest components made those of `SIZES`, one size after another; averages only."
    grid: CellSolution
    "On a cube of `config.grid` points a side, the first component slowest; averages only."
    seconds: float
    "Of one solution, mean over all but those of small strains, which take fewer steps."


def solve(config: Config, session: Session, key: jax.Array) -> Solved:
    """Snapshots and unseen strains of every seed, and the grid of the interpolation."""
    limit = config.strain_limit
    strains: dict[str, np.ndarray] = {}
    collocation: list[tuple[np.ndarray, np.ndarray]] = []
    for i, own in enumerate(jax.random.split(key, config.seeds)):
        random = host_generator(own)
        strains[f"snapshots {i}"] = latin_hypercube(random, config.snapshots[-1], limit)
        strains[f"tests {i}"] = latin_hypercube(random, config.tests, limit)
        collocation.append((latin_hypercube(random, config.collocation, limit), folded_laplace(random, config.collocation, limit)))
    tests = strains["tests 0"]
    strains["grid"] = np.stack(np.meshgrid(*[np.linspace(-limit, limit, config.grid)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    strains["sized"] = np.concatenate([size * limit * tests / abs(tests).max(axis=1, keepdims=True) for size in SIZES])
    cell = make_cell(config)

    def solutions() -> dict[str, dict[str, np.ndarray] | float]:
        cell.solve(tests[0])
        found, seconds = {}, {}
        for name, rows in strains.items():
            start = time.perf_counter()
            found[name] = cell.snapshots(rows)._asdict()
            seconds[name] = time.perf_counter() - start
        for name in ("grid", "sized"):
            found[name] = {part: rows if part in _AVERAGES else np.zeros(0) for part, rows in found[name].items()}
        counted = [name for name in strains if name != "sized"]
        return {**found, "seconds": sum(seconds[name] for name in counted) / sum(len(strains[name]) for name in counted)}

    found = session.once("solved cells", solutions)
    solved = {name: CellSolution(**{part: np.asarray(rows) for part, rows in found[name].items()}) for name in strains}
    draws = tuple(Drawn(solved[f"snapshots {i}"], solved[f"tests {i}"], *own) for i, own in enumerate(collocation))
    return Solved(cell, draws, solved["sized"], solved["grid"], float(found["seconds"]))


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
