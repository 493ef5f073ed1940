from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import decomposed_diffusion_sampler as paper
from gradatim.papers.decomposed_diffusion_sampler import arms, images, judging, priors, reconstruction, tasks, tuning
from gradatim.transport import Denoiser, NoiseLevel, RangeNullSpace

KEY = jax.random.key(0)
TOML = Path(paper.__file__).parents[1] / "decomposed_diffusion_sampler.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert set(smoke[0].untested) == {
        "C2.psnr_difference_mri",
        "C5.speedup_over_predictor_corrector",
        "C5.time_over_back_propagation",
        "C6.loss_at_20_times",
        "C6.gain_from_five_inner_steps",
        "C4.gain_over_no_prior",
        "C4.gain_over_total_variation",
        "C4.gain_over_null_space_projection",
        "C4.slice_variation_ratio",
        "C6.gain_beyond_five_inner_steps",
    }


@pytest.mark.parametrize("name", ["C7"])
def test_what_holds_exactly_holds(smoke, name):
    claim = next(claim for claim in read_paper(TOML).claims if claim.id == name)
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"


def test_updates_stay_in_a_plane_that_holds_their_krylov_space_alone(smoke):
    leak = smoke[0].data["leak"]
    assert leak["contained"].max() < 1e-5 < 1e-2 < leak["tilted"].min()


def test_predictions_of_all_kinds_say_the_same(smoke):
    assert smoke[0].data["predictions"]["difference"].max() < 1e-3


def test_trap_every_rival_is_tuned_and_edges_are_told(smoke):
    findings, session = smoke
    told = [note for note in session.notes if note.startswith("Tuned on validation images")]
    assert len(told) == 1 and all("step" in note and "weight" in note and "cutoff" in note for note in told)
    for name in ("projections",):
        data = findings.data[name]
        best = data["values of step"].values[data["tuned step"].values.argmax()]
        assert f"step {best:g}" in " ".join(told)


def test_trap_data_of_a_finer_grid_are_reconstructed_too(smoke):
    for name in ("projections",):
        ratio = smoke[0].data[name]["ratio"]
        assert {"dds, fine", "dps, fine", "variation, fine", "least squares, fine"} <= set(ratio["arm"].values)
        # Less good, for the operator is another one.
        assert float(ratio.sel(arm="dds, fine").mean()) < float(ratio.sel(arm="dds").mean())


def test_the_work_of_every_arm_is_told(smoke):
    work = smoke[0].data["projections"]
    expected = {
        "dds": (SMOKE.times, 6 * SMOKE.times),
        "dds, few": (SMOKE.few_times, 6 * SMOKE.few_times),
        "dps": (SMOKE.many_times, SMOKE.many_times),
        "projection": (SMOKE.times, SMOKE.times),
        "variation": (0, SMOKE.tv_steps),
    }
    for arm, (calls, products) in expected.items():
        assert (int(work["network_calls"].sel(arm=arm)), int(work["products"].sel(arm=arm))) == (calls, products)
    assert any("Calls of the network" in note for note in smoke[1].notes)


def test_one_matrix_for_a_group_of_images_is_one_for_each():
    pair = images.phantoms(4, 8, part="test", key=KEY)
    prior = priors.mixture(SMOKE.prior, images.phantoms(20, 8, part="training", key=KEY).coarse)
    task = tasks.projections(SMOKE, prior, pair, pair)
    ways = arms.Arms(SMOKE, task, KEY)
    inverses = RangeNullSpace.of(task.operator, cutoff=np.array([0.01, 0.3])).inverse
    each = ways.sampled(RangeNullSpace(jnp.repeat(inverses, 2, axis=0)), task.y, 10)
    grouped = ways.sampled(RangeNullSpace(inverses[:, None]), task.y.reshape(2, 2, *task.y.shape[1:]), 10)
    for one, other in zip(each, grouped, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"exact", "quality", "images", "way"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in ("exact", "quality", "way") for ax in figures[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
        reconstruction.same_number(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 4e9 < paper.memory(paper.SCALES["full"]) < 64e9


def test_trap_a_run_that_broke_down_is_never_the_best_of_its_grid():
    truth = np.random.default_rng(0).uniform(size=(2, 8, 8)).astype(np.float32)
    broken = np.full_like(truth, np.nan)
    scores = tuning.validation_scores(np.concatenate([broken, 0.9 * truth, 0.5 * truth]), truth, 3)
    assert scores.argmax() == 1 and scores[0] == -np.inf and np.isfinite(scores[1:]).all()


def test_sets_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ValueError, match="seeds must be a multiple of networks, 3, got 4"):
        reconstruction.same_number(replace(SMOKE, seeds=4))


@pytest.mark.parametrize("kind", ["phantoms", "mni152"])
def test_networks_share_no_image(kind):
    config = replace(SMOKE, resonance_images=kind, seeds=6, validation_images=2)
    runs = [priors.learn("heads", config, Session(KEY), jax.random.key(i))[0] for i in range(2)]
    pairs = [pair for known in runs for one in known for pair in (one.validation, one.test)]
    drawn = np.concatenate([pair.coarse for pair in pairs])
    assert len(drawn) == 2 * 3 * (2 + 2 * config.images)
    assert len(np.unique(drawn.round(5), axis=0)) == len(drawn)
    fitted = [float(sum(leaf.sum() for leaf in jax.tree.leaves(one.denoiser))) for known in runs for one in known]
    assert len(set(fitted)) == len(fitted)


def test_networks_have_columns_and_volumes_of_their_own():
    config = replace(SMOKE, side=16, networks=5, seeds=10, acceleration=4)
    pair = images.phantoms(2, 16, part="test", key=KEY)
    none = Denoiser(lambda level, x: x, "image")
    scans = [tasks.resonance(config, "coils", none, pair, pair, key=jax.random.fold_in(KEY, i)) for i in range(5)]
    assert len({np.asarray(scan.y[0, 0] != 0).tobytes() for scan in scans}) > 1
    known = priors.Known(none, None, pair, pair)
    turned = [reconstruction._quarter_turn(config, known, jax.random.fold_in(KEY, i)) for i in range(2)]
    volumes = np.concatenate([part.reshape(-1, config.slices, 16, 16) for one in turned for part in (one.truth, one.validation)])
    assert len(np.unique(volumes, axis=0)) == len(volumes) == 6


def test_slices_of_training_and_test_are_apart():
    parts = (images.TRAINING_HEIGHTS, images.VALIDATION_HEIGHTS, images.TEST_HEIGHTS)
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert min(abs(a - b) for a in one for b in other) >= 4


def test_slices_of_the_template_lie_in_their_range():
    session = Session(KEY)
    pair = images.slices(4, 16, part="test", key=KEY, session=session)
    assert pair.coarse.shape == (4, 16, 16) and pair.fine.shape == (4, 32, 32) and len(session.provenances) == 1
    assert (
        pair.coarse.min() >= -1
        and pair.coarse.max() <= 1
        and (pair.coarse[:, 0, :3] < -0.9).all()
        and pair.coarse[:, 7:9, 7:9].mean() > -0.6
    )


def test_volumes_vary_slowly():
    whole = images.volumes(2, 6, 16, part="test", key=KEY)
    assert whole.shape == (2, 6, 16, 16)
    assert abs(np.diff(whole, axis=1)).mean() < 0.5 * abs(np.diff(whole, axis=2)).mean()


def test_spectra_of_a_fine_grid_are_those_of_the_coarse_one():
    # Of a smooth image; both grids see the same waves, but for coils that vary from pixel to pixel and over the edge.
    places = [(np.arange(side) + 0.5) / side for side in (16, 32)]
    coarse, fine = ((np.cos(2 * np.pi * p)[:, None] + np.sin(4 * np.pi * p)[None])[None].astype(np.float32) for p in places)
    config = replace(SMOKE, side=16)
    for many, error in ((False, 1e-5), (True, 0.1)):
        coils = tasks.coil_sensitivities(16, config.coils) if many else np.ones((1, 16, 16))
        expected = np.fft.fft2(coils * (coarse + 1), norm="ortho")
        assert np.linalg.norm(tasks._fine_spectra(config, fine, many=many)[0] - expected) < error * np.linalg.norm(expected)


def test_measurements_of_several_coils_have_their_noise():
    config = replace(SMOKE, side=16, noise=0.05)
    pairs = [images.phantoms(n, 16, part="test", key=KEY) for n in (6, 2)]
    none = Denoiser(lambda level, x: x, "image")
    task = tasks.resonance(config, "coils", none, *pairs, key=jax.random.key(0))
    gap = np.asarray(task.y - tasks.measure(task.operator, task.truth))[..., np.asarray(task.operator.mask)]
    # Over a range of values of 2; both parts of a complex number together.
    np.testing.assert_allclose(np.sqrt((np.abs(gap) ** 2).mean()), 2 * 0.05, rtol=0.05)
    assert task.y_fine.shape == task.y.shape and len(task.y_validation) == 2


def test_a_network_that_adds_nothing_is_the_denoiser_of_normal_pixels():
    network = priors.ImageNetwork(lambda image, number: jnp.zeros_like(image), jnp.array(0.5), jnp.array(2.0))
    level = NoiseLevel(jnp.array(0.8), jnp.array(0.6), jnp.array(0.0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2)), jnp.float32)
    expected = 0.5 + 0.8 * 4 / (0.64 * 4 + 0.36) * (x - 0.8 * 0.5)
    np.testing.assert_allclose(Denoiser(network, "image")(level, x).image, expected, rtol=1e-5)


def test_pairs_that_are_timed_stand_for_all():
    seconds = np.array([[1.0, 1.1, 0.9], [4.0, 4.4, 3.6], [2.0, 2.2, 1.8]])
    speed = xr.Dataset(
        {"seconds": (("sampler", "repeat"), seconds)}, {"sampler": ["dds", "dps", "pairs"]}, {"pairs": 2000, "timed_pairs": 40}
    )
    assert paper.judging._speedup(speed).value == pytest.approx(100)
    assert paper.judging._seconds(speed, "dds", "dps").value == pytest.approx(0.25)


def test_measures_of_known_results(smoke):
    levels = {"dds": 30.0, "dps": 28.0, "least squares": 20.0, "variation": 27.0, "projection": 26.0, "exploding": 23.0}
    levels |= {"dds, few": 29.0, "dds, many": 31.0, "dds, 1 inner": 24.0, "dds, 10 inner": 30.5}

    def task(*scales):
        # What all arms have in common, and one image of each set on which ours alone fails.
        ratio = np.multiply.outer(list(levels.values()), scales)[..., None] + np.array([[1.0, 5, 0], [9, 2, 4], [3, 8, 7]])
        ratio[0, :, 1] -= 100
        work = ("arm", np.zeros(len(levels), int))
        axes = ("arm", "set", "image")
        return xr.Dataset(
            {"ratio": (axes, ratio), "similarity": (axes, ratio), "network_calls": work, "products": work}, {"arm": list(levels)}
        )

    coils, volumes, projections = np.array([1, 1.1, 1.2]), np.array([1.15, 1, 1.3]), np.array([0.9, 1.2, 1.1])
    trees = {name: node.to_dataset() for name, node in smoke[0].data.children.items()}
    trees |= {"coils": task(*coils), "volumes": task(*volumes), "projections": task(*projections)}
    trees["across"] = xr.Dataset({"error": (("arm", "set"), [[1.0, 3, 2], [4, 4, 4]])}, {"arm": ["dds", "dds, slice by slice"]})
    trees["speed"] = xr.Dataset(
        {"seconds": (("sampler", "repeat"), [[1.0, 2, 4], [4, 2, 32], [3, 8, 4]]), "pairs_ratio": ("image", [1.0])},
        {"sampler": ["dds", "dps", "pairs"]},
        {"pairs": 2000, "timed_pairs": 40, "images": 1, "quality_pairs": 200, "task": "projections"},
    )
    trees["leak"] = xr.Dataset({"contained": (("image", "steps"), [[0.1, 0.2]]), "tilted": (("image", "steps"), [[1.0, 1]])})
    trees["variance"] = xr.Dataset({"ratio": ("share", [0.9, 1.05])}, attrs={"samples": 800})
    found = judging.judge(replace(SMOKE, inner_steps=(1, 5, 10)), trees, Session(jax.random.key(0))).measures
    smaller, larger = np.minimum(coils, volumes), np.maximum(coils, projections)
    for name, samples in {
        "C2.psnr_difference_mri": 2 * coils,
        "C2.psnr_difference_ct": 2 * projections,
        "C3.exploding_gain": 3 * projections,
        "C4.gain_over_no_prior": 10 * smaller,
        "C4.gain_over_total_variation": 3 * smaller,
        "C4.gain_over_null_space_projection": 4 * smaller,
        "C4.slice_variation_ratio": (1 / 4, 3 / 4, 1 / 2),
        "C5.speedup_over_predictor_corrector": (150, 200, 50),
        "C5.time_over_back_propagation": (1 / 4, 1, 1 / 8),
        "C6.loss_at_20_times": 2 * larger,
        "C6.gain_from_five_inner_steps": 6 * projections,
        "C6.gain_beyond_five_inner_steps": 0.5 * projections,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, err_msg=name)
    assert found["C1.leak_outside_tangent"].value == 0.2
    np.testing.assert_allclose(found["C7.noise_variance_ratio"].intervals()[0], (0.9, 0.802, 0.998))


def test_sets_of_a_network_are_one_value():
    values = np.arange(6.0)
    np.testing.assert_array_equal(judging._of_networks(replace(SMOKE, seeds=6), values), [0.5, 2.5, 4.5])
    across = xr.Dataset({"error": (("arm", "set"), [[1.0, 4, 2, 2, 3, 3], [1] * 6])}, {"arm": ["dds", "dds, slice by slice"]})
    np.testing.assert_allclose(judging._across(replace(SMOKE, seeds=6), across).samples, [2, 2, 3])
