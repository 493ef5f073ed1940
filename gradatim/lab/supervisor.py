"""The supervisor of one run: a child process, its time-out, and what is made of it when it dies."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradatim.lab import environment
from gradatim.lab.records import RECORD, SCHEMA_VERSION, open_record
from gradatim.lab.registry import find
from gradatim.lab.request import Cause, RunOutcome, RunRequest
from gradatim.lab.run_folder import CRASH, OUTPUT, REQUEST, RunFolder, StorageError, complete, storage, write_json

QUICKLY_COMPILED = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
"XLA flags under which a program compiles two to four times as fast, and runs slower: right where it runs for milliseconds."
GRACE = 20.0
"Seconds that a run has to write a last checkpoint once it was told to stop."

stopping = threading.Event()
"Set once this process was interrupted: no further run starts."
_children: set[subprocess.Popen[bytes]] = set()


def supervise(request: RunRequest) -> RunOutcome:
    """Runs one paper in a child process and waits for it; never raises for what goes wrong inside the run."""
    if stopping.is_set():
        return failed(request, "interrupted", "not started: the command was interrupted")
    try:
        paper = find(request.slug)
        if not paper.implemented:
            raise ValueError(f"{request.slug} is not implemented yet: only its claims are written down")
        folder = _open_folder(request)
    except StorageError as error:
        return failed(request, "storage", str(error))
    except (ValueError, TypeError) as error:
        return failed(request, "bad-input", str(error))
    try:
        return _run_child(request, folder)
    except StorageError as error:
        return failed(request, "storage", str(error))
    finally:
        folder.release()


def stop_all() -> None:
    """Asks every run of this process to stop in good order."""
    for child in list(_children):
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)


def kill_all() -> None:
    """Ends every run of this process at once."""
    for child in list(_children):
        _kill(child)


def child_environment(request: RunRequest) -> dict[str, str]:
    """The environment of a run's process: the caller's, with JAX's cache of compiled programs on and nothing drawn to a screen.

    Runs at smoke scale are compiled quickly rather than well. The caller's own flags take precedence.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradatim" / "jax"
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        # At its own thresholds JAX keeps next to nothing of programs as small as ours.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # XLA's threads, and those of NumPy's and SciPy's linear algebra.
    pinned = {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1"} if request.threads == 1 else {}
    flags = {"XLA_FLAGS": f"{QUICKLY_COMPILED} {os.environ.get('XLA_FLAGS', '')}".rstrip()} if request.scale == "smoke" else {}
    path = {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
    return {**defaults, **os.environ, **flags, **path, **pinned, "MPLBACKEND": "agg", "PYTHONUNBUFFERED": "1"}


def _open_folder(request: RunRequest) -> RunFolder:
    table = {name: getattr(request, name) for name in ("slug", "scale", "seed", "changed", "quiet", "threads")}
    folder = RunFolder.resume(request.runs, table) if request.resume else None
    folder = folder or RunFolder.create(request.runs, table)
    if not (folder.path / RECORD).exists():
        with storage(request.runs):
            write_json(folder.path / RECORD, _draft(request))
    return folder


def _draft(request: RunRequest) -> dict[str, Any]:
    """A record of which only the beginning is known."""
    return {
        "schema_version": SCHEMA_VERSION,
        "slug": request.slug,
        "scale": request.scale,
        "seed": request.seed,
        "precision": "",
        "status": "running",
        "error": "",
        "config": {},
        "changed": request.changed,
        "versions": environment.versions(),
        "machine": environment.machine(),
        "commit": None,
        "started": _now(),
        "finished": "",
        "resumed": [],
        "seconds": {},
        "peak_memory": None,
        "measures": {},
        "verdicts": {},
        "untested": {},
        "notes": [],
        "provenance": [],
    }


def _run_child(request: RunRequest, folder: RunFolder) -> RunOutcome:
    # The child stops in good order when the writing end closes: its supervisor has died.
    lifeline, alive = os.pipe()
    command = [sys.executable, "-P", "-m", "gradatim.lab.child", str(folder.path / REQUEST), "--lifeline", str(lifeline)]
    command += ["--resume"] if folder.resumed else []
    command += [] if request.quiet else ["--progress"]
    why: Cause = ""
    try:
        with open(folder.path / OUTPUT if request.quiet else os.devnull, "ab") as output:  # noqa: PTH123
            child = subprocess.Popen(
                command,
                env=child_environment(request),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output if request.quiet else None,
                pass_fds=(lifeline, folder.lock),
                process_group=0,
            )
        _children.add(child)
        os.close(lifeline)
        lifeline = -1
        try:
            why = _wait(child, request.timeout)
            reply = _reply(child)
        finally:
            _children.discard(child)
            if child.poll() is None:
                _kill(child)
            if child.stdout is not None:
                child.stdout.close()
    finally:
        for end in (lifeline, alive):
            if end >= 0:
                os.close(end)
    return _outcome(request, folder, child.returncode, reply, why)


def _wait(child: subprocess.Popen[bytes], timeout: float | None) -> Cause:
    """Waits for the end; on a time-out or an interruption asks the run to stop and, when its grace is over, makes it."""
    why: Cause = ""
    try:
        child.wait(timeout)
        return why
    except subprocess.TimeoutExpired:
        why = "timeout"
    except KeyboardInterrupt:
        why = "interrupted"
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        _kill(child)
    return why


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _reply(child: subprocess.Popen[bytes]) -> dict[str, str]:
    assert child.stdout is not None
    text = child.stdout.read()
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _outcome(request: RunRequest, folder: RunFolder, code: int, reply: dict[str, str], why: Cause) -> RunOutcome:
    if folder.final.is_dir():  # complete, whatever happened afterwards
        return _from_record(request, folder.final, reply, folder.resumed)
    # A child that is told to stop while it starts has no answer yet.
    told: Cause = "interrupted" if stopping.is_set() else ""
    cause: Cause = why or reply.get("cause", told)  # pyright: ignore[reportAssignmentType]
    message, trace = reply.get("message", ""), reply.get("traceback", "")
    match cause:
        case "bad-input":
            if not folder.resumed:
                folder.discard()
            elif json.loads((folder.path / RECORD).read_text(encoding="utf-8"))["status"] == "failed":
                complete(folder.path, keep_checkpoints=True)  # as it was
            return failed(request, cause, message)
        case "storage":
            return failed(request, cause, f"{message} (then `{request.command()} --resume`)", trace)
        case "interrupted":
            return failed(request, cause, f"interrupted; `{request.command()} --resume` goes on from the last checkpoint")
        case "timeout":
            message = f"timed out after {request.timeout:g} s; `{request.command()} --resume` goes on from the last checkpoint"
        case _:
            cause, message = "crash", _obituary(code)
            trace = _read_tail(folder.path / CRASH) or _read_tail(folder.path / OUTPUT)
    record = _fail_record(folder.path, "\n".join(filter(None, [trace.rstrip(), message])))
    return replace(failed(request, cause, message, trace), record=record, resumed=folder.resumed)


def _from_record(request: RunRequest, path: Path, reply: dict[str, str], resumed: bool) -> RunOutcome:
    record = open_record(path)
    ok = record.status == "ok"
    return RunOutcome(
        record.slug,
        record.scale,
        "ok" if ok else "failed",
        "" if ok else "error",
        "" if ok else reply.get("message") or record.error.strip().rpartition("\n")[2],
        record.error,
        path if request.runs.is_absolute() else Path(os.path.relpath(path)),
        record.seconds,
        record.verdicts,
        resumed,
    )


def _fail_record(partial: Path, error: str) -> Path | None:
    """Turns what a dead run left into a failed record that keeps its checkpoints; None if even that cannot be written."""
    try:
        draft = json.loads((partial / RECORD).read_text(encoding="utf-8"))
        write_json(partial / RECORD, {**draft, "status": "failed", "error": error, "finished": _now()})
        return complete(partial, keep_checkpoints=True)
    except (OSError, ValueError):
        return None


def _obituary(code: int) -> str:
    if code >= 0:
        return f"the run's process ended with exit code {code} before it was done"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system does that when memory runs out: take a smaller scale, or close other programs" if name == "SIGKILL" else ""
    return f"the run's process was killed ({name}{hint})"


def _read_tail(path: Path, size: int = 8000) -> str:
    try:
        return path.read_bytes()[-size:].decode(errors="replace").strip()
    except OSError:
        return ""


def failed(request: RunRequest, cause: Cause, message: str, trace: str = "") -> RunOutcome:
    """The outcome of a run that left no record."""
    return RunOutcome(request.slug, request.scale, "failed", cause, message, trace)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
