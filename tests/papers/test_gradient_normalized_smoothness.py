from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest

import gradatim.papers
from gradatim.lab import Session, read_paper, validate
from gradatim.optim import value_at
from gradatim.papers import gradient_normalized_smoothness as paper
from gradatim.papers.gradient_normalized_smoothness import convergence, problems, rates, steadiness

CLAIMS = {claim.id: claim for claim in read_paper(Path(gradatim.papers.__file__).parent / "gradient_normalized_smoothness.toml").claims}


@pytest.fixture(scope="module")
def session():
    with jax.enable_x64(True):
        return Session(jax.random.key(0), precision="double", scale="smoke")


@pytest.fixture(scope="module")
def findings(session):
    with jax.enable_x64(True):
        return paper.run(paper.SCALES["smoke"], session)


def test_every_part_is_measured_or_says_why_not(findings):
    parts = {f"{claim.id}.{part.name}" for claim in CLAIMS.values() for part in claim.parts}
    assert parts == set(findings.measures) | set(findings.untested)
    assert not set(findings.measures) & set(findings.untested)


@pytest.mark.parametrize("claim", ["C4", "C5"])
def test_what_smoke_judges_holds(findings, claim):
    verdict = CLAIMS[claim].judge(findings.measures, "smoke", findings.untested)
    assert verdict["verdict"] == "holds", verdict


def test_measures_are_what_was_seen(findings):
    value = {name: measure.value for name, measure in findings.measures.items()}
    assert value["C6.gauss_newton_over_exact"] == 21 / 14 and value["C6.gradient_over_gauss_newton"] == 41 / 21
    assert value["C7.iterations_over_exact"] == 18 / 27
    assert value["C2.radius_over_bound"] >= 1
    # Fisher's matrix stalls where the minimiser lies at infinity.
    assert value["C8.separable_gradient_norm"] > 1e-6


def test_worst_cases_fall_no_slower_than_theory_and_mostly_as_fast(findings):
    """All together: a single slope of so few steps hangs on the phase, for a wave that is hit at another one is another wave."""
    waves = findings.data["waves"].to_dataset()
    decided = waves.theory.values < -0.01
    faster = waves.theory.values[decided] - waves.slope.mean("phase").values[decided]
    assert faster.mean() > -0.1 and np.median(abs(faster)) < 0.2


def test_a_slope_is_fitted_to_a_power_law():
    assert abs(rates.slope(3.0 * np.arange(1, 200) ** -1.5, 10) + 1.5) < 1e-9


def test_starts_that_never_arrive_leave_their_part_untested(session):
    with jax.enable_x64(True):
        _, untested, _ = steadiness.compare(replace(paper.SCALES["smoke"], nonconvex_steps=10), session)
    assert untested == {"C9.solves_over_exact": "fewer than three starts arrive with both Hessians within 10 steps"}


def test_further_digits_count_what_did_not_arrive_in_full():
    run = {"value": np.array([1.0, 1e-4, 1e-8]), "infimum": 0.0}
    assert convergence._further_digits(run) == 1.0
    assert convergence._further_digits({"value": np.array([1.0, 1e-4, 1e-5]), "infimum": 0.0}) == 2.0


def test_data_have_units_and_names(findings):
    for node in findings.data["problems"].children.values():
        assert node.attrs["name"] and all("units" in variable.attrs for variable in node.to_dataset().data_vars.values())
    gap = findings.data["problems/0"].to_dataset().gap
    assert float(gap.isel(step=0, hessian=0)) > 1 and 0 < float(gap.min()) < 1e-8


def test_baselines_start_where_the_scheme_does_and_arrive(findings):
    log_sum_exp, chains = (findings.data[f"baselines/{name}"].to_dataset() for name in ("log_sum_exp", "chains"))
    expected = [rates.SCHEME, f"{rates.SCHEME}, no Hessian", *rates.BASELINES]
    assert list(log_sum_exp.arm.values) == expected
    assert np.allclose(log_sum_exp.gap.isel(step=0), log_sum_exp.gap.isel(step=0, arm=0), rtol=1e-12)
    assert (log_sum_exp.gradients.isel(step=0) == 1).all()
    assert (log_sum_exp.gap.min("step") < 1e-8).all()
    arrival = {str(name): int(log_sum_exp.gap.sel(arm=name).notnull().sum()) - 1 for name in expected}
    assert arrival[rates.SCHEME] == 14 and arrival[f"{rates.SCHEME}, no Hessian"] == 41
    assert arrival["super-universal Newton"] < arrival["fast gradient with a doubled constant"]
    assert list(chains.arm.values) == [rates.SCHEME, *rates.BASELINES]
    assert np.allclose(chains.gap.isel(step=0), chains.gap.isel(step=0, arm=[0]), rtol=1e-12)


def test_same_seed_same_findings(findings):
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        ratio, data = rates.radius(session)
    assert ratio == findings.measures["C2.radius_over_bound"]
    assert data.identical(findings.data["radii"].to_dataset())


def test_figures(findings):
    figures = paper.draw(findings)
    assert set(figures) == {"gap_over_iterations", "gap_over_solves", "radius", "phase_diagram", "worst_cases", "starts", "baselines"}
    for figure in figures.values():
        assert all(ax.get_xlabel() or ax.get_ylabel() for ax in figure.axes)


def test_provenance_names_the_data(session, findings):
    assert [provenance.source for provenance in session.provenances] == [
        "Breast Cancer Wisconsin (Diagnostic), from the package scikit-learn"
    ]


@pytest.mark.parametrize("scale", paper.SCALES)
def test_configurations_are_in_range_and_fit(scale):
    validate(paper.SCALES[scale])
    assert 0 < paper.memory(paper.SCALES[scale]) < 8e9


def test_problems_start_where_the_authors_do(session):
    with jax.enable_x64(True):
        found = problems.five_problems(paper.SCALES["laptop"], session)
        values = {name: float(eqx.filter_jit(value_at)(problem.start, problem.objective)) for name, problem in found.items()}
    assert abs(values["LogSumExp 100"] - 15.23454354598138) < 1e-9
    assert abs(values["linear equations"] / 7926571.782022948 - 1) < 1e-12
    assert values["Rosenbrock, p = 2"] == 204.5 and abs(values["Rosenbrock, p = 5"] / 676609.7717606213 - 1) < 1e-12
    assert abs(values["Chebyshev 50"] / 876.1466329845388 - 1) < 1e-12
    assert abs(values["logistic regression"] - np.log(2)) < 1e-15


def test_a_plane_separates_the_classes_with_an_intercept(session):
    with jax.enable_x64(True):
        problem = problems.logistic_regression(session, 0.0, intercept=True)
        solution = convergence.solve(problem, problem.hessians["exact"], 200)
        assert float((problem.objective.features @ solution.value).min()) > 0


def test_steps_are_judged_at_their_worst_over_all_runs(session):
    values = {"value": [4.0, 2, 1], "gradient_norm": [4.0, 2, 0.5], "radius": [0.5, 1], "step_norm": [0.6, 0.9]}
    one = {name: np.array(row) for name, row in values.items()} | {"solves": 6, "steps": 2}
    other = one | {"value": np.array([4.0, 3, 2]), "step_norm": np.array([0.1, 1.1]), "solves": 4}
    found = convergence.step_measures({("LogSumExp 8", "exact"): one, ("LogSumExp 8", "zero"): other}, session)
    # Of the first step 1/2 · 2² / (8 · 4) was guaranteed.
    np.testing.assert_allclose(found["C4.decrease_slack"].value, (1 - 1 / 16) / 4)
    np.testing.assert_allclose(found["C4.step_over_radius"].value, 1.2)
    assert found["C5.surplus_halvings"].value == 1 and found["C5.solves_per_iteration"].value == 3
