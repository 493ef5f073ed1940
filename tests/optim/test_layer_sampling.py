import equinox as eqx
import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradatim.optim import (
    LayerSampler,
    every_layer,
    independent_layers,
    optimal_marginals,
    sampled_starts,
    shifting_starts,
    starts_from_marginals,
    total_cost,
    uniform_starts,
)

SINGLE = 1e-6
draw, marginals_of = eqx.filter_jit(LayerSampler.draw), eqx.filter_jit(LayerSampler.marginals)
constants = st.lists(st.floats(0.1, 10), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("sampler", "marginals"),
    [
        (uniform_starts(4), [0.25, 0.5, 0.75, 1]),
        (every_layer(3), [1, 1, 1]),
        (starts_from_marginals([0.25, 0.5, 1.0]), [0.25, 0.5, 1]),
        (independent_layers([0.3, 0.9, 0.5]), [0.3, 0.9, 0.5]),
        (independent_layers([0.0, 1.0, 0.5]), [0.0, 1.0, 0.5]),
    ],
)
def test_o5_marginals(sampler, marginals):
    assert np.allclose(marginals_of(sampler), marginals, atol=SINGLE)
    n = 20_000
    drawn = np.asarray(sampler.variants)[np.asarray(draw(sampler, jax.random.key(0), n))]
    p = np.asarray(marginals)
    assert (abs(drawn.mean(0) - p) <= 4 * np.sqrt(p * (1 - p) / n)).all()


@pytest.mark.parametrize("n_layers", [1, 3, 6])
def test_o5_uniform_starts_update_half_the_layers(n_layers):
    assert np.isclose(np.asarray(marginals_of(uniform_starts(n_layers))).sum(), (n_layers + 1) / 2, rtol=SINGLE)


def test_uniform_starts_cost_what_the_card_says():
    for n_layers, cost in {3: 7 / 3, 6: 13 / 6}.items():
        sampler = uniform_starts(n_layers)
        assert np.isclose(sampler.expected_cost([2 / n_layers] * n_layers, 1.0), cost, rtol=SINGLE)
        assert np.isclose(every_layer(n_layers).expected_cost([2 / n_layers] * n_layers, 1.0), 3, rtol=SINGLE)


def test_backward_passes_go_through_layers_that_are_left_alone():
    sampler = independent_layers([1.0, 0.0, 0.0])
    assert sampler.expected_cost([1.0, 2.0, 4.0], 8.0) == 15
    assert starts_from_marginals([0.0, 1.0]).expected_cost([1.0, 2.0]) == 2


@pytest.mark.parametrize(
    ("smoothness", "costs", "forward", "marginals", "cost", "full"),
    [
        ((1, 4, 2), (1, 1, 1), 0, (0.25, 1, 1), 9, 12),
        ((1, 2, 4), (2, 2, 2), 3, (0.25, 0.5, 1), 26, 36),
        ((3, 1, 2), (1, 1, 1), 1, (1, 1, 1), 12, 12),
    ],
)
def test_o8_optimal_marginals_of_the_examples(smoothness, costs, forward, marginals, cost, full):
    smoothness, costs = list(map(float, smoothness)), list(map(float, costs))
    p = optimal_marginals(smoothness, costs, float(forward))
    assert np.allclose(p, marginals, rtol=SINGLE)
    assert np.isclose(total_cost(p, smoothness, costs, float(forward)), cost, rtol=SINGLE)
    assert np.isclose(total_cost([1.0] * 3, smoothness, costs, float(forward)), full, rtol=SINGLE)


@given(smoothness=constants, rivals=st.lists(st.floats(0.01, 1), min_size=5, max_size=5), costs=st.floats(0.1, 5), forward=st.floats(0, 5))
def test_o8_no_marginals_cost_less(smoothness, rivals, costs, forward):
    b = len(smoothness)
    p = optimal_marginals(smoothness)
    rival = [*sorted(rivals[: b - 1]), 1.0]
    assert total_cost(p, smoothness, [costs] * b, forward) <= total_cost(rival, smoothness, [costs] * b, forward) * (1 + SINGLE)
    assert (np.diff(p) >= 0).all() and p[-1] == 1
    assert np.allclose(optimal_marginals([1000 * x for x in smoothness]), p, rtol=SINGLE)
    if smoothness[0] == max(smoothness):
        assert (np.asarray(p) == 1).all()


def test_o9_epoch_shift():
    early, middle, late = (np.asarray(shifting_starts(3, 0.5).probabilities(r)) for r in (0.0, 0.5, 1.0))
    assert np.allclose(early, [0.506480, 0.307196, 0.186324], atol=SINGLE)
    assert np.allclose(middle, 1 / 3, rtol=SINGLE) and np.allclose(late, early[::-1], rtol=SINGLE)
    assert all(np.allclose(shifting_starts(4, 0.0).probabilities(r), 0.25, rtol=SINGLE) for r in (0.0, 0.3, 1.0))
    assert np.allclose(shifting_starts(3, -0.5).probabilities(0.0), late, rtol=SINGLE)


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_marginals_and_costs_follow_the_progress(progress):
    sampler, costs = shifting_starts(3, 2.0), np.array([1.0, 2.0, 4.0])
    q = np.exp(2.0 * ((1 - progress) * np.array([2, 1, 0]) + progress * np.array([0, 1, 2])))
    q = q / q.sum()
    assert np.allclose(sampler.marginals(progress), np.cumsum(q), rtol=1e-5)
    expected = 0.5 + q @ np.cumsum(costs[::-1])[::-1]
    assert np.isclose(sampler.expected_cost(costs.tolist(), 0.5, progress=progress), expected, rtol=1e-5)


def test_draws_follow_the_progress():
    drawn = np.asarray(draw(shifting_starts(2, 100.0), jax.random.key(0), 1000))
    assert not drawn[:400].any() and drawn[600:].all()


def test_progress_outside_its_range():
    with pytest.raises(Exception, match=r"progress must lie in \[0, 1\]"):
        shifting_starts(3).probabilities(1.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sampled_starts([0.5, 0.4]), r"sum to 1, got \[0\.5, 0\.4\]"),
        (lambda: sampled_starts([1.5, -0.5]), r"at least 0 and sum to 1"),
        (lambda: sampled_starts([]), r"sum to 1, got \[\]"),
        (lambda: uniform_starts(0), "n_layers must be at least 1, got 0"),
        (lambda: every_layer(-1), "n_layers must be at least 1, got -1"),
        (lambda: shifting_starts(0), "n_layers must be at least 1, got 0"),
        (lambda: starts_from_marginals([0.5, 0.25, 1.0]), "must not fall"),
        (lambda: starts_from_marginals([0.5, 0.9]), "must end with 1"),
        (lambda: independent_layers([0.5, 1.1]), r"numbers in \[0, 1\]"),
        (lambda: independent_layers([0.5] * 11), "1 to 10 numbers"),
        (lambda: optimal_marginals([1.0, 0.0]), r"smoothness must be positive for every layer, got \[1\.0, 0\.0\]"),
        (lambda: optimal_marginals([1.0, 2.0], [1.0]), "costs must be 2 positive numbers"),
        (lambda: uniform_starts(2).expected_cost([1.0, 1.0], -1.0), "forward_cost at least 0"),
        (lambda: total_cost([0.0, 1.0], [1.0, 2.0], [1.0, 1.0]), r"marginals must lie in \(0, 1\] for every layer, got \[0\.0, 1\.0\]"),
        (lambda: total_cost([0.5, 1.5], [1.0, 2.0], [1.0, 1.0]), r"marginals must lie in \(0, 1\]"),
        (lambda: total_cost([], [], []), r"marginals must lie in \(0, 1\] for every layer, got \[\]"),
        (lambda: total_cost([0.5, 1.0], [1.0], [1.0, 1.0]), r"smoothness must be 2 positive numbers, got \[1\.0\]"),
        (lambda: total_cost([0.5, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0]), "smoothness must be 2 positive numbers"),
        (lambda: total_cost([0.5, 1.0], [1.0, -2.0], [1.0, 1.0]), "smoothness must be 2 positive numbers"),
        (lambda: total_cost([0.5, 1.0], [1.0, 2.0], [1.0]), "costs must be 2 positive numbers"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_state_fields_share_no_buffer():
    sampler = uniform_starts(3)
    assert sampler.early.unsafe_buffer_pointer() != sampler.late.unsafe_buffer_pointer()
    assert np.array_equal(sampler.early, sampler.late)
