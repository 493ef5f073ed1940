"""How many nodes it takes until each feature has one (Tian, arXiv:2509.21519, theorem 8).

A node's share αₗ of feature l grows as dαₗ/dt = μₗ αₗ² on the sphere: the one with the largest μₗ αₗ(0) outgrows the others. From
heavy-tailed starts, P(α ≤ x) = exp(-x⁻ᵃ), feature l wins with probability μₗᵃ/Σμᵃ. Nodes that choose independently are collectors of
coupons; Muon weakens what is held already, to half the strength, and repeats become rare.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

Number = float | Float[Array, ""]
N_NODES = 400
"Of the quadrature of the collector's time."


def selection_probabilities(strengths: Float[Array, " features"], tail: Number) -> Float[Array, " features"]:
    """μᵃ/Σμᵃ: which feature a node with starts of tail index a takes.

    **Arguments:** `strengths`: μ > 0; `tail`: a > 0, the smaller the heavier.

    **Raises:** `ValueError` for a number that is not positive.

    >>> print(selection_probabilities(jnp.array([2.0, 1.0, 1.0]), 1.0))
    [0.5  0.25 0.25]
    """
    _check_tail(tail)
    if is_known(strengths) and not (np.asarray(strengths) > 0).all():
        raise ValueError(f"strengths must be positive, got {strengths}")
    # Of the ratio to the largest: powers neither overflow nor vanish together.
    return jax.nn.softmax(tail * jnp.log(strengths / strengths.max()))


def coupon_collector_time(probabilities: Float[np.ndarray | Array, " features"]) -> float:
    """How many independent draws, on average, until every feature has come up.

        T₀ = ∫ 1 - Π (1 - exp(-pₗ t)) dt      from 0 to ∞;     for L equal chances L (1 + 1/2 + … + 1/L)

    It is at least the larger of 1/min p and that; the factor L is in the article's proof, not in its theorem.

    **Arguments:** `probabilities`: positive, with sum 1.

    **Raises:** `ValueError` for probabilities that are none.

    >>> print(f"{coupon_collector_time(jnp.ones(11) / 11):.2f}")
    33.22
    """
    p = np.asarray(probabilities, np.float64)
    if not (p > 0).all() or not abs(p.sum() - 1) < 1e-5:
        raise ValueError(f"probabilities must be positive and add up to 1, got {p.tolist()}")
    # From where all are certain to have come, in the logarithm of time from where none has.
    end = np.log((np.log(len(p)) + 40) / p.min())
    x, w = _quadrature()
    start = end - 45 - np.log(p.max() / p.min())
    times = np.exp(start + (end - start) * (x + 1) / 2)
    missing = -np.expm1(np.log(-np.expm1(-p[:, None] * times)).sum(axis=0))
    return float(np.exp(start) + (w * missing * times).sum() * (end - start) / 2)


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(N_NODES)


def repelled_collection_time(n_features: int, tail: Number) -> Number:
    """The same for equal features of which those that are held already pull with half the strength: Tₐ = 2⁻ᵃ T₀ + (1 - 2⁻ᵃ) L.

    **Raises:** `ValueError` for fewer than 1 feature or a tail index that is not positive.

    >>> print(f"{repelled_collection_time(11, 2.0):.2f} of at least 11")
    16.55 of at least 11
    """
    _check_tail(tail)
    if n_features < 1:
        raise ValueError(f"n_features must be at least 1, got {n_features}")
    repeats = 0.5**tail
    return repeats * n_features * float((1 / np.arange(1, n_features + 1)).sum()) + (1 - repeats) * n_features


def simulate_collection(
    key: PRNGKeyArray, n_features: int, *, tail: Number, held_strength: Number = 0.5, n_trials: int = 1000
) -> Int[Array, " trials"]:
    """The number of nodes until every feature is held, drawn trial by trial: each node takes argmax μₗ αₗ(0).

    **Arguments:** `n_features` ≥ 1; `tail`: a > 0 of the starts; `held_strength`: μ > 0 of a feature that a node holds, 1 of others
    (1: nodes choose independently); `n_trials` ≥ 1.

    **Raises:** `ValueError` for a number out of its range.

    >>> counts = simulate_collection(jax.random.key(0), 11, tail=2.0)
    >>> abs(float(counts.mean()) - repelled_collection_time(11, 2.0)) < 1
    True
    """
    _check_tail(tail)
    for name, number in (("n_features", n_features), ("n_trials", n_trials)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    if is_known(held_strength) and not held_strength > 0:
        raise ValueError(f"held_strength must be positive, got {held_strength}")
    return _collected(key, n_features, n_trials, jnp.asarray(tail), jnp.asarray(held_strength))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _collected(key: PRNGKeyArray, n_features: int, n_trials: int, tail: Array, held_strength: Array) -> Array:
    def not_done(state: tuple[Array, Array, Array]) -> Array:
        return ~state[1].all()

    def node(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, held, count = state
        uniform = jax.random.uniform(jax.random.fold_in(key, number), (n_trials * n_features,)).reshape(n_trials, n_features)
        # log α of P(α ≤ x) = exp(-x⁻ᵃ).
        start = -jnp.log(-jnp.log(uniform)) / tail
        choice = jnp.argmax(start + jnp.where(held, jnp.log(held_strength), 0), axis=1)
        count = count + ~held.all(axis=1)
        return number + 1, held | jax.nn.one_hot(choice, n_features, dtype=bool), count

    begin = (jnp.zeros((), jnp.int32), jnp.zeros((n_trials, n_features), bool), jnp.zeros(n_trials, jnp.int32))
    return jax.lax.while_loop(not_done, node, begin)[2]


def _check_tail(tail: Number) -> None:
    if is_known(tail) and not tail > 0:
        raise ValueError(f"tail must be positive, got {tail}")
