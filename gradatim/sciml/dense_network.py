"""A plain network of dense layers whose first weights are drawn all at once."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

Activation = Literal["swish", "tanh"]
_ACTIVATIONS = {"swish": jax.nn.swish, "tanh": jnp.tanh}


class DenseNetwork(eqx.Module):
    """`depth` hidden layers of `width` units and a linear one; weights begin uniform within ±√(6/(inputs + outputs)), biases at zero
    (Glorot and Bengio, 2010).

    **Raises:** `ValueError` for a size below 1 or an activation that is not known.

    >>> DenseNetwork(3, 16, width=64, depth=4, key=jax.random.key(0)).n_parameters
    13776
    """

    weights: tuple[Float[Array, "outputs inputs"], ...]
    biases: tuple[Float[Array, " outputs"], ...]
    activation: Activation = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, width: int, depth: int, activation: Activation = "swish", key: PRNGKeyArray):
        for name, number in (("n_in", n_in), ("n_out", n_out), ("width", width), ("depth", depth)):
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        shapes = [(n, m) for m, n in pairwise((n_in, *(width for _ in range(depth)), n_out))]
        # Drawn flat and at once: one small program, where each shape would be another.
        drawn = jax.random.uniform(key, (sum(n * m for n, m in shapes),), float, minval=-1, maxval=1)
        weights, start = [], 0
        for n, m in shapes:
            weights.append(math.sqrt(6 / (n + m)) * drawn[start : start + n * m].reshape(n, m))
            start += n * m
        self.weights = tuple(weights)
        self.biases = tuple(jnp.zeros(n, drawn.dtype) for n, _ in shapes)
        self.activation = activation

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """Of one input."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = _ACTIVATIONS[self.activation](weight @ x + bias)
        return self.weights[-1] @ x + self.biases[-1]

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum(array.size for array in (*self.weights, *self.biases))
