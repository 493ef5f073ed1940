"""A data set: images, labels and provenance, from files that are checked by hash."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Integer, UInt8

SEARCH_VARIABLE = "GRADATIM_DATA"
"The environment variable that names a folder of data files, looked into before any other place."


class DatasetError(ValueError):
    """Data that are missing or not what they should be; the message says how to get them."""


@dataclass(frozen=True)
class Provenance:
    """Where data come from; `sha256` maps each file's name to the hash of its uncompressed content.

    Equal for equal data, wherever on a machine the files lay.
    """

    source: str
    version: str
    licence: str
    sha256: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images: intensities in [0, 1], one channel, and class numbers from 0."""

    images: Float[np.ndarray, "n height width 1"]
    labels: Int[np.ndarray, " n"]
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Source:
    """Images as their files hold them: whole numbers up to `full_scale`."""

    images: UInt8[np.ndarray, "n height width"]
    labels: UInt8[np.ndarray, " n"]
    full_scale: int
    provenance: Provenance

    def dataset(self, *, n: int | None = None, seed: int = 0, pool: int | None = None) -> Dataset:
        """A stratified subset of `n` examples (None: all, in the source's order), averaged down to `pool` pixels a side.

        **Raises:** `ValueError` if `n` is not between 1 and the number of examples, or `pool` does not divide the side.
        """
        images, labels = self.images, self.labels
        if n is not None:
            random = np.random.default_rng(seed)
            chosen = random.permutation(stratified(labels, n, random.permutation(len(labels))))
            images, labels = images[chosen], labels[chosen]
        scaled = images[..., None] / np.float32(self.full_scale)
        return Dataset(scaled if pool is None else pooled(scaled, pool), labels.astype(np.int32), self.provenance)

    def split(self, name: str, n_test: int) -> Source:
        """The part `"train"` or `"test"` of a fixed stratified split, in an order that mixes the classes.

        The hash of an example's pixels decides, so that no library's random generator has a say in what is tested.
        """
        digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in self.images]
        chosen = np.zeros(len(self.images), bool)
        chosen[stratified(self.labels, n_test, np.argsort(digests, kind="stable"))] = True
        # By the end of the hash, independent of its beginning: else the classes that filled their share first would crowd the front.
        order = np.argsort([digest[::-1] for digest in digests], kind="stable")
        chosen = order[chosen[order] if name == "test" else ~chosen[order]]
        return Source(self.images[chosen], self.labels[chosen], self.full_scale, self.provenance)


def stratified(labels: Integer[np.ndarray, " n"], n: int, order: Integer[np.ndarray, " n"]) -> Integer[np.ndarray, " chosen"]:
    """The first of each class along `order`, `n` in all, each class's share kept to within one example; ascending indices.

    >>> stratified(np.array([0, 0, 0, 0, 1, 1]), 3, np.array([5, 0, 1, 2, 3, 4]))
    array([0, 1, 5])
    """
    if not 1 <= n <= len(labels):
        raise ValueError(f"n must lie between 1 and the {len(labels)} examples there are, got {n}")
    classes, sizes = np.unique(labels, return_counts=True)
    exact = n * sizes / len(labels)
    counts = np.floor(exact).astype(int)
    # Largest remainders first; ties go to the lower class.
    counts[np.argsort(counts - exact, kind="stable")[: n - counts.sum()]] += 1
    along = labels[order]
    return np.sort(np.concatenate([order[along == label][:count] for label, count in zip(classes, counts, strict=True)]))


def pooled(images: Float[np.ndarray, "n side side 1"], side: int) -> Float[np.ndarray, "n small small 1"]:
    """Averages square blocks of pixels, so that `side` remain in each direction.

    >>> pooled(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), 2)[0, ..., 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """
    n, full = images.shape[:2]
    if not (side >= 1 and full % side == 0):
        raise ValueError(f"pool must divide the images' side of {full}, got {side}")
    return images.reshape(n, side, full // side, side, full // side, 1).mean((2, 4))


def find_file(name: str, folders: tuple[Path, ...]) -> Path | None:
    """The first file called `name` in the folder that `GRADATIM_DATA` names, then in `folders`; None if there is none.

    **Raises:** `DatasetError` if `GRADATIM_DATA` is set to something that is no folder.
    """
    if chosen := os.environ.get(SEARCH_VARIABLE):
        if not Path(chosen).is_dir():
            raise DatasetError(f"{SEARCH_VARIABLE} must name a folder, got {chosen}")
        folders = (Path(chosen), *folders)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def shipped_file(package: str, path: str, *, distribution: str, remedy: str) -> tuple[Path, str]:
    """A data file inside an installed package, found without importing it, and the version of its distribution.

    **Raises:** `DatasetError` with the `remedy` if the package or its file is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DatasetError(f"the data come with the package {distribution}, which is not installed: {remedy}")
    file = Path(spec.submodule_search_locations[0]) / path
    if not file.is_file():
        raise DatasetError(f"the installed {distribution} lacks its data file {file}: {remedy}")
    return file, importlib.metadata.version(distribution)


def read_gzip(path: Path, sha256: str) -> bytes:
    """The uncompressed content of a file, after its hash was checked.

    The hash is that of the content: packagers compress the same data anew, which changes the file and not the data.

    **Raises:** `DatasetError`, naming the file, the expected and the found hash.
    """
    raw = path.read_bytes()
    try:
        content = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        found = f"found a broken gzip stream (the file itself has sha256 {hashlib.sha256(raw).hexdigest()})"
        raise DatasetError(f"{path} is corrupt: expected content with sha256 {sha256}, {found}; replace the file") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DatasetError(f"{path} is corrupt: expected content with sha256 {sha256}, found {found}; replace the file")
    return content
