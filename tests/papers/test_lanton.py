import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Measure, Session, best_by_others, validate
from gradatim.lab.paper import read_paper
from gradatim.lab.sweeps import Sweep
from gradatim.papers import lanton as paper
from gradatim.papers.lanton import language, testbed
from gradatim.papers.lanton.config import ARMS, PER_STEP, TIMED
from gradatim.papers.lanton.language import Corpus, noise_measures, optimizers, ratio_of_equals, token_measures
from gradatim.papers.lanton.testbed import FIXED, VARIANTS, ours, windows

TOML = Path(paper.__file__).parents[1] / "lanton.toml"


@pytest.fixture(scope="module")
def findings():
    return paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))


def test_every_part_is_measured_or_says_why_not(findings):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert parts == set(findings.measures) | set(findings.untested)
    assert not set(findings.measures) & set(findings.untested)


def test_both_variants_of_the_testbed_are_kept(findings):
    data = findings.data["testbed"]
    assert tuple(data.variant.values) == VARIANTS and set(data.arm.values) == {FIXED, ours(1.0)}
    assert np.isfinite(data["loss"]).all() and (data["loss"].isel(step=-1) < data["loss"].isel(step=0)).all()


def test_rates_only_ever_shrink(findings):
    factors = findings.data["along"]["factor"]
    assert (factors > 0).all() and (factors <= 1).all()
    np.testing.assert_array_equal(factors.max("layer"), 1.0)


def test_the_sum_of_noises_is_below_its_bound(findings):
    assert 0 < findings.measures["C4.noise_sum_over_equal"].value < 1
    assert (findings.data["report"]["sigma"] > 0).all()


def test_data_are_finite_and_named(findings):
    for name, node in findings.data.children.items():
        for variable in node.to_dataset().data_vars.values():
            assert np.isfinite(variable.values.astype(float)).all(), name


@pytest.mark.laptop
def test_same_seed_same_findings_timings_apart(findings):
    again = paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))
    for name, measure in findings.measures.items():
        assert name.startswith("C3.") or again.measures[name] == measure, name


def test_figures(findings):
    figures = paper.draw(findings)
    assert {"rates", "descent", "lengths", "noise", "layers", "tokens", "time"} == set(figures)
    for figure in figures.values():
        assert all(ax.get_xlabel() for ax in figure.axes)


def test_every_optimiser_of_the_comparison_makes_a_step():
    """The smoke run trains with two of them."""
    assert set(ARMS) == set(paper.SCALES["laptop"].language.arms) and set(TIMED) == set(paper.SCALES["laptop"].language.timed)
    corpus = Corpus.load(paper.SCALES["smoke"].language, Session(jax.random.key(0), scale="smoke"))
    params = eqx.filter_eval_shape(lambda: eqx.filter(corpus.model(jax.random.key(0)), eqx.is_inexact_array))
    for arm, make in optimizers(corpus, dict.fromkeys(("hidden", "embed", "vector"), 1.0)).items():

        def step(params, make=make):
            return make(1.0).update(params, make(1.0).init(params), params)[0]

        assert jax.eval_shape(step, params) == params, arm


def test_windows_of_good_rates_are_interpolated():
    """A parabola log y = (log₂ rate)² is within 10 % of its best over twice √log 1.1 octaves, on a fine grid; a flat one over all of it."""
    octaves = np.linspace(-1.0, 1.0, 201)
    rows = np.stack([np.exp(octaves**2), np.ones(201), np.where(octaves < 0.5, 1.0, np.nan)])
    found = windows(xr.DataArray(rows, dims=("seed", "rate"), coords={"rate": 2**octaves}))
    np.testing.assert_allclose(found, [2 * np.log(1.1) ** 0.5, 2.0, 1.5], atol=0.02)


def test_tokens_are_counted_to_the_best_baseline_s_loss():
    curves = {"adamw": [4.0, 3.0, 2.0], "muon": [4.0, 2.0, 1.5], "scion": [4.0, 3.0, 1.8], "lanton": [4.0, 1.4, 1.0]}
    data = xr.Dataset(
        {"loss": (("arm", "seed", "step"), np.array([[row] * 3 for row in curves.values()]))}, {"arm": list(curves), "step": [0, 10, 20]}
    )
    session = Session(jax.random.key(0), scale="smoke")
    measures, untested = token_measures(data, session)
    assert measures["C2.token_ratio"].value == measures["C2.token_ratio_to_one_rate"].value == 2.0 and not untested
    data["loss"].loc[{"arm": "lanton"}] = np.array([4.0, 1.7, 1.7])
    measures, _ = token_measures(data, session)
    assert (measures["C2.token_ratio"].value, measures["C2.token_ratio_to_one_rate"].value) == (0.0, 2.0)
    assert "does not reach the last loss of the best baseline within its tokens in 3 runs" in session.notes[-1]
    data["loss"].loc[{"arm": "scion", "seed": 1}] = np.nan
    measures, untested = token_measures(data, session)
    assert set(measures) == {"C2.token_ratio"} and untested == {"C2.token_ratio_to_one_rate": "a run diverged"}
    assert token_measures(data.sel(arm=["adamw", "lanton"]), session)[1] == {
        "C2.token_ratio_to_one_rate": "Scion, one rate is not among the optimisers of this run"
    }


def test_one_miss_moves_no_median_and_the_baseline_is_the_best_of_the_other_seeds():
    last = {"adamw": [3.0, 3, 3, 3, 3, 0.1], "muon": [1.0, 1, 1, 1, 1, 3.5], "lanton": [0.5, 0.5, 0.5, 0.5, 2, 0.5]}
    loss = np.array([[[4.0, (4 + end) / 2, end] for end in ends] for ends in last.values()])
    data = xr.Dataset({"loss": (("arm", "seed", "step"), loss)}, {"arm": list(last), "step": [0, 10, 20]})
    session = Session(jax.random.key(0), scale="smoke")
    ratio = token_measures(data, session)[0]["C2.token_ratio"]
    # Muon for all but the last in the mean of the others, although AdamW does better on that seed; the fifth run misses.
    assert ratio.samples == (1.0, 1.0, 1.0, 1.0, 0.0, 2.0)
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 0.0, 2.0)


def test_rates_are_chosen_by_the_mean_over_pilots_that_are_not_judged(monkeypatch):
    """The first pilot alone would take the larger rate."""
    config = dataclasses.replace(paper.SCALES["smoke"].language, factors=(1.0, 2.0), tuning_steps=20, n_pilots=3, n_seeds=3)
    corpus = Corpus.load(config, Session(jax.random.key(0), scale="smoke"))
    asked = []

    def sweep(self, session, arms, *, purpose, n_seeds, rates, **rest):
        asked.append((purpose, n_seeds, self.config.steps))
        losses = np.array([[1.0, 2.0, 2.0], [0.5, 4.0, 4.0]])[None, : len(rates), :n_seeds, None] * np.ones((len(arms), 1, 1, 2))
        coordinates = {"arm": list(arms), "rate": list(rates), "step": [0, config.steps]}
        diverged = np.full(losses.shape[:3], -1)
        return Sweep(
            xr.Dataset({"loss": (("arm", "rate", "seed", "step"), losses), "diverged_at": (("arm", "rate", "seed"), diverged)}, coordinates)
        )

    monkeypatch.setattr(Corpus, "sweep", sweep)
    monkeypatch.setattr(language, "thresholds", lambda corpus, session: {})
    monkeypatch.setattr(language, "optimizers", lambda corpus, alpha: {arm: lambda factor: factor for arm in corpus.arms})
    _, factors, _ = language.compare(corpus, Session(jax.random.key(0), scale="smoke"))
    assert set(factors.values()) == {1.0}
    assert asked == [(language.TUNING, 3, 20), (language.JUDGING, 3, config.steps)]


def test_noise_of_equal_layers_is_not_less_than_that_of_equal_layers():
    """Layers that differ by no more than their standard errors are at 1; one that is three times as noisy is far below."""
    rng = np.random.default_rng(1)
    layers = [f"{block}.attention.{name}" for block in range(4) for name in ("query", "key", "value", "output")]
    layers += [f"{block}.feed_forward.{name}" for block in range(4) for name in ("gate", "up", "down")]
    value = 1 + 0.05 * rng.normal(size=(2, 20, 28))
    data = xr.Dataset(
        {"sigma": (("when", "seed", "layer", "part"), np.stack([value, 0.05 * np.ones_like(value)], -1))},
        {"when": ["before training", "after training"], "layer": layers, "part": ["value", "standard error"]},
    )
    session = Session(jax.random.key(0), scale="smoke")
    measures = noise_measures(data, session)
    assert measures["C4.noise_sum_over_equal"].low < 1 < measures["C4.noise_sum_over_equal"].high
    assert measures["C1.noise_ratio"].value < 2
    data["sigma"].loc[{"when": "after training", "layer": "2.attention.key", "part": "value"}] = 3.0
    measures = noise_measures(data, session)
    assert measures["C4.noise_sum_over_equal"].high < 0.5
    assert any(note.startswith("noise of the key matrices: 1") for note in session.notes)
    groups = session.notes[-2]
    assert "queries and keys [3" in groups and "values and outputs [1" in groups


def test_the_ratio_of_two_equals_is_that_of_the_normal_law():
    """Of two the mean lies E|x - y|/2 = e/√π below the largest."""
    np.testing.assert_allclose(ratio_of_equals(np.full((1, 2), 0.01)), 1 - 0.01 / np.pi**0.5, atol=5e-4)


@pytest.mark.parametrize("scale", paper.SCALES)
def test_scales_are_valid_and_estimated(scale):
    config = paper.SCALES[scale]
    validate(config)
    assert 0 < paper.memory(config) < 600 * 2**30


def test_measures_of_known_layers():
    arms, seeds, lengths, sure = [ours(1.0), FIXED], np.array([1.0, 2, 4]), np.array([10.0, 40]), np.ones(3)
    # Ours is as good at all three rates where noise alone differs; the other rates of the fixed one are 1.1² times worse.
    alike, single = np.stack([sure, sure, sure]), np.stack([1.21 * sure, sure, 1.21 * sure])
    travel = [[10 * seeds, seeds, 10 * seeds], [50 * sure, 50 * sure, 2 * sure]]
    last = np.stack([np.stack([alike, single]), np.stack(travel)])
    rates = {"arm": arms, "rate": [0.04, 0.08, 0.16]}
    loss = xr.DataArray(np.stack([99 + last, last], -1), {**rates, "variant": list(VARIANTS)}, ("variant", "arm", "rate", "seed", "step"))
    powers = np.stack([-0.5 * np.array([1, 1.2, 0.8]), -0.25 * sure])
    norms = np.exp(np.multiply.outer(np.log(lengths), powers))
    dual = np.stack([99 * norms, 99 * norms, norms], axis=2)
    means = xr.DataArray(dual, {**rates, "length": lengths}, ("length", "arm", "rate", "seed"))
    trees = {"testbed": xr.Dataset({"loss": loss}), "lengths": xr.Dataset({"mean_dual_norm": means})}
    found, _ = testbed.measures(trees, Session(jax.random.key(0)))
    np.testing.assert_allclose(found["C5.window_gain"].samples, sure)
    # All seeds choose alike: the intervals are those of the values.
    for name, measure in {
        "C2.unequal_travel_loss_ratio": Measure.paired(seeds, 2 * sure, "log-ratio"),
        "C4.rate_slope": Measure.over_seeds(powers[0]),
        "C4.slope_over_fixed": Measure.paired(powers[0], powers[1]),
    }.items():
        np.testing.assert_allclose(found[name].intervals(), measure.intervals(), err_msg=name)
    seconds = xr.DataArray([[2.0, 4, 8], [6, 6, 6], [1, 2, 3]], {"way": ["muon", *PER_STEP]}, ("way", "repeat"))
    times = language.time_measures(xr.Dataset({"seconds": seconds}))
    np.testing.assert_allclose(times["C3.step_time_every_1"].samples, (3, 1.5, 0.75))
    np.testing.assert_allclose(times["C3.step_time_every_10"].samples, (1 / 2, 1 / 2, 3 / 8))


def test_rates_that_are_nearly_tied_widen_the_intervals():
    random, lengths = np.random.default_rng(0), np.array([10.0, 40])
    rates = {"arm": [ours(1.0), FIXED], "rate": [0.04, 0.08, 0.16]}
    axes = ("variant", "arm", "rate", "seed", "step")
    loss = xr.DataArray(np.exp(0.3 * random.normal(size=(2, 2, 3, 5, 2))), {**rates, "variant": list(VARIANTS)}, axes)
    norms = np.exp(0.3 * random.normal(size=(2, 2, 3, 5)))
    means = xr.DataArray(norms, {**rates, "length": lengths}, ("length", "arm", "rate", "seed"))
    trees = {"testbed": xr.Dataset({"loss": loss}), "lengths": xr.Dataset({"mean_dual_norm": means})}
    found, _ = testbed.measures(trees, Session(jax.random.key(0)))
    last = best_by_others(loss.sel(variant=VARIANTS[1]).isel(step=-1), "rate")
    tuned = np.log(best_by_others(means, "rate"))
    slopes = (tuned.sel(length=40) - tuned.sel(length=10)) / np.log(4)
    for name, narrow in {
        "C2.unequal_travel_loss_ratio": Measure.paired(*(last.sel(arm=arm).values for arm in rates["arm"]), "log-ratio"),
        "C4.rate_slope": Measure.over_seeds(slopes.sel(arm=ours(1.0)).values),
        "C4.slope_over_fixed": Measure.paired(*(slopes.sel(arm=arm).values for arm in rates["arm"])),
    }.items():
        ((value, low, high),), ((mean, lower, upper),) = found[name].intervals(), narrow.intervals()
        np.testing.assert_allclose(value, mean, err_msg=name)
        assert low < lower and upper < high, name


def test_noise_is_that_of_trained_layers():
    layers = sorted({f"0.{member}" for members in language.NORM_GROUPS.values() for member in members})
    sigma = np.zeros((2, 3, len(layers), 2))
    sigma[0, ..., 0], sigma[1, ..., 0] = np.arange(1, len(layers) + 1), 1
    sigma[1, :, 0, 0] = [4, 3, 1]
    coordinates = {"when": ["before training", "after training"], "layer": layers, "part": ["value", "standard error"]}
    data = xr.Dataset({"sigma": (("when", "seed", "layer", "part"), sigma)}, coordinates)
    found = noise_measures(data, Session(jax.random.key(0)))
    np.testing.assert_allclose(found["C1.noise_ratio"].samples, (4, 3, 1))
    n = len(layers)
    np.testing.assert_allclose(found["C4.noise_sum_over_equal"].samples, ((n + 3) / n / 4, (n + 2) / n / 3, 1))
