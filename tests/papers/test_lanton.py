from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, validate
from gradatim.lab.paper import read_paper
from gradatim.papers import lanton as paper
from gradatim.papers.lanton.config import ARMS, TIMED
from gradatim.papers.lanton.language import Corpus, optimizers, token_ratio
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
    assert 0 < findings.measures["C4.noise_sum_ratio"].value <= 1
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
    assert token_ratio(data, session).value == 2.0
    data["loss"].loc[{"arm": "lanton"}] = 3.0
    assert token_ratio(data, session).value == 0.0
    assert "does not reach Muon's last loss within its tokens in 3 runs" in session.notes[-1]


@pytest.mark.parametrize("scale", paper.SCALES)
def test_scales_are_valid_and_estimated(scale):
    config = paper.SCALES[scale]
    validate(config)
    assert 0 < paper.memory(config) < 600 * 2**30
