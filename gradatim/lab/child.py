"""The process of one run: `python -m gradatim.lab.child REQUEST.json` builds the configuration, runs, judges, draws and writes."""

from __future__ import annotations

import argparse
import ast
import contextlib
import dataclasses
import datetime
import faulthandler
import gc
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from gradatim.lab import environment
from gradatim.lab.changes import configured, differences
from gradatim.lab.config import validate
from gradatim.lab.findings import Findings
from gradatim.lab.paper import Paper
from gradatim.lab.plots import png
from gradatim.lab.records import DATA, FIGURES, RECORD, jsonable
from gradatim.lab.registry import find
from gradatim.lab.request import EXIT_CODES, Cause
from gradatim.lab.run_folder import CRASH, REQUEST, StorageError, complete, refused, storage, sync_file, write_bytes, write_json

_told = threading.Event()
"Set once this process was asked to stop."


class BadInputError(ValueError):
    """What the user asked for cannot be run; nothing was."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one request and returns the exit code; the last line on the original standard output says what went wrong, as JSON."""
    parser = argparse.ArgumentParser(prog="gradatim.lab.child")
    parser.add_argument("request", type=Path)
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args(arguments)
    partial = options.request.parent
    # Tracing makes many objects and few cycles: to look for these as often as usual takes a tenth of the time of a short run.
    gc.set_threshold(50_000, 20, 50)
    # SIGINT too: a shell that starts a job in the background makes its children deaf to it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if options.lifeline is not None:
        threading.Thread(target=_watch, args=(options.lifeline,), daemon=True).start()
    with _private_output() as answer, _crash_log(partial / CRASH):
        cause, message, trace = _guarded(partial, quiet=not options.progress, resume=options.resume)
        answer.write(json.dumps({"cause": cause, "message": message[:4000], "traceback": trace[-16000:]}))
    return EXIT_CODES[cause]


def _guarded(partial: Path, *, quiet: bool, resume: bool) -> tuple[Cause, str, str]:
    """Runs, and sorts what goes wrong by who has to do something about it."""
    try:
        run(partial, quiet=quiet, resume=resume)
    except KeyboardInterrupt:
        return "interrupted", "", ""
    except BadInputError as error:
        return "bad-input", str(error), ""
    except Exception as error:
        trace = traceback.format_exc()
        refusal = refused(error, partial)
        if refusal is not None:
            return "storage", str(refusal), trace
        try:
            draft = json.loads((partial / RECORD).read_text(encoding="utf-8"))
            _finish(partial, {**draft, "status": "failed", "error": trace}, keep_checkpoints=True)
        except StorageError as clear:
            return "storage", str(clear), trace
        first, *_ = str(error).strip().splitlines() or [""]
        return "error", f"{type(error).__name__}: {first}", trace
    return "", "", ""


def run(partial: Path, *, quiet: bool, resume: bool) -> Path:
    """Runs the request in an unfinished folder to its end and returns the record's path.

    **Raises:** `BadInputError` for what the user asked, `StorageError` where the folder cannot be written, and whatever the
    experiment raises; its findings, if there were any, are in the folder by then.
    """
    begun = time.perf_counter()
    draft = json.loads((partial / RECORD).read_text(encoding="utf-8"))
    request = json.loads((partial / REQUEST).read_text(encoding="utf-8"))
    paper, module, config = _prepare(request)
    # Imports go through callbacks of weak references, which cannot pass an interruption on.
    if _told.is_set():
        raise KeyboardInterrupt
    reference = module.SCALES[request["scale"]]
    entries = {"config": dataclasses.asdict(config), "changed": differences(config, reference), "precision": module.PRECISION}
    if resume and draft["config"] and draft["config"] != jsonable(entries["config"]):
        raise BadInputError(f"the configuration of scale {request['scale']} has changed since {partial.name}: run without --resume")
    draft |= {**entries, "status": "running", "error": "", "machine": draft["machine"] | environment.devices()}
    draft |= {"versions": environment.versions(*environment.distributions(module)), "commit": environment.commit()}
    draft["resumed"] = [*draft["resumed"], _now()] if resume else []
    # What an earlier attempt found is found again.
    draft |= {"measures": {}, "verdicts": {}, "untested": {}, "notes": [], "provenance": [], "seconds": {}}
    (partial / DATA).unlink(missing_ok=True)
    with storage(partial):
        write_json(partial / RECORD, draft)
    import jax

    from gradatim.lab.session import Session

    session = Session(
        jax.random.key(request["seed"]),
        precision=module.PRECISION,
        scale=request["scale"],
        directory=partial,
        quiet=quiet,
        resume=resume,
    )
    findings = module.run(config, session)
    # What JAX holds by now stays to the end; to look through it again and again would slow the drawing.
    gc.freeze()
    draft |= {
        "measures": findings.measures,
        "untested": findings.untested,
        "notes": list(session.notes),
        "provenance": list(session.provenances),
        "peak_memory": environment.peak_memory(),
        "seconds": {**session.seconds, "total": time.perf_counter() - begun},
    }
    # Findings first: a mistake in judging or drawing must not cost what took minutes to measure.
    _write_data(partial, findings)
    with storage(partial):
        write_json(partial / RECORD, draft)
    draft["verdicts"] = _judge(paper, findings, request["scale"])
    with storage(partial):
        write_json(partial / RECORD, draft)
    _write_figures(partial, module, findings)
    draft["seconds"]["total"] = time.perf_counter() - begun
    return _finish(partial, {**draft, "status": "ok"}, keep_checkpoints=False)


def _prepare(request: Mapping[str, Any]) -> tuple[Paper, ModuleType, Any]:
    try:
        paper = find(request["slug"])
        # Before JAX is imported: whatever a module makes at import time has the right precision too.
        os.environ["JAX_ENABLE_X64"] = "1" if _declared_precision(paper) == "double" else "0"
    except ValueError as error:
        raise BadInputError(str(error)) from error
    module = paper.module()
    import jax

    jax.config.update("jax_enable_x64", module.PRECISION == "double")
    if request["scale"] not in module.SCALES:
        raise BadInputError(f"{paper.slug} has no scale {request['scale']!r}, only {', '.join(module.SCALES)}")
    try:
        config = configured(module.SCALES[request["scale"]], request["changed"])
        validate(config)
    except (ValueError, TypeError) as error:
        raise BadInputError(f"{paper.slug}: {error}") from error
    arrays, available = (module.memory(config) if hasattr(module, "memory") else 0), environment.available_memory()
    needed = arrays + environment.OWN_MEMORY
    if available is not None and needed > available:
        raise BadInputError(
            f"{paper.slug} at scale {request['scale']} would need about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free: take a smaller scale or smaller sizes"
        )
    return paper, module, config


def _judge(paper: Paper, findings: Findings, scale: str) -> dict[str, dict[str, Any]]:
    parts = {f"{claim.id}.{part.name}" for claim in paper.claims for part in claim.parts}
    claims = {claim.id for claim in paper.claims}
    for name in [*(set(findings.measures) - parts), *(set(findings.untested) - parts - claims)]:
        raise ValueError(f"{paper.slug}: the findings name {name!r}, which is no part of a claim; parts: {', '.join(sorted(parts))}")
    return {claim.id: claim.judge(findings.measures, scale, findings.untested) for claim in paper.claims}


def _write_data(partial: Path, findings: Findings) -> None:
    file = partial / DATA
    with storage(partial):
        try:
            findings.data.to_netcdf(file, engine="h5netcdf")
        except RuntimeError as error:  # how HDF5 reports a full disk when it closes a file
            raise StorageError(f"cannot write to {file}: {error}; make room there, or name another folder with --runs") from error
        sync_file(file)


def _write_figures(partial: Path, module: ModuleType, findings: Findings) -> None:
    figures = module.draw(findings)
    with storage(partial):
        (partial / FIGURES).mkdir(exist_ok=True)
        for name, figure in figures.items():
            write_bytes(partial / FIGURES / f"{name}.png", png(figure))


def _finish(partial: Path, table: dict[str, Any], *, keep_checkpoints: bool) -> Path:
    with storage(partial):
        write_json(partial / RECORD, {**table, "finished": _now()})
        return complete(partial, keep_checkpoints=keep_checkpoints)


def _declared_precision(paper: Paper) -> str | None:
    """The module's `PRECISION`, read from its source."""
    spec = importlib.util.find_spec(paper.module_name or "")
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        named = any(isinstance(target, ast.Name) and target.id == "PRECISION" for target in targets)
        if named and isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return None


def _stop(number: int, frame: object) -> None:
    del number, frame
    _told.set()
    raise KeyboardInterrupt


def _watch(lifeline: int) -> None:
    """Interrupts this process once its supervisor is gone."""
    with contextlib.suppress(OSError):
        os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def _private_output() -> Iterator[IO[str]]:
    """Standard output for the answer alone: what the experiment prints goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        yield answer


@contextlib.contextmanager
def _crash_log(path: Path) -> Iterator[None]:
    try:
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        faulthandler.enable(file)
        try:
            yield
        finally:
            faulthandler.disable()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is written: to take JAX down piece by piece would last half a second and more.
    os._exit(code)
