"""The diabetes data, and the synthetic classes that scikit-learn makes."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gradatim.datasets.dataset import Provenance, read_gzip, shipped_file

FEATURES_SHA256 = "86badf50b4f9436ddd1e497dc0ae1b93166f8120221ee7dca4634fe849f3be7c"
TARGETS_SHA256 = "244713a551f62a291a354212d8a048adec6cb1244b2bc44e66a0698f5006d26d"


@dataclass(frozen=True, eq=False)
class Regression:
    """Features with mean 0 and norm 1 in each column, raw targets, provenance."""

    features: Float[np.ndarray, "n columns"]
    targets: Float[np.ndarray, " n"]
    provenance: Provenance


def diabetes() -> Regression:
    """442 patients, ten features, disease progression after a year (Efron, Hastie, Johnstone and Tibshirani, 2004)."""
    content, hashes = {}, {}
    for name, sha256 in (("diabetes_data_raw.csv.gz", FEATURES_SHA256), ("diabetes_target.csv.gz", TARGETS_SHA256)):
        file, version = shipped_file(
            "sklearn", f"datasets/data/{name}", distribution="scikit-learn", remedy="run `pip install scikit-learn`"
        )
        content[name], hashes[name] = np.loadtxt(io.BytesIO(read_gzip(file, sha256)), np.float64), sha256
    raw, targets = content.values()
    centred = raw - raw.mean(0)
    provenance = Provenance(source="Diabetes, from the package scikit-learn", version=version, licence="BSD-3-Clause", sha256=hashes)
    return Regression(centred / np.linalg.norm(centred, axis=0), targets, provenance)


def classification(
    samples: int, features: int, *, classes: int, informative: int, seed: int
) -> tuple[Float[np.ndarray, "samples features"], Int[np.ndarray, " samples"]]:
    """Clusters at the corners of a hypercube among noise (scikit-learn's `make_classification`), each row scaled to norm 1."""
    # Takes a second to import.
    from sklearn.datasets import make_classification

    X, labels = make_classification(
        n_samples=samples,
        n_features=features,
        n_informative=informative,
        n_classes=classes,
        n_clusters_per_class=1,
        random_state=seed,
    )
    rows = np.asarray(X)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), np.asarray(labels)
