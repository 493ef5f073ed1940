from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import deep_conjugate_direction as paper
from gradatim.papers.deep_conjugate_direction import judging, problems, solving

TOML = Path(paper.__file__).parents[1] / "deep_conjugate_direction.toml"
SMOKE = paper.SCALES["smoke"]
LARGER = {"C2.iterations_over_cg_64", "C2.iterations_over_cg_96", "C2.growth_over_cg_growth", "C6.cost_of_weighting"}


@pytest.fixture(scope="module")
def smoke():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), scale="smoke", precision=paper.PRECISION)
        return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert set(smoke[0].untested) == LARGER


def test_training_lowers_the_loss(smoke):
    training = smoke[0].data["training"]
    losses = training["loss"].mean(("boost", "seed")).values
    assert losses[-1] < 0.9 * losses[1] and losses[-1] < 1
    assert (training["held_out"] < 1).all()


def test_both_weightings_start_from_the_same_networks_and_batches(smoke):
    # The first loss differs by the weights of the spectrum alone, and seeds differ too.
    first = smoke[0].data["training"]["loss"].values[..., 1]
    assert np.ptp(first, axis=1).min() > 0 and np.ptp(first, axis=0).min() > 0


def test_solvers_reach_their_tolerances(smoke):
    steps = smoke[0].data["box"].to_dataset()["iterations"]
    assert np.isfinite(steps.sel(solver=list(solving.CLASSICAL)).values).all()
    # Hardly trained: with many earlier directions it gets there.
    assert np.isfinite(steps.sel(solver=solving.named(10), rtol=solving.RTOL).values).mean() > 0.8


def test_trap_iterations_and_seconds_at_a_tolerance_are_reported_and_not_the_loss_alone(smoke):
    notes = smoke[1].notes
    assert any(note.startswith("Box, iterations to 0.0001 and to 1e-08") and "conjugate gradients" in note for note in notes)
    assert any(note.startswith("C5") and "ms" in note for note in notes)


def test_trap_timing_leaves_compilation_out_and_compares_at_one_tolerance(smoke):
    timing = smoke[0].data["timing"]
    assert float(timing["left"].drop_sel(solver=solving.LEARNED).max()) <= 1.1 * solving.RTOL
    assert float((timing["seconds"].max("repeat") / timing["seconds"].min("repeat")).max()) < 1000


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"convergence", "history", "training", "time", "direction"}
    panels = [ax for figure in figures.values() for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in panels)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 1e9 < 2e9 < paper.memory(paper.SCALES["full"]) < 64e9


def test_three_dimensions_are_run_like_two(double):
    small = replace(SMOKE.training, ritz_steps=8, samples=20, batch_size=2, steps=4)
    config = replace(SMOKE, dimensions=3, training=small, right_hand_sides=1, max_steps=20, repeats=1)
    findings = paper.run(config, Session(jax.random.key(0), scale="smoke", precision=paper.PRECISION))
    steps = findings.data["disk"].to_dataset()["iterations"].sel(solver=list(solving.CLASSICAL))
    assert np.isfinite(steps.values).all() and findings.data["fields"]["solution"].shape == (8, 8)
    assert not findings.data["fields"]["is_fluid"].values[3:5, 3:5].any() and "direction" in paper.draw(findings)


def test_configurations_that_cannot_be_judged_are_refused(double):
    session = Session(jax.random.key(0), precision=paper.PRECISION)
    for change, match in (
        ({"histories": (0, 2)}, r"histories must hold \[0, 2, 10\], got \(0, 2\)"),
        ({"histories_larger": (0, 5)}, r"histories_larger must hold \[2\], got \(0, 5\)"),
        ({"side": 9}, "side must be even, got 9"),
    ):
        with pytest.raises(ValueError, match=match):
            paper.run(replace(SMOKE, **change), session)


def test_right_hand_sides_are_unit_vectors_outside_solid_cells():
    fluid = np.ones((12, 8), bool)
    fluid[4:6, 3:5] = False
    for make in (problems.smooth, problems.noise):
        b = make(np.random.default_rng(0), fluid, 5)
        np.testing.assert_allclose((b**2).sum((1, 2)), 1)
        assert b.shape == (5, 12, 8) and (b[:, ~fluid] == 0).all()


def test_smooth_right_hand_sides_are_as_wide_on_every_grid():
    coarse, fine = (problems.smooth(np.random.default_rng(0), np.ones((n, n), bool), 1)[0] for n in (32, 64))
    means = fine.reshape(32, 2, 32, 2).mean((1, 3))
    assert (means * coarse).sum() / np.linalg.norm(means) > 0.999


def test_iterations_are_counted_to_the_first_step_within_the_tolerance():
    curves = np.array([[1.0, 0.2, 0.01, np.nan], [1.0, 0.01, 0.2, 0.005], [1.0, 0.9, 0.8, 0.7]])
    assert solving.iterations(curves, 0.1).tolist() == [2, 1, np.inf]


def test_measures_of_known_results(smoke):
    trees = {name: node.to_dataset() for name, node in smoke[0].data.children.items()}
    box, seeds = trees["box"], np.array([1.0, 2, 4])

    def where(**counts):
        # Means over right-hand sides are what is told, and the tighter tolerance takes ten times as many.
        steps = np.stack([counts.get(name, 50) * np.multiply.outer(seeds, [0.5, 1.5]) for name in box["solver"].values.tolist()])
        return box.assign(iterations=(box["iterations"].dims, np.stack([steps, 10 * steps], axis=1)))

    def counts(none, two, ten, alike, gradients):
        names = [*map(solving.named, (0, 2, 10)), solving.ALIKE, judging.CG]
        return dict(zip(names, (none, two, ten, alike, gradients), strict=True))

    trees["box"], trees["box_16"] = where(**counts(12, 6, 5, 8, 18)), where(**counts(12, 12, 5, 16, 72))
    trees["box_24"], trees["disk"] = where(**counts(12, 18, 5, 17, 162)), where(**counts(12, 9, 5, 8, 36))
    # One side that is never solved counts as if the last step that was allowed had done it.
    trees["disk"]["iterations"].loc[{"solver": solving.named(2), "seed": 0, "rtol": solving.RTOL}] = [4.0, np.inf]
    residual = np.full(box["residual"].shape, 1.0)
    residual[1, 2, 1, 5:7], residual[1, ..., 8] = [1e-9, 1e-3], 1e-6
    trees["box"] = trees["box"].assign(residual=(box["residual"].dims, residual))
    seconds = np.full(trees["timing"]["seconds"].shape, 10.0)
    seconds[:, 0], seconds[:, 2] = [[1, 1, 9], [2, 2, 9], [4, 4, 9]], 5
    trees["timing"] = trees["timing"].assign(seconds=(trees["timing"]["seconds"].dims, seconds))
    trees["training"] = trees["training"].assign(held_out=(("boost", "seed"), [[0.1, 0.2, 0.3], [1, 2, 3]]))
    session = Session(jax.random.key(0))
    found = judging.judge(replace(SMOKE, with_larger=True, max_steps=60), trees, session).measures
    for name, samples in {
        "C1.iterations_over_cg": (1 / 3, 1 / 3, 1 / 3),
        "C1.iterations": 6 * seeds,
        "C2.iterations_over_cg_64": (1 / 6, 1 / 6, 1 / 6),
        "C2.iterations_over_cg_96": (1 / 9, 1 / 9, 1 / 9),
        "C2.growth_over_cg_growth": (1 / 3, 1 / 3, 1 / 3),
        "C3.cost_of_two": seeds,
        "C3.cost_of_none": (2, 2, 2),
        "C4.obstacle_iterations_over_cg": (32 / 36, 1 / 4, 1 / 4),
        "C5.time_over_best_classical": (1 / 5, 2 / 5, 4 / 5),
        "C6.training_loss": (0.1, 0.2, 0.3),
        "C6.cost_of_weighting": seeds,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, err_msg=name)
    assert found["C5.reached_residual"].value == 1e-6
    assert any("the fastest without learning: Jacobi" in note for note in session.notes)
