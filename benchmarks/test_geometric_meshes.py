"""Cotangent Laplacian, spectrum and heat distances, values compared first; their peers in peers/meshes_geometric_meshes.py."""

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

from gradatim.nets.geometric import Mesh, cotangent_laplacian, heat_method_distance, spectrum

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("surfaces", PEERS_FOLDER / "surfaces.py")
assert _spec is not None
assert _spec.loader is not None
surfaces = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(surfaces)

AGREEMENT = 1e-8
"The same formulas in double precision."
SAME_DISTANCE = 1e-2
"Of heat distances, absolute, on a surface of radius 1: the step of time is another constant times the same square."


@pytest.fixture(scope="module")
def mesh() -> Any:
    with jax.enable_x64(True):
        yield Mesh(*surfaces.surface())


def test_laplacian(benchmark: Any, mesh: Mesh) -> None:
    benchmark.group, benchmark.param = surfaces.LAPLACIAN, "gradatim"
    compiled = jax.jit(lambda vertices: cotangent_laplacian(mesh.moved(vertices))).lower(mesh.vertices).compile()
    benchmark.pedantic(lambda: jax.block_until_ready(compiled(mesh.vertices)), rounds=100, warmup_rounds=3)


def test_laplacian_from_scratch(benchmark: Any, mesh: Mesh) -> None:
    """With the topology of the faces found and checked anew, as the peers do."""
    benchmark.group, benchmark.param = surfaces.LAPLACIAN, "gradatim, with the faces checked"
    vertices, faces = surfaces.surface()
    benchmark.pedantic(lambda: jax.block_until_ready(cotangent_laplacian(Mesh(vertices, faces))), rounds=20, warmup_rounds=2)


def test_spectrum(benchmark: Any, mesh: Mesh) -> None:
    benchmark.group, benchmark.param = surfaces.SPECTRUM, "gradatim"
    laplacian = cotangent_laplacian(mesh)
    found = spectrum(laplacian, surfaces.K)
    gram = found.coefficients(found.eigenvectors)
    benchmark.extra_info["largest error of orthonormality"] = float(abs(gram - np.eye(surfaces.K)).max())
    benchmark.pedantic(lambda: spectrum(laplacian, surfaces.K), rounds=5, warmup_rounds=1)


def test_distance(benchmark: Any, mesh: Mesh) -> None:
    benchmark.group, benchmark.param = surfaces.DISTANCE, "gradatim"
    benchmark.pedantic(lambda: heat_method_distance(mesh, 0), rounds=5, warmup_rounds=1)


def test_agrees_with_potpourri3d(mesh: Mesh) -> None:
    command = [python_of("meshes"), str(PEERS_FOLDER / "meshes_geometric_meshes.py"), "--values"]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])
    laplacian = cotangent_laplacian(mesh)
    product = laplacian.stiff(jnp.sin(jnp.arange(len(mesh.vertices)) * 1.0))
    np.testing.assert_allclose(product, theirs["product"], atol=AGREEMENT)
    np.testing.assert_allclose(laplacian.mass, theirs["areas"], rtol=AGREEMENT)
    # Theirs are shifted by 1e-8 over the area of a vertex.
    np.testing.assert_allclose(spectrum(laplacian, surfaces.K).eigenvalues, theirs["eigenvalues"], atol=1e-4)
    assert np.abs(heat_method_distance(mesh, 0) - np.asarray(theirs["distance"])).max() < SAME_DISTANCE
