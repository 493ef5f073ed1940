"""A solve with learned directions beside those without learning, and the network in a loop beside convolutions; results compared first.

Algebraic multigrid is in peers/multigrid_deep_conjugate_direction.py. Training, factors and other set-up are apart.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest
from scipy.sparse import linalg

from gradatim.sciml import (
    Deflation,
    GridResNet,
    PoissonSystem,
    TriangularPreconditioner,
    conjugate_directions,
    conjugate_gradients,
    fit_direction_network,
    incomplete_cholesky,
    ritz_vectors,
    spectral_right_hand_sides,
)

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("poisson", PEERS_FOLDER / "poisson.py")
assert _spec is not None
assert _spec.loader is not None
poisson = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(poisson)

STEPS, BATCH = 200, 16
EVALUATIONS = 10
ROUND_OFF = 1e-4  # single precision, fifteen layers of sums in another order
SOLVERS = ("gradatim", "conjugate gradients", "conjugate gradients, scipy", "deflated", "incomplete Cholesky", "identity as direction")


def system(side: int) -> PoissonSystem:
    """The empty box."""
    return PoissonSystem(np.ones((side, side), bool))


@functools.cache
def trained() -> tuple[GridResNet, float]:
    """A network for the smaller box, and the seconds that Ritz vectors and training took, compilation included."""
    began = time.perf_counter()
    box = system(poisson.SIDES[0])
    basis = ritz_vectors(box.operator(), 256, key=jax.random.key(0))
    b = spectral_right_hand_sides(basis, 2000, key=jax.random.key(1))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(2e-3, STEPS)))
    network = GridResNet(2, use_bias=False, key=jax.random.key(2))
    network, losses = fit_direction_network(
        network,
        box,
        b,
        optimizer=optimizer,
        steps=STEPS,
        batch_size=BATCH,
        key=jax.random.key(3),
        forward=GridResNet.by_convolutions,
    )
    assert losses[-1] < 0.2
    return network, time.perf_counter() - began


def solver(name: str, side: int) -> tuple[Any, dict[str, Any]]:
    """A warm call that gives the solution, and what is worth knowing of it."""
    network, seconds = trained()
    # Double precision, as scipy's: the recursion of conjugate gradients drifts from b - A x in single precision on the larger box.
    box, b = system(side), jnp.asarray(poisson.right_hand_side(side), jnp.float64)
    rtol, matrix = poisson.RTOL, poisson.matrix(side)
    if name in ("gradatim", "identity as direction"):
        learned = name == "gradatim"
        direction = network if learned else (lambda r: r)
        jitted: Any = eqx.filter_jit(lambda box, b: conjugate_directions(box, b, direction, rtol=rtol, max_steps=1000))
        solve = jitted.lower(box, b).compile()
        info = {"iterations": int(solve(box, b).num_steps), "cells a side in training": poisson.SIDES[0]}
        return lambda: jax.block_until_ready(solve(box, b).value), info | ({"training seconds": round(seconds, 1)} if learned else {})
    if name == "conjugate gradients":
        plain = jax.jit(lambda box, b: conjugate_gradients(box, b, rtol=rtol)).lower(box, b).compile()
        return lambda: jax.block_until_ready(plain(box, b).value), {"iterations": int(plain(box, b).num_steps)}
    if name == "deflated":
        basis = ritz_vectors(box.operator(), 100, key=jax.random.key(0))
        deflation = eqx.filter_jit(Deflation)(box, basis.vectors[:16])
        less = jax.jit(lambda box, deflation, b: deflation.solve(box, b, rtol=rtol)).lower(box, deflation, b).compile()
        return lambda: jax.block_until_ready(less(box, deflation, b).value), {"iterations": int(less(box, deflation, b).num_steps)}
    vector = poisson.right_hand_side(side).ravel()
    began = time.perf_counter()
    factor = TriangularPreconditioner(incomplete_cholesky(matrix)).operator() if name == "incomplete Cholesky" else None
    setup = time.perf_counter() - began
    steps: list[int] = []
    linalg.cg(matrix, vector, rtol=rtol, atol=0.0, M=factor, callback=lambda _: steps.append(0))
    info = {"iterations": len(steps)} | ({} if factor is None else {"setup seconds": round(setup, 3)})
    return lambda: linalg.cg(matrix, vector, rtol=rtol, atol=0.0, M=factor)[0], info


@pytest.mark.parametrize("side", poisson.SIDES)
@pytest.mark.parametrize("name", SOLVERS)
def test_solve(benchmark: Any, name: str, side: int) -> None:
    benchmark.group, benchmark.param = poisson.group(side), name
    trained()
    with jax.enable_x64(True):
        call, info = solver(name, side)
        left = poisson.left(side, call())
        assert left <= 1.01 * poisson.RTOL, left
        benchmark.extra_info.update(info | {"residual": left})
        benchmark.pedantic(call, rounds=30, warmup_rounds=3)


def test_lineax_finds_the_same_solution() -> None:
    side = poisson.SIDES[0]
    trained()
    with jax.enable_x64(True):
        b = jnp.asarray(poisson.right_hand_side(side), jnp.float64)
        theirs = lx.linear_solve(system(side).operator(), b, lx.CG(rtol=1e-8, atol=1e-8)).value
        ours, _ = solver("gradatim", side)
        np.testing.assert_allclose(ours(), theirs, atol=1e-2 * float(jnp.abs(theirs).max()))


LOOPS = ("gradatim", "convolutions in the loop", "convolutions, called one by one")


@pytest.mark.parametrize("name", LOOPS)
def test_network_in_a_loop(benchmark: Any, name: str) -> None:
    side = poisson.SIDES[0]
    benchmark.group, benchmark.param = f"{EVALUATIONS} directions of the network, one after another, {side} × {side} cells", name
    network, _ = trained()
    b = jnp.asarray(poisson.right_hand_side(side), jnp.float32)

    def once(network: GridResNet, b: jax.Array) -> jax.Array:
        direction = network(b) if name == "gradatim" else network.by_convolutions(b)
        return direction / jnp.sqrt(jnp.vdot(direction, direction))

    expected = b
    for _ in range(EVALUATIONS):
        expected = network.by_convolutions(expected)
        expected = expected / jnp.sqrt(jnp.vdot(expected, expected))
    if name == "convolutions, called one by one":
        step = eqx.filter_jit(lambda network, b: once(network, b))
        run = functools.partial(functools.reduce, lambda x, _: step(network, x), range(EVALUATIONS), b)
    else:
        loop = eqx.filter_jit(lambda network, b: jax.lax.fori_loop(0, EVALUATIONS, lambda _, x: once(network, x), b))
        run = functools.partial(loop, network, b)
    np.testing.assert_allclose(run(), expected, atol=ROUND_OFF)
    benchmark.pedantic(lambda: jax.block_until_ready(run()), rounds=20, warmup_rounds=3)
