"""The graph, the images and the weights that all contestants are given: numpy only."""

from __future__ import annotations

import numpy as np

NODES, DEGREE, FEATURES, HEADS = 2000, 10, 32, 4
BATCH, SIDE, CHANNELS = 32, 14, 8
_SIZE = f"{NODES} nodes, {NODES * DEGREE} edges, {FEATURES} channels"
CONVOLUTION, ATTENTION, MESSAGES = f"graph convolution, {_SIZE}", f"graph attention, {HEADS} heads, {_SIZE}", f"message passing, {_SIZE}"
TURNS = f"group convolution over C4, {BATCH} images of {SIDE} x {SIDE}, {CHANNELS} channels a turn"
MOTIONS, IRREPS = 4, "2x0e + 1o + 2e"


def pairs() -> np.ndarray:
    """Edges, each once and none a loop, for such as there are the contestants treat in their own ways."""
    random = np.random.default_rng(0)
    drawn = np.sort(random.integers(NODES, size=(2 * NODES * DEGREE, 2)), axis=1)
    distinct = np.unique(drawn[drawn[:, 0] < drawn[:, 1]], axis=0)
    return random.permutation(distinct)[: NODES * DEGREE // 2]


def both_ways() -> np.ndarray:
    """Senders and receivers of all edges, in both directions."""
    return np.concatenate([pairs(), pairs()[:, ::-1]]).T


def nodes() -> np.ndarray:
    """Features."""
    return np.random.default_rng(1).normal(size=(NODES, FEATURES)).astype(np.float32)


def weights(kind: str) -> dict[str, np.ndarray]:
    """Of a layer, by the group of its benchmark; those of perceptrons have their outputs first."""
    random, d = np.random.default_rng(2), FEATURES // HEADS
    affine = {"first": (FEATURES, 2 * FEATURES), "first bias": (FEATURES,), "last": (FEATURES, FEATURES), "last bias": (FEATURES,)}
    shapes = {
        CONVOLUTION: {"weight": (FEATURES, FEATURES), "bias": (FEATURES,)},
        ATTENTION: {"weight": (FEATURES, HEADS, d), "receiving": (1, HEADS, d), "sending": (1, HEADS, d), "bias": (FEATURES,)},
        MESSAGES: {f"{part} {place}": shape for part in ("message", "update") for place, shape in affine.items()},
    }[kind]
    return {name: (random.normal(size=shape) / 6).astype(np.float32) for name, shape in shapes.items()}


def images() -> np.ndarray:
    """Maps of each turn: image, row, column, turn, channel."""
    return np.random.default_rng(3).normal(size=(BATCH, SIDE, SIDE, 4, CHANNELS)).astype(np.float32)


def turns() -> np.ndarray:
    """Rotations and reflections of space."""
    return np.linalg.qr(np.random.default_rng(4).normal(size=(MOTIONS, 3, 3)))[0]


def points() -> np.ndarray:
    """Places in space."""
    return np.random.default_rng(5).normal(size=(10, 3))
