"""The scorecard: the latest laptop-scale verdict of every claim, and the evidence for it under `results/`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradatim.lab.records import DATA, FIGURES, RECORD, Record, jsonable, open_record
from gradatim.lab.registry import find
from gradatim.lab.run_folder import flock, write_json

if TYPE_CHECKING:
    from gradatim.lab.request import RunOutcome

SCORECARD, RESULTS = "scorecard.json", "results"
SCALE = "laptop"
LARGEST_DATA = 2_000_000
"Bytes of `data.nc` that go into the repository with a result."


def read_scorecard(root: Path | None = None) -> dict[str, Any]:
    """`{slug: {scale, date, versions, seed, claims: {C1: {verdict, value, low, high, unit, criterion, paper, reason, …}}}}`.

    From the source checkout `root` (default: the one this package lies in), else from the installed package.
    """
    root = root or _checkout()
    path = root / SCORECARD if root else Path(__file__).parents[1] / SCORECARD
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); restore it from the repository") from error


def update_scorecard(record: Record | Path | str, root: Path | None = None) -> Path:
    """Writes a record's verdicts to the scorecard and its evidence to `results/<slug>/`; returns that folder.

    **Raises:** `ValueError` for a run that failed, is not at laptop scale, has changed fields or too much data; `OSError` outside
    a source checkout.
    """
    root = root or _checkout()
    if root is None:
        raise OSError("the scorecard can be updated in a source checkout only, and gradatim runs from an installed package")
    record = record if isinstance(record, Record) else open_record(record)
    if record.status != "ok":
        raise ValueError(f"{record.path} failed; only a run that ended well can go on the scorecard")
    if record.scale != SCALE:
        raise ValueError(f"the scorecard holds runs at scale {SCALE}, got {record.scale}: run {record.slug} with --scale {SCALE}")
    if record.changed:
        raise ValueError(f"the scorecard holds unchanged configurations, got {', '.join(record.changed)} changed")
    size = (record.path / DATA).stat().st_size
    if size > LARGEST_DATA:
        raise ValueError(f"{record.path / DATA} has {size / 1e6:.1f} MB, at most {LARGEST_DATA / 1e6:g} fit: let the experiment keep less")
    with _locked(root):
        target = root / RESULTS / record.slug
        fresh, old = target.with_name(f".{record.slug}.new"), target.with_name(f".{record.slug}.old")
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in (RECORD, DATA):
            shutil.copyfile(record.path / name, fresh / name)
        shutil.copytree(record.path / FIGURES, fresh / FIGURES)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        shutil.rmtree(old, ignore_errors=True)
        write_json(root / SCORECARD, dict(sorted({**read_scorecard(root), record.slug: entry(record)}.items())))
    return target


def entry(record: Record) -> dict[str, Any]:
    """What the scorecard says of one record."""
    return jsonable(
        {
            "scale": record.scale,
            "date": record.finished[:10],
            "versions": record.versions,
            "seed": record.seed,
            "claims": record.verdicts,
        }
    )


def check_scorecard(root: Path | None = None) -> list[str]:
    """Every way in which scorecard, results and claims disagree, one sentence each; empty if they agree."""
    root = root or _checkout()
    if root is None:
        raise OSError("results are checked in a source checkout only, and gradatim runs from an installed package")
    scorecard = read_scorecard(root)
    folders = {path.name for path in (root / RESULTS).glob("*/")}
    wrong = [f"{slug}: on the scorecard without results" for slug in sorted(set(scorecard) - folders)]
    wrong += [f"{slug}: results that are not on the scorecard" for slug in sorted(folders - set(scorecard))]
    for slug in sorted(folders & set(scorecard)):
        try:
            wrong += [f"{slug}: {sentence}" for sentence in _disagreements(open_record(root / RESULTS / slug), scorecard[slug])]
        except (ValueError, OSError) as error:
            wrong.append(f"{slug}: {error}")
    return wrong


def regressions(outcomes: Iterable[RunOutcome], root: Path | None = None) -> list[tuple[str, str]]:
    """`(slug, claim id)` of each claim that fails now and holds on the scorecard."""
    scorecard = read_scorecard(root)
    found = []
    for outcome in outcomes:
        held = scorecard.get(outcome.slug, {}).get("claims", {})
        for name, verdict in outcome.verdicts.items():
            if verdict["verdict"] == "fails" and held.get(name, {}).get("verdict") == "holds":
                found.append((outcome.slug, name))
    return found


def _disagreements(record: Record, on_scorecard: dict[str, Any]) -> Iterator[str]:
    claims = find(record.slug).claims
    if (record.status, record.scale, dict(record.changed)) != ("ok", SCALE, {}):
        yield f"the result must be an unchanged, finished run at scale {SCALE}"
    if list(record.verdicts) != [claim.id for claim in claims]:
        yield f"the result judges {', '.join(record.verdicts)}, the paper's file has {', '.join(claim.id for claim in claims)}"
    if on_scorecard != entry(record):
        yield "the scorecard differs from the result"
    for claim in claims:
        # A criterion that was changed after the run shows here.
        now = claim.judge(record.measures, record.scale, record.untested)
        if claim.id in record.verdicts and _judgement(now) != _judgement(record.verdicts[claim.id]):
            yield f"{claim.id} is judged otherwise by the paper's file of today: run it again"
    if not record.figures or not (record.path / DATA).exists():
        yield "the result has no figures or no data"


def _judgement(verdict: dict[str, Any]) -> dict[str, Any]:
    """A verdict without its wording."""
    parts = {name: _judgement(part) for name, part in verdict.get("parts", {}).items()}
    return {name: verdict.get(name) for name in ("verdict", "value", "low", "high", "criterion", "unit", "part")} | {"parts": parts}


def _checkout() -> Path | None:
    root = Path(__file__).parents[2]
    return root if (root / "pyproject.toml").exists() and (root / SCORECARD).exists() else None


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    handle = os.open(root, os.O_RDONLY)
    try:
        flock(handle, wait=True)
        yield
    finally:
        os.close(handle)
