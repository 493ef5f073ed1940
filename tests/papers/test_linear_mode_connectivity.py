from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from gradatim.lab import Session, read_paper, validate
from gradatim.papers import linear_mode_connectivity as paper
from gradatim.papers.linear_mode_connectivity import judging, toys

TOML = Path(paper.__file__).parents[1] / "linear_mode_connectivity.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) == parts and not smoke[0].untested


def test_toys_and_linear_networks_are_as_known_beforehand(smoke):
    measures = smoke[0].measures
    assert abs(measures["C5.product_barrier"].value - 0.5) < 1e-9
    assert abs(measures["C5.permutation_barrier"].value - 0.0081288) < 1e-7
    assert measures["C5.matched_barrier"].value < 1e-14
    assert measures["C4.linear_net_barrier"].value < 1e-12 and smoke[0].data["linear"]["whole"].values.min() > 1e-3
    verdict = read_paper(TOML).claims[4].judge(measures, "smoke")
    assert verdict["verdict"] == "holds"
    assert any("once they are matched" in note and "predicted {'integral': 0.5, 'midpoint': 1.0" in note for note in smoke[1].notes)


def test_the_integral_is_the_height_for_a_smooth_network_and_not_for_kinks(smoke):
    tanh, relu = (
        judging.integral_errors(data["prediction"].sel(estimate="integral").values, data["middle"].values)
        for data in (smoke[0].data[arm].to_dataset() for arm in ("tanh", "relu"))
    )
    # Ten nodes on either side: what is left is the quadrature.
    assert tanh.max() <= 0.1 and relu[:, -1].min() > 0.5


@pytest.mark.parametrize("arm", judging.ARMS)
def test_t4_children_are_one_until_their_fork_and_two_from_then_on(smoke, arm):
    data = smoke[0].data[arm]
    for i, fork in enumerate(SMOKE.fork_epochs):
        distances = data["watched_distance"].values[..., i]
        assert (distances[: fork + 1] == 0).all() and (distances[fork + 1 :] > 0).all()
        losses = data["watched_loss"].values[..., 2 * i : 2 * i + 2]
        assert np.array_equal(losses[: fork + 1, :, 0], losses[: fork + 1, :, 1])
        assert np.isnan(data["watched_angle"].values[: fork + 1, :, i]).all()
    # Up to its fork a late child is what an earlier one would have been: the trunk of the same seed.
    trunk = data["watched_loss"].values[: SMOKE.fork_epochs[-1] + 1, :, 2 * len(SMOKE.fork_epochs) - 2]
    assert np.array_equal(trunk[: SMOKE.fork_epochs[1] + 1], data["watched_loss"].values[: SMOKE.fork_epochs[1] + 1, :, 2])


@pytest.mark.parametrize("arm", judging.ARMS)
def test_what_was_watched_is_what_is_measured_at_the_end(smoke, arm):
    data = smoke[0].data[arm]
    assert np.allclose(data["watched_distance"].values[-1], data["distance"].values, rtol=1e-5)
    assert np.allclose(data["watched_angle"].values[-1], data["angle"].values, atol=1e-2)
    assert (data["crest"] >= data["line"].max("t") - 1e-6).all() and (data["barrier"] >= 0).all()
    ends = (data["line"].values[..., 0] + data["line"].values[..., -1]) / 2
    assert np.allclose(data["end_loss"].values, ends, rtol=1e-4)


def test_t9_a_barrier_is_told_beside_its_ends_and_the_loss_at_the_fork(smoke):
    findings, session = smoke
    ratio = findings.data["tanh"]["crest"].values[:, :-1] / findings.data["tanh"]["fork_loss"].values
    shown = [m for arm in judging.ARMS for m in session.notes if m.startswith(f"{arm}: end loss")]
    assert len(shown) == 2 and all("over the end loss" in note and "over the mean of the ends" in note for note in shown)
    assert findings.measures["C1.crest_over_fork_loss"].value >= ratio.max(axis=1).mean() - 1e-9


def test_t8_both_defaults_are_in_the_record(smoke):
    layers = smoke[0].data["tanh_layers"]
    assert layers["single"].dims == ("seed", "case", "layer", "default") and layers.sizes["default"] == 2
    whole = smoke[0].data["tanh"]["barrier"].sel(pair=["fork 0", "independent"]).values
    # The last growing set is the whole network, seen at fewer points.
    assert np.allclose(layers["cumulative"].values[:, :, -1].max(axis=-1), whole, rtol=0.3, atol=1e-3)


def test_the_plane_holds_its_three_points(smoke):
    path = smoke[0].data["plane"]["path"].values
    assert path.shape == (SMOKE.tanh.epochs + 1, 2, 2) and np.allclose(path[0], 0, atol=1e-5) and abs(path[-1, 0, 1]) < 1e-4
    apart = np.linalg.norm(path[-1, 0] - path[-1, 1])
    assert np.isclose(apart, smoke[0].data["tanh"]["distance"].values[0, 0], rtol=1e-4)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"lines", "barriers", "ways", "layers", "prediction", "plane", "toys"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name, fig in figures.items() if name not in ("layers", "plane") for ax in fig.axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 1e9 < paper.memory(paper.SCALES["full"]) < 16e9


@pytest.mark.parametrize("forks", [(1, 2), (0, 2, 2), (0, 8)])
def test_forks_that_cannot_be_are_refused(forks):
    with pytest.raises(ValueError, match="fork_epochs must ascend from 0 and end before the 8 epochs of training, got"):
        paper.run(replace(SMOKE, fork_epochs=forks), Session(jax.random.key(0)))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_rank_correlation_without_spread_has_none(sign):
    rows = np.arange(15.0).reshape(3, 5)
    np.testing.assert_allclose(judging.rank_measure(rows, 20 + sign * rows).intervals()[0], sign, rtol=2e-6)


def test_trap_forks_of_a_seed_are_no_repetitions():
    # Seeds lie in any order and their forks close together: as many forks as one likes tell no more of the correlation.
    random = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(200):
        levels = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=9)
        predicted, barrier = (10 + level[:, None] + 1e-3 * random.normal(size=(9, 5)) for level in levels.T)
        measure = judging.rank_measure(predicted, barrier)
        # Of Spearman, for a normal pair.
        covered.append(measure.low <= 6 / np.pi * np.arcsin(0.3) <= measure.high)
        widths.append(measure.high - measure.low)
    assert np.mean(covered) > 0.9 and np.mean(widths) > 0.8


def test_t2_what_is_below_the_noise_makes_no_ratio_larger():
    assert judging.at_least_noise(np.array([0.0, -1.0, 1e-7, 0.1])).tolist() == [1e-5, 1e-5, 1e-5, 0.1]
    assert np.allclose(judging.integral_errors(np.array([[0.101, 1e-5]]), np.array([[0.1, 0.0]])), [[0.01, 0.02]])


def test_instability_is_over_the_mean_of_the_ends():
    assert np.allclose(judging.instabilities(np.array([[0.1, 0.4, 0.3], [0.1, 0.1, 0.3]])), [0.2, 0.1])


def test_ways_on_the_product_landscape_end_on_the_branch_of_their_sum():
    ways = toys._ways()
    assert np.allclose(ways[-1].prod(axis=1), 1, atol=1e-2)
    assert np.array_equal(np.sign(ways[-1][:, 0]), np.sign(ways[0].sum(axis=1)))
    kept = ways[..., 0] ** 2 - ways[..., 1] ** 2
    assert np.allclose(kept, kept[:1], atol=0.06)


def test_one_seed_with_a_barrier_is_not_left_out(smoke, known_results):
    trees, put = known_results(smoke[0])
    for arm in judging.ARMS:
        put(arm, barrier=1)
        put(f"{arm}_layers", single=0)
    repeats = {name: data.isel(seed=np.arange(9) % 3).copy(deep=True) if "seed" in data.dims else data for name, data in trees.items()}
    repeats["tanh_layers"]["single"][4, 1, 0, 1] = 0.14
    session = Session(jax.random.key(0))
    share = judging.judge(repeats, session).measures["C4.layer_over_full"]
    assert np.isclose(share.value, 0.14 / 9) and share.high > 0.05
    assert any("relu 0 of 9, 0; tanh 1 of 9, 0.14" in note for note in session.notes)


def test_measures_of_known_lines(smoke, known_results):
    trees, put = known_results(smoke[0])
    # By fork and between initialisations, which no rank counts.
    put("relu", barrier=[4, 2, 1, 40], crest=[1, 2, 3, 99], fork_loss=[1, 1, 2], distance=[3, 2, 1, 9], angle=[1, 2, 3])
    put("tanh", barrier=[4, 1, 2, 16], crest=[3, 1, 1, 99], fork_loss=[1, 1, 1], distance=[3, 1, 2, 9], angle=[1, 3, 2])
    measured = trees["tanh"]["barrier"].values
    put("tanh", middle=2, prediction=np.stack([np.full((3, 4), 2.0), measured, 9 - measured, -measured, -measured]))
    trees["tanh"]["prediction"][0, 1, 2] = 2.5
    whole = {"relu_layers": (1, 8), "tanh_layers": (2, 4)}
    for name, worst in whole.items():
        put(name, single=0.1, middle=1, integral=1)
        trees[name]["single"][:, 0, 2, 1], trees[name]["single"][:, 1, 0, 0] = worst
    trees["tanh_layers"]["integral"][2, 1, 0] = 0.5
    found = judging.judge(trees, Session(jax.random.key(0))).measures
    for name, value in {
        "C1.barrier_rank": -0.5,
        "C1.independent_over_fork_0": 4,
        "C1.fork_0_over_fork_5": 2,
        "C1.crest_over_fork_loss": 3,
        "C2.distance_rank": -0.5,
        "C2.angle_rank": 1,
        "C3.integral_error": 0.25,
        "C3.end_point_rank": 1,
        "C4.layer_over_full": 0.5,
        "C4.layer_integral_error": 0.5,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
