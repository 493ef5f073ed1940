"""Networks with turns built in and without, of about as many parameters (C14)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.nets.geometric import GroupConv, GroupLift, GroupPool, cyclic

from .config import Samples
from .random_weights import drawn
from .training import single

ARMS = ("turns built in", "augmented", "convolution", "perceptron")


class TurnNetwork(eqx.Module):
    """Three convolutions over shifts and turns, and an invariant: with one turn, an ordinary convolutional network."""

    lift: GroupLift
    convolutions: list[GroupConv]
    pool: GroupPool
    readout: eqx.nn.Linear

    def __init__(self, turns: int, channels: int, *, key: Any) -> None:
        group, wide = cyclic(turns), 2 * channels
        self.lift = GroupLift(1, channels, group=group, key=key)
        # From an odd number of pixels a stride of two looks at the same ones after a turn.
        self.convolutions = [
            GroupConv(channels, wide, group=group, key=key),
            GroupConv(wide, wide, group=group, stride=2, key=key),
        ]
        self.pool = GroupPool(group, reduce="mean")
        self.readout = eqx.nn.Linear(wide, 10, key=key)

    def __call__(self, image: Float[Array, "side side 1"]) -> Float[Array, 10]:
        """Logits."""
        x = jax.nn.relu(self.lift(image))
        half = len(x) // 2
        # Blocks of an even image go to blocks when it turns.
        x = x.reshape(half, 2, half, 2, *x.shape[2:]).mean(axis=(1, 3))
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return self.readout(self.pool(x).mean(axis=(0, 1)))


class FlatNetwork(eqx.Module):
    """One hidden layer on all pixels."""

    layers: eqx.nn.MLP

    def __call__(self, image: Float[Array, "side side 1"]) -> Float[Array, 10]:
        """Logits."""
        return self.layers(image.ravel())


def make_network(arm: str, config: Samples) -> Any:
    """A network of an arm; all have about as many parameters."""
    key = jax.random.key(0)
    if arm == "perceptron":
        plain = eqx.filter_eval_shape(lambda: TurnNetwork(1, config.channels, key=key))
        n = sum(leaf.size for leaf in jax.tree.leaves(plain) if isinstance(leaf, jax.ShapeDtypeStruct))
        width = max(round((n - 10) / (config.side**2 + 11)), 1)
        return FlatNetwork(eqx.nn.MLP(config.side**2, 10, width, 1, key=key))
    return TurnNetwork(4, config.channels // 2, key=key) if arm == "turns built in" else TurnNetwork(1, config.channels, key=key)


def started(arm: str, config: Samples, random: np.random.Generator) -> Any:
    """First weights after He et al., and no biases."""
    net = single(drawn(lambda: make_network(arm, config), random))

    def scaled(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        # Weights of filters have their outputs last, those of matrices first.
        fan_in = leaf.size // leaf.shape[-1] if leaf.ndim > 2 else leaf.shape[-1]
        flat = random.normal(size=leaf.shape) * (2 / fan_in) ** 0.5 if leaf.ndim > 1 else np.zeros(leaf.shape)
        return jnp.asarray(flat.astype(np.float32))

    return jax.tree.map(scaled, net)
