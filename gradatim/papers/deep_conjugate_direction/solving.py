"""Iterations and seconds of all solvers on the same right-hand sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy.sparse import linalg

from gradatim.lab import Session
from gradatim.sciml import (
    Deflation,
    MaskedDirection,
    PoissonSystem,
    RitzBasis,
    TriangularPreconditioner,
    conjugate_directions,
    conjugate_gradients,
    host_conjugate_gradients,
    incomplete_cholesky,
)

from .config import Config

RTOL = 1e-4
"The authors' tolerance, relative to the first residual."
TIGHT = 1e-8
CLASSICAL = ("conjugate gradients", "Jacobi", "deflated", "incomplete Cholesky")
LEARNED = "learned"
ALIKE = f"{LEARNED}, weights alike"
"Networks whose right-hand sides weigh the spectrum evenly, with two earlier directions."
FALLBACKS = "fallbacks of "
MOST_STEPS = 5000
"Of the classical solvers."


@eqx.filter_jit
def _learned(network: Any, system: PoissonSystem, b: Array, used: Array, rtol: Array, history: int, max_steps: int) -> Any:
    # The number of earlier directions is traced: one program for all.
    direction = MaskedDirection(network, system.is_fluid)

    def solve(b: Array) -> Any:
        return conjugate_directions(system, b, direction, history=history, used=used, rtol=rtol, max_steps=max_steps)

    found = jax.vmap(solve)(b)
    return found.residual_norms / found.residual_norms[:, :1], found.fallbacks


@eqx.filter_jit
def _gradients(system: PoissonSystem, b: Array, rtol: Array, diagonal: Array, max_steps: int) -> Array:
    found = jax.vmap(lambda b: conjugate_gradients(system, b, preconditioner=lambda r: r / diagonal, rtol=rtol, max_steps=max_steps))(b)
    return found.residual_norms / found.residual_norms[:, :1]


@eqx.filter_jit
def _deflated(system: PoissonSystem, deflation: Deflation, b: Array, rtol: Array, max_steps: int) -> Array:
    found = jax.vmap(lambda b: deflation.solve(system, b, rtol=rtol, max_steps=max_steps))(b)
    # The projection comes before the first step: its residual is that of step zero, relative to b.
    return found.residual_norms / jnp.sqrt((b**2).sum(tuple(range(1, b.ndim))))[:, None]


deflation_of = eqx.filter_jit(Deflation)


@eqx.filter_jit
def direction_of(network: Any, b: Array) -> Array:
    """The network's direction for a right-hand side."""
    return network(b)


def learned_curves(
    config: Config, networks: Sequence[Any], system: PoissonSystem, b: np.ndarray, histories: Sequence[int], most: int, rtol: float
) -> tuple[np.ndarray, np.ndarray]:
    """Relative residuals (history, seed, rhs, step) and fallbacks (history, seed, rhs); b has the axes (seed, rhs, *grid),
    and `most` earlier directions are kept, whatever is used of them.
    """
    curves = [
        [
            _learned(
                network,
                system,
                jnp.asarray(one),
                jnp.asarray(used, jnp.int32),
                jnp.asarray(rtol, one.dtype),
                most,
                config.max_steps,
            )
            for network, one in zip(networks, b, strict=True)
        ]
        for used in histories
    ]
    stacked = [np.stack([np.stack([np.asarray(found[i]) for found in row]) for row in curves]) for i in (0, 1)]
    return stacked[0], stacked[1]


def classical_curves(
    config: Config, system: PoissonSystem, b: np.ndarray, rtol: float, basis: RitzBasis | None = None
) -> dict[str, np.ndarray]:
    """Relative residuals (seed, rhs, step) of each solver; of deflation only with Ritz vectors to take it from."""
    flat = b.reshape(-1, *b.shape[2:])
    diagonal = jnp.where(system.is_fluid, system.neighbours, 1).astype(b.dtype)
    tolerance, array = jnp.asarray(rtol, b.dtype), jnp.asarray(flat)
    curves = {
        "conjugate gradients": np.asarray(_gradients(system, array, tolerance, jnp.ones_like(diagonal), MOST_STEPS)),
        "Jacobi": np.asarray(_gradients(system, array, tolerance, diagonal, MOST_STEPS)),
    }
    if basis is not None:
        deflation = deflation_of(system, basis.vectors[: config.deflated])
        curves["deflated"] = np.asarray(_deflated(system, deflation, array, tolerance, MOST_STEPS))
    matrix = system.as_csr()
    factor = TriangularPreconditioner(incomplete_cholesky(matrix)).operator()
    norms = [
        host_conjugate_gradients(matrix, system.restrict(one), preconditioner=factor, rtol=rtol, max_steps=MOST_STEPS)[1] for one in flat
    ]
    longest = max(map(len, norms))
    curves["incomplete Cholesky"] = np.stack([np.pad(n / n[0], (0, longest - len(n)), constant_values=np.nan) for n in norms])
    return {name: curve.reshape(*b.shape[:2], -1) for name, curve in curves.items()}


def iterations(curves: np.ndarray, rtol: float) -> np.ndarray:
    """Steps to a relative residual, inf where it was not reached; the steps are the last axis."""
    is_there = curves <= rtol
    return np.where(is_there.any(axis=-1), is_there.argmax(axis=-1), np.inf)


def all_curves(
    config: Config,
    networks: Sequence[Sequence[Any]],
    system: PoissonSystem,
    b: np.ndarray,
    histories: Sequence[int],
    rtol: float,
    basis: RitzBasis | None = None,
) -> dict[str, np.ndarray]:
    """Relative residuals of every solver by its name, and fallbacks of the learned ones."""
    boosted, alike = networks
    most = max(histories)
    curves, fallbacks = learned_curves(config, boosted, system, b, histories, most, rtol)
    other, others = learned_curves(config, alike, system, b, (2,), most, rtol)
    names = [*map(named, histories), ALIKE]
    found = dict(zip(names, [*curves, *other], strict=True)) | classical_curves(config, system, b, rtol, basis)
    return found | {FALLBACKS + name: count for name, count in zip(names, [*fallbacks, *others], strict=True)}


def dataset(found: Mapping[str, np.ndarray], tolerances: Sequence[float]) -> xr.Dataset:
    """Curves, iterations and fallbacks by solver."""
    curves = {name: np.asarray(value) for name, value in found.items() if not name.startswith(FALLBACKS)}
    used = max(int(np.isfinite(curve).any(axis=tuple(range(curve.ndim - 1))).sum()) for curve in curves.values())
    padded = [
        np.pad(curve[..., :used], [(0, 0), (0, 0), (0, max(used - curve.shape[-1], 0))], constant_values=np.nan)
        for curve in curves.values()
    ]
    counts = [[iterations(curve, rtol) for rtol in tolerances] for curve in curves.values()]
    nothing = np.zeros(padded[0].shape[:2])
    return xr.Dataset(
        {
            "residual": (("solver", "seed", "rhs", "step"), np.stack(padded).astype(np.float32), {"units": "1"}),
            "iterations": (("solver", "rtol", "seed", "rhs"), np.array(counts), {"units": "iterations"}),
            "fallbacks": (
                ("solver", "seed", "rhs"),
                np.stack([found.get(FALLBACKS + name, nothing) for name in curves]),
                {"units": "iterations"},
            ),
        },
        coords={"solver": list(curves), "rtol": list(tolerances)},
    )


def named(history: int) -> str:
    """A learned solver that conjugates against so many earlier directions."""
    return f"{LEARNED}, {history}"


def timed(config: Config, networks: Sequence[Any], system: PoissonSystem, b: np.ndarray, basis: RitzBasis, session: Session) -> xr.Dataset:
    """Seconds of one warm solve (seed, repeat), the first right-hand side of each seed, and the residual that each solver leaves."""
    matrix = system.as_csr()
    factor = TriangularPreconditioner(incomplete_cholesky(matrix)).operator()
    diagonal = jnp.where(system.is_fluid, system.neighbours, 1).astype(b.dtype)
    deflation = deflation_of(system, basis.vectors[: config.deflated])
    first = jnp.asarray(b[0, 0])
    moving, fixed = eqx.partition(networks[0], eqx.is_array)

    def learned(moving: Any, system: PoissonSystem, b: Array) -> Array:
        direction = MaskedDirection(eqx.combine(moving, fixed), system.is_fluid)
        return conjugate_directions(system, b, direction, rtol=RTOL, max_steps=config.max_steps).value

    def plain(system: PoissonSystem, b: Array) -> Array:
        return conjugate_gradients(system, b, rtol=RTOL, max_steps=MOST_STEPS).value

    def jacobi(system: PoissonSystem, b: Array, diagonal: Array) -> Array:
        return conjugate_gradients(system, b, preconditioner=lambda r: r / diagonal, rtol=RTOL, max_steps=MOST_STEPS).value

    def deflated(system: PoissonSystem, b: Array, deflation: Deflation) -> Array:
        return deflation.solve(system, b, rtol=RTOL, max_steps=MOST_STEPS).value

    programs = [
        jax.jit(learned).lower(moving, system, first).compile(),
        jax.jit(plain).lower(system, first).compile(),
        jax.jit(jacobi).lower(system, first, diagonal).compile(),
        jax.jit(deflated).lower(system, first, deflation).compile(),
    ]
    seconds, left, names = [], [], []
    for seed, network in enumerate(networks):
        one, vector = jnp.asarray(b[seed, 0]), system.restrict(b[seed, 0])
        arrays = eqx.filter(network, eqx.is_array)
        functions = {
            LEARNED: lambda one=one, arrays=arrays: programs[0](arrays, system, one),
            "conjugate gradients": lambda one=one: programs[1](system, one),
            "Jacobi": lambda one=one: programs[2](system, one, diagonal),
            "deflated": lambda one=one: programs[3](system, one, deflation),
            "incomplete Cholesky": lambda vector=vector: linalg.cg(matrix, vector, rtol=RTOL, atol=0.0, M=factor)[0],
            "conjugate gradients, scipy": lambda vector=vector: linalg.cg(matrix, vector, rtol=RTOL, atol=0.0)[0],
        }
        names = list(functions)
        found = session.timed(f"solvers, seed {seed}", functions, repeats=config.repeats)
        seconds.append([found[name] for name in names])
        solutions = [np.asarray(function()) for function in functions.values()]
        vectors = [x if x.ndim == 1 else system.restrict(x) for x in solutions]
        left.append([float(np.linalg.norm(vector - matrix @ x) / np.linalg.norm(vector)) for x in vectors])
    return xr.Dataset(
        {
            "seconds": (("seed", "solver", "repeat"), np.array(seconds), {"units": "s"}),
            "left": (("seed", "solver"), np.array(left), {"units": "1"}),
        },
        coords={"solver": names},
    )
