"""A paper as the commands show it: its entry in a list, its full entry, its citation."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradatim.lab.paper import Paper

_NOT_METHODS = ("cli", "lab", "papers", "datasets", "nets", "numerics")
_ESCAPES = str.maketrans({character: f"\\{character}" for character in "&%$#_"})


def entry(paper: Paper) -> dict[str, Any]:
    """The JSON form of `gradatim list`."""
    return {
        "slug": paper.slug,
        "title": paper.title,
        "arxiv": paper.arxiv,
        "date": paper.date.isoformat(),
        "tags": list(paper.tags),
        "implemented": paper.implemented,
        "claims": [claim.id for claim in paper.claims],
    }


def full_entry(paper: Paper, judged: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of `gradatim show`; `judged` holds the verdicts of its claims on the scorecard."""
    method, imports = _method(paper)
    claims = [
        {
            "id": claim.id,
            "says": claim.says,
            "scales": list(claim.scales),
            "timing": claim.timing,
            "untested": claim.untested,
            "parts": [
                {"name": part.name, "criterion": part.criterion.text, "unit": part.unit, "paper": part.paper, "control": part.control}
                for part in claim.parts
            ],
            "verdict": judged.get(claim.id),
        }
        for claim in paper.claims
    ]
    return {**entry(paper), "summary": paper.summary, "method": method, "imports": imports, "claims": claims, "citation": citation(paper)}


def link(paper: Paper) -> str:
    """Where the paper can be read, or nothing for one that is not on arXiv."""
    return f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else ""


def citation(paper: Paper) -> str:
    """The paper as a BibTeX entry."""
    entries = {
        "title": f"{{{paper.title.translate(_ESCAPES)}}}",
        "year": str(paper.date.year),
        "month": paper.date.strftime("%b").lower(),
    }
    if paper.arxiv:
        entries |= {"eprint": paper.arxiv, "archiveprefix": "arXiv", "url": link(paper)}
    # A month is one of BibTeX's own words, and stands without braces.
    lines = [f"  {name} = {value if name == 'month' else f'{{{value}}}'}," for name, value in entries.items()]
    return "\n".join([f"@misc{{{paper.slug},", *lines, "}"])


def _method(paper: Paper) -> tuple[str, list[str]]:
    """What the experiment says in its head, and what it imports of the methods, read without importing it."""
    spec = importlib.util.find_spec(paper.module_name) if paper.module_name else None
    if spec is None or spec.origin is None:
        return "", []
    head = Path(spec.origin)
    # An experiment of several parts is a package, and each part names what it uses.
    files = sorted(head.parent.glob("*.py")) if spec.submodule_search_locations else [head]
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    found: dict[str, set[str]] = {}
    for module in modules.values():
        for line in module.body:
            if isinstance(line, ast.ImportFrom) and line.module and _is_method(line.module):
                found.setdefault(line.module, set()).update(ast.unparse(name) for name in line.names)
    imports = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(found.items())]
    return ast.get_docstring(modules[head]) or "", imports


def _is_method(module: str | None) -> bool:
    package, _, rest = (module or "").partition(".")
    return package == "gradatim" and bool(rest) and rest.split(".")[0] not in _NOT_METHODS
