"""Derivatives of a solution from the conditions it satisfies (Blondel et al., arXiv:2105.15183): one linear solve, whoever solved.

    F(x*(θ), θ) = 0,     A = -∂₁F(x*, θ),     B = ∂₂F(x*, θ):     A ∂x*(θ) = B
    forward:  ∂x* v = w with A w = B v          reverse:  ∂x*ᵀ v = Bᵀ u with Aᵀ u = v

Products with A and B are forward and reverse derivatives of F; no matrix is written out by an iterative solver, and nothing is kept of
the iterations that led to x*. The rule is a forward one that JAX transposes, so that derivatives of any order and mode follow.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .conditions import (
    Conditions,
    LinearRule,
    check_structure,
    condition_operator,
    converted_conditions,
    held,
    linear_rule,
    strong_arrays,
    unknowns,
)
from .linear_solves import default_solver


class Pullback(NamedTuple):
    """What [`root_vjp`][gradatim.implicit.root_vjp] gives."""

    theta: PyTree
    "The cotangent of each floating-point array of theta, None in place of anything else."
    adjoint: PyTree
    "u with Aᵀ u = cotangent: the start of the next, similar solve."


def implicit_solution(
    conditions: Conditions,
    x: PyTree,
    *theta: PyTree,
    linear_solver: lx.AbstractLinearSolver | None = None,
    options: dict[str, Any] | None = None,
    tags: object | frozenset[object] = frozenset(),
    ridge: Float[Array, ""] | float = 0.0,
    max_residual: float | None = None,
    throw: bool = True,
) -> PyTree:
    """The solution `x`, however it was found, as a differentiable function of `theta`.

    `x` itself gets no derivative. Arrays that `conditions` closes over are differentiated like `theta`. At a point where `conditions`
    is not smooth the derivative is one of its one-sided ones, as automatic differentiation picks it.

    Away from the solution the derivative is wrong in proportion to the distance: see
    [`check_implicit`][gradatim.implicit.check_implicit]. Where A is singular (symmetries, redundant constraints), a factorisation
    raises; `linear_solver=lineax.SVD()` then gives the solution of least norm, and `ridge` a damped one. In training, where a diverged
    step is to be skipped and not to end the program, `throw=False` makes the derivative what the failed solve ended with: after a
    factorisation NaN or infinite, which `optax.apply_if_finite` sees.

    **Arguments:** `conditions(x, *theta)`: F, of the structure, shapes and dtypes of `x`; `x`: floating-point arrays; `theta`: any
    pytrees, of which floating-point arrays are differentiated; `linear_solver`: of lineax; None takes a factorisation up to 500
    unknowns, then conjugate gradients if `tags` say semidefinite and GMRES if not; `options` of that solve, such as
    `{"preconditioner": operator}`, which is transposed with it; `tags`: of lineax, for ∂₁F: the gradient of a convex function has a
    `lineax.positive_semidefinite_tag`; `ridge` ρ: solves with ∂₁F + ρ instead (F is a gradient, not its negative, and a fixed point's
    is x - T(x)); `max_residual`: raises at run time where ‖F(x)‖ is not below it; `throw`: raise at run time where the linear solve
    fails.

    **Raises:** `ValueError` for conditions of another structure or shape than x, or a negative ridge; `TypeError` for an x that is
    no floating-point array, or conditions that do not take these arguments.

    >>> conditions = lambda x, theta: x**3 + x - theta
    >>> solution = lambda theta: implicit_solution(conditions, jnp.array(1.0), theta)
    >>> print(f"{jax.grad(solution)(2.0):.4f} {jax.grad(jax.grad(solution))(2.0):.5f}")
    0.2500 -0.09375
    """
    rule = linear_rule(linear_solver, options, tags, ridge, throw=throw)
    return _attach(conditions, x, theta, {}, rule, max_residual)


def custom_root(
    conditions: Conditions,
    *,
    has_aux: bool = False,
    linear_solver: lx.AbstractLinearSolver | None = None,
    options: dict[str, Any] | None = None,
    tags: object | frozenset[object] = frozenset(),
    ridge: Float[Array, ""] | float = 0.0,
    max_residual: float | None = None,
    throw: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a solver `solve(init, *theta)` with the derivative of its answer that follows from `conditions(x, *theta) = 0`.

    The solver may be anything that returns arrays: it is never differentiated, and need not have been made for these conditions. Its
    start `init` gets the derivative zero, since a solution does not depend on it.

    **Arguments:** as [`implicit_solution`][gradatim.implicit.implicit_solution]; `has_aux`: the solver returns `(x, aux)`, and aux
    gets no derivative. Keyword arguments of a call go to the solver and, by the same name, to the conditions.

    **Raises:** as `implicit_solution`.

    >>> @custom_root(lambda x, theta: x**2 - theta)
    ... def babylonian(init, theta):
    ...     return jax.lax.fori_loop(0, 20, lambda _, x: (x + theta / x) / 2, init)
    >>> print(jax.grad(babylonian, argnums=1)(1.0, 16.0))
    0.125
    """
    rule = linear_rule(linear_solver, options, tags, ridge, throw=throw)

    def decorate(solver: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(solver)
        def solve(init: PyTree, *theta: PyTree, **named: PyTree) -> Any:
            _check_arguments(conditions, init, theta, named)
            start, held_theta, held_named = held((init, theta, named))
            found = solver(start, *held_theta, **held_named)
            x, aux = found if has_aux else (found, None)
            x = _attach(conditions, x, theta, named, rule, max_residual)
            return (x, held(aux)) if has_aux else x

        return solve

    return decorate


def custom_fixed_point(
    step: Callable[..., PyTree],
    *,
    has_aux: bool = False,
    linear_solver: lx.AbstractLinearSolver | None = None,
    options: dict[str, Any] | None = None,
    tags: object | frozenset[object] = frozenset(),
    ridge: Float[Array, ""] | float = 0.0,
    max_residual: float | None = None,
    throw: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """[`custom_root`][gradatim.implicit.custom_root] for a solver that finds x = `step(x, *theta)`: F = x - T(x, θ).

    >>> step = lambda x, theta: jnp.cos(theta * x)
    >>> solve = custom_fixed_point(step)(lambda init, theta: jax.lax.fori_loop(0, 100, lambda _, x: step(x, theta), init))
    >>> print(f"{solve(0.0, 1.0):.4f} {jax.grad(solve, argnums=1)(0.0, 1.0):.4f}")
    0.7391 -0.2975
    """
    return custom_root(
        FixedPointConditions(step),
        has_aux=has_aux,
        linear_solver=linear_solver,
        options=options,
        tags=tags,
        ridge=ridge,
        max_residual=max_residual,
        throw=throw,
    )


class FixedPointConditions(eqx.Module):
    """F(x, θ) = x - T(x, θ), zero where T stands still.

    >>> print(FixedPointConditions(lambda x, theta: theta / x)(2.0, 4.0))
    0.0
    """

    step: Callable[..., PyTree]

    def __call__(self, x: PyTree, *theta: PyTree, **named: PyTree) -> PyTree:
        """X - T(x, θ)."""
        moved = self.step(x, *theta, **named)
        check_structure("step", jax.eval_shape(lambda: moved), jax.eval_shape(lambda: x))
        return jax.tree.map(lambda a, b: a - b, x, moved)


def root_jvp(
    conditions: Conditions,
    x: PyTree,
    theta: tuple[PyTree, ...],
    tangents: tuple[PyTree, ...],
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
    options: dict[str, Any] | None = None,
    tags: object | frozenset[object] = frozenset(),
    ridge: Float[Array, ""] | float = 0.0,
    throw: bool = True,
) -> PyTree:
    """∂x*(θ) v from one solve with A, for v = `tangents`.

    **Arguments:** as [`implicit_solution`][gradatim.implicit.implicit_solution]; `tangents`: of theta's structure, None for what is not
    varied or is no floating-point array; `options`: `{"y0": w}` starts an iterative solve from an earlier w.

    >>> print(root_jvp(lambda x, a, b: x * a - b, jnp.array(3.0), (jnp.array(2.0), jnp.array(6.0)), (None, jnp.array(1.0))))
    0.5
    """
    rule = linear_rule(linear_solver, options, tags, ridge, throw=throw)
    x, theta = unknowns(x), strong_arrays(theta)
    conditions = converted_conditions(conditions, x, theta, {})
    if len(tangents) != len(theta):
        raise ValueError(f"tangents must hold one entry for each of the {len(theta)} arguments of theta, got {len(tangents)}")
    operator = condition_operator(conditions, x, (theta, {}), rule)
    pushed = _push(lambda inputs: conditions(x, *inputs), theta, _float_tangents(theta, tangents))
    # With the sign of F on the right-hand side, so that an earlier answer starts the solve as it is.
    return _solve(operator, jax.tree.map(jnp.negative, pushed), rule)


def root_vjp(
    conditions: Conditions,
    x: PyTree,
    theta: tuple[PyTree, ...],
    cotangent: PyTree,
    *,
    linear_solver: lx.AbstractLinearSolver | None = None,
    options: dict[str, Any] | None = None,
    tags: object | frozenset[object] = frozenset(),
    ridge: Float[Array, ""] | float = 0.0,
    throw: bool = True,
) -> Pullback:
    """∂x*(θ)ᵀ v from one solve with Aᵀ, for v = `cotangent`: all of theta at once.

    **Arguments:** as [`implicit_solution`][gradatim.implicit.implicit_solution]; `cotangent`: of the structure of x; `options`: of the
    solve with Aᵀ: `{"y0": adjoint}` starts an iterative one from an earlier adjoint.

    >>> pullback = root_vjp(lambda x, a, b: x * a - b, jnp.array(3.0), (jnp.array(2.0), jnp.array(6.0)), jnp.array(1.0))
    >>> print(*pullback.theta)
    -1.5 0.5
    """
    rule = linear_rule(linear_solver, options, tags, ridge, throw=throw)
    x, theta = unknowns(x), strong_arrays(theta)
    conditions = converted_conditions(conditions, x, theta, {})
    # With the sign of F on the right-hand side, so that the adjoint is that of A = -∂₁F, and an earlier one starts the solve as it is.
    operator = condition_operator(conditions, x, (theta, {}), rule).transpose()
    adjoint = _solve(operator, jax.tree.map(jnp.negative, cotangent), rule)
    varied, fixed = eqx.partition(theta, eqx.is_inexact_array)
    _, pull = jax.vjp(lambda varied: conditions(x, *eqx.combine(varied, fixed)), varied)
    return Pullback(pull(adjoint)[0], adjoint)


@eqx.filter_custom_jvp
def _with_rule(x: PyTree, conditions: Any, theta: Any, rule: LinearRule) -> PyTree:
    del conditions, theta, rule
    return x


@_with_rule.def_jvp
def _with_rule_jvp(primals: tuple, tangents: tuple) -> tuple[PyTree, PyTree]:
    x, conditions, theta, rule = primals
    # Not the x that came in: this one carries the derivatives of higher order.
    x = _with_rule(x, conditions, theta, rule)

    def in_inputs(inputs: Any) -> PyTree:
        conditions, (positional, named) = inputs
        return conditions(x, *positional, **named)

    pushed = _push(in_inputs, (conditions, theta), tangents[1:3])
    solved = _solve(condition_operator(conditions, x, theta, rule), pushed, rule)
    return x, jax.tree.map(jnp.negative, solved)


def _attach(conditions: Any, x: PyTree, theta: tuple, named: dict, rule: LinearRule, max_residual: float | None) -> PyTree:
    x, theta, named = held(unknowns(x)), strong_arrays(theta), strong_arrays(named)
    converted = converted_conditions(conditions, x, theta, named)
    if max_residual is not None:
        residual = optx.two_norm(held(converted)(x, *held(theta), **held(named)))
        x = eqx.error_if(
            x,
            ~(residual <= max_residual),
            f"the conditions' norm at the solution is above max_residual={max_residual}: let the solver run longer, or raise the limit",
        )
    return _with_rule(x, converted, (theta, named), held(rule))


def _solve(operator: lx.AbstractLinearOperator, vector: PyTree, rule: LinearRule) -> PyTree:
    solver = default_solver(operator) if rule.linear_solver is None else rule.linear_solver
    if rule.throw:
        return lx.linear_solve(operator, vector, solver, options=rule.options).value
    # lineax raises in the transposed solve whatever it was told. As one array: JAX's rule cannot transpose a part of several.
    flat, unravel = ravel_pytree(vector)
    state = solver.init(operator, rule.options)
    transposed, options = solver.transpose(state, rule.options)

    def mv(v: Array) -> Array:
        return ravel_pytree(operator.mv(unravel(v)))[0]

    def solve(_: Any, b: Array) -> Array:
        return ravel_pytree(lx.linear_solve(operator, unravel(b), solver, options=rule.options, state=state, throw=False).value)[0]

    def transpose_solve(_: Any, b: Array) -> Array:
        across = operator.transpose()
        return ravel_pytree(lx.linear_solve(across, unravel(b), solver, options=options, state=transposed, throw=False).value)[0]

    return unravel(jax.lax.custom_linear_solve(mv, flat, solve, transpose_solve))


def _push(fn: Callable[[Any], PyTree], inputs: Any, tangents: Any) -> PyTree:
    """The derivative along tangents, None standing for zero."""
    is_still = jax.tree.map(_is_none, tangents, is_leaf=_is_none)
    fixed, varied = eqx.partition(inputs, is_still, is_leaf=_is_none)
    return jax.jvp(lambda varied: fn(eqx.combine(varied, fixed)), (varied,), (tangents,))[1]


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _float_tangents(theta: tuple, tangents: tuple) -> PyTree:
    """Of theta's structure, None where nothing is varied; a None may stand for a whole entry."""

    def aligned(tangent: Any, entry: Any) -> Any:
        if tangent is None:
            return jax.tree.map(lambda _: None, entry)
        return jnp.asarray(tangent, entry.dtype) if eqx.is_inexact_array(entry) else None

    return jax.tree.map(aligned, tangents, theta, is_leaf=_is_none)


def _check_arguments(conditions: Conditions, init: PyTree, theta: tuple, named: dict) -> None:
    try:
        inspect.signature(conditions).bind(init, *theta, **named)
    except TypeError as error:
        words = f"{len(theta)} after x" + (f" and {', '.join(named)} by name" if named else "")
        raise TypeError(
            f"conditions must take what the solver is called with, got {words} ({error}); bind what belongs to the solver alone "
            "with functools.partial"
        ) from error
    except ValueError:
        # No signature to look at.
        return
