import dataclasses
from pathlib import Path

from gradatim.cli import tables
from gradatim.lab.compare import compare
from gradatim.lab.measures import Measure
from gradatim.lab.records import Record

FIRST = Record(
    **dict.fromkeys(("precision", "error", "started", "finished"), ""),
    **{name: {} for name in ("changed", "versions", "machine", "seconds", "untested")},
    **dict.fromkeys(("commit", "peak_memory")),
    **dict.fromkeys(("notes", "provenance"), ()),
    path=Path("runs/toy/first"),
    slug="toy",
    scale="smoke",
    seed=0,
    status="ok",
    config={"width": 64},
    measures={"C1.gap": Measure(1.0, 0.9, 1.1), "C2.order": Measure((1.0, 2.0), (1.0, 1.9), (1.0, 2.1)), "C3.old": Measure.exact(7.0)},
    verdicts={"C1": {"verdict": "holds"}, "C2": {"verdict": "holds"}, "C3": {"verdict": "undecided"}},
)
SECOND = dataclasses.replace(
    FIRST,
    path=Path("runs/toy/second"),
    seed=5,
    config={"width": 32},
    measures={"C1.gap": Measure(1.5, 1.4, 1.6), "C2.order": Measure((1.0, 2.5), (1.0, 2.0), (1.0, 3.0))},
    verdicts={"C1": {"verdict": "fails"}, "C2": {"verdict": "holds"}},
)


def printed(parts, capsys):
    """The words of each line, columns two blanks apart."""
    for part in parts:
        tables.console().print(part)
    lines = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_two_records_stand_side_by_side(capsys):
    lines = printed(tables.comparison(compare(FIRST, SECOND)), capsys)
    assert ["C1.gap", "1 [0.9, 1.1]", "1.5 [1.4, 1.6]", "0.5", "intervals apart", "✓ holds → ✗ fails"] in lines
    assert ["C2.order", "1, 2 [1.9, 2.1]", "1, 2.5 [2, 3]", "0, 0.5", "✓ holds"] in lines
    assert ["C3.old", "7", "not measured", "? undecided → –"] in lines
    assert ["seed", "0", "5"] in lines and ["width", "64", "32"] in lines
    assert ["first", "runs/toy/first"] in lines and ["second", "runs/toy/second"] in lines
    assert not any(line[:1] == ["versions"] for line in lines)
