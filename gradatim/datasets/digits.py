"""Optical digits: 1 797 handwritten digits, 8 × 8, as scikit-learn ships them (Alpaydin & Kaynak, 1998, the UCI repository)."""

from __future__ import annotations

import io

import numpy as np

from .dataset import Provenance, Source, read_gzip, shipped_file

FILE = "datasets/data/digits.csv.gz"
CONTENT_SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"
N_TEST = 360


def digits(split: str) -> Source:
    """The part `"train"` (1 437) or `"test"` (360) of a fixed stratified split.

    **Raises:** `DatasetError` for a corrupt file, or where scikit-learn is not installed.
    """
    # The file, not `sklearn.datasets`: importing that takes longer than a whole smoke run.
    file, version = shipped_file("sklearn", FILE, distribution="scikit-learn", remedy="run `pip install scikit-learn`")
    table = np.loadtxt(io.BytesIO(read_gzip(file, CONTENT_SHA256)), np.uint8, delimiter=",")
    provenance = Provenance(
        source="Optical Recognition of Handwritten Digits, from the package scikit-learn",
        version=version,
        licence="CC-BY-4.0",
        sha256={file.name: CONTENT_SHA256},
    )
    return Source(table[:, :-1].reshape(-1, 8, 8), table[:, -1], 16, provenance).split(split, N_TEST)
