import gzip
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.datasets.dataset import DatasetError, Provenance, Source, find_file, pooled, read_gzip, shipped_file, stratified


def source(labels):
    images = np.random.default_rng(0).integers(0, 17, (len(labels), 4, 4), np.uint8)
    return Source(images, np.asarray(labels, np.uint8), 16, Provenance("made up", "1", "none", {}))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_each_class_keeps_its_share_to_within_one_example(labels, data):
    labels = np.array(labels)
    n = data.draw(st.integers(1, len(labels)))
    chosen = stratified(labels, n, np.random.default_rng(1).permutation(len(labels)))
    assert len(np.unique(chosen)) == n
    share = n * np.bincount(labels) / len(labels)
    assert np.all(np.abs(np.bincount(labels[chosen], minlength=len(share)) - share) < 1)


@pytest.mark.parametrize("n", [0, -1, 7])
def test_subset_larger_than_the_data_is_refused(n):
    with pytest.raises(ValueError, match=f"n must lie between 1 and the 6 examples there are, got {n}"):
        source([0, 0, 0, 1, 1, 1]).dataset(n=n)


def test_subset_is_a_function_of_its_seed():
    data = source([0, 1] * 50)
    first, again, other = (data.dataset(n=20, seed=seed).images for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_subset_mixes_the_classes():
    labels = source([0] * 200 + [1] * 200).dataset(n=100).labels
    # 50 of 100 are of class 0; the first half then holds 25 ± 2.5.
    assert 15 <= (labels[:50] == 0).sum() <= 35


def test_the_whole_keeps_the_order_of_its_source():
    data = source([3, 1, 2, 0])
    assert data.dataset().labels.tolist() == [3, 1, 2, 0]
    assert np.array_equal(data.dataset().images[..., 0], data.images / np.float32(16))


def test_split_is_a_partition():
    data = source([0] * 30 + [1] * 10)
    train, test = data.split("train", 8), data.split("test", 8)
    assert np.bincount(test.labels).tolist() == [6, 2] and np.bincount(train.labels).tolist() == [24, 8]
    rows = [image.tobytes() for part in (train, test) for image in part.images]
    assert sorted(rows) == sorted(image.tobytes() for image in data.images)


def test_split_does_not_depend_on_the_order_of_the_source():
    data = source([0] * 30 + [1] * 10)
    shuffle = np.random.default_rng(2).permutation(40)
    shuffled = Source(data.images[shuffle], data.labels[shuffle], 16, data.provenance)
    assert np.array_equal(data.split("test", 8).images, shuffled.split("test", 8).images)


def test_pooling_keeps_the_mean():
    images = np.random.default_rng(0).random((3, 28, 28, 1), np.float32)
    small = pooled(images, 14)
    assert small.shape == (3, 14, 14, 1) and small.dtype == np.float32
    # Sums of 784 float32 numbers in [0, 1].
    assert np.allclose(small.mean((1, 2)), images.mean((1, 2)), rtol=1e-5)
    assert np.isclose(small[1, 2, 3, 0], images[1, 4:6, 6:8, 0].mean(), rtol=1e-6)


@pytest.mark.parametrize("side", [0, -14, 10, 56])
def test_pool_must_divide_the_side(side):
    with pytest.raises(ValueError, match=f"pool must divide the images' side of 28, got {side}"):
        pooled(np.zeros((1, 28, 28, 1), np.float32), side)


def test_chosen_folder_comes_first(tmp_path, monkeypatch):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "both").touch()
    (theirs / "one").touch()
    monkeypatch.setenv("GRADATIM_DATA", str(mine))
    assert find_file("both", (theirs,)) == mine / "both"
    assert find_file("one", (theirs,)) == theirs / "one"
    assert find_file("none", (theirs,)) is None


def test_chosen_folder_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path / "absent"))
    with pytest.raises(DatasetError, match=r"GRADATIM_DATA must name a folder, got .*absent"):
        find_file("any", ())


def test_package_that_is_not_installed_names_the_remedy():
    with pytest.raises(DatasetError, match="the package no-such, which is not installed: run this"):
        shipped_file("no_such_package", "data.csv.gz", distribution="no-such", remedy="run this")


def test_package_without_its_file_names_the_remedy():
    with pytest.raises(DatasetError, match=r"the installed numpy lacks its data file .*absent\.gz: run this"):
        shipped_file("numpy", "absent.gz", distribution="numpy", remedy="run this")


def test_recompressed_file_passes(tmp_path):
    content = b"gradient" * 100
    for level in (1, 9):
        (tmp_path / "data.gz").write_bytes(gzip.compress(content, level, mtime=level))
        assert read_gzip(tmp_path / "data.gz", hashlib.sha256(content).hexdigest()) == content


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-20], lambda raw: b"", lambda raw: b"plain text", lambda raw: raw[:40] + bytes([raw[40] ^ 255]) + raw[41:]],
    ids=["cut short", "empty", "not gzip", "one byte changed"],
)
def test_broken_file_names_itself_and_both_hashes(tmp_path, damage):
    raw = gzip.compress(np.random.default_rng(0).bytes(500))
    (tmp_path / "data.gz").write_bytes(damage(raw))
    found = hashlib.sha256(damage(raw)).hexdigest() if damage(raw) else "[0-9a-f]{64}"
    with pytest.raises(DatasetError, match=rf"data\.gz is corrupt: expected content with sha256 {'0' * 64}, found .*{found}"):
        read_gzip(tmp_path / "data.gz", "0" * 64)


def test_other_content_names_both_hashes(tmp_path):
    (tmp_path / "data.gz").write_bytes(gzip.compress(b"other"))
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(DatasetError, match=f"expected content with sha256 {'0' * 64}, found {found}; replace the file"):
        read_gzip(tmp_path / "data.gz", "0" * 64)


def test_a_subset_keeps_each_image_with_its_label():
    labels = np.arange(60) % 5
    marked = Source(
        np.broadcast_to(labels[:, None, None], (60, 4, 4)).astype(np.uint8), labels.astype(np.uint8), 16, source([0]).provenance
    )
    for data in (marked.dataset(n=30, seed=2, pool=2), marked.split("train", 20).dataset()):
        assert np.array_equal(data.images[:, 1, 1, 0] * 16, data.labels) and len(np.unique(data.labels)) == 5
