"""Weight matching: the permutation of one network's hidden units that brings it nearest to another (Git Re-Basin, arXiv:2209.04836)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Int, PyTree


class Matching(eqx.Module):
    """The permuted network, and for each hidden layer which unit of it now stands in which place."""

    model: PyTree
    permutations: tuple[Int[np.ndarray, " _"], ...]
    sweeps: int
    "Over all hidden layers, the last of which changed nothing; or `max_sweeps`."


def match_permutation(
    reference: PyTree,
    model: PyTree,
    *,
    layers: Callable[[PyTree], Sequence[Any]] = lambda network: network.layers,
    max_sweeps: int = 100,
) -> Matching:
    """The model with its hidden units permuted to lie next to the reference, its function unchanged.

        maximise  Σₗ ⟨Wₗ, Pₗ Vₗ Pₗ₋₁ᵀ⟩ + ⟨bₗ, Pₗ cₗ⟩     over permutations P₁ … P_L₋₁ of the hidden layers

    by coordinate ascent: one linear assignment a layer, the others held fixed, until a sweep changes nothing. With one hidden layer that
    is the optimum; with more it is a local one. It needs real numbers to sort: not for compiled code.

    Only for layers one after another whose units are alike (a multilayer perceptron): a skip connection ties permutations together.

    **Arguments:** `reference`, `model`: networks of one structure; `layers`: their linear maps in order, each with `weight` `(out, in)` and
    `bias` `(out,)` or None; `max_sweeps`: at least 1.

    **Raises:** `ValueError` for fewer than two layers, weights that do not follow one another, or shapes that differ.

    >>> import jax
    >>> net = eqx.nn.MLP(3, 2, 8, 1, key=jax.random.key(0))
    >>> order = np.array([3, 1, 4, 0, 5, 7, 2, 6])
    >>> where = lambda net: (net.layers[0].weight, net.layers[0].bias, net.layers[1].weight)
    >>> shuffled = eqx.tree_at(where, net, (where(net)[0][order], where(net)[1][order], where(net)[2][:, order]))
    >>> bool(eqx.tree_equal(match_permutation(net, shuffled).model, net))
    True
    """
    from scipy.optimize import linear_sum_assignment

    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    ours, theirs = (_arrays(layers(network)) for network in (reference, model))
    _check_layers(ours, theirs)
    orders = [np.arange(len(weight)) for weight, _ in theirs[:-1]]
    sweeps, changed = 0, True
    while changed and sweeps < max_sweeps:
        sweeps, changed = sweeps + 1, False
        for i in range(len(orders)):
            (weight, bias), (following, _) = ours[i], ours[i + 1]
            into = theirs[i][0] if i == 0 else theirs[i][0][:, orders[i - 1]]
            out = theirs[i + 1][0] if i + 1 == len(orders) else theirs[i + 1][0][orders[i + 1]]
            gain = weight @ into.T + following.T @ out
            other = theirs[i][1]
            if bias is not None and other is not None:
                gain = gain + np.outer(bias, other)
            _, best = linear_sum_assignment(gain, maximize=True)
            places = np.arange(len(best))
            # Only for the better: between equal ones it would go on for ever.
            if gain[places, best].sum() > gain[places, orders[i]].sum() + 1e-12 * np.abs(gain).max():
                orders[i], changed = best, True
    return Matching(_permuted(model, layers, orders), tuple(orders), sweeps)


def _permuted(model: PyTree, layers: Callable[[PyTree], Sequence[Any]], orders: list[np.ndarray]) -> PyTree:
    for i, order in enumerate(orders):
        model = eqx.tree_at(lambda net, i=i: layers(net)[i].weight, model, layers(model)[i].weight[order])
        if layers(model)[i].bias is not None:
            model = eqx.tree_at(lambda net, i=i: layers(net)[i].bias, model, layers(model)[i].bias[order])
        model = eqx.tree_at(lambda net, i=i: layers(net)[i + 1].weight, model, layers(model)[i + 1].weight[:, order])
    return model


def _arrays(layers: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    def double(array: Any) -> np.ndarray | None:
        return None if array is None else np.asarray(array, np.float64)

    return [(np.asarray(layer.weight, np.float64), double(layer.bias)) for layer in layers]


def _check_layers(ours: list[tuple[np.ndarray, np.ndarray | None]], theirs: list[tuple[np.ndarray, np.ndarray | None]]) -> None:
    if len(ours) < 2 or len(ours) != len(theirs):
        raise ValueError(f"reference and model must have the same number of layers, two at least, got {len(ours)} and {len(theirs)}")
    for i, ((weight, bias), (other, other_bias)) in enumerate(zip(ours, theirs, strict=True)):
        if weight.shape != other.shape or (bias is None) != (other_bias is None):
            raise ValueError(f"layer {i} of reference and model must have the same shapes, got {weight.shape} and {other.shape}")
        if i and weight.shape[1] != len(ours[i - 1][0]):
            raise ValueError(f"layer {i} must take the {len(ours[i - 1][0])} units of the one before, got {weight.shape[1]} inputs")
