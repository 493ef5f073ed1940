import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradatim.landscape import (
    Pairs,
    all_pairs,
    ascend_features,
    classify_features,
    cyclic_group,
    dihedral_group,
    energy_parts,
    feature_energy,
    maximal_energies,
    node_gradient,
    pair_features,
    random_nodes,
    sphere_curvatures,
    split_pairs,
    symmetric_group,
    target_gradient,
)

from .test_group_arithmetic import QUATERNIONS

ROUND_OFF = 1e-10  # sums of some hundred products in double precision


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def mixed(x):
    return 0.7 * x + 0.5 * x**2


@jax.jit
def energies(weights, table):
    """Of squares, of a mixture and of nothing but x, for nodes as columns, with gradients of the last two."""
    square, mixture = (feature_energy(weights, table, activation) for activation in (jnp.square, mixed))
    gradient = jax.grad(lambda w: feature_energy(w, table, mixed).sum())(weights)
    linear = jax.grad(lambda w: feature_energy(w, table, lambda x: x).sum())(weights)
    features = pair_features(weights, table.pairs, mixed)
    sent = target_gradient(features, table.labels, len(weights) // 2)
    return square, mixture, gradient, linear, features, sent, node_gradient(weights, table.pairs, sent, mixed)


def wave(order, frequency, phase=0.0):
    return np.cos(2 * np.pi * frequency / order * np.arange(order) + phase)


def node(*halves):
    w = np.concatenate([half / np.linalg.norm(half) for half in halves])
    return w / np.linalg.norm(w)


def dense(weights, table, order):
    """The energies of squares, with all matrices written out."""
    pairs, labels = np.asarray(table.pairs), np.asarray(table.labels)
    X = np.concatenate([np.eye(order)[pairs[:, 0]], np.eye(order)[pairs[:, 1]]], axis=1)
    Y = np.eye(order)[labels]
    return np.sum(((Y - Y.mean(axis=0)).T @ (X @ weights) ** 2) ** 2, axis=0) / 2


@given(st.integers(1, 3), st.floats(0, 6), st.floats(0, 6))
@settings(max_examples=10)
def test_o1_one_frequency_has_a_quarter_of_the_order_at_any_phases(frequency, first, second):
    # Five columns, as elsewhere: nothing new is compiled.
    w = np.stack([node(wave(7, frequency, first), wave(7, frequency, second)), *4 * [np.ones(14) / 14**0.5]], axis=1)
    with jax.enable_x64(True):
        square = energies(jax.device_put(w), all_pairs(cyclic_group(7)))[0]
    # The article's M/16 is that of x²/2, of which the energy is a quarter; a constant has none.
    assert np.allclose(square, [7 / 4, 0, 0, 0, 0], atol=ROUND_OFF) and np.isclose(square[0] / 4, 7 / 16)


def test_o1_the_alternating_frequency_has_half_the_order():
    w = node(wave(8, 4), -wave(8, 4))[:, None]
    assert np.allclose(feature_energy(jax.device_put(w), all_pairs(cyclic_group(8))), 4)
    assert maximal_energies(cyclic_group(8)).tolist() == [0, 2, 2, 2, 4]


def test_o3_two_frequencies_share_as_their_squares():
    shares = np.linspace(0, 1, 5)
    halves = [np.sqrt(c) * node(wave(7, 1)) + np.sqrt(1 - c) * node(wave(7, 2)) for c in shares]
    w = np.stack([np.concatenate([half, half]) / 2**0.5 for half in halves], axis=1)
    energy = energies(jnp.asarray(w), all_pairs(cyclic_group(7)))[0]
    assert np.allclose(energy, 7 / 4 * (shares**2 + (1 - shares) ** 2)) and energy.argmin() == 2


@pytest.fixture(scope="module")
def random_state():
    with jax.enable_x64(True):
        weights = np.random.default_rng(0).normal(size=(14, 5))
        parts = split_pairs(cyclic_group(7), key=jax.random.key(0), n_train=30)
        tables = {"all": all_pairs(cyclic_group(7)), "some": parts[0]}
        found = {name: jax.device_get(energies(jnp.asarray(weights), table)) for name, table in tables.items()}
    return weights, tables, found


def test_the_energy_is_that_of_written_out_matrices(random_state):
    weights, tables, found = random_state
    for name, table in tables.items():
        assert np.allclose(found[name][0], dense(weights, table, 7), rtol=ROUND_OFF)


def test_o4_a_linear_activation_learns_nothing_of_all_pairs_and_leaves_the_square_its_share(random_state):
    _, _, found = random_state
    assert np.abs(found["all"][3]).max() < ROUND_OFF
    assert np.allclose(found["all"][1], 0.5**2 * found["all"][0], rtol=ROUND_OFF)
    # On some of the pairs classes have different means.
    assert np.abs(found["some"][3]).max() > 1


def test_o6_the_energy_has_the_gradient_that_comes_back_through_the_network(random_state):
    weights, tables, found = random_state
    for name, table in tables.items():
        _, _, gradient, _, features, sent, by_hand = found[name]
        assert np.allclose(gradient, by_hand, rtol=1e-8, atol=ROUND_OFF)
        Y = np.eye(7)[np.asarray(table.labels)]
        Y = Y - Y.mean(axis=0)
        assert np.allclose(sent, Y @ (Y.T @ features), atol=1e-9)
        first = np.asarray(table.pairs[:, 0]) == 3
        slope = 0.7 + (weights[np.asarray(table.pairs[:, 0])] + weights[7 + np.asarray(table.pairs[:, 1])])
        assert np.allclose(gradient[3], (slope * sent)[first].sum(axis=0), rtol=1e-8)


ASCENTS = {
    "cyclic 8": (cyclic_group(8), 40, [2.0, 4.0]),
    "S3": (symmetric_group(3), 14, [1.5, 3.0]),
}


@pytest.fixture(scope="module")
def ascents():
    with jax.enable_x64(True):
        found = {}
        for name, (group, n, _) in ASCENTS.items():
            starts = random_nodes(jax.random.key(1), n, 2 * group.order)
            end = ascend_features(starts, all_pairs(group), n_steps=300)
            found[name] = jax.device_get((end, classify_features(end.weights, group), energy_parts(end.weights.T, group)))
        return found


@pytest.mark.parametrize("name", ASCENTS)
def test_o1b_o2_random_ascents_end_in_one_block_at_its_energy(ascents, name):
    group, _, levels = ASCENTS[name]
    end, features, parts = ascents[name]
    assert {min(levels, key=lambda level: abs(level - e)) for e in end.energy} == set(levels)
    assert np.allclose(end.energy, maximal_energies(group)[features.winner], rtol=1e-6)
    assert (features.purity > 1 - 1e-6).all() and (end.slope < 1e-4).all()
    # Equal norms of both halves; the phase between them is free, so that v need not be ±u (T2).
    u, v = np.split(end.weights, 2, axis=1)
    assert np.allclose(np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1), rtol=1e-3)
    assert np.allclose(parts.sum(axis=0), end.energy) and np.allclose(parts.max(axis=0), end.energy)


def test_an_ascent_within_the_quaternionic_block_ends_where_a_pair_of_conjugates_would(ascents):
    del ascents
    projector = QUATERNIONS.isotypic_projectors[-1]
    starts = np.random.default_rng(0).normal(size=(4, 2, 8)) @ projector
    # Eight elements, as the cyclic group of the ascents: nothing new is compiled.
    starts = jax.device_put(np.concatenate([starts] * 10).reshape(40, 16))
    end = ascend_features(starts, all_pairs(QUATERNIONS), n_steps=300)
    assert np.allclose(end.energy, 1.0) and maximal_energies(QUATERNIONS)[-1] == 1.0


def test_maxima_are_flat():
    w = jax.device_put(node(wave(7, 2, 0.3), wave(7, 2, 1.1)))
    curvatures = np.asarray(sphere_curvatures(w, all_pairs(cyclic_group(7))))
    # The way off the sphere, both phases turned together or apart: three zeros and no ascent.
    assert (np.abs(curvatures[-3:]) < 1e-6 * abs(curvatures[0])).all() and curvatures[-4] < -1e-3 * abs(curvatures[0])


def test_the_energy_is_a_sum_over_blocks_of_any_activation():
    group = symmetric_group(3)
    w = np.random.default_rng(2).normal(size=(12, 3))
    parts = np.asarray(energy_parts(jnp.asarray(w), group, jax.nn.relu))
    assert np.allclose(parts.sum(axis=0), feature_energy(jnp.asarray(w), all_pairs(group), jax.nn.relu)) and (parts[0] == 0).all()
    # Through the representations themselves: (M/2)/d |Σ tr|² is d/(2M) of the transformed class sums.
    table = np.maximum(w[:6][:, None] + w[6:], 0)
    sums = np.zeros((6, 3))
    np.add.at(sums, group.table, table)
    for block, part in zip(group.blocks[1:], parts[1:], strict=True):
        rho = group.irreps[block[0]]
        hat = np.einsum("hk,hij->kij", sums, rho)
        assert np.allclose(rho.shape[1] / 12 * np.sum(abs(hat) ** 2, axis=(1, 2)), part)


@pytest.mark.parametrize("order", [7, 8])
def test_the_transform_of_residues_gives_what_projectors_give(order):
    group, w = cyclic_group(order), np.random.default_rng(4).normal(size=(2 * order, 3))
    sums = np.zeros((order, 3))
    np.add.at(sums, group.table, np.maximum(w[:order][:, None] + w[order:], 0))
    expected = np.sum((group.isotypic_projectors @ sums) ** 2, axis=1) / 2
    assert np.allclose(energy_parts(jnp.asarray(w), group, jax.nn.relu)[1:], expected[1:])


def test_o11_a_relabelled_group_has_the_same_energies_and_permuted_blocks():
    group, w = cyclic_group(7), np.random.default_rng(3).normal(size=(14, 5))
    renamed = 3 * np.arange(7) % 7
    moved = np.concatenate([w[:7][renamed], w[7:][renamed]])
    before, after = (np.asarray(energy_parts(jnp.asarray(x), group)) for x in (w, moved))
    # h → 3h sends the frequencies 1, 2, 3 to 3, 1 (that is 6), 2.
    assert np.allclose(after[[3, 1, 2]], before[1:]) and np.allclose(before.sum(axis=0), after.sum(axis=0))


def test_masses_of_features():
    group = cyclic_group(8)
    w = np.stack([node(wave(8, 1), wave(8, 1, 2.0)), 2 * node(wave(8, 4), 3 + 0 * wave(8, 1)), np.zeros(16)])
    found = classify_features(jax.device_put(w), group)
    assert np.allclose(found.masses, [[0, 1, 0, 0, 0], [0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 0]], atol=ROUND_OFF)
    assert found.winner[:2].tolist() == [1, 4] and np.allclose(found.purity, [1, 1, 0])
    with pytest.raises(ValueError, match="weights must have 16 entries, two for each element, got 14"):
        classify_features(jnp.zeros((2, 14)), group)


def test_a_node_without_a_gradient_stays():
    starts = jax.device_put(np.random.default_rng(0).normal(size=(14, 5)).T)
    end = ascend_features(starts, all_pairs(cyclic_group(7)), jnp.zeros_like, n_steps=3)
    assert np.allclose(end.weights, starts / np.linalg.norm(starts, axis=1, keepdims=True)) and (end.slope == 0).all()


def test_bad_input_is_refused():
    table = all_pairs(cyclic_group(3))
    with pytest.raises(ValueError, match="weights must have an even number of inputs, two for each element, got 5"):
        feature_energy(jnp.zeros(5), table)
    with pytest.raises(ValueError, match=r"pairs must lie in \[0, 2\), got 0 to 2"):
        feature_energy(jnp.zeros(4), table)
    with pytest.raises(ValueError, match=r"pairs must lie in \[0, 3\), got -1 to 0"):
        feature_energy(jnp.zeros(6), Pairs(jnp.array([[-1, 0]]), jnp.array([0])))
    for changes, message in (({"n_steps": -1}, "n_steps must be at least 0"), ({"step_size": 0.0}, "step_size must be positive")):
        with pytest.raises(ValueError, match=message):
            ascend_features(jnp.ones((1, 6)), table, **changes)
    with pytest.raises(ValueError, match="n_nodes must be at least 1, got 0"):
        random_nodes(jax.random.key(0), 0, 6)


def test_dihedral_maxima_are_known_beforehand():
    assert np.allclose(maximal_energies(dihedral_group(4)), [0, 4, 4, 4, 2])
    assert math.isclose(maximal_energies(dihedral_group(7))[-1], 14 / 4)


def test_one_step_of_an_ascent_by_hand():
    table = all_pairs(cyclic_group(7))
    pairs, Y = np.asarray(table.pairs), np.eye(7)[np.asarray(table.labels)]
    X, Y = np.concatenate([np.eye(7)[pairs[:, 0]], np.eye(7)[pairs[:, 1]]], axis=1), Y - Y.mean(axis=0)
    starts = np.random.default_rng(0).normal(size=(5, 14))
    end = ascend_features(jax.device_put(starts), table, n_steps=1, step_size=0.2)

    def gradient(w):
        return 2 * X.T @ (X @ w * (Y @ (Y.T @ (X @ w) ** 2)))

    def unit(w):
        return w / np.linalg.norm(w, axis=0)

    w = unit(starts.T)
    w = unit(w + 0.2 * unit(gradient(w)))
    up = unit(gradient(w))
    assert np.allclose(end.weights, w.T) and np.allclose(end.energy, dense(w, table, 7))
    assert np.allclose(end.slope, np.sqrt(1 - np.sum(up * w, axis=0) ** 2)) and (end.slope > 0.01).all()
