"""Breast cancer, Wisconsin: 569 tumours with 30 measured features, as scikit-learn ships them (Street, Wolberg & Mangasarian, 1993)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .dataset import DatasetError, Provenance, shipped_file

FILE = "datasets/data/breast_cancer.csv"
CONTENT_SHA256 = "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed"


@dataclass(frozen=True, eq=False)
class Table:
    """Measured features, one row an example, and class numbers from 0."""

    features: Float[np.ndarray, "n columns"]
    labels: Int[np.ndarray, " n"]
    provenance: Provenance


def breast_cancer() -> Table:
    """All examples in the file's order; label 1 is benign. The classes can be separated by a plane.

    **Raises:** `DatasetError` for a corrupt file, or where scikit-learn is not installed.

    >>> table = breast_cancer()
    >>> table.features.shape, int(table.labels.sum())
    ((569, 30), 357)
    """
    file, version = shipped_file("sklearn", FILE, distribution="scikit-learn", remedy="run `pip install scikit-learn`")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != CONTENT_SHA256:
        raise DatasetError(f"{file} is corrupt: expected sha256 {CONTENT_SHA256}, found {found}; replace the file")
    table = np.loadtxt(content.decode().splitlines()[1:], np.float64, delimiter=",")
    provenance = Provenance(
        source="Breast Cancer Wisconsin (Diagnostic), from the package scikit-learn",
        version=version,
        licence="CC-BY-4.0",
        sha256={file.name: CONTENT_SHA256},
    )
    return Table(table[:, :-1], table[:, -1].astype(np.int32), provenance)
