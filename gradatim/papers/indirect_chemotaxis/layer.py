"""The fall onto the manifold of the limit, C5, and of the entropy, C6."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Measure, Session
from gradatim.physics import chemotaxis as ct

from .config import Config
from .start import ill_prepared

ABOVE = 10.0
"The decay is read where the residual is this many times its plateau."
BEGIN = 2.0
"And from this time on, in units of ε: by then the wavy modes are gone."
EVERY = 20
"Steps between snapshots."


def run_layer(config: Config, session: Session) -> Findings:
    """Three time scales from the same ill-prepared start."""
    grid = ct.Box((config.rates.cells,))
    eps = np.asarray(config.layer.time_scales)
    steps = round(config.layer.time * config.layer.steps_per_scale / eps.min() / EVERY) * EVERY
    dt = config.layer.time / steps

    @jax.jit
    def fall(eps: Any) -> dict[str, Any]:
        def one(eps: Any) -> dict[str, Any]:
            model = ct.IndirectChemotaxis(grid, eps, config.rates.spreading)
            found = model.evolve(model.init(*ill_prepared(grid)), dt=dt, n_steps=steps, every=EVERY)
            residuals = jax.vmap(model.manifold_residuals)(found.states)
            return {"attractant": residuals.attractant, "signal": residuals.signal}

        return jax.vmap(one)(eps)

    found = {name: np.asarray(r) for name, r in session.once("residuals", fall, jnp.asarray(eps)).items()}
    time = np.linspace(0, config.layer.time, steps // EVERY + 1)
    scaled = time[None, :] / eps[:, None]
    n0, c0, w0 = (float(field.mean()) for field in ill_prepared(grid))
    # The mean of ∇²c - c + w is known: it holds s e⁻ˢ beside e⁻ˢ, for both signals decay at the same rate.
    algebraic = {"attractant": np.abs((w0 - n0) - (c0 - n0) - (w0 - n0) * scaled), "signal": np.ones_like(scaled)}
    slopes, plateaus = [], {name: residual[:, -1] for name, residual in found.items()}
    for name, residual in found.items():
        for k in range(len(eps)):
            window = (scaled[k] >= BEGIN) & (np.cumsum(residual[k] < ABOVE * plateaus[name][k]) == 0)
            if window.sum() >= 4:
                slopes.append(float(np.polyfit(scaled[k, window], np.log(residual[k, window] / algebraic[name][k, window]), 1)[0]))
    orders = [float(np.log(p[-2] / p[-1]) / np.log(eps[-2] / eps[-1])) for p in plateaus.values()]
    measures, untested = {}, {}
    if slopes:
        measures["C5.decay_rate"] = Measure(float(np.mean(slopes)), min(slopes), max(slopes), "range over both signals and all time scales")
    else:
        untested["C5.decay_rate"] = "the plateau was reached too early in every run"
    measures["C5.plateau_order"] = Measure(float(np.mean(orders)), min(orders), max(orders), "range over both signals, last pair")
    session.note(
        "decay: the attractant's residual is divided by the algebraic factor of its mean mode, |(w₀ - M) - (c₀ - M) - (w₀ - M) t/ε|, which "
        "is exact; the signal's has none"
    )
    residuals = xr.Dataset(
        {name: (("eps", "time"), residual, {"units": "1"}) for name, residual in found.items()}
        | {"algebraic": (("eps", "time"), algebraic["attractant"], {"units": "1"})},
        {"eps": ("eps", eps, {"units": "1"}), "time": ("time", time, {"units": "1"})},
    )
    rise, entropies = _entropy(config, session)
    return Findings({**measures, "C6.entropy_rise": rise}, xr.DataTree.from_dict({"layer": residuals, "entropy": entropies}), untested)


def _entropy(config: Config, session: Session) -> tuple[Measure, xr.Dataset]:
    """Every step of ill-prepared runs, full and simplified."""
    grid = ct.Box((config.rates.cells,))
    scales = np.array([*config.rates.time_scales[:2], 0.0])
    steps = max(round(config.rates.time / 1e-3), 10)
    dt = config.rates.time / steps

    def one(eps: Any) -> tuple[Any, Any]:
        model = ct.IndirectChemotaxis(grid, eps, config.rates.spreading)
        found = model.evolve(model.init(*ill_prepared(grid)), dt=dt, n_steps=steps, every=1)
        return found.entropy, jax.vmap(model.dissipation)(found.states)

    @jax.jit
    def fall() -> dict[str, Any]:
        full, simple = jax.vmap(one)(jnp.asarray(scales[:-1])), one(0.0)
        return {name: jnp.concatenate([a, b[None]]) for name, a, b in zip(("entropy", "dissipation"), full, simple, strict=True)}

    found = {name: np.asarray(rows) for name, rows in session.once("entropy", fall).items()}
    drops = found["entropy"][:, 0] - found["entropy"].min(1)
    rises = np.maximum(np.diff(found["entropy"], axis=1).max(1), 0) / drops
    # The entropies' own round-off.
    error = float((np.abs(found["entropy"]).max(1) * 1e-15 / drops).max())
    data = xr.Dataset(
        {name: (("eps", "time"), rows, {"units": "1"}) for name, rows in found.items()},
        {"eps": ("eps", scales, {"units": "1"}), "time": ("time", dt * np.arange(steps + 1), {"units": "1"})},
    )
    return Measure.exact(float(rises.max()), error), data
