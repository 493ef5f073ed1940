from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import lagrangian_pinn as paper
from gradatim.papers.lagrangian_pinn import judging, training

TOML = Path(paper.__file__).parents[1] / "lagrangian_pinn.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) == parts and not smoke[0].untested


def test_modes_are_as_known_beforehand(smoke):
    findings, session = smoke
    assert findings.measures["C2.modes_by_speed"].value == (5, 9, 34, 35, 36)
    assert findings.measures["C2.moving_frame_modes"].value == 1
    widths = findings.data["widths"]
    assert widths["modes_Burgers"].values.tolist() == [[2, 2, 6, 6, 6], [3, 5, 19, 19, 22], [5, 9, 34, 35, 36]]
    assert widths["modes_sine"].values[:, 1:].max() == 2
    # That a sine of two modes defeats the network is said where the claim is read.
    assert any("the number of modes does not explain" in note for note in session.notes)


def test_a_loss_is_told_beside_its_error_and_a_residual_beside_the_denser_one(smoke):
    findings, session = smoke
    for name in ("fixed", "moving"):
        data = findings.data[name]
        assert {"loss", "error", "residual", "dense_residual"} <= set(data.data_vars)
        assert np.allclose(data["watched_loss"].values[-1], data["loss"].values, rtol=1e-4)
        assert np.allclose(data["watched_error"].values[-1], data["error"].values, rtol=1e-3)
        assert (data["watched_loss"].values[-1] < data["watched_loss"].values[0]).all()
    assert sum("between the points" in note for note in session.notes) == 2


def test_crossings_are_counted_and_the_exact_paths_are_those_of_the_equation(smoke):
    data = smoke[0].data["moving"]
    is_convection = (data["equation"] == "convection").values
    exact = data["true_path"].values[is_convection]
    assert np.allclose(exact, data["speed"].values[is_convection][:, None, None] * data["t"].values[None, :, None])
    assert (
        (data["crossed"] >= 0).all()
        and (data["crossed_steps"] <= SMOKE.steps).all()
        and float(data["least_jacobian"].min()) == smoke[0].measures["C7.least_jacobian"].value
    )


def test_methods_are_paired_seed_by_seed_and_share_what_they_are_given(smoke):
    fixed, moving = smoke[0].data["fixed"], smoke[0].data["moving"]
    n = len(SMOKE.speeds)
    assert np.array_equal(fixed["truth"][:n], moving["truth"][:n]) and fixed.sizes["seed"] == moving.sizes["seed"] == SMOKE.seeds
    assert len(np.unique(fixed["rate"])) == 2 and len(np.unique(moving["rate"])) == 1


def test_what_is_judged_is_the_best_of_the_rates(smoke):
    fixed = smoke[0].data["fixed"].to_dataset()
    judged = smoke[0].measures["C1.error_at_30"].value
    all_rates = [np.median(judging.errors(fixed, "convection", 30.0, rate)) for rate in (SMOKE.rate, *SMOKE.other_rates)]
    assert judged == min(all_rates)
    easy = [np.median(judging.errors(fixed, "convection", 10.0, rate)) for rate in (SMOKE.rate, *SMOKE.other_rates)]
    assert smoke[0].measures["C1.error_at_10"].value == min(easy)


def test_burgers_is_judged_with_its_mean_given_and_told_with_it_learnt(smoke):
    findings, session = smoke
    for name in ("fixed", "moving"):
        data = findings.data[name].to_dataset()
        assert data["is_raised"].values.tolist() == [True] * (data.sizes["case"] - 1) + [False]
        alone, given = data.isel(case=-1), judging.errors(data, "Burgers", 10.0, SMOKE.rate)
        assert alone["equation"] == "Burgers" and alone["speed"] == 10
        # A network without the mean begins as far off as it is; what is judged begins near.
        assert (alone["watched_error"][0] > 2 * given.max()).all()
    assert findings.measures["C5.burgers_error"].value < 200
    assert sum(note.count("mean learnt, too") for note in session.notes) == 2


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"errors", "fields", "characteristics", "training", "widths", "landscapes"}


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"]) < 40e9


def test_only_the_usual_network_is_tried_at_other_rates():
    config = paper.SCALES["laptop"]
    assert {case.rate for case in training.cases(config, "fixed")} == {config.rate, *config.other_rates}
    assert {case.rate for case in training.cases(config, "moving") + training.cases(config, "label")} == {config.rate}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speeds": (1.0, 30.0)}, "speeds must include 1, 10 and 30"),
        ({"fixed_burgers": (10.0, 0.0)}, "fixed_burgers must ascend, at least two means"),
        ({"steps": 50}, "steps must be a multiple of 20 and of the 4 windows, got 50"),
        ({"steps": 20, "windows": 16}, "steps must be a multiple of 20 and of the 16 windows, got 20"),
    ],
)
def test_sizes_that_cannot_be_judged_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        paper.run(replace(SMOKE, **changes), Session(jax.random.key(0)))


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_measures_of_known_errors(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds = np.array([1.0, 2, 60])

    def by_case(data):
        """One more than the speed, a thousand for Burgers, and far more with the mean learnt; another rate is better at speed 30 alone."""
        error = 1 + data["speed"] + 1000 * (data["equation"] == "Burgers") + 1e6 * ~data["is_raised"]
        other = xr.where(data["speed"] == training.HARD_SPEED, 0.5, 2.0)
        return (error * xr.where(np.isclose(data["rate"], SMOKE.rate), 1.0, other)).values[:, None]

    for name in ("fixed", "moving"):
        # In the other order, so that networks that have to learn the mean come first.
        trees[name] = trees[name].isel(case=slice(None, None, -1))
        put(name, error=by_case(trees[name]) * seeds)
    raised = np.where(trees["moving"]["is_raised"], np.arange(1, 7), 100)[:, None]
    put("moving", path_error=raised * seeds, least_jacobian=1 / (raised * seeds) * np.where(raised == 100, 1e-6, 1))
    put("remedies", error=np.stack([31 * np.arange(1, 4), np.ones(3)]))
    growth = np.full((2, 2, 3, 2), 1000.0)
    growth[..., 0] = [[np.ones(3), np.full(3, 8)], [np.full(3, 2), 2 * seeds]]
    put("landscapes", eigenvalue=growth)
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0))).measures
    most = max(i for i in range(1, 7) if trees["moving"]["is_raised"].values[i - 1])
    for name, value in {
        "C1.error_at_30": 2 * 31 / 2,
        "C1.error_at_10": 2 * 11,
        "C3.error_by_speed": [2 * (1001 + speed) for speed in SMOKE.fixed_burgers],
        "C5.worst_error": 2 * 31,
        "C5.spread": 31 / 2,
        "C5.burgers_error": 2 * 1011,
        "C7.path_error": 2 * most,
        "C7.least_jacobian": 1 / (60 * most),
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    for name, samples in {
        "C4.window_error_ratio": np.arange(1, 4) / seeds,
        "C6.curvature_growth_ratio": seeds / 8,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, rtol=1e-5, err_msg=name)
