"""Bars of iron with carbon or nitrogen between two temperatures."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import phase_field as pf

from .config import Bars
from .simulation import each, evolve

_IRON = {"carbon": (-100e3, 2e-6, 84.1e3), "nitrogen": (-75e3, 1.5e-6, 79.9e3)}
"Q* (J/mol), D₀ (m²/s) and activation energy (J/mol) of carbon (C. Wert 1950) and nitrogen in alpha iron: handbook values."


@each
def _see_composition(c: Array, model: pf.Thermotransport, extra: Any) -> dict[str, Array]:
    del model, extra
    return {"c": c}


def run_bars(config: Bars, session: Session) -> Findings:
    """C1: both solutes until they rest, against the Soret steady state."""
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
    end, seen = evolve(
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
    reason = "the measurements are in no package and could not be read"
    untested = {
        "C1.darken_oriani_deviation": f"{reason}; reading the handbook value back tests the solver only",
        "C1.two_phase_bar_deviation": f"{reason}, nor has any package the free energy of iron with carbon beyond one phase",
    }
    return Findings(measures, xr.DataTree.from_dict({"bars": data}), untested)
