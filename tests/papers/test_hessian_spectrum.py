import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.numerics import GaussNewtonOperator, dense_matrix
from gradatim.papers import hessian_spectrum as paper
from gradatim.papers.hessian_spectrum import spectra, training

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
    np.testing.assert_allclose(measures["C6.top_after_switch"].samples, top["continued"] / top["large"], rtol=1e-5)
    np.testing.assert_allclose(measures["C6.large_over_small"].samples, top["large"] / top["forked"], rtol=1e-5)
    line = over.sel(path="continued")
    np.testing.assert_allclose(measures["C6.barrier_share"].samples, line["barrier"] / np.ptp(line["line"].values, axis=1), rtol=1e-5)
