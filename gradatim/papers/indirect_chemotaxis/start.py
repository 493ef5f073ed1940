"""The start that several experiments share."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array

from gradatim.physics import chemotaxis as ct


def ill_prepared(grid: ct.Box) -> tuple[Array, Array, Array]:
    """n₀, c₀ and w₀ on the unit interval; their means are 5, 2 and 1."""
    x = jnp.asarray(grid.centres[0])
    return 5 * (1 + 0.8 * jnp.cos(jnp.pi * x)), 2 + jnp.cos(2 * jnp.pi * x), jnp.ones(x.shape)
