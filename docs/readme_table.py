"""Writes the tables of papers and verdicts into the Markdown files that have room for them, from claims and scorecard.

A table stands between `<!-- table: papers -->`, `<!-- table: seeds -->` or `<!-- table: verdicts SLUG -->` and
`<!-- end of table -->`. With `--check` nothing is written: the exit code says whether a table is out of date.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gradatim.lab import Paper, read_paper
from gradatim.lab.paper import module_beside

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "docs/index.md", "docs/papers/index.md")
SYMBOLS = {"holds": "✓", "fails": "✗", "undecided": "?", "untested": "–"}
TABLE = re.compile(r"(<!-- table: (\w+)(?: ([\w-]+))? -->\n).*?(<!-- end of table -->)", re.DOTALL)


def own_papers(root: Path = ROOT) -> dict[str, Paper]:
    """The papers of this repository by slug; those of other packages have no place in its tables."""
    found = {}
    for path in sorted((root / "gradatim/papers").glob("*.toml")):
        paper = read_paper(path, module_beside(path, "gradatim.papers"))
        found[paper.slug] = paper
    return found


def read_scorecard(root: Path = ROOT) -> dict[str, Any]:
    """The scorecard as it is committed."""
    return json.loads((root / "scorecard.json").read_text(encoding="utf-8"))


def cell(text: object) -> str:
    """Text that keeps to its cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def number(value: Any) -> str:
    """Four digits; several numbers joined by commas."""
    if isinstance(value, list | tuple):
        return ", ".join(map(number, value))
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def interval(entry: Mapping[str, Any]) -> str:
    """The 95 % interval of a measure; empty for one that is known exactly."""
    ends = [x if isinstance(x, list | tuple) else [x] for x in (entry["low"], entry["high"])]
    pairs = [f"{number(low)} … {number(high)}" for low, high in zip(*ends, strict=True) if low != high]
    return "; ".join(pairs)


def tally(claims: Mapping[str, Mapping[str, Any]]) -> str:
    """How many claims have which verdict, in words."""
    counts = Counter(entry["verdict"] for entry in claims.values())
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in SYMBOLS if counts[verdict])


def papers_table(papers: Mapping[str, Paper], scorecard: Mapping[str, Any], *, pages: bool) -> str:
    """One row a paper, those that run first; `pages` links to the pages beside, else to arXiv."""
    rows = ["| paper | year | seeds | verdicts |", "| --- | --- | --- | --- |"]
    for paper in sorted(papers.values(), key=lambda paper: (not paper.implemented, paper.slug)):
        target = f"{paper.slug}.md" if pages else f"https://arxiv.org/abs/{paper.arxiv}"
        if paper.slug in scorecard:
            state = tally(scorecard[paper.slug]["claims"])
            seeds = 1 + len(scorecard[paper.slug]["seeds"])
        else:
            seeds = 0
            state = "runs, not yet judged" if paper.implemented else f"not yet ({len(paper.claims)} claims written down)"
        rows.append(f"| [`{paper.slug}`]({target}) {cell(paper.title)} | {paper.date.year} | {seeds or ''} | {state} |")
    return "\n".join(rows)


def verdicts_table(paper: Paper, scorecard: Mapping[str, Any]) -> str:
    """One row a claim: what it says, its verdict, and the measure that decides."""
    judged = scorecard.get(paper.slug, {}).get("claims", {})
    rows = ["| claim | what it says | verdict | measured | criterion |", "| --- | --- | --- | --- | --- |"]
    for claim in paper.claims:
        entry = judged.get(claim.id)
        if entry is None:
            rows.append(f"| {claim.id} | {cell(claim.says)} | not yet judged | | |")
            continue
        value = entry["reason"] if entry["value"] is None else " ".join(filter(None, (number(entry["value"]), entry["unit"])))
        verdict = f"{SYMBOLS[entry['verdict']]} {entry['verdict']}"
        rows.append(f"| {claim.id} | {cell(claim.says)} | {verdict} | {cell(value)} | {cell(entry['criterion'])} |")
    return "\n".join(rows)


def seeds_table(scorecard: Mapping[str, Any]) -> str:
    """Claims by their verdict with the first seed and with another, and how many measures differ by more than their intervals allow."""
    verdicts: Counter[tuple[str, str]] = Counter()
    distances = []
    for first, other in _paired(scorecard):
        verdicts[_own_verdict(first), _own_verdict(other)] += 1
        parts = other.get("parts", {})
        distances += [_distance(part, parts[name]) for name, part in first.get("parts", {}).items() if name in parts]
    rows = [f"| first seed | {' | '.join(f'other: {word}' for word in SYMBOLS)} |", f"|{' --- |' * (len(SYMBOLS) + 1)}"]
    rows += [f"| {word} | {' | '.join(str(verdicts[word, there]) for there in SYMBOLS)} |" for word in SYMBOLS]
    known = [distance for distance in distances if distance is not None]
    beyond = sum(distance > 1 for distance in known)
    share = f"{beyond / len(known):.1%}" if known else "none"
    rows += [
        "",
        f"Of {len(known)} measures with an interval from repeats {beyond} ({share}) differ between the seeds by more than the root of the "
        "sum of the squares of both half-widths, which two intervals of 95 % would let 5 % do.",
    ]
    return "\n".join(rows)


def _paired(scorecard: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for paper in scorecard.values():
        for claims in paper["seeds"].values():
            yield from ((paper["claims"][name], entry) for name, entry in claims.items())


def _own_verdict(entry: Mapping[str, Any]) -> str:
    """Of one seed alone: that of the part that decides."""
    return entry["parts"][entry["part"]]["verdict"] if entry.get("parts") else "untested"


def _distance(first: Mapping[str, Any], other: Mapping[str, Any]) -> float | None:
    """Of two measures, in half-widths of both intervals together; None where they are no means over repeats."""
    if not all(isinstance(entry[end], int | float) for entry in (first, other) for end in ("value", "low", "high")):
        return None
    if first["method"] in ("exact", "error bound") or first["low"] == first["high"] or other["low"] == other["high"]:
        return None
    numbers = [[entry[end] for end in ("value", "low", "high")] for entry in (first, other)]
    if "log-ratio" in first["method"]:
        numbers = [[math.log(x) for x in row] for row in numbers]
    (a, *ends), (b, *other_ends) = numbers
    return abs(a - b) / math.hypot(*((high - low) / 2 for low, high in (ends, other_ends)))


def updated(text: str, papers: Mapping[str, Paper], scorecard: Mapping[str, Any], *, pages: bool) -> str:
    """The text with each of its tables made anew."""

    def table(match: re.Match[str]) -> str:
        before, kind, slug, after = match.groups()
        match kind:
            case "papers":
                body = papers_table(papers, scorecard, pages=pages)
            case "seeds":
                body = seeds_table(scorecard)
            case _:
                body = verdicts_table(papers[slug], scorecard)
        return f"{before}\n{body}\n\n{after}"

    return TABLE.sub(table, text)


def main(arguments: list[str]) -> int:
    """Writes the tables, or with `--check` only compares them."""
    papers, scorecard = own_papers(), read_scorecard()
    stale = []
    for name in FILES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        fresh = updated(text, papers, scorecard, pages=name == "docs/papers/index.md")
        if fresh != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run python docs/readme_table.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
