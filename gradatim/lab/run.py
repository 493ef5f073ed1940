"""Running several papers at once: which run beside each other, and what an interruption does to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import replace

from gradatim.lab.registry import find
from gradatim.lab.request import RunOutcome as RunOutcome
from gradatim.lab.request import RunRequest as RunRequest
from gradatim.lab.supervisor import GRACE, failed, kill_all, stop_all, stopping
from gradatim.lab.supervisor import supervise as supervise


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
    for i in alone:
        requests[i] = replace(requests[i], threads=None)
    outcomes: dict[int, RunOutcome] = {}
    stopping.clear()
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
    return [outcomes.get(i) or failed(request, "interrupted", not_run) for i, request in enumerate(requests)]


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
        outcomes[i] = failed(request, "crash", f"the supervisor was lost: {type(error).__name__}: {error}")
    if on_outcome is not None:
        on_outcome(outcomes[i])


def _interrupt(futures: Mapping[Future[RunOutcome], int]) -> None:
    """Tells every run of this process to stop, and waits for their last checkpoints; a second Ctrl-C ends them at once."""
    stopping.set()
    for future in futures:
        future.cancel()
    try:
        stop_all()
        running = [future for future in futures if not future.done()]
        with contextlib.suppress(TimeoutError):
            for _ in as_completed(running, timeout=GRACE + 10):
                pass
    except KeyboardInterrupt:
        kill_all()
        raise
