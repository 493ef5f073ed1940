from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import gradatim.papers
from gradatim.implicit import TotalVariationDenoising, maid
from gradatim.lab import Measure, best_by_others, read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import inexact_bilevel as paper_module
from gradatim.papers.inexact_bilevel import denoising, judging
from gradatim.papers.inexact_bilevel.quadratics import run_quadratic


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return paper_module.run(paper_module.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "inexact_bilevel.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


@pytest.mark.parametrize("claim", ["C1", "C2", "C3"])
def test_what_is_proved_holds_at_every_scale(findings, paper, claim):
    chosen = next(entry for entry in paper.claims if entry.id == claim)
    assert chosen.judge(findings.measures, "laptop", findings.untested)["verdict"] == "holds"


def test_a_coarse_fixed_accuracy_stalls(findings):
    assert findings.measures["C4.stalled_over_adaptive"].value > 10


def test_a_run_that_never_stepped_is_told_apart(findings):
    coarse = findings.data["quadratic"].to_dataset().sel(way="fixed").isel(accuracy=0)
    assert (coarse["steps"] < 5).all() and np.isfinite(coarse["final_gap"]).all()


def test_every_quadratic_is_another_and_those_of_another_seed_are_others(findings):
    config = replace(paper_module.SCALES["smoke"].quadratic, work=10)
    with jax.enable_x64(True):
        again, others = (run_quadratic(config, Session(jax.random.key(seed)))["quadratic"] for seed in (0, 1))
    first = findings.data["quadratic"]["first_gap"].values
    assert np.array_equal(again["first_gap"], first)
    assert len(np.unique([first, others["first_gap"]])) == 2 * config.draws


def test_bounds_of_denoising_that_do_not_cover_are_found():
    clean = jnp.repeat(jnp.array([0.0, 1.0, 0.5]), 4)[None, None]
    with jax.enable_x64(True):
        problem = TotalVariationDenoising(clean.astype(float), clean + 0.1 * np.random.default_rng(0).standard_normal(clean.shape))
        steps = []
        maid(problem, jnp.array(denoising.START), problem.noisy, callback=steps.append, max_steps=3)
        sound = denoising.errors_over_bounds(problem, steps)
        assert sound.shape == (3,) and (sound > 0).all() and denoising.n_broken(sound) == 0
        # A gradient moved by twice its bound, and a bound of half the error.
        moved = steps[1]._replace(gradient=steps[1].gradient + jnp.array([2 * steps[1].error_bound, 0]))
        small = steps[2]._replace(error_bound=steps[2].error_bound * sound[2] / 2)
        found = denoising.errors_over_bounds(problem, [steps[0], moved, small])
    np.testing.assert_allclose(found, [sound[0], 2, 2], atol=2 * sound.max())
    assert denoising.n_broken(found) == 2 and denoising.n_broken(np.array([0.5, np.nan])) == 1
    assert denoising.errors_over_bounds(problem, []).shape == (0,)


def test_figures_are_drawn_from_the_findings(findings):
    assert set(paper_module.draw(findings)) == {"quadratic", "well", "penalties", "landscape", "denoised"}


def test_data_have_units(findings):
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", paper_module.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(paper_module.SCALES[scale])
    assert 0 < paper_module.memory(paper_module.SCALES[scale]) < 4e9


def test_measures_of_known_runs(findings, known_results):
    trees, put = known_results(findings)
    draws, repeats = np.array([1.0, 2, 4]), np.arange(6.0)
    put("quadratic", violations=1, worst_error_over_bound=0.5, broken_promises=1, ascents=0)
    put("quadratic", gap_at_equal_work=[[[1, 2, 3], [100, 1, 1]], [[2, 2, 2], [9, 1, 1]], [[1, 1, 4], [9, 1, 1]]])
    put("well", violations=2, worst_error_over_bound=np.linspace(0, 0.9, 18).reshape(3, 6), broken_promises=0, ascents=1)
    put("well", final_slope=np.multiply.outer(draws, [1, 2, 3, 1, 0, 0]) + np.array([0, 0, 0, 0, 30, 99]))
    put("well", gradients_to_target=[[1, 2, 3, 2, 77, 4], [2, 2, 2, 2, 77, 4], [1, 1, 5, 1, 77, 8]])
    put("penalties", loss=9)
    for arm, losses in {"adaptive": [1, 1], "adaptive, certified": np.stack([3 * draws, 2 * draws], 1), "quadratic": [4, 5]}.items():
        trees["penalties"]["loss"].loc[{"arm": arm}] = losses
    put("denoising", broken_bounds=[0, 2, 0, 1, 0, 0][: trees["denoising"].sizes["repeat"]])
    put("denoising", broken_promises=1, noisy_psnr=15, searched_loss=10**-0.7, experts_psnr=22)
    put("denoising", unseen_psnr=np.stack([20 + repeats, 19 + 0 * repeats, 18 + repeats], axis=1))
    put("denoising", loss=np.stack([10 ** (-repeats / 10), 6.5 - repeats, 5 + 0 * repeats], axis=1))
    found = judging.judge(trees, Session(jax.random.key(0))).measures
    for name, value in {
        "C1.violations": 54,
        "C1.largest_error_over_bound": 0.9,
        "C1.broken_bounds_denoising": 3,
        "C2.violations": 24,
        "C3.ascent_directions": 18,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    for name, samples in {
        "C3.final_gradient_norm": 3 * draws,
        "C4.gap_spread": (1, 0, 1.5),
        "C4.work_spread": (1, 0, 2),
        "C4.stalled_over_adaptive": 10 / draws,
        "C4.fixed_work_over_adaptive": (2, 2, 4),
        "C5.loss_over_best_schedule": draws / 2,
        "C6.denoising_gain": 5 + repeats,
        "C6.loss_to_optimum": 7 - repeats,
        "C6.experts_gain": 2 - repeats,
        "C6.gain_over_fixed_accuracy": (2, 2, 3, 4, 5, 6),
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("apart", [0.0, 100.0])
def test_fixed_accuracies_that_are_tied_widen_the_interval(apart):
    coords = {"arm": ["adaptive", "coarse", "fine", "finest"], "repeat": np.arange(8)}
    levels = np.random.default_rng(0).normal(size=(4, 8))
    levels += np.array([0, 0, apart, 0])[:, None] - levels.mean(1, keepdims=True)
    unseen = xr.DataArray(levels, coords, ("arm", "repeat"))
    found = judging.gain_over_known(unseen.T, unseen.T.isel(arm=slice(1, None)))
    fixed = best_by_others(unseen.isel(arm=slice(1, None)), "arm", over="repeat", maximise=True)
    read = Measure.paired(unseen.sel(arm="adaptive").values, fixed.values)
    assert np.isclose(found.value, read.value) and found.method == "jackknife over 8 repeats"
    if apart:
        np.testing.assert_allclose(found.intervals(), read.intervals())
    else:
        assert found.high - found.low > 1.2 * (read.high - read.low)
