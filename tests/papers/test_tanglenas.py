import itertools
import json
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray as xr

from gradatim.lab import Session, read_paper, validate
from gradatim.optim import softmax_mixture
from gradatim.papers import tanglenas as paper
from gradatim.papers.tanglenas import judging, networks, scores, searches, table

TOML = Path(paper.__file__).parents[1] / "tanglenas.toml"
SMOKE = paper.SCALES["smoke"]
LAPTOP = paper.SCALES["laptop"]
CLAIMS = read_paper(TOML).claims
OF_A_TABLE = {f"{name}{suffix}" for name in judging.OF_A_TABLE for suffix in judging.SUFFIX.values()}
SINGLE = 1e-5
"Of numbers in single precision."


@pytest.fixture(scope="module")
def smoke():
    session = Session(jax.random.key(0), scale="smoke")
    return paper.run(SMOKE, session), session


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    parts = {f"{claim.id}.{part.name}" for claim in CLAIMS for part in claim.parts}
    assert set(smoke[0].measures) | set(smoke[0].untested) == parts
    assert set(smoke[0].untested) == OF_A_TABLE | {"C5.accuracy_difference"}


def test_what_holds_exactly_holds(smoke):
    claim = next(claim for claim in CLAIMS if claim.id == "C1")
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"
    assert smoke[0].measures["C2.parameter_ratio"].value == 1


def test_arms_share_their_first_weights_and_logits(smoke):
    data = smoke[0].data["macro"]
    first = data["incumbent"].isel(row=0).drop_sel(arm=searches.UNIFORM).values
    assert (first == first[:1]).all() and (data["incumbent"].sel(arm=searches.UNIFORM) == searches.NOBODY).all()
    assert (data["entropy"].isel(row=0) > 0.999).all()


def test_searches_learn_and_decide(smoke):
    data = smoke[0].data["macro"]
    assert (data["train_loss"].isel(row=-1).mean("seed") < data["train_loss"].isel(row=1).mean("seed") + 0.1).all()
    # Logits of the uniform arm have no gradient.
    gone = data["entropy"].isel(row=-1)
    assert (gone.sel(arm=searches.OURS) < gone.sel(arm=searches.UNIFORM).max()).all()


def test_the_second_stage_keeps_its_best_by_validation(smoke):
    data = smoke[0].data["macro"]
    found = data["validation"].sel(supernet=searches.UNIFORM).values - data["cost"].values
    for row in data["second_incumbent"].values:
        chosen = np.take_along_axis(found, row, axis=1)
        assert (np.diff(chosen, axis=1) >= 0).all() and chosen[:, -1].min() >= np.median(found)


def with_table(space, costs=(0.0, 0.0, 0.0, 0.0)):
    """A space of four, where the Dirichlet arm finds the most accurate after one row and uniform search another after its training."""
    accuracies = np.array([[80.0, 80.0, 80.0], [82.0, 84.0, 83.0], [70.0, 72.0, 71.0], [60.0, 62.0, 61.0]])
    incumbents = np.full((3, len(searches.arms(space)), 3), searches.NOBODY)
    for i, name in enumerate(searches.arms(space)):
        if name != searches.UNIFORM:
            incumbents[:, i] = np.array([3, 1, 1])[:, None]
    return xr.Dataset(
        {
            "incumbent": (("row", "arm", "seed"), incumbents),
            "second_incumbent": (("stage", "seed", "evaluation"), np.tile([2, 0], (2, 3, 1))),
            "inherited": (("supernet", "seed", "architecture"), np.arange(24.0).reshape(2, 3, 4)),
            "accuracy": (("architecture", "table_seed"), accuracies),
            "cost": ("architecture", np.array(costs)),
            "parameters": ("architecture", np.array([200, 800, 400, 100])),
            "option": (("architecture", "choice"), np.array([[0], [1], [2], [3]])),
            "seconds": (("piece", "seed"), np.repeat([[0.2], [0.1], [0.5]], 3, axis=1)),
        },
        {
            "arm": list(searches.arms(space)),
            "row": [0, 10, 20],
            "stage": ["random", "evolutionary"],
            "supernet": list(searches.INHERITED),
            "piece": list(searches.PIECES),
        },
    )


def test_trap_seconds_of_the_second_stage_count_and_nobody_answers_before_it():
    curves = judging.regret_curves(with_table("cell"))
    times, values = curves["uniform, random"]
    assert times[0].tolist() == [0, 2.5, 3.0] and values[0].tolist() == [(3 + 0 + 12 + 22) / 4, 12, 3]
    under = judging.areas(curves)
    # Until the slowest ends, at 4 s: 22 for two seconds, then nothing.
    np.testing.assert_allclose(under[searches.OURS], [44.0] * 3)
    np.testing.assert_allclose(under["uniform, random"], [2.5 * 9.25 + 0.5 * 12 + 1 * 3] * 3)


def test_each_search_has_seconds_of_its_own():
    data = with_table("cell")
    data["seconds"] = data["seconds"] * xr.DataArray([1.0, 2.0, 10.0], dims="seed")
    curves = judging.regret_curves(data)
    assert curves[searches.OURS].times[:, -1].tolist() == [4, 8, 40] and curves["uniform, random"].times[:, 1].tolist() == [2.5, 5, 25]
    np.testing.assert_allclose(judging.areas(curves)[searches.OURS], [44, 88, 440])


def test_trap_intervals_hold_that_the_table_errs():
    # Searches that all find the same have no scatter of their own; architectures that are known no better than to a point have.
    data, rng, hits = with_table("cell"), np.random.default_rng(1), np.zeros(2)
    for _ in range(100):
        accuracies = np.array([[80.0], [81.0], [71.0], [61.0]]) + rng.normal(size=(4, 12))
        found = data.assign(accuracy=(("architecture", "table_seed"), accuracies))
        found["incumbent"] = found["incumbent"].copy(data=np.where(found["incumbent"] == 1, 0, found["incumbent"]))
        found["second_incumbent"] = xr.full_like(found["second_incumbent"], 2)
        measures = judging.median_regret(found), judging.over_searches_and_trainings(judging._regret_difference, found, "plain")
        hits += [one.low <= truth <= one.high for one, truth in zip(measures, (1, -9), strict=True)]
    assert (hits >= 88).all()


def test_regret_is_judged_against_the_table():
    measures, session = {}, Session(jax.random.key(0))
    judging._judge_searches(with_table("cell"), "cell", measures, session)
    assert measures["C3.median_regret"].value == 0 and measures["C3.regret_difference"].value == -3
    assert set(measures) == set(judging.OF_A_TABLE)
    # Trap: the largest network and plain random search stand beside it.
    assert any("largest network, is 0.00" in note and "rank 1)" in note and "trained alone" in note for note in session.notes)


def test_the_cost_counts_in_regrets_and_areas():
    # Scores 80, 79.5, 70 and 61: the most accurate is no longer the best.
    data, measures, session = with_table("macro", [0.0, 3.5, 1.0, 0.0]), {}, Session(jax.random.key(0))
    judging._judge_searches(data, "macro", measures, session)
    assert set(measures) == {f"{name}_macro" for name in judging.OF_A_TABLE}
    assert measures["C3.median_regret_macro"].value == 0.5 and measures["C3.regret_difference_macro"].value == 0.5
    # 19 for two seconds and a half for two; at random (0 + 0.5 + 10 + 19)/4 for 2.5, then 10 for half a second.
    np.testing.assert_allclose(measures["C4.area_ratio_macro"].value, (38 + 1) / (2.5 * 7.375 + 0.5 * 10))
    assert any("largest network, is 0.50" in note and "rank 2)" in note for note in session.notes)
    judging._note_costs(LAPTOP.search, data, session)
    assert "less 3.50 for the largest" in session.notes[-1] and "largest network has rank 1" in session.notes[-1]


def parameters_by_hand(side):
    """Two convolutions with biases, each before pooling by two, and a linear layer to ten classes."""
    combinations = itertools.product((2, 4, 8), (1, 3, 5), (4, 8, 16), (1, 3, 5))
    area = (side // 4) ** 2
    return np.array([(k * k + 1) * w + (w * m * m + 1) * v + (v * area + 1) * 10 for w, k, v, m in combinations])


def test_oracle_parameters_of_every_macro_architecture():
    counts = scores.parameter_counts(LAPTOP.search, "macro")
    np.testing.assert_array_equal(counts, parameters_by_hand(14))
    assert (counts.min(), counts.max()) == (386, 4874)
    # And in a network that was cut out.
    net = eqx.filter_jit(networks.make_net)(SMOKE.search, "macro", jax.random.key(0))
    for number in (0, 34, 80):
        small = net.subnet(net.space.positions(number))
        assert sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(small, eqx.is_array))) == parameters_by_hand(8)[number]


def test_oracle_a_doubling_costs_half_a_point():
    counts = np.array([400, 100, 200, 1600])
    np.testing.assert_allclose(scores.costs(LAPTOP.search, "macro", counts), [1, 0, 0.5, 2])
    assert not scores.costs(LAPTOP.search, "cell", counts).any()
    np.testing.assert_allclose(scores.score(np.full((2, 4), 70.0), np.array([1, 0, 0.5, 2])), [[69, 70, 69.5, 68]] * 2)
    found = table.Table(np.array([[70.0, 72.0], [71.0, 71.0]]), np.array([0.0, 0.5]))
    np.testing.assert_allclose(found.scores, [[70, 72], [70.5, 70.5]])
    np.testing.assert_allclose(found.regrets, [0, 0.5])


def test_oracle_nats_of_a_point_are_the_mean_slope_of_a_calibrated_network():
    right = np.linspace(0.1, 1, 200_001)[:-1]
    slope = np.log((1 - right) / 9) - np.log(right)
    np.testing.assert_allclose(-np.trapezoid(slope, right) / 90, scores.NATS_PER_POINT, rtol=1e-3)
    assert scores.nats_per_doubling(LAPTOP.search) == scores.NATS_PER_POINT / 2


@pytest.fixture(scope="module")
def macro():
    return eqx.filter_jit(networks.make_net)(SMOKE.search, "macro", jax.random.key(1))


def expected_by_hand(probabilities, counts):
    """The mean over all 81, each as likely as its choices say, in double precision."""
    return sum(np.prod([p[i] for p, i in zip(probabilities, one, strict=True)]) * n for one, n in counts)


def test_oracle_the_cost_of_the_search_is_that_of_the_score_where_choices_are_certain(macro):
    every = macro.space.every()
    of_each = eqx.filter_jit(
        lambda net, positions: jax.lax.map(lambda one: scores.expected_parameters(net, net.space.one_hot(one)), positions)
    )
    counts = parameters_by_hand(8)
    np.testing.assert_array_equal(of_each(macro, every), counts)
    doubled = eqx.filter_jit(lambda net, positions: jax.lax.map(lambda one: scores.doublings(net, net.space.one_hot(one), 186), positions))
    assert counts.min() == 186
    costs = scores.costs(SMOKE.search, "macro", counts) / SMOKE.search.points_per_doubling
    np.testing.assert_allclose(doubled(macro, every), costs, atol=SINGLE)


def test_oracle_the_gradient_of_the_cost_is_a_finite_difference(macro):
    random = np.random.default_rng(0)
    names = [choice.name for choice in macro.space.choices]
    given = [random.dirichlet(np.ones(3)) for _ in names]
    counts = list(zip(itertools.product(range(3), repeat=4), parameters_by_hand(8), strict=True))

    @eqx.filter_jit
    def value_and_gradient(net, probabilities):
        return jax.value_and_grad(lambda p: scores.doublings(net, p, 186))(probabilities)

    value, gradient = value_and_gradient(macro, {name: p.astype(np.float32) for name, p in zip(names, given, strict=True)})
    np.testing.assert_allclose(value, np.log2(expected_by_hand(given, counts) / 186), rtol=SINGLE)
    step = 1e-5
    for i, name in enumerate(names):
        # From one option to the next, so that they still sum to one: beyond that a mean is not defined.
        for along in (np.array([1, -1, 0]), np.array([0, 1, -1])):
            moved = [[p + sign * step * along if k == i else p for k, p in enumerate(given)] for sign in (1, -1)]
            up, down = (np.log2(expected_by_hand(one, counts) / 186) for one in moved)
            np.testing.assert_allclose(gradient[name] @ along, (up - down) / (2 * step), rtol=1e-4)


def test_a_network_alone_begins_with_the_variance_of_its_own_inputs(macro):
    @eqx.filter_jit
    def begun(net, positions):
        return networks.begun_alone(net, net.space.one_hot(positions))

    small, whole = begun(macro, np.array([1, 1, 2, 0])), begun(macro, np.array([2, 2, 2, 2]))
    # 3 x 3 of one channel in place of 5 x 5; one pixel of four channels in place of 5 x 5 of eight; all sixteen channels of the readout.
    for before, after, ratio in zip(
        (*macro.convolutions, macro.readout), (*small.convolutions, small.readout), (25 / 9, 200 / 4, 1), strict=True
    ):
        np.testing.assert_allclose(after.weight, before.weight * np.sqrt(ratio), rtol=SINGLE)
    for before, after in zip(jax.tree.leaves(macro), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(before, after, rtol=SINGLE)


def test_a_cost_beyond_any_accuracy_ends_every_search_at_the_smallest_network():
    config = replace(SMOKE.search, points_per_doubling=1000.0, steps=24, logit_rate=0.3)
    session = Session(jax.random.key(2))
    data = paper.run_searches(config, "macro", networks.load_parts(config, session), session, jax.random.key(2))
    last, counts = data["incumbent"].isel(row=-1), data["parameters"].values
    learned = [name for name in searches.SAMPLERS if name != searches.UNIFORM]
    assert (last.sel(arm=learned) == counts.argmin()).all()
    # The arm without it has the same first weights, logits and images.
    assert (last.sel(arm=searches.ABLATION["macro"]) != counts.argmin()).any()


def test_without_a_cost_a_search_prefers_what_is_right_more_often():
    config = replace(SMOKE.search, steps=200, learning_rate=1e-2, logit_rate=0.05)
    session, n = Session(jax.random.key(3)), 5
    parts, rest = networks.load_parts(config, session), networks.rest_of(config, "macro")
    nets = networks.make_nets(config, "macro", jax.random.split(session.key, n))

    @eqx.filter_jit
    def ended(nets, parts, price):
        task = searches._Task(rest, 186, parts, None, price, None)
        method = searches._method(config, softmax_mixture, searches._loss(task))

        def step(state, rows):
            train, validation = (
                searches._Batch(networks.Images(half.images[row], half.labels[row]), nats)
                for half, row, nats in zip(parts[:2], rows, (0.0, price), strict=True)
            )
            return method.step(state, train, validation, jax.random.key(0))[0], None

        def one(given):
            arrays, key = given
            rows = jax.random.randint(key, (config.steps, 2, config.batch_size), 0, 100)
            state, _ = jax.lax.scan(step, method.init(arrays, rest.space.logits(key)), rows)
            return state.model, rest.space.discretise(state.logits)

        return jax.lax.map(one, (nets, jax.random.split(jax.random.key(4), n)))

    counts, every = parameters_by_hand(8), rest.space.every()
    for price, is_smallest in ((0.0, False), (30.0, True)):
        models, found = ended(nets, parts, np.float32(price))
        numbers = np.array([rest.space.number(one) for one in np.asarray(found)])
        assert (numbers == counts.argmin()).all() == is_smallest
        if not is_smallest:
            right = np.asarray(networks.accuracies(models, rest, every, parts.test)).mean(-1)
            # A seed may have made its channels dead.
            assert right[np.arange(n), numbers].mean() > 1.5 * np.median(right, axis=1).mean()


@pytest.mark.parametrize(("space", "n"), [("cell", 64), ("macro", 81)])
def test_the_tables_belong_to_the_laptop_run(space, n):
    config = LAPTOP.search
    found = table.read_table(config, space)
    assert found is not None and found.shape == (n, config.table_seeds) == (n, 12)
    # With two channels of one pixel a network may be dead from the start, and guess.
    assert 10 <= found.min() < found.mean(1).max() < 95 and np.median(found) > 50 and np.median(found.std(1, ddof=1)) < 3
    content = json.loads(table.path_of(space).read_text(encoding="utf-8"))
    assert {"versions", "seed", "command", "data", "config"} <= set(content)
    assert f"rebuild {space} FOLDER" in content["command"]
    # Other sizes have another table.
    assert table.read_table(replace(config, steps=7), space) is None


def test_rows_of_the_macro_table_are_in_the_order_of_the_space():
    content = json.loads(table.path_of("macro").read_text(encoding="utf-8"))
    means = np.mean(content["accuracies"], axis=1).reshape(3, 3, 3, 3)
    for choice in range(4):
        # More channels and larger kernels tell more, on average over the other choices.
        by_option = np.moveaxis(means, choice, 0).reshape(3, -1).mean(1)
        assert by_option[0] < by_option[1:].min()


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) == {"entropy", "costs", "inherited", "language"}
    assert all(ax.get_xlabel() for name in figures for ax in figures[name].axes)


def test_figures_of_both_spaces_with_their_tables(smoke, known_results):
    trees, _ = known_results(smoke[0])
    random = np.random.default_rng(0)
    known = {
        "accuracy": (("architecture", "table_seed"), random.uniform(60, 80, (81, 4))),
        "seconds": (("piece", "seed"), random.uniform(1, 2, (3, trees["macro"].sizes["seed"]))),
    }
    trees["macro"] = trees["macro"].assign(known).assign_coords(piece=list(searches.PIECES))
    arms = {"arm": list(searches.arms("cell"))}
    trees["cell"] = trees["macro"].isel(choice=slice(3), architecture=slice(64)).assign_coords(arms)
    for name in ("incumbent", "second_incumbent"):
        trees["cell"][name] = trees["cell"][name].clip(max=63)
    figures = paper.draw(replace(smoke[0], data=xr.DataTree.from_dict(trees)))
    assert set(figures) == {"entropy", "costs", "inherited", "language", "regret", "architectures"}
    assert all(ax.get_xlabel() for name in figures for ax in figures[name].axes)
    assert [len(figures[name].axes) for name in ("entropy", "inherited", "regret", "architectures")] == [10, 4, 4, 4]


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) <= paper.memory(LAPTOP) < 2e9 < paper.memory(paper.SCALES["full"]) < 256e9


def test_batches_go_through_all_images_before_any_comes_again():
    rows = networks.batches(np.random.default_rng(0), 10, 4, 5)
    assert rows.shape == (5, 4) and len(set(rows[:2].ravel())) == 8


@pytest.mark.laptop
def test_the_same_seed_gives_the_same_findings(smoke):
    again = paper.run(SMOKE, Session(jax.random.key(0), scale="smoke"))
    assert all(again.measures[name] == measure for name, measure in smoke[0].measures.items() if name != "C2.memory_ratio")


def test_measures_of_known_networks(smoke, known_results):
    trees, put = known_results(smoke[0])
    seeds = np.array([1.0, 2, 4])
    put("mixtures", difference=[0.1, 0.4, 0.2, 0.3])
    put("costs", parameters=[3, 11], largest=10, memory=[[1, 4]])
    put("macro", inherited=np.stack([50 + seeds, 49 + 0 * seeds])[..., None])
    losses = np.stack([seeds, 0 * seeds, 100 + 0 * seeds, 6 + 0 * seeds, 5 + 0 * seeds], axis=1)
    names = ["found", "largest", "random 1", "random 2", "random 3"]
    trees["language"] = xr.Dataset(dict.fromkeys(("loss", "parameters"), (("seed", "network"), losses)), {"network": names})
    found = judging.judge(SMOKE, trees, Session(jax.random.key(0))).measures
    assert found["C1.mixture_difference"].value == 0.4 and found["C2.memory_ratio"].value == 0.25
    # Of both supernets the one that is farther from the largest network.
    np.testing.assert_allclose(found["C2.parameter_ratio"].value, 0.3)
    np.testing.assert_allclose(found["C5.accuracy_difference_macro"].samples, 1 + seeds)
    np.testing.assert_allclose(found["C6.language_model_gain"].samples, 6 - seeds)
