"""Growth of small waves beside linear theory: the threshold is the same for every ε."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Findings, Session
from gradatim.physics import chemotaxis as ct

from .config import Config

STEPS = 400
"Of which the second half is looked at, when the faster modes are gone."


def run_waves(config: Config, session: Session) -> Findings:
    """The first cosine on a uniform state, for densities across the threshold."""
    grid, tau = ct.Box((config.rates.cells,)), config.rates.spreading
    mu = float(grid.eigenvalues(np.dtype(np.float64))[1])
    densities = np.asarray(config.waves.densities) * float(ct.instability_threshold(mu, tau))
    scales = (*config.waves.time_scales, 0.0)
    wave = jnp.cos(jnp.pi * grid.centres[0])

    def rate(eps: Any, dt: Any, density: Any) -> Any:
        model = ct.IndirectChemotaxis(grid, eps, tau)
        growth = ct.growth_rate(density, mu, eps=eps, tau=tau)
        signal = 1e-6 / (1 + tau * mu + eps * growth)
        # The growing wave alone: the others would need many ε to fade.
        amplitudes = (1e-6, signal / (1 + mu + eps * growth), signal)
        found = model.evolve(model.init(*(density * (1 + a * wave) for a in amplitudes)), dt=dt, n_steps=STEPS, every=STEPS // 2).cells
        _, early, late = (found * wave[None]).mean(1)
        return jnp.log(late / early) / (dt * (STEPS // 2))

    @jax.jit
    def grow(densities: Any) -> dict[str, Any]:
        dts = config.waves.dt * jnp.array([1.0, 0.5])
        full = jax.vmap(lambda eps: jax.vmap(lambda dt: jax.vmap(lambda n: rate(eps, dt, n))(densities))(dts))(jnp.asarray(scales[:-1]))
        simple = jax.vmap(lambda dt: jax.vmap(lambda n: rate(0.0, dt, n))(densities))(dts)
        rates = jnp.concatenate([full, simple[None]])
        # Of first order in dt: extrapolated from two steps.
        return {"rate": 2 * rates[:, 1] - rates[:, 0]}

    @jax.jit
    def predict(densities: Any, scales: Any) -> Any:
        return jax.vmap(lambda eps: ct.growth_rate(densities, mu, eps=eps, tau=tau))(scales)

    measured = np.asarray(session.once("growth of waves", grow, jnp.asarray(densities))["rate"])
    fine = np.linspace(densities.min(), densities.max(), 101)
    both = np.asarray(predict(jnp.asarray(np.concatenate([fine, densities])), jnp.asarray(scales)))
    theory, at_points = both[:, : fine.size], both[:, fine.size :]
    session.note(f"growth of small waves: largest distance from linear theory {np.abs(measured - at_points).max():.2e}")
    data = xr.Dataset(
        {"rate": (("eps", "density"), measured, {"units": "1"}), "theory": (("eps", "theory_density"), theory, {"units": "1"})},
        {
            "eps": ("eps", list(scales), {"units": "1"}),
            "density": ("density", densities, {"units": "1"}),
            "theory_density": ("theory_density", fine, {"units": "1"}),
        },
    )
    return Findings({}, xr.DataTree.from_dict({"waves": data}))
