"""C6 and C7 in the plane, at strong coupling."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.numerics import PeriodicGrid
from gradatim.physics import electrolyte as el

from .config import Plane
from .critical import dataset, over_seeds, say, simulate, slopes

_PICTURES = (0.01, 0.03, 0.1, 1.0)
"Moments of the strip of pictures, as parts of the whole time."


def run_plane(config: Plane, session: Session) -> Findings:
    """With the nonlinear terms, with a little of the other one besides, and without any."""
    grid = PeriodicGrid((config.cells,) * 2, float(config.cells))
    keys = jax.random.split(jax.random.fold_in(session.key, 3), 2)
    highest = max(config.life_window[1], config.control_window[1])
    common: dict[str, Any] = {
        "warm": config.warm_steps // config.every,
        "records": config.steps // config.every,
        "seeds": config.seeds,
        "highest": highest,
    }
    critical = el.PolarChemotaxis(grid, mu_ks=config.mu_ks, mu_polar=config.mu_polar, noise=config.noise)
    found = simulate(session, "plane", [critical], dt=config.dt, every=config.every, key=keys[0], **common)
    # The same noise, so that the two differ by the term alone.
    mixed = el.PolarChemotaxis(grid, mu_ks=config.mu_ks + config.control_mu_ks, mu_polar=config.mu_polar, noise=config.noise)
    beside = simulate(session, "plane, other term", [mixed], dt=config.dt, every=config.every, key=keys[0], **common)
    still = el.PolarChemotaxis(grid, noise=config.noise)
    linear = simulate(session, "plane, linear", [still], dt=config.dt * config.every, every=1, key=keys[1], equilibrium=True, **common)
    spectra = np.concatenate([found.structure, beside.structure, linear.structure])
    structure = np.asarray(el.shell_average(jnp.asarray(spectra), grid))
    lives = np.stack([found.lives, linear.lives])
    beside_dynamic = slopes(np.asarray(el.shell_wavenumbers(grid))[:highest], beside.lives, config.life_window)
    k = np.asarray(el.shell_wavenumbers(grid))
    slope = slopes(k, structure, config.window)
    dynamic, linear_dynamic = slopes(k[:highest], lives[0], config.life_window), slopes(k[:highest], lives[1], config.control_window)
    variance = np.asarray(jax.jit(jax.vmap(jax.vmap(lambda s: el.number_variance(s, grid, config.sides))))(jnp.asarray(spectra, float)))
    number = slopes(np.asarray(config.sides, float), variance, (1, len(config.sides)))
    measures, untested = over_seeds("C6.dynamic_exponent_2d", -dynamic)
    measures["C7.structure_slope_2d"] = Measure.over_seeds(slope[0])
    measures["C7.number_variance_exponent_2d"] = Measure.over_seeds(number[0])
    say(session, "plane", slope[-1], -linear_dynamic, found)
    session.note(
        f"Critical theory, plane: with μ₁ larger by {config.control_mu_ks:g} the structure factor has the slope {slope[1].mean():.2f} "
        f"instead of {slope[0].mean():.2f}, z is {-beside_dynamic.mean():.2f} instead of {-dynamic.mean():.2f}, and numbers vary with the "
        f"exponent {number[1].mean():.2f} instead of {number[0].mean():.2f}; without nonlinear terms with {number[-1].mean():.2f}."
    )
    data = dataset(k, structure, lives, ["critical", f"μ₁ + {config.control_mu_ks:g}", "no nonlinear terms"])
    data["number_variance"] = ("arm", "seed", "side"), variance, {"units": "1"}
    looks = [round(part * (len(found.times) - 1)) for part in _PICTURES]
    density = found.fields[looks]
    signal = np.asarray(
        jax.jit(lambda rho: grid.backward(-grid.inverse_laplacian()[None] * grid.forward(rho)))(jnp.asarray(density, float))
    )
    data["density"] = ("time", "x", "y"), density, {"units": "1/dx²"}
    data["signal"] = ("time", "x", "y"), signal, {"units": "1"}
    data = data.assign_coords(time=("time", found.times[looks], {"units": "dx²/D"}), side=("side", list(config.sides), {"units": "dx"}))
    return Findings(measures, xr.DataTree.from_dict({"plane": data}), untested)
