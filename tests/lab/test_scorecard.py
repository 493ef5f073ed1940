import json
import math

import numpy as np
import pytest
import xarray as xr

from gradatim.lab import (
    Measure,
    RunOutcome,
    check_scorecard,
    find,
    open_record,
    read_scorecard,
    regressions,
    update_scorecard,
)
from gradatim.lab.records import SCHEMA_VERSION
from gradatim.lab.run_folder import RunFolder, complete, write_json
from gradatim.lab.scorecard import other_seeds

MEASURES = {"C1.exponent": Measure(0.5, 0.48, 0.52, "error bound"), "C3.bound": Measure(2.0, 1.0, math.inf, "no bound above")}
REQUEST = {"slug": "random-walk", "scale": "laptop", "seed": 0, "changed": {}}


@pytest.fixture
def root(tmp_path, third_party):
    """A source checkout with an empty scorecard."""
    (tmp_path / "scorecard.json").write_text("{}\n")
    return tmp_path


def finished(runs, measures=MEASURES, size=10, **changes):
    """A finished run as the experiment would leave it."""
    folder = RunFolder.create(runs, REQUEST)
    table = {
        **REQUEST,
        "schema_version": SCHEMA_VERSION,
        "status": "ok",
        "measures": measures,
        "verdicts": {claim.id: claim.judge(measures, "laptop") for claim in find("random-walk").claims},
        "finished": "2026-01-02T00:00:00.000+00:00",
        **dict.fromkeys(("precision", "error", "started"), ""),
        **{name: {} for name in ("config", "machine", "seconds", "untested")},
        **dict.fromkeys(("commit", "peak_memory")),
        **{name: [] for name in ("notes", "provenance")},
        "versions": {"jax": "1"},
        **changes,
    }
    write_json(folder.path / "record.json", table)
    xr.DataTree.from_dict({"/": xr.Dataset({"spread": ("step", np.ones(size))})}).to_netcdf(folder.path / "data.nc", engine="h5netcdf")
    (folder.path / "figures").mkdir()
    (folder.path / "figures" / "spread.png").write_bytes(b"a picture")
    folder.release()
    return complete(folder.path)


def test_an_update_writes_verdicts_and_their_evidence(root):
    folder = update_scorecard(finished(root / "runs"), root)
    assert folder == root / "results" / "random-walk"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["data.nc", "figures/spread.png", "record.json"]
    entry = read_scorecard(root)["random-walk"]
    assert (entry["scale"], entry["date"], entry["seed"], entry["versions"]) == ("laptop", "2026-01-02", 0, {"jax": "1"})
    assert [entry["claims"][name]["verdict"] for name in ("C1", "C2", "C3")] == ["holds", "untested", "holds"]
    assert {"verdict", "value", "low", "high", "unit", "criterion", "paper", "reason"} <= set(entry["claims"]["C1"])
    assert entry["claims"]["C3"]["high"] == "inf"
    assert open_record(folder).measures == MEASURES
    assert check_scorecard(root) == []


def test_a_second_update_replaces_the_first(root):
    update_scorecard(finished(root / "runs"), root)
    update_scorecard(finished(root / "runs", seed=1), root)
    folder = update_scorecard(finished(root / "runs", versions={"jax": "2"}), root)
    entry = read_scorecard(root)["random-walk"]
    assert (entry["seed"], entry["versions"], entry["seeds"]) == (0, {"jax": "2"}, {})
    assert [path.name for path in (root / "results").iterdir()] == ["random-walk"] and other_seeds(folder) == []
    assert check_scorecard(root) == []


def test_a_damaged_result_is_replaced(root):
    update_scorecard(finished(root / "runs"), root)
    record(root).write_text("{")
    update_scorecard(finished(root / "runs", seed=2), root)
    assert read_scorecard(root)["random-walk"]["seed"] == 2 and check_scorecard(root) == []


OUTSIDE = {**MEASURES, "C1.exponent": Measure(0.8, 0.7, 0.9, "error bound")}


def test_another_seed_stands_beside_the_result(root):
    first = update_scorecard(finished(root / "runs"), root)
    alone = read_scorecard(root)["random-walk"]
    folder = update_scorecard(finished(root / "runs", seed=7), root)
    assert folder == first / "seed-7" and [path.name for path in folder.iterdir()] == ["record.json"]
    both = read_scorecard(root)["random-walk"]
    assert both["claims"] == alone["claims"] and both["seed"] == 0 and list(both["seeds"]) == ["7"]
    assert both["seeds"]["7"] == alone["claims"]
    assert [run.seed for run in other_seeds(first)] == [7] and open_record(first).figures
    assert check_scorecard(root) == []


def test_a_claim_on_which_seeds_disagree_is_undecided(root):
    update_scorecard(finished(root / "runs"), root)
    for seed, measures in ((11, MEASURES), (2, OUTSIDE)):
        update_scorecard(finished(root / "runs", seed=seed, measures=measures), root)
    entry = read_scorecard(root)["random-walk"]
    assert list(entry["seeds"]) == ["2", "11"]
    claim = entry["claims"]["C1"]
    assert claim["verdict"] == "undecided" and claim["value"] == 0.5
    assert claim["reason"] == "holds with seed 0, fails with seed 2, holds with seed 11"
    assert entry["seeds"]["2"]["C1"]["verdict"] == "fails" and entry["seeds"]["2"]["C1"]["value"] == 0.8
    assert [entry["claims"][name]["verdict"] for name in ("C2", "C3")] == ["untested", "holds"]
    assert entry["claims"]["C2"]["reason"] == open_record(root / "results" / "random-walk").verdicts["C2"]["reason"]
    assert check_scorecard(root) == []


@pytest.mark.parametrize("changes", [{"config": {"steps": 3}}, {"verdicts": {}}])
def test_a_seed_of_another_run_is_refused(root, changes):
    update_scorecard(finished(root / "runs"), root)
    with pytest.raises(ValueError, match=r"another configuration or other claims than the result in .*: run seed 0 again first"):
        update_scorecard(finished(root / "runs", seed=1, **changes), root)
    assert read_scorecard(root)["random-walk"]["seeds"] == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "failed"}, "only a run that ended well"),
        ({"scale": "smoke"}, "the scorecard holds runs at scale laptop, got smoke"),
        ({"changed": {"steps": 3}}, "unchanged configurations, got steps changed"),
        ({"size": 300_000}, r"has 2\.4 MB, at most 2 fit"),
    ],
)
def test_what_is_no_evidence_is_refused(root, changes, message):
    with pytest.raises(ValueError, match=message):
        update_scorecard(finished(root / "runs", **changes), root)
    assert read_scorecard(root) == {} and not (root / "results").exists()


def edit(path, change):
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda root: edit(root / "scorecard.json", lambda t: t["random-walk"].update(seed=3)), "the scorecard differs from the result"),
        (lambda root: (root / "scorecard.json").write_text("{}"), "results that are not on the scorecard"),
        (lambda root: edit(root / "scorecard.json", lambda t: t.update(other={})), "other: on the scorecard without results"),
        (lambda root: edit(record(root), lambda t: t["verdicts"].pop("C2")), "the result judges C1, C3, the paper's file has C1, C2, C3"),
        (
            lambda root: edit(record(root), lambda t: t["verdicts"]["C1"].update(criterion="≥ 9")),
            "C1 is judged otherwise by the paper's file",
        ),
        (lambda root: edit(record(root), lambda t: t["verdicts"]["C1"].update(verdict="fails")), "C1 is judged otherwise"),
        (lambda root: edit(record(root), lambda t: t["verdicts"]["C1"].update(low=0.0)), "C1 is judged otherwise"),
        (lambda root: edit(record(root), lambda t: t["verdicts"]["C3"]["parts"]["bound"].update(value=9.0)), "C3 is judged otherwise"),
        (lambda root: edit(record(root), lambda t: t.update(changed={"steps": 3})), "an unchanged, finished run"),
        (lambda root: edit(record(root), lambda t: t.update(scale="smoke")), "an unchanged, finished run at scale laptop"),
        (lambda root: (record(root).parent / "figures" / "spread.png").unlink(), "no figures or no data"),
        (lambda root: (record(root).parent / "data.nc").unlink(), "no figures or no data"),
        (lambda root: record(root).write_text("{"), "is damaged"),
        (lambda root: edit(seed_1(root), lambda t: t["verdicts"]["C1"].update(verdict="fails")), "seed 1: C1 is judged otherwise"),
        (lambda root: edit(seed_1(root), lambda t: t["verdicts"].pop("C2")), "seed 1: the result judges C1, C3"),
        (lambda root: edit(seed_1(root), lambda t: t.update(config={"steps": 3})), "seed 1: it is no other seed of the same run"),
        (lambda root: edit(seed_1(root), lambda t: t.update(slug="random-clock")), "seed 1: it is no other seed of the same run"),
        (lambda root: edit(seed_1(root), lambda t: t.update(seed=0)), "seed 0: it is no other seed of the same run"),
        (lambda root: edit(seed_1(root), lambda t: t.update(status="failed")), "seed 1: the result must be an unchanged, finished run"),
        (lambda root: seed_1(root).unlink(), "it has no record.json"),
        (lambda root: edit(root / "scorecard.json", lambda t: t["random-walk"].update(seeds={})), "the scorecard differs from the result"),
    ],
)
def test_every_disagreement_is_seen(root, damage, sentence):
    update_scorecard(finished(root / "runs"), root)
    update_scorecard(finished(root / "runs", seed=1), root)
    damage(root)
    assert any(sentence in found for found in check_scorecard(root)), check_scorecard(root)


def record(root):
    return root / "results" / "random-walk" / "record.json"


def seed_1(root):
    return record(root).parent / "seed-1" / "record.json"


def test_a_claim_that_held_and_fails_is_a_regression(root):
    update_scorecard(finished(root / "runs"), root)
    fails = {"C1": {"verdict": "fails"}, "C2": {"verdict": "fails"}, "C3": {"verdict": "undecided"}}
    outcomes = [RunOutcome("random-walk", "laptop", "ok", verdicts=fails), RunOutcome("other", "laptop", "ok", verdicts=fails)]
    assert regressions(outcomes, root) == [("random-walk", "C1")]


def test_a_damaged_scorecard_is_a_clear_error(root):
    (root / "scorecard.json").write_text("{")
    with pytest.raises(ValueError, match=r"scorecard.json is damaged .*restore it"):
        read_scorecard(root)


def test_the_projects_own_scorecard_agrees_with_its_results_and_claims():
    assert check_scorecard() == []
