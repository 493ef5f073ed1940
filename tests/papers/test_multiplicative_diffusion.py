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


def test_samplers_are_compared_over_the_seeds_that_all_of_them_have(smoke):
    distance = smoke[0].data["images"]["distance"]
    assert distance.sel(sampler=["log", "additive"]).notnull().all() and distance.isel(seed=2).notnull().sum() == 2
    common = distance.isel(seed=[0, 1]).mean("seed")
    ratio = f"{float(common.sel(sampler='log') / common.sel(sampler='additive')):.3g}"
    assert any(note.startswith("Images, 2 seeds: ") and f"'log': {float(ratio)}" in note for note in smoke[1].notes)


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
    losses = training["loss"].stack(network=("arm", "seed")).dropna("network")
    assert losses.sizes["network"] == 2 * 3 + 2 * 2 and (losses[-1] < losses[0]).all()
    starts = images["shown"].isel(frame=0)
    assert np.array_equal(starts.sel(sampler="log"), starts.sel(sampler="space"))
    assert images["distance"].dims == ("sampler", "seed") and (images["distance"].dropna("seed") > images["floor"]).all()


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
    (directions,) = generation.directions_of(jax.random.key(0), 1, 4096, 3)
    np.testing.assert_allclose(generation.distance(points + shift, points, directions), 0.5 / 3**0.5, rtol=3e-2)
    assert generation.distance(np.repeat(points, 3, axis=0), points, directions[:16]) < 1e-6


def test_every_seed_has_directions_of_its_own():
    directions = generation.directions_of(jax.random.key(0), 2, 16, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, rtol=1e-6)
    assert not np.isclose(directions[0], directions[1]).any()
    assert not np.isclose(directions, generation.directions_of(jax.random.key(1), 2, 16, 3)).any()


def test_every_seed_fits_its_noise_to_points_of_its_own():
    data = generation.spirals(replace(SMOKE, spiral_points=50))
    motion = networks.motion_of(SMOKE, "multiplicative")
    starts, noised = (generation._starts(sampler, motion, data, 40, 2, jax.random.key(0)) for sampler in ("log", "from noised data"))
    logs = np.log([starts, noised])
    for i in range(2):
        noise = (logs[0, i] - logs[1, i].mean(axis=0)) / logs[1, i].std(axis=0)
        np.testing.assert_allclose(noise, generation._starts("additive", motion, data, 40, 2, jax.random.key(0))[i], atol=1e-4)


def test_rates_are_those_of_several_pilots_and_arms_beside_have_fewer_seeds(monkeypatch):
    monkeypatch.setattr(networks, "ARMS", ("additive", "ramped"))
    monkeypatch.setattr(networks, "JUDGED", ("additive",))
    settings = replace(SMOKE.images, width=4, depth=1, rates=(1e-4, 3e-3), pilot_steps=4, steps=4, beside=2)
    points = generation.spirals(replace(SMOKE, spiral_points=64))
    session = Session(jax.random.key(0), scale="smoke")
    nets, trees = networks.train("spirals", SMOKE, settings, session, jax.random.key(0), points.training, points.held_out)
    final = trees["spirals_rates"]["loss"].transpose("arm", "rate", "pilot")
    assert final.shape == (2, 2, 3) and (final.std("pilot") > 0).all()
    for arm, best in final.mean("pilot").idxmin("rate").to_series().items():
        assert any(f"{arm} {best:g}" in note for note in session.notes)
    count = {arm: len(jax.tree.leaves(net)[0]) for arm, net in nets.items()}
    assert count == {"additive": 3, "ramped": 2}
    losses = trees["spirals_training"]["loss"]
    assert np.isnan(losses.sel(arm="ramped", seed=2)).all() and np.isfinite(losses.sel(seed=[0, 1])).all()


def test_models_of_the_integration_by_parts_are_those_of_the_run(smoke):
    ours, theirs = smoke[0].data["identity"], exact._identity(SMOKE, jax.random.key(1))
    assert (abs(ours["left"] - theirs["left"]) > 1e-3).all() and (ours["mean_score"] == theirs["mean_score"]).all()


def test_slow_noise_ends_like_the_papers_and_begins_with_less():
    plain, ramped = (networks.motion_of(SMOKE, arm) for arm in ("multiplicative", "ramped"))
    np.testing.assert_allclose(*(motion.integrals(1.0) for motion in (plain, ramped)), rtol=1e-12)
    assert ramped.integrals(0.005).variance < plain.integrals(0.005).variance / 50


def test_features_of_the_same_images_are_no_distance_apart_and_others_are(smoke):
    images = smoke[0].data["images"]
    assert images["feature_distance"].dims == ("sampler", "seed")
    assert (images["feature_distance"].isel(seed=[0, 1]) > images["feature_floor"]).all() and 0.3 < images.attrs["accuracy"] <= 1
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
    put("regression", skewness=np.stack([-np.arange(1.0, 7), np.full(6, 9.0)]), weight_skewness=-2)
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0), precision="double")).measures
    for name, value in {
        "C1.least_p_value": 0.02,
        "C2.log_sampler_flips": 3,
        "C3.mirror_difference": 0.4,
        "C4.difference": 3,
        "C6.mean_score_error": 0.3,
        "C6.scale_invariance_error": 0.6,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    np.testing.assert_allclose(found["C5.identity_error"].samples, (0.1, 0.2, 0.05), rtol=1e-6)
    np.testing.assert_allclose(found["C7.distance_ratio"].samples, (0.5, 1, 2))
    np.testing.assert_allclose(found["C8.skewness_ratio"].samples, np.arange(1, 7) / 2)
