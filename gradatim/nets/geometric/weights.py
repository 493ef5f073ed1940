"""First weights of layers."""

from __future__ import annotations

import math

import jax
from jaxtyping import Array, Float, PRNGKeyArray


def uniform(key: PRNGKeyArray, shape: tuple[int, ...], *, fan_in: int) -> Float[Array, ...]:
    """Uniform numbers between ±1/√fan_in, as equinox's own layers start."""
    # Drawn flat: with several axes XLA compiles the draw many times longer.
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, (math.prod(shape),), minval=-bound, maxval=bound).reshape(shape)
