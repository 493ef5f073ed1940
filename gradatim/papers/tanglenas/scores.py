"""What an architecture is worth: its accuracy, in the macro space less a cost of its parameters, which the logits' loss has too."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradatim.nets import MacroSupernet, nested_mask
from gradatim.nets.search_space import Probabilities

from .config import Search
from .networks import shapes_of, weight_masks

NATS_PER_POINT = math.log(10) / 90
"""Cross-entropy that a point of accuracy is worth in ten classes: from a guess, ln 10 nats at 10 % right, to certainty, none at 100 %.

A calibrated network that errs evenly has H(A) = -A ln A - (1 - A) ln((1 - A)/9) nats at a share A of right answers: this is the mean of
its slope between those two ends.
"""


def parameter_counts(config: Search, space: str) -> np.ndarray:
    """Of every architecture by its number, trained weights and biases of the network alone."""
    shapes = shapes_of(config, space)
    return np.array([shapes.n_parameters(tuple(map(int, positions))) for positions in shapes.space.every()])


def costs(config: Search, space: str, counts: np.ndarray) -> np.ndarray:
    """Of every architecture, in points: c log₂(n / n_min), c points a doubling, n_min of the smallest of the space; 0 in the cell space."""
    per_doubling = config.points_per_doubling if space == "macro" else 0.0
    return per_doubling * np.log2(counts / counts.min())


def score(accuracies: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Points: the share of right answers in percent less the cost, architectures along the last axis."""
    return accuracies - costs


def expected_parameters(net: MacroSupernet, probabilities: Probabilities) -> Any:
    """E[n], choices drawn independently: each weight and bias counts by the probability that an architecture has it.

        E[n] = Σ_q M(p)[q]

    M(p) is the mask that mixes the weights, summed over all of them and the biases.
    """
    biases = [nested_mask(probabilities[f"width {i}"], one.out_options).sum() for i, one in enumerate(net.convolutions, start=1)]
    weights = [mask.sum() for mask in weight_masks(net, probabilities)]
    return sum(biases + weights, start=jnp.zeros(())) + net.readout.slices[-1][0]


def doublings(net: MacroSupernet, probabilities: Probabilities, smallest: int) -> Any:
    """log₂(E[n] / n_min), differentiable in the probabilities; where they are certain, the architecture's own."""
    return jnp.log2(expected_parameters(net, probabilities) / smallest)


def nats_per_doubling(config: Search) -> float:
    """What is added to the loss of the logits for each doubling, the score's cost in units of cross-entropy."""
    return NATS_PER_POINT * config.points_per_doubling
