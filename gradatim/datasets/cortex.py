"""The folded surface of an average brain: fsaverage5, 10 242 vertices a hemisphere, as nilearn ships it (Fischl et al., 1999)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .dataset import DatasetError, Provenance, read_gzip, shipped_file

FOLDER = "datasets/data/fsaverage5"
REMEDY = "run `pip install --no-deps nilearn`, of which only data files are read"
# Of the uncompressed files.
CONTENT_SHA256 = {
    "white_left.gii.gz": "b3043744a8ea99d8b497599294f1bdcc0852af648d34460b85bbf2d1d704f500",
    "pial_left.gii.gz": "b425b4914362af4aaf43bb5d022afd39a0c5f6ec4601e353631cdd737884c951",
    "infl_left.gii.gz": "5a6d3f1fc87ab588133bc1656ef2e30d8cdbd89a45effeba6a3bf210433f0520",
    "sphere_left.gii.gz": "71323d5424d202d907671687aaa65704ca8b6a504aa5808c87fb76d8b16ced2c",
    "sulc_left.gii.gz": "909eb125283cbd9e72ff30534d1ccfee8786355af00380747abd522ee87f1a92",
    "curv_left.gii.gz": "8f54412d57bf66559a2f73d71e1d83fe542b78db5d3446a55560ecf535fa8794",
    "thick_left.gii.gz": "d77530db4e8df27b9532d8bf0e947b78df89b9c1c2edceac2587541835b93321",
    "white_right.gii.gz": "7e448f16d6deb90b954c671540bcf41e6ef3c35c9a87cc6fc64672dff7e9e232",
    "pial_right.gii.gz": "6142dfcec7533aaeb962b1de829e21948bb35c85645a08f2c4b7ea503d655ee9",
    "infl_right.gii.gz": "26abe85f568b4cd63dfa87e0e9d52d3cc473c086e3b3bc1e0415ddf32823f208",
    "sphere_right.gii.gz": "d26dda4d5811d671b9242edbfbfe37c1308ebc294dde285ddcdcd5594a294b33",
    "sulc_right.gii.gz": "e18f14049ae076ee2ec450e2488f583356f42307955c2b1fc16320f1241ed2b9",
    "curv_right.gii.gz": "a5daa1fffd7a20d956b41e72e988788cec8cc7e763fb584172e5331acb156448",
    "thick_right.gii.gz": "292f888fc4353dc5393081c3c40a24e847a6b347ad4f3df35944044b312a9958",
}
SURFACES = {"white": "white", "pial": "pial", "inflated": "infl", "sphere": "sphere"}
"Names of surfaces, and how their files' names begin."


@dataclass(frozen=True, eq=False)
class Cortex:
    """A closed surface of triangles, what was measured at its vertices, and where it comes from."""

    vertices: Float[np.ndarray, "vertices 3"]
    "Millimetres; a sphere of radius 100 for the surface of that name."
    faces: Int[np.ndarray, "faces 3"]
    sulcal_depth: Float[np.ndarray, " vertices"]
    "How far a vertex moves when the surface is blown up, in FreeSurfer's unit; positive in the furrows."
    curvature: Float[np.ndarray, " vertices"]
    "Mean curvature, 1/mm."
    thickness: Float[np.ndarray, " vertices"]
    "Of the grey matter, mm."
    provenance: Provenance


def cortex(hemisphere: str = "left", *, surface: str = "white") -> Cortex:
    """One hemisphere; vertices of all its surfaces correspond, those of the two hemispheres do not.

    **Arguments:** `hemisphere`: `"left"` or `"right"`; `surface`: `"white"`, below the grey matter, `"pial"`, above it, `"inflated"` or
    `"sphere"`.

    **Raises:** `ValueError` for an unknown name; `DatasetError` for corrupt files, or where nilearn's files or nibabel are missing.
    """
    if hemisphere not in ("left", "right"):
        raise ValueError(f"hemisphere must be 'left' or 'right', got {hemisphere!r}")
    if surface not in SURFACES:
        raise ValueError(f"surface must be one of {', '.join(SURFACES)}, got {surface!r}")
    names = {kind: f"{kind}_{hemisphere}.gii.gz" for kind in (SURFACES[surface], "sulc", "curv", "thick")}
    arrays: dict[str, list[np.ndarray]] = {}
    version = ""
    for kind, name in names.items():
        file, version = shipped_file("nilearn", f"{FOLDER}/{name}", distribution="nilearn", remedy=REMEDY)
        arrays[kind] = read_gifti(read_gzip(file, CONTENT_SHA256[name]))
    vertices, faces = arrays[SURFACES[surface]]
    provenance = Provenance(
        source="fsaverage5 of FreeSurfer, from the package nilearn",
        version=version,
        licence="BSD-3-Clause as packaged; FreeSurfer's terms for the template",
        sha256={name: CONTENT_SHA256[name] for name in names.values()},
    )
    depth, curvature, thickness = (arrays[kind][0].astype(np.float32) for kind in ("sulc", "curv", "thick"))
    return Cortex(vertices.astype(np.float32), faces.astype(np.int32), depth, curvature, thickness, provenance)


def read_gifti(content: bytes) -> list[np.ndarray]:
    """The arrays of a GIFTI file in their order.

    **Raises:** `DatasetError` where nibabel is not installed.
    """
    try:
        from nibabel.gifti.gifti import GiftiImage
    except ImportError as error:
        raise DatasetError("surfaces need the package nibabel, which is not installed: run `pip install nibabel`") from error
    return [np.asarray(array.data) for array in GiftiImage.from_bytes(content).darrays]
