"""Every kind of condition at a problem whose derivative is known (C2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from optax.projections import projection_simplex

from gradatim.implicit import (
    ConicPoint,
    FixedPointConditions,
    KKTPoint,
    QuadraticProgram,
    block_proximal_gradient,
    conic_program,
    dual_cone_projection,
    entropic_descent,
    gradient_step,
    implicit_solution,
    kkt,
    mirror_descent,
    newton_step,
    projected_gradient,
    prox_l1,
    proximal_gradient,
    quadratic_program,
    stationary,
)
from gradatim.lab import Findings, Measure, Session

from .data import diabetes

LASSO_SUPPORT = np.array([2, 3, 6, 8])
"Of the lasso on the diabetes data at strength 0.5."
Solved = tuple[Callable[[Any], Any], Any, Any]
"The solution as a function of θ, θ, and its Jacobian in closed form."


def run_mappings(session: Session) -> Findings:
    """C2: the largest relative error over all kinds."""
    problems = {**_ridge(), **_lasso(), **_simplex(), **_quadratic(), **_ball()}

    @jax.jit
    def compare() -> dict[str, Any]:
        errors = {}
        for name, (solve, theta, exact) in problems.items():
            found = jnp.ravel(jax.jacfwd(solve)(theta))
            exact = jnp.ravel(exact)
            errors[name] = jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)
        return errors

    errors = {name: float(error) for name, error in session.once("all kinds of conditions", compare).items()}
    measures = {"C2.worst_mapping_error": Measure.exact(max(errors.values()))}
    # A logarithmic axis has no place for an exact zero.
    values = np.maximum(list(errors.values()), 1e-17)
    data = xr.Dataset({"error": ("mapping", values, {"units": "relative"})}, {"mapping": list(errors)})
    return Findings(measures, xr.DataTree.from_dict({"mappings": data}))


def _ridge() -> dict[str, Solved]:
    """One penalty for all: dx/dθ = -(XᵀX + θ)⁻¹ x."""
    table = diabetes()
    X, y = jnp.asarray(table.features), jnp.asarray(table.targets)
    matrix = np.asarray(X.T @ X) + np.eye(10)
    x = jnp.asarray(np.linalg.solve(matrix, np.asarray(X.T @ y)))
    exact = -np.linalg.solve(matrix, np.asarray(x))

    def objective(w: Any, theta: Any) -> Any:
        return jnp.sum((X @ w - y) ** 2) / 2 + theta / 2 * jnp.sum(w**2)

    conditions = {
        "stationary": stationary(objective),
        "gradient step": FixedPointConditions(gradient_step(objective, stepsize=0.1)),
        "Newton step": FixedPointConditions(newton_step(stationary(objective), stepsize=0.7)),
        "mirror step": FixedPointConditions(
            mirror_descent(objective, lambda x: jnp.arcsinh(x / 100), lambda y: 100 * jnp.sinh(y), stepsize=1e-3)
        ),
    }
    return {name: (lambda t, F=F: implicit_solution(F, x, t), jnp.array(1.0), exact) for name, F in conditions.items()}


def _lasso() -> dict[str, Solved]:
    """On the support: dw/dα = -(XᵀX/n)⁻¹ sign(w)."""
    table = diabetes()
    X, y = table.features, table.targets - table.targets.mean()
    n, alpha = len(y), 0.5
    support = LASSO_SUPPORT
    gram = X[:, support].T @ X[:, support] / n
    signs = np.sign(X[:, support].T @ y)
    w = np.zeros(10)
    w[support] = np.linalg.solve(gram, X[:, support].T @ y / n - alpha * signs)
    exact = np.zeros(10)
    exact[support] = -np.linalg.solve(gram, signs)
    solution, data = jnp.asarray(w), (jnp.asarray(X), jnp.asarray(y))

    def objective(w: Any, data: Any) -> Any:
        return jnp.sum((data[0] @ w - data[1]) ** 2) / (2 * n)

    whole = proximal_gradient(objective, prox_l1, stepsize=100.0)
    halves = block_proximal_gradient(lambda x, data: objective(jnp.concatenate(x), data), (prox_l1, prox_l1), (100.0, 50.0))

    def by_blocks(alpha: Any) -> Any:
        parts = (solution[:5], solution[5:])
        return jnp.concatenate(implicit_solution(FixedPointConditions(halves), parts, data, ((alpha,), (alpha,))))

    return {
        "proximal gradient": (lambda a: implicit_solution(FixedPointConditions(whole), solution, data, a), jnp.array(alpha), exact),
        "block proximal gradient": (by_blocks, jnp.array(alpha), exact),
    }


def _simplex() -> dict[str, Solved]:
    """The nearest point of the simplex in the metric of Q: a linear system on its support."""
    Q = np.array([[2.0, 0.3, 0.1, 0.0], [0.3, 1.5, 0.0, 0.2], [0.1, 0.0, 1.0, 0.1], [0.0, 0.2, 0.1, 2.5]])
    theta, support = np.array([0.7, 0.2, -1.5, 0.4]), [0, 1, 3]
    # The equations with the third entry at zero: Q_ss x_s - (Qθ)_s + ν = 0, Σx = 1.
    system = np.block([[Q[np.ix_(support, support)], np.ones((3, 1))], [np.ones((1, 3)), np.zeros((1, 1))]])
    x, exact = np.zeros(4), np.zeros((4, 4))
    x[support] = np.linalg.solve(system, np.append(Q[support] @ theta, 1.0))[:3]
    exact[support] = np.linalg.solve(system, np.vstack([Q[support], np.zeros((1, 4))]))[:3]
    matrix, solution = jnp.asarray(Q), jnp.asarray(x)

    def objective(x: Any, theta: Any) -> Any:
        return (x - theta) @ matrix @ (x - theta) / 2

    steps = {
        "projected gradient": projected_gradient(objective, projection_simplex, stepsize=0.3),
        "entropic mirror step": entropic_descent(objective, stepsize=0.3),
    }
    return {
        name: (lambda t, step=step: implicit_solution(FixedPointConditions(step), solution, t), jnp.asarray(theta), exact)
        for name, step in steps.items()
    }


def _quadratic() -> dict[str, Solved]:
    """Three unknowns, an equality, an active and an inactive inequality: the active set's linear system, differentiated in c and h."""
    Q = np.array([[2.0, 0.5, 0.0], [0.5, 1.5, 0.2], [0.0, 0.2, 1.0]])
    c, E, d = np.array([-1.0, 0.5, 0.3]), np.ones((1, 3)), np.ones(1)
    M, h = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([0.4, 5.0])
    zero = np.zeros((2, 2))
    rows = np.vstack([E, M[:1]])
    system = np.block([[Q, rows.T], [rows, zero]])
    found = np.linalg.solve(system, np.concatenate([-c, d, h[:1]]))
    exact_c = np.linalg.solve(system, np.vstack([-np.eye(3), np.zeros((2, 3))]))[:3]
    exact_h = np.zeros((3, 2))
    exact_h[:, 0] = np.linalg.solve(system, np.eye(5)[:, 4])[:3]
    exact = np.hstack([exact_c, exact_h])
    point = KKTPoint(jnp.asarray(found[:3]), jnp.asarray(found[3:4]), jnp.asarray([found[4], 0.0]))
    matrix, equality, bounds = jnp.asarray(Q), jnp.asarray(E), jnp.asarray(M)
    general = kkt(
        lambda x, c, h: x @ matrix @ x / 2 + c @ x,
        lambda x, c, h: equality @ x - 1,
        lambda x, c, h: bounds @ x - h,
    )

    def by_kkt(both: Any) -> Any:
        return implicit_solution(general, point, both[:3], both[3:]).primal

    def by_program(both: Any) -> Any:
        program = QuadraticProgram(matrix, both[:3], equality, jnp.asarray(d), bounds, both[3:])
        return implicit_solution(quadratic_program, point, program).primal

    both = jnp.asarray(np.concatenate([c, h]))
    return {"Karush–Kuhn–Tucker": (by_kkt, both, exact), "quadratic program": (by_program, both, exact)}


def _ball() -> dict[str, Solved]:
    """A linear function on a ball as a second-order cone program: x = -r c/‖c‖."""
    c, r = np.array([1.0, -2.0, 2.0, 0.5]), 1.5
    n, length = c.size, np.linalg.norm(c)
    A, b = jnp.asarray(np.vstack([np.zeros((1, n)), -np.eye(n)])), jnp.asarray(np.append(r, np.zeros(n)))
    x = -r * c / length
    point = ConicPoint(jnp.asarray(x), jnp.asarray(np.append(length, c) - np.append(r, x)))
    conditions = conic_program(dual_cone_projection(second_order=(n + 1,)))
    exact = -r * (np.eye(n) / length - np.outer(c, c) / length**3)
    return {"conic program": (lambda c: implicit_solution(conditions, point, A, b, c).u, jnp.asarray(c), exact)}
