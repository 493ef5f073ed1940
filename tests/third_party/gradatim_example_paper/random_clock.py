"""How long a walk takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from gradatim.lab import Between, Findings, Measure
from gradatim.lab.session import Session

PRECISION = "single"


@dataclass(frozen=True)
class Config:
    """What is timed."""

    steps: Annotated[int, Between(1, 10**6)] = 1000
    "Steps of the walk."


SCALES = {"smoke": Config(), "laptop": Config(), "full": Config()}


def run(config: Config, session: Session) -> Findings:
    """Times one walk."""
    start = time.perf_counter()
    walk = np.cumsum(np.random.default_rng(0).normal(size=config.steps))
    seconds = time.perf_counter() - start
    return Findings({"C1.seconds": Measure.exact(seconds)}, xr.DataTree.from_dict({"/": xr.Dataset({"walk": ("step", walk)})}))


def draw(findings: Findings) -> dict[str, Figure]:
    """The walk."""
    figure = Figure()
    figure.subplots().plot(findings.data["walk"])
    return {"walk": figure}
