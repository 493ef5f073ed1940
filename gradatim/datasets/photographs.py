"""Two colour photographs, a temple and a flower, as scikit-learn ships them: natural images to cut patches from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from .dataset import DatasetError, Provenance, shipped_file

FILES = {
    "china.jpg": "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
    "flower.jpg": "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
}
LUMINANCE = (0.299, 0.587, 0.114)
"Of red, green and blue (ITU-R BT.601)."


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs of one size, and where they come from."""

    images: UInt8[np.ndarray, "n height width 3"]
    provenance: Provenance

    def patches(self, side: int, *, n: int, seed: int = 0, within: int | None = None) -> Float[np.ndarray, "{n} {side} {side}"]:
        """Grey squares of luminance in [0, 1], from as many of each photograph's places as of another's.

        **Arguments:** `side`: pixels; `n`; `seed`: of the places; `within`: the side of larger patches whose upper left corners these
        are, so that patches of several sides show the same places.

        **Raises:** `ValueError` for an `n` below 1, or a side that is not between 1 and `within` or the photographs' height.
        """
        whole = side if within is None else within
        height, width = self.images.shape[1:3]
        if not 1 <= side <= whole <= min(height, width):
            raise ValueError(f"side must lie between 1 and {min(whole, height, width)}, got {side} within {whole}")
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        random = np.random.default_rng(seed)
        which = np.arange(n) % len(self.images)
        rows, columns = random.integers(0, height - whole + 1, n), random.integers(0, width - whole + 1, n)
        grey = (self.images @ np.asarray(LUMINANCE) / 255).astype(np.float32)
        offsets = np.arange(side)
        return grey[which[:, None, None], (rows[:, None] + offsets)[:, :, None], (columns[:, None] + offsets)[:, None, :]]


def photographs() -> Photographs:
    """Both, 427 × 640 pixels; the flower's is by the user vultilion, the temple's by danielbuechele, of flickr.com.

    **Raises:** `DatasetError` for a corrupt file, or where scikit-learn or Pillow is not installed.

    >>> pictures = photographs()
    >>> pictures.images.shape, pictures.patches(8, n=5).shape
    ((2, 427, 640, 3), (5, 8, 8))
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DatasetError("the photographs need the package pillow, which is not installed: run `pip install pillow`") from error
    images, version = [], ""
    for name, expected in FILES.items():
        file, version = shipped_file(
            "sklearn", f"datasets/images/{name}", distribution="scikit-learn", remedy="run `pip install scikit-learn`"
        )
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != expected:
            raise DatasetError(f"{file} is corrupt: expected sha256 {expected}, found {found}; replace the file")
        with Image.open(file) as image:
            images.append(np.asarray(image.convert("RGB")))
    provenance = Provenance(
        source="The photographs china.jpg and flower.jpg, from the package scikit-learn", version=version, licence="CC-BY-2.0", sha256=FILES
    )
    return Photographs(np.stack(images), provenance)
