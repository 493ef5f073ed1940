"""`gradatim run`: papers by slug, one of them with the fields of its configuration as further options."""

from __future__ import annotations

import difflib
import inspect
import json as json_format
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from . import tables

if TYPE_CHECKING:
    from gradatim.lab.paper import Paper
    from gradatim.lab.run import RunOutcome

_ALWAYS_RESERVED = ("help", "version", "mesh")


def run(
    *slugs: str,
    all: bool = False,
    scale: Literal["smoke", "laptop", "full"] = "laptop",
    seed: int = 0,
    workers: int = 1,
    cluster: str | None = None,
    resume: bool = False,
    timeout: float | None = None,
    runs: Path = Path("runs"),
    update_scorecard: bool = False,
    quiet: bool = False,
    json: bool = False,
    debug: bool = False,
    _changed: Annotated[Mapping[str, Any] | None, Parameter(parse=False)] = None,
) -> int:
    """Runs papers, each in a process of its own, and judges their claims.

    The fields of a paper's configuration are options too, with one paper at a time: `gradatim run SLUG --help` lists them.

    Parameters
    ----------
    slugs
        The papers to run.
    all
        Run every paper that is implemented.
    scale
        How large the experiment is: seconds (and compiled quickly rather than well), minutes, or the paper's own size.
    seed
        Seed of all randomness; the same seed gives the same findings.
    workers
        Runs at a time; those that measure time run alone.
    cluster
        Address of a Dask scheduler that runs the papers instead, such as tcp://host:8786.
    resume
        Go on from the newest unfinished run of the same settings.
    timeout
        Seconds after which a run is stopped.
    runs
        Folder of the records.
    update_scorecard
        Write the verdicts of a laptop-scale run to the scorecard and their evidence to results/.
    quiet
        No progress on the terminal.
    json
        Print the outcomes as JSON.
    debug
        Show the traceback of a run that failed.
    """
    from gradatim.lab.records import jsonable
    from gradatim.lab.run import RunRequest, run_papers
    from gradatim.lab.scorecard import regressions
    from gradatim.lab.scorecard import update_scorecard as write_scorecard

    papers = _chosen(slugs, all)
    if workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")
    if cluster is not None and workers > 1:
        raise ValueError("--workers and --cluster exclude each other: the cluster has workers of its own")
    if update_scorecard and (scale != "laptop" or _changed):
        raise ValueError("--update-scorecard takes runs at laptop scale with no field changed")
    side_by_side = workers > 1 or cluster is not None
    requests = [
        RunRequest(
            paper.slug,
            scale=scale,
            seed=seed,
            changed=jsonable(_changed or {}),
            runs=runs,
            timeout=timeout,
            quiet=quiet or side_by_side,
            threads=1 if workers > 1 else None,
            resume=resume,
        )
        for paper in papers
    ]
    report = _reporter(len(requests), silent=quiet or len(requests) == 1)
    outcomes = _with_executor(cluster, lambda executor: run_papers(requests, workers=workers, executor=executor, on_outcome=report))

    worse = regressions(outcomes)
    if json:
        print(json_format.dumps(jsonable([outcome.summary() for outcome in outcomes]), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print(papers, outcomes)
    _print_failures(outcomes, worse, tracebacks=debug)
    if update_scorecard:
        for outcome in outcomes:
            if outcome.status == "ok" and outcome.record is not None:
                print(f"scorecard and {write_scorecard(outcome.record)} updated", file=sys.stderr)
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in (130, 3, 2) if code in codes), 1 if worse else 0)


def command(arguments: Sequence[str]) -> Callable[..., int]:
    """The `run` command for these arguments: with the fields of the paper's configuration, if they name one paper and need them.

    **Raises:** `ValueError` for an unknown slug or scale before anything else in the line is looked at.
    """
    from gradatim.lab.registry import find, papers

    for word in arguments:
        if word.startswith("-"):
            break
        find(word)
    scale = _value(arguments, "--scale") or "laptop"
    _one_of("--scale", scale, ("smoke", "laptop", "full"))
    options = {word.partition("=")[0] for word in arguments if word.startswith("-")}
    # Only then is the paper's module, and JAX with it, worth importing here.
    if options <= {f"--{name}" for name in _reserved()} - {"--help"}:
        return run
    known = papers()
    named = list(dict.fromkeys(word for word in arguments if word in known))
    if len(named) != 1 or not known[named[0]].implemented:
        return run
    return _with_fields(known[named[0]], scale)


def fields_hint(error: cyclopts.UnknownOptionError, arguments: Sequence[str]) -> str:
    """What to add to cyclopts' message about an option that it does not know."""
    from gradatim.lab.registry import papers

    if arguments[:1] == ["run"] and ("--all" in arguments or len(papers().keys() & set(arguments)) > 1):
        return " The fields of a configuration go with one paper at a time."
    return ""


def _with_fields(paper: Paper, scale: str) -> Callable[..., int]:
    from gradatim.lab.changes import configured
    from gradatim.lab.config import validate

    from .fields import leaves, options

    scales = paper.module().SCALES
    if scale not in scales:
        raise ValueError(f"{paper.slug} has no scale {scale!r}, it has {', '.join(scales)}")
    config = scales[scale]
    fields = list(leaves(config))
    paths = {field.argument: field.path for field in fields}

    def run_with_fields(*slugs: str, **arguments: Any) -> int:
        changed = {paths[name]: arguments.pop(name) for name in list(arguments) if name in paths}
        validate(configured(config, changed))
        return run(*slugs, **arguments, _changed=changed)

    signature = inspect.signature(run, eval_str=True)
    own = [parameter for name, parameter in signature.parameters.items() if name != "_changed"]
    added = options(fields, title=f"Fields of {paper.slug} at scale {scale}", reserved=_reserved())
    # cyclopts reads a command's options off its signature.
    run_with_fields.__signature__ = signature.replace(parameters=[*own, *added])  # pyright: ignore[reportFunctionMemberAccess]
    run_with_fields.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    run_with_fields.__doc__ = run.__doc__
    return run_with_fields


def _reserved() -> set[str]:
    own = [name for name, parameter in inspect.signature(run).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    return {name.replace("_", "-") for name in (*own, *_ALWAYS_RESERVED)} - {"-changed"}


def _chosen(slugs: Sequence[str], everything: bool) -> list[Paper]:
    from gradatim.lab.registry import find, papers

    if everything == bool(slugs):
        raise ValueError("name the papers to run, or --all and none; `gradatim list` shows them")
    if everything:
        ready = [paper for paper in papers().values() if paper.implemented]
        if not ready:
            raise ValueError("no paper is implemented yet; `gradatim list` shows their claims")
        return ready
    chosen = [find(slug) for slug in dict.fromkeys(slugs)]
    for paper in chosen:
        if not paper.implemented:
            raise ValueError(f"{paper.slug} is not implemented yet: only its claims are written down (`gradatim show {paper.slug}`)")
    return chosen


def _value(arguments: Sequence[str], option: str) -> str | None:
    for i, word in enumerate(arguments):
        if word == option:
            return arguments[i + 1] if i + 1 < len(arguments) else None
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _one_of(option: str, word: str, allowed: Sequence[str]) -> None:
    if word not in allowed:
        close = difflib.get_close_matches(word, allowed, n=1)
        raise ValueError(f"{option} must be {', '.join(allowed)}, got {word!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))


def _with_executor(cluster: str | None, work: Callable[[Executor | None], list[RunOutcome]]) -> list[RunOutcome]:
    if cluster is None:
        return work(None)
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--cluster needs the extra of that name: pip install 'gradatim[cluster]'") from None
    with Client(cluster) as client:
        return work(client.get_executor())


def _reporter(total: int, *, silent: bool) -> Callable[[RunOutcome], None]:
    finished = 0

    def report(outcome: RunOutcome) -> None:
        nonlocal finished
        finished += 1
        if not silent:
            seconds = f", {sum(outcome.seconds.get(part, 0.0) for part in ('compile', 'run')):.1f} s" if outcome.seconds else ""
            print(f"[{finished}/{total}] {outcome.slug}: {outcome.status}{seconds}", file=sys.stderr)

    return report


def _print(papers: Sequence[Paper], outcomes: Sequence[RunOutcome]) -> None:
    out = tables.console()
    judged = [(paper, outcome.verdicts) for paper, outcome in zip(papers, outcomes, strict=True) if outcome.verdicts]
    if judged:
        out.print(tables.verdicts(judged))
    for outcome in outcomes:
        if outcome.record is not None:
            figures = sorted((outcome.record / "figures").glob("*.png"))
            out.print("\n".join(["", f"{outcome.slug}: {outcome.record}", *(f"  {figure}" for figure in figures)]), soft_wrap=True)


def _print_failures(outcomes: Sequence[RunOutcome], worse: Sequence[tuple[str, str]], *, tracebacks: bool) -> None:
    for outcome in outcomes:
        if outcome.status == "failed":
            if tracebacks and outcome.traceback:
                print(outcome.traceback.rstrip(), file=sys.stderr)
            print(f"{outcome.slug} failed ({outcome.cause}): {outcome.message}", file=sys.stderr)
    for slug, claim in worse:
        print(f"{slug} {claim} fails, and holds on the scorecard", file=sys.stderr)
