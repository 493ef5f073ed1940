"""Which leaves of a tree of parameters an optimiser can move."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def check_leaves(params: Any) -> None:
    """Refuses parameters that are no floating-point numbers, such as counters.

    **Raises:** `TypeError` with the path of the first of them.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            where = f"parameter {jax.tree_util.keystr(path)}" if path else "the parameter"
            raise TypeError(f"{where} must be real or complex floating point, got {dtype}; freeze it with optax.masked or eqx.partition")
