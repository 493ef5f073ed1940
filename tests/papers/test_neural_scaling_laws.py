from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.lab import Measure, Session, read_paper, validate
from gradatim.papers import neural_scaling_laws as paper
from gradatim.papers.neural_scaling_laws import gaussian, images, measuring, networks, students

TOML = Path(paper.__file__).parents[1] / "neural_scaling_laws.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    with jax.enable_x64(True):
        session = Session(jax.random.key(0), precision="double", scale="smoke")
        return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_told_why_not(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert not set(smoke[0].measures) & set(smoke[0].untested)


def test_regression_on_gaussian_features_is_as_known_beforehand(smoke):
    measures, data = smoke[0].measures, smoke[0].data["gaussian"]
    assert measures["C1.resolution_data_deviation"].value < 0.1
    assert measures["C1.resolution_parameter_deviation"].value < 0.1
    # Draws of projections are draws of samples, exchanged.
    assert np.allclose(data["features"].mean("draw") / data["samples"].mean("draw"), 1, atol=0.15)
    assert np.allclose(data["theory"], [0.1126, 0.0433], atol=3e-3)


def test_either_resolution_is_held_to_the_theory_by_its_own_losses(monkeypatch):
    theory, spread = np.array([0.1, 0.04]), np.array([0.99, 1.0, 1.01])[:, None]
    resolved = {"samples": theory * [1.02, 0.95] * spread, "features": theory * [1.03, 1.01] * spread, "theory": theory}
    monkeypatch.setattr(gaussian, "_resolved", lambda config, key: resolved)
    session = Session(jax.random.key(0))
    with jax.enable_x64(True):
        measures = gaussian.run_gaussian(SMOKE.gaussian, session, jax.random.key(1)).measures
    np.testing.assert_allclose(measures["C1.resolution_data_deviation"].value, 0.05)
    np.testing.assert_allclose(measures["C1.resolution_parameter_deviation"].value, 0.03)
    (note,) = session.notes
    assert "in D ['1.0200', '0.9500'], farthest at D = 50, in P ['1.0300', '1.0100'], farthest at P = 20" in note


def test_t6_fits_of_variance_stay_away_from_the_peak(smoke):
    for config in paper.SCALES.values():
        assert min(config.gaussian.long_sizes) >= 16 * config.gaussian.few
    assert abs(smoke[0].measures["C1.variance_data_slope"].value + 1.06) < 0.25


def test_t7_exponents_are_fitted_below_a_twentieth_of_the_features(smoke):
    for config in paper.SCALES.values():
        assert config.images.last <= config.images.features / 20
    assert (smoke[0].data["images"]["spectrum"].diff("rank") <= 0).all()


def test_t4_the_population_is_all_images_and_students_are_tested_on_others(smoke):
    _, session = smoke
    assert len(session.provenances) == 1
    with jax.enable_x64(True):
        pixels = np.asarray(paper.images._pixels(SMOKE.images, session, 4))
    assert pixels.shape == (1797, 16) and np.isclose((pixels**2).mean(), 1)


def test_t5_sizes_at_which_training_limits_are_not_fitted(smoke):
    sizes = np.array(SMOKE.students.sizes, float)
    losses = np.stack([sizes**-1.0] * 3)
    cut = lambda share: students._trained(SMOKE.students, losses, np.array(share))  # noqa: E731
    assert np.allclose(cut([0.0, 0.1, 0.2, 0.5]), 1) and cut([0.0, 0.1, 0.6, 0.1]) is None and cut([0.9] * 4) is None
    assert any("elsewhere training limits and not the samples" in note for note in smoke[1].notes)
    curve = smoke[0].data["students"]["curve"].values
    assert (curve.min(axis=0) < curve[0]).all()


def test_t9_medians_stand_where_means_have_no_limit(smoke):
    assert any("median loss at D = P" in note for note in smoke[1].notes)


def test_a_network_is_its_linearisation_at_the_start_and_wide_ones_stay_nearer(smoke):
    data = smoke[0].data["widths"]
    gap = np.abs(data["network"] - data["linearised"]).mean(["sign", "pair"]).values
    assert gap[-1] < 0.5 * gap[0]


def test_units_that_are_off_do_nothing():
    random = np.random.default_rng(0)
    x, *params = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((3, 5), (5, 8), (8, 8), (8, 1)))
    narrow = (params[0][:, :4], params[1][:4, :4], params[2][:4])

    def outputs(params, units):
        on = jnp.asarray(np.arange(units) < 4, jnp.float32)
        return networks._Wide(None, on, jnp.float32(4), x, x[:, 0], x, x[:, 0], 0.1).outputs(params, x)

    assert np.allclose(outputs(tuple(params), 8), outputs(narrow, 4), rtol=1e-5)


def test_weights_of_samples_have_mean_one_and_the_variance_of_their_size():
    config = paper.Samples(population=50, sizes=(100, 400), draws=40, seeds=3)
    weights = networks._drawn(config, jax.random.key(0))
    assert weights.shape == (3, 81, 50) and np.allclose(weights.mean(axis=2), 1) and (weights[:, -1] == 1).all()
    assert np.allclose([weights[:, :40].var(), weights[:, 40:80].var()], [0.49, 0.1225], rtol=0.1)


def test_most_of_the_scatter_over_draws_is_linear_in_them(smoke):
    data = smoke[0].data["samples"]
    excess = data["loss"] - data["limit"]
    left = (excess - data["first_order"]).std("draw").values[..., -1]
    assert (left < 0.3 * excess.std("draw").values[..., -1]).all()
    assert ((excess - data["first_order"]).mean("draw").values > 0).all()


def test_joined_classes_are_sums_of_classes(smoke):
    loss = smoke[0].data["labels"]["loss"]
    # (a + b)² ≤ 2 (a² + b²), and no more than nothing is known at the least samples.
    assert (loss.sel(target="5 pairs") <= 2 * loss.sel(target="10 digits")).all() and (loss > 0).all()


@pytest.mark.parametrize(
    ("ratios", "worst", "value", "low"),
    [
        ([Measure(1.1, 1.05, 1.2), Measure(0.8, 0.7, 0.9)], 1, 0.2, 0.1),
        ([Measure(1.1, 0.9, 1.3)], 0, 0.1, 0.0),
    ],
)
def test_largest_deviation_from_one(ratios, worst, value, low):
    index, measure = measuring.largest_deviation(ratios)
    assert index == worst and np.isclose(measure.value, value) and np.isclose(measure.low, low) and np.isclose(measure.high, 0.3)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"regimes", "spectra", "exponents", "exchange", "dimensions", "networks", "classes"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name, fig in figures.items() for ax in fig.axes if name != "exchange")


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    with jax.enable_x64(True):
        again = paper.run(SMOKE, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert paper.memory(paper.SCALES["laptop"]) < 4e9 and paper.memory(paper.SCALES["full"]) < 80e9


def test_exponents_are_compared_resolution_by_resolution():
    spectrum, exponent = np.array([[1.0, 2, 3], [4, 5, 6]]), np.array([[1.1, 2.1, 3.1], [3.5, 4.8, 5.9]])
    np.testing.assert_allclose(images._worst_difference(exponent, spectrum).samples, (-0.5, -0.2, -0.1), atol=1e-12)


def test_an_exchange_is_of_samples_and_features():
    # L(D, P) is half of L(P, D) where D is the smaller, but for draws about the mean.
    grid = np.ones((3, 2, 2, 2))
    grid[:, :, 0, 1], grid[:, :, 1, 0] = [0.5, 1.5], [1.5, 2.5]
    measure = images._exchange(replace(SMOKE.images, grid=(8, 16)), grid, Session(jax.random.key(0)))
    np.testing.assert_allclose(measure.value, 0.5)


def test_draws_with_one_layer_are_no_repetitions():
    ratios = np.array([0.9, 0.95, 0.85])
    grid = np.ones((3, 2, 2, 2))
    grid[:, :, 0, 1] = ratios[:, None]
    config = replace(SMOKE.images, grid=(8, 16))
    few, many = (images._exchange(config, np.tile(grid, (1, n, 1, 1)), Session(jax.random.key(0))) for n in (1, 8))
    value, low, _ = Measure.paired(ratios, np.ones(3), "log-ratio").intervals()[0]
    np.testing.assert_allclose(many.intervals(), [(1 - value, 0, 1 - low)])
    np.testing.assert_allclose(few.intervals(), many.intervals())


def test_layers_of_the_exchange_are_drawn_each_for_itself(smoke):
    losses = smoke[0].data["images"]["exchange"].values
    assert losses.shape == (3, 4, 2, 2) and np.unique(losses).size == losses.size


def test_measures_of_labels_are_those_of_the_targets_they_name(smoke):
    measures, data = smoke[0].measures, smoke[0].data
    exponent = data["labels"]["exponent"].sel(noise=0.0)
    change = exponent.sel(target="5 pairs").values - exponent.sel(target="10 digits").values
    np.testing.assert_allclose(measures["C6.joined_classes_change"].samples, change)
    found = {name: data["images"][f"exponent_{name}"].values for name in ("samples", "features", "spectrum")}
    for part, name in (("data", "samples"), ("parameter", "features")):
        rows = found[name] - found["spectrum"]
        worst = rows[abs(rows.mean(axis=1)).argmax()]
        np.testing.assert_allclose(measures[f"C4.{part}_exponent_difference"].samples, worst)
