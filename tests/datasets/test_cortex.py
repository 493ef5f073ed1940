import gzip
import importlib.util
import sys

import numpy as np
import pytest

from gradatim.datasets.cortex import cortex
from gradatim.datasets.dataset import DatasetError

INSTALLED = all(importlib.util.find_spec(name) is not None for name in ("nilearn", "nibabel"))


@pytest.mark.parametrize("hemisphere", ["left", "right"], ids=lambda side: f"{side}, {'installed' if INSTALLED else 'not installed'}")
def test_facts(hemisphere):
    if not INSTALLED:
        with pytest.raises(DatasetError, match=r"pip install .*ni(learn|babel)"):
            cortex(hemisphere)
        return
    surface = cortex(hemisphere)
    assert surface.vertices.shape == (10_242, 3) and surface.faces.shape == (20_480, 3)
    assert np.unique(surface.faces).tolist() == list(range(10_242))
    # A closed surface has three edges for two faces, and this one no handle.
    edges = np.unique(np.sort(surface.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    assert 10_242 - len(edges) + 20_480 == 2
    for signal, (low, high) in ((surface.sulcal_depth, (-20, 20)), (surface.curvature, (-2, 2)), (surface.thickness, (-0.01, 5))):
        assert signal.shape == (10_242,) and np.isfinite(signal).all() and low <= signal.min() < signal.max() <= high
    assert set(surface.provenance.sha256) == {f"{kind}_{hemisphere}.gii.gz" for kind in ("white", "sulc", "curv", "thick")}


def test_the_sphere_is_one():
    if not INSTALLED:
        with pytest.raises(DatasetError, match=r"pip install .*ni(learn|babel)"):
            cortex(surface="sphere")
        return
    np.testing.assert_allclose(np.linalg.norm(cortex(surface="sphere").vertices, axis=1), 100, rtol=1e-4)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="hemisphere must be 'left' or 'right', got 'north'"):
        cortex("north")
    with pytest.raises(ValueError, match="surface must be one of white, pial, inflated, sphere, got 'grey'"):
        cortex(surface="grey")


def test_a_corrupt_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / "white_left.gii.gz").write_bytes(gzip.compress(b"<GIFTI/>"))
    monkeypatch.setattr(sys.modules["gradatim.datasets.cortex"], "shipped_file", lambda *a, **k: (tmp_path / "white_left.gii.gz", "0"))
    with pytest.raises(DatasetError, match=r"white_left\.gii\.gz is corrupt: expected content with sha256 b3043744"):
        cortex()


def test_missing_packages_name_the_remedy(monkeypatch):
    module = sys.modules["gradatim.datasets.cortex"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="the package nilearn, which is not installed: run `pip install --no-deps nilearn`"):
        cortex()
    monkeypatch.setitem(sys.modules, "nibabel.gifti.gifti", None)
    with pytest.raises(DatasetError, match="need the package nibabel, which is not installed: run `pip install nibabel`"):
        module.read_gifti(b"")
