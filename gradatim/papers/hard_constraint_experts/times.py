"""Times: of solves by the number of constrained points, with one block and with several, and of the classical solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray

from gradatim.implicit import BlockPartition, HardConstraint, MixtureOfConstraints, Parts, Weighed
from gradatim.lab import Session
from gradatim.lab.draws import host_generator
from gradatim.sciml import DiffusionSorption, SpaceTimeGrid, reference_sorption

from .config import Config
from .derivatives import cosines
from .problem import HORIZON, MEAN_INITIAL, Given, Rows

STIFF = ("LSODA", "BDF", "Radau")
CLASSICAL_TIMES = 101
PASSES = ("forward", "forward and backward")


def time_solves(config: Config, session: Session, key: PRNGKeyArray) -> xr.Dataset:
    """Forward, and forward and backward, over a fixed basis of cosines, each repetition at points of its own.

    In a repetition one solve is held to the points of all blocks together. How many steps a solve takes depends on them.
    """
    solves = config.solves
    grid = SpaceTimeGrid(solves.times, solves.places, HORIZON)
    basis = jnp.asarray(cosines(grid, solves.basis))
    initial = jnp.asarray(MEAN_INITIAL * (0.5 + np.arange(solves.batch) / solves.batch))
    calls: dict[str, Callable[[], Any]] = {}
    n_points, n_repeats = len(solves.points), solves.repeats
    steps, failures = np.zeros((2, 2, n_points, n_repeats))
    random = host_generator(key)
    # One more, for the call beforehand.
    drawn = [draw_rivals(config, total, n_repeats + 1, random) for total in solves.points]
    for i, blocks in enumerate((1, config.blocks)):
        forward, backward = _passes(_mixture(config, blocks), grid)
        for j in range(n_points):
            rows = [jnp.asarray(points) for points in drawn[j][i]]
            for k, points in enumerate(rows[1:]):
                found = forward(basis, initial, points)[1]
                steps[i, j, k], failures[i, j, k] = np.asarray(found.n_steps).max(), np.sum(~np.asarray(found.is_converged))
            for name, fn in zip(PASSES, (forward, backward), strict=True):
                calls[f"{name}, {i}, {j}"] = in_turn(lambda points, fn=fn: fn(basis, initial, points), rows)
    seconds = session.timed("solves", calls, repeats=n_repeats)
    times = np.stack([seconds[f"{name}, {i}, {j}"] for name in PASSES for i in range(2) for j in range(n_points)])
    return xr.Dataset(
        {
            "seconds": (("part", "blocks", "points", "repeat"), times.reshape(len(PASSES), *steps.shape), {"units": "s"}),
            "steps": (("blocks", "points", "repeat"), steps, {"units": "1"}),
            "failures": (("blocks", "points", "repeat"), failures, {"units": "1"}),
        },
        {"part": list(PASSES), "blocks": [1, config.blocks], "points": list(solves.points)},
    )


def draw_rivals(config: Config, total: int, sets: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sets of points, as many in every block, axes (set, block, point): numbered within the whole grid, and within the blocks."""
    solves, blocks = config.solves, config.blocks
    width = solves.places // blocks
    places = np.broadcast_to(np.arange(solves.times * width), (sets, blocks, solves.times * width))
    within = random.permuted(places, axis=-1)[..., : total // blocks].astype(np.int32)
    first = width * np.arange(blocks, dtype=np.int32)[:, None]
    whole = within // width * solves.places + first + within % width
    return whole.reshape(sets, 1, -1), within


def in_turn(fn: Callable[[Array], Any], arguments: Sequence[Array]) -> Callable[[], Any]:
    """A call of `fn` with the next of the arguments each time."""
    following = iter(arguments)
    return lambda: fn(next(following))


def _mixture(config: Config, blocks: int) -> MixtureOfConstraints:
    constraint = HardConstraint(Rows(DiffusionSorption()), rtol=config.tolerance, atol=config.tolerance, max_steps=config.max_steps)
    return MixtureOfConstraints(constraint, BlockPartition((1, blocks)))


def _passes(mixture: MixtureOfConstraints, grid: SpaceTimeGrid) -> tuple[Callable[..., Any], Callable[..., Any]]:
    problem = DiffusionSorption()

    def loss(basis: Array, initial: Array, points: Array) -> tuple[Array, Weighed]:
        terms = Parts(problem.terms(basis, grid), problem.edges(basis, grid))

        def one(initial: Array) -> tuple[Array, Weighed]:
            given = Given(initial, jnp.full_like(initial, MEAN_INITIAL), jnp.ones(grid.n_times - 1), jnp.ones_like(initial))
            found = mixture(terms, Parts(None, given), points)
            return jnp.mean(mixture.assemble(basis, found.weights) ** 2), found

        values, found = jax.vmap(one)(initial)
        return jnp.mean(values), found

    return jax.jit(loss), jax.jit(jax.value_and_grad(loss, has_aux=True))


def time_classical(config: Config, session: Session) -> xr.Dataset:
    """Stiff methods with a banded Jacobian over the whole span, and the explicit one over a share of it, scaled up."""
    problem, share = DiffusionSorption(), config.explicit_share

    def solve(method: Any, share: float) -> np.ndarray:
        times = np.linspace(0, HORIZON, CLASSICAL_TIMES) if share == 1 else np.array([0, share * HORIZON])
        found = reference_sorption(
            problem, MEAN_INITIAL, times, n_cells=config.classical_cells, method=method, ends="cell", rtol=1e-3, atol=1e-6
        )
        return found.u[-1]

    calls = {method: lambda method=method: solve(method, 1.0) for method in STIFF} | {"RK45": lambda: solve("RK45", share)}
    seconds = session.timed("classical solvers", calls, repeats=config.classical_repeats)
    precise = reference_sorption(
        problem, MEAN_INITIAL, [0.0, HORIZON], n_cells=config.classical_cells, method="BDF", ends="cell", rtol=1e-9, atol=1e-11
    ).u[-1]
    errors = [float(np.linalg.norm(solve(method, 1.0) - precise) / np.linalg.norm(precise)) for method in STIFF]
    table = np.stack([seconds[method] for method in STIFF] + [seconds["RK45"] / share])
    return xr.Dataset(
        {"seconds": (("solver", "repeat"), table, {"units": "s"}), "error": (("solver",), [*errors, np.nan], {"units": "1"})},
        {"solver": [*STIFF, "RK45"]},
        {"cells": config.classical_cells, "share": share},
    )
