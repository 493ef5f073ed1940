"""Ranges of a configuration's fields as data, and the one check that words every message about them."""

from __future__ import annotations

import dataclasses
import math
import numbers
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin


@dataclass(frozen=True)
class Between:
    """The closed range a number, or every entry of a tuple of numbers, must lie in."""

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"a range must have low <= high, got {self.low} and {self.high}")

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

    >>> from gradatim.lab.example import Config
    >>> validate(Config(steps=5))
    Traceback (most recent call last):
    ValueError: steps must be between 10 and 100000, got 5
    """
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        name, value = f"{path}{field.name}", getattr(config, field.name)
        kind, rules = _kind_and_rules(hints[field.name])
        if get_origin(kind) is not tuple:
            _check_entry(name, kind, rules, value, value)
            continue
        if not isinstance(value, tuple):
            raise TypeError(f"{name} must be a tuple, got {value!r}")
        if not value:
            raise ValueError(f"{name} must not be empty")
        entry_hints = get_args(kind)
        if entry_hints[-1] is Ellipsis:
            entry_hints = entry_hints[:1] * len(value)
        if len(entry_hints) != len(value):
            raise ValueError(f"{name} must have {len(entry_hints)} entries, got {value!r}")
        for entry_hint, entry in zip(entry_hints, value, strict=True):
            entry_kind, entry_rules = _kind_and_rules(entry_hint)
            _check_entry(name, entry_kind, rules + entry_rules, entry, value)


def _kind_and_rules(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is not Annotated:
        return hint, ()
    kind, *rules = get_args(hint)
    return kind, tuple(rules)


def _check_entry(name: str, kind: Any, rules: tuple[Any, ...], entry: Any, whole: Any) -> None:
    if get_origin(kind) in (typing.Union, types.UnionType):
        kinds = get_args(kind)
        if entry is None and type(None) in kinds:
            return
        kind = next((one for one in kinds if isinstance(one, type) and isinstance(entry, one)), kinds[0])
    _check_type(name, kind, entry)
    if dataclasses.is_dataclass(entry):
        validate(entry, f"{name}.")
    for rule in rules:
        if isinstance(rule, Between | OneOf) and not rule.allows(entry):
            raise ValueError(f"{name} must be {rule}, got {whole!r}")


def _check_type(name: str, kind: Any, value: Any) -> None:
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value!r}")
        return
    # A bool is an int to Python, and a mistake in a field that counts.
    is_stray_bool = isinstance(value, bool) and kind is not bool
    if isinstance(kind, type) and (is_stray_bool or not isinstance(value, kind)):
        raise TypeError(f"{name} must be of type {kind.__name__}, got {value!r}")
