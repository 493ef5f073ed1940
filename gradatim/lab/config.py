"""Ranges of a configuration's fields as data, and the one check that words every message about them."""

from __future__ import annotations

import dataclasses
import math
import numbers
import typing
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin


@dataclass(frozen=True)
class Between:
    """The closed range a number, or every entry of a tuple of numbers, must lie in."""

    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low:g}"
        if self.low == -math.inf:
            return f"at most {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"

    def allows(self, value: Any) -> bool:
        """Whether one value lies inside."""
        return self.low <= value <= self.high


@dataclass(frozen=True, init=False)
class OneOf:
    """The words a field, or every entry of a tuple of words, may be."""

    allowed: tuple[Any, ...]

    def __init__(self, *allowed: Any) -> None:
        object.__setattr__(self, "allowed", allowed)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(str, self.allowed))

    def allows(self, value: Any) -> bool:
        """Whether one value is among them."""
        return value in self.allowed


def validate(config: Any, path: str = "") -> None:
    """Checks every field of a configuration, nested ones included, against its type and its range.

    A field is declared as `width: Annotated[int, Between(1, 4096)] = 256` in a frozen dataclass.

    **Raises:** `ValueError` (range, NaN) or `TypeError` (type), naming the field, what it must be and what it is.
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        name, value, hint = f"{path}{field.name}", getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            validate(value, f"{name}.")
            continue
        kind, rules = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        many = get_origin(kind) is tuple
        entries: tuple[Any, ...] = value if many and isinstance(value, tuple) else (value,)
        if many and not isinstance(value, tuple):
            raise TypeError(f"{name} must be a tuple, got {value!r}")
        if not entries:
            raise ValueError(f"{name} must not be empty")
        entry_kind = get_args(kind)[0] if many else kind
        for entry in entries:
            _check_type(name, entry_kind, entry)
            for rule in rules:
                if isinstance(rule, Between | OneOf) and not rule.allows(entry):
                    raise ValueError(f"{name} must be {rule}, got {value!r}")


def _check_type(name: str, kind: Any, value: Any) -> None:
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
        return
    right = {int: isinstance(value, int) and not isinstance(value, bool)}.get(kind, not isinstance(kind, type) or isinstance(value, kind))
    if not right:
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
