"""Conditions of one's own for the solvers of optimistix."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import equinox.internal as eqxi
import lineax as lx
import optimistix as optx
from jaxtyping import PyTree

from .conditions import Conditions, held
from .differentiation import implicit_solution


class ConditionsAdjoint(optx.AbstractAdjoint):
    """An optimistix adjoint that differentiates the answer through any conditions, not those that the solver is for.

    `optimistix.ImplicitAdjoint` differentiates a minimiser through ∇f = 0, a root finder through its function. Where a solver works
    on a reformulation (a penalty, a smoothed or unconstrained problem), give the conditions of the problem itself:
    `optimistix.minimise(fn, solver, y0, args, adjoint=ConditionsAdjoint(conditions))`.

    **Arguments:** `conditions(y, args)`: zero at the solution; the rest as
    [`implicit_solution`][gradatim.implicit.implicit_solution]. The tags given to optimistix belong to its own conditions and are not
    used.

    >>> import jax, jax.numpy as jnp
    >>> adjoint = ConditionsAdjoint(lambda y, a: y**2 - a)
    >>> def solve(a):
    ...     return optx.minimise(lambda y, a: (y**2 - a) ** 2, optx.BFGS(1e-6, 1e-6), jnp.array(1.0), a, adjoint=adjoint).value
    >>> print(f"{jax.grad(solve)(jnp.array(4.0)):.3f}")
    0.250
    """

    conditions: Conditions
    linear_solver: lx.AbstractLinearSolver | None = None
    tags: frozenset[object] = eqx.field(default=frozenset(), static=True)
    ridge: float = eqx.field(default=0.0, static=True)

    def apply(self, primal_fn: Callable, rewrite_fn: Callable, inputs: PyTree, tags: frozenset[object]) -> PyTree:
        """Runs the solver without derivatives, and gives its answer those of the conditions."""
        del rewrite_fn, tags
        _, _, _, args, *_ = inputs
        loop = functools.partial(eqxi.while_loop, kind="lax")
        root, rest = primal_fn((*held(inputs), loop))
        solution: Any = implicit_solution(self.conditions, root, args, linear_solver=self.linear_solver, tags=self.tags, ridge=self.ridge)
        return solution, rest
