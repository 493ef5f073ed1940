from itertools import combinations, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gradatim.sciml import linear_cka, minibatch_cka, unbiased_hsic


def test_cka_is_as_known_and_blind_to_rotation_scale_and_shift_only(double):
    x, y = jnp.array([[1.0, 0], [0, 1], [1, 1], [2, -1]]), jnp.array([[1.0], [2], [0], [3]])
    turn = jnp.array([[0.6, -0.8], [0.8, 0.6]])

    @jax.jit
    def look(x, y):
        moved = 3 * x @ turn + jnp.array([[5.0, -1.0]])
        return linear_cka(x, y), linear_cka(x, x), linear_cka(x, moved), linear_cka(x, x * jnp.array([[1.0, 4.0]]))

    known, same, moved, stretched = look(x, y)
    assert abs(known - 0.3278353830) < 1e-10 and np.allclose([same, moved], 1, atol=1e-12) and stretched < 0.99


def test_layers_seen_at_different_inputs_are_refused():
    with pytest.raises(ValueError, match="both layers must be seen at the same inputs, at least 2, got 3 and 2"):
        linear_cka(jnp.zeros((3, 1)), jnp.zeros((2, 1)))


def symmetric(seed, n):
    half = np.random.default_rng(seed).normal(size=(n, n))
    return half + half.T


def statistic(k, other):
    """Song et al. 2012: the mean of Kᵢⱼ (Lᵢⱼ + L_qr - 2 L_iq) over four different inputs."""
    fours = np.array(list(permutations(range(len(k)), 4))).T
    i, j, q, r = fours
    return np.mean(k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]))


@pytest.mark.parametrize("n", [4, 7])
def test_unbiased_hsic_is_the_mean_over_four_different_inputs(n, double):
    k, other = symmetric(0, n), symmetric(1, n)
    found = unbiased_hsic(jnp.asarray(k), jnp.asarray(other))
    assert np.isclose(found, statistic(k, other), rtol=1e-12) and unbiased_hsic(jnp.asarray(k), jnp.asarray(k)) > 0
    # A diagonal says how alike an input is to itself, which is where the bias comes from.
    assert np.isclose(unbiased_hsic(jnp.asarray(k + 9 * np.eye(n)), jnp.asarray(other)), found, rtol=1e-12)


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(7, 3))
    return x, np.tanh(x @ rng.normal(size=(3, 2))) + 0.3 * rng.normal(size=(7, 2))


def test_all_batches_together_are_the_whole(layers, double):
    """The mean of HSIC₁ over all batches is its value of all inputs, term by term, and so is the ratio."""
    x, y = map(jnp.asarray, layers)
    batches = np.array(list(combinations(range(7), 4)))
    k, other = np.asarray(x @ x.T), np.asarray(y @ y.T)
    rows, columns = batches[:, :, None], batches[:, None, :]
    terms = jax.vmap(unbiased_hsic)(jnp.asarray(k[rows, columns]), jnp.asarray(other[rows, columns]))
    assert np.isclose(terms.mean(), statistic(k, other), rtol=1e-12)
    whole = statistic(k, other) / np.sqrt(statistic(k, k) * statistic(other, other))
    assert np.isclose(minibatch_cka(x[batches], y[batches]), whole, rtol=1e-12)
    assert np.isclose(minibatch_cka(x[None], y[None]), whole, rtol=1e-12)
    # Unlike the mean of ratios.
    ratios = jax.vmap(lambda x, y: minibatch_cka(x[None], y[None]))(x[batches], y[batches])
    assert abs(ratios.mean() - whole) > 1e-3


def test_cka_of_batches_is_one_for_the_same_and_blind_to_rotation_scale_and_shift_only(layers, double):
    x, y = (np.stack([part[:5], part[2:]]) for part in layers)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    cka = jax.jit(minibatch_cka)
    base = cka(x, y)
    assert np.isclose(cka(x, x), 1, rtol=1e-12) and np.isclose(cka(x, -3 * x @ turn + 2), 1, rtol=1e-12) and 0 < base < 0.99
    assert np.isclose(cka(y, x), base, rtol=1e-12) and np.isclose(cka(5 * x @ turn - 7, 0.1 * y + 1), base, rtol=1e-12)
    assert cka(x, x * np.array([1.0, 4.0, 1.0])) < 0.99


def test_independent_layers_are_about_zero_where_the_biased_alignment_is_near_one():
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(200, 8, 64)).astype(np.float32) for _ in range(2))
    # Of 28 pairs in 200 batches each entry is of order 1/8 of the diagonal's: one standard deviation is about 0.016.
    assert abs(jax.jit(minibatch_cka)(x, y)) < 0.06 and jax.vmap(linear_cka)(jnp.asarray(x), jnp.asarray(y)).mean() > 0.8


def test_batches_one_by_one_are_as_good_as_stacked_and_need_not_be_alike(layers, double):
    x, y = map(jnp.asarray, layers)
    one_by_one = minibatch_cka((x[i : i + 5] for i in (0, 2)), (y[i : i + 5] for i in (0, 2)))
    assert np.isclose(one_by_one, minibatch_cka(jnp.stack([x[:5], x[2:]]), jnp.stack([y[:5], y[2:]])), rtol=1e-12)
    pairs = [(x[:4], y[:4]), (x[2:], y[2:])]
    terms = [[statistic(np.asarray(a @ a.T), np.asarray(b @ b.T)) for a, b in ((x, y), (x, x), (y, y))] for x, y in pairs]
    cross, one, other = np.mean(terms, axis=0)
    unlike = jax.jit(minibatch_cka)([x[:4], x[2:]], [y[:4], y[2:]])
    assert np.isclose(unlike, cross / np.sqrt(one * other), rtol=1e-12)


def test_features_far_from_zero_are_told_apart_in_single_precision(layers):
    x, y = (jnp.asarray(part.astype(np.float32)[None]) for part in layers)
    assert np.isclose(minibatch_cka(x + 1000, y - 1000), minibatch_cka(x, y), atol=1e-3)


def test_cka_of_batches_can_be_differentiated(layers, double):
    x, y = (jnp.asarray(np.stack([part[:5], part[2:]])) for part in layers)
    check_grads(jax.jit(minibatch_cka), (x, y), order=1)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (jnp.ones((2, 3, 1)), jnp.ones((2, 3, 1)), "a batch must have at least 4 inputs, got 3"),
        ([jnp.ones((3, 1))], [jnp.ones((3, 1))], "a batch must have at least 4 inputs, got 3"),
        (jnp.ones((2, 5, 1)), jnp.ones((2, 4, 1)), "both layers must be seen at the same inputs, got batches of 5 and 4"),
        (jnp.ones((2, 5, 1)), jnp.ones((3, 5, 1)), "both layers must have the same batches, at least 1, got 2 and 3"),
        ([jnp.ones((5, 1))], [jnp.ones((5, 1))] * 2, "both layers must have the same batches, but one ends after 1"),
        ([], [], "both layers must have the same batches, at least 1, got none"),
        (jnp.ones((5, 2)), jnp.ones((5, 2)), r"stacked batches must have axes for batches, inputs and features, got \(5, 2\) and \(5, 2\)"),
    ],
)
def test_batches_that_cannot_be_are_refused(first, second, message, without_type_checks):
    with pytest.raises(ValueError, match=message):
        minibatch_cka(first, second)


def test_kernels_of_different_or_too_few_inputs_are_refused(without_type_checks):
    with pytest.raises(ValueError, match=r"both kernels must be of the same inputs, got shapes \(4, 4\) and \(5, 5\)"):
        unbiased_hsic(jnp.eye(4), jnp.eye(5))
    with pytest.raises(ValueError, match="a batch must have at least 4 inputs, got 3"):
        unbiased_hsic(jnp.eye(3), jnp.eye(3))
