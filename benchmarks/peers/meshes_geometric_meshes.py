"""The cotangent Laplacian and heat distances by potpourri3d, the intrinsic Delaunay Laplacian by robust-laplacian, and eigenvectors by
SciPy as their documentation has it: seconds as JSON; `--values` prints what they find.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from typing import Any

import numpy as np
import potpourri3d as pp3d
import robust_laplacian
import scipy.sparse
import surfaces
import timing
from scipy.sparse.linalg import eigsh

POTPOURRI = f"potpourri3d {importlib.metadata.version('potpourri3d')}"
ROBUST = f"robust-laplacian {importlib.metadata.version('robust-laplacian')}"


def spectrum(stiffness: Any, areas: np.ndarray) -> Any:
    """As the documentation of robust-laplacian finds it."""
    return eigsh(stiffness + 1e-8 * scipy.sparse.eye(len(areas)), surfaces.K, scipy.sparse.diags(areas), sigma=1e-8)


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    vertices, faces = surfaces.surface()
    stiffness = scipy.sparse.csr_matrix(pp3d.cotan_laplacian(vertices, faces))
    areas = pp3d.vertex_areas(vertices, faces)
    if parser.parse_args().values:
        probe = np.sin(np.arange(len(vertices)))
        distance = pp3d.MeshHeatMethodDistanceSolver(vertices, faces, use_robust=False).compute_distance(0)
        found = {"product": stiffness @ probe, "areas": areas, "eigenvalues": spectrum(stiffness, areas)[0], "distance": distance}
        print(json.dumps({name: np.asarray(part).tolist() for name, part in found.items()}))
        return
    contestants = {
        (surfaces.LAPLACIAN, POTPOURRI): lambda: (pp3d.cotan_laplacian(vertices, faces), pp3d.vertex_areas(vertices, faces)),
        (surfaces.LAPLACIAN, f"{ROBUST}, intrinsic Delaunay"): lambda: robust_laplacian.mesh_laplacian(vertices, faces),
        (surfaces.SPECTRUM, f"scipy eigsh, generalised, of {POTPOURRI}"): lambda: spectrum(stiffness, areas),
        (surfaces.DISTANCE, POTPOURRI): lambda: pp3d.MeshHeatMethodDistanceSolver(vertices, faces, use_robust=False).compute_distance(0),
    }
    seconds = {names: timing.median(call) for names, call in contestants.items()}
    print(json.dumps([{"group": group, "name": name, "seconds": spent, "info": {}} for (group, name), spent in seconds.items()]))


if __name__ == "__main__":
    main()
