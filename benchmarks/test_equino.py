"""A solved periodic cell, and an operator in its place beside cubic interpolation; scikit-fem in peers/fem_equino.py."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import python_of

from gradatim.papers.equino.cells import GridInterpolation, latin_hypercube
from gradatim.sciml import EquilibriumOperator, ModalBasis, PeriodicCell, linear_elastic, ramberg_like_elastic, stresses_and_tangents

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("cells", PEERS_FOLDER / "cells.py")
assert _spec is not None
assert _spec.loader is not None
cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cells)

AGREEMENT = 1e-8
BATCH, LIMIT, SIDE = 1000, 0.04, 4
SURROGATES = f"averaged stress and tangent of {BATCH} strains"


@pytest.fixture(autouse=True, scope="module")
def _double() -> Any:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def cell() -> PeriodicCell:
    materials = [ramberg_like_elastic(cells.BULK, cells.A1, cells.A2), linear_elastic(cells.FIBRE_BULK, cells.FIBRE_SHEAR)]
    return PeriodicCell.structured(cells.SIDE, materials=materials, material_id=cells.is_fibre, tolerance=cells.TOLERANCE)


@pytest.fixture(scope="module")
def strains() -> np.ndarray:
    return LIMIT * np.random.default_rng(0).uniform(-1, 1, (BATCH, 3))


def test_solved_cell(benchmark: Any, cell: PeriodicCell) -> None:
    benchmark.group, benchmark.param = cells.GROUP, "gradatim"
    found = cell.solve(cells.STRAIN)
    np.testing.assert_allclose(found.average_stress, cells.STRESS, rtol=AGREEMENT)
    benchmark.extra_info.update({"steps": int(found.steps), "residual": float(found.residual)})
    benchmark.pedantic(lambda: cell.solve(cells.STRAIN), rounds=20, warmup_rounds=2)


def test_operator(benchmark: Any, cell: PeriodicCell, strains: np.ndarray) -> None:
    benchmark.group, benchmark.param = SURROGATES, "gradatim"
    snapshots = cell.snapshots(latin_hypercube(np.random.default_rng(1), 16, LIMIT))
    # Its time is the same trained or not.
    operator = EquilibriumOperator(ModalBasis.from_snapshots(cell, snapshots, 16), key=jax.random.key(0))
    given = jnp.asarray(strains)
    benchmark.extra_info["trained"] = False
    benchmark.pedantic(lambda: jax.block_until_ready(stresses_and_tangents(operator, given)), rounds=50, warmup_rounds=3)


def test_interpolation(benchmark: Any, cell: PeriodicCell, strains: np.ndarray) -> None:
    benchmark.group, benchmark.param = SURROGATES, "cubic interpolation, 4³ solved cells"
    places = np.linspace(-LIMIT, LIMIT, SIDE)
    grid = cell.snapshots(np.stack(np.meshgrid(places, places, places, indexing="ij"), axis=-1).reshape(-1, 3))
    interpolation = GridInterpolation(grid)
    np.testing.assert_allclose(interpolation(grid.average_strain)[0], grid.average_stress, rtol=1e-9, atol=1e-9)
    few = cell.snapshots(strains[:5])
    off = np.linalg.norm(interpolation(strains[:5])[0] - few.average_stress) / np.linalg.norm(few.average_stress)
    benchmark.extra_info["relative error"] = float(off)
    benchmark.pedantic(lambda: interpolation(strains), rounds=50, warmup_rounds=3)


def test_agrees_with_scikit_fem(cell: PeriodicCell) -> None:
    command = [python_of("fem"), str(PEERS_FOLDER / "fem_equino.py"), "--values"]
    stress, tangent = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    found = cell.solve(cells.STRAIN)
    np.testing.assert_allclose(found.average_stress, stress, rtol=AGREEMENT)
    np.testing.assert_allclose(found.tangent, tangent, atol=AGREEMENT * abs(found.tangent).max())
