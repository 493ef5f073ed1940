"""Checks of what projections are given: at the call where numbers are known, at run time where they are traced."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from gradatim.numerics.checks import is_known


def common_arrays(**given: ArrayLike) -> list[Array]:
    """All as arrays of one dtype, single or double precision.

    **Raises:** `TypeError` for any other.
    """
    dtype = jnp.result_type(*given.values())
    if dtype not in (jnp.float32, jnp.float64):
        kinds = ", ".join(f"{name} of {jnp.result_type(x)}" for name, x in given.items())
        raise TypeError(f"{' and '.join(given)} must be floating-point numbers of single or double precision, got {kinds}")
    return [jnp.asarray(x, dtype) for x in given.values()]


def check_all(name: str, x: Array, is_good: Bool[Array, "*shape"], rule: str) -> Array:
    """The same x, once `is_good` holds for all of it.

    **Raises:** `ValueError` with the first offending entry; while it is traced, an error at run time.
    """
    if is_known(x, is_good):
        good = np.broadcast_to(np.asarray(is_good), np.shape(x))
        if not good.all():
            where = tuple(int(i) for i in np.argwhere(~good)[0])
            place = f" at {list(where)}" if where else ""
            raise ValueError(f"{name} must be {rule}, got {np.asarray(x)[where]}{place}")
        return x
    return eqx.error_if(x, ~is_good, f"{name} must be {rule}")


def check_finite(name: str, x: Array) -> Array:
    """The same x, once it is finite."""
    return check_all(name, x, jnp.isfinite(x), "finite")


def check_shape(name: str, x: Any, shape: tuple[int, ...]) -> None:
    """Raises `ValueError` for another shape."""
    if np.shape(x) != shape:
        raise ValueError(f"{name} must have shape {shape}, got {np.shape(x)}; batch with jax.vmap")
