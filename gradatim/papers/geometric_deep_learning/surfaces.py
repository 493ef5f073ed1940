"""C8, C9, C10 and C13: the cotangent Laplacian, truncated expansions, frames and transport, and filters on a changed domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import PRNGKeyArray

from gradatim.datasets.cortex import cortex
from gradatim.lab import Between, Measure, OneOf, Session, host_generator
from gradatim.nets.geometric import (
    Mesh,
    angle_defects,
    cotangent_laplacian,
    flat_sheet,
    icosphere,
    spectrum,
)
from gradatim.nets.geometric.meshes import sparse_stiffness

from .frames import frame_rows, frames_error
from .transfer import Transfer, surface_rows, transfer

SPHERE = 6.0
"The second eigenvalue of the unit sphere that is not zero, five times."
LOWEST_TOLERANCE = 1e-8
"Of the lowest eigenvalue, relative to the largest."
SLOPE = 1.0
"Of the folded sheet, radians."
SHOWN = 20
"Eigenvectors of the coarser expansion in the figure."


@dataclass(frozen=True)
class SurfacesConfig:
    """Spheres, sheets, and the surface of a brain."""

    surface: Annotated[str, OneOf("fsaverage5", "icosphere")] = "fsaverage5"
    "A cortical surface with its sulcal depth and curvature, or a sphere with made-up signals in their place."
    levels: Annotated[tuple[int, ...], Between(1, 7)] = (2, 3, 4)
    "Refinements of the icosahedron, each one more than that before, at least two; the first stands for the cortex if that is not used."
    sheet: Annotated[int, Between(4, 1000)] = 20
    "Vertices a side of the sheet that is folded."
    eigenvectors: Annotated[int, Between(30, 2000)] = 200
    "Of the surface, for truncated expansions."
    frame_turns: Annotated[int, Between(1, 1000)] = 5
    "Random turns of all frames."
    entries: Annotated[int, Between(1, 256)] = 8
    "Hidden entries of each order 0, 1 and 2 in the network between frames."
    transfer: Transfer = Transfer()  # noqa: RUF009
    "Filters on a jittered sphere."


SMALL = SurfacesConfig(
    surface="icosphere",
    levels=(1, 2),
    sheet=6,
    eigenvectors=30,
    frame_turns=2,
    entries=2,
    transfer=Transfer(level=1, jitters=3, signals=4, degree=4, order=2, scales=(0.03, 0.1)),
)
"Seconds, and no data."
LARGE = SurfacesConfig(
    levels=(2, 3, 4, 5, 6), sheet=200, eigenvectors=1000, frame_turns=100, entries=32, transfer=Transfer(level=4, jitters=20, signals=64)
)
"As far as one machine goes."


def surfaces(config: SurfacesConfig, session: Session) -> tuple[Mapping[str, Measure], xr.Dataset]:
    """All that is measured on surfaces, in double precision."""
    keys = jax.random.split(jax.random.fold_in(session.key, 8), 2)
    with jax.enable_x64(True):
        mesh, signal, _ = surface_of(config, session)
        measures: dict[str, Measure] = {}
        data = xr.Dataset()
        for found, part in (
            _laplacian(config, session, mesh),
            _truncation(config, session, mesh, signal),
            frames_error(mesh, signal, config.entries, config.frame_turns, keys[0], session),
            transfer(config.transfer, keys[1], session),
        ):
            measures |= found
            data = data.assign(part.data_vars).assign_coords(part.coords).assign_attrs(part.attrs)
    return measures, data


def surface_of(config: SurfacesConfig, session: Session) -> tuple[Mesh, np.ndarray, np.ndarray]:
    """The surface, and the depth of its furrows and its curvature at every vertex."""
    if config.surface == "icosphere":
        mesh = icosphere(config.levels[0])
        x, y, z = np.asarray(mesh.vertices).T
        return mesh, np.sin(5 * x) * y + np.abs(z), np.sin(5 * x) * y
    surface = cortex()
    session.uses(surface.provenance)
    depth, curvature = (one.astype(np.float64) for one in (surface.sulcal_depth, surface.curvature))
    return Mesh(surface.vertices.astype(np.float64), surface.faces), depth, curvature


def _laplacian(config: SurfacesConfig, session: Session, mesh: Mesh) -> tuple[dict[str, Measure], xr.Dataset]:
    """C8."""
    sheet = flat_sheet(config.sheet, config.sheet)
    x, y, _ = np.asarray(sheet.vertices).T
    along, up = _folded(x)
    folded = sheet.moved(jnp.asarray(np.stack([along, y, up], axis=1)))
    stretched = sheet.moved(jnp.asarray(np.stack([1.1 * x, y, 0 * x], axis=1)))
    flat, *others = (np.asarray(cotangent_laplacian(one).stiffness.data) for one in (sheet, folded, stretched))
    fold, stretch = (float(np.linalg.norm(other - flat) / np.linalg.norm(flat)) for other in others)
    spheres = [icosphere(level) for level in config.levels]
    laplacians = [cotangent_laplacian(sphere) for sphere in spheres]
    errors = np.array([SPHERE - spectrum(laplacian, 9).eigenvalues[4:].mean() for laplacian in laplacians])
    ratios = errors[:-1] / errors[1:]
    mean = float(np.exp(np.log(ratios).mean()))
    lowest = [_lowest(laplacian) for laplacian in (*laplacians, cotangent_laplacian(mesh))]
    measures = {
        "C8.folding_change": Measure.exact(fold),
        "C8.lowest_eigenvalue": Measure.exact(min(lowest), LOWEST_TOLERANCE),
        "C8.error_ratio_per_level": Measure(mean, min(ratios.min(), mean), max(ratios.max(), mean), "geometric mean, and its range"),
        "C10.total_angle_defect": Measure.exact(float(angle_defects(mesh).sum())),
    }
    weights = np.asarray(cotangent_laplacian(mesh).stiffness.data)[len(mesh.vertices) :]
    session.note(
        f"C8: stretching the sheet by a tenth changes its Laplacian by {stretch:.2g}, folding it by {fold:.1g}; "
        f"{(weights > 0).mean():.1%} of the weights of the surface are negative, from obtuse triangles, and none is clipped; "
        f"lowest eigenvalue over the largest: {', '.join(f'{value:.1e}' for value in lowest)}"
    )
    data = xr.Dataset(
        {"eigenvalue_error": ("level", errors, {"units": "1"}), "lowest": ("mesh", np.array(lowest), {"units": "1"})},
        {"level": list(config.levels), "mesh": [*(f"sphere {level}" for level in config.levels), config.surface]},
        {"fold": fold, "stretch": stretch},
    )
    return measures, data


def _folded(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Abscissa and height of a strip of unit steps that rise and fall by turns."""
    height = np.sin(SLOPE) * (x % 2)
    return np.cos(SLOPE) * x, height


def _lowest(laplacian: Any) -> float:
    """The lowest eigenvalue over the largest, found as the largest of what is missing to a bound: there no solve hides a negative one."""
    import scipy.sparse
    from scipy.sparse.linalg import eigsh

    root = np.sqrt(np.asarray(laplacian.mass, np.float64))
    inverse = scipy.sparse.diags_array(1 / root)
    matrix = scipy.sparse.csr_array(inverse @ sparse_stiffness(laplacian) @ inverse)
    start = np.random.default_rng(0).normal(size=len(root))
    common: dict[str, Any] = {"which": "LA", "return_eigenvectors": False, "v0": start, "tol": LOWEST_TOLERANCE}
    top = float(eigsh(matrix, 1, **common)[0])
    missing = float(eigsh(scipy.sparse.diags_array(np.full(len(root), top)) - matrix, 1, **common)[0])
    return (top - missing) / top


def _truncation(config: SurfacesConfig, session: Session, mesh: Mesh, signal: np.ndarray) -> tuple[dict[str, Measure], xr.Dataset]:
    """C9: what the first N eigenvectors leave of the signal, against its gradient's energy over the next eigenvalue."""
    laplacian = cotangent_laplacian(mesh)
    k = min(config.eigenvectors, len(mesh.vertices))
    found = spectrum(laplacian, k)
    coefficients = found.coefficients(signal)
    energy = float(signal @ (sparse_stiffness(laplacian) @ signal))
    whole = float(signal @ (found.mass * signal))
    # Of N = 1 … k - 1 eigenvectors: the constant alone has no bound.
    left = np.maximum(whole - np.cumsum(coefficients**2), 0)[:-1]
    ratio = left * found.eigenvalues[1:] / energy
    measures = {"C9.error_over_bound": Measure.exact(float(ratio.max()), 1e-9)}
    session.note(
        f"C9: {k} eigenvectors of {len(mesh.vertices)} leave {left[-1] / whole:.1%} of the signal's square; the bound is met to "
        f"{ratio.max():.0%} at best and {ratio.min():.0%} at worst"
    )
    pictures = [found.eigenvectors[:, :n] @ coefficients[:n] for n in (min(SHOWN, k), k)]
    data = xr.Dataset(
        {
            "left": ("kept", left / whole, {"units": "1"}),
            "bound": ("kept", energy / found.eigenvalues[1:] / whole, {"units": "1"}),
            "vertices": (("vertex", "axis"), np.asarray(mesh.vertices, np.float32), {"units": "mm"}),
            "faces": (("face", "corner"), np.asarray(mesh.faces), {"units": "1"}),
            "signal": (("picture", "vertex"), np.stack([signal, *pictures]).astype(np.float32), {"units": "1"}),
        },
        {"kept": np.arange(1, k), "picture": ["as measured", f"{min(SHOWN, k)} eigenvectors", f"{k} eigenvectors"]},
    )
    return measures, data


def surface_symmetry_errors(key: PRNGKeyArray) -> dict[str, tuple[float, float]]:
    """Rows of the table of symmetries on surfaces: relative error of a layer, and of one that is broken on purpose."""
    sphere, random = icosphere(1), host_generator(key)
    mesh = sphere.moved(sphere.vertices * jnp.asarray(1 + 0.2 * random.random(sphere.vertices.shape), sphere.vertices.dtype))
    return surface_rows(mesh, random) | frame_rows(mesh, random, key)
