"""The loss around trained networks: its largest curvatures, and a slice along the two directions that have them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray, PyTree

from gradatim.lab import Session
from gradatim.landscape import Plane, plane_slice, top_eigenpairs
from gradatim.numerics import HessianOperator
from gradatim.sciml import AbstractPINN, Points, collocation_grid

from .config import Config
from .training import WEIGHTS, Method, Trained, cases
from .truth import HORIZON, PERIOD

SPEEDS = (1.0, 30.0)
"A slow and a fast convection."
REACH = 0.2
"Half a side of a slice, in the norm of the parameters."


def measure_landscapes(config: Config, trained: dict[Method, Trained], session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """Both methods at both speeds: eigenvalues for every seed, a slice for the first."""
    methods: tuple[Method, ...] = ("fixed", "moving")
    points = collocation_grid(config.places, config.times, period=PERIOD, horizon=HORIZON)
    axis = jnp.linspace(-REACH, REACH, config.grid)
    shape = (len(methods), len(SPEEDS), config.seeds, 2)
    values, residuals = np.zeros(shape), np.zeros(shape)
    slices = np.zeros((len(methods), len(SPEEDS), config.grid, config.grid))
    for i, method in enumerate(methods):
        todo = cases(config, method)
        for j, speed in enumerate(SPEEDS):
            number = next(n for n, case in enumerate(todo) if (case.equation, case.speed) == ("convection", speed))
            for seed in range(config.seeds):
                at = number * config.seeds + seed
                model = jax.tree.map(lambda leaf, at=at: leaf[at] if eqx.is_array(leaf) else leaf, trained[method].models)
                found = session.once(f"curvature, {method}, {speed:g}, {seed}", _curvature, config, model, points, axis, key)
                values[i, j, seed], residuals[i, j, seed] = found["values"], found["residuals"]
                if seed == 0:
                    slices[i, j] = found["slice"]
    return xr.Dataset(
        {
            "eigenvalue": (("frame", "speed", "seed", "rank"), values, {"units": "1"}),
            "residual": (("frame", "speed", "seed", "rank"), residuals, {"units": "1"}),
            "slice": (("frame", "speed", "first", "second"), slices, {"units": "1"}),
        },
        {"frame": list(methods), "speed": list(SPEEDS), "first": np.asarray(axis), "second": np.asarray(axis)},
    )


class _Loss(eqx.Module):
    """Of what is trained and the points, for one problem."""

    rest: PyTree

    def __call__(self, trained: PyTree, points: Points) -> Array:
        return eqx.combine(trained, self.rest).loss(points, WEIGHTS)


@eqx.filter_jit
def _curvature(config: Config, model: AbstractPINN, points: Points, axis: Array, key: PRNGKeyArray) -> dict[str, Array]:
    trained, rest = model.split()
    pairs = top_eigenpairs(HessianOperator(_Loss(rest), trained, points), 2, key=key, steps=config.lanczos_steps)
    first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pairs.vectors) for i in range(2))
    heights = plane_slice(lambda trained: _Loss(rest)(trained, points), Plane(trained, first, second), axis, axis)
    return {"values": pairs.values, "residuals": pairs.residuals, "slice": heights}
