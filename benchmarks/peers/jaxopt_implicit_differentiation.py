"""Cotangents pulled back by jaxopt 0.8.5 through the same conditions with the same tolerance: seconds as JSON."""

from __future__ import annotations

import functools
import json
import statistics
import time
from typing import Any

import hypergradient
import jax
import jax.numpy as jnp
import numpy as np
from jaxopt import implicit_diff, linear_solve, projection

jax.config.update("jax_enable_x64", True)

SOLVES = {
    "normal CG, its default": linear_solve.solve_normal_cg,
    "CG": linear_solve.solve_cg,
    "GMRES": linear_solve.solve_gmres,
    "BiCGSTAB": linear_solve.solve_bicgstab,
}


def ridge_residual(x: Any, theta: Any, Phi: Any, y: Any) -> Any:
    """The gradient of the penalised least squares."""
    return Phi.T @ (Phi @ x - y) + theta * x


def machine_residual(x: Any, theta: Any, X: Any, Y: Any, rate: Any) -> Any:
    """A projected gradient step less where it starts."""
    W = X.T @ (Y - x) / theta
    return jax.vmap(projection.projection_simplex)(x - rate * (Y - X @ W)) - x


def main() -> None:
    """Prints one JSON list."""
    ridge = {name: jnp.asarray(value) for name, value in hypergradient.ridge().items()}
    machine = {name: jnp.asarray(value) for name, value in hypergradient.machine().items()}
    work = {
        "cotangent of a ridge regression, 600 unknowns": (ridge_residual, ridge, ("theta", "Phi", "y"), ("CG", "normal CG, its default")),
        "cotangent of a support-vector machine, 1000 unknowns": (
            machine_residual,
            machine,
            ("theta", "X", "Y", "rate"),
            ("normal CG, its default", "GMRES", "BiCGSTAB"),
        ),
    }
    rows: list[dict[str, Any]] = []
    for group, (residual, problem, arguments, names) in work.items():
        for name in names:
            # Its GMRES counts restarts where the others count products.
            solve = functools.partial(SOLVES[name], tol=hypergradient.TOLERANCE, maxiter=100 if name == "GMRES" else 5000)
            solve = functools.partial(solve, restart=50) if name == "GMRES" else solve

            def pull(theta: Any, x: Any, rest: Any, cotangent: Any, residual: Any = residual, solve: Any = solve) -> Any:
                solver = implicit_diff.custom_root(residual, solve=solve)(lambda init, *args: init)
                return jax.vjp(lambda theta: solver(x, theta, *rest), theta)[1](cotangent)[0]

            rest = tuple(problem[argument] for argument in arguments[1:])
            inputs = (problem["theta"], problem["x"], rest, problem["cotangent"])
            compiled: Any = jax.jit(pull).lower(*inputs).compile()
            found = np.asarray(compiled(*inputs))
            error = float(np.linalg.norm(found - problem["exact"]) / np.linalg.norm(problem["exact"]))
            times = []
            for _ in range(20):
                start = time.perf_counter()
                jax.block_until_ready(compiled(*inputs))
                times.append(time.perf_counter() - start)
            info = {"relative error": error, "temporary MiB": compiled.memory_analysis().temp_size_in_bytes / 2**20}
            rows.append({"group": group, "name": f"jaxopt, {name}", "seconds": statistics.median(times), "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
