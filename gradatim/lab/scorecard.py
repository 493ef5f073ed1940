"""The scorecard: the latest laptop-scale verdict of every claim, and the evidence for it under `results/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradatim.lab.records import Record
from gradatim.lab.run import RunOutcome


def read_scorecard(root: Path | None = None) -> dict[str, Any]:
    """`{slug: {scale, date, versions, seed, claims: {C1: {verdict, value, low, high, unit, criterion, paper, reason, …}}}}`.

    From the source checkout `root` (default: the one this package lies in), else from the installed package.
    """
    raise NotImplementedError


def update_scorecard(record: Record | Path, root: Path | None = None) -> Path:
    """Writes a record's verdicts to the scorecard and its evidence to `results/<slug>/`; returns that folder.

    **Raises:** `ValueError` for a run that failed, is not at laptop scale, has changed fields or too much data; `OSError` outside
    a source checkout.
    """
    raise NotImplementedError


def check_scorecard(root: Path | None = None) -> list[str]:
    """Every way in which scorecard, results and claims disagree, one sentence each; empty if they agree."""
    raise NotImplementedError


def regressions(outcomes: Iterable[RunOutcome], root: Path | None = None) -> list[tuple[str, str]]:
    """`(slug, claim id)` of each claim that fails now and holds on the scorecard."""
    raise NotImplementedError
