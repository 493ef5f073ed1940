"""Conditions with multipliers: Karush–Kuhn–Tucker, quadratic programs, conic programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .optimality import Map, Objective
from .projections import project_second_order_cone


class KKTPoint(NamedTuple):
    """A solution with its multipliers, None where there are no such constraints."""

    primal: PyTree
    "x"
    equality: PyTree = None
    "ν, of the structure of H(x)"
    inequality: PyTree = None
    "λ ≥ 0, of the structure of G(x)"


def kkt(objective: Objective, equality: Map | None = None, inequality: Map | None = None) -> Callable[..., KKTPoint]:
    """F(x, ν, λ) = (∂₁f + (∂₁H)ᵀν + (∂₁G)ᵀλ,  H,  λ ∘ G): the conditions of min f subject to H = 0, G ≤ 0.

    Where a constraint is weakly active (λᵢ = Gᵢ = 0) or two say the same, ∂₁F is singular and a factorisation raises. With redundant
    constraints the derivative of x still exists: take `linear_solver=lineax.SVD()`. Feasibility, G ≤ 0 and λ ≥ 0, is not in F.

    **Arguments:** `objective(x, *theta)`, `equality(x, *theta)`: H, `inequality(x, *theta)`: G. All get the same theta.

    **Returns:** `F(point, *theta)` for a [`KKTPoint`][gradatim.implicit.KKTPoint].

    >>> conditions = kkt(lambda x, theta: x @ x / 2, lambda x, theta: x.sum() - theta)
    >>> print(conditions(KKTPoint(jnp.array([0.5, 0.5]), jnp.array(-0.5)), 1.0).primal)
    [0. 0.]
    """

    def conditions(point: KKTPoint, *theta: PyTree) -> KKTPoint:
        _check_multipliers(equality, inequality, point)

        def lagrangian(x: PyTree) -> Any:
            values = [objective(x, *theta)]
            values += [] if equality is None else [_dot(point.equality, equality(x, *theta))]
            values += [] if inequality is None else [_dot(point.inequality, inequality(x, *theta))]
            return sum(values[1:], values[0])

        return KKTPoint(
            jax.grad(lagrangian)(point.primal),
            None if equality is None else equality(point.primal, *theta),
            None if inequality is None else jax.tree.map(jnp.multiply, point.inequality, inequality(point.primal, *theta)),
        )

    return conditions


class QuadraticProgram(NamedTuple):
    """min xᵀQx/2 + cᵀx subject to Ex = d and Mx ≤ h; Q symmetric, E and d or M and h None where there are no such constraints."""

    Q: Float[Array, "n n"]
    c: Float[Array, " n"]
    E: Float[Array, "p n"] | None = None
    d: Float[Array, " p"] | None = None
    M: Float[Array, "q n"] | None = None
    h: Float[Array, " q"] | None = None


def quadratic_program(point: KKTPoint, program: QuadraticProgram) -> KKTPoint:
    """F = (Qx + c + Eᵀν + Mᵀλ,  Ex - d,  λ ∘ (Mx - h)), differentiable in every matrix and vector of the program.

    >>> program = QuadraticProgram(jnp.eye(2), jnp.zeros(2), jnp.ones((1, 2)), jnp.ones(1))
    >>> quadratic_program(KKTPoint(jnp.array([0.5, 0.5]), jnp.array([-0.5])), program).equality.tolist()
    [0.0]
    """

    def objective(x: Array, p: QuadraticProgram) -> Array:
        return x @ p.Q @ x / 2 + p.c @ x

    equality = None if program.E is None else lambda x, p: p.E @ x - p.d
    inequality = None if program.M is None else lambda x, p: p.M @ x - p.h
    return kkt(objective, equality, inequality)(point, program)


class ConicPoint(NamedTuple):
    """u and v of a conic program: x = u, y = P(v), s = P(v) - v."""

    u: Float[Array, " n"]
    v: Float[Array, " m"]


def conic_program(dual_projection: Map) -> Callable[..., ConicPoint]:
    """F(u, v) = (Aᵀ P(v) + c,  b - A u - P(v) + v): the residual map of min cᵀx subject to Ax + s = b, s ∈ K.

    P projects on the dual cone K*; by Moreau's decomposition y = P(v) and s = P(v) - v are feasible and complementary, so that F = 0
    is primal and dual feasibility. This is the homogeneous self-dual embedding (Busseti, Moursi and Boyd, arXiv:1811.02157) at
    τ = 1: its third row, the duality gap, follows from the other two, and without it F is square and, at a
    non-degenerate solution, invertible.

    **Arguments:** `dual_projection(v)`, such as [`dual_cone_projection`][gradatim.implicit.dual_cone_projection] makes.

    **Returns:** `F(point, A, b, c)` for a [`ConicPoint`][gradatim.implicit.ConicPoint].
    """

    def conditions(point: ConicPoint, A: Float[Array, "m n"], b: Float[Array, " m"], c: Float[Array, " n"]) -> ConicPoint:
        dual = dual_projection(point.v)
        return ConicPoint(A.T @ dual + c, b - A @ point.u - dual + point.v)

    return conditions


def dual_cone_projection(*, zero: int = 0, nonnegative: int = 0, second_order: Sequence[int] = ()) -> Map:
    """The projection on K* for K = {0}ᵖ × ℝ₊^q × Q_{n₁} × …, blocks in this order: free, non-negative, second-order cones.

    **Arguments:** the sizes; a second-order cone of size n holds (t, z) with ‖z‖ ≤ t.

    **Raises:** `ValueError` for a negative size, a cone of size below 1, or a vector of another length.

    >>> dual_cone_projection(zero=1, nonnegative=2)(jnp.array([-1.0, -1.0, 2.0])).tolist()
    [-1.0, 0.0, 2.0]
    """
    if zero < 0 or nonnegative < 0 or any(size < 1 for size in second_order):
        raise ValueError(f"sizes must be at least 0, and 1 for a second-order cone, got {zero}, {nonnegative} and {tuple(second_order)}")
    total = zero + nonnegative + sum(second_order)

    def projection(v: Float[Array, " m"]) -> Float[Array, " m"]:
        if v.shape != (total,):
            raise ValueError(f"v must have shape ({total},), the sum of the cones' sizes, got {v.shape}")
        parts, start = [v[:zero], jax.nn.relu(v[zero : zero + nonnegative])], zero + nonnegative
        for size in second_order:
            parts.append(project_second_order_cone(v[start : start + size]))
            start += size
        return jnp.concatenate(parts)

    return projection


def _dot(a: PyTree, b: PyTree) -> Any:
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _check_multipliers(equality: Any, inequality: Any, point: KKTPoint) -> None:
    for name, function, multiplier in (("equality", equality, point.equality), ("inequality", inequality, point.inequality)):
        if (function is None) != (multiplier is None):
            raise ValueError(
                f"a point must have {name} multipliers exactly where the problem has {name} constraints, got "
                f"{'none' if multiplier is None else 'some'} and {'none' if function is None else 'some'}"
            )
