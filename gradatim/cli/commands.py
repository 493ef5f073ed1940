"""The commands, and how their errors become one line and an exit code."""

from __future__ import annotations

import json as json_format
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts import App

import gradatim

from . import parsing, running, tables

OK, BAD_INPUT, INTERRUPTED = 0, 2, 130
_USER_ERRORS = (cyclopts.CycloptsError, ValueError, TypeError, OSError)

# The laboratory is imported inside the commands: `gradatim --help` is to answer at once.


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0: no run crashed and no claim fails that holds on the scorecard; 1: such a claim; 2: bad input; 3: a run crashed;
    130: interrupted.
    """
    words = [_hyphenated(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    debug = "--debug" in words
    if words[:1] != ["run"]:
        words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            command, bound, _ = _app(words).parse_args(words, exit_on_error=False, print_error=False)
            return command(*bound.args, **bound.kwargs) or OK
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except _USER_ERRORS as error:
        if debug:
            traceback.print_exc()
        hint = running.fields_hint(error, words) if isinstance(error, cyclopts.UnknownOptionError) else ""
        print(f"gradatim: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        return BAD_INPUT


def list_papers(*, json: bool = False) -> None:
    """Lists all papers.

    Parameters
    ----------
    json
        Print them as JSON.
    """
    from gradatim.lab.registry import papers
    from gradatim.lab.scorecard import read_scorecard

    from .entries import entry

    found = list(papers().values())
    if json:
        _print_json([entry(paper) for paper in found])
        return
    scorecard = read_scorecard()
    rows = (
        (paper.slug, paper.title, paper.date.year, tables.tally(paper, scorecard.get(paper.slug, {}).get("claims", {}))) for paper in found
    )
    tables.console().print(tables.table("paper", "title", "year", "claims", rows=rows))


def show(slug: str, /, *, json: bool = False) -> None:
    """Shows one paper: what it claims, how each claim is judged, how to import its method, how to cite it.

    Parameters
    ----------
    slug
        The paper.
    json
        Print it as JSON.
    """
    from gradatim.lab.registry import find
    from gradatim.lab.scorecard import read_scorecard

    from .entries import full_entry, link

    paper = find(slug)
    judged = read_scorecard().get(slug, {}).get("claims", {})
    shown = full_entry(paper, judged)
    if json:
        _print_json(shown)
        return
    out = tables.console()
    out.print(tables.heading(paper.title), f"{link(paper)}  {paper.date.isoformat()}  {', '.join(paper.tags)}", "", paper.summary, sep="\n")
    if shown["method"]:
        out.print("", tables.heading("Method"), shown["method"], sep="\n")
    if shown["imports"]:
        out.print("", tables.heading("Import"), *shown["imports"], sep="\n", soft_wrap=True)
    out.print("", tables.heading("Claims"), tables.verdicts([(paper, judged)]), sep="\n")
    if not paper.implemented:
        out.print("", "Not implemented yet: only its claims are written down.", sep="\n")
    out.print("", tables.heading("Cite"), shown["citation"], sep="\n", soft_wrap=True)


def search(*words: str, limit: int = 5, json: bool = False) -> None:
    """Finds papers by meaning.

    Parameters
    ----------
    words
        What the paper is about, in any words.
    limit
        How many papers to show.
    json
        Print them as JSON.
    """
    from gradatim.lab.registry import papers
    from gradatim.lab.search import search

    from .entries import entry

    hits = search(" ".join(words), list(papers().values()), limit=limit)
    if json:
        _print_json([{**entry(hit.paper), "rank": hit.rank} for hit in hits])
        return
    out = tables.console()
    if not hits:
        out.print("no paper shares a word with these; `gradatim list` shows all")
        return
    out.print(tables.table("paper", "title", "summary", rows=((hit.paper.slug, hit.paper.title, hit.paper.summary) for hit in hits)))


def compare(first: Path, second: Path, /, *, json: bool = False) -> None:
    """Compares two records of one paper: measures, verdicts, configuration and versions.

    Parameters
    ----------
    first
        Folder of a record.
    second
        Folder of the record to hold against it.
    json
        Print the comparison as JSON.
    """
    from gradatim.lab.compare import compare
    from gradatim.lab.records import open_record

    comparison = compare(open_record(first), open_record(second))
    if json:
        _print_json(comparison.summary())
        return
    out = tables.console()
    for part in tables.comparison(comparison):
        out.print(part)


def cite(slug: str, /, *, json: bool = False) -> None:
    """Prints a paper's BibTeX entry.

    Parameters
    ----------
    slug
        The paper.
    json
        Print it as JSON.
    """
    from gradatim.lab.registry import find

    from .entries import citation

    paper = find(slug)
    if json:
        _print_json({"slug": slug, "bibtex": citation(paper)})
    else:
        print(citation(paper))


def new_paper(slug: str, /, *, folder: Path = Path(), json: bool = False) -> None:
    """Writes the two files of a new paper from a template: its claims and its experiment.

    Parameters
    ----------
    slug
        Name of the paper: lower-case words joined by hyphens.
    folder
        Where to write them.
    json
        Print their paths as JSON.
    """
    from gradatim.lab.template import new_paper

    paths = [str(path) for path in new_paper(slug, folder)]
    if json:
        _print_json({"slug": slug, "files": paths})
    else:
        print("\n".join(paths))


def doctor(*, runs: Path = Path("runs"), json: bool = False) -> int:
    """Looks at what a run needs: versions, devices, caches, data sets (those not at hand are downloaded), folders.

    Parameters
    ----------
    runs
        Folder of the records.
    json
        Print what was found as JSON.
    """
    from gradatim import datasets
    from gradatim.lab.doctor import Check, examine

    checks = examine(runs)
    for name in datasets.CATALOGUE:
        try:
            provenance = datasets.load(name, split="test").provenance
            checks.append(Check("data", name, f"{provenance.source} ({provenance.version}, {provenance.licence})"))
        except datasets.DatasetError as error:
            checks.append(Check("data", name, "not found", ok=False, advice=str(error)))
    if json:
        _print_json([vars(check) for check in checks])
    else:
        tables.console().print(tables.checks(checks))
    return OK if all(check.ok for check in checks) else BAD_INPUT


def _app(words: Sequence[str]) -> App:
    app = App(
        name="gradatim",
        help="Methods from the gradient literature, and the experiments that judge their papers' claims.\n\n"
        "With --debug, any command shows the traceback of an error.",
        help_format="plaintext",
        version=gradatim.__version__,
        default_parameter=parsing.EVERY,
        result_action="return_value",
    )
    app.command(list_papers, name="list")
    for command in (show, search, compare, cite, new_paper, doctor):
        app.command(command)
    app.command(running.command(words[1:]) if words[:1] == ["run"] else running.run, name="run")
    return app


def _show_warning(message: Warning | str, *_: Any) -> None:
    """In one line, as errors are."""
    print(f"gradatim: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _hyphenated(word: str) -> str:
    """An option as cyclopts writes it: fields have underscores in Python, and options hyphens."""
    option, equals, value = word.partition("=")
    return f"{option.replace('_', '-')}{equals}{value}" if word.startswith("--") else word


def _print_json(value: Any) -> None:
    from gradatim.lab.records import jsonable

    print(json_format.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False))
