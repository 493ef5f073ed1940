"""Where a run stands on disk: the log of watched scalars and the checkpoint of each loop, kept in step with each other."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradatim.lab.checkpoints import load_state, save_state


class Log:
    """`log.jsonl`: one line for each point at which a loop was watched; without a path, nothing is written."""

    def __init__(self, path: Path | None, *, resume: bool) -> None:
        self.path = path
        self.n_bytes = 0
        "Length that belongs to this run. A killed run may have left more, which the next line replaces."
        if path is not None and not resume:
            path.unlink(missing_ok=True)

    def append(self, label: str, step: int, watched: Mapping[str, np.ndarray]) -> None:
        """Adds the scalars among `watched`; JSON has no infinities and no NaN, so these become null."""
        if self.path is None:
            return
        scalars = {name: _json_number(value) for name, value in watched.items() if np.size(value) == 1}
        line = (json.dumps({"loop": label, "step": step, **scalars}) + "\n").encode()
        with self.path.open("ab") as file:
            file.truncate(self.n_bytes)
            file.write(line)
        self.n_bytes += len(line)


class LoopFile:
    """The checkpoint of one loop; without a path, nothing is written."""

    def __init__(self, path: Path | None, log: Log, about: Mapping[str, Any], *, resume: bool, seconds: float) -> None:
        self.path, self.log, self.about, self.resume, self.seconds = path, log, about, resume, seconds
        self._saved = time.monotonic()

    def load(self, state: Any) -> tuple[dict[str, Any], Any, dict[str, np.ndarray]] | None:
        """Header, state and history of the last checkpoint if this run goes on from one; the log is cut back to it."""
        if self.path is None or not self.resume or not self.path.exists():
            return None
        header, state, history = load_state(self.path, state, self.about)
        self.log.n_bytes = header["log_bytes"]
        return header, state, history

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for a new one."""
        return self.path is not None and time.monotonic() - self._saved >= self.seconds

    def save(
        self, state: Any, history: Mapping[str, np.ndarray], *, step: int, log_bytes: int, diverged_at: int | None, finished: bool
    ) -> None:
        """Writes the checkpoint of the state after `step` steps."""
        if self.path is None:
            return
        header = {**self.about, "step": step, "log_bytes": log_bytes, "diverged_at": diverged_at, "finished": finished}
        save_state(self.path, header, state, history)
        self._saved = time.monotonic()


def _json_number(value: np.ndarray) -> float | int | bool | str | None:
    number = np.asarray(value).reshape(()).item()
    if isinstance(number, complex):
        return str(number)
    return None if isinstance(number, float) and not math.isfinite(number) else number
