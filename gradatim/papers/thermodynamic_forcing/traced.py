"""Numbers of a model as arguments of its program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def traced(tree: Any) -> Any:
    """The same with numbers as arrays, so that models that differ in numbers only share one program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(float)), tree)
