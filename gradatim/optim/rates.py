"""Which learning rates and weight decays an optimiser can take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.core import Tracer


def check_rates(rates: Mapping[str, Any], decays: Mapping[str, tuple[str, Any]] | None = None) -> None:
    """Refuses numbers with which no step makes sense; schedules and traced values cannot be looked at.

    **Arguments:** `rates`: by name, None where there is none; `decays`: for the name of a rate, the name and the value of the
    decoupled decay that it multiplies. A rate of None is that of `learning_rate`.

    **Raises:** `ValueError` for a number below 0, or a product above 1: weights would overshoot zero.
    """
    for name, rate in rates.items():
        if is_constant(rate) and not rate >= 0:
            raise ValueError(f"{name} must be at least 0, got {rate}")
    for name, (what, decay) in (decays or {}).items():
        if not is_constant(decay):
            continue
        if not decay >= 0:
            raise ValueError(f"{what} must be at least 0, got {decay}")
        rate = rates["learning_rate"] if rates[name] is None else rates[name]
        if is_constant(rate) and rate * decay > 1:
            raise ValueError(f"{name} times {what} must be at most 1, or decay overshoots zero, got {rate} × {decay} = {rate * decay}")


def is_constant(value: Any) -> bool:
    """Whether a value is a number, now."""
    return value is not None and not callable(value) and not isinstance(value, Tracer)
