"""The scorecard: the latest laptop-scale verdict of every claim, and the evidence for it under `results/`.

The first run of a paper is its result. Runs of the same configuration with other seeds stand beside it, and a claim has the verdict
that all of them give it: where they disagree it is undecided.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradatim.lab.claims import Verdict
from gradatim.lab.records import DATA, FIGURES, RECORD, Record, jsonable, open_record
from gradatim.lab.registry import find
from gradatim.lab.run_folder import flock, write_json

if TYPE_CHECKING:
    from gradatim.lab.request import RunOutcome

SCORECARD, RESULTS = "scorecard.json", "results"
SCALE = "laptop"
_SEED = "seed-"
LARGEST_DATA = 2_000_000
"Bytes of `data.nc` that go into the repository with a result."


def read_scorecard(root: Path | None = None) -> dict[str, Any]:
    """`{slug: {scale, date, versions, seed, claims: {C1: {verdict, value, low, high, unit, criterion, paper, reason, …}}, seeds}}`.

    Numbers are those of the result; `seeds` holds, by seed, the verdicts of the runs beside it, in the same form.

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
    """Writes a record's verdicts to the scorecard and its evidence to `results/<slug>/`; returns the folder that it wrote.

    A run with another seed than the paper's result is put beside it, in `results/<slug>/seed-<seed>/`; one with the same seed takes
    its place, and the seeds beside the old one go with it.

    **Raises:** `ValueError` for a run that failed, is not at laptop scale, has changed fields or too much data, or whose
    configuration is not that of the result beside which it would stand; `OSError` outside a source checkout.
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
        folder = root / RESULTS / record.slug
        first = _result(folder)
        if first is not None and record.seed != first.seed:
            if record.config != first.config or list(record.verdicts) != list(first.verdicts):
                raise ValueError(
                    f"{record.path} has another configuration or other claims than the result in {folder}: "
                    f"run seed {first.seed} again first"
                )
            target = folder / f"{_SEED}{record.seed}"
            target.mkdir(exist_ok=True)
            shutil.copyfile(record.path / RECORD, target / RECORD)
        else:
            target = _replace(folder, record)
        entries = {**read_scorecard(root), record.slug: entry(open_record(folder), other_seeds(folder))}
        write_json(root / SCORECARD, dict(sorted(entries.items())))
    return target


def other_seeds(folder: Path | str) -> list[Record]:
    """The records with other seeds beside the result in `folder`, by seed; they hold measures and verdicts, no data or figures."""
    return sorted(map(open_record, Path(folder).glob(f"{_SEED}*/")), key=lambda record: record.seed)


def agreed(seeds: Mapping[int, Verdict]) -> Verdict:
    """The verdict on a claim over several seeds: the one that all of them give, else `"undecided"`.

    >>> agreed({0: "holds", 1: "holds"}), agreed({0: "holds", 1: "fails"})
    ('holds', 'undecided')
    """
    words = set(seeds.values())
    return words.pop() if len(words) == 1 else "undecided"


def entry(record: Record, beside: Sequence[Record] = ()) -> dict[str, Any]:
    """What the scorecard says of a paper, from its result and the records with other seeds beside it."""
    runs = {run.seed: run for run in (record, *beside)}
    claims = {}
    for name, verdict in record.verdicts.items():
        words: dict[int, Verdict] = {seed: run.verdicts[name]["verdict"] for seed, run in runs.items()}
        word = agreed(words)
        differ = ", ".join(f"{said} with seed {seed}" for seed, said in words.items()) if len(set(words.values())) > 1 else ""
        claims[name] = {**verdict, "verdict": word, "reason": differ or verdict["reason"]}
    return jsonable(
        {
            "scale": record.scale,
            "date": record.finished[:10],
            "versions": record.versions,
            "seed": record.seed,
            "claims": claims,
            "seeds": {str(run.seed): run.verdicts for run in beside},
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
    beside = other_seeds(record.path)
    found = list(_misjudged(record))
    for other in beside:
        found += [f"seed {other.seed}: {sentence}" for sentence in _misjudged(other)]
        if other.config != record.config or other.slug != record.slug or other.seed == record.seed:
            found.append(f"seed {other.seed}: it is no other seed of the same run")
    yield from found
    # Records that judge other claims than the paper's file has cannot be held to the scorecard.
    if not found and on_scorecard != entry(record, beside):
        yield "the scorecard differs from the result"
    if not record.figures or not (record.path / DATA).exists():
        yield "the result has no figures or no data"


def _misjudged(record: Record) -> Iterator[str]:
    """What keeps a record from being evidence for the paper's claims as they are written today."""
    claims = find(record.slug).claims
    if (record.status, record.scale, dict(record.changed)) != ("ok", SCALE, {}):
        yield f"the result must be an unchanged, finished run at scale {SCALE}"
    if list(record.verdicts) != [claim.id for claim in claims]:
        yield f"the result judges {', '.join(record.verdicts)}, the paper's file has {', '.join(claim.id for claim in claims)}"
    for claim in claims:
        # A criterion that was changed after the run shows here.
        now = claim.judge(record.measures, record.scale, record.untested)
        if claim.id in record.verdicts and _judgement(now) != _judgement(record.verdicts[claim.id]):
            yield f"{claim.id} is judged otherwise by the paper's file of today: run it again"


def _result(folder: Path) -> Record | None:
    """The record in a folder of results, or None where there is none that can be read."""
    try:
        return open_record(folder)
    except (FileNotFoundError, ValueError):
        return None


def _replace(folder: Path, record: Record) -> Path:
    """Puts a record's evidence into `folder` in one step."""
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name in (RECORD, DATA):
        shutil.copyfile(record.path / name, fresh / name)
    shutil.copytree(record.path / FIGURES, fresh / FIGURES)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


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
