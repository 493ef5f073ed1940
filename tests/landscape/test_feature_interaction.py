import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradatim.landscape import (
    cyclic_group,
    feature_energy,
    learned_prediction,
    node_coupling,
    overlap_without,
    residual_energy,
    symmetric_group,
)
from gradatim.landscape.group_arithmetic import all_pairs

ROUND_OFF = 1e-10  # of a well-conditioned inverse in double precision
DECAY = 0.2


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def coupling():
    features = np.random.default_rng(0).normal(size=(8, 5)) + 2
    pairs = np.array(list(itertools.permutations(range(5), 2)))
    with jax.enable_x64(True):
        B = np.asarray(node_coupling(jax.device_put(features), decay=DECAY))
        overlap, predicted = overlap_without(jax.device_put(features), jax.device_put(pairs), decay=DECAY)
    return features, pairs, B, np.asarray(overlap), np.asarray(predicted)


def test_coupling_is_the_inverse_of_the_centred_gram_matrix(coupling):
    features, _, B, *_ = coupling
    F = features - features.mean(axis=0)
    assert np.allclose(B @ (F.T @ F + DECAY * np.eye(5)), np.eye(5), atol=ROUND_OFF)


def test_o8_couplings_are_as_predicted_without_both_nodes_and_repel_those_alike(coupling):
    features, pairs, B, overlap, predicted = coupling
    F = features - features.mean(axis=0)
    for (j, k), s, b in zip(pairs, overlap, predicted, strict=True):
        rest = np.delete(F, [j, k], axis=1)
        P = np.eye(8) - rest @ np.linalg.solve(rest.T @ rest + DECAY * np.eye(3), rest.T)
        assert np.isclose(s, F[:, j] @ P @ F[:, k], atol=ROUND_OFF) and np.isclose(b, B[j, k], atol=ROUND_OFF)
        assert np.sign(B[j, k]) == -np.sign(s)


def test_one_pair_gives_one_number(coupling):
    features, pairs, _, overlap, _ = coupling
    one, _ = overlap_without(jax.device_put(features), jax.device_put(pairs[3]), decay=DECAY)
    assert one.shape == () and np.isclose(one, overlap[3])


@pytest.mark.parametrize("group", [cyclic_group(6), symmetric_group(3)], ids=["cyclic", "S3"])
def test_o8_all_blocks_make_the_whole_table_less_its_mean(group):
    everything = learned_prediction(group, range(1, len(group.blocks)))
    assert np.allclose(everything, np.eye(6) - 1 / 6)
    each = [learned_prediction(group, [k]) for k in range(1, len(group.blocks))]
    assert np.allclose(sum(each), everything) and all(np.linalg.matrix_rank(part) < 6 for part in each)


def test_a_commutative_group_predicts_with_the_product_that_is_printed():
    group = cyclic_group(7)
    chi = group.characters[[2, 5]]
    assert np.allclose(learned_prediction(group, [2]), np.einsum("kh,kx->hx", chi, chi.conj()).real / 7)


def test_what_is_learned_drops_out_of_the_energy():
    group, table = cyclic_group(7), all_pairs(cyclic_group(7))
    angles = 2 * np.pi / 7 * np.arange(7)
    w = np.stack([np.concatenate([np.cos(k * angles)] * 2) for k in (1, 2)], axis=1)
    F = jax.device_put((w[np.asarray(table.pairs[:, 0])] + w[7 + np.asarray(table.pairs[:, 1])]) ** 2)
    Y = np.eye(7)[np.asarray(table.labels)]
    whole = residual_energy(F, jax.device_put(Y))
    assert np.allclose(whole, feature_energy(jax.device_put(w), table))
    left = residual_energy(F, jnp.asarray(Y - learned_prediction(group, [1])[np.asarray(table.labels)]))
    assert left[0] < ROUND_OFF * whole[0] and np.isclose(left[1], whole[1])


@pytest.mark.parametrize("decay", [0.0, -1.0])
def test_bad_decays_are_refused(decay):
    for call in (lambda: node_coupling(jnp.eye(3), decay=decay), lambda: overlap_without(jnp.eye(3), jnp.array([0, 1]), decay=decay)):
        with pytest.raises(ValueError, match=f"decay must be .*, got {decay}"):
            call()


@pytest.mark.parametrize("pair", [[0, 0], [0, 3], [-1, 0]])
def test_bad_pairs_are_refused(pair):
    with pytest.raises(ValueError, match=r"pair must hold two different numbers in \[0, 3\), got"):
        overlap_without(jnp.eye(3), jnp.array(pair), decay=0.1)


@pytest.mark.parametrize("blocks", [[0], [4]])
def test_bad_blocks_are_refused(blocks):
    with pytest.raises(ValueError, match=r"blocks must lie in \[1, 4\), the trivial one aside, got"):
        learned_prediction(cyclic_group(7), blocks)
