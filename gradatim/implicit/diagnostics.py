"""How far a point is from a solution, how well its linear system is conditioned, and what that leaves of the derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradatim.numerics.singular_values import Product, top_singular_value_of_map

from .conditions import Conditions, condition_operator, converted_conditions, linear_rule, strong_arrays, unknowns
from .linear_solves import default_solver


class ImplicitCheck(eqx.Module):
    """What [`check_implicit`][gradatim.implicit.check_implicit] finds at a point x̂."""

    residual: Float[Array, ""]
    "‖F(x̂, θ)‖"
    distance: Float[Array, ""]
    "‖A⁻¹F‖, the length of a Newton step: ‖x̂ - x*‖ to first order"
    smallest: Float[Array, ""]
    "α, the least singular value of A, from above"
    largest: Float[Array, ""]
    "The largest singular value of A, from below"
    linear_residual: Float[Array, ""]
    "‖A w - F‖ / ‖F‖ of the linear solve, 0 for F = 0"
    jacobian_error: Float[Array, ""]
    "Of the implicit Jacobian, in operator norm: the bound (β/α + γR/α²) ‖x̂ - x*‖ with β and γ taken along the Newton step"

    @property
    def condition(self) -> Float[Array, ""]:
        """The condition number of A."""
        return self.largest / self.smallest


def check_implicit(
    conditions: Conditions,
    x: PyTree,
    *theta: PyTree,
    linear_solver: lx.AbstractLinearSolver | None = None,
    tags: object | frozenset[object] = frozenset(),
    iterations: int = 20,
) -> ImplicitCheck:
    """Residual, conditioning and the error of the derivative at an approximate solution (theorem 1 of arXiv:2105.15183).

        ‖Ĵ - ∂x*‖ ≤ (β/α + γ R/α²) ‖x̂ - x*‖,     A(x̂) Ĵ = B(x̂),     α ≤ σ(A),  R ≥ ‖B‖,  β, γ: Lipschitz constants of B and A

    An estimate, not a bound: the constants are measured at x̂ and at the Newton step from it, by power iteration.

    **Arguments:** `conditions`, `x`, `theta`, `linear_solver` and `tags` as [`implicit_solution`][gradatim.implicit.implicit_solution];
    `iterations` ≥ 1 of each of the five power iterations, each two products or two solves.

    >>> found = check_implicit(lambda x, theta: theta @ x - 1, jnp.array([1.0, 0.6]), jnp.diag(jnp.array([1.0, 2.0])))
    >>> print(f"{found.residual:.2f} {found.distance:.2f} {found.condition:.2f}")
    0.20 0.10 2.00
    """
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    x, theta = unknowns(x), strong_arrays(theta)
    conditions = converted_conditions(conditions, x, theta, {})
    rule = linear_rule(linear_solver, None, tags, 0.0)
    flat, unravel = ravel_pytree(x)
    jacobian = lx.linearise(condition_operator(conditions, x, (theta, {}), rule))
    solver = default_solver(jacobian) if linear_solver is None else linear_solver
    state = solver.init(jacobian, {})
    flipped, _ = solver.transpose(state, {})
    transposed = jacobian.transpose()

    def inverse(operator: Any, state: Any) -> Callable[[Array], Array]:
        return lambda b: ravel_pytree(lx.linear_solve(operator, unravel(b), solver, state=state).value)[0]

    varied, fixed = eqx.partition(theta, eqx.is_inexact_array)
    inputs, unravel_inputs = ravel_pytree(varied)

    def flat_conditions(flat: Array, inputs: Array) -> Array:
        return ravel_pytree(conditions(unravel(flat), *eqx.combine(unravel_inputs(inputs), fixed)))[0]

    value = flat_conditions(flat, inputs)
    move = inverse(jacobian, state)(value)
    a, b = _derivatives(flat_conditions, flat, inputs)
    next_a, next_b = _derivatives(flat_conditions, flat - move, inputs)
    smallest = 1 / _operator_norm((inverse(jacobian, state), inverse(transposed, flipped)), flat, iterations)
    change = _operator_norm(_difference(a, next_a), flat, iterations)
    drift = _operator_norm(_difference(b, next_b), inputs, iterations)
    residual = optx.two_norm(value)
    return ImplicitCheck(
        residual=residual,
        distance=optx.two_norm(move),
        smallest=smallest,
        largest=_operator_norm(a, flat, iterations),
        linear_residual=jnp.where(residual > 0, optx.two_norm(a[0](move) - value) / jnp.where(residual > 0, residual, 1), 0),
        jacobian_error=drift / smallest + change * _operator_norm(b, inputs, iterations) / smallest**2,
    )


Map = tuple[Product, Product]
"A linear map and its transpose."


def _derivatives(conditions: Callable[[Array, Array], Array], x: Array, theta: Array) -> tuple[Map, Map]:
    """∂₁F and ∂₂F."""
    in_x = jax.linearize(lambda x: conditions(x, theta), x)[1]
    in_theta = jax.linearize(lambda theta: conditions(x, theta), theta)[1]
    return (in_x, _transposed(in_x, x)), (in_theta, _transposed(in_theta, theta))


def _transposed(linear: Product, like: Array) -> Product:
    return lambda u: jax.linear_transpose(linear, like)(u)[0]


def _difference(a: Map, b: Map) -> Map:
    return lambda v: a[0](v) - b[0](v), lambda u: a[1](u) - b[1](u)


def _operator_norm(linear: Map, like: Array, iterations: int) -> Float[Array, ""]:
    return top_singular_value_of_map(*linear, jnp.zeros_like(like), iterations=iterations).value
