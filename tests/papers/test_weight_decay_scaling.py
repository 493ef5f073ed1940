import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import xarray as xr

from gradatim import datasets
from gradatim.lab import Session, validate
from gradatim.lab.paper import read_paper
from gradatim.optim import RateAndDecay, relaxation_steps, width_adamw
from gradatim.papers import weight_decay_scaling as paper
from gradatim.papers.weight_decay_scaling import training
from gradatim.papers.weight_decay_scaling.chain import TwoLayerNetwork, draw_batch, expected_loss, final_losses, make_chain
from gradatim.papers.weight_decay_scaling.plateau import NAMES, RULES, late_means, matrix_pairs, note_waits
from gradatim.papers.weight_decay_scaling.text import CLASSES, Lane, Texts, Trainer, block_gains, load_texts, make_lanes, top_values
from gradatim.papers.weight_decay_scaling.training import best_points

TOML = Path(paper.__file__).parent.with_suffix(".toml")


@pytest.fixture(scope="module")
def session():
    return Session(jax.random.key(0), scale="smoke")


@pytest.fixture(scope="module")
def findings(session):
    return paper.run(paper.SCALES["smoke"], session)


def test_every_part_is_measured_or_says_why_not(findings):
    parts = {f"{claim.id}.{part.name}" for claim in read_paper(TOML).claims for part in claim.parts}
    assert parts == set(findings.measures) | set(findings.untested)
    assert not set(findings.measures) & set(findings.untested)


def test_data_are_finite_and_named(findings):
    for name, node in findings.data.children.items():
        data = node.to_dataset()
        for variable in data.data_vars.values():
            assert "units" in variable.attrs
            values = variable.sel(scaled=1) if "scaled" in variable.dims else variable
            assert np.isfinite(values).all(), (name, variable.name)


def test_decay_lowers_the_singular_values(findings):
    for part in ("rules", "text"):
        top = findings.data[part]["top"].isel(width=-1).mean(["matrix", "seed"])
        assert top.sel(rule="proportional") < top.sel(rule="root") < top.sel(rule="constant"), part


@pytest.mark.parametrize("part", ["rules", "text"])
def test_rules_agree_at_the_base_width(findings, part):
    """They can only if first weights and batches are the same."""
    base = findings.data[part]["top"].isel(width=0)
    assert (base == base.isel(rule=0)).all()


@pytest.mark.laptop
def test_same_seed_same_findings(findings):
    again = paper.run(paper.SCALES["smoke"], Session(jax.random.key(0), scale="smoke"))
    assert again.measures == findings.measures and again.data.identical(findings.data)


def test_figures(findings):
    figures = paper.draw(findings)
    assert set(figures) == {
        "singular_values", "spectra", "gains", "transfer", "vectors", "text_singular_values", "text_loss_and_gains",
    }  # fmt: skip
    for figure in figures.values():
        assert all(ax.get_xlabel() for ax in figure.axes)


@pytest.mark.usefixtures("findings")
def test_what_no_claim_judges_is_said(session):
    for words in (
        "gain of the sublayer",
        "loss above the entropy",
        "shape of the spectrum over widths",
        "without the rule",
        "costs at width 32 by the rule",
        "text, exponents of width, λ ∝ √width, gain of a sublayer",
        "text, validation loss at width 16",
    ):
        assert any(words in note for note in session.notes)


def test_the_chain_is_drawn_as_it_is_described():
    @jax.jit
    def drawn(key_chain, key_batch):
        chain = make_chain(16, 4, key=key_chain)
        return chain, draw_batch(chain, 100_000, key=key_batch)

    chain, (tokens, following) = jax.device_get(drawn(jax.random.key(0), jax.random.key(1)))
    np.testing.assert_allclose(np.bincount(tokens, minlength=16) / 1e5, chain.frequencies, atol=0.006)
    seen = np.bincount(following[tokens == 0], minlength=16) / int((tokens == 0).sum())
    expected = np.zeros(16)
    expected[chain.successors[0]] = chain.probabilities[0]
    np.testing.assert_allclose(seen, expected, atol=0.015)


def test_a_batch_of_tokens_gives_the_logits_of_each():
    net = TwoLayerNetwork(16, 8, key=jax.random.key(0))
    tokens = jnp.array([3, 0, 3, 15])

    def one(token):
        x = net.embedding(token)
        x = x + net.down(jax.nn.relu(net.up(net.norm(x))))
        return net.readout(net.last_norm(x)) / 8

    np.testing.assert_allclose(net(tokens), jnp.stack([one(token) for token in tokens]), rtol=1e-5, atol=1e-6)


def test_runs_in_blocks_are_the_runs_together(monkeypatch):
    smoke = paper.SCALES["smoke"]
    settings = [((0.01, decay), seed) for decay in (0.1, 0.4) for seed in (0, 2)]

    def found(together):
        monkeypatch.setattr(training, "TOGETHER", together)
        runs = training.Runs(smoke, Session(jax.random.key(0), scale="smoke"))
        return runs._train(8, settings, [(0.003, 0.0)] * 4, 10, final_losses, "few")["loss"]

    assert training.lanes(8, smoke.vocabulary) > 4
    whole, blocks = found(training.TOGETHER), found(3 * 2 * 8 * (8 + smoke.vocabulary))
    assert training.lanes(8, smoke.vocabulary) == 3 and len(np.unique(whole)) == 4
    np.testing.assert_allclose(whole, blocks, rtol=1e-5)


def test_no_network_beats_the_entropy():
    @jax.jit
    def losses(key_chain, key_network):
        chain = make_chain(16, 4, key=key_chain)
        table = jnp.full((16, 16), -30.0).at[jnp.arange(16)[:, None], chain.successors].set(jnp.log(chain.probabilities))
        net = TwoLayerNetwork(16, 8, key=key_network)
        return expected_loss(net, chain), expected_loss(lambda tokens: table[tokens], chain), chain.entropy

    of_network, of_table, entropy = losses(jax.random.key(0), jax.random.key(1))
    assert of_network > entropy
    np.testing.assert_allclose(of_table, entropy, rtol=1e-4)


def test_an_edge_that_is_best_at_either_width_shows_no_shift():
    grid, widths = (0.1, 0.2, 0.4, 0.8), (32, 256)
    inside, edge, once = (np.array(cells)[:, None] for cells in ([1.0, 1.2, 1.1], [0.0, 0.0, 0.0], [1.0, 3.0, 2.0]))
    with pytest.raises(ValueError, match="the smallest decay of the grid is best at width 32 for 3 of 3 seeds"):
        paper._shift([edge, inside], 0, grid, "decay", widths)
    with pytest.raises(ValueError, match="the largest decay of the grid is best at width 256 for 1 of 3 seeds"):
        paper._shift([inside, once], 0, grid, "decay", widths)
    assert paper._shift([inside, inside + 0.5], 0, grid, "decay", widths).value == pytest.approx(0.5)


def test_exponents_over_fewer_than_four_widths_are_not_judged(findings):
    for part in ("C2.{}width_exponent", "C3.{}top_value_slope", "C3.{}distance_to_next_rule", "C6.{}rank_correlation"):
        for prefix, widths in (("", "8, 32"), ("text_", "8, 16")):
            assert findings.untested[part.format(prefix)] == f"not measured: an exponent takes four widths or more, got {widths}"


def test_trap_rules_that_move_both_slopes_alike_do_not_decide_within_a_rule():
    """Between rules slopes of top values and gains rise together; from matrix to matrix under each they are opposed."""
    rules, matrices = ["constant", "root", "proportional"], [f"m{i}" for i in range(6)]
    offset, within = np.array([1.0, 0.0, -1.0])[:, None, None], np.linspace(-0.1, 0.1, 6)[:, None]
    coordinates = {"rule": rules, "matrix": matrices, "seed": range(3)}
    top, gain = (xr.DataArray(offset + sign * within + np.zeros(3), coordinates, ("rule", "matrix", "seed")) for sign in (1, -1))
    assert min(paper._rank_correlations(top, gain)) > 0.7
    np.testing.assert_allclose(paper._correlations_within_rules(top, gain), -1)


def test_cost_of_decay_compares_both_at_their_best():
    losses = np.zeros((2, 2, 3, 3)) + np.array([0.5, 0.0, 0.5])[:, None]
    losses[:, 1] += np.array([0.3, 0.1])[:, None, None]
    vectors = xr.Dataset({"loss": (("width", "vector_decay", "vector_rate", "seed"), losses)}, {"width": [32, 256]})
    inside = [np.ones((3, 1))] * 2
    assert paper._decay_cost(vectors, inside, inside).value == pytest.approx(0.1)
    with pytest.raises(ValueError, match="the largest rate of decayed vectors of the grid is best at width 32"):
        paper._decay_cost(vectors, inside, [np.full((3, 1), 2.0)] * 2)


def test_best_points_are_vertices_inside_and_grid_points_on_the_edge():
    x, y = np.meshgrid(np.arange(4.0), np.arange(3.0), indexing="ij")
    inside, edge = (x - 1.3) ** 2 + (y - 0.8) ** 2, (x - 1.3) ** 2 + (y - 5) ** 2
    lost = np.where(x == 1, np.nan, inside)
    points = best_points(np.stack([inside, edge, lost], axis=-1), range(4), range(3))
    np.testing.assert_allclose(points, [[1.3, 0.8], [1.3, 2.0], [2.0, 0.8]], atol=1e-9)


@pytest.mark.parametrize("scale", paper.SCALES)
def test_scales_are_valid_and_estimated(scale):
    config = paper.SCALES[scale]
    validate(config)
    assert 0 < paper.memory(config) < 128 * 2**30


def test_the_farthest_of_several_and_the_spread_of_known_pairs():
    sure = np.ones(3)
    assert paper._farthest(1.0, 0.9 * sure, 1.05 * sure).value == pytest.approx(0.9)
    with pytest.raises(ValueError, match="finite"):
        paper._farthest(1.0, 0.9 * sure, np.nan * sure)
    top = np.array([[[2.0, 2, 2]], [[8, 16, 32]]])
    spectrum = np.array([[[[1.0, 0.5]] * 3], [[[1.0, 0.3], [0.8, 0.5], [1, 0.5]]]])
    pairs = xr.Dataset(
        {
            "top": (("pair", "matrix", "seed"), top),
            "root_ratio": ("pair", [1.0, 2.0]),
            "spectrum": (("pair", "matrix", "seed", "fraction"), spectrum),
        }
    )
    np.testing.assert_allclose(paper._spreads(pairs), [[2, 4, 8]])
    np.testing.assert_allclose(paper._distances(pairs), [[0.2, 0.2, 0]])


def test_measures_of_known_exponents(monkeypatch):
    smoke, widths = paper.SCALES["smoke"], np.array([8.0, 16, 32, 64])
    known = tuple(map(int, widths))
    config = dataclasses.replace(smoke, widths=known, text=dataclasses.replace(smoke.text, widths=known))
    rules, n = ["root", "constant", "proportional"], config.n_seeds
    powers = np.array([[0.4, -0.1], [0.6, 0.3], [-0.5, 0.6]])
    # Of fourteen matrices each its own: the farthest from 0 is the third, from 0.75 with root_ratio's -½ the thirteenth.
    of_text = np.stack([np.linspace(-0.1, 0.1, 14)] * 3)
    of_text[0, 2], of_text[0, 12] = 0.3, -0.2
    of_text[1] += 0.5
    of_text[2] -= 0.5

    def law(powers, dim="matrix"):
        curves = np.exp(np.multiply.outer(np.log(widths), powers))
        return ("width", "rule", dim, "seed"), np.tile(curves[..., None], n)

    ratio = ("width", "rule"), np.multiply.outer(widths**-0.5, np.ones(3))
    data = {"top": law(powers), "gain": law(-powers), "sublayer_gain": law(powers, "sublayer"), "root_ratio": ratio}
    # Under one rule gains fall from matrix to matrix where top values rise.
    gains_of_text = 2 * of_text
    gains_of_text[1] = gains_of_text[1, ::-1]
    texts = {"top": law(of_text), "gain": law(gains_of_text), "sublayer_gain": law(of_text[:, :4], "sublayer"), "root_ratio": ratio}
    flat = (("pair", "matrix", "seed"), np.ones((2, 1, n)))
    pairs = xr.Dataset({"top": flat, "root_ratio": ("pair", np.ones(2)), "spectrum": ((*flat[0], "fraction"), np.ones((2, 1, n, 2)))})
    noise = xr.Dataset(
        {
            "rms_ratio": (("width", "decay", "seed"), np.multiply.outer([[0.9, 1.05]], np.ones(n))),
            "top": (("noise_width", "decay", "seed"), np.ones((len(config.noise.widths), 2, n))),
        }
    )
    t = config.transfer
    by_vector = ("width", "vector_decay", "vector_rate", "seed"), np.ones((len(t.vector_widths), 2, len(t.vector_rates), n))
    losses = np.ones((2, len(t.widths), len(t.rates), len(t.decays), n))
    made = {
        "by_rule": xr.Dataset(data, {"rule": rules}),
        "by_pair": pairs,
        "by_vector_rate": xr.Dataset({"loss": by_vector}, {"width": list(t.vector_widths)}),
        "by_grid": xr.Dataset(
            {"loss": (("scaled", "width", "rate", "decay", "seed"), losses)}, {"scaled": [0, 1], "width": list(t.widths)}
        ),
    }
    runs = SimpleNamespace(entropy=0.0, **{name: lambda value=value: value for name, value in made.items()})
    without = dict.fromkeys(("_notes", "_edge_notes", "_transfer_notes", "_text_notes"))
    text = xr.Dataset(texts, {"rule": rules})
    for name, value in {"Runs": runs, "walk_by_noise": noise, "train_on_text": text, **without}.items():
        monkeypatch.setattr(paper, name, lambda *_, value=value: value)
    found = paper.run(config, Session(jax.random.key(0))).measures
    for name, value in {
        "C1.noise_level": 0.9,
        "C2.width_exponent": 0.4,
        "C3.top_value_slope": 0.4,
        "C3.distance_to_next_rule": 0.1,
        "C6.rank_correlation": -1,
        "C2.text_width_exponent": 0.5 - 0.2,
        "C3.text_top_value_slope": 0.3,
        # Of the first matrix, whose slopes are -0.1 + 0.5 and -0.1 - 0.5, it is 0.3; of the third -0.1 + 4/130 + 0.5 - 0.3 = 0.13.
        "C3.text_distance_to_next_rule": 0.5 - 0.1 + 2 * 0.2 / 13 - 0.3,
        "C6.text_rank_correlation": scipy.stats.spearmanr(of_text.ravel(), gains_of_text.ravel())[0],
        "C6.text_rank_correlation_within_a_rule": -1,
    }.items():
        np.testing.assert_allclose(found[name].value, value, rtol=1e-6, err_msg=name)


WIDTHS = paper.SCALES["laptop"].text.widths
SMALL = dataclasses.replace(paper.SCALES["smoke"].text, n_layers=2)
SUBLAYERS = {"attention": ("query", "key", "value", "output"), "feed_forward": ("gate", "up", "down")}


def trainer_of(width, config=SMALL):
    return Trainer(config, 84, width, b1=0.9, b2=0.95)


def by_path(tree):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("width", WIDTHS[::3])
def test_only_the_sublayers_weights_are_matrices(width):
    attention, feed_forward = ("query", "key", "value", "output"), ("gate", "up", "down")
    expected = {".embedding.weight": "vector", ".norm.weight": "vector", ".readout.weight": "output"}
    for layer in range(2):
        expected |= {f".blocks[{layer}].{name}_norm.weight": "vector" for name in ("attention", "feed_forward")}
        expected |= {f".blocks[{layer}].attention.{name}.weight": "matrix" for name in attention}
        expected |= {f".blocks[{layer}].feed_forward.{name}.weight": "matrix" for name in feed_forward}
    trainer = trainer_of(width, paper.SCALES["laptop"].text)
    assert by_path(trainer.labels) == expected
    shapes = by_path(trainer.shapes)
    assert shapes.keys() == expected.keys()
    # Heads of 32 at every width, and one ratio of feed-forward units.
    assert trainer.shapes.blocks[0].attention.head_dim == 32 and trainer.shapes.blocks[0].attention.n_heads == width // 32
    assert shapes[".blocks[1].feed_forward.up.weight"].shape == (11 * width // 4, width)


def test_rules_differ_in_the_decay_of_matrices_alone():
    for width, m in zip(WIDTHS, (1, 2, 4, 8), strict=True):
        pairs = matrix_pairs(32, width, 0.02, 1.0)
        assert list(pairs) == list(RULES)
        found = [tuple(pair) for pair in pairs.values()]
        np.testing.assert_allclose(found, [(0.02 / m, 1.0), (0.02 / m, m**0.5), (0.02 / m, m)], rtol=1e-12)


@pytest.mark.parametrize("width", SMALL.widths)
def test_every_class_gets_the_rates_and_decays_of_its_rule(width):
    """A constant gradient makes Adam's step the rate itself, and decay adds rate times decay times the weight."""
    trainer, m = trainer_of(width), width / SMALL.widths[0]
    weights = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3.0), trainer.shapes)
    ones = jax.tree.map(jnp.ones_like, weights)
    labels = by_path(trainer.labels)
    for (rule, scaling), pair in zip(RULES.items(), matrix_pairs(SMALL.widths[0], width, SMALL.rate, SMALL.decay).values(), strict=True):
        optimizer = trainer.optimizer(Lane(jnp.array(tuple(pair), jnp.float32), jax.random.key(0)))
        step, _ = optimizer.update(ones, optimizer.init(weights), weights)
        decay = SMALL.decay * m ** {"constant": 0.0, "root": 0.5, "proportional": 1.0}[rule]
        sizes = {"matrix": SMALL.rate / m * (1 + 3 * decay), "vector": SMALL.vector_rate, "output": SMALL.vector_rate}
        for path, update in by_path(step).items():
            np.testing.assert_allclose(update, -sizes[labels[path]], rtol=1e-5, err_msg=f"{rule} {path}")
        ready = width_adamw(
            scaling(SMALL.widths[0], width), SMALL.rate, SMALL.decay, trainer.labels, vector_learning_rate=SMALL.vector_rate
        )
        same, _ = ready.update(ones, ready.init(weights), weights)
        for path, update in by_path(same).items():
            np.testing.assert_allclose(update, by_path(step)[path], rtol=1e-6, err_msg=f"{rule} {path}")


@pytest.mark.parametrize("width", WIDTHS)
def test_first_weights_have_the_deviations_of_mup(width):
    trainer = trainer_of(width, paper.SCALES["laptop"].text)
    model, other = (eqx.filter_jit(trainer.draw)(jax.random.key(seed)) for seed in (0, 1))
    labels, others = by_path(trainer.labels), by_path(other)
    for path, leaf in by_path(model).items():
        if leaf.ndim == 1:
            np.testing.assert_array_equal(leaf, 1.0)
            continue
        deviation = {"matrix": leaf.shape[1] ** -0.5, "output": 32**-0.5, "vector": 1.0}[labels[path]]
        error = 5 / np.sqrt(2 * leaf.size)  # five standard errors of a deviation
        assert np.std(leaf) / deviation == pytest.approx(1.0, abs=error), path
        assert abs(np.mean(leaf)) < 5 * deviation / np.sqrt(leaf.size), path
        assert abs(np.corrcoef(leaf.ravel(), others[path].ravel())[0, 1]) < 5 / np.sqrt(leaf.size), path


def test_first_logits_fall_as_the_root_of_the_width_and_no_faster():
    """Norm 1/√m: a normalised token has the length √d, the read-out the deviation 1/√d₀, and the multiplier is 1/m."""
    config = dataclasses.replace(SMALL, widths=(8, 16, 32, 128))
    tokens = jax.random.randint(jax.random.key(1), (8, config.context), 0, 84)
    for width in config.widths:
        trainer = trainer_of(width, config)
        keys = jax.random.split(jax.random.key(0), 8)
        logits = eqx.filter_jit(eqx.filter_vmap(lambda key, trainer=trainer: trainer.logits(trainer.draw(key), tokens)))(keys)
        assert jnp.sqrt(jnp.mean(logits**2)) * (width / 8) ** 0.5 == pytest.approx(1.0, rel=0.1)


def test_logits_of_the_model_are_times_the_multiplier():
    trainer = trainer_of(16)
    model = trainer.draw(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, SMALL.context), 0, 84)
    np.testing.assert_allclose(trainer.logits(model, tokens), jax.vmap(model)(tokens) / 2, rtol=1e-6)


def test_a_batch_depends_on_seed_and_step_alone():
    texts = Texts(jnp.arange(1000), jnp.zeros((1, 1), jnp.int32))
    seeds = jax.random.split(jax.random.key(0), 3)
    found = []
    for width in SMALL.widths:
        trainer = trainer_of(width)

        @jax.jit
        def batches(keys, trainer=trainer):
            return jax.vmap(lambda key: jax.vmap(lambda done: trainer.batch(texts, key, done))(jnp.arange(3)))(keys)

        for pair in matrix_pairs(SMALL.widths[0], width, SMALL.rate, SMALL.decay).values():
            lanes = make_lanes(pair, seeds)
            np.testing.assert_allclose(lanes.matrix, [tuple(pair)] * 3, rtol=1e-6)
            found.append(np.asarray(batches(lanes.key)))
    assert len(found) == 6
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    assert len(np.unique(found[0][:, :, 0, 0])) > 6  # of 9 seeds and steps
    # Characters that follow each other, one more than the context.
    np.testing.assert_array_equal(np.diff(found[0], axis=-1), 1)
    assert found[0].shape == (3, 3, SMALL.batch_size, SMALL.context + 1)


def test_readings_are_those_of_the_decoder():
    trainer = trainer_of(16)
    model = trainer.draw(jax.random.key(0))
    texts = jax.random.randint(jax.random.key(1), (3, SMALL.context + 1), 0, 84)
    found = eqx.filter_jit(trainer._readings)(model, texts)
    np.testing.assert_allclose(found["loss"], trainer.loss(model, texts), rtol=1e-5)
    assert found["top"].shape == found["gain"].shape == (14,) and found["sublayer_gain"].shape == (4,)
    weights = [getattr(getattr(b, s), m).weight for b in model.blocks for s, ms in SUBLAYERS.items() for m in ms]
    np.testing.assert_allclose(found["top"], [np.linalg.norm(w, 2) for w in weights], rtol=1e-5)
    # A gain lies below the largest that a matrix can have, and is that of the block as a whole.
    assert (found["gain"] <= found["top"] * np.array([np.sqrt(w.shape[1] / w.shape[0]) for w in weights]) * (1 + 1e-5)).all()


def test_gains_of_a_block_by_hand():
    block = trainer_of(16).draw(jax.random.key(0)).blocks[1]
    assert SUBLAYERS["attention"] + SUBLAYERS["feed_forward"] == CLASSES
    x = jax.random.normal(jax.random.key(1), (3, 5, 16))

    def rms(values):
        return np.sqrt(np.mean(np.square(values)))

    def norm(x):
        return np.asarray(x / np.sqrt(np.mean(np.square(x), -1, keepdims=True) + 1e-5))

    attention: Any = block.attention
    feed_forward: Any = block.feed_forward
    n = norm(x)
    expected = {name: rms(n @ getattr(attention, name).weight.T) / rms(n) for name in ("query", "key", "value")}
    added = np.asarray(jax.vmap(attention)(jnp.asarray(n)))
    # What the square last matrix sees, from what it gives.
    seen = np.linalg.solve(np.asarray(attention.output.weight, np.float64), added.reshape(-1, 16).T).T
    expected["output"], of_attention = rms(added) / rms(seen), rms(added) / rms(n)
    between = np.asarray(x) + added
    n = norm(between)
    gate, up = (n @ np.asarray(linear.weight).T for linear in (feed_forward.gate, feed_forward.up))
    units = gate / (1 + np.exp(-gate)) * up
    fed = units @ np.asarray(feed_forward.down.weight).T
    expected |= {"gate": rms(gate) / rms(n), "up": rms(up) / rms(n), "down": rms(fed) / rms(units)}
    after, found = eqx.filter_jit(block_gains)(block, x)
    np.testing.assert_allclose(found["gain"], [expected[name] for name in CLASSES], rtol=1e-3)
    np.testing.assert_allclose(found["sublayer_gain"], [of_attention, rms(fed) / rms(n)], rtol=1e-4)
    np.testing.assert_allclose(after, between + fed, atol=1e-4)
    np.testing.assert_allclose(after, jax.vmap(lambda text: block(text)[0])(x), atol=1e-5)


def test_top_values_are_in_the_order_of_the_classes():
    block = trainer_of(16).draw(jax.random.key(0)).blocks[0]
    known = dict(zip(CLASSES, range(1, 8), strict=True))
    for s, matrices in SUBLAYERS.items():
        for m in matrices:
            shape = getattr(getattr(block, s), m).weight.shape
            block = eqx.tree_at(lambda b, s=s, m=m: getattr(getattr(b, s), m).weight, block, known[m] * jnp.eye(*shape))
    np.testing.assert_allclose(jax.jit(top_values)(block), range(1, 8), rtol=1e-6)


def test_the_surprise_of_who_knows_frequencies_alone():
    texts, n_symbols, surprise = load_texts(SMALL, Session(jax.random.key(0)))
    train = datasets.load_text("shakespeare")
    assert n_symbols == 84 and len(texts.train) == len(train)
    counts = {symbol: 1 + int((train.tokens == symbol).sum()) for symbol in np.unique(texts.validation[:, 1:])}
    total = len(train) + 84
    expected = [-np.log(counts[int(symbol)] / total) for symbol in np.ravel(texts.validation[:, 1:])]
    assert surprise == pytest.approx(np.mean(expected), rel=1e-6)
    assert texts.validation.shape == (SMALL.n_validation, SMALL.context + 1)


def test_a_run_in_two_loops_is_a_run_in_one():
    trainer = trainer_of(8)
    texts = Texts(jax.random.randint(jax.random.key(2), (500,), 0, 84), jnp.zeros((1, SMALL.context + 1), jnp.int32))
    lanes = make_lanes(RateAndDecay(0.02, 1.0), jax.random.split(jax.random.key(0), 3))
    args = (lanes, texts)

    def after(*parts):
        states = trainer.begin(lanes)
        for steps in parts:
            states = Session(jax.random.key(0)).loop(trainer.step, states, steps=steps, args=args, label="part").state
        return by_path(eqx.filter(states, eqx.is_array))

    whole, halves = after(4), after(1, 3)
    for path, leaf in whole.items():
        np.testing.assert_array_equal(leaf, halves[path], err_msg=path)
    assert (whole[".done"] == 4).all()


@pytest.mark.parametrize("steps", [10, 47, 100])
def test_late_means_are_over_the_last_quarter(steps):
    """Of a state that counts its steps, beside one loop that is looked at all along."""

    def step(n, i, args):
        return n + 1.0

    common = {"args": (), "watch": lambda n, args: {"n": n}, "label": "count"}
    found = late_means(Session(jax.random.key(0)), step, jnp.zeros(1), steps=steps, **common)
    history = Session(jax.random.key(0)).loop(step, jnp.zeros(1), steps=steps, every=max(steps // 20, 1), **common).history
    assert found == {"n": pytest.approx(history["n"][history["step"] > 0.75 * steps].mean())}


def test_what_has_not_settled_is_said():
    session = Session(jax.random.key(0))
    pairs = {"constant": (0.01, 0.1), "root": (0.01, 1.0), "proportional": (0.1, 1.0)}
    note_waits(session, pairs, NAMES, "width 9", 1000)
    assert session.notes == ["λ constant, width 9: its steady state takes 1498 steps, not reached when measured"]


@pytest.mark.parametrize("part", ["chain", "text"])
def test_on_a_laptop_every_rule_settles(part):
    config = paper.SCALES["laptop"]
    sizes = config if part == "chain" else config.text
    for width in sizes.widths:
        for pair in matrix_pairs(sizes.widths[0], width, sizes.rate, sizes.decay).values():
            assert relaxation_steps(*pair) <= 0.75 * sizes.steps


def test_sizes_that_leave_no_whole_heads_or_units_are_refused():
    for change, message in (({"widths": (8, 12)}, "text.widths must be a multiple of 8"), ({"head_dim": 6}, "text.head_dim must be")):
        config = dataclasses.replace(paper.SCALES["smoke"], text=dataclasses.replace(SMALL, **change))
        with pytest.raises(ValueError, match=message):
            paper.run(config, Session(jax.random.key(0), scale="smoke"))


def test_the_estimate_of_memory_knows_of_the_text():
    config = paper.SCALES["laptop"]
    parameters = 3 * 2 * (4 + 3 * 11 / 4) * 1024**2
    wider = dataclasses.replace(config, text=dataclasses.replace(config.text, widths=(128, 256, 512, 1024)))
    assert paper.memory(wider) > 4 * 6 * parameters
    more = dataclasses.replace(wider, text=dataclasses.replace(wider.text, batch_size=4096))
    assert paper.memory(more) > 10 * paper.memory(wider)
