from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Measure, Session, best_by_others, read_paper, validate
from gradatim.landscape import PairNetwork, Pairs, cyclic_group
from gradatim.papers import grokking_li2 as paper
from gradatim.papers.grokking_li2 import grokking, judging, lazy, tables, training

TOML = Path(paper.__file__).parents[1] / "grokking_li2.toml"
SMOKE = paper.SCALES["smoke"]


@pytest.fixture(scope="module", autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def smoke(_double):
    session = Session(jax.random.key(0), precision="double", scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_untested_with_a_reason(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    findings = smoke[0]
    assert set(findings.measures) | set(findings.untested) == parts and not set(findings.measures) & set(findings.untested)
    # Networks of a few epochs need not generalise; whatever needs no training is measured.
    assert all(part.split(".")[0] in ("C11", "C12") or part == "C6.critical_fractions" for part in findings.untested)


def test_claims_without_training_hold_and_the_printed_energy_does_not(smoke):
    verdicts = {claim.id: claim.judge(smoke[0].measures, "laptop", smoke[0].untested) for claim in read_paper(TOML).claims}
    for name in ("C3", "C5", "C7", "C9"):
        assert verdicts[name]["verdict"] == "holds", verdicts[name]
    energy = verdicts["C4"]["parts"]
    assert energy.pop("printed_energy")["verdict"] == "fails" and all(part["verdict"] == "holds" for part in energy.values())
    fading = verdicts["C1"]["parts"]
    assert fading["gradient_error"]["verdict"] == fading["late_gradient_without_decay"]["verdict"] == "holds"
    muon = verdicts["C10"]["parts"]
    assert muon["smallest_alignment"]["verdict"] == muon["collection_ratio"]["verdict"] == "holds"


def test_o5_seven_real_nodes_a_frequency_are_too_few_and_eight_enough(smoke):
    residual = smoke[0].data["tables"]["residual"].sel(way="free")
    assert abs(float(residual.sel(nodes=7)) - 0.25) < 0.1 and float(residual.sel(nodes=8)) < 1e-8
    assert float(smoke[0].data["tables"]["residual"].sel(way="inverse", nodes=12)) > 0.5
    assert tables.residual_of(tables.squares_of_characters(7)) < 1e-10


def test_o2_random_ascents_of_seven_elements_end_at_a_quarter_of_the_order(smoke):
    levels = {"cyclic_7": {0.25}, "cyclic_8": {0.25, 0.5}}
    for name, expected in levels.items():
        data = smoke[0].data[f"maxima_{name}"]
        assert set(data["energy"].values.round(4).tolist()) == expected, name
        assert np.allclose(data["energy"], data["expected"], rtol=1e-5)


def test_learned_frequencies_lose_their_energy_and_the_others_keep_it(smoke):
    left = smoke[0].data["tables"]["energy_left"]
    assert float(left.sel(frequency=[1, 2]).max()) < 1e-8 and np.allclose(left.sel(frequency=[3, 4, 5]), 1, atol=1e-6)


def test_gradient_grows_before_it_falls_to_a_size_set_by_decay(smoke):
    norm = smoke[0].data["lazy"]["norm"].values
    assert (norm.argmax(axis=1) > 0).all() and (norm[:, 0] < norm.max(axis=1) / 2).all()
    assert norm[0, -1] < norm[1, -1] < norm[2, -1]


def test_replicas_are_paired_and_padding_is_not_learned_from():
    arms = [{"n_train": 5, "rate": 0.01, "decay": 0.1}, {"n_train": 9, "rate": 0.02, "decay": 0.1, "readout_scale": 0.0}]
    replicas = training.Replicas.of(arms, 3)
    assert replicas.seed.tolist() == [0, 1, 2, 0, 1, 2] and replicas.n_train.tolist() == [5] * 3 + [9] * 3
    assert replicas.readout_scale.tolist() == [1, 1, 1, 0, 0, 0]
    random = np.random.default_rng(0)
    weights, pairs = random.normal(size=(14, 2)), random.integers(0, 7, (9, 2))
    labels = pairs.sum(axis=1) % 7
    seen = np.arange(9) < 5
    padded = Pairs(jnp.asarray(pairs), jnp.asarray(labels))
    ours = jax.jit(training._energy_of_seen)(jnp.asarray(weights), padded, jnp.asarray(seen))
    features, Y = (weights[pairs[:5, 0]] + weights[7 + pairs[:5, 1]]) ** 2, np.eye(7)[labels[:5]]
    assert np.allclose(ours, np.sum(((Y - Y.mean(axis=0)).T @ features) ** 2, axis=0) / 2)


def test_arms_of_one_seed_share_first_weights_and_pairs(smoke):
    trained = smoke[0].data["decays"]
    first = trained["train_loss"].isel(step=0).values
    assert np.allclose(first[0], first[1]) and len(set(first[0].round(6))) == SMOKE.decays.seeds
    assert set(trained.dims) >= {"step", "arm", "seed"} and (trained["test_accuracy"] <= 1).all()


def test_isotropy_is_the_mean_square_of_a_centred_feature():
    random, order = np.random.default_rng(0), 8
    weights = random.uniform(-1, 1, (2, 200_000, order)) / (2 * order) ** 0.5
    one, other = ((weights[0, :, i] + weights[1, :, i]) ** 2 for i in (0, 1))
    assert np.isclose(lazy.isotropy(order), np.mean(one**2 - one * other), rtol=0.02)


def test_muon_of_the_authors_is_their_written_out_step():
    random = np.random.default_rng(0)
    weights, rate, decay = random.normal(size=(6, 10)), 0.02, 0.1
    network = PairNetwork(jnp.asarray(weights, jnp.float32), jnp.zeros((10, 3), jnp.float32))
    optimizer = training._optimizer("muon", jnp.asarray(rate), jnp.asarray(decay))
    state, momentum, ours = optimizer.init(network), np.zeros((6, 10)), network.first
    update = jax.jit(optimizer.update)
    for _ in range(2):
        gradient = random.normal(size=(6, 10))
        updates, state = update(PairNetwork(jnp.asarray(gradient, jnp.float32), network.readout), state, PairNetwork(ours, network.readout))
        ours = ours + updates.first
        momentum = momentum + 0.01 * (gradient - momentum)
        X = momentum / np.linalg.norm(momentum)
        for a, b, c in training.MUON_TRIPLES:
            A = X @ X.T
            X = a * X + (b * A + c * A @ A) @ X
        weights = (1 - rate * decay) * weights - rate * X
        assert np.allclose(ours, weights, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "control", "criterion", "kind"),
    [
        ([20.0, 40.0, 30.0], [10.0, 20.0, 15.0], "at least", "measured"),
        ([np.inf, 40.0, 30.0], [10.0, 20.0, 15.0], "at least", "bound"),
        ([20.0, 40.0, 30.0], [np.inf, 20.0, 15.0], "at most", "bound"),
        ([np.inf, 40.0, 30.0], [np.inf, 20.0, 15.0], "at least", "neither way"),
        ([99.0, 99.0, 99.0], [np.inf, 20.0, 15.0], "at least", "would speak for the claim"),
        ([np.inf, 4.0, 3.0], [50.0, 40.0, 40.0], "at most", "would speak for the claim"),
    ],
)
def test_runs_that_never_generalise_are_counted_against_the_claim_or_not_at_all(ours, control, criterion, kind):
    session = Session(jax.random.key(0))
    found = judging.epoch_ratio(session, "C11", np.array(ours), np.array(control), last=100, criterion=criterion)
    if kind in ("measured", "bound"):
        assert isinstance(found, Measure) and any("is a bound" in note for note in session.notes) == (kind == "bound")
    else:
        assert isinstance(found, str) and kind in found


def test_a_grid_of_rates_must_be_as_large_for_both_optimisers():
    few = replace(SMOKE.few, adam_rates=(0.1, 0.2, 0.3))
    with pytest.raises(ValueError, match="adam_rates and muon_rates must be as many, got 3 and 2"):
        grokking.run_few(few, Session(jax.random.key(0)), jax.random.key(0))


def test_a_rate_at_which_a_seed_diverges_is_not_the_best():
    assert grokking._best(np.array([[3.0, 3.0], [1.0, np.nan], [2.0, 2.5]])) == 2
    with pytest.raises(ValueError, match="diverges at every rate"):
        grokking._best(np.full((2, 2), np.nan))


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"grokking", "phase", "energies", "features", "lazy", "tables", "rates", "optimisers", "beginnings"}
    assert all(ax.get_ylabel() for figure in figures.values() for ax in figure.axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), precision="double", scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items())


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 4e9 < paper.memory(paper.SCALES["full"])


def test_the_task_is_the_group(smoke):
    assert smoke[0].data["decays"].attrs["order"] == SMOKE.decays.order == cyclic_group(8).order


def test_constants_are_compared_with_the_cyclic_group_nearest_in_order():
    # Two cyclic groups and two dihedral ones, by seed.
    crossing = np.array([[2.0, 2, 2], [8, 8, 8], [2, 4, 8], [8, 16, 32]])
    measure = grokking._dimension_ratio(Session(jax.random.key(0)), np.array([10, 20, 8, 12]), crossing, 2)
    np.testing.assert_allclose(measure.samples, (2, 4, 8))


def test_measures_are_those_of_the_runs_they_name(smoke):
    measures, data = smoke[0].measures, smoke[0].data
    window, few = data["window"].to_dataset(), data["few"].to_dataset()
    accuracy, energy = (window[name].mean("constant").values for name in ("accuracy", "energy"))
    np.testing.assert_allclose(measures["C8.accuracy_difference"].samples, accuracy[0] - accuracy[1])
    np.testing.assert_allclose(measures["C8.energy_difference"].samples, energy[1] - energy[0])
    ends = few["test_loss"].isel(step=-1)
    np.testing.assert_allclose(measures["C10.loss_over_adam"].samples, ends.sel(arm="muon") / ends.sel(arm="adam"))
    best = few["pilot_loss"].isel(step=-1).mean("pilot").argmin("grid")
    np.testing.assert_array_equal(few["best_rate"], few["rate"].isel(grid=best))
    np.testing.assert_allclose(measures["C10.smallest_alignment"].value, few["alignment"].min())
    np.testing.assert_allclose(measures["C2.off_diagonal_ratio"].samples, data["grams"]["off_diagonal"].values[-1].max(axis=0))
    np.testing.assert_allclose(measures["C2.gradient_cosine"].samples, data["simple_form"]["cosine"].values[-1, :, 0])
    norm = data["lazy"]["norm"].values
    np.testing.assert_allclose(measures["C1.late_gradient_without_decay"].value, norm[0, -1] / norm[0].max())


def test_seeds_that_choose_the_rate_are_not_judged(smoke):
    few = smoke[0].data["few"].to_dataset()
    assert few.sizes["pilot"] == SMOKE.few.pilots and few.sizes["seed"] == SMOKE.few.seeds
    # Both arms and all rates start from the same networks and pairs; the judged seeds from others.
    pilots, judged = (few[name].isel(step=0) for name in ("pilot_loss", "test_loss"))
    for losses in (pilots.std(("arm", "grid")), judged.std("arm")):
        np.testing.assert_allclose(losses, 0, atol=1e-7)
    starts = np.concatenate([pilots.isel(arm=0, grid=0), judged.isel(arm=0)])
    assert len(set(starts.round(6))) == len(starts)
    assert training.Replicas.of([{"n_train": 5, "rate": 0.1, "decay": 0.0}], 3, first=4).seed.tolist() == [4, 5, 6]


def test_judged_seeds_that_diverge_leave_the_losses_uncompared(monkeypatch):
    trained = grokking.train

    def diverging(*args, **options):
        found = trained(*args, **options)
        if "pilots" not in options["label"]:
            found.history["test_loss"][-1, 0] = np.nan
        return found

    monkeypatch.setattr(grokking, "train", diverging)
    findings = grokking.run_few(SMOKE.few, Session(jax.random.key(0), precision="double"), jax.random.key(0))
    assert "diverge" in findings.untested["C10.loss_over_adam"] and "C10.loss_over_adam" not in findings.measures


def test_rates_that_are_tied_are_chosen_by_others_without_shortening_the_interval():
    # Five rates of one optimiser against two of the other, all of one mean: the ratio is one.
    random, n_repeats, n = np.random.default_rng(0), 400, 12

    def losses(n_rates, n_seeds):
        return np.exp(0.4 * random.normal(size=(n_repeats, n_rates, n_seeds)))

    pilots, judged = ([losses(n_rates, n) for n_rates in (5, 2)] for _ in range(2))
    chosen = [grid[range(n_repeats), [grokking._best(tuning) for tuning in by]] for grid, by in zip(judged, pilots, strict=True)]
    others = [best_by_others(xr.DataArray(grid, dims=("repeat", "rate", "seed")), "rate").transpose("repeat", "seed") for grid in judged]

    def coverage(adam, muon):
        intervals = [Measure.paired(*pair, "log-ratio").intervals()[0] for pair in zip(muon, adam, strict=True)]
        return np.mean([low <= 1 <= high for _, low, high in intervals])

    assert coverage(*chosen) > 0.92
    assert coverage(*(np.asarray(values) for values in others)) < 0.85
