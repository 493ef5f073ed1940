"""Which learning rates and weight decays an optimiser can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradatim.numerics.checks import is_known


def check_rates(rates: Mapping[str, Any], decays: Mapping[str, tuple[str, Any]]) -> None:
    """Refuses numbers with which no step makes sense; schedules and traced values cannot be looked at.

    **Arguments:** `rates`: by name, None where there is none; `decays`: for the name of a rate, the name and the value of the
    decoupled decay that it multiplies. A rate of None is that of `learning_rate`.

    **Raises:** `ValueError` for a number below 0, or a product above 1: weights would overshoot zero.
    """
    check_not_negative(**rates, **dict(decays.values()))
    for name, (what, decay) in decays.items():
        rate = rates["learning_rate"] if rates[name] is None else rates[name]
        if is_constant(rate) and is_constant(decay) and rate * decay > 1:
            raise ValueError(f"{name} times {what} must be at most 1, or decay overshoots zero, got {rate} × {decay} = {rate * decay}")


def check_not_negative(**values: Any) -> None:
    """Refuses numbers below 0 or NaN, in arrays too."""
    for name, value in values.items():
        # By NumPy: inside jit, JAX would trace even what is known.
        if is_constant(value) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} must be at least 0, got {value}")


def is_constant(value: Any) -> bool:
    """Whether a value is a number, now."""
    return value is not None and not callable(value) and is_known(value)
