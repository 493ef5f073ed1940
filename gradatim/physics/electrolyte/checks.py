"""What every constructor of this package asks of its numbers."""

from __future__ import annotations

import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

Scalar = float | Float[Array, ""]


def known(x: object) -> bool:
    """Whether a value is there to be checked: not while JAX is tracing it."""
    return not isinstance(x, Tracer)


def positive(**numbers: Scalar) -> None:
    """Refuses what is not positive and finite."""
    for name, value in numbers.items():
        if known(value) and not 0 < float(value) < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def not_negative(**numbers: Scalar) -> None:
    """Refuses what is negative or not finite."""
    for name, value in numbers.items():
        if known(value) and not 0 <= float(value) < np.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def vectors(name: str, values: Float[Array, "*points dim"], dim: int) -> None:
    """Refuses vectors of another dimension."""
    if values.ndim < 1 or values.shape[-1] != dim:
        raise ValueError(f"{name} must hold vectors of {dim} components along its last axis, got shape {values.shape}")
