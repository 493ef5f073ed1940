"""What one of the experiments returns, and the start that several share."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure
from gradatim.physics import chemotaxis as ct


class Part(NamedTuple):
    """Data by name, measures, and reasons for what was not measured."""

    data: dict[str, xr.Dataset]
    measures: dict[str, Measure]
    untested: dict[str, str]


def ill_prepared(grid: ct.Box) -> tuple[Array, Array, Array]:
    """n₀, c₀ and w₀ on the unit interval; their means are 5, 2 and 1."""
    x = jnp.asarray(grid.centres[0])
    return 5 * (1 + 0.8 * jnp.cos(jnp.pi * x)), 2 + jnp.cos(2 * jnp.pi * x), jnp.ones(x.shape)
