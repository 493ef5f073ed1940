"""Running papers: each in a child process under a supervisor, so that one that dies takes nothing else with it."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gradatim.lab import environment
from gradatim.lab.claims import SCALES
from gradatim.lab.records import RECORD, SCHEMA_VERSION, jsonable, open_record
from gradatim.lab.registry import find
from gradatim.lab.run_folder import REQUEST, RunFolder, StorageError, complete, write_json

Cause = Literal["", "bad-input", "error", "crash", "timeout", "interrupted", "storage"]
EXIT_CODES: dict[Cause, int] = {"": 0, "bad-input": 2, "storage": 2, "error": 3, "crash": 3, "timeout": 3, "interrupted": 130}
GRACE = 20.0
"Seconds that a run has to write a last checkpoint once it was told to stop."
OUTPUT, CRASH = "output.txt", "crash.txt"

_stop = threading.Event()
_children: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class RunRequest:
    """What to run.

    **Arguments:** `changed`: configuration fields by dotted name (`"optimizer.learning_rate"`) to JSON values, which replace
    those of the chosen scale; `runs`: the folder that holds all records; `timeout`: seconds after which the run is stopped;
    `quiet`: no progress on the terminal; `threads`: 1 pins the run to one thread, None leaves all cores;
    `resume`: go on from the newest unfinished run with the same slug, scale, seed and changes, or start anew if there is none.

    **Raises:** `ValueError` for an unknown scale, a seed outside [0, 2**32) or a timeout that is not positive.
    """

    slug: str
    scale: str = "laptop"
    seed: int = 0
    changed: Mapping[str, Any] = field(default_factory=dict)
    runs: Path = Path("runs")
    timeout: float | None = None
    quiet: bool = True
    threads: int | None = None
    resume: bool = False

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            close = difflib.get_close_matches(self.scale, SCALES, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {self.scale!r}{hint}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), got {self.seed}")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {self.timeout}")
        if self.threads not in (None, 1):
            raise ValueError(f"threads must be 1 or None (all cores), got {self.threads}")
        object.__setattr__(self, "changed", dict(self.changed))
        object.__setattr__(self, "runs", Path(self.runs))

    def command(self) -> str:
        """The command line that asks for the same run."""
        words = ["gradatim", "run", self.slug]
        words += ["--scale", self.scale] if self.scale != "laptop" else []
        words += ["--seed", str(self.seed)] if self.seed else []
        words += ["--runs", str(self.runs)] if self.runs != Path("runs") else []
        for name, value in self.changed.items():
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list | tuple) else [value])]
        return shlex.join(words)


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended; picklable.

    `cause` says why a run failed: `"bad-input"` (nothing was run, no record), `"error"` (an exception, in the record),
    `"crash"` (the process died), `"timeout"`, `"interrupted"` (checkpoints are left for `--resume`) or `"storage"` (the folder of
    runs cannot be written). `message` is one line for the user; `traceback` is empty where there is none.
    """

    slug: str
    scale: str
    status: Literal["ok", "failed"]
    cause: Cause = ""
    message: str = ""
    traceback: str = ""
    record: Path | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    verdicts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    resumed: bool = False

    @property
    def exit_code(self) -> int:
        """0 ok, 2 bad input (also a folder that cannot be written), 3 a run crashed, 130 interrupted."""
        return EXIT_CODES[self.cause]

    def summary(self) -> dict[str, Any]:
        """The JSON form of `gradatim run --json`: slug, scale, status, record, seconds, verdicts, and error where it failed."""
        record = None if self.record is None else str(self.record)
        common = {"slug": self.slug, "scale": self.scale, "status": self.status, "record": record}
        error = {"error": self.message} if self.status != "ok" else {}
        return jsonable({**common, "seconds": self.seconds, "verdicts": self.verdicts, **error})


def supervise(request: RunRequest) -> RunOutcome:
    """Runs one paper in a child process and waits for it; never raises for what goes wrong inside the run."""
    if _stop.is_set():
        return _failed(request, "interrupted", "not started: the command was interrupted")
    try:
        paper = find(request.slug)
        if not paper.implemented:
            raise ValueError(f"{request.slug} is not implemented yet: only its claims are written down")
        folder = _open_folder(request)
    except StorageError as error:
        return _failed(request, "storage", str(error))
    except (ValueError, TypeError) as error:
        return _failed(request, "bad-input", str(error))
    try:
        return _run_child(request, folder)
    except StorageError as error:
        return _failed(request, "storage", str(error))
    finally:
        folder.release()


def run_papers(
    requests: Iterable[RunRequest],
    *,
    workers: int = 1,
    executor: Executor | None = None,
    on_outcome: Callable[[RunOutcome], None] | None = None,
) -> list[RunOutcome]:
    """Runs several papers; outcomes come in the order of the requests, `on_outcome` is called as each ends.

    `executor` runs the supervisors (any `concurrent.futures` executor, such as an existing cluster's); by default `workers`
    threads. With several at once, papers whose claims are about time run one by one after the others. Ctrl-C is passed on to the
    runs: they keep their checkpoints and come back with the cause `"interrupted"`.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    requests = list(requests)
    shared, alone = _by_timing(requests, several=executor is not None or workers > 1)
    if executor is None and workers > 1 and len(shared) > 1:
        # One thread each: two runs that both take all cores are slower than one after the other; and two progress bars clash.
        for i in shared:
            requests[i] = replace(requests[i], threads=1, quiet=True)
    outcomes: dict[int, RunOutcome] = {}
    _stop.clear()
    own = ThreadPoolExecutor(workers, thread_name_prefix="supervisor") if executor is None else None
    try:
        for batch in [shared, *([i] for i in alone)]:
            submit = (executor or own).submit  # pyright: ignore[reportOptionalMemberAccess]
            futures = {submit(supervise, requests[i]): i for i in batch}
            try:
                for future in as_completed(futures):
                    _collect(outcomes, futures[future], requests[futures[future]], future, on_outcome)
            except KeyboardInterrupt:
                _interrupt(futures)
                for future, i in futures.items():
                    if i not in outcomes and not future.cancelled() and future.done():
                        _collect(outcomes, i, requests[i], future, on_outcome)
                break
    finally:
        if own is not None:
            own.shutdown(wait=False, cancel_futures=True)
    not_run = "not started: the command was interrupted"
    return [outcomes.get(i) or _failed(request, "interrupted", not_run) for i, request in enumerate(requests)]


def child_environment(request: RunRequest) -> dict[str, str]:
    """The environment of a run's process: the caller's, with JAX's cache of compiled programs on and nothing drawn to a screen."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradatim" / "jax"
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        # At its own thresholds JAX keeps next to nothing of programs as small as ours.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    pinned = {"NPROC": "1"} if request.threads == 1 else {}
    path = {"PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)}
    return {**defaults, **os.environ, **path, **pinned, "MPLBACKEND": "agg", "PYTHONUNBUFFERED": "1"}


def _open_folder(request: RunRequest) -> RunFolder:
    table = {name: getattr(request, name) for name in ("slug", "scale", "seed", "changed", "quiet", "threads")}
    folder = RunFolder.resume(request.runs, table) if request.resume else None
    folder = folder or RunFolder.create(request.runs, table)
    if not folder.resumed:
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
        "commit": environment.commit(),
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
    with child.stdout:
        text = child.stdout.read()
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def _outcome(request: RunRequest, folder: RunFolder, code: int, reply: dict[str, str], why: Cause) -> RunOutcome:
    if folder.final.is_dir():  # complete, whatever happened afterwards
        return _from_record(request, folder.final, reply, folder.resumed)
    cause: Cause = why or reply.get("cause", "")  # pyright: ignore[reportAssignmentType]
    message, trace = reply.get("message", ""), reply.get("traceback", "")
    match cause:
        case "bad-input":
            if not folder.resumed:
                folder.discard()
            return _failed(request, cause, message)
        case "storage":
            return _failed(request, cause, f"{message} (then `{request.command()} --resume`)", trace)
        case "interrupted":
            return _failed(request, cause, f"interrupted; `{request.command()} --resume` goes on from the last checkpoint")
        case "timeout":
            message = f"timed out after {request.timeout:g} s; `{request.command()} --resume` goes on from the last checkpoint"
        case _:
            cause, message = "crash", _obituary(code)
            trace = _read_tail(folder.path / CRASH) or _read_tail(folder.path / OUTPUT)
    record = _fail_record(folder.path, "\n".join(filter(None, [trace.rstrip(), message])))
    return replace(_failed(request, cause, message, trace), record=record, resumed=folder.resumed)


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


def _failed(request: RunRequest, cause: Cause, message: str, trace: str = "") -> RunOutcome:
    return RunOutcome(request.slug, request.scale, "failed", cause, message, trace)


def _by_timing(requests: Sequence[RunRequest], *, several: bool) -> tuple[list[int], list[int]]:
    if not several:
        return list(range(len(requests))), []
    alone = [i for i, request in enumerate(requests) if _times(request)]
    return [i for i in range(len(requests)) if i not in alone], alone


def _times(request: RunRequest) -> bool:
    try:
        claims = find(request.slug).claims
    except ValueError:
        return False
    return any(claim.timing and not claim.untested and request.scale in claim.scales for claim in claims)


def _collect(
    outcomes: dict[int, RunOutcome],
    i: int,
    request: RunRequest,
    future: Future[RunOutcome],
    on_outcome: Callable[[RunOutcome], None] | None,
) -> None:
    try:
        outcomes[i] = future.result()
    except Exception as error:  # the executor's own: a lost worker, an outcome that could not be sent
        outcomes[i] = _failed(request, "crash", f"the supervisor was lost: {type(error).__name__}: {error}")
    if on_outcome is not None:
        on_outcome(outcomes[i])


def _interrupt(futures: Mapping[Future[RunOutcome], int]) -> None:
    """Tells every run of this process to stop, and waits for their last checkpoints; a second Ctrl-C ends them at once."""
    _stop.set()
    for future in futures:
        future.cancel()
    try:
        for child in list(_children):
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGINT)
        running = [future for future in futures if not future.done()]
        with contextlib.suppress(TimeoutError):
            for _ in as_completed(running, timeout=GRACE + 10):
                pass
    except KeyboardInterrupt:
        for child in list(_children):
            _kill(child)
        raise


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
