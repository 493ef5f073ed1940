"""The catalogue: every data set by its name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from .corpus import Corpus
from .dataset import Dataset, Source
from .digits import digits
from .fashion_mnist import fashion_mnist
from .mnist import mnist_5k
from .shakespeare import shakespeare

CATALOGUE: dict[str, Callable[[str], Source]] = {"fashion-mnist": fashion_mnist, "mnist-5k": mnist_5k, "digits": digits}
TEXTS: dict[str, Callable[[str], Corpus]] = {"shakespeare": shakespeare}


def load(
    name: str,
    *,
    split: str = "train",
    n: int | None = None,
    seed: int = 0,
    pool: int | None = None,
) -> Dataset:
    """Real images with their labels and provenance.

    **Arguments:** `name`: `"fashion-mnist"`, `"mnist-5k"` or `"digits"`; `split`: `"train"` or `"test"`; `n`: the size of a
    stratified subset in random order, drawn by `seed` (None: all, in the data set's own order); `pool`: the side, in pixels, to
    average the images down to.

    **Raises:** `ValueError` for an unknown name or split, an `n` larger than the data set or a `pool` that does not divide the
    side; `DatasetError` if the data are corrupt or not to be had. No other data set ever takes their place.

    >>> train = load("digits", n=100)
    >>> train.images.shape, train.provenance.licence
    ((100, 8, 8, 1), 'CC-BY-4.0')
    """
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"name must be one of {', '.join(CATALOGUE)}, got {name!r}{hint}")
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    return CATALOGUE[name](split).dataset(n=n, seed=seed, pool=pool)


def load_text(name: str, *, split: str = "train") -> Corpus:
    """A real text as numbers, with its symbols and provenance; the parts are contiguous, the validation part at the end.

    **Arguments:** `name`: `"shakespeare"`; `split`: `"train"` or `"validation"`.

    **Raises:** `ValueError` for an unknown name or split; `DatasetError` if the text is corrupt or not to be had. No other text ever
    takes its place.

    >>> text = load_text("shakespeare")
    >>> len(text), text.vocabulary_size, text.decode(text.tokens[:25])
    (4532260, 84, "ALL'S WELL THAT ENDS WELL")
    """
    if name not in TEXTS:
        raise ValueError(f"name must be one of {', '.join(TEXTS)}, got {name!r}")
    if split not in ("train", "validation"):
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}")
    return TEXTS[name](split)
