from dataclasses import replace
from importlib import import_module
from pathlib import Path

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.datasets.dataset import Dataset, Provenance
from gradatim.lab import Measure, Session, read_paper, validate
from gradatim.nets.geometric import SimpleRNN, icosphere, log_map_edges
from gradatim.papers import geometric_deep_learning as paper
from gradatim.papers.geometric_deep_learning import Directions, Homophily, Memory, Samples, Warping

TOML = Path(paper.__file__).parents[1] / "geometric_deep_learning.toml"
SMOKE = paper.SCALES["smoke"]
PARTS = {
    name: import_module(f"{paper.__name__}.{name}")
    for name in (
        "curse",
        "directions",
        "expressivity",
        "homophily",
        "rates",
        "samples",
        "sequences",
        "symmetry",
        "transfer",
        "turn_networks",
    )
}
TINY = replace(
    SMOKE,
    with_training=True,
    samples=Samples(
        sizes=(20, 60, 200, 1000), pool=1100, held_out=50, test=50, channels=2, steps=4, passes=1,
        rates=(1e-2, 3e-2), rate_size=50, pilots=3, seeds=3,
    ),
    directions=Directions(part=40, entries=2, steps=3, rates=(1e-2, 3e-2), seeds=3),
    homophily=Homophily(
        levels=(0.5, 0.9), nodes=16, classes=2, degree=3, labelled=8, test_graphs=2, width=4, steps=3, rates=(1e-2, 3e-2), seeds=3
    ),
    warping=Warping(hidden=4, length=12, sequences=16, batch_size=8, steps=3, seeds=3),
    memory=Memory(lag=10, hidden=4, batch_size=4, steps=3, rates=(1e-2, 3e-2), held_out=8, seeds=3),
)  # fmt: skip


@pytest.fixture(scope="module")
def double():
    """Double precision for every thread, as in a run of its own: filters that are solved for on the host need it there, too."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def smoke(double):
    session = Session(jax.random.key(0), scale="smoke", precision="double")
    return paper.run(SMOKE, session), session


def parts_of(name):
    return {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts if name in (None, claim.id)}


def test_every_part_is_measured_or_said_to_be_missing(smoke):
    findings, _ = smoke
    assert set(findings.measures) | set(findings.untested) == parts_of(None)
    assert set(findings.untested) == set(paper.TRAINED)


@pytest.mark.parametrize("name", ["C1", "C2", "C3", "C4", "C5", "C7", "C12"])
def test_what_is_judged_at_this_scale_holds(smoke, name):
    claim = next(claim for claim in read_paper(TOML).claims if claim.id == name)
    assert claim.judge(smoke[0].measures, "smoke")["verdict"] == "holds"


def test_c6_messages_tell_nothing_apart_and_products_three_pairs(smoke):
    measures, data = smoke[0].measures, smoke[0].data["expressivity"]
    assert measures["C6.unseparated_difference"].value < 1e-10 and measures["C6.pairs_separated_by_tuples"].value == 3
    products = data["difference"].sel(network="products")
    assert (products.isel(pair=slice(3)) > 1e-5).all() and (products.isel(pair=3) < 1e-10).all()
    # Without products no pair is separated, by colours all are confused, as pairs only the last.
    assert (data["difference"].sel(network="linear on pairs") < 1e-10).all()
    assert data["is_confused"].values.tolist() == [[1, 0], [1, 0], [1, 0], [1, 1]]


def test_trap_every_row_of_the_table_has_a_broken_twin(smoke):
    table = smoke[0].data["symmetry"]
    assert len(table["row"]) >= 12 and (table["error"] < 1e-10).all() and (table["broken_error"] > 0.01).all()


def test_c11_rest_and_gates(smoke):
    measures = smoke[0].measures
    assert measures["C11.shift_error_at_rest"].value < 1e-10
    assert abs(measures["C11.chrono_mean_gate"].value / 0.039919 - 1) < 0.02


def test_figures_are_drawn_from_findings_alone(smoke):
    figures = paper.draw(smoke[0])
    assert set(figures) >= {"symmetry", "expressivity", "curse"}
    assert all(ax.get_xlabel() and ax.get_ylabel() for name in ("symmetry", "expressivity", "curse") for ax in figures[name].axes)


def test_data_have_units(smoke):
    for name, node in smoke[0].data.children.items():
        assert all("units" in variable.attrs for variable in node.to_dataset().data_vars.values()), name


def test_scales_are_valid_and_fit_in_memory():
    for config in paper.SCALES.values():
        validate(config)
    assert 0 < paper.memory(SMOKE) < paper.memory(paper.SCALES["laptop"]) < 3e9 < paper.memory(paper.SCALES["full"]) < 64e9


@pytest.mark.laptop
def test_a_tiny_training_of_everything(double):
    findings = paper.run(TINY, Session(jax.random.key(0), scale="smoke", precision="double"))
    assert set(findings.measures) == parts_of(None) and not findings.untested
    assert {"samples", "memory", "homophily", "directions"} < set(paper.draw(findings))
    # All pilots have run at the rate that was taken.
    found = findings.data["samples"].to_dataset()
    assert np.isfinite(found["accuracy_by_rate"].sum("pilot", skipna=False).max("rate").values).all()
    # Turns are built in, whatever was learnt.
    assert (found["turn_error"] < 1e-4).all()
    assert np.ptp(found["parameters"].values) < 0.3 * found["parameters"].values.max()


def test_sizes_without_a_criterion_are_refused():
    for wrong, words in (
        (replace(TINY, samples=replace(TINY.samples, sizes=(20, 60))), r"samples\.sizes must hold 1000"),
        (replace(TINY, homophily=replace(TINY.homophily, levels=(0.5,))), r"homophily\.levels must hold 0\.9"),
    ):
        with pytest.raises(ValueError, match=words):
            paper.run(wrong, Session(jax.random.key(0)))


def test_samples_and_graphs_that_do_not_fit_are_refused():
    session = Session(jax.random.key(0))
    for wrong, words in (
        ({"side": 8}, r"samples\.side must be twice an odd number, got 8"),
        ({"channels": 3}, r"samples\.channels must be even, got 3"),
        ({"held_out": 200}, r"samples\.held_out must be what the training sets leave of the pool, got 200"),
    ):
        with pytest.raises(ValueError, match=words):
            PARTS["samples"].samples(replace(TINY.samples, **wrong), session)
    with pytest.raises(ValueError, match=r"homophily\.nodes must be a multiple of the classes, 2, got 15"):
        PARTS["homophily"].homophily(replace(TINY.homophily, nodes=15), session)


def test_images_are_turned_by_quarters():
    images = np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype(np.float32)
    turned = np.asarray(PARTS["samples"].turned(jnp.asarray(images), jnp.arange(4)))
    assert all((turned[k] == np.rot90(images[k], k)).all() for k in range(4))


def test_networks_have_about_as_many_parameters():
    counts = []
    for arm in ("turns built in", "convolution", "perceptron"):
        shapes = eqx.filter_eval_shape(lambda arm=arm: PARTS["turn_networks"].make_network(arm, Samples()))
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct)))
    assert max(counts) < 1.1 * min(counts)


def test_steps_grow_with_the_training_set():
    config = Samples(steps=1000, passes=48, batch_size=32)
    assert [PARTS["samples"].steps_for(n, config) for n in (100, 1000, 3000)] == [1000, 1500, 4500]


def test_a_part_of_a_surface_keeps_the_edges_within(double):
    mesh = icosphere(1)
    whole, kept = log_map_edges(mesh), np.array([5, 0, 11, 13, 40])
    edges = PARTS["directions"].part_of(whole, kept)
    ends = {(int(kept[u]), int(kept[v])) for u, v in zip(edges.receivers, edges.senders, strict=True)}
    pairs = zip(np.asarray(whole.receivers).tolist(), np.asarray(whole.senders).tolist(), strict=True)
    assert ends == {(u, v) for u, v in pairs if u in kept and v in kept} and edges.n_vertices == 5
    assert (np.asarray(edges.receivers)[np.asarray(edges.reverse)] == np.asarray(edges.senders)).all()


def test_parts_of_a_surface_must_not_overlap(double):
    session = Session(jax.random.key(0))
    x = np.asarray(icosphere(1).vertices)[:, 0]
    with pytest.raises(ValueError, match=r"directions\.part must be at most a third of 42 vertices, got 20"):
        PARTS["directions"].directions(Directions(part=20), icosphere(1), x, x, jax.random.key(0), session)


def test_directions_are_judged_by_the_better_rival_at_rates_chosen_by_the_other_seeds():
    seeds = np.array([0.0, 1, 2, 3])
    choosing = np.stack([[[1.0] * 4, [0] * 4], [[0] * 4, [1] * 4], [[1] * 4, [0] * 4]])
    judged = np.stack([[80 + 2 * seeds, 0 * seeds], [99 + seeds, 25 + 0 * seeds], [70 + seeds, 99 + seeds]])
    gain = PARTS["directions"].direction_gain(choosing, judged)
    expected = Measure.over_seeds(10 + seeds)
    np.testing.assert_allclose(gain.intervals()[0], expected.intervals()[0])
    # A seed that alone would take the other rate does not have a say in its own.
    choosing[0, :, 0] = [0.0, 1.0]
    assert PARTS["directions"].direction_gain(choosing, judged).value == pytest.approx(expected.value)


def test_networks_of_directions_have_about_as_many_parameters_that_count(double):
    edges, x = log_map_edges(icosphere(2)), jnp.asarray(np.random.default_rng(0).normal(size=(162, 1)))

    def n_that_count(arm):
        arrays, others = eqx.partition(PARTS["directions"].make_network(arm, 2, key=jax.random.key(0)), eqx.is_inexact_array)
        flat, back = jax.flatten_util.ravel_pytree(arrays)
        jacobian = jax.jit(jax.jacrev(lambda flat: eqx.combine(back(flat), others)(edges, x).ravel()))(flat)
        return np.linalg.matrix_rank(jacobian, rtol=1e-9)

    ours, plain = (n_that_count(arm) for arm in ("gauge-equivariant", "isotropic"))
    assert abs(ours / plain - 1) < 0.15


def test_communities_have_their_share_of_edges_within():
    config = Homophily(nodes=40, degree=6)
    for level in (0.1, 0.9):
        graph, labels = PARTS["homophily"].community_graph(np.random.default_rng(0), config, np.zeros((4, 16)), level)
        u, v = np.asarray(graph.senders), np.asarray(graph.receivers)
        assert len(u) == 240 and len(np.unique(40 * u + v)) == 240 and (u != v).all()
        assert abs((labels[u] == labels[v]).mean() - level) < 1e-9


def test_symmetries_of_the_square_are_isometries_of_the_torus():
    points, centres = np.random.default_rng(0).random((2, 7, 2))
    orbit = PARTS["curse"].images_of_square(centres).reshape(-1, 2)
    values = [PARTS["curse"].distance(moved, orbit) for moved in PARTS["curse"].images_of_square(points)]
    assert np.ptp(values, axis=0).max() < 1e-12


def test_events_are_told_by_their_order():
    sequences, labels = PARTS["sequences"].events(np.random.default_rng(0), 50, 40)
    first, second = sequences[:, :18].sum(axis=1), sequences[:, 18:].sum(axis=1)
    assert (2 * first.argmax(axis=1) + second.argmax(axis=1) == labels).all()


def test_an_answer_without_memory_has_the_loss_of_the_baseline():
    cell, readout = eqx.filter_eval_shape(lambda key: (SimpleRNN(4, 2, key=key), eqx.nn.Linear(2, 3, key=key)), jax.random.key(0))
    cell = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), cell)
    readout = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), readout)
    config = Memory(lag=5, symbols=2, alphabet=3)
    loss = eqx.filter_jit(PARTS["sequences"].copy_loss)((cell, readout), np.array([[0, 1], [2, 2]]), config)
    assert abs(float(loss) - np.log(3)) < 1e-6


def test_layers_are_judged_against_the_best_of_the_richer_ones():
    config = Homophily(levels=(0.5, 0.9), nodes=16, classes=2, degree=3, labelled=8, rates=(1e-2, 3e-2), seeds=3)
    accuracy, losses = np.full((4, 2, 3, 2), 99.0), np.ones((4, 2, 3, 2))
    accuracy[:, 0, :, 1] = [[70, 71, 72], [69, 69, 69], [75, 70, 74], [10, 10, 10]]
    operations = dict(zip(("convolution", "attention", "messages", "no graph"), (1.0, 4.0, 2.0, 0.5), strict=True))
    measures, _ = PARTS["homophily"]._judged(config, losses, accuracy, operations, Session(jax.random.key(0)))
    assert measures["C16.accuracy_difference"].samples == (-5, 1, -2) and measures["C16.operations_ratio"].value == 0.5
    # With the first seed attention is best, and the second rate for convolution: that tells the others, not itself.
    accuracy[1, 0, 0, 1], losses[0, 1, 0] = 90, 0.5
    measures, data = PARTS["homophily"]._judged(config, losses, accuracy, operations, Session(jax.random.key(0)))
    assert data["taken_rate"].values[0, :, 1].tolist() == [1e-2, 3e-2, 3e-2]
    assert measures["C16.accuracy_difference"].samples == (-5, 99 - 69, 99 - 69)


def test_memory_is_judged_at_the_rate_of_the_other_seeds():
    config = Memory(rates=(1e-2, 3e-2), seeds=3)
    held = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    losses = np.stack([np.stack([held, held + np.array([[10], [20]])], axis=-1)] * 3)
    measures, data = PARTS["sequences"]._judged(config, losses, losses[:, None, ..., 1], np.zeros(1), Session(jax.random.key(0)))
    # Others of the first seed do better at the second rate, those of the rest on the whole at the first or as well.
    assert data["taken_rate"].values[0].tolist() == [3e-2, 1e-2, 1e-2]
    np.testing.assert_allclose(measures["C17.plain_loss_ratio"].samples, np.array([22, 13, 13]) / np.log(8))
    assert data["history"].values[0, 0].tolist() == [22, 13, 13]


def test_turns_that_are_built_in_are_judged_against_those_that_are_learnt():
    config = Samples(sizes=(200, 1000), rates=(1e-2, 3e-2), seeds=3)
    accuracy = np.full((4, 2, 3), 99.0)
    accuracy[:2] = [[[50, 60, 70], [80, 90, 85]], [[60, 60, 63], [79, 91, 80]]]
    arms = PARTS["samples"].ARMS
    found = (accuracy, np.ones((4, 2, 3)), np.ones((4, 2, 3)))
    rates, counts = dict.fromkeys(arms, 1e-2), dict.fromkeys(arms, 1)

    def judged():
        by_rate, session = np.ones((4, 2, 5)), Session(jax.random.key(0))
        return PARTS["samples"]._judged(config, found, by_rate, rates, counts, np.zeros(3), session)[0]

    # One size is won by the mean, but neither surely; then the other is surely lost, and then the first surely won.
    assert judged()["C14.sizes_won"].intervals() == [(1, 0, 2)] and judged()["C14.accuracy_gain"].samples == (1, -1, 5)
    accuracy[0, 0] = accuracy[1, 0] - [1, 1.1, 0.9]
    assert judged()["C14.sizes_won"].intervals() == [(1, 0, 1)]
    accuracy[0, 1] = accuracy[1, 1] + [1, 1.1, 0.9]
    assert judged()["C14.sizes_won"].intervals() == [(1, 1, 1)]


def test_a_race_ends_with_the_rate_whose_worst_pilot_is_best():
    random, n_asked = np.random.default_rng(0), []
    for _ in range(50):
        scores = random.integers(6, size=(4, 5)).astype(float)
        asked = []
        found = PARTS["samples"].race(lambda r, k, scores=scores, asked=asked: asked.append((r, k)) or scores[r, k], 4, 5)
        assert np.nanmin(found, axis=1).argmax() == scores.min(axis=1).argmax()
        assert len(set(asked)) == len(asked)
        n_asked.append(len(asked))
        assert (found == scores).sum() == len(asked) == np.isfinite(found).sum()
    assert np.mean(n_asked) < 0.8 * 20


def test_every_seed_is_judged_on_images_of_its_own(monkeypatch):
    images = np.arange(60 * 36, dtype=np.float32).reshape(60, 6, 6, 1)

    def load(name, *, split, n, pool):
        return Dataset(images[:n], np.arange(n), Provenance(name, "", "", {}))

    monkeypatch.setattr(PARTS["samples"].datasets, "load", load)
    config = Samples(side=6, pool=40, held_out=10, test=15, seeds=4)
    train, held, tests = PARTS["samples"]._load(config, Session(jax.random.key(0)), np.random.default_rng(0))
    assert [len(part.labels) for part in (train, held, *tests)] == [30, 10, 15, 15, 15, 15]
    assert len(np.unique(np.concatenate([test.labels for test in tests]))) == 60
    assert all((image.min() == 36 * k) for test in tests for image, k in zip(test.images, test.labels, strict=True))


@pytest.mark.parametrize("maximise", [False, True])
def test_no_seed_has_a_say_in_its_rate(maximise):
    random = np.random.default_rng(0)
    held = random.normal(size=(4, 5, 2))
    chosen = PARTS["rates"].chosen_by_others(held, maximise=maximise)
    assert chosen.shape == (5, 2)
    for seed in range(5):
        changed = held.copy()
        changed[:, seed] = random.normal(size=(4, 2))
        assert (PARTS["rates"].chosen_by_others(changed, maximise=maximise)[seed] == chosen[seed]).all()
        others = np.delete(held, seed, axis=1).mean(axis=1)
        assert (chosen[seed] == (others.argmax(axis=0) if maximise else others.argmin(axis=0))).all()
    assert (PARTS["rates"].at(held, chosen) == [[held[chosen[s, j], s, j] for j in range(2)] for s in range(5)]).all()


def test_the_curse_is_four_dimensions_over_two_and_growth_is_that_of_jittered_surfaces(smoke):
    measures, (curse, surfaces) = smoke[0].measures, (smoke[0].data[name].to_dataset() for name in ("curse", "surfaces"))
    x, y = np.log(curse["examples"].values), np.log(curse["error"].values)
    slopes = y @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    np.testing.assert_allclose(measures["C15.exponent_ratio"].samples, slopes[:, 1] / slopes[:, 0])
    np.testing.assert_allclose(measures["C15.saving_over_group_order"].samples, np.exp(np.log(curse["saving"].values).mean(axis=1)))
    for i, kind in enumerate(PARTS["transfer"].KINDS):
        growth = surfaces["error_after"].values[:, i] / surfaces["error_before"].values[:, i]
        np.testing.assert_allclose(measures[f"C13.{kind}_error_growth"].samples, growth)
        # A repeat has signals of its own, to fit by and to judge by.
        assert len(np.unique(surfaces["error_before"].values[:, i])) == len(growth)
