import gzip
import shutil

import numpy as np
import pooch
import pytest

from gradatim.datasets import DatasetError, fashion_mnist, load
from gradatim.datasets.fashion_mnist import CONTENT_SHA256, DEBIAN_FOLDER, ORIGIN_SHA256

INSTALLED = all((DEBIAN_FOLDER / name).is_file() for name in CONTENT_SHA256)
FACTS = {
    # mean and standard deviation of the raw bytes, first ten labels
    "train": (60_000, 72.9404, 90.0212, [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]),
    "test": (10_000, 73.1466, 89.8733, [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)

    def retrieve(url, known_hash, fname, path):
        raise OSError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", retrieve)


@pytest.mark.parametrize("split", FACTS, ids=lambda split: f"{split}, {'installed' if INSTALLED else 'not installed: the error is tested'}")
def test_facts(split):
    if not INSTALLED:
        with pytest.raises(DatasetError, match="apt-get install dataset-fashion-mnist"):
            load("fashion-mnist", split=split)
        return
    n, mean, deviation, first = FACTS[split]
    data = load("fashion-mnist", split=split)
    assert data.images.shape == (n, 28, 28, 1) and data.images.dtype == np.float32 and data.labels.dtype == np.int32
    raw = data.images.astype(np.float64) * 255
    # The facts are given to four decimals.
    assert abs(raw.mean() - mean) < 1e-4 and abs(raw.std() - deviation) < 1e-4
    assert data.labels[:10].tolist() == first and np.bincount(data.labels).tolist() == [n // 10] * 10
    assert data.provenance.licence == "MIT" and all(CONTENT_SHA256[name] == found for name, found in data.provenance.sha256.items())


def test_without_any_source_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    remedy = r"\(OSError\): run `apt-get install dataset-fashion-mnist`, or set GRADATIM_DATA to a folder that holds train-images"
    with pytest.raises(DatasetError, match=remedy):
        load("fashion-mnist")


def test_corrupt_file_in_the_chosen_folder_is_not_passed_over(tmp_path, monkeypatch):
    images = "t10k-images-idx3-ubyte.gz"
    (tmp_path / images).write_bytes(gzip.compress(bytes(16 + 10_000 * 784)))
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    with pytest.raises(
        DatasetError, match=rf"t10k-images-idx3-ubyte\.gz is corrupt: expected .*{CONTENT_SHA256['t10k-images-idx3-ubyte.gz']}"
    ):
        load("fashion-mnist", split="test")


def test_download_asks_the_origin_for_the_hash_of_its_file(tmp_path, monkeypatch):
    asked = {}

    def retrieve(url, known_hash, fname, path):
        asked[fname] = (url, known_hash)
        if not INSTALLED:
            raise OSError("nothing to hand out")
        return shutil.copy(DEBIAN_FOLDER / fname, tmp_path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    if INSTALLED:
        assert len(load("fashion-mnist", split="test")) == 10_000
        assert set(asked) == {"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}
    else:
        with pytest.raises(DatasetError, match="its download failed"):
            load("fashion-mnist", split="test")
    for name, (url, known_hash) in asked.items():
        assert url.startswith("https://") and url.endswith(name) and known_hash == f"sha256:{ORIGIN_SHA256[name]}"
