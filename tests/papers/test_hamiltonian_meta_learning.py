from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Measure, Session, best_by_others, read_paper, validate
from gradatim.papers import hamiltonian_meta_learning as paper
from gradatim.papers.hamiltonian_meta_learning import adapting, arms, comparison, judging, trajectories

TOML = Path(paper.__file__).parents[1] / "hamiltonian_meta_learning.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module")
def smoke():
    session, special = Session(jax.random.key(0), scale="smoke"), []

    def special_tasks(config, keys):
        special.append(trajectories.special_tasks(config, keys))
        return special[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "special_tasks", special_tasks)
        return paper.run(SMOKE, session), session, special


def test_every_part_is_measured(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert set(smoke[0].measures) == parts and not smoke[0].untested


def test_outer_losses_fall_and_adaptation_helps(smoke):
    training, adaptation = (smoke[0].data[name].to_dataset() for name in ("training", "adaptation"))
    logs = np.log(training["loss"]).mean(["system", "seed"])
    assert (logs.isel(outer_step=-1) < logs.isel(outer_step=0)).all()
    errors = adaptation["error"]
    assert errors.sizes == {"arm": 3, "system": 4, "seed": 3, "task": 3, "adapt_step": SMOKE.adapt_steps + 1}
    assert (errors.isel(adapt_step=-1).sel(arm="random").median() < errors.isel(adapt_step=0).sel(arm="random").median()).all()
    assert (adaptation["change"].isel(adapt_step=0) == adapting.LEAST_CHANGE).all()


def test_no_run_sees_its_held_out_system_and_all_arms_of_a_seed_start_alike():
    runs = arms.make_runs(SMOKE, jax.random.split(jax.random.key(0), 4), ("mish", "tanh"), np.arange(3), 4)
    held_out, sets = np.tile(np.repeat(np.arange(4), 3), 2), np.tile(np.arange(3), 8)
    for row, out, data in zip(runs.others, held_out, sets, strict=True):
        assert sorted(row % 4) == sorted({0, 1, 2, 3} - {out}) and (row // 4 == data).all()
    weights = np.asarray(runs.learners.network.weights[0])
    assert np.array_equal(weights[:12], weights[12:]) and len(np.unique(weights[:, 0, 0])) == 3
    keys = np.asarray(jax.random.key_data(runs.keys))
    assert np.array_equal(keys[:12], keys[12:]) and np.array_equal(keys[0], keys[3])


def test_rates_are_chosen_for_every_arm_on_one_grid_and_told(smoke):
    notes = [note for note in smoke[1].notes if "by system held out (" in note]
    assert len(notes) == 4
    adaptation = smoke[0].data["adaptation"]["rate"].values
    assert set(np.unique(adaptation)) <= set(SMOKE.adapt_rates)


def test_every_seed_chooses_by_its_own_pilot(monkeypatch):
    config = replace(SMOKE, outer_rates=(1e-3, 1e-2, 1e-1))
    experiment = comparison.Experiment(config, Session(jax.random.key(0), scale="smoke"))
    # The error of each arm, system and seed is least at a rate of its own; Adam's rates are told apart by their place in the grid.
    picks = np.arange(6 * 4 * 3).reshape(6, 4, 3) % 3
    trained = []

    def train_all(sets, tried, n_steps, label):
        trained.append((sets, tried, n_steps))
        batch = comparison.Batch(None, (3, 4, len(sets)))
        return batch, batch, None

    def last_errors(session, learners, tasks, inner, n_steps, label):
        names = label.partition(" of ")[2].removeprefix("the inner steps of ").split(", ")
        best = picks[:3] if names[0] == "meta" else picks[3:]
        grid = config.outer_rates if "Adam" in label else config.inner_rates
        told.append((names, inner.reshape(3, 4, 3, len(grid))))
        assert n_steps == config.inner_steps
        return np.abs(np.arange(len(grid)) - best[..., None] % len(grid)).ravel()

    told = []
    monkeypatch.setattr(experiment, "_train_all", train_all)
    monkeypatch.setattr(comparison, "last_errors", last_errors)
    chosen = experiment.pilot()
    for arm, pick in zip((*comparison.ARMS, *comparison.OTHERS), picks, strict=True):
        if arm != "random":
            np.testing.assert_array_equal(chosen[arm][0], np.asarray(config.outer_rates)[pick])
        if arm not in ("random", "pooled"):
            np.testing.assert_array_equal(chosen[arm][1], np.asarray(config.inner_rates)[pick % 2])
    (sets, first, n_steps), (_, second, _) = trained
    # The pilot of seed i has the set 3 + i, which no main run sees, and tries the whole grid.
    assert sets.tolist() == [3, 3, 3, 4, 4, 4, 5, 5, 5] and n_steps == config.pilot_steps
    np.testing.assert_array_equal(first["tanh"][0], np.tile(config.outer_rates, (4, 3)))
    assert (first["tanh"][1] == config.inner_rates[1]).all()
    np.testing.assert_array_equal(second["tanh"][0], np.repeat(chosen["tanh"][0], 2, axis=1))
    np.testing.assert_array_equal(second["tanh"][1], np.tile(config.inner_rates, (4, 3)))
    for names, inner in told:
        for arm, rates in zip(names, inner, strict=True):
            assert (rates == 0).all() if arm in ("pooled", "random") else (rates > 0).all()


def test_the_rate_of_adaptation_is_the_best_of_each_group(monkeypatch):
    errors = {0.1: [3.0, 1, 2, 5], 0.3: [2.0, 4, 2, 1]}
    monkeypatch.setattr(adapting, "last_errors", lambda session, learners, tasks, rates, n_steps, label: errors[rates[0]])
    learners = arms.make_runs(SMOKE, jax.random.split(jax.random.key(0), 1), ("mish",), np.arange(1), 4).learners
    tasks = trajectories.damped_tasks(0.5, jax.random.key(0), 2, 10)
    found = adapting.choose_rates(Session(jax.random.key(0)), learners, tasks, (0.1, 0.3), (2, 1, 2), n_steps=3, label="rate")
    np.testing.assert_array_equal(found, [[[0.3, 0.1]], [[0.1, 0.3]]])


def test_damping_is_what_no_energy_can_produce(double):
    tasks = jax.jit(lambda key: trajectories.damped_tasks(0.5, key, 2, 50))(jax.random.key(0))
    states, rates = (np.asarray(part)[0][:, [0, 2]] for part in tasks.query)
    # Fields of the energies q, p, q², qp, p², q³, …: least squares over the points of the disc.
    q, p = states.T
    powers = [(i, j) for i in range(4) for j in range(4) if 0 < i + j <= 4]
    columns = [np.concatenate([j * q**i * p ** max(j - 1, 0), -i * q ** max(i - 1, 0) * p**j]) for i, j in powers]
    target = rates.T.ravel()
    residual = target - np.stack(columns, axis=1) @ np.linalg.lstsq(np.stack(columns, axis=1), target, rcond=None)[0]
    floor = trajectories.damped_floor(0.5)
    assert np.isclose(np.linalg.norm(residual) / np.linalg.norm(target), floor, rtol=1e-10)
    assert np.isclose(floor, 0.5 / np.sqrt(2 * 2.25)) and np.linalg.norm(states, axis=1).max() < 1


def test_every_seed_has_special_tasks_and_links_of_its_own_and_its_arms_share_them(smoke):
    ((damped, pairs, links),) = smoke[2]
    for drawn in (damped.support.states, pairs.support.states, pairs.query.states, jax.random.key_data(links)):
        rows = np.asarray(drawn).reshape(3 * 4, 3, -1)
        assert (rows == rows[0]).all() and len(np.unique(rows[0], axis=0)) == 3


def test_damped_error_stays_above_its_floor(smoke):
    special = smoke[0].data["special"]
    assert (special["damped_error"] > 0.98 * special["damped_floor"]).all()


def test_energy_errors_are_those_of_the_true_system():
    true = np.tile(np.array([1, 0, 0, 0], np.float32), (4, 1, 1, 1, 3, 1))
    off = true.copy()
    off[..., 1:, 1] = 0.5
    judged = jax.tree.map(np.asarray, adapting.judge_paths(jnp.asarray(np.stack([true, off])), jnp.asarray(true)))
    assert np.allclose(judged.state_error[0], 1e-6) and np.allclose(judged.energy_error[0], 1e-6)
    # The oscillator's and the pendulum's energies do not know the second coordinate; its motion is told apart.
    assert np.allclose(judged.energy_error[1, :2], 1e-6) and (judged.energy_error[1, 2:] > 1e-2).all()
    assert np.allclose(judged.surplus[1, :2], 0.5 * np.sqrt(2 / 3)) and np.isnan(judged.surplus[:, 2:]).all()
    assert np.allclose(judged.surplus[0, :2], 0)


def test_an_error_that_is_not_finite_counts_as_the_worst():
    assert np.allclose(adapting.capped(jnp.array([0.5, jnp.nan, jnp.inf, 1e3])), [0.5, 10, 10, 10])


def test_systems_ahead_are_counted_by_their_medians():
    error = np.ones((3, 4, 1, 3))
    error[0, 0] = 0.5  # ahead of both
    error[0, 1] = 0.7  # not far enough from the random start
    error[0, 2], error[1, 2] = 0.4, 0.3  # behind the pooled network
    error[0, 3, 0] = [0.1, 0.2, 9.0]  # ahead in the median
    data = xr.DataArray(error, dims=("arm", "system", "seed", "task"), coords={"arm": ["meta", "pooled", "random"]})
    assert judging.systems_ahead(data).tolist() == [2]
    assert np.allclose(judging.remaining(data, data / 2, "meta"), 0.5)


def test_the_worst_system_is_that_of_the_other_seeds():
    ratios = np.array([[8.5, 1, 1], [2, 2, 2]])
    error = xr.DataArray(np.stack([ratios, 1 + 0 * ratios]), {"arm": ["meta", "random"], "system": ["a", "b"]}, ("arm", "system", "seed"))
    assert judging._worst(error, "random", Session(jax.random.key(0))).value == pytest.approx(2 ** (1 / 3))


@pytest.mark.parametrize("apart", [0.0, 9.0])
def test_systems_that_are_tied_widen_the_interval(apart):
    ratios = np.random.default_rng(0).normal(size=(4, 6))
    ratios += np.array([0, apart, 0, 0])[:, None] - ratios.mean(1, keepdims=True)
    logs = xr.DataArray(ratios, dims=("system", "seed"))
    error = xr.concat([np.exp(logs), 1 + 0 * logs], "arm").assign_coords(arm=["meta", "random"], system=list("abcd"))
    found = judging._worst(error, "random", Session(jax.random.key(0)))
    worst = np.exp(best_by_others(logs, "system", maximise=True).values)
    read = Measure.paired(worst, np.ones_like(worst), "log-ratio")
    assert np.isclose(found.value, read.value) and found.method == "jackknife over 6 seeds"
    if apart:
        np.testing.assert_allclose(found.intervals(), read.intervals())
    else:
        assert np.log(found.high / found.low) > 1.2 * np.log(read.high / read.low)


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"adaptation", "orbits", "along_time", "representation", "comparisons", "training"}
    assert all(ax.get_xlabel() for fig in figures.values() for ax in fig.axes)


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
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 1e9 < paper.memory(paper.SCALES["full"]) < 32e9


def test_points_that_do_not_go_into_each_other_are_refused():
    with pytest.raises(ValueError, match="fewer_points must divide points = 10, got 3"):
        paper.run(replace(SMOKE, fewer_points=(3,)), Session(jax.random.key(0)))


def test_measures_of_known_errors(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds, tasks, steps = np.array([1.0, 2, 4]), np.array([0.25, 2, 2]), np.linspace(1, 0, 11)
    ours = np.reshape(seeds, (3, 1, 1))

    def arms(meta, pooled, random):
        return np.stack(np.broadcast_arrays(meta, pooled, random))[:, None]

    # Adaptation leaves a half, a quarter and an eighth; tasks differ by factors whose geometric mean is one.
    put("adaptation", error=0.1 * tasks[:, None] * arms(ours * (1 + steps * (2 * ours - 1)), 2.0, 4.0))
    put("adaptation", change=0.1 * tasks[:, None] * arms(ours * (1 + steps), 5.0, 90.0))
    put("few_points", error=tasks * arms(ours[..., 0], 8.0, 100.0))
    put("paths", state_error=arms(3 * ours, 6.0, 100.0))
    put("paths", energy_error=arms(ours, 2.0, 4.0) * np.stack([[1, 2, 8, 4], [1] * 4, [1] * 4]).reshape(3, 4, 1, 1, 1))
    put("paths", surplus=arms(ours, 4.0, 100.0) * np.reshape([1, 1, np.nan, np.nan], (4, 1, 1, 1)))
    put("special", damped_error=tasks * arms(2 * ours[..., 0], 50.0, 50.0), damped_floor=0.5)
    put("special", two_body_error=arms(8 * steps + ours * (1 - steps), 1.0, 1.0))
    put("variants", error=tasks * np.reshape([1, 2, 4], (3, 1, 1, 1)))
    found = judging.judge(trees, Session(jax.random.key(0))).measures
    for name, samples in {
        "C1.systems_ahead": (4, 4, 0),
        "C1.error_over_pooled": seeds / 2,
        "C1.error_over_random": seeds / 4,
        "C2.remaining_error": 1 / (2 * seeds),
        "C2.five_point_error_over_pooled": seeds / 8,
        "C3.rollout_error_over_pooled": seeds / 2,
        "C3.energy_error_over_pooled": 2**0.5 * seeds,
        "C3.surplus_motion_over_pooled": seeds / 4,
        "C4.change_over_pooled": seeds / 5,
        "C5.damped_error_over_floor": 4 * seeds,
        "C5.two_body_remaining_error": seeds / 8,
        "C6.error_over_tanh": seeds / 10,
        "C6.error_over_softplus": seeds / 20,
        "C6.error_over_squares": seeds / 40,
    }.items():
        np.testing.assert_allclose(found[name].samples, samples, rtol=1e-5, err_msg=name)
    # On every seed the third system is worst: the interval is Student's.
    student = Measure.paired(2 * seeds, np.ones(3), "log-ratio")
    np.testing.assert_allclose(found["C1.energy_error_over_random"].intervals(), student.intervals(), rtol=1e-5)
