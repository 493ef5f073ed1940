"""Conjugate directions from any source, such as a network that knows the inverse up to scale
(Kaneda, Akar, Chen, Kala, Hyde and Teran, arXiv:2205.10763).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

Map = Callable[[Array], Array]
"From an array to one of its shape: a product with a matrix, or a direction for a residual."
# Of a direction, what conjugation may leave at least, in units of ε: below it is round-off.
_ROUND_OFF = 100


class DirectionSolve(NamedTuple):
    """A solution, and how it was reached."""

    value: Float[Array, "*shape"]
    num_steps: Int[Array, ""]
    residual_norms: Float[Array, " steps_and_start"]
    "‖b - A xₖ‖ from k = 0 on, NaN where the loop had ended."
    fallbacks: Int[Array, ""]
    "Steps along the residual, because the given direction was of no use."
    is_converged: Bool[Array, ""]


class _State(NamedTuple):
    step: Int[Array, ""]
    x: Float[Array, "*shape"]
    r: Float[Array, "*shape"]
    norm: Float[Array, ""]  # ‖r‖
    p: Float[Array, "history n"]  # earlier directions, a ring
    Ap: Float[Array, "history n"]
    pAp: Float[Array, " history"]  # zero where the ring is still empty
    norms: Float[Array, " steps_and_start"]
    fallbacks: Int[Array, ""]
    is_stuck: Bool[Array, ""]


def conjugate_directions(
    product: Map,
    b: Float[Array, "*shape"],
    direction: Map,
    *,
    x0: Float[Array, ...] | None = None,
    history: int = 2,
    used: Int[Array, ""] | int | None = None,
    rtol: float | Float[Array, ""] = 1e-4,
    atol: float | Float[Array, ""] = 0.0,
    max_steps: int = 100,
    true_residual: bool = True,
    normalize: bool = True,
) -> DirectionSolve:
    """Solves A x = b for a symmetric positive A along directions f(r), each made A-conjugate to the last few and followed to the minimum:

        d = f(r/‖r‖),     p = d - Σᵢ (d · A pᵢ)/(pᵢ · A pᵢ) pᵢ   over the last `history` directions
        α = (p · r)/(p · A p),     x ← x + α p,     r = b - A x,     until ‖r‖ ≤ max(rtol ‖r₀‖, atol)

    Each step lessens the error, ‖eₖ₊₁‖²_A = ‖eₖ‖²_A - (p · r)²/(p · A p), whatever f is. With the identity for f this is the method of
    conjugate gradients, with a symmetric positive matrix its preconditioned form, and with s A⁻¹ it ends after one step whatever s. For
    a linear f one earlier direction is enough; a network is not linear, and two or more repair part of that, without the guarantee of an
    end after n steps. A short formula for β in their place assumes an f that stays the same symmetric matrix, and may stall without it:
    Fletcher's and Reeves' does; Polak's and Ribière's, the flexible method of conjugate gradients (Notay, SIAM J. Sci. Comput. 22, 1444
    (2000)) for preconditioners that change from step to step, is `history=1`.
    A network that has learned little can stall too: then each step lessens the error, by next to nothing.

    The tolerance is relative to the first residual, which is b for `x0` = 0 only. Where f gives zero, something that is not finite,
    something already spanned by the last directions, or no descent, the step is taken along the residual, made conjugate, and counted.

    **Arguments:** `product`: x ↦ A x; `b`; `direction`: f, from residuals to arrays of their shape (any dtype); `x0`: start, or zero;
    `history`: earlier directions that are kept, from 0, by default the authors' two; `used`: how many of them to conjugate against, if
    fewer, and this number may be traced; `rtol`, `atol`; `max_steps`; `true_residual`: r = b - A x each time, at the price of a second
    product, or r ← r - α A p, which drifts in single precision; `normalize`: whether f is given r/‖r‖, without which a network with
    biases sees nothing of a small residual.

    **Raises:** `ValueError` for a history, tolerance or number of steps out of range, or a direction or start of another shape.

    Safe under jit and vmap; not to be differentiated (`ConjugateDirection` is). Source: the algorithm of the authors' code; they
    orthogonalise once, classically, against two directions, as here against any number. The fallback is not theirs.

    >>> A = jnp.diag(jnp.arange(1.0, 5.0))
    >>> print(conjugate_directions(lambda x: A @ x, jnp.ones(4), lambda r: -3 * r / jnp.arange(1.0, 5.0)).num_steps)
    1
    """
    _check(history, rtol, atol, max_steps)
    if x0 is not None and x0.shape != b.shape:
        raise ValueError(f"x0 must have the shape of b, {b.shape}, got {x0.shape}")
    looked_at = jax.eval_shape(direction, b).shape
    if looked_at != b.shape:
        raise ValueError(f"direction must return arrays of the shape it is given, got {looked_at} for {b.shape}")
    dtype, eps = b.dtype, jnp.finfo(b.dtype).eps
    limit = history if used is None else used

    def conjugated(d: Array, state: _State) -> tuple[Array, Array, Array, Array]:
        """A direction conjugate to the earlier ones, its image, its curvature, and whether it is of use."""
        largest = jnp.max(jnp.abs(d), initial=0)
        d = d / jnp.where(largest > 0, largest, 1)
        before = _norm(d)
        if history:
            age = (state.step - 1 - jnp.arange(history)) % history + 1
            is_there = (state.pAp > 0) & (age <= limit)
            weights = jnp.where(is_there, state.Ap @ d.ravel() / jnp.where(is_there, state.pAp, 1), 0)
            d = d - (weights @ state.p).reshape(d.shape)
        Ad = product(d)
        after, curvature, descent = _norm(d), jnp.vdot(d, Ad), jnp.vdot(d, state.r)
        # Written so that NaN is of no use.
        is_useful = (after > _ROUND_OFF * eps * before) & (curvature > 0) & (jnp.abs(descent) > _ROUND_OFF * eps * after * state.norm)
        return d, Ad, curvature, is_useful & jnp.isfinite(curvature)

    def advance(state: _State) -> _State:
        # Lanes of a vmap that have ended pass through here too, with residuals that may be zero.
        unit = state.r / jnp.where(state.norm > 0, state.norm, 1)
        given = conjugated(direction(unit if normalize else state.r).astype(dtype), state)
        p, Ap, pAp, is_useful = jax.lax.cond(given[3], lambda: given, lambda: conjugated(unit, state))
        alpha = jnp.where(is_useful, jnp.vdot(p, state.r) / jnp.where(is_useful, pAp, 1), 0)
        x = jnp.where(is_useful, state.x + alpha * p, state.x)
        r = b - product(x) if true_residual else jnp.where(is_useful, state.r - alpha * Ap, state.r)
        norm, step = _norm(r), state.step + 1
        if history:
            slot = state.step % history
            ring = (state.p.at[slot].set(p.ravel()), state.Ap.at[slot].set(Ap.ravel()), state.pAp.at[slot].set(pAp))
        else:
            ring = (state.p, state.Ap, state.pAp)
        return _State(step, x, r, norm, *ring, state.norms.at[step].set(norm), state.fallbacks + ~given[3], ~is_useful)

    x = jnp.zeros_like(b) if x0 is None else x0.astype(dtype)
    r = b if x0 is None else b - product(x)
    norm = _norm(r)
    target = jnp.maximum(jnp.asarray(rtol, dtype) * norm, jnp.asarray(atol, dtype))
    zero = jnp.zeros((), jnp.int32)
    empty = jnp.zeros((history, b.size), dtype)
    norms = jnp.full(max_steps + 1, jnp.nan, dtype).at[0].set(norm)
    start = _State(zero, x, r, norm, empty, empty, jnp.zeros(history, dtype), norms, zero, jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda s: (s.step < max_steps) & (s.norm > target) & ~s.is_stuck, advance, start)
    return DirectionSolve(end.x, end.step, end.norms, end.fallbacks, end.norm <= target)


class ConjugateDirection(lx.AbstractLinearSolver):
    """[`conjugate_directions`][gradatim.sciml.conjugate_directions] as a solver of `lineax.linear_solve`.

    Of its options it knows `y0`, the start. Its `stats` are `num_steps`, `max_steps`, `residual_norms` and `fallbacks`. Derivatives are
    those of the solution, found by further solves with the same directions, for which the network stays fixed: to differentiate with
    respect to its weights is an error of lineax. Solves for derivatives along the inputs start from `y0` too; leave it out there.

    **Arguments:** as there.

    **Raises:** `ValueError` for an operator that is not tagged `lineax.positive_semidefinite_tag`, or is not over one array.

    >>> operator = lx.MatrixLinearOperator(jnp.diag(jnp.array([2.0, 4.0])), lx.positive_semidefinite_tag)
    >>> solver = ConjugateDirection(lambda r: r / jnp.array([2.0, 4.0]))
    >>> solution = lx.linear_solve(operator, jnp.array([2.0, 2.0]), solver)
    >>> print(solution.value.round(5), solution.stats["num_steps"])
    [1.  0.5] 1
    """

    direction: Map
    history: int = eqx.field(static=True, default=2)
    rtol: float | Float[Array, ""] = 1e-4
    atol: float | Float[Array, ""] = 0.0
    max_steps: int = eqx.field(static=True, default=100)
    true_residual: bool = eqx.field(static=True, default=True)
    normalize: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        _check(self.history, self.rtol, self.atol, self.max_steps)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> lx.AbstractLinearOperator:
        """The operator, linearised."""
        del options
        if not lx.is_positive_semidefinite(operator):
            raise ValueError("operator must be tagged lineax.positive_semidefinite_tag: steps to a minimum need a positive matrix")
        if not isinstance(operator.in_structure(), jax.ShapeDtypeStruct):
            raise ValueError(f"operator must act on one array, got {operator.in_structure()}: ravel the pytree")
        return lx.linearise(operator)

    def compute(self, state: lx.AbstractLinearOperator, vector: Array, options: dict[str, Any]) -> tuple[Array, lx.RESULTS, dict[str, Any]]:
        """The solution, whether it is within the tolerance, and how it was reached."""
        solve = conjugate_directions(
            state.mv,
            vector,
            self.direction,
            x0=options.get("y0"),
            history=self.history,
            rtol=self.rtol,
            atol=self.atol,
            max_steps=self.max_steps,
            true_residual=self.true_residual,
            normalize=self.normalize,
        )
        stats = {
            "num_steps": solve.num_steps,
            "max_steps": self.max_steps,
            "residual_norms": solve.residual_norms,
            "fallbacks": solve.fallbacks,
        }
        return solve.value, lx.RESULTS.where(solve.is_converged, lx.RESULTS.successful, lx.RESULTS.max_steps_reached), stats

    def transpose(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        """The same: the operator is symmetric. A start belongs to its own right-hand side."""
        del options
        return state, {}

    def conj(self, state: lx.AbstractLinearOperator, options: dict[str, Any]) -> tuple[lx.AbstractLinearOperator, dict[str, Any]]:
        """The same: the operator is real."""
        return state, options

    def assume_full_rank(self) -> bool:
        """As conjugate gradients do."""
        return True


def iterations_to(residual_norms: Float[Array, " steps_and_start"], rtol: float | Float[Array, ""]) -> Int[Array, ""]:
    """Steps after which ‖r‖ ≤ rtol ‖r₀‖ for the first time, or -1 where that was not reached.

    >>> print(iterations_to(jnp.array([2.0, 1.0, 0.1, jnp.nan]), 0.1))
    2
    """
    is_there = residual_norms <= rtol * residual_norms[0]
    return jnp.where(is_there.any(), jnp.argmax(is_there), -1)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.vdot(x, x))


def _check(history: int, rtol: Any, atol: Any, max_steps: int) -> None:
    if history < 0:
        raise ValueError(f"history must be at least 0, got {history}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if isinstance(tolerance, int | float) and not tolerance >= 0:
            raise ValueError(f"{name} must be at least 0, got {tolerance}")
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
