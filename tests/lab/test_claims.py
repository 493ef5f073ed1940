import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.lab import Claim, ClaimPart, Criterion, Measure


def measure(low, high):
    return Measure((low + high) / 2, low, high, "by hand")


AT_LEAST = {"at_least": 1.0}
AT_MOST = {"at_most": 1.0}
BETWEEN = {"between": [1.0, 2.0]}
RELATIVE = {"within": {"value": -10.0, "rel": 0.1}}
ABSOLUTE = {"within": {"value": 3.0, "abs": 0.5}}


@pytest.mark.parametrize(
    ("table", "low", "high", "verdict"),
    [
        (AT_LEAST, 1.0, 2.0, "holds"),  # the end itself counts as inside
        (AT_LEAST, 0.9, 2.0, "undecided"),
        (AT_LEAST, 0.5, 1.0, "undecided"),
        (AT_LEAST, 0.5, 0.9, "fails"),
        (AT_MOST, 0.5, 1.0, "holds"),
        (AT_MOST, 0.5, 1.1, "undecided"),
        (AT_MOST, 1.0, 1.2, "undecided"),
        (AT_MOST, 1.1, 1.2, "fails"),
        (BETWEEN, 1.0, 2.0, "holds"),
        (BETWEEN, 0.0, 3.0, "undecided"),
        (BETWEEN, 0.9, 1.5, "undecided"),
        (BETWEEN, 2.0, 2.2, "undecided"),
        (BETWEEN, 2.1, 2.2, "fails"),
        (BETWEEN, 0.1, 0.2, "fails"),
        (RELATIVE, -11.0, -9.0, "holds"),
        (RELATIVE, -11.5, -9.5, "undecided"),
        (RELATIVE, 9.0, 11.0, "fails"),
        (ABSOLUTE, 2.5, 3.5, "holds"),
        (ABSOLUTE, 3.6, 3.7, "fails"),
    ],
)
def test_the_interval_decides(table, low, high, verdict):
    assert Criterion.parse(table).judge(measure(low, high)) == verdict


@pytest.mark.parametrize(
    ("intervals", "ascending", "descending"),
    [
        ([(1, 2), (3, 4), (5, 6)], "holds", "fails"),
        ([(1, 2), (2, 4)], "holds", "undecided"),  # touching is in order; reversed it may be a tie
        ([(1, 3), (2, 4)], "undecided", "undecided"),
        ([(5, 6), (3, 4), (1, 2)], "fails", "holds"),
        ([(1, 2), (5, 6), (3, 4)], "fails", "fails"),
    ],
)
def test_order(intervals, ascending, descending):
    sequence = Measure.sequence([measure(low, high) for low, high in intervals])
    assert Criterion.parse({"ordered": "ascending"}).judge(sequence) == ascending
    assert Criterion.parse({"ordered": "descending"}).judge(sequence) == descending


@given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10))
def test_at_least_and_at_most_cannot_both_fail(value, half, threshold):
    judged = {kind: Criterion.parse({kind: threshold}).judge(Measure.exact(value, half)) for kind in ("at_least", "at_most")}
    assert list(judged.values()).count("fails") <= 1
    assert (judged["at_least"] == "undecided") <= (value - half < threshold)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        (AT_LEAST, "≥ 1"),
        (AT_MOST, "≤ 1"),
        (BETWEEN, "1 … 2"),
        (RELATIVE, "-10 ± 10 %"),
        (ABSOLUTE, "3 ± 0.5"),
        ({"ordered": "ascending"}, "ascending order"),
    ],
)
def test_criterion_in_words(table, text):
    assert Criterion.parse(table).text == text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "exactly one key"),
        ({"at_least": 1, "at_most": 2}, "exactly one key"),
        ({"atleast": 1.0}, r"got 'atleast' \(did you mean 'at_least'\?\)"),
        ({"at_least": "1"}, "at_least must be a number, got '1'"),
        ({"at_most": float("nan")}, "at_most must be a number, got nan"),
        ({"at_least": True}, "at_least must be a number, got True"),
        ({"between": [2, 1]}, "low <= high"),
        ({"between": [1]}, r"between must be \[low, high\]"),
        ({"between": 1.0}, r"between must be \[low, high\]"),
        ({"within": {"value": 1.0}}, "one of rel, abs"),
        ({"within": 1.0}, "within must have the keys"),
        ({"within": {"value": 1.0, "abs": -1.0}}, "tolerance of at least 0"),
        ({"within": {"value": "a", "abs": 1.0}}, "within.value must be a number, got 'a'"),
        ({"ordered": "up"}, "'ascending' or 'descending', got 'up'"),
    ],
)
def test_criterion_refused(table, message):
    with pytest.raises(ValueError, match=message):
        Criterion.parse(table)


def test_criterion_and_measure_must_fit():
    pair = Measure.sequence([Measure.exact(1), Measure.exact(2)])
    with pytest.raises(ValueError, match="judges one number, got a sequence of 2"):
        Criterion.parse(AT_LEAST).judge(pair)
    with pytest.raises(ValueError, match="at least 2 measures, got 1"):
        Criterion.parse({"ordered": "ascending"}).judge(Measure.exact(1))


SPEED = {"name": "speed", "criterion": AT_LEAST, "unit": "×", "paper": 1.4, "control": "Muon"}
ERROR = {"name": "error", "criterion": AT_MOST}
TABLE = {"id": "C3", "says": "It is faster, and as exact.", "scales": ["laptop"], "parts": [SPEED, ERROR]}


def test_claim_from_its_table():
    claim = Claim.parse({**TABLE, "timing": True})
    assert (claim.id, claim.scales, claim.timing) == ("C3", ("laptop",), True)
    assert claim.parts[0] == ClaimPart("speed", Criterion.parse(AT_LEAST), "×", 1.4, "Muon")


@pytest.mark.parametrize(
    ("speed", "error", "verdict", "part"),
    [
        ((2, 3), (0, 1), "holds", "speed"),
        ((0, 3), (0, 1), "undecided", "speed"),
        ((0, 3), (2, 3), "fails", "error"),
        ((2, 3), (0, 2), "undecided", "error"),
    ],
)
def test_the_worst_part_decides(speed, error, verdict, part):
    judged = Claim.parse(TABLE).judge({"C3.speed": measure(*speed), "C3.error": measure(*error)}, "laptop")
    assert (judged["verdict"], judged["part"]) == (verdict, part)


def test_verdict_in_its_json_form():
    judged = Claim.parse(TABLE).judge({"C3.speed": measure(2, 3), "C3.error": measure(0, 1)}, "laptop")
    assert {"value": 2.5, "low": 2.0, "high": 3.0, "unit": "×", "criterion": "≥ 1", "paper": 1.4, "reason": ""}.items() <= judged.items()
    assert judged["parts"]["error"]["criterion"] == "≤ 1"


def test_untested_with_its_reason():
    claim, speed = Claim.parse(TABLE), {"C3.speed": measure(2, 3)}
    assert claim.judge(speed, "smoke")["reason"] == "judged at scale laptop only"
    assert claim.judge(speed, "laptop")["parts"]["error"]["reason"] == "not measured"
    assert claim.judge(speed, "laptop", {"C3.error": "too small"})["reason"] == "too small"
    assert claim.judge(speed, "laptop", {"C3": "no GPU"})["reason"] == "no GPU"
    assert Claim.parse({"id": "C1", "says": "…", "untested": "no data"}).judge({}, "laptop")["reason"] == "no data"
    assert Claim.parse({"id": "C1", "says": "…"}).judge({}, "laptop")["reason"] == "no criterion is written down yet"
    for verdict in (claim.judge(speed, "smoke"), claim.judge(speed, "laptop")):
        assert verdict["verdict"] == "untested"


def test_a_failing_part_outweighs_an_unmeasured_one():
    assert Claim.parse(TABLE).judge({"C3.speed": measure(0, 0.5)}, "laptop")["verdict"] == "fails"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "3"}, "id must be C1, C2, …, got '3'"),
        ({"scales": ["laptop", "huge"]}, "C3: scales must be among smoke, laptop, full, got 'huge'"),
        ({"scales": []}, "C3: scales must not be empty"),
        ({"parts": [SPEED, SPEED]}, "C3: the names of its parts must differ"),
        ({"parts": [{**SPEED, "name": "Speed up"}]}, "lower-case identifier, got 'Speed up'"),
        ({"parts": [{**SPEED, "units": "s"}]}, r"a claim's part has no key 'units' \(did you mean 'unit'\?\)"),
        ({"parts": [{"name": "speed"}]}, "a claim's part must have the key 'criterion'"),
        ({"say": "…"}, r"a claim has no key 'say' \(did you mean 'says'\?\)"),
    ],
)
def test_claim_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Claim.parse({**TABLE, **change})


def test_an_undecided_part_outweighs_an_unmeasured_one_and_that_one_what_holds():
    claim = Claim.parse(TABLE)
    assert claim.judge({"C3.speed": measure(0, 3)}, "laptop")["verdict"] == "undecided"
    assert claim.judge({"C3.speed": measure(2, 3)}, "laptop")["verdict"] == "untested"


def test_unless_it_says_so_a_claim_is_not_judged_at_smoke_scale():
    claim = Claim.parse({"id": "C1", "says": "…", "parts": [SPEED]})
    assert claim.scales == ("laptop", "full") and not claim.timing
    assert claim.judge({"C1.speed": measure(2, 3)}, "smoke")["reason"] == "judged at scale laptop or full only"
    assert claim.judge({"C1.speed": measure(2, 3)}, "full")["verdict"] == "holds"


def test_a_verdict_says_how_it_was_measured_and_what_stands_beside_it():
    judged = Claim.parse(TABLE).judge({"C3.speed": measure(2, 3), "C3.error": measure(0, 1)}, "laptop")
    assert (judged["method"], judged["control"]) == ("by hand", "Muon")
    assert judged["parts"]["error"]["method"] == "by hand"
