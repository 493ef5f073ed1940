"""What the parts of the experiment share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import xarray as xr

from gradatim.lab import Measure


class Part(NamedTuple):
    """What one of the experiments found: datasets by name, measures, and reasons for what is missing."""

    data: dict[str, xr.Dataset]
    measures: dict[str, Measure]
    untested: dict[str, str]


def traced(tree: Any) -> Any:
    """The same with numbers as arrays, so that models that differ in numbers only share one program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), tree)
