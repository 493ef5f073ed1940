"""Hessians and their cheaper stand-ins, as lineax operators: exact, Gauss–Newton, weighted Gauss–Newton, Fisher's, rank one, zero.

Each is called with the objective, the point and the objective's arguments, and gives a symmetric operator over the pytree of the point.
An error that shrinks with the gradient, ‖∇²f(x) - H(x)‖ ≤ C₁ + C₂ ‖∇f(x)‖^(1-β), costs a gradient-regularised Newton method nothing in
its rate as long as C₁ = 0 and β is at most the degree of smoothness (Semenov, Jaggi and Doikov, arXiv:2506.13710).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradatim.numerics import GaussNewtonOperator, HessianOperator

Objective = Callable[[PyTree, Any], Float[Array, ""]]
ASYMMETRY = 1e-6
"Largest |H - Hᵀ| over max |H| that passes for rounding, single precision included."


class LowRankOperator(lx.AbstractLinearOperator):
    """H = Σᵢ rᵢ rᵢᵀ, positive semidefinite, of the rank at most the number of rows.

    **Arguments:** `rows`: a pytree like the point, each leaf with the rows along a further axis 0; none of them for the zero matrix.

    >>> print(LowRankOperator(jnp.array([[1.0, 2.0]])).as_matrix())
    [[1. 2.]
     [2. 4.]]
    """

    rows: PyTree[Float[Array, "rows ..."]]

    def flat(self) -> Float[Array, "rows n"]:
        """The rows as vectors."""
        leaves = jax.tree.leaves(self.rows)
        return jnp.concatenate([leaf.reshape(leaf.shape[0], _size(leaf.shape[1:])) for leaf in leaves], axis=1)

    def mv(self, vector: PyTree) -> PyTree:
        """The product with one vector, without the matrix."""
        flat, unravel = ravel_pytree(vector)
        rows = self.flat()
        return unravel(rows.T @ (rows @ flat))

    def as_matrix(self) -> Float[Array, "n n"]:
        """The dense matrix."""
        rows = self.flat()
        return rows.T @ rows

    def transpose(self) -> LowRankOperator:
        """Itself."""
        return self

    def in_structure(self) -> PyTree:
        """The structure of the point."""
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), self.rows)

    def out_structure(self) -> PyTree:
        """The structure of the point."""
        return self.in_structure()


class AbstractHessian(eqx.Module):
    """A matrix H(y) in the place of the Hessian of an objective: `operator = hessian(fn, y, args)`.

    >>> class Curvature(AbstractHessian):
    ...     def __call__(self, fn, y, args):
    ...         return lx.DiagonalLinearOperator(2 * jnp.abs(y))
    >>> print(Curvature()(lambda y, _: jnp.sum(y**3), jnp.array([1.0, -2.0]), None).as_matrix())
    [[2. 0.]
     [0. 4.]]
    """

    @abc.abstractmethod
    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """The symmetric operator at `y`, over the pytree of `y`; `fn(y, args)` is the objective."""


class ExactHessian(AbstractHessian):
    """H = ∇²f(y), by forward differentiation of the gradient. Indefinite where the objective is not convex.

    >>> print(ExactHessian()(lambda y, _: y[0] ** 2 * y[1], jnp.array([1.0, 2.0]), None).as_matrix())
    [[4. 2.]
     [2. 0.]]
    """

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        # Not as the operator's batch: optimistix's objectives insist on arguments with the very leaves that they were made for.
        return HessianOperator(lambda y, _: fn(y, args), y, None)


class ZeroHessian(AbstractHessian):
    """H = 0: what is left is a normalised gradient method in the metric.

    >>> print(ZeroHessian()(lambda y, _: jnp.sum(y**2), jnp.ones(2), None).as_matrix())
    [[0. 0.]
     [0. 0.]]
    """

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn, args
        return LowRankOperator(jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), y))


class MatrixHessian(AbstractHessian):
    """A matrix that is written down: `function(y, args)`, over the entries of `y` in the order of its leaves.

    **Raises:** `ValueError` for a matrix of the wrong shape; at run time an error for one that is not symmetric (an entry that is not
    finite is left to the method).

    >>> print(MatrixHessian(lambda y, _: jnp.diag(y))(lambda y, _: jnp.sum(y**3) / 6, jnp.array([1.0, 2.0]), None).as_matrix())
    [[1. 0.]
     [0. 2.]]
    """

    function: Callable[[PyTree, Any], Float[Array, "n n"]]

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn
        size = sum(leaf.size for leaf in jax.tree.leaves(y))
        matrix = jnp.asarray(self.function(y, args))
        if matrix.shape != (size, size):
            raise ValueError(f"hessian must return a matrix of shape {(size, size)}, got {matrix.shape}")
        # Comparisons with NaN are false: such a matrix is a failure of the solve, which is reported, not one of the caller.
        is_lopsided = jnp.max(jnp.abs(matrix - matrix.T)) > ASYMMETRY * jnp.max(jnp.abs(matrix))
        message = "hessian must return a symmetric matrix: take (H + H.T) / 2 if it is so up to rounding"
        matrix = eqx.error_if(matrix, is_lopsided, message)
        structure, unravel = jax.eval_shape(lambda: y), ravel_pytree(y)[1]
        if not isinstance(structure, jax.ShapeDtypeStruct) or structure.ndim != 1:
            return lx.FunctionLinearOperator(lambda v: unravel(matrix @ ravel_pytree(v)[0]), structure, lx.symmetric_tag)
        return lx.MatrixLinearOperator(matrix, lx.symmetric_tag)


class GaussNewton(AbstractHessian):
    """H = Jᵀ ∇²s(u) J for f(y) = s(u(y)): what is left of the Hessian without the curvature of u.

    Positive semidefinite where s is convex. For s = ‖u‖ᵖ/p it is ‖u‖ᵖ⁻² JᵀJ + (p-2) ‖u‖ᵖ⁻⁴ (Jᵀu)(Jᵀu)ᵀ, the "inexact Hessian" of
    nonlinear equations; for a network with softmax cross-entropy, Fisher's matrix.

    **Arguments:** `inner(y, args)`: u, an array; `outer(u, args)`: s, a scalar.

    >>> hessian = GaussNewton(lambda y, _: y**2, lambda u, _: jnp.sum(u**2) / 2)
    >>> print(hessian(lambda y, _: jnp.sum(y**4) / 2, jnp.array([1.0, 2.0]), None).as_matrix())
    [[ 4.  0.]
     [ 0. 16.]]
    """

    inner: Callable[[PyTree, Any], Array]
    outer: Callable[[Array, Any], Float[Array, ""]]

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn
        return GaussNewtonOperator(self.inner, self.outer, y, (args, args))


class WeightedGaussNewton(AbstractHessian):
    """H = Jᵀ diag(w(u)) J for f(y) = s(u(y)): Gauss–Newton with the diagonal w in the place of ∇²s.

    For s = μ log Σ exp(u/μ) and w = softmax(u/μ)/μ it exceeds the Hessian by just ∇f ∇fᵀ/μ: C₁ = 0, C₂ = 1/μ, and β = -1 there, where
    β = 0 would do.

    **Arguments:** `inner(y, args)`: u, an array; `weights(u, args)`: w ≥ 0, of the same shape.

    >>> hessian = WeightedGaussNewton(lambda y, _: y, lambda u, _: jax.nn.softmax(u))
    >>> print(hessian(lambda y, _: jax.nn.logsumexp(y), jnp.zeros(2), None).as_matrix())
    [[0.5 0. ]
     [0.  0.5]]
    """

    inner: Callable[[PyTree, Any], Array]
    weights: Callable[[Array, Any], Array]

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn
        weights = self.weights(self.inner(y, args), args)
        return GaussNewtonOperator(self.inner, _weighted_squares, y, (args, weights))


class FisherTerm(AbstractHessian):
    """H = (p-2) ‖u‖⁻ᵖ ∇f ∇fᵀ = (p-2) ‖u‖ᵖ⁻⁴ (Jᵀu)(Jᵀu)ᵀ, of rank one, for f(y) = ‖u(y)‖ᵖ/p; zero where u = 0.

    For u = Ay - b with A of full row rank, in the metric AᵀA: C₁ = 0, C₂ = 1, β = 1/(p-1).

    **Arguments:** `inner(y, args)`: u, an array; `power`: p ≥ 2, a number or what gives it from `args`.

    >>> hessian = FisherTerm(lambda y, _: y, power=4.0)
    >>> print(hessian(lambda y, _: jnp.sum(y**2) ** 2 / 4, jnp.array([1.0, 2.0]), None).as_matrix().round(3))
    [[2. 4.]
     [4. 8.]]
    """

    inner: Callable[[PyTree, Any], Array]
    power: float | Callable[[Any], Any]

    def __check_init__(self) -> None:
        if not callable(self.power) and not self.power >= 2:
            raise ValueError(f"power must be at least 2, got {self.power}")

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn
        p = self.power(args) if callable(self.power) else self.power
        residual, pull = jax.vjp(lambda y: self.inner(y, args), y)
        square = jnp.sum(residual**2)
        # The power is negative for p < 4: an infinite factor times a zero vector.
        scale = jnp.where(square > 0, jnp.sqrt(p - 2.0) * jnp.where(square > 0, square, 1.0) ** ((p - 4) / 4), 0.0)
        (row,) = pull(residual)
        return LowRankOperator(jax.tree.map(lambda leaf: scale.astype(leaf.dtype) * leaf[None], row))


class EmpiricalFisher(AbstractHessian):
    """H = ⟨∇fᵢ ∇fᵢᵀ⟩ + `penalty` I for f = ⟨fᵢ⟩ + ½ `penalty` ‖y‖²: first-order information alone.

    In logistic regression with examples aᵢ its error is at most max ‖aᵢ‖² f: C₁ = max ‖aᵢ‖² f*, and β = 0.

    **Arguments:** `losses(y, args)`: the loss of each example, without the penalty; `penalty` ≥ 0, whose Hessian is exact.

    >>> hessian = EmpiricalFisher(lambda y, rows: rows @ y)
    >>> print(hessian(lambda y, rows: jnp.mean(rows @ y), jnp.zeros(2), jnp.array([[1.0, 0.0], [1.0, 2.0]])).as_matrix())
    [[1. 1.]
     [1. 2.]]
    """

    losses: Callable[[PyTree, Any], Float[Array, " examples"]]
    penalty: float | Float[Array, ""] = 0.0

    def __call__(self, fn: Objective, y: PyTree, args: Any) -> lx.AbstractLinearOperator:
        """See the class."""
        del fn
        # Closed over: arguments may hold more than arrays, such as a network's static parts.
        n_examples = jax.eval_shape(lambda: self.losses(y, args)).shape[0]
        n_parameters = sum(leaf.size for leaf in jax.tree.leaves(y))
        is_unpenalised = isinstance(self.penalty, float | int) and self.penalty == 0
        if is_unpenalised and n_examples < n_parameters:
            jacobian = jax.jacrev(lambda y: self.losses(y, args))(y)
            return LowRankOperator(jax.tree.map(lambda leaf: leaf / jnp.sqrt(n_examples).astype(leaf.dtype), jacobian))
        operator = GaussNewtonOperator(self.losses, _half_mean_square, y, (args, None))
        if is_unpenalised:
            return operator
        return operator + lx.IdentityLinearOperator(operator.in_structure()) * self.penalty


def _weighted_squares(u: Array, weights: Array) -> Float[Array, ""]:
    return 0.5 * jnp.sum(weights * u**2)


def _half_mean_square(u: Array, _: None) -> Float[Array, ""]:
    return 0.5 * jnp.mean(u**2)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


@lx.linearise.register(LowRankOperator)
def _(operator: LowRankOperator) -> lx.AbstractLinearOperator:
    return operator


@lx.materialise.register(LowRankOperator)
def _(operator: LowRankOperator) -> lx.AbstractLinearOperator:
    return operator


@lx.diagonal.register(LowRankOperator)
def _(operator: LowRankOperator) -> Array:
    return jnp.sum(operator.flat() ** 2, axis=0)


@lx.conj.register(LowRankOperator)
def _(operator: LowRankOperator) -> lx.AbstractLinearOperator:
    return operator


def _yes(operator: LowRankOperator) -> bool:
    return True


def _no(operator: LowRankOperator) -> bool:
    return False


for _property in (lx.is_symmetric, lx.is_positive_semidefinite):
    _property.register(LowRankOperator)(_yes)
for _property in (
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.has_unit_diagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.is_negative_semidefinite,
):
    _property.register(LowRankOperator)(_no)
