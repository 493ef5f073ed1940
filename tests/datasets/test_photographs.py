import sys

import numpy as np
import pytest

from gradatim.datasets import DatasetError, Photographs, Provenance, photographs


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


def test_patches_are_of_luminance_and_of_each_photograph_in_turn():
    images = np.zeros((3, 5, 7, 3), np.uint8)
    images[range(3), :, :, range(3)] = 255  # all red, all green and all blue
    pure = Photographs(images, Provenance("an example", "1", "CC0-1.0", {}))
    for side in (2, 5):
        patches = pure.patches(side, n=6)
        assert patches.shape == (6, side, side)
        np.testing.assert_allclose(patches, np.broadcast_to(2 * [[[0.299]], [[0.587]], [[0.114]]], patches.shape), rtol=1e-6)


def test_patches_reach_every_edge():
    images = np.arange(12, dtype=np.uint8).reshape(1, 3, 4, 1).repeat(3, axis=3)
    squares = Photographs(images, Provenance("an example", "1", "CC0-1.0", {})).patches(2, n=200)
    corners = np.unique(np.rint(squares[:, 0, 0] * 255))
    assert corners.tolist() == [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose((squares - squares[:, :1, :1]) * 255, np.broadcast_to([[0, 1], [4, 5]], squares.shape), atol=1e-4)
