"""Pages made while the site is built: one a paper, one a room of the library, the bibliography and the navigation."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mkdocs_gen_files
from mkdocs.structure.files import InclusionLevel
from mkdocs_gen_files.editor import FilesEditor

ROOT = Path(__file__).resolve().parents[1]
# mkdocs runs this file by its path, without its folder on the way to modules.
sys.path.insert(0, str(ROOT / "docs"))

from readme_table import SYMBOLS, cell, interval, number, own_papers, read_scorecard  # noqa: E402

from gradatim.cli.entries import full_entry, link  # noqa: E402
from gradatim.lab import Paper  # noqa: E402
from gradatim.lab.claims import ClaimPart  # noqa: E402

ROOMS = ("optim", "implicit", "landscape", "transport", "sciml", "physics", "astro", "nets", "numerics", "datasets", "lab")
GUIDE = (
    ("Start", "index.md"),
    ("Tutorial", "tutorial.md"),
    ("Language model", "language-model.md"),
    ("How to choose", "choose.md"),
    ("Runs and records", "records.md"),
    ("Add a paper", "add-a-paper.md"),
    ("Data", "data.md"),
)


def public_names(package: Path) -> list[tuple[str, str]]:
    """`(module, name)` of everything that a room's `__init__.py` re-exports."""
    found = []
    # Names that are imported late stand under `if TYPE_CHECKING`.
    for node in ast.walk(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))):
        # `from . import room` names a room within this one, which has a section of its own.
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            module = f"{'.'.join(package.relative_to(ROOT).parts)}.{node.module}"
            found += [(module, alias.asname or alias.name) for alias in node.names]
    return found


def references(imports: Iterable[str]) -> Iterator[str]:
    """A link into the reference for each imported name."""
    for line in imports:
        for node in ast.parse(line).body:
            if isinstance(node, ast.ImportFrom):
                yield from (f"[`{alias.name}`][{node.module}.{alias.name}]" for alias in node.names)


def measure_row(claim: str, part: ClaimPart, entry: Mapping[str, Any] | None, beside: Iterable[Mapping[str, Any]] = ()) -> str:
    """One row of the table of measures, with what runs `beside` found; without measured columns for a paper that has no judged run."""
    paper = "" if part.paper is None else number(part.paper)
    cells = [claim, part.name.replace("_", " "), f"{part.criterion.text} {part.unit}", paper, part.control]
    if entry is not None:
        value, span = entry["reason"], ""
        if entry["value"] is not None:
            value, span = f"{number(entry['value'])} {part.unit}", interval(entry)
        cells[2:2] = [value, span, *map(other_run, beside)]
        cells.append(f"{SYMBOLS[entry['verdict']]} {entry['verdict']}")
    return f"| {' | '.join(map(cell, cells))} |"


def other_run(entry: Mapping[str, Any]) -> str:
    """What a run with another seed found, in one cell: the value, its interval, and the sign of its verdict."""
    if entry.get("value") is None:
        return entry.get("reason", "")
    span = interval(entry)
    return " ".join(filter(None, (number(entry["value"]), f"({span})" if span else "", SYMBOLS[entry["verdict"]])))


def verdict_section(paper: Paper, judged: Mapping[str, Any], seeds: Mapping[str, Any]) -> Iterator[str]:
    """What each claim says and how it fared, then every measure behind it, and what runs with other `seeds` found."""
    yield "## Verdict\n" if judged else "## Claims\n"
    yield "| claim | what it says | verdict |\n| --- | --- | --- |"
    for claim in paper.claims:
        entry = judged.get(claim.id)
        if entry is not None:
            verdict = f"{SYMBOLS[entry['verdict']]} {entry['verdict']}" + (f": {entry['reason']}" if entry["reason"] else "")
        else:
            verdict = f"{SYMBOLS['untested']} untested: {claim.untested}" if claim.untested else "not yet judged"
        yield f"| {claim.id} | {cell(claim.says)} | {cell(verdict)} |"
    yield "\n### Measures\n"
    measured = ["measured", "95 % interval", *(f"seed {seed}" for seed in seeds)] if judged else []
    columns = ["claim", "quantity", *measured, "criterion", "paper", "control"]
    columns += ["verdict"] if judged else []
    yield f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}"
    for claim in paper.claims:
        parts = judged.get(claim.id, {}).get("parts", {})
        # A claim that was left out as a whole has no parts in its verdict; its reason stands in the table above.
        for part in claim.parts if parts or not judged else ():
            beside = [seed[claim.id].get("parts", {}).get(part.name, {}) for seed in seeds.values()]
            yield measure_row(claim.id, part, parts.get(part.name) if judged else None, beside)
    yield ""


def figure_section(slug: str) -> Iterator[str]:
    """The figures of the judged run, copied beside the page."""
    figures = sorted((ROOT / "results" / slug / "figures").glob("*.png"))
    if figures:
        yield "## Figures\n"
    for path in figures:
        with mkdocs_gen_files.open(f"papers/{slug}/{path.name}", "wb") as file:
            file.write(path.read_bytes())
        title = path.stem.replace("_", " ").replace("-", " ")
        yield f"![{title}]({slug}/{path.name})\n"


def run_section(slug: str) -> Iterator[str]:
    """How the judged run was made."""
    path = ROOT / "results" / slug / "record.json"
    if not path.exists():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    seconds = record["seconds"]
    yield "## The run\n"
    yield f"- scale `{record['scale']}`, seed {record['seed']}, {record['precision']} precision, {record['finished'][:10]}"
    yield f"- {record['machine']['processor']}, {record['machine']['cpus']} cores"
    yield f"- {seconds['run']:.0f} s of computing and {seconds['compile']:.0f} s of compiling"
    yield f"- {versions}"
    for note in record.get("notes", ()):
        yield f"- {note}"
    for source in record.get("provenance", ()):
        yield f"- data: {source['source']}, {source['version']}, {source['licence']}"
    yield ""


def paper_page(paper: Paper, scorecard: Mapping[str, Any]) -> str:
    """The import, then the verdict, then the theory."""
    lines = [
        f"# {paper.title}\n",
        f"[arXiv:{paper.arxiv}](https://arxiv.org/abs/{paper.arxiv}), {paper.date:%d %B %Y}. {', '.join(paper.tags)}.\n",
    ]
    judged = scorecard.get(paper.slug, {}).get("claims", {})
    if paper.implemented:
        shown = full_entry(paper, judged)
        lines += ["```python", *shown["imports"], "```", "```bash", f"gradatim run {paper.slug} --scale laptop", "```\n"]
    lines += [f"{paper.summary}\n"]
    if not paper.implemented:
        lines += ["!!! note\n    Not yet: the claims are written down, the method and its experiment are not.\n"]
    lines += verdict_section(paper, judged, scorecard.get(paper.slug, {}).get("seeds", {}))
    lines += figure_section(paper.slug)
    lines += run_section(paper.slug)
    if paper.implemented:
        lines += [
            "## Theory and experiment\n",
            f"The method in the reference: {', '.join(references(full_entry(paper, judged)['imports']))}.\n",
        ]
        lines += [f"::: {paper.module_name}", "    options:", "      show_root_heading: false"]
        lines += ["      show_root_toc_entry: false", "      heading_level: 3", "      members: [Config, run, draw, memory]\n"]
    return "\n".join(lines)


def introduction(package: Path) -> str:
    """What a room says of itself, tables of its methods included."""
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""


def room_page(room: str) -> str:
    """The public names of a room, and of the rooms within it."""
    package = ROOT / "gradatim" / room
    lines = [f"# gradatim.{room}\n", f"{introduction(package)}\n"]
    inner = sorted(path.parent for path in package.glob("*/__init__.py"))
    for folder in [package, *inner]:
        if folder != package:
            name = ".".join(folder.relative_to(ROOT).parts)
            lines.append(f"[](){{#{name}}}\n\n## {name}\n\n{introduction(folder)}\n")
        for module, name in public_names(folder):
            # The name that users import is an anchor too: docstrings refer to each other by it.
            public = f"{'.'.join(folder.relative_to(ROOT).parts)}.{name}"
            lines += [f"[](){{#{public}}}\n", f"::: {module}.{name}", "    options:"]
            lines += [f"      heading_level: {2 if folder == package else 3}\n"]
    return "\n".join(lines)


def bibliography(papers: Mapping[str, Paper]) -> str:
    """Every paper by date, newest last."""
    lines = ["# Bibliography\n", "The papers whose methods and claims live here, by date of their first version.\n"]
    for paper in sorted(papers.values(), key=lambda paper: paper.date):
        source = f"[arXiv:{paper.arxiv}]({link(paper)})"
        lines.append(f"- *{paper.title}*. {source}, {paper.date:%Y-%m-%d}. [`{paper.slug}`](papers/{paper.slug}.md)")
    return "\n".join(lines) + "\n"


def write(path: str, text: str) -> None:
    """One generated page."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def main() -> None:
    """Writes all pages and the navigation."""
    papers, scorecard = own_papers(), read_scorecard()
    for paper in papers.values():
        write(f"papers/{paper.slug}.md", paper_page(paper, scorecard))
    for room in ROOMS:
        write(f"api/{room}.md", room_page(room))
    write("bibliography.md", bibliography(papers))
    ordered = sorted(papers.values(), key=lambda paper: (not paper.implemented, paper.slug))
    nav = [*(f"* [{title}]({path})" for title, path in GUIDE), "* [Papers](papers/index.md)"]
    nav += [f"    * [{paper.slug}](papers/{paper.slug}.md)" for paper in ordered]
    nav += ["* Reference", *(f"    * [gradatim.{room}](api/{room}.md)" for room in ROOMS)]
    nav += ["* [Glossary](glossary.md)", "* [Bibliography](bibliography.md)"]
    write("SUMMARY.md", "\n".join(nav) + "\n")
    summary = FilesEditor.current().files.get_file_from_path("SUMMARY.md")
    if summary is not None:
        # Read for the navigation, not a page of its own.
        summary.inclusion = InclusionLevel.EXCLUDED


main()
