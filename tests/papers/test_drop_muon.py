import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, validate
from gradatim.lab.paper import read_paper
from gradatim.papers import drop_muon as paper
from gradatim.papers.drop_muon.training import race_measures, seconds_to_target

TOML = Path(paper.__file__).parents[1] / "drop_muon.toml"


@pytest.fixture(scope="module")
def session():
    return Session(jax.random.key(0), scale="smoke")


@pytest.fixture(scope="module")
def findings(session):
    return paper.run(paper.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def verdicts(findings):
    return {claim.id: claim.judge(findings.measures, "laptop", findings.untested) for claim in read_paper(TOML).claims}


def test_every_part_is_measured_or_says_why_not(findings):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert parts == set(findings.measures) | set(findings.untested)
    assert not set(findings.measures) & set(findings.untested)


def test_costs_are_those_of_the_theory(verdicts, findings):
    assert verdicts["C1"]["verdict"] == "holds"
    cost = findings.data["cost"].to_dataset()
    assert np.allclose(cost["measured"].mean("group"), cost["predicted"], rtol=0.1)


def test_descent_is_within_its_bound(verdicts, findings):
    assert verdicts["C2"]["parts"]["descent_violation"]["verdict"] == "holds"
    excess = findings.data["descent"]["excess"]
    assert abs(excess.sel(problem="quadratic, Frobenius")).max() < 1e-12


def test_the_rate_stands_beside_that_of_full_updates(findings):
    slopes = findings.data["rate"].to_dataset()["slope"]
    difference = float((slopes.sel(arm="uniform") - slopes.sel(arm="full")).mean())
    assert np.isclose(findings.measures["C2.slope_over_full"].value, difference)


def test_every_layer_is_optax_muon(verdicts, findings):
    assert verdicts["C5"]["verdict"] == "holds" and findings.measures["C5.trajectory_difference"].value < 1e-12


def test_compiled_operations_fall_with_the_start(findings):
    assert (np.diff(findings.data["steps"]["operations"]) < 0).all()


def test_both_arms_learn(findings):
    race = findings.data["race"].to_dataset()
    assert (race["train"].isel(step=-1) > race["train"].isel(step=0) + 20).all() and (race["diverged_at"] == -1).all()


def test_seconds_are_those_of_the_steps_that_were_drawn():
    images = paper.Images(arms=("muon", "uniform"), target=15.0, higher_target=90.0)
    curves = np.array([[[[10.0, 95.0]], [[10.0, 95.0]]], [[[10.0, 95.0]], [[10.0, 20.0]]]]).transpose(0, 2, 1, 3)
    judged = xr.Dataset(
        {"train": (("arm", "rate", "seed", "step"), curves), "variant": (("arm", "seed", "update"), [[[0, 0], [0, 0]], [[0, 2], [1, 1]]])},
        {"arm": ["muon", "uniform"], "seed": [0, 1], "step": [0, 2]},
    )
    seconds = xr.DataArray(np.array([[3.0, 3], [2, 2], [1, 1]]), dims=("active", "repeat"), coords={"active": ["123", "23", "3"]})
    reached = seconds_to_target(images, judged, seconds)
    assert np.array_equal(reached, [[[6, 6], [4, 4]], [[6, 6], [4, np.inf]]])
    measures, untested = race_measures(images, reached.isel(seed=[0, 1, 0]), seconds.isel(repeat=[0, 1, 0]))
    assert np.isclose(measures["C3.time_to_accuracy_ratio"].value, 1.5)
    assert untested["C3.time_to_higher_accuracy_ratio"] == "1 of 3 runs of uniform end below 90 % training accuracy"
    assert untested["C4.shift_time_ratio"] == "shift is not among the arms of this run"
    assert np.isclose(measures["C3.step_time_ratio"].value, 2 / 3)


def test_rates_are_chosen_by_the_mean_over_pilots(session, monkeypatch):
    """The first pilot alone would take the larger rate."""
    images = paper.Images(arms=("uniform",), rates=(0.05, 0.1))

    def race(self, session, rates, *, n_seeds, **rest):
        train = np.array([[90.0, 90.0, 90.0], [95.0, 80.0, 80.0]])[None, :, :n_seeds, None]
        return xr.Dataset({"train": (("arm", "rate", "seed", "step"), train)}, {"arm": ["uniform"], "rate": [0.05, 0.1]}).assign(
            diverged_at=-1
        )

    monkeypatch.setattr(paper.Race, "race", race)
    assert paper.choose_rates(paper.Race(images, {}, 8, None, None), session)[0] == {"uniform": 0.05}


def test_rates_are_chosen_on_seeds_of_their_own(session):
    images = paper.SCALES["smoke"].images
    # As many steps as the race has, so that the compiled steps are the same.
    config = dataclasses.replace(images, arms=("uniform",), rates=(1e-5, 0.05), n_pilots=2, tuning_steps=images.steps)
    race = paper.Race.load(config, session)
    best, tuning = paper.choose_rates(race, session)
    assert best == {"uniform": 0.05} and dict(tuning.sizes) == {"arm": 1, "rate": 2, "seed": 2, "step": 2, "update": 15}
    assert any("at an end of the grid" in note for note in session.notes) and images.rates == (0.05,)


@pytest.mark.laptop
def test_same_seed_same_findings(findings):
    again = paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))
    untimed, same = ({k: m for k, m in found.measures.items() if not k.startswith("C3.")} for found in (again, findings))
    assert untimed == same
    assert again.data["race"].to_dataset()["train"].identical(findings.data["race"].to_dataset()["train"])


def test_figures(findings):
    figures = paper.draw(findings)
    assert {"accuracy", "steps", "cost", "rate", "descent"} <= set(figures)
    for figure in figures.values():
        assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)


@pytest.mark.parametrize("scale", paper.SCALES)
def test_scales_are_valid_and_estimated(scale):
    validate(paper.SCALES[scale])
    assert paper.memory(paper.SCALES[scale]) > 0


def test_times_of_known_runs_are_compared_the_right_way_round():
    images = paper.Images(arms=("muon", "uniform", "shift", "deep"))
    first, higher = [[8.0, 8, 8], [4, 2, 1], [2, 2, 2], [6, 4, 2]], [[16.0, 16, 16], [2, 4, 8], [1, 1, 1], [1, 1, 1]]
    reached = xr.DataArray([first, higher], {"target": [95.0, 97.0], "arm": list(images.arms)}, ("target", "arm", "seed"))
    seconds = xr.DataArray([[3.0, 4, 5], [2, 2, 2], [1, 3, 2]], {"active": ["123", "23", "3"]}, ("active", "repeat"))
    measures, untested = race_measures(images, reached, seconds)
    for name, samples in {
        "C3.time_to_accuracy_ratio": (2, 4, 8),
        "C3.time_to_higher_accuracy_ratio": (8, 4, 2),
        "C3.step_time_ratio": (2 / 3, 3 / 4, 3 / 5),
        "C4.shift_time_ratio": (4, 4, 4),
        "C4.deep_heavy_over_shift": (3, 2, 1),
    }.items():
        np.testing.assert_allclose(measures[name].samples, samples, err_msg=name)
    assert not untested


def test_measures_are_those_of_the_arms_they_name(findings):
    cost, rate = (findings.data[name].to_dataset() for name in ("cost", "rate"))
    measured, samples = cost["measured"], {name: np.array(measure.samples) for name, measure in findings.measures.items()}
    np.testing.assert_allclose(samples["C1.optimal_over_full_cost"], measured.sel(scheme="layered, optimal"))
    uniform = measured.sel(scheme="layered, uniform") / cost["predicted"].sel(scheme="layered, uniform")
    np.testing.assert_allclose(samples["C1.measured_over_predicted"], uniform, rtol=1e-6)
    others = [name for name in cost.scheme.values if name.startswith("first largest") and not name.endswith("optimal")]
    np.testing.assert_allclose(samples["C1.cost_when_first_is_largest"], measured.sel(scheme=others).min("scheme"))
    x = np.log(rate.horizon.values)
    x = x - x.mean()
    slopes = np.einsum("h,ahs->as", x, np.log(rate["dual_norm"].values)) / (x @ x)
    np.testing.assert_allclose(samples["C2.stochastic_rate_slope"], slopes[0])
    np.testing.assert_allclose(samples["C2.slope_over_full"], slopes[0] - slopes[1], atol=1e-12)
