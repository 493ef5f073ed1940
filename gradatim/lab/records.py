"""Records: finished runs on disk, written under a temporary name and renamed when complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradatim.lab.measures import Measure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1


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
        raise NotImplementedError

    @cached_property
    def data(self) -> xr.DataTree:
        """Curves and fields, read on first use."""
        raise NotImplementedError

    def redraw(self) -> dict[str, Figure]:
        """The paper's figures, drawn anew from the record's findings."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """The JSON form of `gradatim run --json`: slug, scale, status, record, seconds, verdicts."""
        raise NotImplementedError


def open_record(path: Path | str) -> Record:
    """The record in a folder.

    **Raises:** `FileNotFoundError` if there is no such folder; `ValueError` if the run is unfinished, the record is damaged or
    its schema is newer than this version of the package.
    """
    raise NotImplementedError


def list_records(runs: Path | str = "runs", slug: str | None = None) -> list[Record]:
    """All records in a folder of runs, newest first; one that cannot be read is left out, with a warning."""
    raise NotImplementedError


def latest(slug: str, runs: Path | str = "runs", *, scale: str | None = None, status: str | None = "ok") -> Record | None:
    """The newest record of a paper, or None."""
    raise NotImplementedError


def jsonable(value: Any) -> Any:
    """The value as strict JSON can hold it: infinities as `"inf"` and `"-inf"`, arrays and tuples as lists, paths as strings."""
    raise NotImplementedError
