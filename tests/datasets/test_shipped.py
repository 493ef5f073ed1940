import hashlib
import importlib.util

import numpy as np
import pytest

from gradatim.datasets import DatasetError, load

# Of the labels in their order: the split is fixed, whatever numpy's generators do.
SPLITS = {
    ("mnist-5k", "train"): (4000, "20815bb68d4f45e6a99dafe7b293026e9ce0f03b4347783ef7c451d2fbd0b4fd"),
    ("mnist-5k", "test"): (1000, "c313ad58edaa5dc5b841f61525f640dcbe2fe67f74060b4e66b5a79a06ffce48"),
    ("digits", "train"): (1437, "95048bc2d10e6d5939a0de66bcf7bdee0364d031ffc1d80e65296137677ad4a1"),
    ("digits", "test"): (360, "511170bfb26b813336af4e4faf901f75bc8d8c2176a0c2c0bde1165d3dd0a041"),
}


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_split_is_fixed(name, split):
    n, sha256 = SPLITS[name, split]
    data = load(name, split=split)
    assert len(data) == n and data.labels.dtype == np.int32 and data.images.dtype == np.float32
    assert data.images.min() == 0 and data.images.max() == 1
    assert hashlib.sha256(data.labels.astype(np.uint8).tobytes()).hexdigest() == sha256


def test_parts_of_mnist_make_up_the_whole():
    parts = [load("mnist-5k", split=split) for split in ("train", "test")]
    assert [np.bincount(part.labels).tolist() for part in parts] == [[400] * 10, [100] * 10]
    # The mean byte of all 5 000 images in the file.
    total = sum(part.images.sum(dtype=np.float64) for part in parts) * 255 / (5000 * 28 * 28)
    assert abs(total - 33.486506) < 1e-4


def test_parts_of_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    parts = [load("digits", split=split) for split in ("train", "test")]
    ours = np.concatenate([part.images for part in parts])[..., 0] * 16
    numbers = np.concatenate([part.labels for part in parts])
    rows = sorted((int(label), image.tobytes()) for label, image in zip(numbers, ours.astype(np.uint8), strict=True))
    theirs = sorted((int(label), image.tobytes()) for label, image in zip(target, images.astype(np.uint8), strict=True))
    assert rows == theirs


@pytest.mark.parametrize(("name", "remedy"), [("mnist-5k", r"pip install 'gradatim\[data\]'"), ("digits", "pip install scikit-learn")])
def test_missing_package_names_what_to_install(name, remedy, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(DatasetError, match=f"is not installed: run `{remedy}`"):
        load(name)
