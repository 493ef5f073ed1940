"""Weights of basis functions, and their gradient, by jaxopt 0.8.5's Levenberg-Marquardt: seconds as JSON."""

from __future__ import annotations

import json
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import timing
import weighing

jax.config.update("jax_enable_x64", True)


def main() -> None:
    """Prints one JSON list."""
    given = {name: jnp.asarray(value) for name, value in weighing.problem().items()}
    shared = tuple(given[name] for name in weighing.SHARED)
    local = tuple(given[name] for name in weighing.LOCAL)

    def residual(weights: Any, local: Any, state: Any) -> Any:
        fields = [term @ weights for term in (*local, *shared)]
        return jnp.concatenate([weighing.rows(fields, state, jnp), weighing.RIDGE * weights])

    def solve(local: Any, tolerance: float) -> tuple[Any, Any]:
        solver = jaxopt.LevenbergMarquardt(
            residual_fun=residual, tol=tolerance, xtol=tolerance, gtol=tolerance, maxiter=weighing.MAX_STEPS, implicit_diff=True
        )

        def one(local: Any, state: Any) -> tuple[Any, Any]:
            found, kept = solver.run(jnp.ones(weighing.BASIS), local, state)
            return found, kept.iter_num

        return jax.vmap(one)(local, given["state"])

    def pulled(local: Any, tolerance: float) -> tuple[Any, Any]:
        found, steps = solve(local, tolerance)
        return jnp.sum(found * given["cotangent"]), steps

    close, _ = solve(local, 1e-12)
    rows: list[dict[str, Any]] = []
    for group, fn in ((weighing.FORWARD, solve), (weighing.BOTH, jax.value_and_grad(pulled, has_aux=True))):
        jitted: Any = jax.jit(lambda local, fn=fn: fn(local, weighing.TOLERANCE))
        compiled = jitted.lower(local).compile()
        found = compiled(local)
        steps = found[1] if group == weighing.FORWARD else found[0][1]
        info: dict[str, Any] = {"steps": int(np.max(steps))}
        if group == weighing.FORWARD:
            info["distance"] = weighing.distance(found[0], close)
        seconds = timing.median(lambda compiled=compiled: jax.block_until_ready(compiled(local)))
        rows.append({"group": group, "name": "jaxopt", "seconds": seconds, "info": info})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
