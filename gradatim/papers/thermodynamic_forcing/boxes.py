"""Particle-in-cell boxes: whistlers, the firehose, and both at once."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import plasma

from .config import Boxes
from .gas import step
from .judging import WINDOW, early_error, final_minus_peak
from .traced import traced
from .whistlers import fastest, foldings

LARGEST = 4.0
"k ρₑ up to which the waves are counted: the noise of the grid lies far above."
FIREHOSE = -1.4
"Δβ below which the oblique electron firehose grows, about, by A. F. A. Bott, S. C. Cowley & A. A. Schekochihin, J. Plasma Phys. (2024)."


class Arm(NamedTuple):
    """One kind of box: the angle of the field, which gradients, and how long."""

    name: str
    angle: float
    has_heat: bool
    has_shear: bool
    beta: float
    per_cell: int
    time: float  # 1/Ω


def arms(config: Boxes) -> list[Arm]:
    """The four boxes of the claims, one without any force, and one of low beta that ends with the window of linear growth."""
    along, across = config.per_cell, config.oblique_per_cell
    short = min(1.05 * WINDOW[1] * config.gradient_length, config.time)
    return [
        Arm("heat_along", 0.0, True, False, config.beta, along, config.time),
        Arm("no_force", 0.0, False, False, config.beta, along, config.time),
        Arm("low_beta", 0.0, True, False, config.low_beta, along, short),
        Arm("shear_across", config.angle, False, True, config.beta, across, config.time),
        Arm("heat_across", config.angle, True, False, config.beta, across, config.time),
        Arm("both_across", config.angle, True, True, config.beta, across, config.time),
    ]


class Box(NamedTuple):
    """A model and what its diagnostics need."""

    model: plasma.ParticleInCell
    direction: plasma.Vector


class Run(NamedTuple):
    """One arm, all seeds: histories stacked along the first axis."""

    arm: Arm
    seen: dict[str, np.ndarray]
    wavenumber: np.ndarray
    last: plasma.Vector  # momenta at the end of the first seed
    scales: plasma.PlasmaScales

    @property
    def time(self) -> np.ndarray:
        """In 1/Ω."""
        return self.seen["time"]

    @property
    def flux(self) -> np.ndarray:
        """In n T v_th."""
        return self.seen["heat_flux"] / (self.scales.theta * self.scales.thermal_speed)

    @property
    def ratio(self) -> np.ndarray:
        """p_∥ / p_⊥."""
        return self.seen["parallel"] / self.seen["perpendicular"]

    @property
    def delta_beta(self) -> np.ndarray:
        """Δ β, Δ = (p_⊥ - p_∥) / p."""
        across, along = self.seen["perpendicular"], self.seen["parallel"]
        return 3 * (across - along) / (along + 2 * across) * self.arm.beta

    def energy(self, helicity: str) -> np.ndarray:
        """Of the waves that are counted, in B₀²."""
        counted = self.wavenumber <= LARGEST
        return self.seen[helicity][..., counted].sum(-1) / self.scales.gyrofrequency**2

    def eta(self, config: Boxes) -> np.ndarray:
        """v_th t / L."""
        return self.time / config.gradient_length


def _look(state: plasma.PlasmaState, box: Box) -> dict[str, Array]:
    electrons = state.particles[0]
    now = plasma.moments(electrons.momentum, box.direction)
    spectrum = plasma.spectrum_by_helicity(state.magnetic, box.model.dx)
    half = spectrum.positive.shape[0] // 2
    strip = state.magnetic.z
    return {
        "heat_flux": now.heat_flux,
        "parallel": now.parallel_pressure,
        "perpendicular": now.perpendicular_pressure,
        "drift": now.drift,
        "energy": now.kinetic_energy + plasma.field_energy(state.electric, state.magnetic),
        "positive": spectrum.positive[:half],
        "negative": spectrum.negative[:half],
        "redrawn": electrons.redrawn,
        "gauss_error": jnp.abs(box.model.gauss_error(state)).max(),
        "strip": strip if strip.ndim == 1 else strip[:, 0],
    }


def _step(state: plasma.PlasmaState, i: Array, box: Box) -> plasma.PlasmaState:
    return step(state, i, box.model)


@eqx.filter_jit
def _momenta(key: Array, theta: Array, n: int) -> tuple[plasma.Vector, Array]:
    u = plasma.maxwellian(key, theta, n)
    return u, plasma.kinetic_energy(u).mean()


@eqx.filter_jit
def _start(model: plasma.ParticleInCell, key: Array, u: plasma.Vector) -> plasma.PlasmaState:
    rest = [species.draw(jax.random.fold_in(key, i), u.x.size) for i, species in enumerate(model.species[1:])]
    return model.start(key, momenta=[u, *rest])


def _time_step(config: Boxes) -> float:
    """In 1/ωₚ."""
    return config.courant * config.dx / math.sqrt(len(config.shape))


def _box(config: Boxes, arm: Arm, offset: Array) -> Box:
    scales = plasma.PlasmaScales(config.theta, arm.beta)
    radians = math.radians(arm.angle)
    direction = (math.cos(radians), math.sin(radians), 0.0)
    length = config.gradient_length * scales.gyroradius if arm.has_heat else math.inf
    rate = config.shear * scales.gyrofrequency if arm.has_shear else 0.0
    force = plasma.SumForce(
        plasma.TemperatureGradientForce(length, direction, config.theta, offset),
        plasma.VelocityGradientForce.gyrotropic(rate, direction),
    )
    cap = plasma.RunawayCap.thermal(config.theta, config.cap)
    species = [plasma.Species(config.theta, arm.per_cell, force=force, cap=cap)]
    if config.ion_mass:
        species.append(plasma.Species(config.theta / config.ion_mass, arm.per_cell, charge=1.0, mass=config.ion_mass))
    model = plasma.ParticleInCell(
        config.shape,
        species,
        dx=config.dx,
        dt=_time_step(config),
        magnetic=tuple(scales.gyrofrequency * part for part in direction),
    )
    return traced(Box(model, plasma.Vector(*direction)))


def _simulate(config: Boxes, session: Session, arm: Arm, key: Array) -> Run:
    histories, ends = [], []
    scales, dt = plasma.PlasmaScales(config.theta, arm.beta), _time_step(config)
    steps = round(float(arm.time / scales.gyrofrequency) / dt)
    for seed in range(config.seeds):
        mine = jax.random.fold_in(key, seed)
        u, offset = _momenta(mine, jnp.asarray(config.theta, jnp.float32), math.prod(config.shape) * arm.per_cell)
        box = _box(config, arm, offset)
        loop = session.loop(
            _step,
            _start(box.model, mine, u),
            steps=steps,
            args=box,
            every=max(steps // config.looks, 1),
            watch=_look,
            label=f"{arm.name}, {seed}",
        )
        histories.append(loop.history)
        ends = ends or [jax.tree.map(np.asarray, loop.state.particles[0].momentum)]
    seen: dict[str, Any] = {name: np.stack([history[name] for history in histories]) for name in histories[0]}
    seen["strip"] = seen["strip"][0] / scales.gyrofrequency
    seen["time"] = seen.pop("step")[0] * dt * scales.gyrofrequency
    wavenumber = 2 * np.pi * np.arange(1, seen["positive"].shape[-1] + 1) / (config.shape[0] * config.dx) * scales.gyroradius
    return Run(arm, seen, wavenumber, ends[0], scales)


def _unscattered(config: Boxes, session: Session, arm: Arm, key: Array) -> np.ndarray:
    """Heat flux of the same electrons in the field of their mean current alone, in n T v_th, at the same times."""
    fluxes = []
    scales = plasma.PlasmaScales(config.theta, arm.beta)
    steps = round(float(arm.time / scales.gyrofrequency) / _time_step(config))
    for seed in range(config.seeds):
        mine = jax.random.fold_in(key, seed)
        n = math.prod(config.shape) * arm.per_cell
        u, offset = _momenta(mine, jnp.asarray(config.theta, jnp.float32), n)
        box = _box(config, arm, offset)
        same = box.model.species[0]
        electrons = traced(plasma.Species(config.theta, n, force=same.force, cap=same.cap))
        gas = plasma.ForcedGas(electrons, dt=box.model.dt, magnetic=tuple(box.model.magnetic), is_coupled=True)
        start = _start_gas(gas, mine)._replace(momentum=u)
        loop = session.loop(
            _step_gas,
            start,
            steps=steps,
            args=(gas, box.direction),
            every=max(steps // config.looks, 1),
            watch=_look_gas,
            label=f"{arm.name} without waves, {seed}",
        )
        fluxes.append(loop.history["heat_flux"] / (scales.theta * scales.thermal_speed))
    return np.stack(fluxes)


def _step_gas(state: plasma.GasState, i: Array, args: tuple[plasma.ForcedGas, plasma.Vector]) -> plasma.GasState:
    return step(state, i, args[0])


def _look_gas(state: plasma.GasState, args: tuple[plasma.ForcedGas, plasma.Vector]) -> dict[str, Array]:
    return {"heat_flux": plasma.moments(state.momentum, args[1]).heat_flux}


@eqx.filter_jit
def _start_gas(gas: plasma.ForcedGas, key: Array) -> plasma.GasState:
    return gas.start(key)


def run_boxes(config: Boxes, session: Session, key: Array) -> Findings:
    """C3, C4, C5 and C7, and the cap of C6."""
    runs = {arm.name: _simulate(config, session, arm, key) for arm in arms(config)}
    heat = runs["heat_along"]
    free, low_free = (_unscattered(config, session, runs[name].arm, key) for name in ("heat_along", "low_beta"))
    end, late = slice(-max(config.looks // 30, 1), None), slice(-max(config.looks // 3, 1), None)
    measures = _whistlers(config, session, runs, free, end) | _early_flux(config, session, [(heat, free), (runs["low_beta"], low_free)])
    measures |= _firehose(session, runs["shear_across"], end, late)
    both, alone = runs["both_across"], runs["heat_across"]
    middle = np.abs(both.time / both.time[-1] - 2 / 3) <= max(1 / 60, 0.6 / config.looks)
    energies = [run.energy("positive") + run.energy("negative") for run in (both, alone)]
    measures["C5.flux_difference"] = Measure.paired(*(run.flux[:, end].mean(1) for run in (both, alone)))
    measures["C5.early_energy_ratio"] = Measure.paired(*(energy[:, middle].mean(1) for energy in energies), kind="log-ratio")
    particles = math.prod(config.shape) * heat.arm.per_cell
    measures["C6.capped_share"] = Measure.over_seeds(heat.seen["redrawn"][:, -1] / particles)
    worst = max(float(run.seen["gauss_error"].max()) for run in runs.values())
    session.note(f"Gauss's law is off by at most {worst:.1e} of the density at any node, in any box, at any time looked at")
    others = ", ".join(
        f"{name} {run.seen['redrawn'][:, -1].mean() / math.prod(config.shape) / run.arm.per_cell:.2g}" for name, run in runs.items()
    )
    session.note(f"share of particles drawn anew over the run: {others}")
    data = {name: _dataset(run) for name, run in runs.items()}
    shear = runs["shear_across"]
    affine = shear.ratio[:, 0].mean() * np.exp(2 * config.shear * shear.time)
    data["shear_across"]["unchecked"] = ("time", affine, {"units": "1"})
    data["heat_along"]["linear_growth"] = (
        ("time", "wavenumber"),
        _foldings(config, heat, 0 * heat.time).astype(np.float32),
        {"units": "1"},
    )
    data["without_waves"] = xr.Dataset(
        {
            "heat_flux": (("seed", "time"), free, {"units": "n T v_th"}),
            "linear": ("time", _slope(config) * heat.eta(config), {"units": "n T v_th"}),
        },
        {"time": ("time", heat.time, {"units": "1/Omega"})},
    )
    data["without_waves_low_beta"] = xr.Dataset(
        {"heat_flux": (("seed", "time"), low_free, {"units": "n T v_th"})}, {"time": ("time", runs["low_beta"].time, {"units": "1/Omega"})}
    )
    data["distribution"] = _distribution(config, heat)
    return Findings(measures, xr.DataTree.from_dict(data))


def _whistlers(config: Boxes, session: Session, runs: dict[str, Run], free: np.ndarray, end: slice) -> dict[str, Measure]:
    heat = runs["heat_along"]
    growing, other = (run_energy[:, end].mean(1) for run_energy in (heat.energy("negative"), heat.energy("positive")))
    peaks = heat.wavenumber[heat.seen["negative"][:, end].mean(1).argmax(-1)]
    ratios = heat.flux[:, end].mean(1) / free[:, end].mean(1)
    quiet = runs["no_force"]
    idle = np.exp(np.log(quiet.energy("negative")[:, end].mean(1) / quiet.energy("positive")[:, end].mean(1)).mean())
    session.note(f"without any force the ratio of the two helicities is {idle:.2f} at the end")
    eta, slope = heat.eta(config), _slope(config)
    with_waves, without = (flux[:, end].mean() / (slope * eta[end].mean()) for flux in (heat.flux, free))
    session.note(
        f"at the end, η = {eta[-1]:.2f}, the heat flux is {with_waves:.3f} of its linear growth, {slope:.3f} η, and that of the same "
        f"particles without waves {without:.3f} of it: the force itself, runaways and the cap bend it too"
    )
    counted = heat.wavenumber <= LARGEST
    noise, waves = (run.seen["negative"][:, end].mean((0, 1))[counted] for run in (quiet, heat))
    own = heat.delta_beta.mean(0)
    plain, stilled = (_foldings(config, heat, part)[end].mean(0)[counted] for part in (0 * own, own))
    found, predicted, with_own = (np.log(part.sum() / noise.sum()) for part in (waves, noise * np.exp(plain), noise * np.exp(stilled)))
    session.note(
        f"the whistlers' energy ends {found:.1f} e-foldings above the noise of a box without force; linear theory's ∫ 2 γ dt gives "
        f"{predicted:.1f}, and {with_own:.1f} with the pressure anisotropy that the force makes as well, at the end Δβ = "
        f"{own[end].mean():.0f}"
    )
    session.note(
        f"linear theory's fastest whistler for half the final drive has k ρₑ = {fastest(0.5 * slope / 1.25 * eta[-1] * config.beta):.2f}"
    )
    return {
        "C3.helicity_ratio": Measure.paired(growing, other, kind="log-ratio"),
        "C3.peak_wavenumber": Measure.over_seeds(peaks),
        "C3.flux_over_linear": Measure.over_seeds(ratios),
    }


def _early_flux(config: Boxes, session: Session, pairs: list[tuple[Run, np.ndarray]]) -> dict[str, Measure]:
    """C7, of the first run; each run stands beside the flux of its electrons without waves."""
    errors = []
    for run, free in pairs:
        eta = run.eta(config)
        error, farthest = early_error(run.flux, eta, _slope(config))
        there = np.arange(len(error)), farthest
        errors.append(error)
        session.note(
            f"early heat flux at beta {run.arm.beta:g}: its largest relative distance from {_slope(config):.3f} η for {WINDOW[0]:g} < η < "
            f"{WINDOW[1]:g} is {error.mean():.3f}, at η = {eta[farthest].mean():.2f}, and that of the same electrons without waves "
            f"{early_error(free, eta, _slope(config))[0].mean():.3f}: the line is their linear response, which they leave by themselves. "
            f"There the flux is {(run.flux[there] / free[there]).mean():.3f} of theirs"
        )
    return {"C7.early_flux_error": Measure.over_seeds(errors[0])}


def _slope(config: Boxes) -> float:
    """Of the heat flux over η."""
    return float(plasma.heat_flux_growth(config.theta))


def _foldings(config: Boxes, run: Run, anisotropy: np.ndarray) -> np.ndarray:
    """Of the waves that are counted, by linear theory, with η as the heat flux's slope has it."""
    drive = _slope(config) / 1.25 * run.eta(config) * run.arm.beta
    found = foldings(run.wavenumber, run.time, run.arm.beta, heat_flux=drive, anisotropy=anisotropy)
    return np.where(run.wavenumber <= LARGEST, found, 0.0)


def _firehose(session: Session, run: Run, end: slice, late: slice) -> dict[str, Measure]:
    mean = run.delta_beta.mean(0)
    crossed = run.time[mean < FIREHOSE]
    if crossed.size:
        energy = (run.energy("positive") + run.energy("negative")).mean(0)[mean < FIREHOSE]
        session.note(
            f"the velocity gradient takes Δβ through {FIREHOSE:g} at Ωt = {crossed[0]:.0f}, where the waves hold {energy[0]:.3f} B₀², and "
            f"to {mean.min():.1f}; at the end they hold {energy[-1]:.2f} B₀² and Δβ is {mean[end].mean():.1f}: under so strong "
            "a gradient the anisotropy runs ahead of them"
        )
    helicities = [run.energy(name)[:, late].mean(1) for name in ("positive", "negative")]
    return {
        "C4.peak_anisotropy": Measure.over_seeds(run.ratio.max(1)),
        "C4.final_minus_peak": final_minus_peak(run.ratio, run.ratio[0, end].size),
        "C4.final_delta_beta": Measure.over_seeds(run.delta_beta[:, end].mean(1)),
        "C4.helicity_balance": Measure.paired(*helicities, kind="log-ratio"),
    }


def _dataset(run: Run) -> xr.Dataset:
    field = run.scales.gyrofrequency**2
    pressure = run.scales.theta
    several = {
        "heat_flux": (run.flux, "n T v_th"),
        "parallel_pressure": (run.seen["parallel"] / pressure, "n T"),
        "perpendicular_pressure": (run.seen["perpendicular"] / pressure, "n T"),
        "drift": (run.seen["drift"] / run.scales.thermal_speed, "v_th"),
        "energy": (run.seen["energy"] / pressure, "n T"),
        "redrawn": (run.seen["redrawn"], "particles"),
        "gauss_error": (run.seen["gauss_error"], "n"),
        "energy_positive": (run.energy("positive"), "B0^2"),
        "energy_negative": (run.energy("negative"), "B0^2"),
    }
    variables: dict[str, Any] = {name: (("seed", "time"), values, {"units": units}) for name, (values, units) in several.items()}
    for helicity in ("positive", "negative"):
        variables[f"spectrum_{helicity}"] = (("time", "wavenumber"), run.seen[helicity].mean(0) / field, {"units": "B0^2"})
    variables["strip"] = (("time", "x"), run.seen["strip"].astype(np.float32), {"units": "B0"})
    n = run.seen["strip"].shape[1]
    coordinates = {
        "time": ("time", run.time, {"units": "1/Omega"}),
        "wavenumber": ("wavenumber", run.wavenumber, {"units": "1/rho"}),
        "x": ("x", (np.arange(n) + 0.5) / n * 2 * np.pi / run.wavenumber[0], {"units": "rho"}),
    }
    return xr.Dataset(variables, coordinates, {"beta": run.arm.beta})


def _distribution(config: Boxes, run: Run) -> xr.Dataset:
    """f(u_∥, u_⊥) at the end, less the Maxwellian, over its peak."""
    along, across = (np.asarray(part) / np.sqrt(2 * config.theta) for part in (run.last.x, np.hypot(run.last.y, run.last.z)))
    edges = np.linspace(-3, 3, 49), np.linspace(0, 3, 25)
    counts, *_ = np.histogram2d(along, across, edges)
    x, y = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
    volume = np.pi * np.diff(edges[1] ** 2)[None] * np.diff(edges[0])[:, None]
    f = counts / along.size / volume * np.pi**1.5
    change = f - np.exp(-(x[:, None] ** 2) - y[None] ** 2)
    return xr.Dataset(
        {"change": (("along", "across"), change, {"units": "of the Maxwellian's peak"})},
        {"along": ("along", x, {"units": "sqrt(2 theta)"}), "across": ("across", y, {"units": "sqrt(2 theta)"})},
    )
