"""Weights of basis functions by many small least-squares solves at once, and their gradient: ours, optimistix, SciPy; jaxopt in `peers/`.

Same rows, start, ridge and tolerance; what each finds is compared with a much closer solution first, and the peers' gradients with ours.
"""

from __future__ import annotations

import functools
import importlib.util
import time
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from scipy.optimize import least_squares

from gradatim.implicit import HardConstraint

_spec = importlib.util.spec_from_file_location("weighing", Path(__file__).parent / "peers" / "weighing.py")
assert _spec is not None
assert _spec.loader is not None
weighing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(weighing)


def given() -> tuple[Any, Any, Any, Any]:
    """Local terms, those of the conditions, states, and a cotangent."""
    problem = {name: jnp.asarray(value) for name, value in weighing.problem().items()}
    local, shared = (tuple(problem[name] for name in names) for names in (weighing.LOCAL, weighing.SHARED))
    return local, shared, problem["state"], problem["cotangent"]


def ours(local: Any, shared: Any, state: Any, tolerance: float) -> tuple[Any, Any]:
    """By the constraint, all terms linear in the weights."""

    def rows(fields: Any, state: Any) -> Any:
        return weighing.rows((*fields[0], *fields[1]), state, jnp)

    constraint = HardConstraint(rows, ridge=weighing.RIDGE, rtol=tolerance, atol=tolerance, max_steps=weighing.MAX_STEPS)
    found = jax.vmap(lambda local, state: constraint((local, shared), state))(local, state)
    return found.weights, found.n_steps


def with_optimistix(local: Any, shared: Any, state: Any, tolerance: float) -> tuple[Any, Any]:
    """By its Levenberg-Marquardt and implicit adjoint; values alone leave the mapped function, for a whole solution cannot."""

    def residual(weights: Any, args: Any) -> Any:
        local, state = args
        fields = [term @ weights for term in (*local, *shared)]
        return weighing.rows(fields, state, jnp), weighing.RIDGE * weights

    def one(local: Any, state: Any) -> tuple[Any, Any]:
        solver = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)
        start = jnp.ones(weighing.BASIS)
        found = optx.least_squares(residual, solver, start, (local, state), max_steps=weighing.MAX_STEPS, throw=False)
        return found.value, found.stats["num_steps"]

    return jax.vmap(one)(local, state)


PEERS = {"gradatim": ours, "optimistix": with_optimistix}


@functools.cache
def close() -> tuple[Any, Any]:
    """Weights and gradient to much closer tolerances."""
    local, shared, state, cotangent = given()

    def pulled(local: Any) -> tuple[Any, Any]:
        found = ours(local, shared, state, 1e-13)[0]
        return jnp.sum(found * cotangent), found

    (_, found), gradient = jax.jit(jax.value_and_grad(pulled, has_aux=True))(local)
    return found, gradient


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("group", [weighing.FORWARD, weighing.BOTH])
@pytest.mark.parametrize("peer", PEERS)
def test_weights(benchmark: Any, peer: str, group: str) -> None:
    benchmark.group, benchmark.param = group, peer
    with jax.enable_x64(True):
        local, shared, state, cotangent = given()

        def pulled(local: Any) -> tuple[Any, Any]:
            found, steps = PEERS[peer](local, shared, state, weighing.TOLERANCE)
            return jnp.sum(found * cotangent), (found, steps)

        def forward(local: Any) -> Any:
            return PEERS[peer](local, shared, state, weighing.TOLERANCE)

        began = time.perf_counter()
        jitted: Any = jax.jit(forward if group == weighing.FORWARD else jax.value_and_grad(pulled, has_aux=True))
        compiled = jitted.lower(local).compile()
        seconds = time.perf_counter() - began
        answer = compiled(local)
        (found, steps), gradient = (answer, None) if group == weighing.FORWARD else (answer[0][1], answer[1])
        info = {"steps": int(np.max(steps)), "distance": weighing.distance(found, close()[0]), "compile seconds": seconds}
        if gradient is not None:
            parts = zip(gradient, close()[1], strict=True)
            info["gradient distance"] = max(weighing.distance(part, exact) for part, exact in parts)
        if peer == "gradatim":
            assert info["distance"] < weighing.AGREEMENT
            assert info.get("gradient distance", 0) < weighing.AGREEMENT
        benchmark.extra_info.update(info)
        benchmark.pedantic(lambda: jax.block_until_ready(compiled(local)), rounds=50, warmup_rounds=3)


def test_weights_by_scipy(benchmark: Any) -> None:
    benchmark.group, benchmark.param = weighing.FORWARD, "scipy, one after another"
    problem = weighing.problem()
    names, epsilon = (*weighing.LOCAL, *weighing.SHARED), 1e-6

    def solve(k: int) -> Any:
        terms = [problem[name][k] if name in weighing.LOCAL else problem[name] for name in names]
        state = problem["state"][k]

        def residual(weights: Any) -> Any:
            return np.concatenate([weighing.rows([term @ weights for term in terms], state, np), weighing.RIDGE * weights])

        # The only term that is not linear is R(u), whose slope is taken numerically.
        def slopes(weights: Any) -> Any:
            value, *rest = (term @ weights for term in terms)
            up, down = (weighing.rows([value + sign * epsilon, *rest], state, np) for sign in (1, -1))
            columns = [weighing.rows([value, *(term[:, j] for term in terms[1:])], state, np) for j in range(weighing.BASIS)]
            constant = weighing.rows([value, *(0 * part for part in rest)], state, np)
            linear = np.stack(columns, axis=1) - constant[:, None]
            linear[: value.size] += ((up - down)[: value.size] / (2 * epsilon))[:, None] * terms[0]
            return np.concatenate([linear, weighing.RIDGE * np.eye(weighing.BASIS)])

        tolerance, jacobian = weighing.TOLERANCE, cast("Any", slopes)
        found = least_squares(residual, np.ones(weighing.BASIS), jac=jacobian, method="lm", xtol=tolerance, ftol=tolerance, gtol=tolerance)
        return found.x

    def solve_all() -> Any:
        return np.stack([solve(k) for k in range(problem["state"].size)])

    with jax.enable_x64(True):
        benchmark.extra_info["distance"] = weighing.distance(solve_all(), close()[0])
    benchmark.pedantic(solve_all, rounds=5, warmup_rounds=1)
