"""Networks as drawn by a host's generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def drawn(make: Callable[[], Any], random: np.random.Generator) -> Any:
    """A module with all weights and biases random, from the host: its own draws would each be a program to compile."""
    shapes = eqx.filter_eval_shape(make)

    def draw(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        fan_in = leaf.size // leaf.shape[-1] if leaf.ndim > 1 else 1
        return jnp.asarray(random.normal(size=leaf.shape) / max(fan_in, 1) ** 0.5, leaf.dtype)

    return jax.tree.map(draw, shapes, is_leaf=lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
