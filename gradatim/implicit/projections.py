"""Euclidean projections that are closed formulas, or end after a few passes over their point, and that `optax.projections` has not.

| set | projection |
| --- | --- |
| simplex, l1 ball and sphere, l2 ball and sphere, l∞ ball, box, hypercube, non-negative, hyperplane, halfspace | `optax.projections` |
| A x = b | [`project_affine`][gradatim.implicit.project_affine] |
| ‖z‖ ≤ t | [`project_second_order_cone`][gradatim.implicit.project_second_order_cone] |
| aᵀx = b, l ≤ x ≤ u | [`project_box_section`][gradatim.implicit.project_box_section] |
| A x = b, G x ≤ h | [`project_polyhedron`][gradatim.implicit.project_polyhedron] |
| X 1 = a, Xᵀ 1 = b, X ≥ 0 | [`project_transportation`][gradatim.implicit.project_transportation] |
| X 1 = 1, Xᵀ 1 = 1, X ≥ 0 | [`project_birkhoff`][gradatim.implicit.project_birkhoff] |

All are called as `projection(v, *set)`, as [`projected_gradient`][gradatim.implicit.projected_gradient] does. Where the active
constraints change, derivatives are one-sided ones.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .conditions import held
from .set_checks import check_all, check_finite, check_shape, common_arrays

NEWTON_STEPS = 30
"At most, for a first guess; a handful is the rule."
ROUND_OFFS = 16
"Units of round-off by which a sum may lie outside of what the bounds allow."
EMPTY_SECTION = "no x between lower and upper has aᵀx = b: move b, or widen the bounds"
Bound = Float[Array, " n"] | Float[Array, ""] | float


def project_affine(v: Float[Array, " n"], A: Float[Array, "m n"], b: Float[Array, " m"]) -> Float[Array, " n"]:
    """The nearest point with A x = b: v - Aᵀ(AAᵀ)⁻¹(A v - b). The rows of A must be independent.

    >>> project_affine(jnp.array([1.0, 0.0]), jnp.ones((1, 2)), jnp.array([2.0])).tolist()
    [1.5, 0.5]
    """
    return v - A.T @ jnp.linalg.solve(A @ A.T, A @ v - b)


def project_second_order_cone(v: Float[Array, " n"]) -> Float[Array, " n"]:
    """The nearest (t, z) with ‖z‖ ≤ t, for v = (t, z).

    >>> project_second_order_cone(jnp.array([0.0, 3.0, 4.0])).tolist()
    [2.5, 1.5, 2.0]
    """
    t, z = v[0], v[1:]
    norm, is_zero = safe_norm(z)
    size = jnp.where(is_zero, 0.0, norm)
    height = (t + size) / 2
    edge = jnp.concatenate([height[None], height / norm * z])
    return jnp.where(size <= t, v, jnp.where(size <= -t, 0.0, edge))


def safe_norm(v: Array) -> tuple[Array, Array]:
    """‖v‖, or 1 for a zero, and whether it is one: the root of a safe number, since the derivative at 0 is infinite."""
    square = jnp.sum(v**2)
    is_zero = square == 0
    return jnp.sqrt(jnp.where(is_zero, 1.0, square)), is_zero


def project_box_section(
    v: Float[Array, " n"], a: Float[Array, " n"], b: Float[Array, ""] | float, lower: Bound = 0.0, upper: Bound = 1.0
) -> Float[Array, " n"]:
    """The nearest point of a box on a hyperplane: aᵀx = b, l ≤ x ≤ u.

        x = clip(v - ν a, l, u),     aᵀx(ν) = b

    aᵀx(ν) falls with ν along straight pieces. The piece that holds b is found by Newton's method between bounds (Cominetti, Mascarenhas
    and Silva, Math. Program. Comput. 6, 151 (2014)), without a sort, and ν is exact on it: x is exact to a few units of round-off of the
    largest numbers. Derivatives are those of the entries between their bounds; at
    a corner, where there is none, they are zero in v and b, or one-sided ones.

    **Arguments:** `v`; `a`; `b`; `lower` l ≤ `upper` u: numbers or one for each entry, -∞ and ∞ allowed.

    **Raises:** `ValueError` for other shapes, numbers that are not finite, l > u or an empty set; `TypeError` for numbers that are not
    of single or double precision. While arguments are traced, errors at run time.

    >>> project_box_section(jnp.array([2.0, 0.75, 0.5]), jnp.ones(3), 1.75).tolist()
    [1.0, 0.5, 0.25]
    """
    if np.ndim(v) != 1:
        raise ValueError(f"v must be a vector, got shape {np.shape(v)}; batch with jax.vmap")
    check_shape("a", a, np.shape(v))
    check_shape("b", b, ())
    for name, bound in (("lower", lower), ("upper", upper)):
        if np.ndim(bound):
            check_shape(name, bound, np.shape(v))
    v, a, b, lower, upper = common_arrays(v=v, a=a, b=b, lower=lower, upper=upper)
    lower, upper = jnp.broadcast_to(lower, v.shape), jnp.broadcast_to(upper, v.shape)
    v, a, b = (check_finite(name, x) for name, x in (("v", v), ("a", a), ("b", b)))
    lower = check_all("lower", lower, (lower <= upper) & (lower < jnp.inf) & (upper > -jnp.inf), "at most upper, neither inf nor nan")
    return _section(v, a, b, lower, upper)


def _section(v: Array, a: Array, b: Array, lower: Array, upper: Array) -> Array:
    left, right, is_free, is_low = _piece(held(v), held(a), held(b), held(lower), held(upper))
    weight = jnp.sum(jnp.where(is_free, a, 0) ** 2)
    on_piece = (a @ jnp.where(is_free, v, jnp.where(is_low, lower, upper)) - b) / jnp.where(weight > 0, weight, 1)
    # No more than round-off beyond the ends, which moves with nothing.
    nu = on_piece + held(jnp.clip(on_piece, left, right) - on_piece)
    corner = jnp.where(jnp.isfinite(left), left, jnp.where(jnp.isfinite(right), right, 0))
    nu = _check_section(jnp.where(weight > 0, nu, corner), held(a), held(b), held(lower), held(upper))
    return jnp.where(is_free, v - nu * a, jnp.where(is_low, lower, upper))


def _piece(v: Array, a: Array, b: Array, lower: Array, upper: Array) -> tuple[Array, Array, Array, Array]:
    """The ends of the piece that holds b, which entries are between their bounds on it, and which of the others are at the lower one."""
    acts = a != 0
    divisor = jnp.where(acts, a, 1)
    at_lower, at_upper = ((v - bound) / divisor for bound in (lower, upper))
    # Between its ends ν moves an entry; on those without any it does not act.
    first, last = (jnp.where(acts, pick(at_lower, at_upper), jnp.inf) for pick in (jnp.minimum, jnp.maximum))

    def total(nu: Array) -> Array:
        return a @ jnp.clip(v - nu * a, lower, upper)

    left, right = _bracket(first, last, a, b, total, _by_newton(v, a, b, lower, upper))
    is_free = jnp.where(acts, (first <= left) & (last >= right), (lower < v) & (v < upper))
    is_low = jnp.where(acts, (last <= left) == (a > 0), v <= lower)
    return left, right, is_free, is_low


def _by_newton(v: Array, a: Array, b: Array, lower: Array, upper: Array) -> Array:
    """A ν on the piece that holds b, or near it: aᵀx falls along straight pieces, few of which are met on the way."""

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        nu, _, low, high, count = state
        moved = v - nu * a
        excess = a @ jnp.clip(moved, lower, upper) - b
        weight = jnp.sum(jnp.where((moved > lower) & (moved < upper), a, 0) ** 2)
        low, high = jnp.where(excess > 0, nu, low), jnp.where(excess < 0, nu, high)
        ahead = jnp.where(weight > 0, nu + excess / jnp.where(weight > 0, weight, 1), nu)
        return jnp.where((ahead <= low) | (ahead >= high), (low + high) / 2, ahead), nu, low, high, count + 1

    def go_on(state: tuple[Array, ...]) -> Array:
        nu, before, *_, count = state
        return (nu != before) & jnp.isfinite(nu) & (count < NEWTON_STEPS)

    zero = 0 * b
    start = (zero, zero + 1, zero - jnp.inf, zero + jnp.inf, jnp.zeros((), jnp.int32))
    nu, before, *_ = jax.lax.while_loop(go_on, step, start)
    return jnp.where(jnp.isfinite(nu), nu, before)


def _bracket(first: Array, last: Array, a: Array, b: Array, total: Callable[[Array], Array], trial: Array) -> tuple[Array, Array]:
    """The ends left < right of the piece with aᵀx(left) ≥ b > aᵀx(right), from a trial ν; those without end count as infinite."""

    def before(nu: Array, *, is_strict: bool = False) -> Array:
        ends = [jnp.where(end < nu if is_strict else end <= nu, end, -jnp.inf).max() for end in (first, last)]
        return jnp.maximum(*ends)

    def after(nu: Array) -> Array:
        return jnp.minimum(*(jnp.where(end > nu, end, jnp.inf).min() for end in (first, last)))

    def look(state: tuple[Array, ...]) -> tuple[Array, ...]:
        trial, low, high, count, *_ = state
        left, right = before(trial), after(trial)
        at_left, at_right = (total(jnp.where(jnp.isfinite(end), end, 0)) - b for end in (left, right))
        is_behind = jnp.isfinite(left) & (at_left < 0)
        is_ahead = jnp.isfinite(right) & (at_right >= 0) & ~is_behind
        low, high = jnp.where(is_ahead, right, low), jnp.where(is_behind, left, high)
        # Along the piece, or halfway between what is known every third time: no more pieces are looked at than there are.
        weight = jnp.sum(jnp.where((first <= left) & (last >= right), a, 0) ** 2)
        move = jnp.where(is_behind, at_left, at_right) / jnp.where(weight > 0, weight, 1)
        ahead = jnp.where(is_behind, left, right) + jnp.where(weight > 0, move, 0)
        middle = (low + high) / 2
        ahead = jnp.where(jnp.isfinite(middle) & ((count % 3 == 2) | (ahead < low) | (ahead >= high)), middle, ahead)
        ahead = jnp.where(is_ahead & ~(ahead > right), right, jnp.where(is_behind & ~(ahead < left), before(left, is_strict=True), ahead))
        # Round-off may tell the two sides of one end apart; either piece is then right to it.
        return ahead, low, high, count + 1, left, right, ~(is_ahead | is_behind) | (low >= high)

    zero = 0 * b
    start = (trial, zero - jnp.inf, zero + jnp.inf, jnp.zeros((), jnp.int32), zero, zero, zero != 0)
    *_, left, right, _ = jax.lax.while_loop(lambda state: ~state[-1], look, start)
    return left, right


def _check_section(nu: Array, a: Array, b: Array, lower: Array, upper: Array) -> Array:
    """ν, once b is known to be within what the bounds allow."""

    def times(x: Array) -> Array:
        # The product of an infinite bound and a zero is none.
        return jnp.where(a == 0, 0, a) * jnp.where(a == 0, 0, x)

    least = jnp.minimum(times(lower), times(upper)).sum()
    most = jnp.maximum(times(lower), times(upper)).sum()
    size = sum(jnp.where(jnp.isfinite(times(x)), jnp.abs(times(x)), 0).sum() for x in (lower, upper)) + jnp.abs(b)
    slack = ROUND_OFFS * float(jnp.finfo(a.dtype).eps) * size
    is_empty = ~((b >= least - slack) & (b <= most + slack))
    if is_known(is_empty):
        if is_empty:
            raise ValueError(f"b must lie between {least} and {most}, the range of aᵀx between lower and upper, got {b}")
        return nu
    return eqx.error_if(nu, is_empty, EMPTY_SECTION)
