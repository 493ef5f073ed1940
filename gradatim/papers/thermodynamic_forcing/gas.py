"""A gas without fields against the Chapman–Enskog drive: heat flux and anisotropy."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import plasma

from .config import Gas
from .traced import traced

ALONG = (1.0, 0.0, 0.0)


def step(state: Any, i: Array, model: Any) -> Any:
    """One step of a gas or of a box."""
    del i
    return model(state)


def _watch(state: plasma.GasState, gas: plasma.ForcedGas) -> dict[str, Array]:
    del gas
    now = plasma.moments(state.momentum, plasma.Vector(*(jnp.asarray(part) for part in ALONG)))
    return {"heat_flux": now.heat_flux, "ratio": now.parallel_pressure / now.perpendicular_pressure}


@eqx.filter_jit
def _start(gas: plasma.ForcedGas, key: Array) -> plasma.GasState:
    return gas.start(key)


def run_gas(config: Gas, session: Session, key: Array) -> Findings:
    """C1: each force alone, for every seed."""
    theta, thermal = config.theta, np.sqrt(2 * config.theta)
    duration = 1.0 / thermal
    heat = plasma.TemperatureGradientForce(1 / config.eta, ALONG, theta)
    shear = plasma.VelocityGradientForce.gyrotropic(config.strain / duration, ALONG)
    # Both forces in one program: the other one is infinitely long, or does not strain.
    rest = plasma.TemperatureGradientForce(np.inf, ALONG, theta), plasma.VelocityGradientForce(np.zeros((3, 3)))
    forces = {"heat": plasma.SumForce(heat, rest[1]), "shear": plasma.SumForce(rest[0], shear)}
    seen: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in forces}
    for i in range(config.seeds):
        for name, force in forces.items():
            species = plasma.Species(theta, config.particles, force=force)
            gas = traced(plasma.ForcedGas(species, dt=duration / config.steps))
            state = _start(gas, jax.random.fold_in(key, i))
            loop = session.loop(
                step, state, steps=config.steps, args=gas, every=max(config.steps // 10, 1), watch=_watch, label=f"gas, {name}, {i}"
            )
            seen[name].append(loop.history)
    fraction = seen["heat"][0]["step"] / config.steps
    eta, strain = config.eta * fraction, config.strain * fraction
    flux = np.stack([history["heat_flux"] for history in seen["heat"]]) / (theta * thermal)
    ratio = np.stack([history["ratio"] / history["ratio"][0] for history in seen["shear"]])
    slopes = (flux * eta).sum(1) / (eta**2).sum()
    measures = {
        "C1.heat_flux_slope": Measure.over_seeds(slopes),
        "C1.anisotropy_error": Measure.exact(float(np.abs(ratio / np.exp(2 * strain) - 1).max())),
    }
    data = xr.Dataset(
        {
            "heat_flux": (("seed", "eta"), flux, {"units": "n T v_th"}),
            "anisotropy": (("seed", "strain"), ratio, {"units": "of the start"}),
        },
        {"eta": ("eta", eta, {"units": "1"}), "strain": ("strain", strain, {"units": "1"})},
    )
    return Findings(measures, xr.DataTree.from_dict({"gas": data}))
