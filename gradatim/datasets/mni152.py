"""A head in magnetic resonance: the template MNI152 at 1 mm, as nilearn ships it (Fonov et al., 2009 and 2011)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from .dataset import DatasetError, Provenance, read_gzip, shipped_file

FILE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
CONTENT_SHA256 = "eeb8a792a93948c83462305c71db783800e95eb3f6ce35975a4dd0f374f79bff"
FULL_SCALE = 255
"Of the intensities."
SQUARE = 192
"mm: the side of a square about the middle of a slice that holds the brain."


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a grid of 1 mm, from left to right, from back to front and upwards."""

    voxels: UInt8[np.ndarray, "right front up"]
    provenance: Provenance

    def slices(self, heights: tuple[int, ...] | range, *, side: int) -> Float[np.ndarray, "n {side} {side}"]:
        """Horizontal slices with intensities in [0, 1], front up: squares of 192 mm, averaged down.

        **Arguments:** `heights`: numbers of slices, mm from the lowest; `side`: pixels, a divisor of 192.

        **Raises:** `ValueError` for a height that there is not, or a side that does not divide.
        """
        if side < 1 or SQUARE % side:
            raise ValueError(f"side must divide {SQUARE}, got {side}")
        chosen = np.asarray(heights, int)
        top = self.voxels.shape[2]
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < top):
            raise ValueError(f"heights must lie between 0 and {top - 1}, got {chosen.min()} to {chosen.max()}")
        first = [(size - SQUARE) // 2 for size in self.voxels.shape[:2]]
        square = self.voxels[first[0] : first[0] + SQUARE, first[1] : first[1] + SQUARE, chosen]
        images = square.transpose(2, 1, 0)[:, ::-1].astype(np.float32) / FULL_SCALE
        step = SQUARE // side
        return images.reshape(-1, side, step, side, step).mean((2, 4))


def mni152() -> Volume:
    """The T1-weighted template, 197 × 233 × 189 mm.

    **Raises:** `DatasetError` for a corrupt file, or where nilearn or nibabel is not installed.
    """
    try:
        from nibabel.nifti1 import Nifti1Image
    except ImportError as error:
        raise DatasetError("the template needs the package nibabel, which is not installed: run `pip install nibabel`") from error
    file, version = shipped_file("nilearn", FILE, distribution="nilearn", remedy="run `pip install --no-deps nilearn`")
    image = Nifti1Image.from_bytes(read_gzip(file, CONTENT_SHA256))
    voxels = np.asarray(image.dataobj)
    provenance = Provenance(
        source="ICBM 152 nonlinear symmetric template 2009a, T1, from the package nilearn",
        version=version,
        licence="BSD-3-Clause; the template: free use with its copyright notice (McConnell Brain Imaging Centre)",
        sha256={file.name: CONTENT_SHA256},
    )
    return Volume(voxels, provenance)
