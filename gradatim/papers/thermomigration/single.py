"""Slabs and discs, one in each box, against the analytic model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import phase_field as pf

from .config import Config, Discs, Slabs
from .simulation import DELTA, disc_field, each, evolve, local_equilibrium, positions, ramp, sign_change, steady_speed

ROOM = 4
"Slab runs: cells of the bar per cell of the slab."


class _Case(NamedTuple):
    """A precipitate's drives and where it was; `gradient` in T₀ per cell."""

    name: str
    slopes: tuple[float, float]
    heats: tuple[float, float]
    gradient: float
    convention: str = "isothermal"

    @property
    def free_energy(self) -> pf.QuarticTwoPhase:
        return pf.QuarticTwoPhase(matrix_slope=self.slopes[0], precipitate_slope=self.slopes[1])

    def model(self, shape: tuple[int, ...]) -> pf.Thermotransport:
        heat = pf.HeatOfTransport(*self.heats)
        flux = pf.matrix_flux(self.free_energy, heat, self.gradient, convention=self.convention)
        T = jnp.asarray(ramp(shape[0], self.gradient).reshape(-1, *(1 for _ in shape[1:])))
        return pf.Thermotransport(shape, self.free_energy, T, heat_of_transport=heat, wall_flux=(flux, flux), convention=self.convention)

    @property
    def theory(self) -> float:
        heat = pf.HeatOfTransport(*self.heats)
        return float(pf.slab_velocity(self.free_energy, heat, self.gradient, convention=self.convention))


_DRIVES = {
    "thermal": ((0.0, 0.0), (-0.2, 0.0)),
    "chemical": ((0.1, -0.1), (0.0, 0.0)),
    "competing": ((0.1, -0.1), (-0.2, 0.0)),
}


@each
def _see_faces(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del extra
    # A slab that is lost is NaN, which the loop would take for a divergence: -1 is no position.
    faces = pf.interface_positions(model.free_energy.phase(c, model.temperature), positions(model))
    return {"faces": jnp.where(jnp.isnan(faces), -1, faces)}


@each
def _see_disc(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del extra
    density = pf.indicator(model.free_energy.phase(c, model.temperature))
    return {"centre": pf.centre_of_mass(density, positions(model)), "area": density.sum()}


def _slab(case: _Case, width: int) -> Array:
    n = ROOM * width
    return _slab_profile(case, np.array([(n - width) / 2, (n + width) / 2]), n)


def _slab_profile(case: _Case, faces: np.ndarray, n: int) -> Array:
    """Local equilibrium in both phases, joined by flat interfaces."""
    x = np.arange(n) + 0.5
    phase = (np.tanh((x - faces[0]) / DELTA) - np.tanh((x - faces[1]) / DELTA)) / 2
    return local_equilibrium(case.free_energy, jnp.asarray(ramp(n, case.gradient)), jnp.asarray(phase))


def _slab_cases(config: Slabs) -> dict[int, list[_Case]]:
    cases = {width: [_Case(name, *drive, config.gradient) for name, drive in _DRIVES.items()] for width in config.widths}
    widest, middle = config.widths[-1], config.widths[len(config.widths) // 2]
    cases[widest].append(_Case("equal heats", (0.0, 0.0), (-0.2, -0.2), config.gradient))
    cases[widest] += [_Case("reversal", (0.1, -0.1), (0.0, q), config.gradient) for q in config.heat_differences]
    cases[middle] += [_Case("gradients", *_DRIVES["chemical"], g) for g in config.gradients]
    return cases


def run_single(config: Config, session: Session) -> list[Findings]:
    """C2, C3 and C4: all slabs, width by width, then the discs."""
    slabs = config.slabs
    widest = slabs.widths[-1]
    runs: list[tuple[_Case, int, float, float]] = []
    profile_errors: dict[str, float] = {}
    for width, cases in _slab_cases(slabs).items():
        totals = [_Case("total law", *_DRIVES["competing"], slabs.gradient, "total")] if width == widest else []
        for batch in (cases, totals):
            if batch:
                end, faces, speeds = _move_slabs(session, batch, width, slabs)
                runs += [(case, width, *speed) for case, speed in zip(batch, speeds, strict=True)]
                if width == widest and batch is cases:
                    profile_errors = {
                        case.name: float(jnp.abs(c - _slab_profile(case, face, ROOM * width)).max()) / 0.8
                        for case, c, face in list(zip(cases, end, faces, strict=True))[: len(_DRIVES)]
                    }
    discs = _discs(config.discs, session)
    return [_judge_slabs(slabs, runs, profile_errors), discs]


def _move_slabs(session: Session, cases: list[_Case], width: int, config: Slabs) -> tuple[Array, np.ndarray, list[tuple[float, float]]]:
    n = ROOM * width
    end, seen = evolve(
        session,
        f"slabs of width {width}, {cases[0].convention} law",
        [case.model((n,)) for case in cases],
        jnp.stack([_slab(case, width) for case in cases]),
        time=config.time,
        dt=config.dt,
        looks=40,
        watch=_see_faces,
    )
    faces = np.where(seen["faces"] < 0, np.nan, seen["faces"])
    return end, faces[-1], [steady_speed(seen["time"], faces[:, i].mean(1)) for i in range(len(cases))]


def _judge_slabs(config: Slabs, runs: list[tuple[_Case, int, float, float]], profile_errors: dict[str, float]) -> Findings:
    """C2, C3 and C4 from `(case, width, speed, its error)` of every slab, NaN for one that reached a wall or dissolved."""
    widest = config.widths[-1]
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}

    def judge(part: str, make: Callable[[], Measure]) -> None:
        try:
            measures[part] = make()
        except ValueError as error:
            untested[part] = f"not measured: {error}"

    def named(name: str, width: int | None = None) -> list[tuple[_Case, int, float, float]]:
        chosen = [run for run in runs if run[0].name == name and width in (None, run[1])]
        for case, lost, speed, _ in chosen:
            if not np.isfinite(speed):
                raise ValueError(f"the slab of width {lost} in a gradient of {case.gradient:g} ({case.name}) was lost")
        return chosen

    def ratio(name: str, width: int = widest) -> Measure:
        ((case, _, speed, error),) = named(name, width)
        return Measure.exact(speed / case.theory, error / abs(case.theory))

    def distance(measure: Measure) -> Measure:
        ((value, low, high),) = measure.intervals()
        return Measure.exact(abs(value - 1), (high - low) / 2)

    def equal_heats() -> Measure:
        ((_, _, equal, error),), ((_, _, thermal, _),) = (named(name, widest) for name in ("equal heats", "thermal"))
        return Measure.exact(abs(equal / thermal), error / abs(thermal))

    def reversal() -> Measure:
        chosen = named("reversal")
        heats = np.array([case.heats[1] - case.heats[0] for case, *_ in chosen])
        speeds, errors = np.array([run[2:] for run in chosen]).T
        zero = sign_change(heats, speeds)
        if zero is None:
            raise ValueError("the speed did not change sign among the heats of this run")
        return Measure.exact(zero, float(errors.max() / np.abs(np.gradient(speeds, heats)).min()))

    def exponent() -> Measure:
        gradients, moved, wobble = np.array([(run[0].gradient, *run[2:]) for run in named("gradients")]).T
        if not (moved > 0).all():
            raise ValueError("a slab stood still")
        slope = float(np.polyfit(np.log(gradients), np.log(moved), 1)[0])
        return Measure.exact(slope, float((wobble / moved).max() / np.ptp(np.log(gradients))))

    def profile() -> Measure:
        for name in _DRIVES:
            named(name, widest)
        return Measure.exact(max(profile_errors.values()))

    for name in _DRIVES:
        judge(f"C2.{name}_velocity_ratio", lambda name=name: ratio(name))
    judge("C2.equal_heats_velocity", equal_heats)
    judge("C2.total_law_ratio", lambda: ratio("total law"))
    judge("C2.reversal_heat_difference", reversal)
    judge("C3.gradient_exponent", exponent)
    judge("C4.slab_velocity_error", lambda: max((distance(ratio(name)) for name in _DRIVES), key=lambda measure: measure.intervals()[0][0]))
    judge("C4.velocity_error_with_width", lambda: Measure.sequence([distance(ratio("competing", width)) for width in config.widths]))
    judge("C4.slab_profile_error", profile)
    data = xr.Dataset(
        {
            "velocity": ("run", [r[2] for r in runs], {"units": "dx/t"}),
            "velocity_error": ("run", [r[3] for r in runs], {"units": "dx/t"}),
            "theory": ("run", [r[0].theory for r in runs], {"units": "dx/t"}),
            "width": ("run", [r[1] for r in runs], {"units": "dx"}),
            "gradient": ("run", [r[0].gradient for r in runs], {"units": "T0/dx"}),
            "heat_difference": ("run", [r[0].heats[1] - r[0].heats[0] for r in runs], {"units": "1"}),
        },
        {"case": ("run", [r[0].name for r in runs])},
    )
    return Findings(measures, xr.DataTree.from_dict({"slabs": data}), untested)


def _discs(config: Discs, session: Session) -> Findings:
    nx, ny = config.shape
    case = _Case("disc", *_DRIVES["chemical"], config.gradient)
    model = case.model((nx, ny))
    start = [
        local_equilibrium(case.free_energy, model.temperature, jnp.asarray(disc_field((nx, ny), (nx / 2, ny / 2), radius)))
        + pf.gibbs_thomson(radius, case.free_energy, 1.0)
        for radius in config.radii
    ]
    _, seen = evolve(
        session, "discs", [model] * len(config.radii), jnp.stack(start), time=config.time, dt=config.dt, looks=40, watch=_see_disc
    )
    speeds, errors = np.array([steady_speed(seen["time"], seen["centre"][:, i]) for i in range(len(config.radii))]).T
    theory = float(pf.disc_velocity(case.free_energy, pf.HeatOfTransport(0.0), config.gradient))
    departures = ", ".join(
        f"{(speed / theory - 1) * radius:.3g} dx at R = {radius:g} dx" for speed, radius in zip(speeds, config.radii, strict=True)
    )
    session.note(
        f"discs: departure of the speed from theory, times the radius R: {departures} (constant where it is of order interface over R)"
    )
    measures = {"C4.disc_velocity_ratio": Measure.exact(speeds[-1] / theory, errors[-1] / theory)}
    untested = {}
    if (speeds > 0).all():
        exponent = float(np.polyfit(np.log(config.radii), np.log(speeds), 1)[0])
        measures["C4.radius_exponent"] = Measure.exact(exponent, float((errors / speeds).max() / np.ptp(np.log(config.radii))))
    else:
        untested["C4.radius_exponent"] = "a disc stood still"
    data = xr.Dataset(
        {
            "velocity": ("radius", speeds, {"units": "dx/t"}),
            "velocity_error": ("radius", errors, {"units": "dx/t"}),
            "theory": ("radius", np.full(len(speeds), theory), {"units": "dx/t"}),
            "centre": (("time", "radius"), seen["centre"], {"units": "dx"}),
            "area": (("time", "radius"), seen["area"], {"units": "dx^2"}),
        },
        {"radius": ("radius", list(config.radii), {"units": "dx"}), "time": ("time", seen["time"], {"units": "t"})},
    )
    return Findings(measures, xr.DataTree.from_dict({"discs": data}), untested)
