"""Claims as data: what a paper says, how it is measured, and when it counts as true."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gradatim.lab.measures import Measure

Verdict = Literal["holds", "fails", "undecided", "untested"]
SCALES = ("smoke", "laptop", "full")
# The worst part decides a claim.
_SEVERITY: tuple[Verdict, ...] = ("fails", "undecided", "untested", "holds")


@dataclass(frozen=True)
class Criterion:
    """When a measure counts as agreeing: a closed range of values, or an order among the entries of a sequence.

    The interval decides: `holds` if it lies inside the range, `fails` if it lies outside, `undecided` if it straddles an end.

    >>> Criterion.parse({"at_least": 1.0})
    Criterion(low=1.0, high=inf, order=None, text='≥ 1')
    """

    low: float = -float("inf")
    high: float = float("inf")
    order: Literal["ascending", "descending"] | None = None
    text: str = ""

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Criterion:
        """From its TOML form: `at_least`, `at_most`, `between = [a, b]`, `within = {value, rel | abs}` or `ordered = "ascending"`."""
        if len(table) != 1:
            raise ValueError(f"a criterion must have exactly one key, got {sorted(table)}")
        (kind, what), *_ = table.items()
        match kind:
            case "at_least":
                return cls(low=_number(kind, what), text=f"≥ {what:g}")
            case "at_most":
                return cls(high=_number(kind, what), text=f"≤ {what:g}")
            case "between":
                ends = [_number("between", end) for end in what] if isinstance(what, list | tuple) else []
                if len(ends) != 2 or not ends[0] <= ends[1]:
                    raise ValueError(f"between must be [low, high] with low <= high, got {what}")
                return cls(low=ends[0], high=ends[1], text=f"{ends[0]:g} … {ends[1]:g}")
            case "within":
                if not isinstance(what, Mapping) or set(what) not in ({"value", "rel"}, {"value", "abs"}):
                    raise ValueError(f"within must have the keys value and one of rel, abs, got {what}")
                numbers = {name: _number(f"within.{name}", number) for name, number in what.items()}
                value = numbers["value"]
                if "rel" in numbers:
                    half, text = abs(value) * numbers["rel"], f"{value:g} ± {100 * numbers['rel']:g} %"
                else:
                    half, text = numbers["abs"], f"{value:g} ± {numbers['abs']:g}"
                if half < 0:
                    raise ValueError(f"within must have a tolerance of at least 0, got {what}")
                return cls(value - half, value + half, text=text)
            case "ordered":
                if what not in ("ascending", "descending"):
                    raise ValueError(f"ordered must be 'ascending' or 'descending', got {what!r}")
                return cls(order=what, text=f"{what} order")
        kinds = ("at_least", "at_most", "between", "within", "ordered")
        raise ValueError(f"a criterion must be one of {', '.join(kinds)}, got {kind!r}{_hint(kind, kinds)}")

    def judge(self, measure: Measure) -> Verdict:
        """The verdict on one measure."""
        rows = measure.intervals()
        if self.order is not None:
            if len(rows) < 2:
                raise ValueError(f"an order needs a sequence of at least 2 measures, got {len(rows)}")
            rises = measure.rises()
            if self.order == "descending":
                rises = [(-high, -low) for low, high in rises]
            if any(high < 0 for _, high in rises):
                return "fails"
            return "holds" if all(low >= 0 for low, _ in rises) else "undecided"
        if len(rows) != 1:
            raise ValueError(f"the criterion {self.text!r} judges one number, got a sequence of {len(rows)}")
        ((_, low, high),) = rows
        if high < self.low or low > self.high:
            return "fails"
        return "holds" if low >= self.low and high <= self.high else "undecided"


@dataclass(frozen=True)
class ClaimPart:
    """One measured quantity of a claim: its name, criterion, unit, the paper's own figure and the control beside it."""

    name: str
    criterion: Criterion
    unit: str = ""
    paper: float | str | None = None
    control: str = ""

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> ClaimPart:
        """From a `[[claims.parts]]` table."""
        _check_keys(table, required=("name", "criterion"), optional=("unit", "paper", "control"), where="a claim's part")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", table["name"]):
            raise ValueError(f"a part's name must be a lower-case identifier, got {table['name']!r}")
        return cls(**{**table, "criterion": Criterion.parse(table["criterion"])})


@dataclass(frozen=True)
class Claim:
    """One checkable sentence of a paper.

    `scales`: where it can be judged; `timing`: whether it is wall-clock time; `untested`: why it cannot be judged at all.
    """

    id: str
    says: str
    parts: tuple[ClaimPart, ...] = ()
    scales: tuple[str, ...] = ("laptop", "full")
    timing: bool = False
    untested: str = ""

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Claim:
        """From a `[[claims]]` table."""
        _check_keys(table, required=("id", "says"), optional=("parts", "scales", "timing", "untested"), where="a claim")
        if not re.fullmatch(r"C[1-9]\d*", table["id"]):
            raise ValueError(f"a claim's id must be C1, C2, …, got {table['id']!r}")
        scales = tuple(table.get("scales", ("laptop", "full")))
        if not scales:
            raise ValueError(f"{table['id']}: scales must not be empty; say why it cannot be judged in untested")
        for scale in scales:
            if scale not in SCALES:
                raise ValueError(f"{table['id']}: scales must be among {', '.join(SCALES)}, got {scale!r}")
        parts = tuple(ClaimPart.parse(part) for part in table.get("parts", ()))
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise ValueError(f"{table['id']}: the names of its parts must differ, got {names}")
        return cls(table["id"], table["says"], parts, scales, table.get("timing", False), table.get("untested", ""))

    def judge(self, measures: Mapping[str, Measure], scale: str, untested: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The claim's verdict in its JSON form, from the measures named `"C3.part_name"`.

        **Returns:** `{verdict, value, low, high, unit, criterion, paper, reason}` of the part that decides, and `parts`, the
        same for each.
        """
        reasons = untested or {}
        if self.untested or self.id in reasons:
            return _verdict("untested", reason=self.untested or reasons[self.id])
        if scale not in self.scales:
            return _verdict("untested", reason=f"judged at scale {' or '.join(self.scales)} only")
        if not self.parts:
            return _verdict("untested", reason="no criterion is written down yet")
        parts: dict[str, dict[str, Any]] = {}
        for part in self.parts:
            key = f"{self.id}.{part.name}"
            common = {"unit": part.unit, "criterion": part.criterion.text, "paper": part.paper, "control": part.control}
            if key in measures:
                m = measures[key]
                numbers = {"value": m.value, "low": m.low, "high": m.high, "method": m.method}
                parts[part.name] = _verdict(part.criterion.judge(m), **numbers, **common)
            else:
                parts[part.name] = _verdict("untested", reason=reasons.get(key, "not measured"), **common)
        worst = min(parts, key=lambda name: _SEVERITY.index(parts[name]["verdict"]))
        return {**parts[worst], "part": worst, "parts": parts}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _verdict(verdict: Verdict, **entries: Any) -> dict[str, Any]:
    blank = {"value": None, "low": None, "high": None, "unit": "", "criterion": "", "paper": None, "reason": ""}
    return {"verdict": verdict, **blank, **entries}


def _check_keys(table: Mapping[str, Any], *, required: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    for key in required:
        if key not in table:
            raise ValueError(f"{where} must have the key {key!r}, got {sorted(table)}")
    for key in table:
        if key not in required + optional:
            raise ValueError(f"{where} has no key {key!r}{_hint(key, required + optional)}; allowed: {', '.join(required + optional)}")


def _hint(word: str, allowed: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
