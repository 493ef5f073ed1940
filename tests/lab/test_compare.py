import dataclasses
import json
from pathlib import Path

import pytest

from gradatim.lab.compare import compare
from gradatim.lab.measures import Measure
from gradatim.lab.records import Record

RECORD = Record(
    path=Path("runs/toy/first"),
    slug="toy",
    scale="smoke",
    seed=0,
    precision="single",
    status="ok",
    error="",
    config={"width": 64, "optimizer": {"b1": 0.9}},
    changed={},
    versions={"jax": "0.10.1", "numpy": "2.4.6"},
    machine={"cpus": 2},
    commit=None,
    started="2026-01-01T00:00:00",
    finished="2026-01-01T00:00:05",
    seconds={"run": 1.0},
    peak_memory=None,
    measures={"C1.gap": Measure(1.0, 0.9, 1.1), "C2.order": Measure((1.0, 2.0), (0.9, 1.9), (1.1, 2.1))},
    verdicts={"C1": {"verdict": "holds"}, "C2": {"verdict": "holds"}},
    untested={},
    notes=(),
    provenance=(),
)


def changed(**entries):
    return dataclasses.replace(RECORD, path=Path("runs/toy/second"), **entries)


def test_measures_side_by_side():
    second = changed(
        measures={"C1.gap": Measure(1.5, 1.4, 1.6), "C2.order": Measure((1.0, 2.5), (0.9, 2.0), (1.1, 3.0)), "C3.new": Measure.exact(1.0)},
        verdicts={"C1": {"verdict": "fails"}, "C2": {"verdict": "holds"}},
    )
    compared = compare(RECORD, second)
    assert compared.measures["C1.gap"].difference == pytest.approx(0.5)
    assert compared.measures["C1.gap"].apart
    assert compared.measures["C2.order"].difference == pytest.approx((0.0, 0.5))
    assert not compared.measures["C2.order"].apart
    assert compared.measures["C3.new"].difference is None
    assert compared.verdicts["C1"] == ("holds", "fails")


def test_sequences_of_other_lengths_have_no_difference():
    pair = compare(RECORD, changed(measures={"C2.order": Measure((1.0,), (0.9,), (1.1,))})).measures["C2.order"]
    assert pair.difference is None
    assert pair.apart is None


def test_everything_else_that_differs():
    second = changed(config={"width": 64, "optimizer": {"b1": 0.5}}, versions={"jax": "0.10.2", "numpy": "2.4.6"}, seed=1)
    differences = compare(RECORD, second).differences
    assert differences == {
        "run": {"seed": (0, 1)},
        "config": {"optimizer.b1": (0.9, 0.5)},
        "versions": {"jax": ("0.10.1", "0.10.2")},
        "machine": {},
    }


def test_a_record_equals_itself():
    compared = compare(RECORD, RECORD)
    assert not any(compared.differences.values())
    assert all(pair.difference in (0.0, (0.0, 0.0)) and not pair.apart for pair in compared.measures.values())


def test_json_form():
    summary = json.loads(json.dumps(compare(RECORD, changed(seed=1)).summary(), allow_nan=False))
    assert set(summary) == {"slug", "records", "measures", "verdicts", "run", "config", "versions", "machine"}
    assert summary["records"] == ["runs/toy/first", "runs/toy/second"]
    assert summary["measures"]["C1.gap"]["first"]["value"] == 1.0


def test_other_papers_are_refused():
    with pytest.raises(ValueError, match="of one paper, got toy and other"):
        compare(RECORD, changed(slug="other"))


@pytest.mark.parametrize(
    ("gap", "order", "apart"),
    [
        (Measure(0.5, 0.4, 0.6), Measure((1.0, 2.0), (0.9, 1.9), (1.1, 2.1)), (True, False)),
        (Measure(1.2, 1.1, 1.3), Measure((1.0, 2.5), (0.9, 2.4), (1.1, 2.6)), (False, True)),  # ends that touch; one entry alone
        (Measure(0.8, 0.7, 0.9), Measure((0.5, 1.5), (0.4, 1.4), (0.6, 1.6)), (False, True)),
    ],
)
def test_intervals_are_apart_where_some_entry_has_no_point_in_common(gap, order, apart):
    compared = compare(RECORD, changed(measures={"C1.gap": gap, "C2.order": order})).measures
    assert (compared["C1.gap"].apart, compared["C2.order"].apart) == apart
