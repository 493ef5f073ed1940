"""Running papers: each in a child process under a supervisor, so that one that dies takes nothing else with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Cause = Literal["", "bad-input", "error", "crash", "timeout", "interrupted", "storage"]


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
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """The JSON form of `gradatim run --json`: slug, scale, status, record, seconds, verdicts, and error where it failed."""
        raise NotImplementedError


def supervise(request: RunRequest) -> RunOutcome:
    """Runs one paper in a child process and waits for it; never raises for what goes wrong inside the run."""
    raise NotImplementedError


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
    raise NotImplementedError
