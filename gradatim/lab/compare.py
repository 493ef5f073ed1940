"""Two records of one paper side by side: what was measured, how it was judged, and what was different about the runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gradatim.lab.measures import Measure
from gradatim.lab.records import Record, jsonable


@dataclass(frozen=True)
class Pair:
    """One measure in both runs, None where a run has not measured it."""

    first: Measure | None
    second: Measure | None

    @property
    def difference(self) -> float | tuple[float, ...] | None:
        """Second minus first, entry by entry; None where they cannot be subtracted."""
        if self.first is None or self.second is None:
            return None
        first, second = self.first.intervals(), self.second.intervals()
        if len(first) != len(second):
            return None
        differences = tuple(b - a for (a, *_), (b, *_) in zip(first, second, strict=True))
        return differences if isinstance(self.first.value, tuple) else differences[0]

    @property
    def apart(self) -> bool | None:
        """Whether the intervals of some entry have no point in common; None where there is no difference."""
        if self.first is None or self.second is None or self.difference is None:
            return None
        rows = zip(self.first.intervals(), self.second.intervals(), strict=True)
        return any(a_high < b_low or b_high < a_low for (_, a_low, a_high), (_, b_low, b_high) in rows)


@dataclass(frozen=True)
class Comparison:
    """Measures of both runs, the verdicts, and, each as `(first, second)`, all else in which the runs differ."""

    first: Record
    second: Record
    measures: Mapping[str, Pair]
    verdicts: Mapping[str, tuple[str | None, str | None]]
    differences: Mapping[str, Mapping[str, tuple[Any, Any]]] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Its JSON form: `{slug, records, measures, verdicts, run, config, versions, machine}`."""
        measures = {
            name: {"first": pair.first, "second": pair.second, "difference": pair.difference, "apart": pair.apart}
            for name, pair in self.measures.items()
        }
        records = [self.first.path, self.second.path]
        verdicts = {"verdicts": self.verdicts, **self.differences}
        return jsonable({"slug": self.first.slug, "records": records, "measures": measures, **verdicts})


def compare(first: Record, second: Record) -> Comparison:
    """Holds the second record against the first.

    **Raises:** `ValueError` if they are of different papers.
    """
    if first.slug != second.slug:
        raise ValueError(f"the records must be of one paper, got {first.slug} and {second.slug}")
    names = dict.fromkeys([*first.measures, *second.measures])
    claims = dict.fromkeys([*first.verdicts, *second.verdicts])
    run = ("scale", "seed", "precision", "status", "commit")
    return Comparison(
        first,
        second,
        measures={name: Pair(first.measures.get(name), second.measures.get(name)) for name in names},
        verdicts={claim: (_word(first, claim), _word(second, claim)) for claim in claims},
        differences={
            "run": _differing({name: getattr(first, name) for name in run}, {name: getattr(second, name) for name in run}),
            "config": _differing(_flat(first.config), _flat(second.config)),
            "versions": _differing(first.versions, second.versions),
            "machine": _differing(_flat(first.machine), _flat(second.machine)),
        },
    )


def _word(record: Record, claim: str) -> str | None:
    return record.verdicts.get(claim, {}).get("verdict")


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in table.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return out


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = dict.fromkeys([*first, *second])
    return {name: (first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)}
