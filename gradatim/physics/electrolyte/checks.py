"""What every constructor of this package asks of its numbers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Scalar = float | Float[Array, ""]


def positive(**numbers: Scalar) -> None:
    """Refuses what is not positive and finite."""
    for name, value in numbers.items():
        if is_known(value) and not 0 < float(value) < np.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def not_negative(**numbers: Scalar) -> None:
    """Refuses what is negative or not finite."""
    for name, value in numbers.items():
        if is_known(value) and not 0 <= float(value) < np.inf:
            raise ValueError(f"{name} must be at least 0 and finite, got {value}")


def vectors(name: str, values: Float[Array, "*points dim"], dim: int) -> None:
    """Refuses vectors of another dimension."""
    if values.ndim < 1 or values.shape[-1] != dim:
        raise ValueError(f"{name} must hold vectors of {dim} components along its last axis, got shape {values.shape}")
