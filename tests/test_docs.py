"""The documentation runs: its code, its links, its tables."""

import ast
import contextlib
import functools
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")])
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\]\((?P<target>[^)\s#]+)(?:#[^)]*)?\)")


def name(page):
    return str(page.relative_to(ROOT))


def generated():
    """Pages that exist only in the built site."""
    papers = {path.stem.replace("_", "-") for path in (ROOT / "gradatim/papers").glob("*.toml")}
    rooms = {path.parent.name for path in (ROOT / "gradatim").glob("*/__init__.py")}
    return {ROOT / "docs/bibliography.md"} | {ROOT / f"docs/papers/{p}.md" for p in papers} | {ROOT / f"docs/api/{r}.md" for r in rooms}


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=name)
def test_code_runs_and_prints_what_the_page_shows(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, namespace = page.read_text(), {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start()) + 1
        # Blank lines in front, so that a traceback names the page's own line.
        code = compile("\n" * line + block["code"], name(page), "exec")
        # With the random numbers that a reader gets: the other tests draw them by the layout that compiles faster.
        with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings(), jax.threefry_partitionable(True):
            warnings.simplefilter("error")
            exec(code, namespace)
        if block["output"] is not None:
            assert printed.getvalue() == block["output"], f"{name(page)}, line {line}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page):
    targets = [match["target"] for match in LINK.finditer(page.read_text())]
    local = [target for target in targets if not re.match(r"https?:|mailto:", target)]
    missing = [target for target in local if not (page.parent / target).exists() and (page.parent / target).resolve() not in generated()]
    assert not missing


@functools.cache
def definitions(file):
    """The functions and classes of a module, by name."""
    return {one.name: one for one in ast.parse(file.read_text()).body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def exported(package):
    """`(name, definition)` of every function and class that a room's `__init__.py` re-exports; what else it does has no docstring."""
    for node in ast.walk(ast.parse((package / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            place = package / node.module.replace(".", "/")
            known = definitions(place / "__init__.py" if place.is_dir() else place.with_suffix(".py"))
            yield from ((alias.name, known[alias.name]) for alias in node.names if alias.name in known)


ROOMS = sorted(
    path.parent
    for path in (ROOT / "gradatim").glob("*/**/__init__.py")
    if not {"papers", "cli"} & set(path.relative_to(ROOT).parts) and list(exported(path.parent))
)


@pytest.mark.parametrize("room", ROOMS, ids=name)
def test_every_public_function_class_and_method_says_what_it_is(room):
    public = dict(exported(room))
    inner = {f"{name}.{one.name}": one for name, it in public.items() for one in it.body if isinstance(one, ast.FunctionDef)}
    methods = {name: one for name, one in inner.items() if isinstance(public[name.split(".")[0]], ast.ClassDef) and "._" not in name}
    assert [name for name, definition in (public | methods).items() if not ast.get_docstring(definition)] == []


def test_tables_are_those_of_the_scorecard():
    done = subprocess.run([sys.executable, ROOT / "docs/readme_table.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_seeds_are_compared_by_claim_and_by_measure(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import readme_table

    def claim(verdict, *parts):
        names = "abcdef"
        entries = {
            name: {"verdict": word, "value": value, "low": value - half, "high": value + half, "method": method}
            for name, (word, value, half, method) in zip(names, parts, strict=False)
        }
        return {"verdict": verdict, "parts": entries, "part": "a"} if parts else {"verdict": verdict, "parts": {}}

    seeds, ratios = "Student's t over 3 seeds", "Student's t over 3 paired log-ratios"
    first = {
        # On the scorecard its verdict is that of both seeds; what the first alone says is that of the part.
        "C1": claim("undecided", ("holds", 1.0, 3.0, seeds), ("holds", 2.0, 0.0, "exact"), ("holds", 1.0, 0.5, ratios)),
        "C2": claim("holds", ("holds", 0.0, 3.0, seeds), ("holds", 5.0, 1.0, "error bound")),
        "C3": claim("untested"),
    }
    other = {
        # 5 is as far off as the root of 3² + 4²; e times as far in logarithms is beyond.
        "C1": claim("fails", ("fails", 5.9, 4.0, seeds), ("fails", 9.0, 0.0, "exact"), ("holds", 5.0, 0.5, ratios)),
        "C2": claim("holds", ("holds", 5.1, 4.0, seeds), ("holds", 9.0, 1.0, "error bound")),
        "C3": claim("untested"),
    }
    lines = readme_table.seeds_table({"x": {"claims": first, "seeds": {"1": other}}, "y": {"claims": first, "seeds": {}}}).splitlines()
    assert lines[2] == "| holds | 1 | 1 | 0 | 0 |" and lines[5] == "| untested | 0 | 0 | 0 | 1 |"
    assert lines[-1].startswith("Of 3 measures with an interval from repeats 2 (66.7%) differ")


def test_site_builds_without_a_warning(tmp_path):
    # Without sources, laid-out signatures and an index to search, which take half of the time and hold no link.
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true", "GRADATIM_DOCS_WHOLE": "false"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr
    # What another seed found stands beside the result.
    assert "<th>seed 1</th>" in (tmp_path / "site/papers/diffgrad/index.html").read_text(encoding="utf-8")
