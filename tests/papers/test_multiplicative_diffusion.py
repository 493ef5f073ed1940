from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import multiplicative_diffusion as paper
from gradatim.papers.multiplicative_diffusion import exact, features, generation, judging, networks, regression

TOML = Path(paper.__file__).parents[1] / "multiplicative_diffusion.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(autouse=True, scope="module")
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), precision="double", scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) == parts and not smoke[0].untested


def test_what_is_exact_holds(smoke):
    claims = {claim.id: claim for claim in read_paper(TOML).claims}
    for name in ("C2", "C3", "C5", "C6"):
        assert claims[name].judge(smoke[0].measures, "smoke")["verdict"] == "holds", name
    for name in ("C3.mirror_difference", "C5.identity_error", "C6.scale_invariance_error"):
        assert smoke[0].measures[name].value < 1e-12, name


def test_losses_of_random_models_differ_by_a_constant(smoke):
    losses = smoke[0].data["losses"]
    # Three comparisons, and the explicit loss is no constant itself.
    assert smoke[0].measures["C4.difference"].value < 4 and np.ptp(losses["explicit"].values) > 10 * losses["error"].values.max()


def test_trap_the_sampler_in_the_space_is_tried_where_it_crosses_zero(smoke):
    samplers = smoke[0].data["samplers"]
    assert samplers["steps"].values[0] == 10 and 0 < float(samplers["space_crossings"][0]) < 0.006 * SMOKE.exact.samples


def test_o2_samples_have_the_variance_of_the_recursion(smoke):
    samplers = smoke[0].data["samplers"]
    assert abs(float(samplers["log_variance"][0]) - 0.0994396) < 4 * float(samplers["log_error"][0])
    np.testing.assert_allclose(smoke[0].data["recursion"]["error"][:2], [0.0644257 - 0.0576, 0.0608963 - 0.0576], atol=1e-7)


def test_trap_all_arms_have_one_size_one_start_and_one_count_of_steps(smoke):
    training, images = smoke[0].data["images_training"], smoke[0].data["images"]
    assert training["loss"].dims == ("row", "arm", "seed") and training.sizes["seed"] == SMOKE.images.seeds
    assert (training["loss"].values[-1] < training["loss"].values[0]).all()
    starts = images["shown"].isel(frame=0)
    assert np.array_equal(starts.sel(sampler="log"), starts.sel(sampler="space"))
    assert images["distance"].dims == ("sampler", "seed") and (images["distance"] > images["floor"]).all()


def test_trap_what_lies_outside_the_data_is_told_and_not_clipped(smoke):
    findings, session = smoke
    assert any("not clipped" in note for note in session.notes)
    assert float(findings.data["images"]["outside"].max()) > 0 and (findings.data["images"]["negative"].sel(sampler="log") == 0).all()


def test_exponentiated_weights_stay_positive_and_both_descents_converge(smoke):
    data = smoke[0].data["regression"]
    assert (data["weight"].sel(descent="exponentiated") > 0).all() and (data["weight"].sel(descent="plain") < 0).any()
    assert float(data["final_loss"].max()) < 1e-2 * float(data["loss"].max())


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"motion", "samplers", "images", "distances", "training", "weights"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name, fig in figures.items() if name != "images" for ax in fig.axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"]) < 64e9


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_kolmogorov_smirnov_tells_a_shift():
    # A sample as even as can be, and the same moved by a tenth: distances 0.0005 and 0.04.
    even = np.sort(exact.special.ndtri((np.arange(1000) + 0.5) / 1000))
    assert exact.kolmogorov_smirnov(even) > 0.999
    np.testing.assert_allclose(exact.kolmogorov_smirnov(even + 0.1), exact.special.kolmogorov(31.746 * 0.04038), rtol=2e-2)


def test_the_sliced_distance_of_a_shift_is_its_length_over_the_root_of_the_dimension():
    random = np.random.default_rng(0)
    points, shift = random.normal(size=(50, 3)).astype(np.float32), np.array([0.3, 0.0, 0.4], np.float32)
    np.testing.assert_allclose(generation.distance(points + shift, points, 4096), 0.5 / 3**0.5, rtol=3e-2)
    assert generation.distance(np.repeat(points, 3, axis=0), points, 16) < 1e-6


def test_slow_noise_ends_like_the_papers_and_begins_with_less():
    plain, ramped = (networks.motion_of(SMOKE, arm) for arm in ("multiplicative", "ramped"))
    np.testing.assert_allclose(*(motion.integrals(1.0) for motion in (plain, ramped)), rtol=1e-12)
    assert ramped.integrals(0.005).variance < plain.integrals(0.005).variance / 50


def test_features_of_the_same_images_are_no_distance_apart_and_others_are(smoke):
    images = smoke[0].data["images"]
    assert images["feature_distance"].dims == ("sampler", "seed")
    assert (images["feature_distance"] > images["feature_floor"]).all() and 0.3 < images.attrs["accuracy"] <= 1
    points = np.random.default_rng(0).normal(size=(50, 3))
    assert abs(features.frechet(points, points)) < 1e-10
    assert any("trained in this run" in note for note in smoke[1].notes)


def test_the_nearest_point_and_its_distance():
    distances, rows = generation.nearest(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[0.0, 1.0], [3.0, 4.0]]))
    np.testing.assert_allclose(distances, [1.0, 0.0], atol=1e-7)
    assert rows.tolist() == [0, 1]


def test_entropy_of_even_classes_and_of_one():
    assert np.isclose(generation.entropy(np.array([5, 5, 0])), np.log(2)) and generation.entropy(np.array([7, 0])) == 0


def test_spirals_are_positive_and_balanced():
    data = generation.spirals(replace(SMOKE, spiral_points=2000))
    assert data.training.min() > 3 and data.training.max() < 7 and not np.array_equal(data.training, data.held_out)
    assert abs(data.training.mean(axis=0) - 5).max() < 0.1


def test_skewness_of_a_normal_and_of_a_log_normal_sample():
    normal = exact.special.ndtri((np.arange(10_000) + 0.5) / 10_000)
    assert abs(regression.skewness(normal[None])[0]) < 1e-10 and regression.skewness(np.exp(normal)[None])[0] > 3


def test_the_order_is_a_slope_with_the_bend_as_its_error():
    import xarray as xr

    count = np.array([10, 20, 40])
    measure = judging._order(xr.Dataset({"error": ("count", 3.0 / count)}, {"count": count}))
    np.testing.assert_allclose([measure.low, measure.value, measure.high], -1, atol=1e-12)


def test_more_active_weights_than_there_are_is_refused():
    config = replace(SMOKE, regression=replace(SMOKE.regression, active=41))
    with pytest.raises(ValueError, match=r"regression\.active must be at most regression\.weights, got 41 of 40"):
        regression.run_regression(config, Session(jax.random.key(0)), jax.random.key(0))


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="at most what digits has, got 2000 of 1437 in its train part"):
        generation.images(replace(SMOKE, n_images=2000), Session(jax.random.key(0)))


def test_steps_that_do_not_divide_are_refused():
    for config, message in (
        (replace(SMOKE, exact=replace(SMOKE.exact, path_steps=20)), r"exact\.path_steps must be a multiple of 8, got 20"),
        (replace(SMOKE, images=replace(SMOKE.images, sampler_steps=10)), r"images\.sampler_steps must be a multiple of 4, got 10"),
    ):
        with pytest.raises(ValueError, match=message):
            paper.run(config, Session(jax.random.key(0), precision="double"))


def test_measures_of_known_results(smoke, known_results):
    trees, put = known_results(smoke[0])
    put("motion", p_value=[0.5, 0.02, 0.3, 0.9])
    put("samplers", log_crossings=3, space_crossings=7)
    put("mirror", difference=np.linspace(0, 0.4, 20))
    put("losses", difference=[1, -6, 2], error=[1, 2, 4])
    put("identity", left=[1, -3, 0], right=[[1, 1.2], [-3.8, -3], [0.05, 0]], mean_score=[-1.1, -0.7, -1, -1, -1])
    put("identity", scale_error=[0.1, 0.2, 0.6, 0.3])
    put("images", distance=np.full((6, 3), 100))
    for sampler, distance in {"log": [1, 2, 4], "additive": [2, 2, 2]}.items():
        trees["images"]["distance"].loc[{"sampler": sampler}] = distance
    put("regression", skewness=np.stack([-np.arange(1.0, 7), np.full(6, 2.0)]), weight_skewness=9)
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0), precision="double")).measures
    for name, value in {
        "C1.least_p_value": 0.02,
        "C2.log_sampler_flips": 3,
        "C3.mirror_difference": 0.4,
        "C4.difference": 3,
        "C5.identity_error": 0.2,
        "C6.mean_score_error": 0.3,
        "C6.scale_invariance_error": 0.6,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    np.testing.assert_allclose(found["C7.distance_ratio"].samples, (0.5, 1, 2))
    np.testing.assert_allclose(found["C8.skewness_ratio"].samples, np.arange(1, 7) / 2)
