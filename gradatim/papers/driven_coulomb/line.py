"""C6 and C7 along a line, where the critical theory is Burgers's equation."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import PeriodicGrid
from gradatim.physics import electrolyte as el

from .config import Line
from .critical import dataset, over_seeds, say, simulate, slopes

_COLUMNS = 512
"Of the picture in space and time, about."


def run_line(config: Line, session: Session) -> Findings:
    """At rest, boosted, and without the nonlinear term."""
    grid = PeriodicGrid((config.cells,), float(config.cells))
    keys = jax.random.split(jax.random.fold_in(session.key, 2), 2)

    def theory(coupling: float, velocity: float = 0.0) -> el.PolarChemotaxis:
        return el.PolarChemotaxis(grid, mu_ks=coupling, noise=config.noise, tilt=(velocity / coupling if coupling else 0.0,))

    highest = max(config.window[1], config.control_window[1])
    common: dict[str, Any] = {
        "warm": config.warm_steps // config.every,
        "records": config.steps // config.every,
        "seeds": config.seeds,
        "highest": highest,
    }
    arms = [theory(config.coupling), theory(config.coupling, config.velocity)]
    found = simulate(session, "line", arms, dt=config.dt, every=config.every, key=keys[0], **common)
    # A step of the linear theory is exact, so that one leads to the next record.
    linear = simulate(session, "line, linear", [theory(0.0)], dt=config.dt * config.every, every=1, key=keys[1], equilibrium=True, **common)
    structure = np.asarray(el.shell_average(jnp.asarray(np.concatenate([found.structure, linear.structure])), grid))
    lives = np.stack([found.lives, linear.lives])
    k = np.asarray(el.shell_wavenumbers(grid))
    slope = slopes(k, structure, config.window)
    dynamic, linear_dynamic = slopes(k[:highest], lives[0], config.window), slopes(k[:highest], lives[1], config.control_window)
    boosted, at_rest = (np.exp(np.log(structure[arm, :, config.window[0] - 1 : highest]).mean(-1)) for arm in (1, 0))
    measures, untested = over_seeds("C6.dynamic_exponent_1d", -dynamic)
    measures["C7.structure_slope_1d"] = Measure.over_seeds(slope[0])
    measures["C6.boosted_spectrum_ratio"] = Measure.paired(boosted, at_rest, kind="log-ratio")
    say(session, "line", slope[-1], -linear_dynamic, found)
    data = dataset(k, structure, lives, ["at rest", "boosted", "no nonlinear term"])
    # Means over neighbours, of which the picture shows no more.
    block = math.gcd(config.cells, max(config.cells // _COLUMNS, 1))
    data["space_time"] = ("look", "x"), found.fields.reshape(len(found.times), -1, block).mean(-1), {"units": "1/dx"}
    places = block * (np.arange(config.cells // block) + 0.5) - 0.5
    data = data.assign_coords(look=("look", found.times, {"units": "dx²/D"}), x=("x", places, {"units": "dx"}))
    return Findings(measures, xr.DataTree.from_dict({"line": data}), untested)
