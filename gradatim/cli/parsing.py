"""How words of the command line become values, the same for every option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

import cyclopts


def convert(kind: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """As cyclopts converts, but for whole numbers: it would round 3.5 units to 4 without a word.

    **Raises:** `ValueError` where a whole number is wanted and something else is written.
    """
    if kind is int or (get_origin(kind) is tuple and int in get_args(kind)):
        for token in tokens:
            if not _is_whole(token.value):
                raise ValueError(f"it must be a whole number, got {token.value!r}")
    return cyclopts.convert(kind, tokens)


def shown(value: Any) -> str | None:
    """A default as the help shows it: that a switch is off goes without saying."""
    if value is None or value is False:
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _is_whole(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


EVERY = cyclopts.Parameter(negative=(), converter=convert, show_default=shown)
"What holds for every option unless it says otherwise; `--no-…` is for switches that are on by default."
