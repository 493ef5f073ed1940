"""Records: finished runs on disk, as they are read."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.lab.findings import Findings
from gradatim.lab.measures import Measure
from gradatim.lab.registry import find

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
RECORD, DATA, LOG, FIGURES, PARTIAL = "record.json", "data.nc", "log.jsonl", "figures", ".partial"
_INFINITIES = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Record:
    """A finished run.

    `status` is `"ok"` or `"failed"` (then `error` holds the traceback); `config` is nested as the paper's `Config`, `changed` are
    the fields by dotted name that differ from the scale's; `seconds` has `compile`, `run` and `total`; `peak_memory` is in bytes.
    """

    path: Path
    slug: str
    scale: str
    seed: int
    precision: str
    status: str
    error: str
    config: Mapping[str, Any]
    changed: Mapping[str, Any]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    commit: str | None
    started: str
    finished: str
    seconds: Mapping[str, float]
    peak_memory: int | None
    measures: Mapping[str, Measure]
    verdicts: Mapping[str, dict[str, Any]]
    untested: Mapping[str, str]
    notes: Sequence[str]
    provenance: Sequence[Mapping[str, Any]]

    @property
    def figures(self) -> list[Path]:
        """The PNG files, in alphabetical order."""
        return sorted((self.path / FIGURES).glob("*.png"))

    @cached_property
    def data(self) -> xr.DataTree:
        """Curves and fields, read on first use.

        **Raises:** `ValueError` if the run left none or the file is damaged.
        """
        import xarray as xr

        file = self.path / DATA
        if not file.exists():
            raise ValueError(f"{self.path} holds no {DATA}: the run failed before it had any")
        try:
            # Times stay plain numbers: a unit of seconds is a unit here, not a calendar.
            with xr.open_datatree(file, engine="h5netcdf", decode_times=False, decode_timedelta=False) as tree:
                return tree.load()
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"{file} is damaged ({error}); run the paper again") from error

    def redraw(self) -> dict[str, Figure]:
        """The paper's figures, drawn anew from the record's findings."""
        return find(self.slug).module().draw(Findings(self.measures, self.data, self.untested))

    def summary(self) -> dict[str, Any]:
        """The JSON form of `gradatim run --json`: slug, scale, status, record, seconds, verdicts, and error where it failed."""
        common = {"slug": self.slug, "scale": self.scale, "status": self.status, "record": str(self.path)}
        error = {"error": self.error.strip().rpartition("\n")[2]} if self.status != "ok" else {}
        return jsonable({**common, "seconds": self.seconds, "verdicts": self.verdicts, **error})


def open_record(path: Path | str) -> Record:
    """The record in a folder.

    **Raises:** `FileNotFoundError` if there is no such folder; `ValueError` if the run is unfinished, the record is damaged or
    its schema is newer than this version of the package.
    """
    folder = Path(path)
    if folder.name == RECORD:
        folder = folder.parent
    if folder.name.endswith(PARTIAL):
        raise ValueError(f"{folder} is an unfinished run; `gradatim run SLUG --resume` goes on with it")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no record at {folder}")
    try:
        table = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is no record: it has no {RECORD}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error})") from error
    try:
        schema = table["schema_version"]
        if schema > SCHEMA_VERSION:
            raise ValueError(
                f"it was written by a newer version of gradatim (schema {schema}; this version reads up to {SCHEMA_VERSION}): "
                "upgrade gradatim"
            )
        entries = {field.name: table[field.name] for field in fields(Record) if field.name != "path"}
        entries["measures"] = {name: _measure(entry) for name, entry in table["measures"].items()}
        entries["verdicts"] = {name: _verdict(entry) for name, entry in table["verdicts"].items()}
        return Record(path=folder, **entries)
    except ValueError as error:
        raise ValueError(f"{folder} cannot be read: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / RECORD} is damaged: {type(error).__name__} {error}") from error


def list_records(runs: Path | str = "runs", slug: str | None = None) -> list[Record]:
    """All records in a folder of runs, newest first; one that cannot be read is left out, with a warning."""
    found = []
    for folder in Path(runs).glob(f"{slug or '*'}/*/"):
        if folder.name.endswith(PARTIAL):
            continue
        try:
            found.append(open_record(folder))
        except FileNotFoundError:
            continue  # taken up again by another process since it was listed
        except ValueError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return sorted(found, key=lambda record: (record.started, record.path.name), reverse=True)


def latest(slug: str, runs: Path | str = "runs", *, scale: str | None = None, status: str | None = "ok") -> Record | None:
    """The newest record of a paper, or None; `scale` and `status` narrow it down."""
    for record in list_records(runs, slug):
        if scale in (None, record.scale) and status in (None, record.status):
            return record
    return None


def jsonable(value: Any) -> Any:
    """The value as strict JSON can hold it: infinities as `"inf"` and `"-inf"`, arrays and tuples as lists, paths as strings.

    >>> jsonable({"low": -math.inf, "rates": (0.1, 1)})
    {'low': '-inf', 'rates': [0.1, 1]}
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case Path():
            return str(value)
        case Measure():
            entries = {name: jsonable(getattr(value, name)) for name in ("value", "low", "high", "method", "samples")}
            return {**entries, "steps": jsonable(value.steps)} if value.steps else entries
        case Mapping():
            return {str(key): jsonable(entry) for key, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [jsonable(entry) for entry in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__array__"):
        return jsonable(np.asarray(value).tolist())
    raise TypeError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def _measure(entry: Mapping[str, Any]) -> Measure:
    numbers = {name: _number(entry[name]) for name in ("value", "low", "high", "samples", "steps") if name in entry}
    return Measure(**numbers, method=entry["method"])


def _verdict(entry: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {name: _number(entry[name]) for name in ("value", "low", "high") if name in entry}
    parts = {"parts": {name: _verdict(part) for name, part in entry["parts"].items()}} if "parts" in entry else {}
    return {**entry, **numbers, **parts}


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_number(entry) for entry in value)
    return _INFINITIES[value] if isinstance(value, str) else value
