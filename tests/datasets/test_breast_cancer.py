import numpy as np
import pytest

from gradatim import datasets
from gradatim.datasets import breast_cancer as module  # the function, re-exported
from gradatim.datasets.dataset import DatasetError


def test_it_is_scikit_learns_table():
    from sklearn.datasets import load_breast_cancer

    features, labels = load_breast_cancer(return_X_y=True)
    table = datasets.breast_cancer()
    assert (table.features == features).all() and (table.labels == labels).all()
    assert module is datasets.breast_cancer and np.isfinite(table.features).all()


def test_a_corrupt_file_is_refused(monkeypatch, tmp_path):
    import sys

    broken = tmp_path / "breast_cancer.csv"
    broken.write_text("1,2\n")
    monkeypatch.setattr(sys.modules["gradatim.datasets.breast_cancer"], "shipped_file", lambda *a, **k: (broken, "0"))
    with pytest.raises(DatasetError, match="is corrupt: expected sha256"):
        datasets.breast_cancer()
