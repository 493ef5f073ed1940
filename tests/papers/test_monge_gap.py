from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from scipy.optimize import linear_sum_assignment, minimize

from gradatim.lab import Measure, Session, best_by_others, read_paper, validate
from gradatim.papers import monge_gap as paper
from gradatim.papers.monge_gap import judging, problems, training
from gradatim.transport import PNorm, exact_monge_gap

TOML = Path(paper.__file__).parents[1] / "monge_gap.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert set(smoke[0].untested) == {"C7.entropic_ratio_32", "C8.grid_spread"}


@pytest.mark.parametrize("name", ["C1", "C3", "C4"])
def test_what_holds_exactly_holds(smoke, name):
    claim = next(claim for claim in read_paper(TOML).claims if claim.id == name)
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"


def test_arms_share_their_samples_and_first_weights(smoke):
    plane = smoke[0].data["plane"]
    # One step of Adam at the same rate, whatever the weights of the terms.
    fits = plane["fit_history"].values[1]
    assert np.ptp(fits, axis=0).max() < 1e-6 < np.ptp(fits, axis=1).max()
    assert np.ptp(plane["fit_history"].values[-1], axis=0).min() > 1e-6
    # Those of known maps for powers too, but for the one whose network is no map but a slope.
    of_power = smoke[0].data["p_norm"]["fit_history"].isel(p=0).drop_sel(arm="structured")
    fits = of_power.transpose("row", "arm", "seed").values
    assert np.ptp(fits[1], axis=0).max() < 1e-6 < np.ptp(fits[-1], axis=0).min()


def test_training_lowers_the_fit(smoke):
    for name in ("plane", "euclidean", "sphere"):
        history = smoke[0].data[name]["fit_history"].values
        # Of different batches, so that a single run may seem to rise.
        assert history[-1].mean() < history[1].mean(), name
    history = smoke[0].data["p_norm"]["fit_history"].mean("seed")
    assert (history.isel(row=-1) < history.isel(row=1)).all()


def test_a_correction_starts_from_the_gaussian_map(smoke):
    dimensions = smoke[0].data["dimensions"]
    assert (abs(dimensions["plain"] / dimensions["gaussian"] - 1) < 0.2).all() and (dimensions["constant"] > 90).all()


def test_trap_a_map_is_judged_by_its_error_and_not_by_its_fit_alone(smoke):
    findings, session = smoke
    assert findings.data["plane"]["unexplained"].dims == ("arm", "seed")
    assert any(note.startswith("C5") and "divergence" in note and "%" in note for note in session.notes)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"maps", "weights", "euclidean", "sphere", "p_norm", "dimensions", "grid", "digits", "exact"}
    named = ("maps", "weights", "euclidean", "sphere", "p_norm", "dimensions", "exact")
    beside = figures["maps"].axes[1:] + figures["p_norm"].axes[1:]
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in named for ax in figures[name].axes if ax not in beside)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 2e9 < paper.memory(paper.SCALES["full"]) < 64e9


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_weights_off_the_grid_and_too_few_digits_are_refused():
    session = Session(jax.random.key(0))
    with pytest.raises(ValueError, match=r"must be on the grid of weights, got 3 and 0\.01"):
        paper.high_dimensions.run_dimensions(replace(SMOKE.dimensions, gap_weight=3.0), session, session.key)
    digits = replace(SMOKE.digits, training=replace(SMOKE.digits.training, held_out=40))
    with pytest.raises(ValueError, match=r"digits\.training\.held_out must be at most 3., the images of one digit, got 40"):
        paper.high_dimensions.run_digits(digits, session, session.key)


def test_crossings_are_counted():
    starts = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    assert problems.crossings(starts, np.array([[1.0, 1.0], [1.0, 0.0], [6.0, 5.0]])) == 1
    assert problems.crossings(starts, np.array([[1.0, 0.0], [1.0, 1.0], [6.0, 5.0]])) == 0


def test_the_known_map_is_the_gradient_of_its_potential():
    x, step = np.array([[0.3, -0.7]]), 1e-6

    def potential(z):
        return (z @ problems.PLANE_MAP.matrix * z).sum() / 2 + np.log(np.exp(z @ problems.PLANE_MAP.rows.T).sum())

    shifts = step * np.eye(2)[:, None]
    differences = [(potential(x + shift) - potential(x - shift)) / (2 * step) for shift in shifts]
    np.testing.assert_allclose(problems.PLANE_MAP(x)[0], differences, rtol=1e-6)


def power_costs(x, y, p):
    return (np.abs(x[:, None] - y[None]) ** p).sum(axis=-1) / p


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_known_maps_for_powers_are_optimal_for_their_own_cost_alone(p):
    y = problems.diagonal(np.random.default_rng(0), 400)
    x = problems.p_norm_source(y, p)
    for power in (1.5, 2.0, 3.0):
        costs = power_costs(x, y, power)
        own = np.diagonal(costs)
        share = (own - costs[linear_sum_assignment(costs)]).mean() / own.mean()
        assert share < 1e-12 if power == p else share > 0.02, power


@pytest.mark.parametrize("p", [1.5, 3.0])
def test_known_maps_for_powers_have_the_form_of_optimal_ones(p):
    """T(x) = x - ∇h*(∇φ(x)), φ(x) = min h(x - y) + g(y), by a search for the minimum and differences of its value."""
    y = np.array([[0.3, -0.1], [-1.2, -0.9], [0.9, 1.1]])

    def least(x):
        def height(z):
            return power_costs(x[None], z[None], p)[0, 0] + z[0] / 2 + z[1] / 4 + 0.75 * (z[0] - z[1]) ** 2

        return minimize(height, x, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-15})

    for place, x in zip(y, problems.p_norm_source(y, p), strict=True):
        np.testing.assert_allclose(least(x).x, place, atol=1e-5)
        slope = np.array([least(x + step).fun - least(x - step).fun for step in 1e-4 * np.eye(2)]) / 2e-4
        np.testing.assert_allclose(x - PNorm(p).conjugate_gradient(jnp.asarray(slope)), place, atol=1e-4)


def test_the_known_map_is_judged_by_every_power(smoke):
    known = smoke[0].data["p_norm"]["known_gap"].squeeze("p")
    assert known["power"].values.tolist() == [1.5, 2] and known.sel(power=1.5).max() < 1e-4
    y = problems.diagonal(np.random.default_rng(0), 300)[None]
    (own,), (other,) = paper.p_norms._known_gaps(problems.p_norm_source(y[0], 1.5)[None], y, [1.5, 2.0])
    assert own < 1e-4 < 2 < other


def test_a_map_trained_with_another_cost_is_judged_by_its_own(smoke):
    one = smoke[0].data["p_norm"].to_dataset().squeeze("p")
    for arm in one["arm"].values:
        pairs = (jnp.asarray(points.values, jnp.float32) for points in (one["source"], one["image"].sel(arm=arm)))
        found = exact_monge_gap(*pairs, cost=PNorm(1.5))
        np.testing.assert_allclose(one[["gap", "displacement"]].sel(arm=arm).isel(seed=0).to_array(), found[:2], rtol=1e-5, err_msg=arm)


def test_a_structured_map_is_made_by_the_cost():
    found = training.structured(lambda x: x**3, None, PNorm(4.0))(jnp.array([2.0, -1.0]))
    np.testing.assert_allclose(found, [0, 0], atol=1e-6)


def test_samples_lie_where_they_should():
    random = np.random.default_rng(0)
    for centres in (problems.NORTH, problems.SOUTHERN):
        np.testing.assert_allclose(np.linalg.norm(problems.patch(random, 50, centres), axis=1), 1)
    covariance = np.cov(problems.diagonal(random, 20_000).T)
    np.testing.assert_allclose(np.linalg.eigh(covariance)[0], [1 / 16, 1], rtol=0.05)
    np.testing.assert_allclose(np.diagonal(covariance), (1 + 1 / 16) / 2, rtol=0.05)
    assert problems.moons(random, 200)[:, 0].max() < problems.s_curve(random, 200)[:, 0].min() + 0.5


def test_every_seed_has_probes_of_its_own(monkeypatch):
    """With samples, batches and first weights alike, the penalty's probes alone tell seeds apart."""
    draw, batches = training._networks, training._batches

    def alike(config, random, n, dim, **options):
        arrays, network = draw(config, random, 1, dim, **options)
        return jax.tree.map(lambda leaf: np.repeat(leaf, n, axis=0), arrays), network

    monkeypatch.setattr(training, "_networks", alike)
    monkeypatch.setattr(training, "_batches", lambda random, n, config: batches(np.random.default_rng(0), n, config))
    points = np.random.default_rng(0).normal(size=(4, 1, 16, 2))
    config = training.Training(steps=2, batch_size=8, seeds=3, pool=16, held_out=16, width=4, depth=1)
    samples = training.Samples(*np.repeat(points, config.seeds, axis=1))
    arms = [training.Weights(), training.Weights(asymmetry=1.0)]
    session = Session(jax.random.key(0), scale="smoke")
    found = training.train(config, samples, arms, session, session.key, label="alike", build=training.structured, penalised=True)
    # Over seeds, of every number.
    without, with_penalty = np.ptp(found.images, axis=1)
    assert without.max() == 0 < with_penalty.min()


def test_the_spread_of_a_grid_is_chosen_by_other_seeds():
    errors = xr.DataArray(np.random.default_rng(0).normal(10, 1, size=(9, 19)), dims=("weights", "seed"))
    # All weights are alike: the extremes of a seed are not.
    ((_, low, high),) = judging._spread(errors, "weights").intervals()
    assert low < 1 < high and (errors.max("weights") / errors.min("weights")).min() > 1.1
    # One seed astray at the second weight is no sign that it is worst for the others.
    errors = xr.DataArray([[1.0] * 6, [2, 2, 2, 2, 2, 500], [9] * 6], dims=("weights", "seed"))
    np.testing.assert_allclose(judging._spread(errors, "weights").intervals(), [[9, 9, 9]])


def test_choices_that_are_nearly_tied_widen_the_intervals():
    random = np.random.default_rng(2)
    errors = xr.DataArray(np.exp(0.3 * random.normal(size=(5, 6))), dims=("share", "seed"))
    network = np.exp(0.1 * random.normal(size=6))
    entropic = best_by_others(errors, "share").values
    worst, best = (np.exp(best_by_others(np.log(errors), "share", maximise=maximise).values) for maximise in (True, False))
    for found, by_seed in (
        (judging._over_entropic(xr.Dataset({"network": ("seed", network), "by_share": errors})), (network, entropic)),
        (judging._spread(errors, "share"), (worst, best)),
    ):
        ((value, low, high),) = found.intervals()
        ((mean, lower, upper),) = Measure.paired(*by_seed, "log-ratio").intervals()
        np.testing.assert_allclose(value, mean)
        assert low < lower and upper < high


def test_the_entropic_map_is_given_the_best_share_of_the_other_seeds(monkeypatch):
    """The last seed does best at the second share, and the rest at the first."""
    errors = np.array([[1.0, 1, 3.9], [2, 2, 3]])
    of = {"entropic": errors, "converged": np.ones((2, 3)), "gaussian": np.ones(3), "constant": np.ones(3)}
    monkeypatch.setattr(paper.high_dimensions, "_classical", lambda *parts: of)
    monkeypatch.setattr(paper.high_dimensions, "_gaussian_maps", lambda *parts: None)
    found = training.Trained(np.zeros((3, 3, 34, 16)), *(np.zeros((3, 3)) for _ in range(3)), missed=0, history={})
    monkeypatch.setattr(paper.high_dimensions, "train", lambda *parts, **options: found)
    dimensions = replace(SMOKE.dimensions, entropic_shares=(0.1, 0.3))
    session = Session(jax.random.key(0), scale="smoke")
    entropic = paper.high_dimensions.run_dimensions(dimensions, session, session.key)["dimensions"]["entropic"]
    assert entropic.values.tolist() == [[1, 1, 3.9]]


def test_batches_go_through_all_points_before_any_comes_again():
    config = training.Training(steps=7, batch_size=25, pool=100)
    rows = training._batches(np.random.default_rng(0), 100, config)
    assert rows.shape == (7, 25) and sorted(rows[:4].ravel()) == list(range(100))


def test_a_gap_of_nothing_is_one_of_the_round_off(smoke, known_results):
    trees, put = known_results(smoke[0])
    put("p_norm", gap=0.0, displacement=2.0)
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0))).measures
    assert found["C6.p_norm_gap_ratio"].value == 1 and found["C6.p_norm_gap"].value == 0


def test_measures_of_known_maps(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds, sure = np.array([1.0, 2, 4]), np.ones(3)
    put("bounds", random=np.linspace(0.3, 1, 20), optimal=np.linspace(-0.2, 0.1, 7), subset=np.linspace(-0.4, 0.1, 35))
    off = np.array([[0.1, -0.3, 0, 0], [0.2, 0, 0, 0], [0, 0, 0, -0.4]])
    put("linear", formula=[1, 2, 4, 8], gap=(1 + off) * [1, 2, 4, 8], by_size=2 - np.array([[3.0], [2], [1]]))
    put("convexity", excess=np.linspace(-1, 0.5, 100))
    unexplained, fit = [8 * sure, 7 * sure, seeds, 9 * sure], [seeds, sure, 3 * sure, sure]
    names = ["none", "gap 0.1", "gap 1", "gap 10"]
    plane = {name: (("arm", "seed"), values) for name, values in {"unexplained": unexplained, "divergence": fit, "energy": fit}.items()}
    trees["plane"] = xr.Dataset({**plane, "target_energy": ("seed", sure)}, {"arm": names})
    put("euclidean", gap=np.stack([sure, seeds]), displacement=np.stack([sure, 50 * sure]))
    put("sphere", gap=np.stack([8 * sure, seeds]))
    # Without the gap, with it, with another, structured; by power and arm the worse is the second power, but for one seed.
    small = trees["p_norm"]
    trees["p_norm"] = xr.concat([small, small.assign_coords(p=[3.0])], "p")
    by_arm = np.stack([4 * sure, seeds, 9 * sure, 9 * sure]), np.stack([8 * sure, [6, 1, 8], 9 * sure, 9 * sure])
    put("p_norm", gap=np.stack(by_arm), displacement=np.array([50, 200])[:, None, None])
    small = trees["dimensions"]
    trees["dimensions"] = xr.concat([small, small.assign_coords(dimension=[32])], "dimension")
    put("dimensions", network=np.stack([seeds, 3 * seeds]), by_share=[[[5], [2], [5], [5], [5]], [[4], [5], [5], [5], [5]]])
    corners = np.stack([sure, 2 * sure, 3 * sure, 8 * seeds]).reshape(2, 2, 3)
    trees["grid"] = xr.Dataset({"unexplained": (("gap_weight", "asymmetry_weight", "seed"), corners)})
    config = replace(SMOKE, plane=replace(SMOKE.plane, weights=(0.1, 1.0, 10.0)))
    found = judging.judge(config, trees, Session(jax.random.key(0))).measures
    for name, value in {
        "C1.least_gap": 0.3,
        "C1.gap_of_optimal_maps": 0.2,
        "C2.error_by_size": (3, 2, 1),
        "C3.subset_gap": 0.4,
        "C4.midpoint_excess": 0.5,
    }.items():
        np.testing.assert_allclose(found[name].value, value, err_msg=name)
    for name, samples in {
        "C1.linear_map_error": (0.3, 0.2, 0.4),
        "C5.unexplained_variance": seeds,
        "C5.gain": 8 / seeds,
        "C5.fit_ratio": 3 / seeds,
        "C6.euclidean_gap": 2 * seeds,
        "C6.sphere_gap_ratio": seeds / 8,
        "C6.p_norm_gap": (3, 4, 8),
        "C6.p_norm_gap_ratio": (0.75, 0.5, 1),
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, rtol=1e-5, err_msg=name)
    # All seeds choose alike: the intervals are those of the ratios.
    for name, ratios in {
        "C5.weight_spread": 9 / seeds,
        "C7.entropic_ratio_16": seeds / 2,
        "C7.entropic_ratio_32": 3 * seeds / 4,
        "C8.grid_spread": 8 * seeds,
    }.items():
        np.testing.assert_allclose(found[name].intervals(), Measure.paired(ratios, sure, "log-ratio").intervals(), err_msg=name)
