from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import diffusion_gauge as paper
from gradatim.papers.diffusion_gauge import judging, networks, sphere
from gradatim.papers.diffusion_gauge.fields import SPHERE_FIELDS
from gradatim.transport import sliced_distance

TOML = Path(paper.__file__).parents[1] / "diffusion_gauge.toml"
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
    # The flows of networks, which take longest to compile, are for the tests that take minutes.
    assert set(smoke[0].measures) | {"C7.gradient_network_share", "C7.gain_over_free_network"} == parts
    assert set(smoke[0].untested) == {"C7"}


def test_what_holds_exactly_holds(smoke):
    claims = {claim.id: claim for claim in read_paper(TOML).claims}
    for name in ("C1", "C3", "C4", "C5"):
        assert claims[name].judge(smoke[0].measures, "smoke")["verdict"] == "holds", name
    for name, most in (("C2.covariance_error", 1e-6), ("C6.singular_value_error", 1e-4), ("C8.gauge_share_gradient", 1e-6)):
        assert smoke[0].measures[name].value < most, name
    assert smoke[0].measures["C6.correct_share"].value == 1


def test_o5_singular_values_by_an_equation_of_their_own():
    times = 1 - np.array([1.0, 0.1, 0.01, 0.001])
    found = sphere.expected_singular_values(np.array([[1.5, 0, 0, 0]]), times)[0]
    tangential, radial, padded = [0.6902821, 0.6656791, 0.6663149], [0.4468273, 0.0652570, 0.0153415], [0.3220595, 0.0446441, 0.0104856]
    np.testing.assert_allclose(found[1:].T, [tangential, tangential, radial, padded], atol=1e-6)


def test_trap_what_has_no_divergence_only_is_shown_beside_what_is_a_gauge_field(smoke):
    parts, likelihoods = (smoke[0].data[name].to_dataset() for name in ("decompositions", "likelihoods"))
    assert float(parts["mixture_rotation"].max()) > 0.1
    errors = np.abs(likelihoods["log_density"] - likelihoods["exact"]).mean("point")
    assert float(errors.sel(case="rotation 2")) > 0.1


def test_a_gauge_part_moves_points_and_singular_values_and_no_radius(smoke):
    data = smoke[0].data["sphere_3"].to_dataset()
    apart = np.abs(data["singular_values"] - data["expected"]).max(["start", "time", "index"])
    assert (apart.sel(field=list(SPHERE_FIELDS[1:])) > 0.01).all()
    np.testing.assert_allclose(data["radius"], np.broadcast_to(data["radius"].sel(field="score"), data["radius"].shape), atol=1e-6)


def test_euler_errs_more_with_a_gauge_part(smoke):
    error = smoke[0].data["euler"]["error"].values
    assert (np.diff(error, axis=0) > 0).all() and (np.diff(error, axis=1) < 0).all()


def test_trap_both_kinds_of_network_have_the_same_parameters_and_start(smoke):
    first = smoke[0].data["training_3"]["loss"].values
    assert first.shape[1:] == (2, 2, SMOKE.learned.seeds) and (first[-1] < first[0]).all()
    init, _, _ = networks._training(SMOKE, 3)
    state = jax.eval_shape(init, jax.random.split(jax.random.key(0), 3))
    assert jax.tree.map(lambda leaf: leaf.shape, state[0]["free"]) == jax.tree.map(lambda leaf: leaf.shape, state[0]["gradient"])


def test_o7_the_error_splits_over_the_parts(smoke):
    parts = smoke[0].data["parts_3"].to_dataset().sum("level")
    split = parts["gradient_error"] + parts["remainder"]
    # On held-out samples, and with few of them.
    np.testing.assert_allclose(split, parts["error"], rtol=0.3)


def test_surfaces_have_two_dimensions_turned_into_more():
    flat, turned = (networks.surfaces(500, dim, jax.random.key(0)) for dim in (3, 5))
    np.testing.assert_allclose(flat.std(axis=1).mean(axis=1), 1, atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(flat[1], axis=1), 3**0.5, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=2), np.linalg.norm(flat, axis=2), rtol=1e-4)
    assert (np.linalg.matrix_rank(turned, tol=1e-3) == 3).all() and np.abs(turned).min(axis=1).max() > 0


def test_trap_every_network_has_data_of_its_own():
    settings = replace(SMOKE.learned, dims=(3, 5))
    data = networks.data_sets(settings, jax.random.key(0))
    assert {dim: points.shape for dim, points in data.items()} == {dim: (2, 3, settings.points, dim) for dim in (3, 5)}
    firsts = np.concatenate([np.linalg.norm(points[:, :, 0], axis=-1) for points in data.values()])[[0, 2]]
    assert len(np.unique(firsts)) == 6
    again = networks.data_sets(settings, jax.random.key(1))
    assert not np.isin(firsts, [np.linalg.norm(points[:, :, 0], axis=-1) for points in again.values()]).any()


def test_the_sliced_distance_of_a_shift_along_the_only_direction_is_its_length():
    data = np.random.default_rng(0).normal(size=(100, 3))
    np.testing.assert_allclose(sliced_distance(data + np.array([0, 0.3, 0]), data, np.array([[0.0, 1.0, 0.0]])), 0.3)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"ellipses", "exactness", "sphere", "parts"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in ("ellipses", "exactness", "parts") for ax in figures[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 3e9 < paper.memory(paper.SCALES["full"]) < 64e9


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings_and_flows_of_networks_are_read(smoke):
    config = replace(SMOKE, learned=replace(SMOKE.learned, starts=6))
    again = paper.run(config, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())
    reading = again.data["reading_3"].to_dataset()
    assert reading["by_slope"].shape == (2, 2, SMOKE.learned.seeds, 6) and set(again.untested) <= {"C7"}
    values = reading["singular_values"].values
    assert np.isfinite(values).all() and (np.diff(values, axis=-1) <= 0).all()
    np.testing.assert_allclose(values[..., 0, :], 1, atol=1e-6)
    assert {"networks", "dimensions"} < set(paper.draw(again))


def test_trap_flows_of_networks_that_do_not_know_the_score_are_not_judged():
    # One network of many is off at the level where flows are read; elsewhere errors do not count.
    errors = np.full((2, 2, 3, 2), 0.1)
    errors[:, 1], errors[0, 0, :, 1] = 50.0, 6.0
    parts = xr.Dataset(
        {
            "error": (("surface", "level", "seed", "kind"), 2 * errors),
            "field": (("surface", "level", "seed", "kind"), np.full_like(errors, 2.0)),
        },
        {"surface": ["rolled sheet", "sphere"], "level": [0.003, 0.3], "kind": ["free", "gradient"]},
    )
    found = [judging.score_error({"parts_3": parts}, 3, surface) for surface in ("rolled sheet", "sphere")]
    np.testing.assert_allclose(found, [6.0, 0.1])


def test_measures_of_known_results(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds = np.array([1.0, 2, 4])
    put("decompositions", inner=np.linspace(0, 0.1, 64), split=0.2, mixture=np.linspace(0, 0.3, 400), mixture_rotation=0.9)
    put("decompositions", divergence=np.linspace(0, 0.4, 400), along=np.linspace(0, 0.5, 400))
    put("likelihoods", exact=1.0, log_density=1 + np.multiply.outer([7.0, 2, -5, 100, 100, -3], np.linspace(0, 1, 64)))
    put("flows", covariance_error=np.multiply.outer([0.1, 0.6, 0.2, 9, 9, 9], np.linspace(0, 1, 121)))
    put("penalised", statistic=np.stack([np.multiply.outer(seeds, [3.0, 4, 0]), np.full((3, 3), 10.0)]))
    # The one furthest from one, either way.
    put("samples", distance=np.multiply.outer([[1, 1.1, 1.5, 1.2], [1, 0.9, 0.8, 0.5]], seeds))
    put("sphere_3", expected=0.0, singular_values=np.reshape([-0.25, 3, 3, 3], (4, 1, 1, 1)))
    put("sphere_3", by_slope=[[2, 2, 1, 2], [0, 0, 0, 0], [0, 0, 0, 0], [2, 2, 2, 2]])
    # By surface, level, seed and kind: of sums over surfaces and levels, shares and what is left over.
    field, rest, error, known = np.zeros((4, 2, 3, 3, 2))
    field[:] = np.reshape([1, 2, 3], (3, 1, 1))
    rest[0, 0] = 12 * np.stack([[0.1, 0.2, 0.4], [0.01, 0.02, 0.04]], axis=1)
    error[1, 2] = 40
    known[0, 1] = 40 - rest[0, 0] - 4 * seeds[:, None]
    put("parts_3", field=field, remainder=rest, error=error, gradient_error=known)
    free, gradient = np.array([[0.5, 0.5, 0.5], [0.25, 0.5, 0.75]]), np.array([[1, 0.5, 0.75], [0.75, 0.75, 0.5]])
    right = np.where(np.arange(4) < 4 * np.stack([free, gradient])[..., None], 2, 3)
    rules = dict.fromkeys(("by_gap", "normal_space", "fokker_planck"), (("kind", "surface", "seed", "start"), 3 + 0 * right))
    local = {
        "local_components": (("surface", "seed", "start"), np.ones((2, 3, 4))),
        "nearest_neighbours": (("surface", "seed"), np.ones((2, 3))),
    }
    trees["reading_3"] = xr.Dataset({"by_slope": (("kind", "surface", "seed", "start"), right), **rules, **local})
    config = replace(SMOKE, learned=replace(SMOKE.learned, starts=4))
    found = judging.judge(config, trees, Session(jax.random.key(0), precision="double")).measures
    off = error.copy()
    off[0, 0] = 2 * field[0, 0]
    off[1, 0] = 0.9 * field[1, 0]
    put("parts_3", error=off)
    session = Session(jax.random.key(0), precision="double")
    known = judging.judge(config, trees, session).measures
    np.testing.assert_allclose(known["C7.gradient_network_share"].samples, gradient[1])
    np.testing.assert_allclose(known["C7.gain_over_free_network"].samples, gradient[1] - free[1])
    assert any("rolled sheet in 3" in note for note in session.notes if "not judged" in note)
    off[1, 0] = 2 * field[1, 0]
    put("parts_3", error=off)
    none = judging.judge(config, trees, Session(jax.random.key(0), precision="double"))
    assert not {"C7.gradient_network_share", "C7.gain_over_free_network"} & set(none.measures) and "C7" in none.untested
    for name, value in {
        "C1.orthogonality_error": 0.1,
        "C1.split_error": 0.2,
        "C1.gauge_residual": 0.3,
        "C2.covariance_error": 0.6,
        "C3.likelihood_error": 7,
        "C4.error_of_wrong_gradient": 1.5,
        "C4.error_of_right_nongradient": 5,
        "C5.divergence": 0.4,
        "C5.component_along_score": 0.5,
        "C6.correct_share": 0.75,
        "C6.singular_value_error": 0.25,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    for name, samples in {
        "C2.sliced_distance_ratio": [0.5, 0.5, 0.5],
        "C7.gradient_network_share": [0.75, 0.5, 0.5],
        "C7.gain_over_free_network": [0.5, 0.125, 0],
        "C8.gauge_share_free": [0.1, 0.2, 0.4],
        "C8.gauge_share_gradient": [0.01, 0.02, 0.04],
        "C8.loss_split_error": seeds / 10,
        "C9.gauge_statistic_ratio": seeds / 2 / 3**0.5,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, err_msg=name)
