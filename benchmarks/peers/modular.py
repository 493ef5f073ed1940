"""The work of the trainings of pairs: addition of residues, first weights, a part of the pairs; and the loss they come to, in NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RATE, DECAY, FRACTION = 5e-3, 2e-4, 0.3
BLOCK = 10
"Epochs that are timed."
EPOCHS = 5
"After which the losses are compared."
AGREEMENT = 2e-3
"Relative, of losses in single precision after these epochs: Adam divides small gradients by their own size."


class Work(NamedTuple):
    """Elements, hidden nodes and networks, and what each learns from; weights are inputs × outputs."""

    order: int
    pairs: np.ndarray  # (networks, n, 2)
    labels: np.ndarray  # (networks, n)
    first: np.ndarray  # (networks, 2 order, nodes)
    readout: np.ndarray  # (networks, nodes, order)


SIZES = {"one network, 127 elements, 512 nodes": (127, 512, 1), "18 networks, 23 elements, 256 nodes": (23, 256, 18)}


def work(order: int, nodes: int, networks: int) -> Work:
    """Every network with weights and pairs of its own."""
    random = np.random.default_rng(0)
    n = round(FRACTION * order**2)
    table = np.indices((order, order)).reshape(2, -1).T
    pairs = np.stack([table[random.permutation(order**2)[:n]] for _ in range(networks)])
    first = random.uniform(-1, 1, (networks, 2 * order, nodes)) / (2 * order) ** 0.5
    readout = random.uniform(-1, 1, (networks, nodes, order)) / nodes**0.5
    return Work(order, pairs, pairs.sum(axis=2) % order, first.astype(np.float32), readout.astype(np.float32))


def losses(given: Work) -> np.ndarray:
    """Of every network before each epoch and after the last: Adam with decay in the gradient, in double precision."""
    return np.array([_losses(given, i) for i in range(len(given.pairs))])


def _losses(given: Work, number: int) -> list[float]:
    W, V = given.first[number].astype(float), given.readout[number].astype(float)
    pairs, labels, M = given.pairs[number], given.labels[number], given.order
    n = len(labels)
    targets = np.eye(M)[labels] - 1 / M
    moments = [[np.zeros_like(x), np.zeros_like(x)] for x in (W, V)]
    found = []
    for epoch in range(EPOCHS + 1):
        X = W[pairs[:, 0]] + W[M + pairs[:, 1]]
        F = X**2
        o = F @ V
        error = o - o.mean(axis=1, keepdims=True) - targets
        found.append(float(np.sum(error**2) / n))
        back = 2 / n * error
        G = back @ V.T * 2 * X
        dW = np.zeros_like(W)
        np.add.at(dW, pairs[:, 0], G)
        np.add.at(dW, M + pairs[:, 1], G)
        for x, gradient, (m, v) in zip((W, V), (dW, F.T @ back), moments, strict=True):
            gradient = gradient + DECAY * x
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient**2 - v)
            t = epoch + 1
            x -= RATE * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return found
