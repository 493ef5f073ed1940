import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Measure, Session, validate
from gradatim.lab.paper import read_paper
from gradatim.papers import diffgrad as paper
from gradatim.papers.diffgrad import descent, figures, regret, training

TOML = Path(paper.__file__).parents[1] / "diffgrad.toml"


@pytest.fixture(scope="module")
def findings():
    return paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))


@pytest.fixture(scope="module")
def verdicts(findings):
    return {claim.id: claim.judge(findings.measures, "laptop", findings.untested) for claim in read_paper(TOML).claims}


def test_every_part_is_measured_or_says_why_not(findings):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert parts == set(findings.measures) | set(findings.untested)
    assert not set(findings.measures) & set(findings.untested)


def test_the_factor_does_what_it_says(verdicts):
    assert verdicts["C1"]["verdict"] == "holds"


def test_the_descents_reproduce(verdicts):
    parts = verdicts["C2"]["parts"]
    assert all(part["verdict"] == "holds" for name, part in parts.items() if not name.startswith("advantage"))
    # Starts spread over the whole domain show no such advantage as the one start does.
    assert abs(parts["advantage_over_adam_at_half_rate"]["value"]) < 0.03


def test_the_counter_example_refutes_the_bound(verdicts):
    assert verdicts["C3"]["verdict"] == "fails" and verdicts["C3"]["part"] == "periodic_losses"
    assert verdicts["C3"]["parts"]["random_losses"]["value"] < 0.6


def test_data_are_finite_and_named(findings):
    for name, node in findings.data.children.items():
        for variable in node.to_dataset().data_vars.values():
            assert np.isfinite(variable.values.astype(float)).all(), name


@pytest.mark.laptop
def test_same_seed_same_findings(findings):
    again = paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))
    assert again.measures == findings.measures and again.data.identical(findings.data)


def test_figures(findings):
    figures = paper.draw(findings)
    assert {"descent", "basins", "regret", "accuracy", "activations", "friction"} <= set(figures)
    for figure in figures.values():
        assert all(ax.get_xlabel() for ax in figure.axes)


def test_a_grid_of_rates_is_chosen_from_on_images_kept_back():
    images = dataclasses.replace(
        paper.SCALES["smoke"].images, optimizers=("diffgrad",), factors=(1e-4, 10.0), tuning_epochs=6, batch_size=16, n_validation=128
    )
    session = Session(jax.random.key(1), scale="smoke")
    loaded = training.TrainingData.load(images, session)
    factors, tuning = training.tune(loaded, session)
    assert factors == {"diffgrad": 10.0} and session.notes[-1] == "best rate at an end of the grid: diffGrad"
    assert tuning["accuracy"].dims == ("arm", "rate", "seed", "step")
    assert len(loaded.tuning["train"][1]) == images.n_train - images.n_validation
    assert {p.source for p in session.provenances} == {session.provenances[0].source}
    assert [ax.get_xlabel() for ax in figures._draw_rates(tuning).axes] == ["rate over the optimiser's customary rate"]


@pytest.mark.parametrize("scale", paper.SCALES)
def test_scales_are_valid_and_estimated(scale):
    config = paper.SCALES[scale]
    validate(config)
    assert 0 < paper.memory(config) < 8 * 2**30


def test_measures_of_known_descents():
    arms, steps = ["adam", "diffgrad", "adam_half"], np.array([0.0, 1.0, 0.5])
    # Where an arm turns around and where it ends, in thirds for each function.
    x = np.multiply.outer(np.multiply.outer([0.9, 0.6, 0.3], [1.0, 2.0, 3.0]), steps)
    there = np.zeros((3, 3, 1, 11))
    there[0], there[1, ..., :6], there[2, ..., 2:5] = 1, 1, 1
    data = xr.Dataset(
        {"x": (("arm", "function", "step"), x), "at_global_minimum": (("arm", "function", "rate", "start"), there)},
        {"arm": arms, "function": list(descent.OBJECTIVES)},
    )
    found = descent.descent_measures(data)
    for k, name in enumerate(descent.OBJECTIVES, 1):
        np.testing.assert_allclose(found[f"C2.end_{name}"].value, 0.3 * k)
        np.testing.assert_allclose(found[f"C2.overshoot_{name}"].value, 0.3 * k)
    # Of ten gaps between starts one and two hold an end, each known to half a gap.
    low, high = 3 / 11 - 3 / 20, 3 / 11 + 3 / 20
    np.testing.assert_allclose(found["C2.advantage_over_adam_at_half_rate"].intervals()[0], (3 / 11, low, high))


def test_exponents_of_known_regrets():
    rounds, noise = np.geomspace(100, 1600, 5), np.array([1.0, -1, 0, -1, 1])
    groups = np.multiply.outer(rounds, [1.0, 2, 3])
    periodic = rounds**0.75 * np.exp(0.1 * noise)
    data = xr.Dataset(
        {
            "random_losses": (("arm", "round", "group"), [groups, groups**0.5]),
            "periodic_losses": (("arm", "round"), [rounds**2, periodic]),
        },
        {"arm": ["adam", "diffgrad"], "round": rounds},
    )
    found = regret.regret_measures(data)
    np.testing.assert_allclose(found["C3.random_losses"].samples, 0.5)
    # The noise is at right angles to the line: its square over three degrees of freedom is the variance.
    error = 2 * 0.1 * (4 / 3 / (10 * np.log(2) ** 2)) ** 0.5
    np.testing.assert_allclose(found["C3.periodic_losses"].intervals()[0], (0.75, 0.75 - error, 0.75 + error))


def test_measures_of_known_accuracies(findings, monkeypatch):
    trees = {name: node.to_dataset() for name, node in findings.data.children.items()}
    arms = ["diffgrad", "adam_half", "adam", "sgdm"]
    last = np.array([[70.0, 60, 80], [69, 62, 77], [68, 50, 60], [10, 20, np.nan]])
    accuracy = xr.Dataset({"accuracy": (("arm", "rate", "seed", "step"), np.stack([90 - last, last], -1)[:, None])}, {"arm": arms})
    reached = np.array([[[70.0, 60, 80], [69, 62, 77]], [[71, 64, 79], [60, 62, 70]], [[69, 63, 79], [65, 61, 72]]])
    activations = xr.Dataset({"accuracy": (("activation", "arm", "seed"), reached)}, {"arm": arms[:2]})
    made = {"factor": {}, "descend": trees["descent"], "play": trees["regret"], "tune": ({"diffgrad": 1.0}, None)}
    made |= {"compare_optimizers": SimpleNamespace(data=accuracy), "layer_friction": trees["friction"]}
    for name, value in made.items():
        monkeypatch.setattr(paper, name, lambda *_, value=value: value)
    monkeypatch.setattr(paper, "TrainingData", SimpleNamespace(load=lambda *_: None))
    monkeypatch.setattr(paper, "compare_activations", lambda *_: activations)
    smoke = paper.SCALES["smoke"]
    config = dataclasses.replace(smoke, images=dataclasses.replace(smoke.images, optimizers=tuple(arms)))
    found = paper.run(config, Session(jax.random.key(0)))
    for name, samples in {
        "C4.over_adam_at_half_rate": (1, -2, 3),
        "C4.over_adam": (2, 10, 20),
    }.items():
        np.testing.assert_allclose(found.measures[name].samples, samples, err_msg=name)
    # Of two seeds each is read at the other's best and worst activation.
    assert found.measures["C5.spread"].value == pytest.approx(-1)
    assert found.measures["C5.spread_beyond_adam"].value == pytest.approx(-19 / 3)
    without_one = {"C5.spread": [-2.5, -0.5, 1.0], "C5.spread_beyond_adam": [-2.5 - 2.5, -0.5 - 8, 1 - 2]}
    for part, left in without_one.items():
        value = found.measures[part].intervals()[0][0]
        expected = Measure.jackknife(value, {"seeds": left})
        np.testing.assert_allclose(found.measures[part].intervals()[0], expected.intervals()[0], err_msg=part)
    assert found.untested["C4.over_sgdm"] == "a run diverged" and "C4.over_sgdm" not in found.measures
    # A network that diverges with one activation alone leaves no spread.
    activations["accuracy"][2, 1, 0] = np.nan
    found = paper.run(config, Session(jax.random.key(0)))
    assert "C5.spread" in found.measures and found.untested["C5.spread_beyond_adam"] == "a run diverged"
