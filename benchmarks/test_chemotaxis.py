"""Indirect chemotaxis at equal error beside SciPy's stiff solvers, in one dimension and in two, for fast signals and very fast ones.

SciPy gets what helps it: band or sparsity of the Jacobian, and of each method the tolerance with which it is fastest within the target.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.sparse
import scipy.sparse.linalg

from gradatim.physics import chemotaxis as ct

sys.path.append(str(Path(__file__).parent / "peers"))
import signalling  # pyright: ignore[reportMissingImports]

TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4)
STEPS = (10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 400)


@pytest.fixture(scope="module", autouse=True)
def double() -> Any:
    with jax.enable_x64(True):
        yield


@functools.cache
def compiled(shape: tuple[int, ...], n_steps: int, looks: int) -> Any:
    grid = ct.Box(shape)

    def run(eps: Any, tau: Any, state: Any) -> Any:
        model = ct.IndirectChemotaxis(grid, eps, tau)
        found = model.evolve(state, dt=signalling.END / n_steps, n_steps=n_steps, every=n_steps // looks)
        return found.cells, found.flag

    field: Any = jax.ShapeDtypeStruct(shape, "float64")
    zeros = ct.State(field, field, field)
    number = jax.ShapeDtypeStruct((), "float64")
    return jax.jit(run).lower(number, number, zeros).compile()


def first(shape: tuple[int, ...]) -> ct.State:
    fields = signalling.start(signalling.centres(shape[0]))
    return ct.State(*(jnp.asarray(np.broadcast_to(f.reshape(-1, *(1 for _ in shape[1:])), shape)) for f in fields))


def ours(eps: float, n_steps: int) -> np.ndarray:
    state, eps_, tau = first((signalling.CELLS,)), jnp.asarray(eps), jnp.asarray(signalling.TAU)
    cells, _ = jax.block_until_ready(compiled((signalling.CELLS,), n_steps, 10)(eps_, tau, state))
    return np.asarray(cells)[[round(10 * look / signalling.END) for look in signalling.LOOKS]]


def laplacian(u: np.ndarray) -> np.ndarray:
    """Along every axis, walls as mirrors, cells of side 1/n."""
    total = np.zeros_like(u)
    for axis, n in enumerate(u.shape):
        total += np.diff(u, axis=axis, prepend=np.take(u, [0], axis), append=np.take(u, [-1], axis), n=2) * n**2
    return total


def rate(eps: float, fields: np.ndarray) -> np.ndarray:
    n, c, w = fields
    drift = np.zeros_like(n)
    for axis, cells in enumerate(n.shape):
        mean = (np.take(n, range(1, cells), axis) + np.take(n, range(cells - 1), axis)) / 2
        padding = [(1, 1) if i == axis else (0, 0) for i in range(n.ndim)]
        drift += np.diff(np.pad(mean * np.diff(c, axis=axis), padding), axis=axis) * cells**2
    return np.stack([laplacian(n) - drift, (laplacian(c) - c + w) / eps, (signalling.TAU * laplacian(w) - w + n) / eps])


def sparsity(shape: tuple[int, ...]) -> Any:
    """Neighbours of each cell in each field, unknowns interleaved cell by cell."""
    neighbours: Any = scipy.sparse.eye_array(1)
    for n in shape:
        band = sum(scipy.sparse.eye_array(n, k=k) for k in (-1, 0, 1))
        neighbours = scipy.sparse.kron(neighbours, scipy.sparse.eye_array(n)) + scipy.sparse.kron(
            scipy.sparse.eye_array(neighbours.shape[0]), band
        )
    return scipy.sparse.kron(neighbours != 0, np.ones((3, 3)))


def by_scipy(eps: float, method: str, shape: tuple[int, ...], tolerance: float) -> np.ndarray:
    start = np.stack([np.asarray(f) for f in first(shape)], -1)

    def interleaved(t: float, y: np.ndarray) -> np.ndarray:
        return np.moveaxis(rate(eps, np.moveaxis(y.reshape(*shape, 3), -1, 0)), 0, -1).reshape(-1)

    options: dict[str, Any] = {"lband": 5, "uband": 5} if method == "LSODA" else {"jac_sparsity": sparsity(shape)}
    found = scipy.integrate.solve_ivp(
        interleaved, (0, signalling.END), start.reshape(-1), method, t_eval=signalling.LOOKS, rtol=tolerance, atol=tolerance, **options
    )
    return np.moveaxis(found.y.T.reshape(-1, *shape, 3), -1, 0)[0] if found.success else np.full((3, *shape), np.nan)


@pytest.mark.parametrize("eps", signalling.TIME_SCALES)
@pytest.mark.parametrize("name", ["gradatim", "scipy LSODA", "scipy BDF", "scipy Radau"])
def test_interval(benchmark: Any, name: str, eps: float) -> None:
    benchmark.group, benchmark.param = signalling.group(eps), name
    solve = functools.partial(ours, eps) if name == "gradatim" else functools.partial(by_scipy, eps, name.split()[1], (signalling.CELLS,))
    best = signalling.fastest(eps, solve, STEPS if name == "gradatim" else TOLERANCES)
    assert best is not None, "no setting meets the target"
    setting, _, info = best
    benchmark.pedantic(solve, (setting,), rounds=9, warmup_rounds=1)
    benchmark.extra_info.update(info | {"setting": setting})


SQUARE = 256
SMALL_SQUARE = 32
FAST = 1e-3


def on_square(n: int, n_steps: int) -> np.ndarray:
    cells, flag = jax.block_until_ready(compiled((n, n), n_steps, 1)(jnp.asarray(FAST), jnp.asarray(signalling.TAU), first((n, n))))
    assert not np.asarray(flag).any()
    return np.asarray(cells)[-1]


@functools.cache
def steps_on_square(n: int) -> tuple[int, float]:
    """The fewest steps with which the error in time is below the target, by a run of four times as many."""
    for n_steps in STEPS:
        fine = on_square(n, 4 * n_steps)
        # Of first order: a run of four times as many steps is three quarters of the way to the limit.
        distance = float(np.abs(on_square(n, n_steps) - fine).max() / fine.max()) * 4 / 3
        if distance <= signalling.TARGET:
            return n_steps, distance
    raise AssertionError("no number of steps meets the target")


@pytest.mark.parametrize("name", ["gradatim", "scipy BDF"])
def test_small_square(benchmark: Any, name: str) -> None:
    n = SMALL_SQUARE
    benchmark.group, benchmark.param = f"chemotaxis {n}² to 1 %, ε = {FAST:g}", name
    n_steps, distance = steps_on_square(n)
    if name == "gradatim":
        benchmark.pedantic(on_square, (n, n_steps), rounds=5, warmup_rounds=1)
        benchmark.extra_info.update({"steps": n_steps, "error in time": distance})
        return
    found = by_scipy(FAST, "BDF", (n, n), 1e-2)[-1]
    exact = on_square(n, 8 * n_steps)
    # Both grids' own error beside that in time: Scharfetter and Gummel's flux against centred differences.
    difference = float(np.abs(found - exact).max() / exact.max())
    assert difference < 3 * signalling.TARGET
    benchmark.pedantic(by_scipy, (FAST, "BDF", (n, n), 1e-2), rounds=1)
    benchmark.extra_info["distance from ours"] = difference


@pytest.mark.parametrize("name", ["gradatim", "scipy BDF, one factorisation of the Jacobian"])
def test_large_square(benchmark: Any, name: str) -> None:
    """Ours to the end; of a generic stiff solver its dearest piece alone, which it would need some dozens of times."""
    n = SQUARE
    benchmark.group, benchmark.param = f"chemotaxis {n}² to 1 %, ε = {FAST:g}", name
    if name == "gradatim":
        n_steps, distance = steps_on_square(n)
        benchmark.pedantic(on_square, (n, n_steps), rounds=3, warmup_rounds=1)
        benchmark.extra_info.update({"steps": n_steps, "error in time": distance})
        return
    # The pattern of I - dt J with plausible numbers: what matters to the time is where they stand.
    matrix = sparsity((n, n)).tocsc().astype(float)
    matrix = matrix + scipy.sparse.eye_array(matrix.shape[0], format="csc") * 20
    benchmark.pedantic(scipy.sparse.linalg.splu, (matrix,), rounds=1)
