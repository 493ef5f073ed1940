"""How often an adaptive solver asks for the velocity, where that is exact."""

from __future__ import annotations

import math
from itertools import repeat

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Int

from gradatim.lab import Session
from gradatim.transport import EmpiricalVelocity, TabulatedPath, sample_flow_adaptively

from .config import Config
from .estimates import estimated, refined_angles
from .images import digits
from .paths import LAST, NAMES, tables_of_each

FIRST = 1e-4
"Where flows begin: at the noise itself the optimal path's a′ is not bounded."


def run_solver(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """Evaluations of the digits' exact velocity by Dormand and Prince's pair, for each path from the same starting points.

    The noise of the estimate behind an optimal path moves its counts from all starting points alike: a replicate has both of its own.
    """
    settings, n_nodes = config.solver, config.images.nodes
    key_noise, key_start = jax.random.split(key)
    x = digits(config, session, 8)
    keys = jax.random.split(key_noise, settings.replicates)
    sets = repeat(x, settings.replicates)
    separations = estimated(session, "separations for the solver", sets, keys, n_noise=settings.noise, n_nodes=n_nodes)
    shape = (settings.replicates, settings.samples, x.shape[1])
    x0 = jax.random.normal(key_start, (math.prod(shape),)).reshape(shape)
    tables = tables_of_each(separations)
    counts, distances = session.once(
        "evaluations of an adaptive solver",
        lambda: [np.asarray(part) for part in _flows(tables, x.astype(jnp.float64), x0, tolerance=settings.tolerance)],
    )
    dims = ("replicate", "path", "sample")
    data = xr.Dataset(
        {
            "evaluations": (dims, counts, {"units": "1"}),
            "distance": (dims, distances, {"units": "1"}),
            "root_gamma": (("replicate", "angle"), np.asarray(separations.root_gamma), {"units": "1"}),
        },
        coords={"path": list(NAMES), "angle": refined_angles(n_nodes)},
    )
    session.note(
        "Evaluations of the exact velocity of the digits, mean: "
        + ", ".join(f"{name} {value:.0f}" for name, value in zip(NAMES, counts.mean(axis=(0, 2)), strict=True))
        + f"; root mean square distance to the nearest digit at the end, per coordinate: {distances.max():.2g} at most"
    )
    return {"solver": data}


@eqx.filter_jit
def _flows(
    tables: TabulatedPath, x: Float[Array, "n dim"], x0: Float[Array, "replicate sample dim"], *, tolerance: float
) -> tuple[Int[Array, "replicate path sample"], Float[Array, "replicate path sample"]]:
    def flow(path: TabulatedPath, x0: Float[Array, " dim"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
        end = sample_flow_adaptively(EmpiricalVelocity(path, x), x0, rtol=tolerance, atol=tolerance, start=FIRST, end=LAST)
        squares = jnp.sum(x**2, axis=1) - 2 * x @ end.x + jnp.sum(end.x**2)
        return end.n_evaluations, jnp.sqrt(jnp.maximum(squares.min(), 0) / x.shape[1])

    of_paths = jax.vmap(jax.vmap(flow, (None, 0)), (0, None))
    return jax.vmap(of_paths)(tables, x0)
