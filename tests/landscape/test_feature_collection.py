import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gradatim.landscape import (
    coupon_collector_time,
    repelled_collection_time,
    selection_probabilities,
    simulate_collection,
)


def harmonic(n):
    return (1 / np.arange(1, n + 1)).sum()


def test_o9_starts_with_heavy_tails_select_by_powers_of_strength():
    strengths, tail, n = np.array([1.0, 2.0, 3.0]), 1.5, 100_000
    start = np.random.default_rng(0).weibull(tail, size=(n, 3)) ** -1.0
    winners = np.bincount((strengths * start).argmax(axis=1), minlength=3) / n
    # P(x ≤ X) = exp(-X⁻ᵃ) of the inverse of a Weibull variable.
    assert np.allclose(selection_probabilities(jnp.asarray(strengths), tail), winners, atol=5e-3)


def test_the_winner_is_the_largest_product_of_strength_and_start():
    mu, start = np.array([1.0, 1.5, 0.8]), np.array([0.5, 0.4, 0.6])

    def race(_, a):
        return mu * a**2 - (mu * a**3).sum() * a

    end = solve_ivp(race, (0, 60), start / np.linalg.norm(start), rtol=1e-8).y[:, -1]
    assert end.argmax() == (mu * start).argmax() == 1 and end[1] > 0.999


@given(st.integers(1, 60))
def test_o9_equal_chances_take_the_harmonic_sum(n):
    assert np.isclose(coupon_collector_time(np.ones(n) / n), n * harmonic(n), rtol=1e-8)


def test_o9_eleven_equal_features():
    assert round(coupon_collector_time(jnp.ones(11) / 11), 2) == 33.22


@pytest.mark.parametrize("p", [[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.999, 0.001]])
def test_unequal_chances_take_what_inclusion_and_exclusion_says_and_no_less_than_the_bound(p):
    subsets = [[i for i in range(len(p)) if mask >> i & 1] for mask in range(1, 2 ** len(p))]
    exact = sum((-1) ** (len(subset) + 1) / sum(p[i] for i in subset) for subset in subsets)
    time = coupon_collector_time(np.array(p))
    assert np.isclose(time, exact, rtol=1e-8) and time >= max(1 / min(p), len(p) * harmonic(len(p))) * (1 - 1e-6)


@pytest.fixture(scope="module")
def simulated():
    key = jax.random.key(0)
    settings = {"independent": (1.0, 1.0), "light": (0.5, 1.0), "heavy": (0.5, 3.0)}
    return {
        name: np.asarray(simulate_collection(key, 11, tail=tail, held_strength=held, n_trials=1000))
        for name, (held, tail) in settings.items()
    }


@pytest.mark.parametrize(("name", "tail"), [("independent", None), ("light", 1.0), ("heavy", 3.0)])
def test_simulated_collections_take_as_long_as_the_formulas_say(simulated, name, tail):
    exact = 11 * harmonic(11) if tail is None else repelled_collection_time(11, tail)
    counts = simulated[name]
    assert counts.min() >= 11 and abs(counts.mean() - exact) < 5 * counts.std() / len(counts) ** 0.5


def test_repulsion_lies_between_no_repeats_and_independence():
    assert np.isclose(repelled_collection_time(11, 1e-9), 11 * harmonic(11)) and np.isclose(repelled_collection_time(11, 60.0), 11)
    assert np.isclose(repelled_collection_time(5, 1.0), (5 * harmonic(5) + 5) / 2)


def test_compiled_with_traced_strengths_and_tails():
    strengths, tail = jnp.array([2.0, 1.0, 1.0]), jnp.asarray(1.5)
    assert np.allclose(jax.jit(selection_probabilities)(strengths, tail), selection_probabilities(strengths, 1.5))
    repelled = jax.jit(repelled_collection_time, static_argnums=0)(11, tail)
    assert np.isclose(repelled, repelled_collection_time(11, 1.5), rtol=1e-6)
    simulated = jax.jit(lambda a, mu: simulate_collection(jax.random.key(0), 3, tail=a, held_strength=mu, n_trials=4))(tail, tail / 3)
    assert np.array_equal(simulated, simulate_collection(jax.random.key(0), 3, tail=1.5, held_strength=0.5, n_trials=4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: selection_probabilities(jnp.ones(2), 0.0), "tail must be positive, got 0.0"),
        (lambda: selection_probabilities(jnp.array([1.0, 0.0]), 1.0), "strengths must be positive"),
        (lambda: coupon_collector_time(jnp.array([0.5, 0.6])), "probabilities must be positive and add up to 1"),
        (lambda: coupon_collector_time(jnp.array([1.0, 0.0])), "probabilities must be positive"),
        (lambda: repelled_collection_time(0, 1.0), "n_features must be at least 1, got 0"),
        (lambda: simulate_collection(jax.random.key(0), 3, tail=-1.0), "tail must be positive, got -1.0"),
        (lambda: simulate_collection(jax.random.key(0), 3, tail=1.0, n_trials=0), "n_trials must be at least 1, got 0"),
        (lambda: simulate_collection(jax.random.key(0), 3, tail=1.0, held_strength=0.0), "held_strength must be positive, got 0.0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
