"""Fashion-MNIST: 60 000 + 10 000 photographs of clothes, 28 × 28 (Xiao, Rasul & Vollgraf, arXiv:1708.07747)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import SEARCH_VARIABLE, DatasetError, Provenance, Source, find_file, read_gzip

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
ORIGIN = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/"
IMAGE_HEADER, LABEL_HEADER = 16, 8
"Bytes before the data of an idx file: a magic number and one 32-bit length a dimension."

# Of the content, the same in the Debian package and at the origin.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
# Of the compressed files at the origin.
ORIGIN_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}


def fashion_mnist(split: str) -> Source:
    """The part `"train"` or `"test"`, in the order of its files.

    Looks into the folder that `GRADATIM_DATA` names, then into that of the Debian package `dataset-fashion-mnist`, then downloads.

    **Raises:** `DatasetError` for a corrupt file, or where none is found and none can be downloaded.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    names = (f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz")
    images, labels = (read_gzip(find_file(name, (DEBIAN_FOLDER,)) or _download(name), CONTENT_SHA256[name]) for name in names)
    provenance = Provenance(
        source="Fashion-MNIST, https://github.com/zalandoresearch/fashion-mnist",
        version="b2617bb",
        licence="MIT",
        sha256={name: CONTENT_SHA256[name] for name in names},
    )
    return Source(
        np.frombuffer(images, np.uint8, offset=IMAGE_HEADER).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=LABEL_HEADER),
        255,
        provenance,
    )


def _download(name: str) -> Path:
    import pooch

    try:
        folder = Path(pooch.os_cache("gradatim")) / "fashion-mnist"
        return Path(pooch.retrieve(ORIGIN + name, f"sha256:{ORIGIN_SHA256[name]}", name, folder))
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"Fashion-MNIST is neither in the folder that {SEARCH_VARIABLE} names nor in {DEBIAN_FOLDER}, and its download failed "
            f"({type(error).__name__}): run `apt-get install dataset-fashion-mnist`, or set {SEARCH_VARIABLE} to a folder that "
            f"holds {', '.join(CONTENT_SHA256)}"
        ) from error
