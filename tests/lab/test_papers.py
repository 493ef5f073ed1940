import importlib.resources
import re
from pathlib import Path

import pytest

from gradatim.lab import read_paper

FILES = sorted(Path(str(importlib.resources.files("gradatim.papers"))).glob("*.toml"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def paper(request):
    return read_paper(request.param)


def test_file_is_named_after_the_slug():
    assert FILES and [read_paper(path).slug.replace("-", "_") for path in FILES] == [path.stem for path in FILES]


@pytest.mark.parametrize("field", ["title", "arxiv", "summary"])
def test_papers_differ(field):
    assert len({getattr(read_paper(path), field) for path in FILES}) == len(FILES)


def test_summary_is_two_sentences(paper):
    assert len(re.findall(r"[.!?](?=\s+[A-Z0-9]|$)", paper.summary)) == 2 and paper.summary[-1] in ".!?"


def test_tags_are_two_to_five_and_differ(paper):
    assert 2 <= len(paper.tags) <= 5 and len(set(paper.tags)) == len(paper.tags)


def test_identifier_is_that_of_the_archive(paper):
    assert re.fullmatch(r"\d{4}\.\d{4,5}", paper.arxiv)


def test_claims_are_numbered_without_gaps(paper):
    assert [claim.id for claim in paper.claims] == [f"C{number}" for number in range(1, len(paper.claims) + 1)]


def test_every_claim_is_a_sentence_that_can_be_judged_or_says_why_not(paper):
    for claim in paper.claims:
        assert claim.says[-1] == "." and claim.scales, claim.id
        assert bool(claim.parts) != bool(claim.untested), f"{claim.id} must have either parts or the reason why it is untested"


def test_every_part_names_what_stands_beside_it(paper):
    assert not [f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts if not part.control]
