"""What the commands print for people."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gradatim.lab.claims import Claim
    from gradatim.lab.compare import Comparison
    from gradatim.lab.doctor import Check
    from gradatim.lab.measures import Measure
    from gradatim.lab.paper import Paper

WIDTH = 160
"Columns of a table that goes to a file or a pipe."
SYMBOLS = {"holds": ("✓", "green"), "fails": ("✗", "bold red"), "undecided": ("?", "yellow"), "untested": ("–", "dim")}


def console() -> Console:
    """A console as wide as the terminal, or wide enough for the tables where there is none."""
    # Brackets are intervals here, not markup.
    return Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, emoji=False, highlight=False)


def heading(text: str) -> Text:
    """A title above what follows."""
    return Text(text, style="bold")


def table(*columns: str, rows: Iterable[Iterable[Any]]) -> Table:
    """A table of texts, with two blanks between its columns."""
    out = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        out.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return out


def verdict(word: str) -> Text:
    """A verdict with its symbol and colour."""
    symbol, style = SYMBOLS[word]
    return Text(f"{symbol} {word}", style=style)


def verdicts(judged: Sequence[tuple[Paper, Mapping[str, Mapping[str, Any]]]]) -> Table:
    """One row a claim: what it says, its verdict, the measure that decides, its criterion and the paper's figure."""
    columns = ("claim", "what it says", "verdict", "measured", "criterion", "paper's figure")
    if len(judged) == 1:
        ((paper, entries),) = judged
        return table(*columns, rows=(_claim(claim, entries.get(claim.id)) for claim in paper.claims))
    rows = ((paper.slug, *_claim(claim, entries.get(claim.id))) for paper, entries in judged for claim in paper.claims)
    return table("paper", *columns, rows=rows)


def tally(paper: Paper, judged: Mapping[str, Mapping[str, Any]]) -> Text:
    """How many of a paper's claims have which verdict."""
    if not paper.implemented:
        return Text(f"{len(paper.claims)} (not implemented yet)", style="dim")
    words = Counter(entry["verdict"] for entry in judged.values())
    counts = [Text(f"{words[word]} {symbol} {word}", style=style) for word, (symbol, style) in SYMBOLS.items() if words[word]]
    return Text("  ").join(counts) if counts else Text(f"{len(paper.claims)} (not yet judged)", style="dim")


def comparison(compared: Comparison) -> Iterator[Table | Text]:
    """Measures side by side, then everything in which the runs differ."""
    yield Text(f"{compared.first.slug}\n  first   {compared.first.path}\n  second  {compared.second.path}\n")
    rows = []
    for name, pair in compared.measures.items():
        words = compared.verdicts.get(name.partition(".")[0], (None, None))
        judged = Text(" → ").join(verdict(word) if word else Text("–") for word in dict.fromkeys(words))
        apart = Text("intervals apart", style="yellow") if pair.apart else ""
        difference = "" if pair.difference is None else _number(pair.difference)
        rows.append((name, _measure(pair.first), _measure(pair.second), difference, apart, judged))
    yield table("measure", "first", "second", "second − first", "", "claim", rows=rows)
    for group, differing in compared.differences.items():
        if differing:
            yield Text()
            yield table(group, "first", "second", rows=((name, *values) for name, values in differing.items()))


def checks(found: Iterable[Check]) -> Table:
    """One row a check, with what to do where something is missing."""
    marks = {True: Text("✓", style="green"), False: Text("✗", style="bold red")}
    rows = ((marks[check.ok], check.group, check.name, " → ".join(filter(None, (check.found, check.advice)))) for check in found)
    return table("", "", "", "found", rows=rows)


def _claim(claim: Claim, entry: Mapping[str, Any] | None) -> tuple[Any, ...]:
    if entry is None:
        criteria = "; ".join(f"{part.criterion.text} {part.unit}".strip() for part in claim.parts)
        figures = "; ".join(_number(part.paper) for part in claim.parts if part.paper is not None)
        state = verdict("untested") if claim.untested else Text("not yet judged", style="dim")
        return claim.id, claim.says, state, claim.untested, criteria, figures
    criterion = " ".join(filter(None, (entry["criterion"], entry["unit"])))
    paper = "" if entry["paper"] is None else _number(entry["paper"])
    return claim.id, claim.says, verdict(entry["verdict"]), _measured(entry), criterion, paper


def _measured(entry: Mapping[str, Any]) -> str:
    if entry["value"] is None:
        return entry["reason"]
    found = f"{_intervals(entry['value'], entry['low'], entry['high'])} {entry['unit']}".strip()
    return f"{found} ({entry['reason']})" if entry["reason"] else found


def _measure(measure: Measure | None) -> str:
    return "not measured" if measure is None else _intervals(measure.value, measure.low, measure.high)


def _intervals(*ends: Any) -> str:
    """`value [low, high]` of each entry; the value alone where it is exact."""
    rows = zip(*(end if isinstance(end, list | tuple) else (end,) for end in ends), strict=True)
    return ", ".join(_number(value) if low == high else f"{_number(value)} [{_number(low)}, {_number(high)}]" for value, low, high in rows)


def _number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_number, value))
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
