"""What `make` installs is pinned by version and hash, from no index in particular."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements*.lock"))


def requirements(lock):
    """Each requirement with its hashes, its lines joined."""
    text = re.sub(r"^\s*#.*\n?", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_has_one_version_and_its_hashes(lock):
    lines = requirements(lock)
    assert lines
    assert [
        line for line in lines if not re.match(r"[\w.-]+(\[[\w,-]+\])?==[^ ;]+( ;[^#]*?)?( +--hash=sha256:[0-9a-f]{64})+ *$", line)
    ] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_index_is_named(lock):
    assert not re.search(r"--(extra-)?index-url|--find-links|https?://", "\n".join(requirements(lock)))


def test_jax_is_one_that_all_supported_pythons_have():
    (version,) = {line.split()[0].partition("==")[2] for line in requirements(ROOT / "requirements.lock") if line.startswith("jax==")}
    assert tuple(map(int, version.split(".")[:2])) < (0, 11)
