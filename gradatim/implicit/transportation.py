"""The Euclidean projection onto the transportation polytope, and onto the Birkhoff polytope of doubly stochastic matrices."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, Int

from gradatim.numerics.checks import is_known

from .conditions import held
from .differentiation import implicit_solution
from .set_checks import check_all, check_finite, check_shape, common_arrays

STOP, ACCEPT = 8, 1000
"Units of round-off, beside the largest entry, at which the sums of X are as good as they get, and at which they are too bad."
LARGEST_SHIFT = 1e-2
"Added to the diagonal of the Newton matrix far from the solution."
MAX_HALVINGS = 40
"Of a step, beyond which it is lost in round-off."
UNEQUAL = "a and b must have the same total"
UNMET = (
    "the sums of the projection are not met within max_steps={}: let it take more, or scale v down, whose entries are too many times as "
    "large as a and b for this precision"
)


def project_transportation(
    v: Float[Array, "m n"], a: Float[Array, " m"], b: Float[Array, " n"], *, max_steps: int = 500
) -> Float[Array, "m n"]:
    """The nearest matrix with rows that sum to a, columns that sum to b, and no entry below zero.

        X = max(V + α 1ᵀ + 1 βᵀ, 0),     X 1 = a,     Xᵀ 1 = b

    β follows from α, column by column, as for the simplex; α is found by Newton's method on the dual problem, whose slope X 1 - a is
    piecewise linear, with an exact search along each step (Li, Sun and Toh, arXiv:1702.05934, whose Newton system for α and β is
    solved by conjugate gradients; here β is gone and the matrix of the smaller side is factorised). The sums are met to 8 √max(m, n)
    units of round-off of the largest entry of V, a and b, mostly to a few: 1e-15 of it in double precision, 1e-6 in single.

    X is piecewise linear in V, a and b, and its derivatives are those of the entries above zero; where an entry of V + α + β is zero,
    one-sided ones. A change of a and b that no matrix can follow, such as one of a alone, counts by its nearest one that can be
    followed.

    **Arguments:** `v`: V; `a`, `b` ≥ 0: of equal total to round-off; `max_steps`: Newton steps; tens suffice but for entries many
    times as large as a and b. Each takes some passes over V and the factorisation of a matrix of size min(m, n).

    **Raises:** `ValueError` for other shapes, entries that are not finite, negative sums or unequal totals, or `max_steps` below 1;
    `TypeError` for numbers that are not of single or double precision. While arguments are traced these, and sums not
    met within `max_steps`, are errors at run time.

    >>> x = project_transportation(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([0.5, 0.5]), jnp.array([0.75, 0.25]))
    >>> print(x.round(3).tolist())
    [[0.5, 0.0], [0.25, 0.25]]
    """
    if v.ndim != 2 or 0 in v.shape:
        raise ValueError(f"v must be a matrix with at least one entry, got shape {v.shape}; batch with jax.vmap")
    check_shape("a", a, v.shape[:1])
    check_shape("b", b, v.shape[1:])
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    v, a, b = common_arrays(v=v, a=a, b=b)
    v = check_finite("v", v)
    a = check_all("a", a, (a >= 0) & (a < jnp.inf), "at least 0 and finite")
    b = check_all("b", b, (b >= 0) & (b < jnp.inf), "at least 0 and finite")
    a, b = _check_sums(a, b)
    if v.shape[0] > v.shape[1]:
        return _projection(v.T, b, a, max_steps).T
    return _projection(v, a, b, max_steps)


def project_birkhoff(v: Float[Array, "n n"], *, max_steps: int = 500) -> Float[Array, "n n"]:
    """The nearest doubly stochastic matrix: [`project_transportation`][gradatim.implicit.project_transportation], all sums 1.

    **Raises:** as there, and `ValueError` for a matrix that is not square.

    >>> x = project_birkhoff(jnp.array([[0.9, 0.2], [0.0, 0.1]]))
    >>> print(f"{x[0, 0]:.2f} {x[0, 1]:.2f} {x[1, 0]:.2f} {x[1, 1]:.2f}")
    0.70 0.30 0.30 0.70
    """
    if v.ndim != 2 or v.shape[0] != v.shape[1]:
        raise ValueError(f"v must be a square matrix, got shape {v.shape}; batch with jax.vmap")
    [v] = common_arrays(v=v)
    ones = jnp.ones(v.shape[0], v.dtype)
    return project_transportation(v, ones, ones, max_steps=max_steps)


def _projection(v: Array, a: Array, b: Array, max_steps: int) -> Array:
    alpha, beta = _search(held(v), held(a), held(b), max_steps)
    support = alpha[:, None] + beta[None] + held(v) > 0
    mask = jnp.asarray(support, v.dtype)
    m = len(a)
    labels = _components(support)
    found = jnp.concatenate([alpha, beta])
    signs = jnp.where(jnp.arange(len(found)) < m, 1, -1).astype(v.dtype)

    def conditions(dual: Array, v: Array, a: Array, b: Array) -> Array:
        alpha, beta = dual[:m], dual[m:]
        rows = mask.sum(1) * alpha + mask @ beta + (mask * v).sum(1) - a
        columns = mask.T @ alpha + mask.sum(0) * beta + (mask * v).sum(0) - b
        # α + c, β - c is as good in each part of the support that has no row and no column in common with the rest. Where it was
        # found it stays: zero in value, and ∂₁F is definite.
        drift = jax.ops.segment_sum(signs * (dual - found), labels, len(found))
        return jnp.concatenate([rows, columns]) + signs * drift[labels]

    dual = implicit_solution(conditions, found, v, a, b, linear_solver=lx.Cholesky(), tags=lx.positive_semidefinite_tag)
    return jnp.where(support, v + dual[:m, None] + dual[None, m:], 0)


def _search(v: Array, a: Array, b: Array, max_steps: int) -> tuple[Array, Array]:
    """α by semi-smooth Newton steps on Σⱼ ‖xⱼ‖²/2 - aᵀα, β from it."""
    (m, n), eps = v.shape, float(jnp.finfo(v.dtype).eps)
    # Equal to the last digit, or the sums could not be met to it.
    b = b * (a.sum() / jnp.where(b.sum() > 0, b.sum(), 1))
    largest = jnp.maximum(jnp.abs(v).max(), jnp.maximum(a.max(), b.max()))
    unit = eps * largest * float(np.sqrt(n))

    def evaluate(alpha: Array) -> tuple[Array, Array, Array]:
        beta = _column_shifts(v + alpha[:, None], b)
        entries = v + alpha[:, None] + beta[None]
        return alpha, jax.nn.relu(entries).sum(1) - a, entries > 0

    def step(state: Any) -> Any:
        (alpha, slope, support), count = state
        mask = support.astype(v.dtype)
        shift = jnp.minimum(LARGEST_SHIFT, jnp.abs(slope).max() / largest) + 100 * m * eps
        matrix = jnp.diag(mask.sum(1) + shift) - (mask / jnp.maximum(mask.sum(0), 1)[None]) @ mask.T
        move = -cho_solve(cho_factor(matrix), slope)
        start = slope @ move

        def is_unfit(search: Any) -> Array:
            _, _, t, point, halvings = search
            rise = point[1] @ move
            return ((rise > -start / 10) | ((rise < 0.9 * start) & (t < 1))) & (halvings < MAX_HALVINGS)

        def halve(search: Any) -> Any:
            low, high, t, point, halvings = search
            # The slope along the step only rises.
            is_beyond = point[1] @ move > 0
            low, high = jnp.where(is_beyond, low, t), jnp.where(is_beyond, t, high)
            t = (low + high) / 2
            return low, high, t, evaluate(alpha + t * move), halvings + 1

        one = jnp.ones((), v.dtype)
        *_, point, _ = jax.lax.while_loop(is_unfit, halve, (0 * one, one, one, evaluate(alpha + move), 0))
        return point, count + 1

    def goes_on(state: Any) -> Array:
        (_, slope, _), count = state
        return (jnp.abs(slope).max() > STOP * unit) & (count < max_steps)

    # Where it would be without the bounds.
    start = (a - v.sum(1)) / n
    (alpha, slope, _), _ = jax.lax.while_loop(goes_on, step, (evaluate(start - start.mean()), 0))
    alpha = eqx.error_if(alpha, ~(jnp.abs(slope).max() <= ACCEPT * unit), UNMET.format(max_steps))
    return alpha, _column_shifts(v + alpha[:, None], b)


def _column_shifts(w: Float[Array, "m n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """β with Σᵢ max(wᵢⱼ + βⱼ, 0) = bⱼ: the shift that suits all entries, then those it leaves above zero, and so on (Michelot 1986)."""
    top = w.max(0)
    # Relative to the largest, so that entries which count are small, and so is the round-off of their sums.
    depth = top[None] - w

    def shift(counts: Array) -> Array:
        return (b + jnp.where(counts, depth, 0).sum(0)) / counts.sum(0).astype(w.dtype)

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        counts, _ = state
        fewer = counts & (depth < shift(counts)[None])
        # With b = 0 none would be left.
        fewer = jnp.where(fewer.any(0)[None], fewer, counts)
        return fewer, (fewer != counts).any()

    counts, _ = jax.lax.while_loop(lambda state: state[1], step, (jnp.ones(w.shape, bool), jnp.array(True)))
    return shift(counts) - top


def _components(support: Bool[Array, "m n"]) -> Int[Array, " m+n"]:
    """The least number of a row or column that each is joined to through entries of the support; columns count on from the rows."""
    m, n = support.shape
    first = (jnp.arange(m), m + jnp.arange(n))

    def step(state: Any) -> tuple:
        rows, old, _ = state
        rows = jnp.minimum(rows, jnp.where(support, old[None], m + n).min(1))
        columns = jnp.minimum(old, jnp.where(support, rows[:, None], m + n).min(0))
        return rows, columns, (columns != old).any()

    rows, columns, _ = jax.lax.while_loop(lambda state: state[2], step, (*first, jnp.array(True)))
    return jnp.concatenate([rows, columns])


def _check_sums(a: Array, b: Array) -> tuple[Array, Array]:
    allowed = float(jnp.finfo(a.dtype).eps) * (100 + a.size + b.size)
    totals = a.sum(), b.sum()
    is_apart = ~(jnp.abs(totals[0] - totals[1]) <= allowed * jnp.maximum(*totals))
    if is_known(is_apart):
        if is_apart:
            raise ValueError(f"{UNEQUAL} to round-off, got {totals[0]} and {totals[1]}")
        return a, b
    return eqx.error_if((a, b), is_apart, UNEQUAL)
