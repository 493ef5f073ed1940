"""The Euclidean projection onto a polyhedron, by the dual active-set method of Goldfarb and Idnani (Math. Program. 27, 1983)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

from .conditions import held
from .differentiation import implicit_solution
from .set_checks import check_finite, check_shape, common_arrays

STOP, ACCEPT = 100, 10_000
"Units of round-off, beside the largest number, of a constraint that counts as met, and of one that counts as broken at the end."
EMPTY = "no x has A x = b and G x <= h, or none within round-off"
UNFINISHED = "the active constraints were not found within max_steps={}: let it take more"
UNMET = "the constraints are not met to round-off: some are parallel but for few digits; take double precision, or leave one out"


def project_polyhedron(
    v: Float[Array, " n"],
    A: Float[Array, "p n"] | None = None,
    b: Float[Array, " p"] | None = None,
    G: Float[Array, "q n"] | None = None,
    h: Float[Array, " q"] | None = None,
    *,
    max_steps: int | None = None,
) -> Float[Array, " n"]:
    """The nearest point with A x = b and G x ≤ h.

        x = v - Cᵀy,     C x = d,     C, d: the independent active rows of A, b and G, h;     y ≥ 0 for those of G

    The active rows are found one after the other: the one broken most comes in, those whose multiplier would fall below zero go
    out. On them x is exact, up to round-off: about 1e-15 of the largest number in double precision and 1e-6 in single, times
    the condition number of C. Redundant rows do no harm. A step costs n² + (p + q) n, the end a factorisation of a matrix of size p + q.

    x is piecewise smooth; derivatives are those of the active rows, and where these change, one-sided ones.

    **Arguments:** `v`; `A`, `b` and `G`, `h`, each pair None where there are no such constraints; `max_steps`: rows that come in or go
    out, None for 10 (p + q) + 100; about as many suffice as are active.

    **Raises:** `ValueError` for other shapes, one of a pair alone, numbers that are not finite, a set that is empty, or `max_steps`
    below 1; `TypeError` for numbers that are not of single or double precision; `RuntimeError` for active rows that are not found
    within `max_steps`, or too close to dependent. While arguments are traced, all these but the shapes are errors at run time.

    >>> G = jnp.array([[1.0, 1.0], [0.0, 1.0]])
    >>> project_polyhedron(jnp.array([2.0, 1.0]), G=G, h=jnp.array([1.0, 0.25])).tolist()
    [1.0, 0.0]
    """
    if np.ndim(v) != 1 or not np.size(v):
        raise ValueError(f"v must be a vector with at least one entry, got shape {np.shape(v)}; batch with jax.vmap")
    equal, values = _pair("A", A, "b", b, v)
    below, limits = _pair("G", G, "h", h, v)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    parts = zip("vAbGh", common_arrays(v=v, A=equal, b=values, G=below, h=limits), strict=True)
    v, A, b, G, h = [check_finite(name, x) for name, x in parts]
    C, d = jnp.concatenate([A, G]), jnp.concatenate([b, h])
    if not len(d):
        return v
    return _projection(v, C, d, len(b), 10 * len(d) + 100 if max_steps is None else max_steps)


def _pair(name: str, matrix: Any, other: str, offset: Any, v: Any) -> tuple[ArrayLike, ArrayLike]:
    if (matrix is None) != (offset is None):
        missing = name if matrix is None else other
        raise ValueError(f"{name} and {other} must be given both or neither, got {missing}=None")
    if matrix is None:
        return jnp.zeros((0, *np.shape(v)), jnp.result_type(v)), jnp.zeros(0, jnp.result_type(v))
    if np.ndim(matrix) != 2 or np.shape(matrix)[1:] != np.shape(v):
        raise ValueError(f"{name} must have {len(v)} columns, one for each entry of v, got shape {np.shape(matrix)}; batch with jax.vmap")
    check_shape(other, offset, np.shape(matrix)[:1])
    return matrix, offset


def _projection(v: Array, C: Array, d: Array, n_equal: int, max_steps: int) -> Array:
    # Rows of length 1: what is broken most does not depend on units.
    norms = held(jnp.linalg.norm(C, axis=1))
    norms = jnp.where(norms > 0, norms, 1)
    C, d = C / norms[:, None], d / norms
    y, is_active = _search(held(v), held(C), held(d), n_equal, max_steps)

    def conditions(y: Array, v: Array, C: Array, d: Array) -> Array:
        return jnp.where(is_active, C @ (C.T @ jnp.where(is_active, y, 0) - v) + d, y)

    y = implicit_solution(conditions, y, v, C, d, linear_solver=lx.Cholesky(), tags=lx.positive_semidefinite_tag)
    return v - C.T @ y


class _State(NamedTuple):
    x: Array
    y: Array
    is_active: Array
    rest: Array  # H, the projector on what is orthogonal to the active rows
    inverse: Array  # N, rows of the pseudo-inverse: r = N c are the coefficients of c in the active rows; zero where not active
    entering: Array  # the row on its way in, or -1
    is_empty: Array
    is_done: Array
    n_steps: Array


def _search(v: Array, C: Array, d: Array, n_equal: int, max_steps: int) -> tuple[Array, Array]:
    """Multipliers, and the rows that are active."""
    (n_rows, n), eps = C.shape, float(jnp.finfo(v.dtype).eps)
    unit = eps * jnp.maximum(jnp.abs(v).max(), jnp.abs(d).max()) * float(np.sqrt(n))
    # A row of length 1 depends on the others if less than this is left of it.
    least_rest = eps**0.75
    is_equality = jnp.arange(n_rows) < n_equal

    def enter(state: _State, row: Array, rest: Array, share: Array) -> _State:
        square = jnp.sum(rest**2)
        others = state.inverse - jnp.outer(share, rest) / square
        return state._replace(
            is_active=state.is_active.at[row].set(True),
            rest=state.rest - jnp.outer(rest, rest) / square,
            inverse=others.at[row].set(rest / square),
        )

    def leave(state: _State, row: Array) -> _State:
        gone = state.inverse[row]
        square = jnp.sum(gone**2)
        return state._replace(
            y=state.y.at[row].set(0),
            is_active=state.is_active.at[row].set(False),
            rest=state.rest + jnp.outer(gone, gone) / square,
            inverse=(state.inverse - jnp.outer(state.inverse @ gone, gone) / square).at[row].set(0),
        )

    def rest_of(state: _State, row: Array) -> tuple[Array, Array]:
        # Twice, which takes away what round-off left of the active rows.
        return state.rest @ (state.rest @ C[row]), state.inverse @ C[row]

    def equality(row: Array, state: _State) -> _State:
        rest, share = rest_of(state, row)
        gap = C[row] @ state.x - d[row]
        is_dependent = jnp.sum(rest**2) <= least_rest**2
        rest = jnp.where(is_dependent, C[row], rest)
        length = gap / jnp.sum(rest**2)
        moved = state._replace(x=state.x - length * rest, y=(state.y - length * share).at[row].add(length))
        taken = enter(moved, row, rest, share)
        skipped = state._replace(is_empty=state.is_empty | (jnp.abs(gap) > ACCEPT * unit))
        return _where(is_dependent, skipped, taken)

    def step(state: _State) -> _State:
        gaps = jnp.where(is_equality | state.is_active, -jnp.inf, C @ state.x - d)
        row = jnp.where(state.entering < 0, jnp.argmax(gaps), state.entering)
        gap = C[row] @ state.x - d[row]
        rest, share = rest_of(state, row)
        square = jnp.sum(rest**2)
        is_dependent = square <= least_rest**2
        falls = state.is_active & ~is_equality & (share > eps)
        ratios = jnp.where(falls, state.y / jnp.where(falls, share, 1), jnp.inf)
        out = jnp.argmin(ratios)
        full = jnp.where(is_dependent, jnp.inf, gap / jnp.where(is_dependent, 1, square))
        length = jnp.minimum(ratios[out], full)
        is_empty = ~jnp.isfinite(length)
        length = jnp.where(is_empty, 0, length)
        moved = state._replace(
            x=state.x - jnp.where(is_dependent, 0, length) * rest,
            y=(state.y - length * share).at[row].add(length),
            is_empty=state.is_empty | is_empty,
        )
        is_full = full <= ratios[out]
        taken = enter(moved, row, jnp.where(is_dependent, C[row], rest), share)._replace(entering=jnp.full_like(row, -1))
        left = leave(moved, out)._replace(entering=row)
        after = _where(is_empty, moved, _where(is_full, taken, left))
        is_done = (state.entering < 0) & ~(gaps[row] > STOP * unit)
        return _where(is_done, state, after)._replace(is_done=is_done, n_steps=state.n_steps + 1)

    no = jnp.array(False)
    start = _State(
        v,
        jnp.zeros_like(d),
        jnp.zeros(n_rows, bool),
        jnp.eye(n, dtype=v.dtype),
        jnp.zeros_like(C),
        jnp.array(-1),
        no,
        no,
        jnp.array(0),
    )
    state = jax.lax.fori_loop(0, n_equal, equality, start)
    state = jax.lax.while_loop(lambda state: ~(state.is_done | state.is_empty) & (state.n_steps < max_steps), step, state)
    y = _multipliers(v, C, d, state.is_active)
    x = v - C.T @ y
    gaps = C @ x - d
    # Short of the end y may be negative by as much as a row that is close to dependent makes of round-off.
    is_unmet = ~(jnp.max(jnp.where(is_equality, jnp.abs(gaps), gaps)) <= ACCEPT * unit)
    return _checked(y, state, is_unmet, max_steps), state.is_active


def _multipliers(v: Array, C: Array, d: Array, is_active: Array) -> Array:
    """Y with C (v - Cᵀy) = d on the active rows, zero on others, corrected once for round-off."""
    pairs = is_active[:, None] & is_active[None]
    factor = cho_factor(jnp.where(pairs, C @ C.T, jnp.eye(len(d), dtype=v.dtype)))
    y = jnp.zeros_like(d)
    for _ in range(2):
        y = y + cho_solve(factor, jnp.where(is_active, C @ (v - C.T @ y) - d, 0))
    return y


def _where(condition: Array, a: _State, b: _State) -> _State:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), a, b)


def _checked(y: Array, state: _State, is_unmet: Array, max_steps: int) -> Array:
    is_long = ~(state.is_done | state.is_empty)
    failures = ((state.is_empty, EMPTY), (is_long, UNFINISHED.format(max_steps)), (is_unmet, UNMET))
    if not is_known(is_unmet):
        fails = jnp.stack([failure for failure, _ in failures])
        return eqx.branched_error_if(y, fails.any(), jnp.argmax(fails), [message for _, message in failures])
    if state.is_empty:
        raise ValueError(f"A, b, G and h must allow a point: {EMPTY}")
    for fails, message in failures[1:]:
        if fails:
            raise RuntimeError(message)
    return y
