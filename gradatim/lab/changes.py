"""Changed fields of a configuration, by dotted name: put in, and read off."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any


def configured(config: Any, changed: Mapping[str, Any], path: str = "") -> Any:
    """A configuration with some fields replaced, by dotted name, from JSON values.

    **Raises:** `ValueError` for an unknown field, with the closest name.

    >>> from gradatim.lab.example import Config
    >>> configured(Config(), {"steps": 7}).steps
    7
    """
    names = [field.name for field in dataclasses.fields(config)]
    hints = typing.get_type_hints(type(config))
    inner: dict[str, dict[str, Any]] = {}
    replaced: dict[str, Any] = {}
    for dotted, value in changed.items():
        name, _, rest = dotted.partition(".")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {path + close[0]!r}?)" if close else ""
            raise ValueError(f"there is no field {path + name!r}{hint}; fields: {', '.join(path + entry for entry in names)}")
        nested = dataclasses.is_dataclass(getattr(config, name))
        if rest and not nested:
            raise ValueError(f"{path + name} holds no fields, got {path + dotted!r}")
        if nested and not rest and not isinstance(value, Mapping):
            example = f"{path + name}.{dataclasses.fields(getattr(config, name))[0].name}"
            raise ValueError(f"{path + name} holds fields of its own: change these, such as {example}")
        if nested:
            inner.setdefault(name, {}).update({rest: value} if rest else value)
        else:
            replaced[name] = _typed(value, hints[name])
    for name, entries in inner.items():
        replaced[name] = configured(getattr(config, name), entries, f"{path}{name}.")
    return dataclasses.replace(config, **replaced)


def differences(config: Any, reference: Any, path: str = "") -> dict[str, Any]:
    """The fields of `config`, by dotted name, that differ from those of `reference`."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        ours, theirs = getattr(config, field.name), getattr(reference, field.name)
        if dataclasses.is_dataclass(ours):
            found |= differences(ours, theirs, f"{path}{field.name}.")
        elif ours != theirs:
            found[path + field.name] = ours
    return found


def _typed(value: Any, hint: Any) -> Any:
    """A JSON value as the field's type has it: a list is a tuple, and a whole number does for a float."""
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        hints = typing.get_args(kind)
        # A wrong length is for `validate` to word.
        of_each = [hints[0]] * len(value) if hints[-1] is Ellipsis or len(hints) != len(value) else hints
        return tuple(_typed(entry, of_entry) for entry, of_entry in zip(value, of_each, strict=True))
    floats = kind is float or float in typing.get_args(kind)
    return float(value) if floats and type(value) is int else value
