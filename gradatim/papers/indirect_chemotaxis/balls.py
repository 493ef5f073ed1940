"""Gaussians in a ball, radial: the critical masses of C1 (four dimensions, indirect) and C2 (two, direct)."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import chemotaxis as ct

from .config import Balls, Config

LOOKS = 40
LATE = 0.8
"From this share of the time on the peak's slope is read."


class _Kind(NamedTuple):
    """A ball in which mass decides."""

    name: str
    dimension: int
    tau: float


class _Runs(NamedTuple):
    shares: np.ndarray
    peak: np.ndarray  # over the mass; one row a share
    flag: np.ndarray

    def fall(self) -> list[bool]:
        """Whether each peak falls at the end."""
        late = int(LATE * LOOKS)
        return [bool(flag[-1] == ct.Flag.REGULAR and peak[-1] < peak[late]) for peak, flag in zip(self.peak, self.flag, strict=True)]

    def collapse(self) -> list[bool]:
        """Whether each has gathered in one cell."""
        return [bool(flag[-1] == ct.Flag.COLLAPSE) for flag in self.flag]


def run_balls(config: Config, session: Session) -> Findings:
    """Masses around the critical one, for two values of τ in four dimensions and directly in two."""
    balls = config.balls
    kinds = [
        _Kind("4d", 4, balls.spreading),
        _Kind("4d_quarter", 4, balls.spreading / 4),
        _Kind("2d", 2, 0.0),
    ]
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    data: dict[str, xr.Dataset] = {}
    turns: dict[str, tuple[float, float] | None] = {}
    for kind in kinds:
        runs = _run(kind, np.asarray(balls.masses), balls, session, f"masses, {kind.name}")
        data[f"balls/{kind.name}"] = _dataset(runs, balls, kind)
        if not {int(f) for f in runs.flag[:, -1]} <= {ct.Flag.REGULAR, ct.Flag.COLLAPSE}:
            session.note(f"{kind.name}: a run stopped for another reason than a collapse, flags {runs.flag[:, -1].tolist()}")
        part = {"4d": "C1.critical_mass_4d", "2d": "C2.critical_mass_2d"}.get(kind.name)
        bracket = _bracket(runs)
        if part is not None:
            if bracket is None:
                untested[part] = "among the masses of this run, none falls below one that collapses"
            else:
                measures[part] = Measure(sum(bracket) / 2, *bracket, "between the last falling and the first collapsing peak")
        if kind.dimension == 4:
            turns[kind.name] = _turn(kind, runs, balls, session)
    whole, quarter = turns["4d"], turns["4d_quarter"]
    if whole is None or quarter is None:
        untested["C1.critical_mass_by_spreading"] = "the peak turned around at no mass of this run"
    else:
        # In units of their own critical masses, whose ratio is the ratio of the spreadings.
        low, high = 0.25 * quarter[0] / whole[1], 0.25 * quarter[1] / whole[0]
        measures["C1.critical_mass_by_spreading"] = Measure(
            (low + high) / 2, low, high, "masses at which the peak turns from falling to growing"
        )
        session.note(
            f"radial, four dimensions: at t = {balls.time:g} the peak turns from falling to growing between masses {whole[0]:.4f} and "
            f"{whole[1]:.4f} × 64π²τ at τ = {balls.spreading:g}, between {quarter[0]:.4f} and {quarter[1]:.4f} × at a quarter of it"
        )
    return Findings(measures, xr.DataTree.from_dict(data), untested)


def _run(kind: _Kind, shares: np.ndarray, config: Balls, session: Session, label: str) -> _Runs:
    found = session.once(
        label,
        _solve,
        jnp.asarray(shares),
        jnp.asarray(kind.tau),
        jnp.linspace(0, config.time, LOOKS + 1),
        kind.dimension,
        config.cells,
        config.width,
        config.brisk,
        kind.tau == 0,
    )
    return _Runs(shares, np.asarray(found["peak"]), np.asarray(found["flag"]))


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6, 7))
def _solve(shares: Any, tau: Any, times: Any, dimension: int, n_cells: int, width: float, brisk: float, is_direct: bool) -> dict[str, Any]:
    grid = ct.Radial(dimension, n_cells)
    shape = np.exp(-((grid.centres[0] / width) ** 2))
    shape = jnp.asarray(shape / (grid.volumes * shape).sum())
    # A peak that has narrowed to a shell turns over in one over its density, 1e-14 and less.
    rule = ct.Adaptivity(calm=brisk / 5, brisk=brisk, least_dt=1e-16, largest_dt=1e-4)
    model = ct.IndirectChemotaxis(grid, 0.0, 0.0 if is_direct else tau)
    critical = ct.critical_mass(dimension, tau=0.0 if is_direct else tau)

    def one(share: Any) -> dict[str, Any]:
        found = model.solve_adaptively(model.init(share * critical * shape), times, rule)
        return {"peak": found.cells[:, 0] / (share * critical), "flag": found.flag}

    return jax.vmap(one)(shares)


def _bracket(runs: _Runs) -> tuple[float, float] | None:
    """The last share whose peak falls, of those below the first that collapses, and that first."""
    collapsing = [share for share, is_collapse in zip(runs.shares, runs.collapse(), strict=True) if is_collapse]
    if not collapsing:
        return None
    falling = [share for share, is_fall in zip(runs.shares, runs.fall(), strict=True) if is_fall and share < collapsing[0]]
    return (float(falling[-1]), float(collapsing[0])) if falling else None


def _turn(kind: _Kind, runs: _Runs, config: Balls, session: Session) -> tuple[float, float] | None:
    """The shares between which the peak's slope at the end changes sign, divided again some times."""
    ends = _change(runs)
    for level in range(config.refinements):
        if ends is None:
            return None
        between = np.linspace(*ends, len(config.masses) + 2)[1:-1]
        inner = _run(kind, between, config, session, f"masses, {kind.name}, refinement {level + 1}")
        falls = [True, *inner.fall(), False]
        first = falls.index(False)
        ends = (float([ends[0], *between][first - 1]), float([*between, ends[1]][first - 1]))
    return ends


def _change(runs: _Runs) -> tuple[float, float] | None:
    falls = runs.fall()
    if all(falls) or not falls[0]:
        return None
    first = falls.index(False)
    return float(runs.shares[first - 1]), float(runs.shares[first])


def _dataset(runs: _Runs, config: Balls, kind: _Kind) -> xr.Dataset:
    return xr.Dataset(
        {
            "peak": (("share", "time"), runs.peak, {"units": "1"}),
            "flag": (("share", "time"), runs.flag, {"units": "1"}),
        },
        {
            "share": ("share", runs.shares, {"units": "critical mass"}),
            "time": ("time", np.linspace(0, config.time, LOOKS + 1), {"units": "1"}),
        },
        {"dimension": kind.dimension, "tau": kind.tau},
    )
