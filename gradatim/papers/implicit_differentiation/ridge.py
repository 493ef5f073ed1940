"""The error of the Jacobian along gradient descent: implicit, unrolled, one step, and the bound of theorem 1 (C3, figure 3)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import xarray as xr

from gradatim.implicit import gradient_step, implicit_solution, stationary
from gradatim.lab import Findings, Measure, Session

from .config import Ridge
from .data import diabetes

UNROLLED_BETWEEN = (2, 100)
"Steps between which the unrolled Jacobian is compared."


def run_ridge(config: Ridge, session: Session) -> Findings:
    """C3: f = ‖Φx - y‖² + Σ θᵢ xᵢ² at θ = 1, from x = 0 with step 1/L."""
    table = diabetes()
    session.uses(table.provenance)
    Phi, y = jnp.asarray(table.features), jnp.asarray(table.targets)
    theta = jnp.ones(Phi.shape[1])

    def objective(x: Any, theta: Any) -> Any:
        return jnp.sum((Phi @ x - y) ** 2) + jnp.sum(theta * x**2)

    @jax.jit
    def errors(theta: Any) -> dict[str, Any]:
        matrix = Phi.T @ Phi + jnp.diag(theta)
        eigenvalues = jnp.linalg.eigvalsh(matrix)
        solution = jnp.linalg.solve(matrix, Phi.T @ y)
        exact = -jnp.linalg.inv(matrix) * solution[None]
        step = gradient_step(objective, stepsize=1 / (2 * jax.lax.stop_gradient(eigenvalues[-1])))

        def descend(theta: Any) -> Any:
            start = jnp.zeros_like(theta)
            later = jax.lax.scan(lambda x, _: (step(x, theta),) * 2, start, length=config.steps)[1]
            return jnp.concatenate([start[None], later])

        def implicit(x: Any) -> Any:
            tags = lx.positive_semidefinite_tag
            return jax.jacfwd(lambda theta: implicit_solution(stationary(objective), x, theta, tags=tags))(theta)

        def norm(jacobians: Any) -> Any:
            return jnp.linalg.norm(jacobians - exact[None], ord=2, axis=(1, 2))

        x = descend(theta)
        distance = jnp.linalg.norm(x - solution[None], axis=1)
        return {
            "iterate": distance,
            "implicit": norm(jax.vmap(implicit)(x)),
            "unrolled": norm(jax.jacfwd(descend)(theta)),
            "one_step": norm(jax.vmap(lambda x: jax.jacfwd(step, argnums=1)(x, theta))(x)),
            "bound": distance / eigenvalues[0],
        }

    found = session.once("Jacobians along gradient descent", errors, theta)
    found = {name: np.asarray(values) for name, values in found.items()}
    low, high = UNROLLED_BETWEEN
    slope = float(np.polyfit(np.log(found["iterate"][1:]), np.log(found["implicit"][1:]), 1)[0])
    measures = {
        "C3.error_over_bound": Measure.exact(float((found["implicit"] / found["bound"]).max())),
        "C3.error_slope": Measure.exact(slope),
        "C3.unrolled_over_implicit": Measure.exact(float((found["unrolled"] / found["implicit"])[low : high + 1].min())),
    }
    data = xr.Dataset(
        {name: ("step", values, {"units": "of x" if name == "iterate" else "of dx/dθ"}) for name, values in found.items()},
        {"step": np.arange(config.steps + 1)},
    )
    return Findings(measures, xr.DataTree.from_dict({"ridge": data}))
