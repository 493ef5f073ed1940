"""The two-layer network of pairs that learns group arithmetic, its loss and its read-out by ridge regression
(Tian, arXiv:2509.21519, and the training script that goes with it).

Two look-ups stand in for the first layer, which has no bias: one-hot inputs are never made. The loss centres outputs over the *classes*,
where the theory centres over the samples ([`lazy_readout`][gradatim.landscape.lazy_readout]); on a part of all pairs the two differ.
Replicate the training with decay in the gradient, `optax.chain(optax.add_decayed_weights(λ), optax.adam(η))`: decoupled, it changes
the time until a network generalises by orders of magnitude.
"""

from __future__ import annotations

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known
from gradatim.numerics.ridge import check_not_negative

from .feature_learning import Activation, pair_features

Number = float | Float[Array, ""]


class PairNetwork(eqx.Module):
    """σ(W[a] + W[M + b]) V for the pair (a, b)."""

    first: Float[Array, "inputs nodes"]
    readout: Float[Array, "nodes order"]
    activation: Activation = eqx.field(static=True, default=jnp.square)

    def features(self, pairs: Int[Array, "n 2"]) -> Float[Array, "n nodes"]:
        """The hidden layer, a row a pair."""
        return pair_features(self.first, pairs, self.activation)

    def __call__(self, pairs: Int[Array, "n 2"]) -> Float[Array, "n order"]:
        """An output for each element that could be the product, a row a pair."""
        return self.features(pairs) @ self.readout


def pair_network(
    order: int, n_nodes: int, *, key: PRNGKeyArray, activation: Activation = jnp.square, readout_scale: Number = 1.0
) -> PairNetwork:
    """A network with weights uniform in ±1/√inputs, as PyTorch draws them; single precision.

    **Arguments:** `order` M ≥ 1; `n_nodes` K ≥ 1; `activation`: of an array, entry by entry; `readout_scale`: a factor of the first
    read-out; 0 lets it start at zero, which the features need not wait for.

    **Raises:** `ValueError` for a number below its least.

    >>> pair_network(5, 8, key=jax.random.key(0))(jnp.array([[0, 1], [4, 4]])).shape
    (2, 5)
    """
    for name, number in (("order", order), ("n_nodes", n_nodes)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    return _drawn(key, jnp.asarray(readout_scale, jnp.float32), order, n_nodes, activation)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _drawn(key: PRNGKeyArray, readout_scale: Array, order: int, n_nodes: int, activation: Activation) -> PairNetwork:
    # Drawn flat and at once: XLA compiles one such draw many times faster.
    draws = jax.random.uniform(key, (3 * order * n_nodes,), jnp.float32, -1, 1)
    first = draws[: 2 * order * n_nodes].reshape(2 * order, n_nodes) / math.sqrt(2 * order)
    readout = draws[2 * order * n_nodes :].reshape(n_nodes, order) / math.sqrt(n_nodes)
    return PairNetwork(first, readout_scale * readout, activation)


def class_centred_loss(
    outputs: Float[Array, "n classes"], labels: Int[Array, " n"], *, seen: Bool[Array, " n"] | None = None
) -> Float[Array, ""]:
    """The mean over samples of |o - (e_y - 1/M)|², with o the outputs less their mean over the classes.

        mean |o|² - 2 mean o[y] + 1 - 1/M

    **Arguments:** `seen`: which samples count, by default all.

    >>> print(f"{class_centred_loss(jnp.zeros((3, 4)), jnp.array([0, 1, 2])):.2f}")
    0.75
    """
    o = outputs - outputs.mean(axis=1, keepdims=True)
    answers = jnp.sum(o * jax.nn.one_hot(labels, o.shape[1], dtype=o.dtype), axis=1)
    each = jnp.sum(o**2, axis=1) - 2 * answers
    return mean_of_seen(each, seen) + 1 - 1 / o.shape[1]


def mean_of_seen(values: Float[Array, " n"], seen: Bool[Array, " n"] | None) -> Float[Array, ""]:
    """The mean over the samples that count; of none it is 0."""
    if seen is None:
        return values.mean()
    count = jnp.sum(seen, dtype=values.dtype)
    return jnp.sum(values, where=seen) / jnp.maximum(count, 1)


def accuracy(outputs: Float[Array, "n classes"], labels: Int[Array, " n"], *, seen: Bool[Array, " n"] | None = None) -> Float[Array, ""]:
    """The share of samples whose largest output is the right one. Of equal outputs the first counts; with a NaN none is right.

    >>> outputs, labels = jnp.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), jnp.array([0, 1, 1])
    >>> print(f"{accuracy(outputs, labels):.2f} {accuracy(outputs, labels, seen=jnp.array([True, True, False])):.2f}")
    0.67 1.00
    """
    is_right = (jnp.argmax(outputs, axis=1) == labels) & jnp.all(jnp.isfinite(outputs), axis=1)
    return mean_of_seen(is_right.astype(outputs.dtype), seen)


def ridge_readout(
    features: Float[Array, "n nodes"], labels: Int[Array, " n"], n_classes: int, *, decay: Number, seen: Bool[Array, " n"] | None = None
) -> Float[Array, "nodes classes"]:
    """The read-out argmin ‖Y - 1/M - FV‖² + η ‖V‖², from the smaller of FᵀF and FFᵀ by Cholesky.

        V = (FᵀF + ηI)⁻¹ Fᵀ(Y - 1/M) = Fᵀ (FFᵀ + ηI)⁻¹ (Y - 1/M)

    Put in place of the trained read-out at each step, with no gradient through it (`jax.lax.stop_gradient`). Decay λ in the gradient of
    [`class_centred_loss`][gradatim.landscape.class_centred_loss] pulls to η = λn/2.

    **Arguments:** `decay`: η > 0; `seen`: which samples count, by default all.

    **Raises:** `ValueError` for a decay that is not positive.

    >>> readout = ridge_readout(jnp.eye(2), jnp.array([0, 1]), 2, decay=1.0)
    >>> print(" ".join(f"{weight:.2f}" for weight in readout.ravel()))
    0.25 -0.25 -0.25 0.25
    """
    check_not_negative("decay", decay)
    if is_known(decay) and not decay > 0:
        raise ValueError(f"decay must be positive, got {decay}")
    return _ridge(features, labels, n_classes, jnp.asarray(decay, features.dtype), seen)


@functools.partial(jax.jit, static_argnums=2)
def _ridge(features: Array, labels: Array, n_classes: int, decay: Array, seen: Array | None) -> Array:
    targets = jax.nn.one_hot(labels, n_classes, dtype=features.dtype) - 1 / n_classes
    if seen is not None:
        features, targets = (jnp.where(seen[:, None], rows, 0) for rows in (features, targets))
    n, k = features.shape
    is_dual = n < k
    gram = features @ features.T if is_dual else features.T @ features
    operator = lx.MatrixLinearOperator(gram + decay * jnp.eye(len(gram), dtype=gram.dtype), lx.positive_semidefinite_tag)
    right = targets if is_dual else features.T @ targets
    solution = jax.vmap(lambda b: lx.linear_solve(operator, b, lx.Cholesky()).value, in_axes=1, out_axes=1)(right)
    return features.T @ solution if is_dual else solution
