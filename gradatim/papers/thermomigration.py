"""Thermomigration of solute and precipitates in a temperature gradient (arXiv:2406.00649): bars, slabs, discs, pairs, many particles.

The article's parameters and figures could not be read: units here are dimensionless (dx = κ = W = M = T₀ = 1) except for the bars, which
are iron in SI units with handbook values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.figure import Figure

from gradatim.lab import Between, Findings, Measure
from gradatim.lab.plots import COLOURS, MARKERS, figure, interval, label
from gradatim.lab.session import Session
from gradatim.physics import phase_field as pf

PRECISION = "double"
DELTA = 2.5
"Half width of an interface for W = κ = 1 and a gap of 0.8: cells enough that the grid does not hold it."
ROOM = 4
"Slab runs: cells of the bar per cell of the slab."


@dataclass(frozen=True)
class Bars:
    """Iron with carbon or nitrogen in a closed bar from 973.15 to 1073.15 K."""

    cells: Annotated[int, Between(8, 4096)] = 128
    "Cells along the bar."
    mean: Annotated[float, Between(1e-9, 0.9)] = 1e-4
    "Mean fraction of filled interstitial sites."
    relaxation_times: Annotated[int, Between(1, 1000)] = 30
    "How long to wait, in relaxation times of the slowest mode."


@dataclass(frozen=True)
class Slabs:
    """Flat precipitates between walls that pass the matrix's own flux."""

    widths: Annotated[tuple[int, ...], Between(20, 4096)] = (60, 120, 240)
    "Widths, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 5e-4
    "Temperature gradient, T₀ per cell."
    gradients: Annotated[tuple[float, ...], Between(1e-6, 1e-2)] = (2.5e-4, 5e-4, 1e-3, 2e-3)
    "Gradients of the test of linearity, on the middle width."
    heat_differences: Annotated[tuple[float, ...], Between(-2.0, 2.0)] = (0.0, 0.128, 0.256, 0.384, 0.512)
    "Heat of transport of the precipitate minus the matrix's, around where the speed changes sign."
    time: Annotated[float, Between(1.0, 1e7)] = 4000.0
    "End time; the speed is taken from the second half."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.25
    "Time step."


@dataclass(frozen=True)
class Discs:
    """Round precipitates, one in each box, in a matrix at equilibrium."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (128, 96)
    "Cells of the box along and across the gradient."
    radii: Annotated[tuple[float, ...], Between(4.0, 1000.0)] = (10.0, 14.0, 20.0)
    "Radii, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 1e-3
    "Temperature gradient, T₀ per cell."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Pairs:
    """A large precipitate at low x and a small one at high x, in a closed box."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (192, 64)
    "Cells of the box along and across the gradient."
    large: Annotated[float, Between(3.0, 1000.0)] = 14.0
    "Radius of the large one, in cells."
    small: Annotated[float, Between(3.0, 1000.0)] = 9.0
    "Radius of the small one, in cells."
    gap: Annotated[float, Between(3.0, 1000.0)] = 37.0
    "Matrix between them, in cells."
    other_gaps: Annotated[tuple[float, ...], Between(3.0, 1000.0)] = (24.0, 54.0)
    "Further distances, for the gradient at which ripening turns around."
    gradients: Annotated[tuple[float, ...], Between(0.0, 1e-2)] = (0.0, 4e-4, 1e-3, 2e-3, 4e-3)
    "Gradients from zero up, T₀ per cell; each also with the small one on the cold side."
    heat_of_transport: Annotated[float, Between(-2.0, 2.0)] = -0.2
    "Of both phases; negative drives solute to the hot side."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Many:
    """Many precipitates of random sizes and places in a closed box."""

    shape: Annotated[tuple[int, ...], Between(16, 4096)] = (256, 128)
    "Cells of the box along and across the gradient."
    particles: Annotated[int, Between(1, 100000)] = 20
    "How many to begin with."
    radii: Annotated[tuple[float, ...], Between(3.0, 1000.0)] = (6.0, 11.0)
    "Least and largest radius, in cells."
    gradient: Annotated[float, Between(1e-6, 1e-2)] = 2e-3
    "Temperature gradient, T₀ per cell; the control has none."
    seeds: Annotated[int, Between(3, 1000)] = 12
    "Arrangements, each with and without the gradient."
    heat_of_transport: Annotated[float, Between(-2.0, 2.0)] = -0.2
    "Of both phases."
    time: Annotated[float, Between(1.0, 1e7)] = 2000.0
    "End time."
    dt: Annotated[float, Between(1e-3, 10.0)] = 0.4
    "Time step."


@dataclass(frozen=True)
class Config:
    """Everything that changes the outcome."""

    bars: Bars = field(default_factory=Bars)
    slabs: Slabs = field(default_factory=Slabs)
    discs: Discs = field(default_factory=Discs)
    pairs: Pairs = field(default_factory=Pairs)
    many: Many = field(default_factory=Many)


SCALES = {
    "smoke": Config(
        bars=Bars(cells=64),
        slabs=Slabs(widths=(24, 32), gradients=(1e-3, 2e-3), heat_differences=(0.0, 0.5), time=50.0),
        discs=Discs(shape=(48, 40), radii=(10.0, 14.0), time=40.0),
        pairs=Pairs(shape=(80, 32), large=10.0, small=7.0, gap=14.0, other_gaps=(10.0,), gradients=(0.0, 4e-3), time=40.0),
        many=Many(shape=(96, 48), particles=6, radii=(5.0, 8.0), seeds=3, time=40.0),
    ),
    "laptop": Config(),
    "full": Config(
        slabs=Slabs(widths=(60, 120, 240, 480), time=16000.0),
        discs=Discs(shape=(256, 192), radii=(10.0, 14.0, 20.0, 28.0, 40.0), time=8000.0),
        many=Many(shape=(512, 512), particles=300, radii=(5.0, 10.0), seeds=8, time=10000.0),
    ),
}


def memory(config: Config) -> int:
    """Peak bytes: some twenty copies of the largest batch of fields, in double precision."""
    pairs, many = config.pairs, config.many
    n_pairs = (2 * len(pairs.gradients) - 1) + len(pairs.gradients) * len(pairs.other_gaps)
    return 160 * max(n_pairs * int(np.prod(pairs.shape)), 2 * many.seeds * int(np.prod(many.shape)))


def run(config: Config, session: Session) -> Findings:
    """The five experiments, one after another."""
    parts = [_bars(config.bars, session), *_single(config, session), _pairs(config.pairs, session), _many(config.many, session)]
    measures: dict[str, Measure] = {}
    untested: dict[str, str] = {}
    for part in parts:
        measures |= part.measures
        untested |= part.untested
    return Findings(measures, xr.DataTree.from_dict({part.name: part.data for part in parts}), untested)


class _Part(NamedTuple):
    name: str
    data: xr.Dataset
    measures: dict[str, Measure]
    untested: dict[str, str]


# Simulation: a batch of models that differ in numbers only goes through one compiled loop.


class _Batch(NamedTuple):
    models: pf.Thermotransport
    stepper: pf.SemiImplicit
    extra: Any


# Steps and watches are functions of the module, not of a call: a second run finds them compiled.


def _step(c: Array, i: Array, batch: _Batch) -> Array:
    del i
    return jax.vmap(lambda model, c: pf.SemiImplicit(model, batch.stepper.response)(c))(batch.models, c)


def _each(watch: Callable[[Array, pf.Thermotransport, Any], dict[str, Array]]) -> Callable[[Array, _Batch], dict[str, Array]]:
    """A watch of one state as a watch of the batch."""
    return lambda c, batch: jax.vmap(watch)(c, batch.models, batch.extra)


def _x(model: pf.Thermotransport) -> Array:
    return jnp.arange(model.shape[0]) + 0.5


@_each
def _see_composition(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del model, extra
    return {"c": c}


@_each
def _see_faces(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del extra
    # A slab that is lost is NaN, which the loop would take for a divergence: -1 is no position.
    faces = pf.interface_positions(model.free_energy.phase(c, model.temperature), _x(model))
    return {"faces": jnp.where(jnp.isnan(faces), -1, faces)}


@_each
def _see_disc(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del extra
    density = pf.indicator(model.free_energy.phase(c, model.temperature))
    return {"centre": pf.centre_of_mass(density, _x(model)), "area": density.sum()}


@_each
def _see_pair(c: Array, model: pf.Thermotransport, wall: Array) -> dict[str, Array]:
    phase = model.free_energy.phase(c, model.temperature)
    density, left = pf.indicator(phase), (_x(model) < wall)[:, None]
    areas = jnp.stack([jnp.where(left, density, 0).sum(), jnp.where(left, 0, density).sum()])
    return {
        "area": areas,
        "elongation": pf.elongation(jnp.where(left, phase, 0)),
        "centre": pf.centre_of_mass(density, _x(model)),
    }


@_each
def _see_many(c: Array, model: pf.Thermotransport, keep: Array) -> dict[str, Array]:
    density = pf.indicator(model.free_energy.phase(c, model.temperature))
    return {
        "centre": pf.centre_of_mass(density, _x(model)),
        "area": density.sum(),
        "field": jnp.where(keep, c, 0).astype(jnp.float32),
    }


def _evolve(
    session: Session,
    label: str,
    models: Sequence[pf.Thermotransport],
    start: Array,
    *,
    time: float,
    dt: float,
    watch: Callable[[Array, _Batch], dict[str, Array]],
    looks: int,
    extra: Any = (),
) -> tuple[Array, dict[str, np.ndarray]]:
    """States after `time` and what `watch` saw `looks` times; the times themselves are under "time"."""
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *models)
    # One response for all: it only damps the increment, and theirs differ by the few per cent of their gaps in composition.
    batch = _Batch(stacked, _stepper(models[0], dt), extra)

    every = max(round(time / dt / looks), 1)
    loop = session.loop(_step, start, steps=every * looks, args=batch, every=every, watch=watch, label=label)
    return loop.state, {**loop.history, "time": dt * loop.history["step"]}


@eqx.filter_jit
def _stepper(model: pf.Thermotransport, dt: float | Array) -> pf.SemiImplicit:
    return model.stepper(dt)


@eqx.filter_jit
def _local_equilibrium(free_energy: pf.QuarticTwoPhase, T: Array, phase: Array) -> Array:
    """Each phase with its own composition at the temperature of the place."""
    a, b = free_energy.stable_compositions(T)
    return a + (b - a) * phase


def _ramp(n: int, gradient: float) -> np.ndarray:
    return 1 + gradient * (np.arange(n) + 0.5 - n / 2)


def _speed(time: np.ndarray, position: np.ndarray) -> tuple[float, float]:
    """The slope over the second half, and half the difference between its own halves as the error."""
    half, three = len(time) // 2, 3 * len(time) // 4
    parts = (slice(half, None), slice(half, three + 1), slice(three, None))
    slope, early, late = (float(np.polyfit(time[part], position[part], 1)[0]) for part in parts)
    return slope, abs(early - late) / 2


# C1: bars.

_IRON = {"carbon": (-100e3, 2e-6, 84.1e3), "nitrogen": (-75e3, 1.5e-6, 79.9e3)}
"Q* (J/mol), D₀ (m²/s) and activation energy (J/mol) of carbon (C. Wert 1950) and nitrogen in alpha iron: handbook values."


def _bars(config: Bars, session: Session) -> _Part:
    n, length = config.cells, 1e-3
    T = 973.15 + 100 * (jnp.arange(n) + 0.5) / n
    models = [
        pf.Thermotransport(
            (n,),
            pf.IdealSolution(),
            T,
            heat_of_transport=pf.HeatOfTransport(heat),
            mobility=pf.ArrheniusMobility(diffusivity, energy),
            kappa=0.0,
            dx=length / n,
        )
        for heat, diffusivity, energy in reversed(_IRON.values())
    ]
    slow = _IRON["carbon"]
    relaxation = length**2 / (np.pi**2 * slow[1] * np.exp(-slow[2] / (pf.GAS_CONSTANT * 1023.15)))
    start = jnp.full((2, n), config.mean)
    end, seen = _evolve(
        session,
        "bars of iron",
        models,
        start,
        time=config.relaxation_times * relaxation,
        dt=relaxation / 40,
        looks=10 * config.relaxation_times,
        watch=_see_composition,
    )
    exact = jnp.stack([pf.soret_steady_state(T, heat, config.mean) for heat, *_ in reversed(_IRON.values())])
    error = float(jnp.abs(end / exact - 1).max())
    measures = {"C1.profile_error": Measure.exact(error)}
    solutes = list(reversed(_IRON))
    for solute, c in zip(solutes, end, strict=True):
        found = float(pf.heat_of_transport_from_profile(c, T)) / 1e3
        measures[f"C1.heat_of_transport_{solute}"] = Measure.exact(found, abs(found) * error)
    data = xr.Dataset(
        {
            "concentration": (("time", "solute", "x"), seen["c"] / config.mean, {"units": "of the mean"}),
            "theory": (("solute", "x"), np.asarray(exact) / config.mean, {"units": "of the mean"}),
            "temperature": ("x", np.asarray(T), {"units": "K"}),
        },
        {
            "time": ("time", seen["time"] / relaxation, {"units": "relaxation times"}),
            "solute": solutes,
            "x": ("x", (np.arange(n) + 0.5) * length / n * 1e3, {"units": "mm"}),
        },
    )
    reason = "the measurements are in no package and could not be read; reading the handbook value back tests the solver only"
    return _Part("bars", data, measures, {"C1.darken_oriani_deviation": reason})


# C2, C3, C4: slabs and discs.


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
        T = jnp.asarray(_ramp(shape[0], self.gradient).reshape(-1, *(1 for _ in shape[1:])))
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


def _slab(case: _Case, width: int) -> Array:
    n = ROOM * width
    return _slab_profile(case, np.array([(n - width) / 2, (n + width) / 2]), n)


def _slab_profile(case: _Case, faces: np.ndarray, n: int) -> Array:
    """Local equilibrium in both phases, joined by flat interfaces."""
    x = np.arange(n) + 0.5
    phase = (np.tanh((x - faces[0]) / DELTA) - np.tanh((x - faces[1]) / DELTA)) / 2
    return _local_equilibrium(case.free_energy, jnp.asarray(_ramp(n, case.gradient)), jnp.asarray(phase))


def _slab_cases(config: Slabs) -> dict[int, list[_Case]]:
    cases = {width: [_Case(name, *drive, config.gradient) for name, drive in _DRIVES.items()] for width in config.widths}
    widest, middle = config.widths[-1], config.widths[len(config.widths) // 2]
    cases[widest].append(_Case("equal heats", (0.0, 0.0), (-0.2, -0.2), config.gradient))
    cases[widest] += [_Case("reversal", (0.1, -0.1), (0.0, q), config.gradient) for q in config.heat_differences]
    cases[middle] += [_Case("gradients", *_DRIVES["chemical"], g) for g in config.gradients]
    return cases


def _single(config: Config, session: Session) -> list[_Part]:
    slabs = config.slabs
    widest = slabs.widths[-1]
    runs: list[tuple[_Case, int, float, float]] = []
    profile_errors: list[float] = []
    for width, cases in _slab_cases(slabs).items():
        totals = [_Case("total law", *_DRIVES["competing"], slabs.gradient, "total")] if width == widest else []
        for batch in (cases, totals):
            if batch:
                end, faces, speeds = _move_slabs(session, batch, width, slabs)
                runs += [(case, width, *speed) for case, speed in zip(batch, speeds, strict=True)]
                if width == widest and batch is cases:
                    gaps = [
                        float(jnp.abs(c - _slab_profile(case, face, ROOM * width)).max()) / 0.8
                        for case, c, face in list(zip(cases, end, faces, strict=True))[: len(_DRIVES)]
                    ]
                    profile_errors += [gap for gap in gaps if np.isfinite(gap)]
    discs = _discs(config.discs, session)
    return [_judge_slabs(slabs, runs, profile_errors), discs]


def _move_slabs(session: Session, cases: list[_Case], width: int, config: Slabs) -> tuple[Array, np.ndarray, list[tuple[float, float]]]:
    n = ROOM * width
    end, seen = _evolve(
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
    return end, faces[-1], [_speed(seen["time"], faces[:, i].mean(1)) for i in range(len(cases))]


def _judge_slabs(config: Slabs, runs: list[tuple[_Case, int, float, float]], profile_errors: list[float]) -> _Part:
    widest = config.widths[-1]

    def ratio(name: str, width: int = widest) -> Measure:
        case, _, speed, error = next(r for r in runs if r[0].name == name and r[1] == width)
        return Measure.exact(speed / case.theory, error / abs(case.theory))

    def distance(measure: Measure) -> Measure:
        ((value, low, high),) = measure.intervals()
        return Measure.exact(abs(value - 1), (high - low) / 2)

    ratios = {name: ratio(name) for name in _DRIVES}
    measures = {f"C2.{name}_velocity_ratio": measure for name, measure in ratios.items()}
    thermal, equal = (next(r for r in runs if r[0].name == name and r[1] == widest) for name in ("thermal", "equal heats"))
    measures["C2.equal_heats_velocity"] = Measure.exact(abs(equal[2] / thermal[2]), equal[3] / abs(thermal[2]))
    measures["C2.total_law_ratio"] = ratio("total law")
    untested = {}
    reversal = [r for r in runs if r[0].name == "reversal"]
    heats = np.array([case.heats[1] - case.heats[0] for case, *_ in reversal])
    speeds, errors = np.array([run[2:] for run in reversal]).T
    zero = _zero(heats, speeds)
    if zero is None:
        untested["C2.reversal_heat_difference"] = "the speed did not change sign among the heats of this run"
    else:
        measures["C2.reversal_heat_difference"] = Measure.exact(zero, float(errors.max() / np.abs(np.gradient(speeds, heats)).min()))
    gradients, moved, wobble = np.array([(run[0].gradient, *run[2:]) for run in runs if run[0].name == "gradients"]).T
    if (moved > 0).all():
        exponent = float(np.polyfit(np.log(gradients), np.log(moved), 1)[0])
        measures["C3.gradient_exponent"] = Measure.exact(exponent, float((wobble / moved).max() / np.ptp(np.log(gradients))))
    else:
        untested["C3.gradient_exponent"] = "a slab stood still"
    worst = max(ratios.values(), key=lambda measure: abs(measure.intervals()[0][0] - 1))
    measures["C4.slab_velocity_error"] = distance(worst)
    measures["C4.velocity_error_with_width"] = Measure.sequence([distance(ratio("competing", width)) for width in config.widths])
    if profile_errors:
        measures["C4.slab_profile_error"] = Measure.exact(max(profile_errors))
    else:
        untested["C4.slab_profile_error"] = "every slab was lost"
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
    return _Part("slabs", data, measures, untested)


def _zero(x: np.ndarray, y: np.ndarray) -> float | None:
    """Where a piecewise linear curve first changes sign."""
    for i in range(len(x) - 1):
        if y[i] * y[i + 1] <= 0 and y[i] != y[i + 1]:
            return float(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
    return None


def _disc(shape: tuple[int, ...], centre: tuple[float, float], radius: float) -> np.ndarray:
    """φ of one disc, y periodic."""
    x, y = (np.arange(n) + 0.5 for n in shape)
    across = (y - centre[1] + shape[1] / 2) % shape[1] - shape[1] / 2
    return (1 - np.tanh((np.hypot((x - centre[0])[:, None], across[None, :]) - radius) / DELTA)) / 2


def _discs(config: Discs, session: Session) -> _Part:
    nx, ny = config.shape
    case = _Case("disc", *_DRIVES["chemical"], config.gradient)
    model = case.model((nx, ny))
    start = [
        _local_equilibrium(case.free_energy, model.temperature, jnp.asarray(_disc((nx, ny), (nx / 2, ny / 2), radius)))
        + pf.gibbs_thomson(radius, case.free_energy, 1.0)
        for radius in config.radii
    ]
    _, seen = _evolve(
        session, "discs", [model] * len(config.radii), jnp.stack(start), time=config.time, dt=config.dt, looks=40, watch=_see_disc
    )
    speeds, errors = np.array([_speed(seen["time"], seen["centre"][:, i]) for i in range(len(config.radii))]).T
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
    return _Part("discs", data, measures, untested)


# C3, C5: pairs.


def _pairs(config: Pairs, session: Session) -> _Part:
    nx, ny = config.shape
    free_energy, heat = pf.QuarticTwoPhase(), pf.HeatOfTransport(config.heat_of_transport)
    runs = [(config.gap, g) for g in (*config.gradients, *(-g for g in config.gradients if g > 0))]
    runs += [(gap, g) for gap in config.other_gaps for g in config.gradients]
    level = sum(float(pf.gibbs_thomson(r, free_energy, 1.0)) for r in (config.small, config.large)) / 2
    models, starts, walls = [], [], []
    for gap, gradient in runs:
        length = 2 * config.large + gap + 2 * config.small
        first = (nx - length) / 2 + config.large
        second = first + config.large + gap + config.small
        T = jnp.asarray(_ramp(nx, gradient)[:, None])
        phase = _disc((nx, ny), (first, ny / 2), config.large) + _disc((nx, ny), (second, ny / 2), config.small)
        models.append(pf.Thermotransport((nx, ny), free_energy, T, heat_of_transport=heat))
        starts.append(0.1 + 0.8 * phase + level)
        walls.append(first + config.large + gap / 2)

    end, seen = _evolve(
        session,
        "pairs",
        models,
        jnp.asarray(np.stack(starts)),
        time=config.time,
        dt=config.dt,
        looks=40,
        watch=_see_pair,
        extra=jnp.asarray(walls),
    )
    areas = seen["area"]
    half = len(areas) // 2
    late = (areas[-1] - areas[half]) / areas[0]
    at = {run: i for i, run in enumerate(runs)}
    still, steep = at[config.gap, 0.0], at[config.gap, max(config.gradients)]
    swapped = at[config.gap, -max(config.gradients)]
    measures = {
        "C5.small_growth": Measure.exact(late[steep, 1]),
        "C5.large_growth": Measure.exact(late[steep, 0]),
        "C5.isothermal_small_growth": Measure.exact(late[still, 1]),
        "C5.swapped_minus_isothermal": Measure.exact(late[swapped, 1] - late[still, 1]),
        "C3.shape_change": Measure.exact(abs(seen["elongation"][-1, steep] - seen["elongation"][-1, still])),
    }
    gaps = sorted({config.gap, *config.other_gaps})
    thresholds = [_zero(np.array(config.gradients), np.array([late[at[gap, g], 1] for g in config.gradients])) for gap in gaps]
    untested = {}
    if all(threshold is not None for threshold in thresholds) and len(gaps) > 1:
        measures["C3.threshold_gradient_with_distance"] = Measure.sequence([Measure.exact(t) for t in thresholds if t is not None])
    else:
        untested["C3.threshold_gradient_with_distance"] = "ripening did not turn around within the gradients of this run"
    data = xr.Dataset(
        {
            "area": (("time", "run", "particle"), areas, {"units": "dx^2"}),
            "elongation": (("time", "run"), seen["elongation"], {"units": "1"}),
            "centre": (("time", "run"), seen["centre"], {"units": "dx"}),
            "gap": ("run", [r[0] for r in runs], {"units": "dx"}),
            "gradient": ("run", [r[1] for r in runs], {"units": "T0/dx"}),
            "concentration": (("pair", "x", "y"), np.asarray(end)[[still, steep]].astype(np.float32), {"units": "1"}),
            "threshold": ("distance", [np.nan if t is None else t for t in thresholds], {"units": "T0/dx"}),
        },
        {
            "time": ("time", seen["time"], {"units": "t"}),
            "particle": ["large", "small"],
            "pair": ["no gradient", "steepest gradient"],
            "distance": ("distance", gaps, {"units": "dx"}),
        },
    )
    return _Part("pairs", data, measures, untested)


# C6: many particles.


def _arrangement(config: Many, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii of discs that do not touch, by random sequential addition."""
    nx, ny = config.shape
    centres, radii = np.zeros((0, 2)), np.zeros(0)
    for radius in np.sort(rng.uniform(min(config.radii), max(config.radii), config.particles))[::-1]:
        for _ in range(2000):
            centre = rng.uniform((radius + 4, 0), (nx - radius - 4, ny))
            apart = centres - centre
            apart[:, 1] = (apart[:, 1] + ny / 2) % ny - ny / 2
            if (np.hypot(*apart.T) > radii + radius + 2 * DELTA).all():
                centres, radii = np.vstack([centres, centre]), np.append(radii, radius)
                break
        else:
            raise ValueError(f"many.particles must fit into many.shape, got {config.particles} in {config.shape}: lower it")
    return centres, radii


def _many(config: Many, session: Session) -> _Part:
    nx, ny = config.shape
    free_energy, heat = pf.QuarticTwoPhase(), pf.HeatOfTransport(config.heat_of_transport)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(session.key)))
    fields = []
    for _ in range(config.seeds):
        centres, radii = _arrangement(config, rng)
        phase = np.sum([_disc((nx, ny), (float(cx), float(cy)), float(r)) for (cx, cy), r in zip(centres, radii, strict=True)], 0)
        fields.append(0.1 + 0.8 * phase + float(pf.gibbs_thomson(float(radii.mean()), free_energy, 1.0)))
    gradients = (0.0, config.gradient)
    models = [
        pf.Thermotransport((nx, ny), free_energy, jnp.asarray(_ramp(nx, g)[:, None]), heat_of_transport=heat)
        for g in gradients
        for _ in range(config.seeds)
    ]
    # Snapshots of the first arrangement alone: all of them would fill the record.
    first = jnp.asarray([i % config.seeds == 0 for i in range(2 * config.seeds)])

    _, seen = _evolve(
        session,
        "many particles",
        models,
        jnp.asarray(np.stack(fields * 2)),
        time=config.time,
        dt=config.dt,
        looks=20,
        watch=_see_many,
        extra=first,
    )
    snapshots = seen["field"][:, :: config.seeds]
    counts, mean_radii = np.zeros(snapshots.shape[:2], int), np.zeros(snapshots.shape[:2])
    for index in np.ndindex(*counts.shape):
        found = pf.label_particles((snapshots[index] - 0.1) / 0.8)
        counts[index] = found.areas.size
        mean_radii[index] = np.sqrt(found.areas / np.pi).mean() if found.areas.size else 0
    centre = seen["centre"].reshape(-1, 2, config.seeds)
    without, within = centre[-1] - centre[0]
    measures = {"C6.shift": Measure.over_seeds(within), "C6.shift_over_isothermal": Measure.paired(within, without)}
    untested = {}
    if within.mean() != 0:
        measures["C6.isothermal_shift_share"] = Measure.over_seeds(without / abs(within.mean()))
    else:
        untested["C6.isothermal_shift_share"] = "nothing moved in the gradient"
    data = xr.Dataset(
        {
            "centre": (("time", "gradient", "seed"), centre, {"units": "dx"}),
            "concentration": (("time", "gradient", "x", "y"), snapshots, {"units": "1"}),
            "particles": (("time", "gradient"), counts, {"units": "1"}),
            "mean_radius": (("time", "gradient"), mean_radii, {"units": "dx"}),
        },
        {
            "time": ("time", seen["time"], {"units": "t"}),
            "gradient": ("gradient", list(gradients), {"units": "T0/dx"}),
            "x": ("x", np.arange(nx) + 0.5, {"units": "dx"}),
            "y": ("y", np.arange(ny) + 0.5, {"units": "dx"}),
        },
    )
    return _Part("many", data, measures, untested)


# Figures.


def draw(findings: Findings) -> dict[str, Figure]:
    """Profiles against theory, speeds against theory, areas of pairs, many particles in time, and their centre of mass."""
    tree = findings.data
    return {
        "profiles": _draw_bars(tree["bars"].to_dataset()),
        "velocities": _draw_velocities(tree["slabs"].to_dataset(), tree["discs"].to_dataset()),
        "pairs": _draw_pairs(tree["pairs"].to_dataset()),
        "many_particles": _draw_many(tree["many"].to_dataset()),
        "centre_of_mass": _draw_centre(tree["many"].to_dataset()),
    }


def _draw_bars(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2, sharey=True)
    for ax, solute, colour in zip(axes[0], ("carbon", "nitrogen"), COLOURS, strict=False):
        one = data.sel(solute=solute)
        for time in (0.05, 0.2, 0.6):
            row = one.sel(time=time, method="nearest")
            ax.plot(data.temperature, row.concentration, color=colour, alpha=0.35, lw=1)
            ax.annotate(
                f"{float(row.time):.2g} τ", (float(data.temperature[-1]), float(row.concentration[-1])), fontsize=7, color="#555555"
            )
        step = max(data.sizes["x"] // 24, 1)
        ax.plot(data.temperature, one.theory, color="black", lw=1, label="at rest, theory")
        ax.plot(data.temperature[::step], one.concentration[-1, ::step], MARKERS[0], color=colour, label="at rest, simulated")
        label(ax, "temperature", "composition over its mean", x_unit="K", title=f"{solute} in α iron")
        ax.margins(x=0.09)
        ax.legend()
    return fig


def _draw_velocities(slabs: xr.Dataset, discs: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    ax = axes[0, 0]
    names = [*dict.fromkeys(slabs.case.values.tolist())]
    for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
        chosen = slabs.isel(run=np.flatnonzero(slabs.case.values == name))
        ax.plot(1e4 * chosen.theory, 1e4 * chosen.velocity, marker, color=colour, label=name, alpha=0.8)
    ax.plot(1e4 * discs.theory, 1e4 * discs.velocity, "*", color="black", ms=7, label="discs")
    ends = np.array([min(slabs.theory.min(), 0), max(slabs.theory.max(), discs.theory.max())]) * 1e4
    ax.plot(ends, ends, color="#888888", lw=0.8, zorder=0)
    label(ax, "speed in theory", "speed in the field", x_unit="10⁻⁴ dx/t", y_unit="10⁻⁴ dx/t", title="towards the hot side: positive")
    ax.legend(fontsize=7.5, ncols=2)
    ax = axes[0, 1]
    chosen = slabs.isel(run=np.flatnonzero(slabs.case.values == "reversal"))
    ax.plot(chosen.heat_difference, 1e4 * chosen.theory, color="#888888", label="theory")
    ax.plot(chosen.heat_difference, 1e4 * chosen.velocity, MARKERS[0], color=COLOURS[1], label="slab")
    ax.axhline(0, color="black", lw=0.8)
    label(ax, "Q* of the precipitate minus the matrix's", "speed", y_unit="10⁻⁴ dx/t", title="thermal against chemical drive")
    ax.legend()
    return fig


def _draw_pairs(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 3)
    gap = float(data.gap[0])
    chosen = data.isel(run=np.flatnonzero(data.gap.values == gap))
    steps = sorted({abs(float(g)) for g in chosen.gradient})
    for ax, particle in zip(axes[0], ("small", "large"), strict=False):
        for i in range(chosen.sizes["run"]):
            gradient = float(chosen.gradient[i])
            colour = "black" if gradient == 0 else COLOURS[steps.index(abs(gradient)) - 1]
            area = chosen.area.isel(run=i).sel(particle=particle)
            name = f"{1e3 * gradient:.1f}" if gradient >= 0 else None
            ax.plot(data.time, area / area[0], color=colour, ls="--" if gradient < 0 else "-", label=name)
        label(ax, "time", "area over its first value", x_unit="t", title=f"the {particle} particle")
    axes[0, 0].legend(title="G [10⁻³ T₀/dx]\ndashed: small one cold", fontsize=7.5, title_fontsize=7.5)
    ax = axes[0, 2]
    for i, (distance, colour, marker) in enumerate(zip(data.distance.values, COLOURS, MARKERS, strict=False)):
        runs = data.isel(run=np.flatnonzero((data.gap.values == distance) & (data.gradient.values >= 0)))
        late = (runs.area[-1] - runs.area[data.sizes["time"] // 2]).sel(particle="small") / runs.area[0].sel(particle="small")
        ax.plot(1e3 * runs.gradient, 100 * late, marker=marker, color=colour, label=f"gap {distance:g} dx")
        if np.isfinite(data.threshold[i]):
            ax.axvline(1e3 * float(data.threshold[i]), color=colour, lw=0.7, ls=":")
    ax.axhline(0, color="black", lw=0.8)
    label(ax, "gradient", "late growth of the small one", x_unit="10⁻³ T₀/dx", y_unit="%", title="ripening turns around")
    ax.legend()
    return fig


def _draw_many(data: xr.Dataset) -> Figure:
    times = np.linspace(0, data.sizes["time"] - 1, 4).round().astype(int)
    nx, ny = data.sizes["x"], data.sizes["y"]
    fig, axes = figure(2, len(times), panel=(2.9, 2.9 * ny / nx + 0.55), sharex=True, sharey=True)
    image = None
    for row, gradient in enumerate(data.gradient.values):
        T = np.asarray(_ramp(nx, float(gradient)))
        for ax, i in zip(axes[row], times, strict=True):
            image = ax.pcolormesh(data.x, data.y, data.concentration[i, row].T, vmin=0.1, vmax=0.9, cmap="cividis", rasterized=True)
            if gradient > 0:
                lines = ax.contour(data.x, data.y, np.broadcast_to(T, (ny, nx)), levels=5, colors="#D55E00", linewidths=0.8)
                ax.clabel(lines, fmt="%.2f T₀", fontsize=6)
            # How far the solute of the precipitates has come.
            for when, style in ((0, ":"), (i, "-")):
                ax.axvline(float(data.centre[when, row, 0]), color="white", lw=1, ls=style)
            label(ax, "x" if row else "", "y" if i == 0 else "", x_unit="dx" if row else "", y_unit="dx" if i == 0 else "")
            what = "no gradient" if gradient == 0 else f"G = {gradient:g}, hot →"
            ax.set_title(f"{what}, t = {float(data.time[i]):g}: {int(data.particles[i, row])} particles", fontsize=8)
            ax.set_aspect("equal")
            ax.grid(False)
    if image is not None:
        fig.colorbar(image, ax=axes, label="composition", shrink=0.8, pad=0.01)
    return fig


def _draw_centre(data: xr.Dataset) -> Figure:
    fig, axes = figure(1, 2)
    for row, (gradient, colour) in enumerate(zip(data.gradient.values, ("#000000", COLOURS[1]), strict=True)):
        moved = (data.centre[:, row] - data.centre[0, row]).values.T
        name = "no gradient" if gradient == 0 else f"G = {gradient:g} T₀/dx"
        interval(axes[0, 0], data.time.values, moved, name=name, colour=colour)
        axes[0, 1].plot(data.time, data.mean_radius[:, row], color=colour, label=name)
    label(axes[0, 0], "time", "shift of the centre of mass", x_unit="t", y_unit="dx", title="precipitates, towards the hot side")
    label(axes[0, 1], "time", "mean radius", x_unit="t", y_unit="dx", title="coarsening, first arrangement")
    axes[0, 0].legend()
    return fig
