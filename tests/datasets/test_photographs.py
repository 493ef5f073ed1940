import sys

import numpy as np
import pytest

from gradatim.datasets import DatasetError, photographs


@pytest.fixture(scope="module")
def pictures():
    return photographs()


def test_pixels_are_those_of_the_package(pictures):
    assert pictures.images.shape == (2, 427, 640, 3) and pictures.provenance.licence == "CC-BY-2.0"
    # Decoders of JPEG may differ by a level.
    assert abs(pictures.images.mean(axis=(1, 2, 3)) - [143.70, 61.90]).max() < 0.5


def test_patches_are_cut_from_the_pictures(pictures):
    large = pictures.patches(32, n=6, seed=3)
    small = pictures.patches(4, n=6, seed=3, within=32)
    np.testing.assert_array_equal(small, large[:, :4, :4])
    assert large.dtype == np.float32 and large.min() >= 0 and large.max() <= 1
    assert not np.array_equal(large, pictures.patches(32, n=6, seed=4))


@pytest.mark.parametrize(("side", "within"), [(0, None), (9, 8), (428, None)])
def test_sides_that_do_not_fit_are_refused(pictures, side, within):
    with pytest.raises(ValueError, match="side must lie between 1 and"):
        pictures.patches(side, n=2, within=within)


def test_no_patches_are_refused(pictures):
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        pictures.patches(4, n=0)


def test_a_corrupt_file_is_named(monkeypatch):
    monkeypatch.setattr(sys.modules["gradatim.datasets.photographs"], "FILES", {"china.jpg": "0" * 64})
    with pytest.raises(DatasetError, match=r"china\.jpg is corrupt: expected sha256 0000"):
        photographs()
