"""Papers found by meaning: ranks by word embeddings and by TF-IDF, averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradatim.lab.paper import Paper

if TYPE_CHECKING:
    from wordllama import WordLlamaInference


@dataclass(frozen=True)
class Hit:
    """A paper and its mean rank among all papers, 1 being the nearest."""

    paper: Paper
    rank: float


def search(words: str, papers: Sequence[Paper], *, limit: int = 5) -> list[Hit]:
    """The papers whose title, summary, tags and claims are nearest to the words, nearest first.

    The rank is the mean of two: cosine similarity of the token embeddings that the `wordllama` package ships (meaning), and of
    TF-IDF vectors (exact terms, which small embeddings blur). Without `wordllama` it is TF-IDF's alone, and papers that share
    no term with the words are left out.

    **Raises:** `ValueError` if there are no words.
    """
    if not words.strip():
        raise ValueError("the search needs at least one word")
    if not papers:
        return []
    from scipy.stats import rankdata

    texts = [_text(paper) for paper in papers]
    terms, meaning = _term_similarity(words, texts), _meaning_similarity(words, texts)
    ranks = rankdata(-terms) if meaning is None else (rankdata(-terms) + rankdata(-meaning)) / 2
    # Among equal mean ranks the exact terms decide.
    order = np.lexsort((-terms, ranks))
    found = [i for i in order if meaning is not None or terms[i] > 0]
    return [Hit(papers[i], float(ranks[i])) for i in found[:limit]]


def _text(paper: Paper) -> str:
    return ". ".join([paper.title, paper.summary, ", ".join(paper.tags), *(claim.says for claim in paper.claims)])


def _term_similarity(words: str, texts: list[str]) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Stems stand for the words' endings: "spectra" and "spectral" share theirs.
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 6), sublinear_tf=True).fit_transform([*texts, words])
    return np.asarray((vectors[:-1] @ vectors[-1].T).todense()).ravel()


def _meaning_similarity(words: str, texts: list[str]) -> np.ndarray | None:
    model = _model()
    if model is None:
        return None
    return _vectors(model, tuple(texts)) @ np.asarray(model.embed([words], norm=True))[0]


@lru_cache(maxsize=1)
def _vectors(model: WordLlamaInference, texts: tuple[str, ...]) -> np.ndarray:
    return np.asarray(model.embed(list(texts), norm=True))


@cache
def _model() -> WordLlamaInference | None:
    try:
        import wordllama
    except ImportError:
        return None
    # The wheel of 0.4.0 ships its tokenizer where only a cache folder named explicitly is looked for.
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
