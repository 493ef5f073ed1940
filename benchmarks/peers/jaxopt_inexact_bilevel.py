"""Gradient descent through jaxopt 0.8.5's implicit derivative of a lower solution with a fixed tolerance: seconds as JSON.

Its lower solver is accelerated, warm-started and given the step 1/L; its outer steps have the best constant length, 1/L_f, which no user
would know.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import bilevel
import jax
import jax.numpy as jnp
import jaxopt
import numpy as np

jax.config.update("jax_enable_x64", True)
TOLERANCES = (1e1, 1e-1, 1e-3, 1e-5)
"Of the norm of the lower gradient; the bound of the accuracy is μ = 69.6 times smaller."
MAX_STEPS = 3000


def main() -> None:
    """Prints one JSON list."""
    given = bilevel.problem()
    A1, b1, A2, A3, b2 = (jnp.asarray(given[name]) for name in ("A1", "b1", "A2", "A3", "b2"))
    step = 1 / np.linalg.norm(given["M"], 2) ** 2
    rate = 1 / np.linalg.norm(given["A2"], 2) ** 2

    def lower(x: Any, theta: Any) -> Any:
        return jnp.sum((A2 @ x + A3 @ theta - b2) ** 2) / 2

    rows: list[dict[str, Any]] = []
    for tolerance in TOLERANCES:
        solver = jaxopt.GradientDescent(lower, stepsize=rate, maxiter=100_000, tol=tolerance, acceleration=True, implicit_diff=True)

        def upper(theta: Any, x: Any, solver: Any = solver) -> Any:
            found, state = solver.run(x, theta)
            return jnp.sum((A1 @ found - b1) ** 2) / 2, (found, state.iter_num)

        pull = jax.jit(jax.value_and_grad(upper, has_aux=True))

        def descend(pull: Any = pull) -> tuple[Any, int, int]:
            theta, x, gradients = jnp.asarray(given["theta"]), jnp.asarray(given["x"]), 0
            for k in range(MAX_STEPS):
                if bilevel.gap(given, np.asarray(theta)) <= bilevel.TARGET:
                    return theta, k, gradients
                (_, (x, count)), slope = pull(theta, x)
                theta, gradients = theta - step * slope, gradients + int(count)
            return theta, MAX_STEPS, gradients

        theta, steps, gradients = descend()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            descend()
            times.append(time.perf_counter() - start)
        info = {"gap": bilevel.gap(given, np.asarray(theta)), "outer steps": steps, "lower gradients": gradients}
        name = f"jaxopt, tolerance {tolerance:g}" + ("" if info["gap"] <= bilevel.TARGET else ", does not arrive")
        rows.append({"group": bilevel.GROUP, "name": name, "seconds": statistics.median(times), "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
