"""What an experiment returns: measures by claim, and its curves and fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    >>> import xarray as xr
    >>> curves = xr.Dataset({"loss": ("step", [2.0, 1.0], {"units": "nat"})})
    >>> Findings({"C1.last_loss": Measure.exact(1.0)}, xr.DataTree.from_dict({"training": curves}), {"C2": "needs a GPU"}).measures
    {'C1.last_loss': Measure(1 [1, 1], exact)}
    """

    measures: Mapping[str, Measure]
    data: xr.DataTree
    untested: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Iterable[Findings]) -> Findings:
        """Those of an experiment from those of its parts.

        **Raises:** `ValueError` for a measure, a reason or a dataset that two parts have.
        """
        import xarray as xr

        measures: dict[str, Measure] = {}
        untested: dict[str, str] = {}
        data: dict[str, xr.DataTree] = {}
        for part in parts:
            twice = [*(measures.keys() & part.measures), *(untested.keys() & part.untested), *(data.keys() & part.data.children)]
            if twice:
                raise ValueError(f"parts must not share what they find, got {', '.join(sorted(twice))} twice")
            measures |= part.measures
            untested |= part.untested
            data |= part.data.children
        return cls(measures, xr.DataTree.from_dict(data), untested)
