"""How often an adaptive solver asks for the velocity, where that is exact."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Session
from gradatim.transport import DataSeparation, EmpiricalVelocity, TabulatedPath, sample_flow_adaptively

from .config import Config
from .images import digits
from .paths import LAST, NAMES, tables_of

FIRST = 1e-4
"Where flows begin: at the noise itself the optimal path's a′ is not bounded."


def run_solver(config: Config, session: Session, key: jax.Array, separation: DataSeparation) -> dict[str, xr.Dataset]:
    """Evaluations of the digits' exact velocity by Dormand and Prince's pair, for each path from the same starting points."""
    x = digits(config, session, 8).astype(jnp.float64)
    n = config.solver.samples
    x0 = jax.random.normal(key, (n * x.shape[1],)).reshape(n, -1)
    counts, distances = session.once(
        "evaluations of an adaptive solver",
        lambda: [np.asarray(part) for part in _flows(tables_of(separation), x, x0, tolerance=config.solver.tolerance)],
    )
    data = xr.Dataset(
        {"evaluations": (("path", "sample"), counts, {"units": "1"}), "distance": (("path", "sample"), distances, {"units": "1"})},
        coords={"path": list(NAMES)},
    )
    session.note(
        "Evaluations of the exact velocity of the digits, mean: "
        + ", ".join(f"{name} {value:.0f}" for name, value in zip(NAMES, counts.mean(axis=1), strict=True))
        + f"; root mean square distance to the nearest digit at the end, per coordinate: {distances.max():.2g} at most"
    )
    return {"solver": data}


@eqx.filter_jit
def _flows(tables: TabulatedPath, x: jax.Array, x0: jax.Array, *, tolerance: float) -> tuple[jax.Array, jax.Array]:
    def flow(path: TabulatedPath, x0: jax.Array) -> tuple[jax.Array, jax.Array]:
        end = sample_flow_adaptively(EmpiricalVelocity(path, x), x0, rtol=tolerance, atol=tolerance, start=FIRST, end=LAST)
        squares = jnp.sum(x**2, axis=1) - 2 * x @ end.x + jnp.sum(end.x**2)
        return end.n_evaluations, jnp.sqrt(jnp.maximum(squares.min(), 0) / x.shape[1])

    return jax.vmap(jax.vmap(flow, (None, 0)), (0, None))(tables, x0)
