from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import gradatim.papers
from gradatim.lab import read_paper, validate
from gradatim.lab.session import Session
from gradatim.papers import implicit_differentiation as paper_module
from gradatim.papers.implicit_differentiation import dictionary, hypergradients, spheres


@pytest.fixture(scope="module")
def findings():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return paper_module.run(paper_module.SCALES["smoke"], session)


@pytest.fixture(scope="module")
def paper():
    return read_paper(Path(gradatim.papers.__file__).parent / "implicit_differentiation.toml")


def test_every_part_is_measured_or_says_why_not(findings, paper):
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    assert set(findings.measures) | set(findings.untested) == parts
    assert not set(findings.measures) & set(findings.untested)


@pytest.mark.parametrize("claim", ["C2", "C3"])
def test_what_can_be_judged_at_this_scale_holds(findings, paper, claim):
    chosen = next(entry for entry in paper.claims if entry.id == claim)
    assert chosen.judge(findings.measures, "smoke", findings.untested)["verdict"] == "holds"


@pytest.mark.parametrize(
    ("step", "iterate", "implicit", "bound", "unrolled"),
    [
        (1, 215.9, 74.03, 214.1, 188.9),
        (10, 3.239, 1.306, 3.212, 19.76),
        (20, 0.1242, 0.0623, 0.1231, 1.914),
        (50, 1.27e-4, 7.94e-5, 1.26e-4, 2.35e-3),
    ],
)
def test_errors_of_jacobians_along_gradient_descent(findings, step, iterate, implicit, bound, unrolled):
    row = findings.data["ridge"].to_dataset().sel(step=step)
    found = [float(row[name]) for name in ("iterate", "implicit", "bound", "unrolled")]
    np.testing.assert_allclose(found, [iterate, implicit, bound, unrolled], rtol=0.02)


def test_conditions_of_every_kind_are_compared(findings):
    kinds = set(findings.data["mappings"].mapping.values.tolist())
    needed = {"stationary", "proximal gradient", "projected gradient", "entropic mirror step", "Newton step", "block proximal gradient"}
    assert needed | {"Karush–Kuhn–Tucker", "conic program"} <= kinds


def test_unrolling_needs_memory_for_each_step_and_the_implicit_derivative_does_not(findings):
    memory = findings.data["machine"].memory
    few, many = memory.isel(steps=0), memory.isel(steps=-1)
    assert (many.sel(way="unrolled") > 1.5 * few.sel(way="unrolled")).all()
    np.testing.assert_allclose(many.sel(way="implicit"), few.sel(way="implicit"), rtol=0.01)


def test_figures_are_drawn_from_the_findings(findings):
    figures = paper_module.draw(findings)
    assert set(figures) == {"jacobians", "conditions", "costs", "distillation", "dictionary", "spheres"}


def test_data_have_units(findings):
    for name, node in findings.data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.parametrize("scale", paper_module.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(paper_module.SCALES[scale])
    assert 0 < paper_module.memory(paper_module.SCALES[scale]) < 4e9


def test_the_energy_of_two_discs():
    with jax.enable_x64(True):
        energy = spheres.soft_energy(2, 10.0)
        x = jnp.array([[0.2, 5.0], [9.8, 5.0]])
        # Across the boundary, 0.4 apart, mean diameter 0.8: ½ (1 - ½)², and no force beyond contact.
        value, slope = jax.jit(jax.value_and_grad(energy))(x, 0.6)
        np.testing.assert_allclose(value, 0.125, rtol=1e-12)
        np.testing.assert_allclose(slope, [[-0.625, 0], [0.625, 0]], atol=1e-12)


def test_an_error_that_converges_late_is_large_along_the_descent_and_small_at_its_end():
    # Rows are packings: the first two converge late, the last one never does.
    implicit = np.full((3, 4), 1e-6)
    unrolled = np.array([[1e6, 1e2, 1e-4, 1e-6], [1e4, 1.0, 1e-5, 1e-7], [1e2, 1e4, 1e6, 1e8]])
    # Exponents of the ratios: means of (12, 8, 2, 0), (10, 6, 1, -1) and (8, 10, 12, 14).
    mean = spheres.along_the_descent(unrolled, implicit)
    np.testing.assert_allclose(mean.samples, 10.0 ** np.array([5.5, 4.0, 11.0]))
    assert mean.value == pytest.approx(10**5.5)
    end = spheres.at_the_end(unrolled)
    assert end.samples == (1e-6, 1e-7, 1e8) and end.value == 1e-6


def test_what_the_spheres_say_is_made_of_their_errors(findings):
    data = findings.data["spheres"].to_dataset()
    mean = np.exp(np.log(data["unrolled_error"] / data["implicit_error"]).mean("look"))
    np.testing.assert_allclose(findings.measures["C7.unrolled_over_implicit_error"].samples, mean)
    np.testing.assert_allclose(findings.measures["C7.unrolled_error_at_the_end"].samples, data["unrolled_error"].isel(look=-1))


def test_the_growth_of_the_speedup_is_that_of_the_solver_where_it_is_least():
    seconds = np.ones((3, 2, 2, 4))
    # Twice as fast as unrolled at the smallest size; four times and once at the largest.
    seconds[0, :, 1], seconds[2, 0, 1] = 2, 4
    coordinates = {"features": [10, 20, 30], "solver": ["a", "b"], "way": ["implicit", "unrolled"]}
    growth = hypergradients.speedup_growth(xr.DataArray(seconds, coordinates, ("features", "solver", "way", "build")))
    assert growth.value == pytest.approx(0.5)
    slow = hypergradients.speedup_growth(xr.DataArray(seconds, coordinates, ("features", "solver", "way", "build")).sel(solver=["a"]))
    assert slow.value == pytest.approx(2.0)


def test_trap_overlapping_splits_of_the_same_tumours_are_no_repetitions():
    gains = np.random.default_rng(0).normal(size=20)
    measure = dictionary.over_splits(gains)
    plain = 2.093 * gains.std(ddof=1) / 20**0.5
    # A third as many in the test part as in the others: (1/20 + 1/3) in the place of 1/20.
    np.testing.assert_allclose((measure.high - measure.low) / 2, plain * (23 / 3) ** 0.5, rtol=1e-3)
    np.testing.assert_allclose(measure.value, gains.mean())


def test_trap_what_is_drawn_depends_on_the_run_and_on_the_split():
    config = paper_module.SCALES["smoke"]
    first, again, other = (hypergradients._data(config.machine, 30, jax.random.key(seed)).X for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.isin(first, other).any()
    (rows, _), *_ = dictionary._split(config.dictionary, Session(jax.random.key(0), scale="smoke"))
    # The noise comes last; real features of the same tumour come back in other splits.
    noise = rows[:, :, -config.dictionary.noise_features :]
    assert len(np.unique(noise)) == noise.size


def test_measures_are_those_of_the_arms_they_name(findings):
    measures, data = findings.measures, {name: node.to_dataset() for name, node in findings.data.children.items()}
    area = data["dictionary"]["area"]
    rival = max(("l1 logistic", "l2 logistic"), key=lambda name: float(area.sel(arm=name).mean()))
    ours = area.sel(arm="task-driven").values
    np.testing.assert_allclose(measures["C6.gain_over_logistic"].samples, ours - area.sel(arm=rival).values)
    np.testing.assert_allclose(measures["C6.gain_over_unsupervised"].samples, ours - area.sel(arm="unsupervised").values)
    distilled, times = data["distillation"], data["distillation_times"]
    accuracy = {}
    for way in ("implicit", "unrolled"):
        best = int(distilled["loss"].sel(way=way).isel(step=-1).mean("seed").values.argmin())
        accuracy[way] = distilled["accuracy"].sel(way=way).isel(rate=best).values
    np.testing.assert_allclose(measures["C5.accuracy"].samples, accuracy["implicit"])
    np.testing.assert_allclose(measures["C5.accuracy_difference"].samples, accuracy["implicit"] - accuracy["unrolled"])
    seconds = times["built_seconds"]
    np.testing.assert_allclose(measures["C5.speedup"].samples, seconds.sel(way="unrolled") / seconds.sel(way="implicit"))
    largest = data["machine"]["seconds"].sortby("features").isel(features=-1)
    speedups = (largest.sel(way="unrolled") / largest.sel(way="implicit")).transpose("solver", "build").values
    np.testing.assert_allclose(measures["C4.slowest_speedup"].value, np.exp(np.log(speedups).mean(axis=1)).min())
    most = data["machine"]["memory"].isel(steps=-1)
    np.testing.assert_allclose(measures["C4.memory_ratio"].value, (most.sel(way="unrolled") / most.sel(way="implicit")).min())
