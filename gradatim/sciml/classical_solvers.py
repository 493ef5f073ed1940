"""Conjugate gradients as they are used without learning: plain, preconditioned by the diagonal or an incomplete factor, and deflated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

if TYPE_CHECKING:
    from scipy import sparse

Map = Callable[[Array], Array]


class GradientSolve(NamedTuple):
    """A solution, and how it was reached."""

    value: Float[Array, "*shape"]
    num_steps: Int[Array, ""]
    residual_norms: Float[Array, " steps_and_start"]
    "By the recursion, NaN where the loop had ended."
    is_converged: Bool[Array, ""]
    "By b - A x itself, within a tenth of the tolerance."


def conjugate_gradients(
    product: Map,
    b: Float[Array, "*shape"],
    *,
    preconditioner: Map | None = None,
    rtol: float | Float[Array, ""] = 1e-4,
    max_steps: int = 1000,
) -> GradientSolve:
    """Conjugate gradients from zero until ‖r‖ ≤ rtol ‖b‖ (Hestenes and Stiefel 1952), one product a step.

    `lineax.CG` looks at each entry of residual and step; this looks at the norm of the residual, as one must to compare solvers. The
    preconditioner must be linear, symmetric and positive. Safe under jit and vmap.

    >>> print(conjugate_gradients(lambda x: jnp.arange(1.0, 4.0) * x, jnp.ones(3)).num_steps)
    3
    """
    precondition: Map = (lambda r: r) if preconditioner is None else preconditioner
    norm = jnp.sqrt(jnp.vdot(b, b))
    target = jnp.asarray(rtol, b.dtype) * norm
    norms = jnp.full(max_steps + 1, jnp.nan, b.dtype).at[0].set(norm)
    z = precondition(b)
    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(b), b, z, jnp.vdot(b, z), norm, norms)

    def advance(state: Any) -> Any:
        step, x, r, p, gamma, _, norms = state
        Ap = product(p)
        curvature = jnp.vdot(p, Ap)
        alpha = jnp.where(curvature > 0, gamma / jnp.where(curvature > 0, curvature, 1), 0)
        x, r = x + alpha * p, r - alpha * Ap
        z = precondition(r)
        gamma, before = jnp.vdot(r, z), gamma
        p = z + gamma / jnp.where(before > 0, before, 1) * p
        norm = jnp.sqrt(jnp.vdot(r, r))
        return step + 1, x, r, p, gamma, norm, norms.at[step + 1].set(norm)

    step, x, _, _, _, norm, norms = jax.lax.while_loop(lambda s: (s[0] < max_steps) & (s[5] > target), advance, start)
    left = b - product(x)
    return GradientSolve(x, step, norms, (norm <= target) & (jnp.sqrt(jnp.vdot(left, left)) <= 1.1 * target))


class Deflation(eqx.Module):
    """A few vectors W whose span is solved exactly, so that conjugate gradients see the rest of the spectrum only:

        A x = b  with  x = W E⁻¹ Wᵀb + Pᵀy,     P A y = P b,     E = Wᵀ A W,     P = I - A W E⁻¹ Wᵀ

    The residual of the second system is that of the first (Nicolaides 1987; Saad, Yeung, Erhel and Guyomarc'h 2000).

    **Arguments:** `product`: x ↦ A x; `vectors`: W, linearly independent, such as the lowest Ritz vectors of A.
    """

    vectors: Float[Array, "k n"]
    images: Float[Array, "k n"]
    "A W"
    inverse: Float[Array, "k k"]
    "E⁻¹"

    def __init__(self, product: Map, vectors: Float[Array, "k ..."]) -> None:
        k = len(vectors)
        self.vectors = vectors.reshape(k, -1)
        self.images = jax.vmap(product)(vectors).reshape(k, -1)
        self.inverse = jnp.linalg.inv(self.vectors @ self.images.T)

    def projected(self, r: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """P r."""
        return r - ((self.inverse @ (self.vectors @ r.ravel())) @ self.images).reshape(r.shape)

    def solve(
        self, product: Map, b: Float[Array, "*shape"], *, rtol: float | Float[Array, ""] = 1e-4, max_steps: int = 1000
    ) -> GradientSolve:
        """Deflated conjugate gradients until ‖b - A x‖ ≤ rtol ‖b‖."""
        start = self.projected(b)
        # The tolerance is relative to b, of which the projection leaves a part.
        rest = jnp.sqrt(jnp.vdot(start, start))
        relative = rtol * jnp.sqrt(jnp.vdot(b, b)) / jnp.where(rest > 0, rest, 1)
        found = conjugate_gradients(lambda y: self.projected(product(y)), start, rtol=relative, max_steps=max_steps)
        y = found.value
        # Pᵀy = y - W E⁻¹ Wᵀ A y
        coefficients = self.inverse @ (self.vectors @ b.ravel() - self.images @ y.ravel())
        return found._replace(value=y + (coefficients @ self.vectors).reshape(b.shape))


def incomplete_cholesky(matrix: sparse.sparray) -> sparse.csc_array:
    """The incomplete factor L of a symmetric positive matrix on the pattern of its lower half: (L Lᵀ)ᵢⱼ = Aᵢⱼ wherever Aᵢⱼ ≠ 0
    (Meijerink and van der Vorst 1977).

    **Raises:** `ValueError` where a pivot is not positive, which M-matrices such as Poisson's exclude.

    >>> from scipy import sparse
    >>> incomplete_cholesky(sparse.csr_array([[4.0, 2.0], [2.0, 5.0]])).toarray().tolist()
    [[2.0, 0.0], [1.0, 2.0]]
    """
    from scipy import sparse

    lower: Any = sparse.csr_array(sparse.tril(matrix))
    lower.sort_indices()
    starts, columns = lower.indptr.tolist(), lower.indices.tolist()
    given, pivots, rows = lower.data.tolist(), [0.0] * lower.shape[0], []
    for i, (first, last) in enumerate(pairwise(starts)):
        row: dict[int, float] = {}
        for j, a in zip(columns[first:last], given[first:last], strict=True):
            other = row if j == i else rows[j]
            a -= sum(value * other.get(k, 0.0) for k, value in row.items() if k < j)
            if j < i:
                row[j] = a / pivots[j]
            elif a > 0:
                pivots[i] = row[i] = a**0.5
            else:
                raise ValueError(f"matrix must have positive pivots on its own pattern, got {a} in row {i}")
        if i not in row:
            raise ValueError(f"matrix must have a diagonal without zeros, got none in row {i}")
        rows.append(row)
    data = np.array([value for row in rows for value in row.values()])
    return sparse.csr_array((data, lower.indices, lower.indptr), shape=lower.shape).tocsc()


class TriangularPreconditioner:
    """(L Lᵀ)⁻¹ by two triangular solves in compiled code (SuperLU's)."""

    def __init__(self, factor: sparse.csc_array) -> None:
        from scipy.sparse import linalg

        # Neither rows nor columns change places, so that the factors of L are L itself.
        self._solve = linalg.splu(factor, permc_spec="NATURAL", diag_pivot_thresh=0.0).solve
        self.shape = factor.shape

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """(L Lᵀ)⁻¹ r"""
        return self._solve(self._solve(r), "T")

    def operator(self) -> Any:
        """For scipy."""
        from scipy.sparse import linalg

        make: Any = linalg.LinearOperator
        return make(self.shape, matvec=self, dtype=np.float64)


def host_conjugate_gradients(
    matrix: sparse.sparray, b: np.ndarray, *, preconditioner: Any = None, rtol: float = 1e-4, max_steps: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Conjugate gradients of scipy until ‖r‖ ≤ rtol ‖b‖: the solution, and the norms of b - A x from step 0 on.

    To time it, call `scipy.sparse.linalg.cg` without the look at each step.

    **Raises:** `ValueError` if it does not get there.

    >>> from scipy import sparse
    >>> x, norms = host_conjugate_gradients(sparse.diags_array([1.0, 2.0, 4.0]), np.ones(3))
    >>> print(x.round(3), len(norms) - 1)
    [1.   0.5  0.25] 3
    """
    from scipy.sparse import linalg

    norms = [float(np.linalg.norm(b))]

    def look(x: np.ndarray) -> None:
        norms.append(float(np.linalg.norm(b - matrix @ x)))

    x, info = linalg.cg(matrix, b, rtol=rtol, atol=0.0, maxiter=max_steps, M=preconditioner, callback=look)
    if info:
        raise ValueError(f"max_steps must be enough to reach rtol {rtol:g}, got {max_steps} and ‖r‖/‖b‖ {norms[-1] / norms[0]:g}")
    return x, np.array(norms)
