"""What an experiment is given: a key, and everything that must survive a kill or be timed."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from gradatim.lab.checkpoints import encode, load_result, save_result
from gradatim.lab.clock import counted
from gradatim.lab.ledger import Log, LoopFile
from gradatim.lab.loop import Choose, Loop, OnNonfinite, Step, Watch, run_loop


class Session:
    """One run of an experiment.

    **Arguments:** `key`: all its randomness; `precision`: of the experiment, which must be that of JAX when the session is made;
    `scale`: smoke, laptop or full; `directory`: of the record that is being made, or None to keep nothing; `quiet`: no progress
    bar; `resume`: go on from the checkpoints in `directory`; `checkpoint_seconds`: at least this long between two checkpoints.

    **Raises:** `ValueError` for a double precision that JAX has not been given.

    >>> session = Session(jax.random.key(0))
    >>> loop = session.loop(lambda x, i, args: x / 2, jax.numpy.ones(()), steps=3, watch=lambda x, args: {"x": x}, label="halve")
    >>> loop.history["x"].tolist()
    [1.0, 0.5, 0.25, 0.125]
    """

    def __init__(
        self,
        key: jax.Array,
        *,
        precision: Literal["single", "double"] = "single",
        scale: Literal["smoke", "laptop", "full"] = "laptop",
        directory: Path | None = None,
        quiet: bool = True,
        resume: bool = False,
        checkpoint_seconds: float = 20.0,
    ) -> None:
        if precision == "double" and not jax.config.read("jax_enable_x64"):
            raise ValueError("precision 'double' needs JAX in double precision: set JAX_ENABLE_X64=1, or enter `jax.enable_x64(True)`")
        if resume and directory is None:
            raise ValueError("resume needs the directory of the run to go on from, got None")
        self.key, self.precision, self.scale, self.quiet = key, precision, scale, quiet
        self.notes: list[str] = []
        self.provenances: list[Any] = []
        self.seconds = {"compile": 0.0, "run": 0.0}
        self._directory, self._resume, self._checkpoint_seconds = directory, resume, checkpoint_seconds
        self._temporary: Path | None = None
        self._n_parts = 0
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            if not resume:
                # Those of an earlier run would pass for this run's when it is resumed.
                shutil.rmtree(directory / "checkpoints", ignore_errors=True)
        self._log = Log(None if directory is None else directory / "log.jsonl", resume=resume)

    @property
    def scratch(self) -> Path:
        """A folder for files of this run; without a directory it goes with the session."""
        if self._directory is None:
            if self._temporary is None:
                self._temporary = Path(tempfile.mkdtemp(prefix="gradatim-"))
                weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
            return self._temporary
        folder = self._directory / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def loop(
        self,
        step: Step | Sequence[Step],
        state: Any,
        *,
        steps: int,
        args: Any = (),
        every: int | None = None,
        watch: Watch | None = None,
        label: str,
        chunk: int | None = None,
        on_nonfinite: OnNonfinite = "raise",
        choose: Choose | None = None,
    ) -> Loop:
        """Repeats `state = step(state, i, args)`, compiled, with no host round trip per step.

        An interrupted run that is resumed ends in the same bits. Whether all is finite is seen where it is watched, and then
        traced back to the exact step, so that it costs nothing in between; a state that is not finite for some steps between
        two such points, and then is again, passes unseen.

        **Arguments:** `step`: `i` counts from 0, a traced int32; `state`: any pytree, whose arrays are copied first and then
        donated, and whose other leaves stay as they are; `steps`; `args`: what stays the same, data above all: pass it here, for
        what `step` closes over is compiled in; `every`: steps between two looks, by default a hundredth of `steps`; `watch`:
        `watch(state, args)` gives named arrays, at the start, every `every` steps and at the end; `label`: for people; `chunk`:
        steps in one compiled call. None lets it grow, except for steps with a convolution on a CPU, which go one by one;
        `on_nonfinite`: `"raise"`; `"stop"`: end with the last finite state; `"keep"`: go on, for a batch of seeds; `choose`: with several
        steps, the number of the one that makes step i, of a Python int, so that each is a program of its own and they go to the device
        one by one. It must give the same answer each time, for the resumed run.

        **Raises:** `NonFiniteError`; `ValueError` or `TypeError` if a step changes structure, shapes, dtypes or a leaf that is
        no array, or if a checkpoint does not match the state.
        """
        for name, number, least in (("steps", steps, 0), ("every", every, 1), ("chunk", chunk, 1)):
            if number is not None and number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        variants = (step,) if callable(step) else tuple(step)
        if not variants or (choose is None and len(variants) > 1) or (choose is not None and chunk not in (None, 1)):
            raise ValueError(
                f"step must be one function, or several with choose and without a chunk, got {len(variants)} with "
                f"{'choose' if choose else 'no choose'} and chunk {chunk}"
            )
        if on_nonfinite not in ("raise", "stop", "keep"):
            raise ValueError(f"on_nonfinite must be 'raise', 'stop' or 'keep', got {on_nonfinite!r}")
        every = every or max(steps // 100, 1)
        folder = self._part(label)
        about = {"label": label, "steps": steps, "every": every}
        file = LoopFile(
            None if folder is None else folder / "state.eqx", self._log, about, resume=self._resume, seconds=self._checkpoint_seconds
        )
        with counted(self.seconds):
            return run_loop(
                variants,
                choose,
                state,
                args,
                watch,
                file,
                label=label,
                steps=steps,
                every=every,
                chunk=chunk,
                on_nonfinite=on_nonfinite,
                quiet=self.quiet,
            )

    def once(self, label: str, fn: Callable[..., Any], *args: Any) -> Any:
        """Calls `fn(*args)`, whose result a resumed run reads instead of computing it again.

        **Raises:** `TypeError`, naming it, for a result that is no nested dict, list or tuple of arrays, numbers, strings and None.
        """
        folder = self._part(label)
        path = None if folder is None else folder / "result.npz"
        if path is not None and self._resume and path.exists():
            return load_result(path)
        with counted(self.seconds):
            result = jax.block_until_ready(fn(*args))
        if path is None:
            encode(result)
        else:
            save_result(path, result)
        return result

    def timed(self, label: str, functions: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, np.ndarray]:
        """Seconds that each function takes, `repeats` times each, in turns so that a slow spell of the machine hits them alike.

        Each is called once beforehand, and is waited for. The order turns around with each repetition.
        """
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {repeats}")

        def measure() -> dict[str, np.ndarray]:
            seconds = {name: np.zeros(repeats) for name in functions}
            for fn in functions.values():
                jax.block_until_ready(fn())
            for i in range(repeats):
                for name in list(functions)[:: 1 if i % 2 == 0 else -1]:
                    start = time.perf_counter()
                    jax.block_until_ready(functions[name]())
                    seconds[name][i] = time.perf_counter() - start
            return seconds

        return self.once(label, measure)

    def note(self, text: str) -> None:
        """Adds a remark to the record."""
        self.notes.append(text)

    def uses(self, provenance: Any) -> None:
        """Adds a data set's provenance to the record."""
        if provenance not in self.provenances:
            self.provenances.append(provenance)

    def _part(self, label: str) -> Path | None:
        # An experiment is a function of its key, so a resumed run meets its loops in the same order.
        name = f"{self._n_parts:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '-', label)[:80]}"
        self._n_parts += 1
        return None if self._directory is None else self._directory / "checkpoints" / name
