"""Projections of jaxopt 0.8.5 and cotangents pulled back through them, as it offers them: seconds as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import sets
import timing
from jaxopt import LBFGS, projection

jax.config.update("jax_enable_x64", True)


def precise(fun: Any) -> Any:
    """Its default solver, which stops at 1e-3, to a precision like ours."""
    return LBFGS(fun=fun, tol=1e-9, maxiter=5000, linesearch="zoom")


PEERS: dict[str, dict[str, Callable[[Any, sets.Problem], Any]]] = {
    sets.SECTION: {"jaxopt": lambda v, p: projection.projection_box_section(v, (p["lower"], p["upper"], p["a"], p["b"]))},
    sets.POLYHEDRON: {
        "jaxopt": lambda v, p: projection.projection_polyhedron(v, (p["A"], p["b"], p["G"], p["h"]), check_feasible=False),
    },
    sets.TRANSPORTATION: {
        "jaxopt, its default of 1e-3": lambda v, p: projection.projection_transport(v, (p["a"], p["b"])),
        "jaxopt": lambda v, p: projection.projection_transport(v, (p["a"], p["b"]), make_solver=precise),
    },
    sets.BIRKHOFF: {
        "jaxopt, its default of 1e-3": lambda v, p: projection.projection_birkhoff(v),
        "jaxopt": lambda v, p: projection.projection_birkhoff(v, make_solver=precise),
    },
}


def main() -> None:
    """Prints one JSON list."""
    rows: list[dict[str, Any]] = []
    for group, peers in PEERS.items():
        exact = sets.WORK[group]()
        problem = {name: jnp.asarray(value) for name, value in exact.items()}
        for name, project in peers.items():

            def pull(v: Any, problem: Any, project: Any = project) -> Any:
                x, back = jax.vjp(lambda v: project(v, problem), v)
                return x, back(problem["cotangent"])[0]

            lowered: Any = jax.jit(pull)
            compiled = lowered.lower(problem["v"], problem).compile()
            errors = sets.errors(exact, *compiled(problem["v"], problem))
            seconds = timing.median(lambda compiled=compiled, problem=problem: jax.block_until_ready(compiled(problem["v"], problem)))
            rows.append({"group": group, "name": name, "seconds": seconds, "info": errors})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
