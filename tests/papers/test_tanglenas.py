import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import tanglenas as paper
from gradatim.papers.tanglenas import judging, networks, searches, table

TOML = Path(paper.__file__).parents[1] / "tanglenas.toml"
SMOKE = paper.SCALES["smoke"]
CLAIMS = read_paper(TOML).claims
OF_A_TABLE = {"C3.median_regret", "C3.regret_difference", "C4.area_ratio"}


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in CLAIMS for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert set(smoke[0].untested) == OF_A_TABLE


def test_what_holds_exactly_holds(smoke):
    claim = next(claim for claim in CLAIMS if claim.id == "C1")
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"
    assert smoke[0].measures["C2.parameter_ratio"].value == 1


def test_arms_share_their_first_weights_and_logits(smoke):
    data = smoke[0].data["searches"]
    first = data["incumbent"].isel(row=0).drop_sel(arm=searches.UNIFORM).values
    assert (first == first[:1]).all() and (data["incumbent"].sel(arm=searches.UNIFORM) == searches.NOBODY).all()
    assert (data["entropy"].isel(row=0) > 0.999).all()


def test_searches_learn_and_decide(smoke):
    data = smoke[0].data["searches"]
    assert (data["train_loss"].isel(row=-1).mean("seed") < data["train_loss"].isel(row=1).mean("seed") + 0.1).all()
    # Logits of the uniform arm have no gradient.
    gone = data["entropy"].isel(row=-1)
    assert (gone.sel(arm=searches.OURS) < gone.sel(arm=searches.UNIFORM).max()).all()


def test_the_second_stage_keeps_its_best_by_validation(smoke):
    data = smoke[0].data["searches"]
    scores = data["validation"].sel(supernet=searches.UNIFORM).values
    for row in data["second_incumbent"].values:
        chosen = np.take_along_axis(scores, row, axis=1)
        assert (np.diff(chosen, axis=1) >= 0).all() and chosen[:, -1].min() >= np.median(scores)


def with_table():
    """Findings of a space of four, where the Dirichlet arm finds the best after one row and uniform search after its training."""
    accuracies = np.array([[80.0, 80.0], [82.0, 84.0], [70.0, 72.0], [60.0, 62.0]])
    incumbents = np.full((3, len(searches.ARMS), 3), searches.NOBODY)
    for i, name in enumerate(searches.ARMS):
        if name != searches.UNIFORM:
            incumbents[:, i] = np.array([3, 1, 1])[:, None]
    supernets = list(searches.INHERITED)
    data = xr.Dataset(
        {
            "incumbent": (("row", "arm", "seed"), incumbents),
            "second_incumbent": (("stage", "seed", "evaluation"), np.tile([2, 0], (2, 3, 1))),
            "inherited": (("supernet", "seed", "architecture"), np.arange(24.0).reshape(2, 3, 4)),
        },
        {"arm": list(searches.ARMS), "row": [0, 10, 20], "stage": ["random", "evolutionary"], "supernet": supernets},
    )
    seconds = {"gradient step": 0.2, "uniform step": 0.1, "evaluation": 0.5}
    options = np.array([[0], [1], [2], [3]])
    known = {"accuracy": (("architecture", "table_seed"), accuracies), "option": (("architecture", "choice"), options)}
    timed = xr.Dataset({name: ("repeat", [value] * 3) for name, value in seconds.items()})
    return {"searches": data, "table": xr.Dataset(known), "seconds": timed}


def test_trap_seconds_of_the_second_stage_count_and_nobody_answers_before_it():
    curves = judging.regret_curves(with_table())
    times, values = curves["uniform, random"]
    assert times.tolist() == [0, 2.5, 3.0] and values[0].tolist() == [(3 + 0 + 12 + 22) / 4, 12, 3]
    under = judging.areas(curves)
    # Until the slowest ends, at 4 s: 22 for two seconds, then nothing.
    np.testing.assert_allclose(under[searches.OURS], [44.0] * 3)
    np.testing.assert_allclose(under["uniform, random"], [2.5 * 9.25 + 0.5 * 12 + 1 * 3] * 3)


def test_regret_is_judged_against_the_table(smoke):
    measures, session = {}, Session(jax.random.key(0))
    judging._judge_searches(with_table(), measures, session)
    assert measures["C3.median_regret"].value == 0 and measures["C3.regret_difference"].value == -3
    assert set(measures) == OF_A_TABLE
    # Trap: the largest network and plain random search stand beside it.
    assert any("largest network, is 0.00" in note and "rank 1" in note and "trained alone" in note for note in session.notes)


def test_the_table_belongs_to_the_laptop_run():
    config = paper.SCALES["laptop"].search
    found = table.read_table(config)
    assert found is not None and found.accuracies.shape == (64, config.table_seeds)
    assert found.regrets.min() == 0 and 50 < found.means.min() < found.means.max() < 95
    content = json.loads(table.PATH.read_text(encoding="utf-8"))
    assert {"versions", "seed", "command", "data", "config"} <= set(content)
    # Other sizes have another table.
    assert table.read_table(replace(config, steps=7)) is None


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"entropy", "costs", "inherited", "language"}
    assert all(ax.get_xlabel() for name in figures for ax in figures[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) <= paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"]) < 256e9


def test_batches_go_through_all_images_before_any_comes_again():
    rows = networks.batches(np.random.default_rng(0), 10, 4, 5)
    assert rows.shape == (5, 4) and len(set(rows[:2].ravel())) == 8


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items() if name != "C2.memory_ratio")


def test_measures_of_known_networks(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds = np.array([1.0, 2, 4])
    put("mixtures", difference=[0.1, 0.4, 0.2, 0.3])
    put("costs", parameters=[3, 11], largest=10, memory=[[1, 4]])
    put("searches", inherited=np.stack([50 + seeds, 49 + 0 * seeds])[..., None])
    losses = np.stack([seeds, 0 * seeds, 100 + 0 * seeds, 6 + 0 * seeds, 5 + 0 * seeds], axis=1)
    names = ["found", "largest", "random 1", "random 2", "random 3"]
    trees["language"] = xr.Dataset(dict.fromkeys(("loss", "parameters"), (("seed", "network"), losses)), {"network": names})
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0))).measures
    assert found["C1.mixture_difference"].value == 0.4 and found["C2.memory_ratio"].value == 0.25
    # Of both supernets the one that is farther from the largest network.
    np.testing.assert_allclose(found["C2.parameter_ratio"].value, 0.3)
    np.testing.assert_allclose(found["C5.accuracy_difference"].samples, 1 + seeds)
    np.testing.assert_allclose(found["C6.language_model_gain"].samples, 6 - seeds)
