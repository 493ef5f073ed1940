"""The linear solve behind an implicit derivative: which solver by default, and tolerances relative to the right-hand side."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

DENSE_UP_TO = 500
"Unknowns up to which the Jacobian is written out and factorised: one factorisation then costs less than an iteration's many products."


class RelativeTolerance(lx.AbstractLinearSolver):
    """An iterative lineax solver whose tolerances are relative to the largest entry of the right-hand side.

    lineax compares each entry of the residual with `atol + rtol · |b|`. A cotangent is often zero in most entries and of any
    size in the others, so that no `atol` fits all; here `b` is scaled to 1 first. A right-hand side of zeros gives zeros at once.

    **Arguments:** `solver`: `lineax.CG`, `lineax.GMRES` or `lineax.BiCGStab`, with an `atol` above 0.

    >>> operator = lx.MatrixLinearOperator(jnp.diag(jnp.array([2.0, 4.0])), lx.positive_semidefinite_tag)
    >>> solver = RelativeTolerance(lx.CG(rtol=1e-5, atol=1e-5))
    >>> value = lx.linear_solve(operator, jnp.array([1e-20, 0.0]), solver).value
    >>> print(f"{value[0]:.3g} {value[1]:.3g}")
    5e-21 0
    """

    solver: lx.AbstractLinearSolver

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Any:
        """What the solver itself prepares."""
        return self.solver.init(operator, options)

    def compute(self, state: Any, vector: PyTree[Array], options: dict[str, Any]) -> tuple[PyTree[Array], lx.RESULTS, dict[str, Any]]:
        """The solution for the scaled right-hand side, scaled back."""
        largest = jnp.stack([jnp.max(jnp.abs(leaf), initial=0) for leaf in jax.tree.leaves(vector)]).max()
        scale = jnp.where(largest > 0, largest, 1)
        if "y0" in options:
            options = {**options, "y0": jax.tree.map(lambda y: y / scale, options["y0"])}
        solution, result, stats = self.solver.compute(state, jax.tree.map(lambda b: b / scale, vector), options)
        return jax.tree.map(lambda y: y * scale, solution), result, stats

    def transpose(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Of the solver's own state."""
        return self.solver.transpose(state, options)

    def conj(self, state: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Of the solver's own state."""
        return self.solver.conj(state, options)

    def assume_full_rank(self) -> bool:
        """As the solver does."""
        return self.solver.assume_full_rank()


def default_solver(operator: lx.AbstractLinearOperator) -> lx.AbstractLinearSolver:
    """A factorisation up to 500 unknowns; beyond, conjugate gradients for an operator tagged semidefinite and GMRES for any other.

    Iterations stop at 1e-10 of the right-hand side in double precision, at 1e-5 in single. Conjugate gradients never run on an
    operator that is not tagged: on one that is not symmetric they return a wrong answer and no error.

    >>> type(default_solver(lx.IdentityLinearOperator(jax.ShapeDtypeStruct((3,), jnp.float32)))).__name__
    'AutoLinearSolver'
    """
    if operator.in_size() <= DENSE_UP_TO:
        return lx.AutoLinearSolver(well_posed=None)
    dtype = jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(operator.in_structure())))
    tolerance = 1e-10 if jnp.finfo(dtype).bits > 32 else 1e-5
    if lx.is_positive_semidefinite(operator) or lx.is_negative_semidefinite(operator):
        return RelativeTolerance(lx.CG(rtol=tolerance, atol=tolerance))
    return RelativeTolerance(lx.GMRES(rtol=tolerance, atol=tolerance, restart=50))
