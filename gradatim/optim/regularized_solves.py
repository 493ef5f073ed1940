"""The systems (H + λB) d = -g of one point for many λ: by a factorisation each, by Woodbury's identity, by conjugate gradients.

The metric comes as its Cholesky factor L, B = L Lᵀ, or None for the identity; L⁻¹ takes gradients, Lᵀ steps, to where both norms are
Euclidean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PyTree

from .hessian_approximations import ASYMMETRY, LowRankOperator

Vector = Float[Array, " n"]
Scalar = Float[Array, ""]
Root = Float[Array, "n n"] | None
Solve = Callable[[Scalar], tuple[Vector, Bool[Array, ""], Int[Array, ""]]]
"λ ↦ the step d, whether it can be trusted, and the products with H that it took."


def dual_norm(root: Root, gradient: Vector) -> Scalar:
    """‖g‖⁎ = ⟨g, B⁻¹g⟩^½."""
    return optx.two_norm(_to_euclidean(root, gradient))


def primal_norm(root: Root, step: Vector) -> Scalar:
    """‖h‖ = ⟨Bh, h⟩^½."""
    return optx.two_norm(step if root is None else root.T @ step)


def root_of_metric(metric: Float[Array, "rows columns"], x: Vector) -> Float[Array, "n n"]:
    """The Cholesky factor of a metric for the unknowns x.

    **Raises:** `ValueError` for a shape that does not fit; at run time an error for a metric that is not symmetric and positive definite.
    """
    if metric.shape != (x.size, x.size):
        raise ValueError(f"metric must have shape {(x.size, x.size)} for {x.size} unknowns, got {metric.shape}")
    metric = jnp.asarray(metric, x.dtype)
    root = jax.lax.linalg.cholesky(metric, symmetrize_input=False)
    is_lopsided = jnp.max(jnp.abs(metric - metric.T)) > ASYMMETRY * jnp.max(jnp.abs(metric))
    return eqx.error_if(root, is_lopsided | ~jnp.isfinite(root).all(), "metric must be symmetric and positive definite")


def solves_of(
    operator: lx.AbstractLinearOperator, gradient: Vector, metric: Root, root: Root, iterative: Callable[[], Solve] | None = None
) -> tuple[Solve, Bool[Array, ""]]:
    """By Woodbury's identity for few rows, else the `iterative` ones if given, else by factorisations; and whether H is finite.

    **Raises:** `ValueError` for an operator of another size than the gradient's, or one that is not known to be symmetric.
    """
    if operator.in_size() != gradient.size:
        raise ValueError(f"hessian must act on {gradient.size} unknowns, got an operator on {operator.in_size()}")
    if not lx.is_symmetric(operator):
        raise ValueError("hessian must be a symmetric operator: give it lineax's symmetric_tag, or return an array")
    if isinstance(operator, LowRankOperator) and operator.flat().shape[0] < gradient.size:
        rows = operator.flat()
        return woodbury(rows, gradient, root), jnp.isfinite(rows).all()
    if iterative is not None:
        return iterative(), jnp.array(True)
    matrix = operator.as_matrix()
    return direct(matrix, gradient, metric), jnp.isfinite(matrix).all()


def direct(matrix: Float[Array, "n n"], gradient: Vector, metric: Root) -> Solve:
    """One Cholesky factorisation for each λ; an indefinite H + λB is told by one that fails.

    For two or three λ a point this is cheaper than one eigendecomposition, which costs as much as eleven to nineteen of them.
    """
    size = gradient.size

    def solve(regularization: Scalar) -> tuple[Vector, Bool[Array, ""], Int[Array, ""]]:
        shift = jnp.eye(size, dtype=matrix.dtype) if metric is None else metric.astype(matrix.dtype)
        operator = lx.MatrixLinearOperator(matrix + regularization * shift, lx.positive_semidefinite_tag)
        step = lx.linear_solve(operator, -gradient, lx.Cholesky(), throw=False).value
        return step, jnp.isfinite(step).all(), jnp.zeros((), jnp.int32)

    return solve


def woodbury(rows: Float[Array, "rows n"], gradient: Vector, root: Root) -> Solve:
    """H = RᵀR with few rows: d = -(p - Q (λI + R Q)⁻¹ R p)/λ with p = B⁻¹g, Q = B⁻¹Rᵀ; for one row Sherman and Morrison's formula."""
    n_rows = rows.shape[0]
    p, q = _inverse(root, gradient), _inverse(root, rows.T)
    inner, weights = rows @ q, rows @ p

    def solve(regularization: Scalar) -> tuple[Vector, Bool[Array, ""], Int[Array, ""]]:
        step = p
        if n_rows:
            shifted = inner + regularization * jnp.eye(n_rows, dtype=inner.dtype)
            operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
            step = p - q @ lx.linear_solve(operator, weights, lx.Cholesky(), throw=False).value
        step = -step / regularization
        return step, jnp.isfinite(step).all(), jnp.zeros((), jnp.int32)

    return solve


def conjugate_gradients(
    operator: lx.AbstractLinearOperator,
    gradient: Vector,
    root: Root,
    unravel: Callable[[Vector], PyTree],
    *,
    forcing: float,
    max_products: int,
) -> Solve:
    """Conjugate gradients on H/λ + B, preconditioned by B, until ‖residual‖⁎ ≤ `forcing` · ‖d‖ (in units of λ).

    ‖d‖ is not known beforehand, but iterates grow from the first, the step to the Cauchy point, of length ‖g‖⁎/(κ + λ), with κ the
    curvature along it. A step that misses the bound, is longer than a semidefinite H lets it be or goes up counts as refused.
    """
    linear = lx.linearise(operator)
    start = _to_euclidean(root, gradient)
    norm = optx.two_norm(start)

    def product(vector: Vector) -> Vector:
        return _to_euclidean(root, _ravel(linear.mv(unravel(_from_euclidean(root, vector)))))

    safe_norm = jnp.where(norm > 0, norm, 1.0)
    curvature = jnp.abs(start @ product(start)) / safe_norm**2
    structure = jax.eval_shape(lambda: start)

    def solve(regularization: Scalar) -> tuple[Vector, Bool[Array, ""], Int[Array, ""]]:
        def scaled(vector: Vector) -> Vector:
            return product(vector) / regularization + vector

        right = -start / regularization
        # No tighter than rounding lets a residual be.
        tolerance = jnp.maximum(forcing * norm / (curvature + regularization), 4 * jnp.finfo(norm.dtype).eps * optx.two_norm(right))
        system = lx.FunctionLinearOperator(scaled, structure, lx.positive_semidefinite_tag)
        # lineax takes a traced tolerance, though its signature says float.
        method = lx.CG(rtol=0.0, atol=cast(float, tolerance), norm=optx.two_norm, max_steps=max_products)
        solution = lx.linear_solve(system, right, method, throw=False)
        step = solution.value
        residual, length = optx.two_norm(scaled(step) - right), optx.two_norm(step)
        radius = norm / regularization
        is_trusted = (residual <= jnp.maximum(forcing * length, tolerance)) & (length <= radius / (1 - forcing)) & (step @ start < 0)
        is_trusted &= jnp.isfinite(step).all()
        # The one along the gradient is shared between the trials and not counted.
        return _from_euclidean(root, step), is_trusted, jnp.asarray(solution.stats["num_steps"], jnp.int32) + 1

    return solve


def _ravel(tree: PyTree) -> Vector:
    return ravel_pytree(tree)[0]


def _to_euclidean(root: Root, gradient: Vector) -> Vector:
    return gradient if root is None else solve_triangular(root, gradient, lower=True)


def _from_euclidean(root: Root, step: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    return step if root is None else solve_triangular(root, step, lower=True, trans="T")


def _inverse(root: Root, right: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
    return right if root is None else jax.scipy.linalg.cho_solve((root, True), right)
