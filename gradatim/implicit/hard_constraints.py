"""Equations as a layer of a network: least squares weighs basis functions so that they hold, once or block by block
(Chalapathi, Du and Krishnapriyan, arXiv:2402.13412).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Bool, Float, Int, PyTree

from .block_partition import BlockPartition
from .conditions import held
from .differentiation import implicit_solution

SINGLE_RTOL = 1e-4
"Below this, steps in single precision no longer shrink."
FIRST_DAMPING = 1e-3
"Of the step after one that failed, relative to the diagonal of JᵀJ."
TRUSTED_DAMPING = 1e-2
"Up to this, a short step means that the solution is near, and not that damping holds it back."
ROUNDING = 8.0
"Units in the last place by which two costs may differ and be the same."


class Weighed(eqx.Module):
    """Weights of the basis functions, and how the search for them ended."""

    weights: Float[Array, "*blocks basis"]
    residual_norm: Float[Array, "*blocks"]
    "‖g‖ without the ridge: not zero where there are more rows than basis functions."
    n_steps: Int[Array, "*blocks"]
    "Trial steps, those that failed included."
    is_converged: Bool[Array, "*blocks"]

    @property
    def n_failures(self) -> Int[Array, ""]:
        """Solves that stopped at their limit of steps."""
        return jnp.sum(~self.is_converged)


class HardConstraint(eqx.Module):
    """The weights ω for which equations in the fields u = b·ω hold best, as a differentiable function of the basis b.

        ω*(b) = argmin_ω ½‖g(ω; b)‖² + ½ ρ²‖ω‖²,     g = residual(terms · ω, data)
        (JᵀJ + Σᵢ gᵢ ∇²gᵢ + ρ²) dω* = -d(Jᵀg) at fixed ω                           (`derivative="exact"`)

    `terms` are what the residual needs that is linear in u (values, derivatives, boundary values), made of the basis once, with the
    basis functions along the last axis; inside the search only sums over that axis and the pointwise residual are left, and J is the
    residual's derivative pushed along the terms themselves. Steps are those of Levenberg and Marquardt from the normal equations,
    undamped at first, which a linear problem needs no more than; they cost half of a QR, and Jᵀg = 0 is as exact by them.

    Hard does not mean zero: with more rows than basis functions a residual stays, and `residual_norm` tells it. Groups of rows compete by
    their scales: an equation in physical units beside boundary rows of order one is simply ignored.

    `derivative="pseudo-inverse"` is the article's formula, dω* = -J⁺ dg at fixed ω, which leaves out the second term: right only where
    the residual vanishes (or where it is linear in ω, and b only scales it), but never indefinite.

    Deviations from the authors' code, which differentiates a Levenberg-Marquardt solver of a library: convergence is judged by the step
    alone; the last iterate is returned in any case, and `is_converged` says what it is. The search is not optimistix's, whose
    first step is damped, so that a linear problem takes several, and whose Jacobian knows nothing of the terms.

    **Arguments:** `residual(fields, data)`: any tree of arrays, its rows; `ridge` ρ ≥ 0, the authors' 1e-4; `start`: every weight at
    first; 0 is where u vanishes, often a singular point; `rtol`, `atol`: of a step beside ω, at least 1e-4 in single precision;
    `max_steps`; `derivative`; `throw`: raise at run time, when differentiated, where the linear system has no solution, as in a training
    that diverges; without it the derivative is NaN or infinite there.

    **Raises:** `ValueError` for numbers out of range; when called, for terms that do not agree on the number of basis functions, fewer
    rows than these without a ridge, or an `rtol` that single precision cannot reach.

    >>> constraint = HardConstraint(lambda u, target: u - target, ridge=0.0)
    >>> basis = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> found = constraint(basis, jnp.array([1.0, 3.0, 5.0]))
    >>> print(found.weights.round(3), found.n_steps)
    [1. 2.] 2
    """

    residual: Callable[[Any, Any], PyTree]
    ridge: float = eqx.field(static=True, default=1e-4)
    start: float | Float[Array, ""] = 1.0
    rtol: float = eqx.field(static=True, default=1e-4)
    atol: float = eqx.field(static=True, default=1e-4)
    max_steps: int | Int[Array, ""] = 50
    derivative: Literal["exact", "pseudo-inverse"] = eqx.field(static=True, default="exact")
    throw: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if not (self.ridge >= 0 and math.isfinite(self.ridge)):
            raise ValueError(f"ridge must be at least 0 and finite, got {self.ridge}")
        for name, number in (("rtol", self.rtol), ("atol", self.atol)):
            if not number >= 0:
                raise ValueError(f"{name} must be at least 0, got {number}")
        if isinstance(self.max_steps, int) and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if self.derivative not in ("exact", "pseudo-inverse"):
            raise ValueError(f"derivative must be 'exact' or 'pseudo-inverse', got {self.derivative!r}")

    def __call__(self, terms: PyTree, data: PyTree = None) -> Weighed:
        """The weights for `terms`, whose last axis holds the basis functions, and `data`, which the residual is given as it is."""
        self._check(terms, data)
        found = self._search(held(terms), held(data))
        conditions = self._slope if self.derivative == "exact" else self._fixed_slope
        # Not a factorisation for definite matrices: short of the solution, the Hessian may be none.
        weights = implicit_solution(conditions, found.weights, terms, data, linear_solver=lx.LU(), throw=self.throw)
        return Weighed(weights, found.residual_norm, found.n_steps, found.is_converged)

    def rows(self, weights: Float[Array, " basis"], terms: PyTree, data: PyTree) -> Float[Array, " rows"]:
        """The residual g, flat, without the ridge."""
        return self._flat(jax.tree.map(lambda term: term @ weights, terms), data)

    def _flat(self, fields: PyTree, data: PyTree) -> Float[Array, " rows"]:
        return jnp.concatenate([jnp.ravel(rows) for rows in jax.tree.leaves(self.residual(fields, data))])

    def _rows_and_jacobian(self, weights: Array, terms: PyTree, data: PyTree) -> tuple[Array, Array]:
        fields = jax.tree.map(lambda term: term @ weights, terms)

        def along(term: PyTree) -> tuple[Array, Array]:
            return jax.jvp(lambda fields: self._flat(fields, data), (fields,), (term,))

        # The rows themselves do not depend on the direction, and are found once.
        return jax.vmap(along, in_axes=-1, out_axes=(None, -1))(terms)

    def _slope(self, weights: Array, terms: PyTree, data: PyTree) -> Array:
        """Jᵀg + ρ²ω, zero at the solution."""
        slope = jax.grad(lambda weights: jnp.sum(self.rows(weights, terms, data) ** 2) / 2)(weights)
        return slope + self.ridge**2 * weights

    def _fixed_slope(self, weights: Array, terms: PyTree, data: PyTree) -> Array:
        """The same with J held, whose derivative is that of the article."""
        _, pull = jax.vjp(lambda weights: self.rows(weights, held(terms), held(data)), held(weights))
        return pull(self.rows(weights, terms, data))[0] + self.ridge**2 * weights

    def _search(self, terms: PyTree, data: PyTree) -> Weighed:
        leaf = jax.tree.leaves(terms)[0]
        n, dtype = leaf.shape[-1], jnp.result_type(leaf)

        def squares(weights: Array) -> Array:
            return jnp.sum(self.rows(weights, terms, data) ** 2)

        def cost(squares: Array, weights: Array) -> Array:
            return (squares + self.ridge**2 * jnp.sum(weights**2)) / 2

        def step(state: _State) -> _State:
            rows, jacobian = self._rows_and_jacobian(state.weights, terms, data)
            matrix = jacobian.T @ jacobian + self.ridge**2 * jnp.eye(n, dtype=dtype)
            slope = rows @ jacobian + self.ridge**2 * state.weights
            damped = matrix + state.damping * jnp.diag(jnp.diag(matrix))
            move = -cho_solve(cho_factor(damped), slope)
            trial = state.weights + move
            trial_squares = squares(trial)
            before, after = cost(state.squares, state.weights), cost(trial_squares, trial)
            predicted = jnp.sum(move * (state.damping * jnp.diag(matrix) * move - slope)) / 2
            # Close to the solution a step is lost in the rounding of the cost: it is taken on trust.
            is_even = jnp.abs(after - before) <= ROUNDING * jnp.finfo(dtype).eps * before
            # False for what is not finite, be it the factorisation or the residual.
            is_better = (after < before) | is_even
            gain = jnp.where(is_even, 1.0, (before - after) / jnp.where(predicted > 0, predicted, 1))
            raised = jnp.maximum(10 * state.damping, FIRST_DAMPING)
            damping = jnp.where(is_better & (gain > 0.25), jnp.where(gain > 0.75, state.damping / 10, state.damping), raised)
            is_short = jnp.linalg.norm(move) <= self.atol + self.rtol * jnp.linalg.norm(state.weights)
            return _State(
                jnp.where(is_better, trial, state.weights),
                jnp.where(is_better, trial_squares, state.squares),
                damping,
                state.n_steps + 1,
                is_short & (state.damping <= TRUSTED_DAMPING),
            )

        def go_on(state: _State) -> Array:
            return ~state.is_converged & (state.n_steps < self.max_steps)

        start = jnp.full((n,), held(self.start), dtype)
        first = _State(start, squares(start), jnp.zeros((), dtype), jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        last = jax.lax.while_loop(go_on, step, first)
        return Weighed(last.weights, jnp.sqrt(last.squares), last.n_steps, last.is_converged)

    def _check(self, terms: PyTree, data: PyTree) -> None:
        leaves = jax.tree.leaves(terms)
        sizes = sorted({leaf.shape[-1] if leaf.ndim else 0 for leaf in leaves})
        if len(sizes) != 1 or sizes[0] < 1:
            raise ValueError(f"terms must have the same number of basis functions along their last axes, at least 1, got {sizes}")
        dtype = jnp.result_type(*leaves)
        if jnp.finfo(dtype).bits < 64 and self.rtol < SINGLE_RTOL:
            raise ValueError(
                f"rtol must be at least {SINGLE_RTOL:g} for terms of {dtype}, got {self.rtol:g}: use double precision for a closer solution"
            )
        n_rows = jax.eval_shape(self.rows, jax.ShapeDtypeStruct((sizes[0],), dtype), terms, data).size
        if self.ridge == 0 and n_rows < sizes[0]:
            raise ValueError(f"without a ridge there must be at least {sizes[0]} rows, one for each basis function, got {n_rows}")


class _State(NamedTuple):
    weights: Array
    squares: Array
    damping: Array
    n_steps: Array
    is_converged: Array


class Parts(NamedTuple):
    """What belongs to points of a grid, and what every block is given: terms, fields or data."""

    local: Any
    "Arrays whose first axes are those of the grid; inside a block, of its sampled points."
    shared: Any = None
    "Initial and boundary rows, say."


class MixtureOfConstraints(eqx.Module):
    """One solve for each block of a grid, over basis functions that all blocks share: u(x) = b(x)·ω_k for x in block k.

    There is no gate to learn: the partition is fixed. The solves know nothing of each other, so that they run side by side,
    dω_k depends on the rows of block k and the shared ones alone, and the derivative of the whole is put together from the blocks'.
    With one block this is the single constraint. u may jump from block to block: differences across the edges see that.

    K blocks of m points see K m points: beside one solve with m points they also have more data; with m/K points each they have
    as much. Under `jax.vmap` all solves take as many steps as the slowest.

    **Arguments:** `constraint`: its residual is given `Parts` of fields and `Parts` of data; `partition`.

    >>> def residual(fields, data):
    ...     return fields.local - data.local
    >>> mixture = MixtureOfConstraints(HardConstraint(residual, ridge=0.0), BlockPartition((2,)))
    >>> basis = jnp.ones((4, 1))
    >>> found = mixture(Parts(basis), Parts(jnp.array([1.0, 3.0, 5.0, 7.0])), jnp.array([[0, 1], [0, 1]]))
    >>> print(found.weights[:, 0], mixture.assemble(basis, found.weights))
    [2. 6.] [2. 2. 6. 6.]
    """

    constraint: HardConstraint
    partition: BlockPartition

    def __call__(self, terms: Parts, data: Parts, points: Int[Array, "blocks points"]) -> Weighed:
        """Weights of every block, from the rows at its points: numbers within the flattened block, as of `BlockPartition.sample`."""
        if points.shape[0] != self.partition.n_blocks:
            raise ValueError(f"points must have one row for each of the {self.partition.n_blocks} blocks, got shape {points.shape}")
        local = jax.tree.map(lambda x: self._at(x, points), (terms.local, data.local))
        in_axes = Parts(0, None)
        solve = jax.vmap(self.constraint, in_axes=(in_axes, in_axes))
        return solve(Parts(local[0], terms.shared), Parts(local[1], data.shared))

    def assemble(self, terms: PyTree, weights: Float[Array, "blocks basis"]) -> PyTree:
        """Fields on the whole grid: terms times the weights of the block each point lies in."""

        def whole(term: Array) -> Array:
            return jnp.asarray(self.partition.unsplit(jnp.einsum("k...n,kn->k...", self.partition.split(term), weights)))

        return jax.tree.map(whole, terms)

    def _at(self, x: Array, points: Array) -> Array:
        n = len(self.partition.splits)
        blocks = self.partition.split(x)
        flat = blocks.reshape(blocks.shape[0], -1, *blocks.shape[n + 1 :])
        return jax.vmap(lambda block, rows: block[rows])(flat, points)
