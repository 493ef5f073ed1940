"""Euclidean projections that are closed formulas, or end after one sort, and that `optax.projections` has not.

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

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .conditions import held
from .differentiation import implicit_solution
from .set_checks import check_all, check_finite, check_shape, common_arrays

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

    aᵀx(ν) falls with ν along straight pieces. The piece that holds b is found by bisection over its sorted ends, and ν is exact on it:
    x is exact to a few units of round-off of the largest numbers. Derivatives are those of the entries between their bounds; at
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
    nu, is_free, is_low = _piece(held(v), held(a), held(b), held(lower), held(upper))

    def point(nu: Array, v: Array, a: Array, lower: Array, upper: Array) -> Array:
        return jnp.where(is_free, v - nu * a, jnp.where(is_low, lower, upper))

    def conditions(nu: Array, v: Array, a: Array, b: Array, lower: Array, upper: Array) -> Array:
        return a @ point(nu, v, a, lower, upper) - b

    # Without free entries the slope in ν is zero, and its pseudo-inverse too.
    nu = implicit_solution(conditions, nu, v, a, b, lower, upper, linear_solver=lx.SVD())
    return point(nu, v, a, lower, upper)


def _piece(v: Array, a: Array, b: Array, lower: Array, upper: Array) -> tuple[Array, Array, Array]:
    """ν, which entries are between their bounds there, and which of the others are at the lower one."""
    acts = a != 0
    divisor = jnp.where(acts, a, 1)
    at_lower, at_upper = ((v - bound) / divisor for bound in (lower, upper))
    first, last = jnp.minimum(at_lower, at_upper), jnp.maximum(at_lower, at_upper)
    # Entries on which ν does not act have no end: all of theirs stand behind the others.
    ends = jnp.where(acts, jnp.stack([first, last]), jnp.inf).ravel()
    edge = jnp.full(1, jnp.inf, v.dtype)
    ends = jnp.concatenate([-edge, jnp.sort(ends), edge])

    def total(nu: Array) -> Array:
        return a @ jnp.clip(v - nu * a, lower, upper)

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) // 2
        # At the last step the middle is the low end, which may be infinite.
        is_left = (middle == low) | (total(jnp.where(jnp.isfinite(ends[middle]), ends[middle], 0)) >= b)
        return jnp.where(is_left, middle, low), jnp.where(is_left, high, middle)

    bracket = jnp.sum(ends == -jnp.inf) - 1, len(ends) - jnp.sum(ends == jnp.inf)
    low, high = jax.lax.fori_loop(0, len(ends).bit_length(), halve, bracket)
    left, right = ends[low], ends[high]
    is_free = jnp.where(acts, (first <= left) & (last >= right), (lower < v) & (v < upper))
    is_low = jnp.where(acts, (last <= left) == (a > 0), v <= lower)
    fixed = jnp.where(is_free, v, jnp.where(is_low, lower, upper))
    weight = jnp.sum(jnp.where(is_free, a, 0) ** 2)
    nu = jnp.clip((a @ fixed - b) / jnp.where(weight > 0, weight, 1), left, right)
    corner = jnp.where(jnp.isfinite(left), left, jnp.where(jnp.isfinite(right), right, 0))
    nu = _check_section(jnp.where(weight > 0, nu, corner), a, b, lower, upper)
    return nu, is_free, is_low


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
