"""A paper: its claims, read from TOML without importing JAX, and the module that runs it."""

from __future__ import annotations

import datetime
import importlib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from gradatim.lab.claims import Claim, _check_keys


@dataclass(frozen=True)
class Paper:
    """What one paper says; `module_name` is the module with its `Config`, `SCALES`, `run` and `draw`, or None if there is none yet."""

    slug: str
    title: str
    arxiv: str
    date: datetime.date
    tags: tuple[str, ...]
    summary: str
    claims: tuple[Claim, ...]
    module_name: str | None = None

    @property
    def implemented(self) -> bool:
        """Whether there is a module that runs it."""
        return self.module_name is not None

    def module(self) -> ModuleType:
        """Imports the module (and with it JAX).

        **Raises:** `ValueError` if the paper has none yet.
        """
        if self.module_name is None:
            raise ValueError(f"{self.slug} is not implemented yet: only its claims are written down")
        return importlib.import_module(self.module_name)


def module_beside(path: Path, package: str) -> str | None:
    """The module of `package` beside a TOML file: `path`'s name with .py, or a package for an experiment of several parts."""
    code = (path.with_suffix(".py"), path.with_suffix("") / "__init__.py")
    return f"{package}.{path.stem}" if any(candidate.exists() for candidate in code) else None


def read_paper(path: Path, module_name: str | None = None) -> Paper:
    """Reads a paper's TOML file.

    **Raises:** `ValueError`, naming the file, for a missing, unknown or malformed entry.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        required = ("slug", "title", "arxiv", "date", "tags", "summary", "claims")
        _check_keys(table, required=required, optional=(), where="a paper")
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", table["slug"]):
            raise ValueError(f"slug must be lower-case words joined by hyphens, got {table['slug']!r}")
        if not isinstance(table["date"], datetime.date):
            raise ValueError(f"date must be a TOML date (2025-10-02, unquoted), got {table['date']!r}")
        claims = tuple(Claim.parse(claim) for claim in table["claims"])
        ids = [claim.id for claim in claims]
        if len(set(ids)) != len(ids):
            raise ValueError(f"the ids of claims must differ, got {ids}")
        return Paper(
            **{key: table[key] for key in ("slug", "title", "arxiv", "date", "summary")},
            tags=tuple(table["tags"]),
            claims=claims,
            module_name=module_name,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error
