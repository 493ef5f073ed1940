"""A text as numbers, one for each character."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .dataset import Provenance


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text whose characters are numbered in the order of `symbols`, which are those of all its parts.

    >>> corpus = Corpus(np.array([1, 0, 1, 2], np.uint8), " ab", Provenance("an example", "1", "CC0-1.0", {}))
    >>> corpus.decode(corpus.tokens), corpus.encode("bab"), corpus.blocks(2).tolist()
    ('a ab', array([2, 1, 2], dtype=uint8), [[1, 0], [1, 2]])
    """

    tokens: UInt8[np.ndarray, " n"]
    symbols: str
    provenance: Provenance

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def vocabulary_size(self) -> int:
        """How many symbols there are."""
        return len(self.symbols)

    def encode(self, text: str) -> UInt8[np.ndarray, " n"]:
        """The numbers of a text.

        **Raises:** `ValueError` for a character that is not among the symbols.
        """
        numbers = {symbol: i for i, symbol in enumerate(self.symbols)}
        strange = sorted(set(text) - set(numbers))
        if strange:
            raise ValueError(f"text must consist of the corpus's {len(self.symbols)} symbols, got {', '.join(map(repr, strange))}")
        return np.array([numbers[character] for character in text], np.uint8)

    def decode(self, tokens: Iterable[Any]) -> str:
        """The text of some numbers, in any array or sequence."""
        return "".join(self.symbols[int(token)] for token in tokens)

    def blocks(self, length: int, count: int | None = None) -> UInt8[np.ndarray, "blocks length"]:
        """The text cut into blocks that do not overlap, a shorter rest left out.

        A model that reads `T` characters and is told the next of each wants blocks of `T + 1`.

        **Arguments:** `length` of a block; `count` ≥ 1: so many of them at most, evenly from the first to the last; None takes all.

        **Raises:** `ValueError` if `length` is not between 1 and the length of the text, or `count` is below 1.
        """
        if count is not None and count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        if not 1 <= length <= len(self):
            raise ValueError(f"length must lie between 1 and the corpus's {len(self)} characters, got {length}")
        blocks = self.tokens[: len(self) // length * length].reshape(-1, length)
        return blocks if count is None else blocks[np.linspace(0, len(blocks) - 1, min(count, len(blocks))).astype(int)]
