import importlib.util
import sys

import numpy as np
import pytest

from gradatim.datasets import DatasetError, Provenance, Volume, mni152

loader = sys.modules["gradatim.datasets.mni152"]


@pytest.fixture(scope="module")
def head():
    return mni152()


def test_voxels_are_those_of_the_package(head):
    assert head.voxels.shape == (197, 233, 189) and head.voxels.dtype == np.uint8
    assert (head.voxels == 0).sum() == 6788750 and head.voxels.max() == 255
    assert head.provenance.version == "0.14.1"


def test_the_left_mirrors_the_right(head):
    # The symmetric template: a slice upside down or on its side would not pass.
    middle = head.slices((94,), side=192)[0]
    assert middle.shape == (192, 192) and middle.dtype == np.float32 and 0 <= middle.min() < middle.max() <= 1
    # An odd number of columns, of which five are cut off: the mirror is off by one.
    np.testing.assert_allclose(middle[:, 1:], middle[:, :0:-1], atol=0.05)
    assert abs(middle[1:] - middle[:0:-1]).max() > 0.5


def test_the_square_cuts_nothing_off(head):
    squares = head.slices(range(189), side=4)
    np.testing.assert_allclose(squares.sum(dtype=np.float64) * (192 / 4) ** 2 * 255, head.voxels.sum(dtype=np.float64), rtol=1e-6)


def test_coarse_pixels_are_means_of_fine_ones(head):
    fine = head.slices((60, 90), side=64)
    np.testing.assert_allclose(fine.reshape(2, 32, 2, 32, 2).mean((2, 4)), head.slices((60, 90), side=32), atol=1e-6)


@pytest.mark.parametrize(
    ("heights", "side", "message"),
    [((1,), 5, "side must divide 192, got 5"), ((1,), 0, "side must divide 192, got 0"), ((3, 189), 32, "between 0 and 188, got 3 to 189")],
)
def test_what_does_not_fit_is_refused(head, heights, side, message):
    with pytest.raises(ValueError, match=message):
        head.slices(heights, side=side)


def test_missing_packages_name_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(DatasetError, match=r"nilearn, which is not installed: run `pip install --no-deps nilearn`"):
        mni152()
    monkeypatch.setitem(sys.modules, "nibabel.nifti1", None)
    with pytest.raises(DatasetError, match="nibabel, which is not installed: run `pip install nibabel`"):
        mni152()


def test_a_corrupt_file_is_named(monkeypatch):
    monkeypatch.setattr(loader, "CONTENT_SHA256", "0" * 64)
    with pytest.raises(DatasetError, match=r"converted\.nii\.gz is corrupt: expected content with sha256 0000"):
        mni152()


def test_slices_show_the_front_above_and_the_right_on_the_right():
    voxels = np.zeros((196, 194, 3), np.uint8)
    voxels[2 + 150, 1 + 191, 1] = 255  # right of the middle and foremost, in the square that leaves out two columns and one row
    (low, middle) = Volume(voxels, Provenance("an example", "1", "CC0-1.0", {})).slices((0, 1), side=96)
    assert not low.any() and np.argwhere(middle).tolist() == [[0, 75]] and middle[0, 75] == 0.25
