"""What an experiment returns: measures by claim, and its curves and fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradatim.lab.measures import Measure

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Findings:
    """Measures under `"C3.part_name"`, data with named dimensions and units, and reasons for what could not be measured.

    **Arguments:** `measures`: one per part of a claim; `data`: a tree of datasets, `units` in the attributes of each variable;
    `untested`: `"C3"` or `"C3.part_name"` to the reason why it was not measured in this run.
    """

    measures: Mapping[str, Measure]
    data: xr.DataTree
    untested: Mapping[str, str] = field(default_factory=dict)
