"""What to run, and how it ended."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gradatim.lab.claims import SCALES
from gradatim.lab.records import jsonable

Cause = Literal["", "bad-input", "error", "crash", "timeout", "interrupted", "storage"]
EXIT_CODES: dict[Cause, int] = {"": 0, "bad-input": 2, "storage": 2, "error": 3, "crash": 3, "timeout": 3, "interrupted": 130}


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
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words += [f"--{option}" if value else f"--no-{option}"]
            else:
                values = list(map(str, value if isinstance(value, list | tuple) else [value]))
                # With an equals sign, or a word that begins with a hyphen would be read as an option.
                words += [f"--{option}={values[0]}"] if values[0].startswith("-") and len(values) == 1 else [f"--{option}", *values]
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
