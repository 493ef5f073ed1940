import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.numerics import GaussNewtonOperator, dense_matrix
from gradatim.papers import hessian_spectrum as paper
from gradatim.papers.hessian_spectrum import spectra, switch, training

TOML = Path(paper.__file__).parents[1] / "hessian_spectrum.toml"


@pytest.fixture(scope="module")
def smoke():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return paper.run(paper.SCALES["smoke"], session), session


def test_every_part_is_measured(smoke):
    findings, _ = smoke
    claims = read_paper(TOML).claims
    assert [claim.id for claim in claims] == ["C1", "C2", "C3", "C4", "C5", "C6"]
    parts = {f"{claim.id}.{part.name}" for claim in claims for part in claim.parts}
    # The smoke run stops at a loss of 1e-2, where a network does not count as fitted.
    assert parts - set(findings.measures) <= {"C4.residual_norm", "C4.top_of_gauss_newton"}
    assert set(findings.measures) <= parts


def test_the_parts_of_the_hessian_add_up_in_the_record(smoke):
    findings, _ = smoke
    for width in findings.data["width"].children:
        data = findings.data[f"width/{width}"]
        traces = {name: data[f"{name}_end"].values.sum(axis=1) for name in ("hessian", "gauss_newton", "residual")}
        assert np.allclose(traces["hessian"], traces["gauss_newton"] + traces["residual"], atol=1e-10)
        assert data["gauss_newton_end"].values.min() > -1e-12


def test_quadrature_agrees_with_all_eigenvalues(smoke):
    data = smoke[0].data["density"]
    gap = np.abs(data["quadrature"].values - data["dense"].values)
    # The probes' own spread, and the smoothing of a few nodes, are all that lies between them.
    assert np.mean(gap <= 5 * data["standard_error"].values + 0.02 * data["dense"].values.max()) > 0.95


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    with jax.enable_x64(True):
        again = paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_rows_of_gradients_make_the_gauss_newton_part(double, getkey):
    problem, start = training.cluster_problem(paper.SCALES["smoke"], getkey(), 3, 1.0)
    params, inputs, labels = jax.tree.map(lambda x: x[0], (start, problem.inputs, problem.labels))
    rows = jax.jit(lambda params: spectra.gradient_rows(problem, params, inputs))(params)
    expected = dense_matrix(GaussNewtonOperator(problem.outputs, training.cross_entropy, params, (inputs, labels)))
    np.testing.assert_allclose(rows.T @ rows, expected, atol=1e-12)


def test_the_bulk_ends_below_the_largest_eigenvalues(smoke):
    findings, session = smoke
    counts = findings.data["clusters"]["count"].sel(rule="bulk edge").values
    size = 2 * 6 + 6 + 6 * 6 + 6 + 2 * 6 + 2
    assert (counts >= 1).all() and (counts < size / 4).all()
    assert any("With the labels permuted at the same point" in note for note in session.notes)
    assert sum("above λmax/10 at the large batch's end, for 10 classes" in note for note in session.notes) == 2


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"spectra", "density", "outliers", "gauss_newton", "lines"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert paper.memory(paper.SCALES["laptop"]) < 3e9 < paper.memory(paper.SCALES["full"]) < 16e9
    with pytest.raises(ValueError, match=r"width\.data must be one of clusters, mnist"):
        validate(dataclasses.replace(paper.SCALES["smoke"], width=paper.WidthConfig(data="digits")))


def test_blobs_are_standardised_and_separate_as_told(getkey, double):
    drawn = jax.jit(lambda key: training.blobs(key, n=200, dimensions=5, clusters=4, overlap=0.1))(getkey())
    inputs, labels = map(np.asarray, drawn)
    assert np.allclose(inputs.mean(0), 0, atol=1e-12) and np.allclose(inputs.std(0), 1, atol=1e-12)
    assert np.array_equal(np.bincount(labels, minlength=4), np.full(4, 50))
    centres = np.stack([inputs[labels == k].mean(0) for k in range(4)])
    within = np.linalg.norm(inputs - centres[labels], axis=1).mean()
    assert within < 0.3 * np.linalg.norm(centres, axis=1).mean()


def test_every_repetition_of_every_run_has_images_of_its_own():
    keys = (jax.random.key(seed) for seed in (0, 0, 1))
    first, again, other = (np.asarray(training.mnist_data(Session(key), key, 20, 2)[0]) for key in keys)
    assert np.array_equal(first, again)
    rows = {row.tobytes() for images in (*first, *other) for row in images}
    # Of 4 000 images; two subsets may share a few.
    assert len(rows) > 75


def test_t7_initial_deviation_is_one_number_for_every_layer(getkey, double):
    template, _ = training.network(10, 2, 40)
    params = jax.device_get(training.initialised(template, jax.random.split(getkey(), 3), std=0.1))
    assert all(abs(layer.weight.std() - 0.1) < 0.02 for layer in params.layers[:2])
    he = jax.device_get(training.initialised(template, jax.random.split(getkey(), 3), std=None))
    assert abs(he.layers[1].weight.std() - (2 / 40) ** 0.5) < 0.02 and not he.layers[1].bias.any()


def test_a_run_is_held_where_it_first_reaches_its_target(double):
    session = Session(jax.random.key(0), precision="double")
    problem, start = training.cluster_problem(paper.SCALES["smoke"], jax.random.key(1), 2, 0.5)
    loop = training.descend(session, problem, start, steps=400, rate=0.5, target=0.1, label="hold")
    held, losses = loop.history["held_loss"], loop.history["loss"]
    assert (held[-1] <= 0.1).all() and (held[-1] > 0.05).all() and (losses[-1] < held[-1]).all()
    assert np.array_equal(held[-1], held[-2]) and np.array_equal(held[0], losses[0])


def test_measures_are_those_of_the_points_and_widths_they_name(smoke):
    measures, data = smoke[0].measures, smoke[0].data
    narrow, wide = (data[f"width/{width}"].to_dataset() for width in paper.SCALES["smoke"].width.widths)

    def tops(values):
        return values.values[:, 0]

    equal = tops(wide["hessian_equal"]) / tops(narrow["hessian_equal"])
    np.testing.assert_allclose(measures["C2.top_ratio"].samples, equal, rtol=1e-5)
    after = wide["hessian_end"].values
    np.testing.assert_allclose(measures["C5.negative_size"].samples, np.maximum(-after[:, -1], 0) / after[:, 0], rtol=1e-5)
    np.testing.assert_allclose(measures["C1.outlier_share"].samples, (after > 0.1 * after[:, :1]).mean(axis=1))
    counts = data["width"].to_dataset()["count"].sel(rule="above 10 %").values
    np.testing.assert_allclose(measures["C2.outlier_ratio"].samples, counts[-1] / counts[0])

    def near_zero(values):
        return (abs(values) < spectra.NEAR_ZERO * values[:, :1]).mean(axis=1)

    shares = {when: near_zero(wide[f"hessian_{when}"].values) for when in ("start", "equal", "end")}
    np.testing.assert_allclose(measures["C1.near_zero_at_start"].samples, shares["start"], atol=1e-3)
    np.testing.assert_allclose(measures["C1.near_zero_at_end"].samples, shares["end"], atol=1e-3)
    gain = shares["equal"] - near_zero(narrow["hessian_equal"].values)
    np.testing.assert_allclose(measures["C2.near_zero_gain"].samples, gain, atol=1e-3)
    table = data["clusters"].to_dataset()["count"].sel(rule="above 20 %")
    shares = table.values / table["clusters"].values[:, None]
    np.testing.assert_allclose(measures["C3.count_per_cluster"].samples, np.exp(np.log(shares).mean(axis=0)))
    over = data["switch/over"].to_dataset()
    top = {str(point): over["top"].sel(point=point).values[:, 0] for point in over["point"].values}
    np.testing.assert_allclose(measures["C6.top_after_switch"].samples, top["continued"] / top["gone_on"], rtol=1e-5)
    np.testing.assert_allclose(measures["C6.large_over_small"].samples, top["large"] / top["forked"], rtol=1e-5)
    lines = {path: over.sel(path=path) for path in ("continued", "across")}
    heights = {path: line["barrier"].values for path, line in lines.items()}
    np.testing.assert_allclose(lines["across"]["line"].values[:, 0], over["loss"].sel(point="gone_on"))
    losses = np.concatenate([line["line"].values for line in lines.values()], axis=1)
    share = np.maximum(*heights.values()) / (losses.max(1) - losses.min(1))
    np.testing.assert_allclose(measures["C6.barrier_share"].samples, share, rtol=1e-5)


def test_points_that_the_switch_compares_have_one_loss(smoke):
    data = smoke[0].data["switch/over"].to_dataset()
    target = paper.SCALES["smoke"].switch.over_loss
    for name, of_it in {"large": 1, "forked": 1, "gone_on": switch.FALL, "continued": switch.FALL}.items():
        losses = data["loss"].sel(point=name).values
        assert data["reached"].sel(point=name).all() and (losses <= of_it * target).all() and (losses > 0.8 * of_it * target).all(), name


@pytest.mark.parametrize("short", ["large_steps", "small_steps"])
def test_ends_at_unequal_losses_are_not_judged(double, short):
    config = paper.SCALES["smoke"]
    # One step leaves the loss where it was.
    config = dataclasses.replace(config, switch=dataclasses.replace(config.switch, **{short: 1}))
    findings = switch.switch_batches(config, Session(jax.random.key(0), precision="double"), jax.random.key(1))
    assert not findings.measures
    assert set(findings.untested) == {"C6.barrier_share", "C6.top_after_switch", "C6.large_over_small"}
    assert all("do not come to the loss at which they are compared" in reason for reason in findings.untested.values())


def test_a_part_of_the_switch_is_judged_only_where_its_own_points_are_there():
    top = {"large": np.array([8.0, 8, 8]), "gone_on": np.array([4.0, 4, 4]), "continued": np.array([1.0, 2, 4]), "forked": np.full(3, 2.0)}
    there = {name: np.ones(3, bool) for name in top}
    measures, untested = switch.judge_switch(np.array([0.0, 0.1, 0.2]), top, there, 0.03)
    assert not untested and measures["C6.barrier_share"].value == pytest.approx(0.1)
    assert measures["C6.top_after_switch"].samples == (0.25, 0.5, 1) and measures["C6.large_over_small"].samples == (4, 4, 4)
    there["gone_on"] = np.array([True, False, True])
    measures, untested = switch.judge_switch(np.zeros(3), top, there, 0.03)
    assert set(measures) == {"C6.large_over_small"} and "gone on: 1" in untested["C6.top_after_switch"]
    there["forked"] = np.array([False, False, True])
    measures, untested = switch.judge_switch(np.zeros(3), top, there, 0.03)
    assert not measures and untested["C6.large_over_small"].endswith("(forked: 2)")


def test_a_barrier_that_the_falling_line_hides_is_found_between_equal_losses():
    falling = {"loss": np.array([[2.0, 1.2, 1.0], [2.0, 1.8, 1.0]]), "barrier": np.array([0.0, 0.3])}
    level = {"loss": np.array([[1.0, 1.5, 1.0], [1.0, 0.5, 1.0]]), "barrier": np.array([0.5, 0.0])}
    np.testing.assert_allclose(switch.barrier_share({"continued": falling, "across": level}), [0.5, 0.2])


def test_descents_stop_each_where_it_first_reaches_the_target(double):
    session = Session(jax.random.key(0), precision="double")
    problem, start = training.cluster_problem(paper.SCALES["smoke"], jax.random.key(1), 2, 0.5)
    held = training.descend(session, problem, start, steps=400, rate=0.5, target=0.1, label="hold").state
    ours = training.descend_to(session, problem, start, steps=400, rate=0.5, target=0.1, label="stop")
    assert ours.reached.all() and held.reached.all()
    for a, b in zip(jax.tree.leaves(ours.params), jax.tree.leaves(held.at_target), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    short = training.descend_to(session, problem, start, steps=2, rate=0.5, target=0.1, label="short")
    assert not short.reached.any()
    keys = jax.random.split(jax.random.key(2), len(held.reached))
    sizes = {"batch": 5, "steps": 2000, "rate": 0.2, "target": 0.1}
    small = training.descend_in_batches_to(session, problem, start, keys, **sizes, label="small")
    losses = np.asarray(problem.losses(small.params))
    assert small.reached.all() and (losses <= 0.1).all()
