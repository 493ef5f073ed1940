"""The fields of a paper's configuration as options of the command line: `--width 64 --optimizer.b1 0.9`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin

import cyclopts

from gradatim.lab.config import Between, OneOf

from .parsing import shown


@dataclass(frozen=True)
class Field:
    """One leaf of a configuration: its dotted path, its type, its value at the chosen scale and what it means."""

    path: str
    kind: Any
    value: Any
    help: str

    @property
    def argument(self) -> str:
        """The path as the name of an argument."""
        return self.path.replace(".", "__")

    @property
    def option(self) -> str:
        """The path as an option is written, without its dashes in front."""
        return self.path.replace("_", "-")


def leaves(config: Any, prefix: str = "") -> Iterator[Field]:
    """Every field of a configuration, those of nested ones under dotted paths."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    docstrings = _field_docstrings(type(config))
    for field in dataclasses.fields(config):
        path, value, hint = f"{prefix}{field.name}", getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{path}.")
            continue
        kind, rules = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
        ranges = [str(rule) for rule in rules if isinstance(rule, Between | OneOf)]
        words = docstrings.get(field.name, "").rstrip(".")
        yield Field(path, kind, value, f"{words} ({'; '.join(ranges)})".strip() if ranges else words)


def options(fields: Sequence[Field], *, title: str, reserved: Collection[str]) -> list[inspect.Parameter]:
    """The fields as keyword-only parameters for cyclopts.

    **Raises:** `ValueError` if a field has the name of one of the command's own options, which are `reserved`.
    """
    taken = sorted(field.path for field in fields if field.option in reserved)
    if taken:
        raise ValueError(f"{title}: {', '.join(taken)} must be renamed, the command line uses that name itself")
    group = cyclopts.Group(title, sort_key=1)
    return [
        inspect.Parameter(
            field.argument,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.value,
            annotation=Annotated[
                field.kind,
                cyclopts.Parameter(
                    name=f"--{field.option}",
                    negative=f"--no-{field.option}" if field.kind is bool else (),
                    help=field.help,
                    group=group,
                    show_default=True if field.value is False else shown,
                    consume_multiple=True,
                ),
            ],
        )
        for field in fields
    ]


def _field_docstrings(cls: type) -> dict[str, str]:
    """The string that follows each field in the source, where there is a source."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    found = {}
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr):
            text = ast.literal_eval(after.value) if isinstance(after.value, ast.Constant) else None
            if isinstance(text, str):
                found[field.target.id] = " ".join(text.split())
    return found
