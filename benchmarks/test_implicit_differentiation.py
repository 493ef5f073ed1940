"""A cotangent pulled back through a solution: ours, optimistix, JAX's own `custom_root`; jaxopt in `peers/`.

The solution is given, so that nothing but the derivative is timed. Each answer is compared with that of a dense factorisation first; all
iterative solves have the same relative tolerance. The machine's fixed point is not symmetric: conjugate gradients are not for it.
"""

import importlib.util
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import pytest
from optax.projections import projection_simplex

from gradatim.implicit import FixedPointConditions, RelativeTolerance, implicit_solution

_spec = importlib.util.spec_from_file_location("hypergradient", Path(__file__).parent / "peers" / "hypergradient.py")
assert _spec is not None
assert _spec.loader is not None
hypergradient = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hypergradient)

TOLERANCE = hypergradient.TOLERANCE
CG = RelativeTolerance(lx.CG(TOLERANCE, TOLERANCE))
GMRES = RelativeTolerance(lx.GMRES(TOLERANCE, TOLERANCE, restart=50))
BICGSTAB = RelativeTolerance(lx.BiCGStab(TOLERANCE, TOLERANCE))
POSITIVE, NEGATIVE = lx.positive_semidefinite_tag, lx.negative_semidefinite_tag


def ridge_gradient(x: Any, theta: Any, rest: Any) -> Any:
    Phi, y = rest
    return Phi.T @ (Phi @ x - y) + theta * x


def machine_step(x: Any, theta: Any, rest: Any) -> Any:
    X, Y, rate = rest
    W = X.T @ (Y - x) / theta
    return jax.vmap(projection_simplex)(x - rate * (Y - X @ W))


def ours(conditions: Any, **settings: Any) -> Any:
    return lambda x, theta, rest: implicit_solution(conditions, x, theta, rest, **settings)


def with_optimistix(step: Any, solver: Any, tags: Any = frozenset()) -> Any:
    """One step of a fixed-point iteration that any tolerance satisfies, and the adjoint of optimistix."""

    def solve(x: Any, theta: Any, rest: Any) -> Any:
        adjoint = optx.ImplicitAdjoint(linear_solver=solver)
        iteration = optx.FixedPointIteration(rtol=1e9, atol=1e9)

        def fn(x, args):
            return step(x, *args)

        return optx.fixed_point(fn, iteration, x, (theta, rest), adjoint=adjoint, tags=tags, throw=False, max_steps=2).value

    return solve


def with_jax(conditions: Any, linear: Any, *, symmetric: bool) -> Any:
    """The `custom_root` of JAX over a Krylov solver of JAX."""

    def solve(x: Any, theta: Any, rest: Any) -> Any:
        def tangent(g: Any, y: Any) -> Any:
            def inverse(mv, b):
                return linear(mv, b)[0]

            return jax.lax.custom_linear_solve(g, y, inverse, transpose_solve=inverse, symmetric=symmetric)

        return jax.lax.custom_root(lambda x: conditions(x, theta, rest), x, lambda f, x: x, tangent)

    return solve


def jax_gmres(mv: Any, b: Any) -> Any:
    return jax.scipy.sparse.linalg.gmres(mv, b, tol=TOLERANCE, restart=50, maxiter=100, solve_method="incremental")


MACHINE = FixedPointConditions(machine_step)
WORK = {
    "cotangent of a ridge regression, 600 unknowns": (
        hypergradient.ridge,
        ("Phi", "y"),
        {
            "gradatim, its default of 1e-10": ours(ridge_gradient, tags=POSITIVE),
            "gradatim": ours(ridge_gradient, tags=POSITIVE, linear_solver=CG),
            "gradatim, factorised": ours(ridge_gradient, tags=POSITIVE, linear_solver=lx.Cholesky()),
            "optimistix ImplicitAdjoint, CG": with_optimistix(lambda *args: args[0] - ridge_gradient(*args), CG, NEGATIVE),
            "optimistix ImplicitAdjoint, its default": with_optimistix(
                lambda *args: args[0] - ridge_gradient(*args), lx.AutoLinearSolver(well_posed=None)
            ),
            "jax.lax.custom_root, CG": with_jax(
                ridge_gradient, lambda mv, b: jax.scipy.sparse.linalg.cg(mv, b, tol=TOLERANCE), symmetric=True
            ),
        },
    ),
    "cotangent of a support-vector machine, 1000 unknowns": (
        hypergradient.machine,
        ("X", "Y", "rate"),
        {
            "gradatim, its default of 1e-10": ours(MACHINE),
            "gradatim": ours(MACHINE, linear_solver=GMRES),
            "gradatim, BiCGSTAB": ours(MACHINE, linear_solver=BICGSTAB),
            "optimistix ImplicitAdjoint, GMRES": with_optimistix(machine_step, GMRES),
            "optimistix ImplicitAdjoint, its default": with_optimistix(machine_step, lx.AutoLinearSolver(well_posed=None)),
            "jax.lax.custom_root, GMRES": with_jax(MACHINE, jax_gmres, symmetric=False),
        },
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("group", "peer"), [(group, peer) for group, (_, _, peers) in WORK.items() for peer in peers])
def test_cotangent(benchmark: Any, group: str, peer: str) -> None:
    make, names, peers = WORK[group]
    benchmark.group, benchmark.param = group, peer
    with jax.enable_x64(True):
        problem = {name: jnp.asarray(value) for name, value in make().items()}
        rest = tuple(problem[name] for name in names)

        def pull(theta: Any, x: Any, rest: Any, cotangent: Any) -> Any:
            return jax.vjp(lambda theta: peers[peer](x, theta, rest), theta)[1](cotangent)[0]

        inputs = (problem["theta"], problem["x"], rest, problem["cotangent"])
        start = time.perf_counter()
        lowered: Any = jax.jit(pull)
        compiled = lowered.lower(*inputs).compile()
        seconds = time.perf_counter() - start
        error = float(np.linalg.norm(compiled(*inputs) - problem["exact"]) / np.linalg.norm(problem["exact"]))
        if peer.startswith("gradatim"):
            assert error < hypergradient.AGREEMENT
        memory = compiled.memory_analysis()
        benchmark.extra_info.update(
            {"relative error": error, "temporary MiB": memory.temp_size_in_bytes / 2**20, "compile seconds": seconds}
        )
        benchmark.pedantic(lambda: jax.block_until_ready(compiled(*inputs)), rounds=20, warmup_rounds=2)
