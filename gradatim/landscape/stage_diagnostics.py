"""Which stage of its training a network of pairs is in (Tian, arXiv:2509.21519, figure 3 and the training script that goes with it).

Stage I: the gradient that the read-out sends back to the features grows. Stage II holds as long as the Gram matrices of the features
are nearly multiples of the identity, so that no node feels the others. Stage III: they no longer are.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .group_arithmetic import Pairs
from .pair_network import PairNetwork


class StageDiagnostics(eqx.Module):
    """What tells the stages apart."""

    feature_gradient: Float[Array, ""]
    "‖(Y - 1/M - O) Vᵀ‖, with the outputs O centred over the classes."
    off_diagonal_nodes: Float[Array, ""]
    "Mean size off the diagonal over that on it, of F̃ᵀF̃."
    off_diagonal_samples: Float[Array, ""]
    "The same of (I - 11ᵀ/n) FFᵀ, which is centred on one side only, as the authors log it."


def stage_diagnostics(network: PairNetwork, table: Pairs, *, seen: Bool[Array, " n"] | None = None) -> StageDiagnostics:
    """All three, on the pairs that are learned from.

    The Gram matrix of the samples has as many rows and columns as there are pairs: look now and then.

    **Arguments:** `table`: pairs with their labels; `seen`: which of them are learned from, by default all.

    >>> from gradatim.landscape import all_pairs, cyclic_group, pair_network
    >>> network = pair_network(7, 256, key=jax.random.key(0), readout_scale=0)
    >>> found = stage_diagnostics(network, all_pairs(cyclic_group(7)))
    >>> float(found.feature_gradient), bool(found.off_diagonal_nodes < 0.3)
    (0.0, True)
    """
    return _diagnosed(network, table, jnp.ones(len(table.labels), bool) if seen is None else seen)


@eqx.filter_jit
def _diagnosed(network: PairNetwork, table: Pairs, seen: Array) -> StageDiagnostics:
    sent = jnp.linalg.norm(readout_gradient(network, table, seen))
    return StageDiagnostics(sent, *off_diagonal_ratios(network.features(table.pairs), seen))


def readout_gradient(network: PairNetwork, table: Pairs, seen: Bool[Array, " n"]) -> Float[Array, "n nodes"]:
    """What the read-out sends back to the features of the pairs that are seen; 0 for the others."""
    outputs = network(table.pairs)
    answers = jax.nn.one_hot(table.labels, outputs.shape[1], dtype=outputs.dtype) - 1 / outputs.shape[1]
    centred = outputs - outputs.mean(axis=1, keepdims=True)
    return jnp.where(seen[:, None], answers - centred, 0) @ network.readout.T


def off_diagonal_ratios(features: Float[Array, "n nodes"], seen: Bool[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Of the Gram matrices of the nodes and of the samples that are seen."""
    n = seen.sum()
    F = jnp.where(seen[:, None], features, 0)
    centred = jnp.where(seen[:, None], F - F.sum(axis=0, keepdims=True) / n, 0)

    def ratio(gram: Array, size: int | Array) -> Array:
        whole, diagonal = jnp.sum(abs(gram)), jnp.sum(abs(jnp.diagonal(gram)))
        return (whole - diagonal) / (size - 1) / diagonal

    return ratio(centred.T @ centred, features.shape[1]), ratio(centred @ F.T, n)
