"""Curvature of a training loss as linear operators: Hessian, Gauss–Newton part and the residual between them.

    H = ∇²L(θ) = G + R,     G = ⟨Jᵢᵀ Aᵢ Jᵢ⟩,     R = ⟨Σₖ (∂ℓ/∂fₖ)ᵢ ∇²fₖ(xᵢ)⟩,     L(θ) = ⟨ℓ(f(θ; xᵢ), yᵢ)⟩

with Jᵢ the Jacobian of the outputs f(θ; xᵢ), Aᵢ the Hessian of ℓ in the outputs and ⟨·⟩ the mean over the examples (Schraudolph 2002,
Neural Computation 14). Each is a lineax operator over the parameters' own pytree, so lineax's solvers and `gradatim.numerics.lanczos`
take it. `lx.linearise(operator)` differentiates the loss once and leaves the linear map: do so before many products.

A network's kinks (ReLU, max) carry curvature that automatic differentiation leaves out: these operators are the Hessian almost
everywhere, which a finite difference across a kink is not.
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


class AbstractCurvatureOperator(lx.AbstractLinearOperator):
    """A symmetric operator on the parameters: the mean over a batch of what each example contributes."""

    params: eqx.AbstractVar[PyTree]
    batch: eqx.AbstractVar[Any]
    batch_size: eqx.AbstractVar[int | None]

    @abc.abstractmethod
    def linear_map(self, batch: Any) -> Callable[[PyTree], PyTree]:
        """The product with a vector, over one batch, everything that does not depend on the vector computed beforehand."""

    def product(self) -> Callable[[PyTree], PyTree]:
        """The product over all examples: linearised once, or chunk by chunk in each call where `batch_size` bounds the memory."""
        if self.batch_size is None:
            return self.linear_map(self.batch)
        n_examples = _n_examples(self.batch)
        size = min(self.batch_size, n_examples)
        whole = n_examples // size * size
        chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), self.batch)
        rest = jax.tree.map(lambda x: x[whole:], self.batch)

        def mv(vector: PyTree) -> PyTree:
            def add(total: PyTree, chunk: Any) -> tuple[PyTree, None]:
                return jax.tree.map(jnp.add, total, self.linear_map(chunk)(vector)), None

            total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, vector), chunks)
            mean = jax.tree.map(lambda x: x * (size / n_examples), total)
            if whole == n_examples:
                return mean
            weight = (n_examples - whole) / n_examples
            return jax.tree.map(lambda x, y: x + weight * y, mean, self.linear_map(rest)(vector))

        return mv

    def mv(self, vector: PyTree) -> PyTree:
        """The product with one vector."""
        return self.product()(vector)

    def as_matrix(self) -> Float[Array, "n n"]:
        """The dense matrix, whatever its size; [`dense_matrix`][gradatim.numerics.dense_matrix] has a limit."""
        return _dense(self, chunk=256)

    def transpose(self) -> AbstractCurvatureOperator:
        """Itself: a second derivative is symmetric."""
        return self

    def in_structure(self) -> PyTree:
        """The parameters' structure."""
        return jax.eval_shape(lambda: self.params)

    def out_structure(self) -> PyTree:
        """The parameters' structure."""
        return self.in_structure()


class HessianOperator(AbstractCurvatureOperator):
    """H = ∇²L(θ) at θ = `params`, of `loss(params, batch)`: forward differentiation of the gradient.

    The Hessian of the batch that is given: give all examples (`batch_size` then bounds the memory, not the sample).

    **Arguments:** `loss`: a scalar function of `(params, batch)`, the *mean* over the batch; `params`: a pytree of floating-point arrays;
    `batch`: a pytree of arrays with the examples along axis 0, or anything that `loss` takes where `batch_size` is None; `batch_size`:
    examples a chunk. A weight decay inside `loss` adds its constant to every eigenvalue.

    **Raises:** `TypeError` for parameters that are not floating-point arrays; `ValueError` for a loss that is not a scalar.

    >>> operator = HessianOperator(lambda w, batch: 0.5 * (jnp.prod(w) - 1) ** 2, jnp.array([2.0, 0.5, 1.0, 1.0]), None)
    >>> values = jnp.linalg.eigvalsh(operator.as_matrix())
    >>> print(f"{values[-1]:.2f} = Σ 1/wᵢ²")
    6.25 = Σ 1/wᵢ²
    """

    loss: Callable[[PyTree, Any], Float[Array, ""]]
    params: PyTree
    batch: Any
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self, loss: Callable[[PyTree, Any], Float[Array, ""]], params: PyTree, batch: Any, *, batch_size: int | None = None
    ) -> None:
        _check_params(params)
        _check_batch(batch, batch_size)
        _check_scalar(jax.eval_shape(loss, params, batch))
        self.loss, self.params, self.batch, self.batch_size = loss, params, batch, batch_size

    def linear_map(self, batch: Any) -> Callable[[PyTree], PyTree]:
        """The map v ↦ d/dε ∇L(θ + ε v)."""
        return jax.linearize(lambda params: jax.grad(self.loss)(params, batch), self.params)[1]


class GaussNewtonOperator(AbstractCurvatureOperator):
    """G = ⟨Jᵢᵀ Aᵢ Jᵢ⟩: the Hessian without the curvature of the network; for softmax cross-entropy also Fisher's matrix.

    Positive semi-definite where ℓ is convex in the outputs, of rank at most N K (N (K-1) for softmax cross-entropy).

    **Arguments:** `model(params, inputs)`: the outputs of a batch; `loss(outputs, targets)`: a scalar, the mean over the batch;
    `params`: a pytree of floating-point arrays; `batch`: `(inputs, targets)`, examples along axis 0; `batch_size`: examples a chunk.

    **Raises:** as [`HessianOperator`][gradatim.numerics.HessianOperator].

    >>> batch = jnp.eye(2), jnp.array([1.0, -1.0])
    >>> squared = lambda outputs, targets: 0.5 * jnp.mean((outputs - targets) ** 2)
    >>> GaussNewtonOperator(lambda w, inputs: jnp.tanh(inputs @ w), squared, jnp.zeros(2), batch).as_matrix().tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """

    model: Callable[[PyTree, Any], PyTree]
    loss: Callable[[PyTree, Any], Float[Array, ""]]
    params: PyTree
    batch: Any
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        model: Callable[[PyTree, Any], PyTree],
        loss: Callable[[PyTree, Any], Float[Array, ""]],
        params: PyTree,
        batch: Any,
        *,
        batch_size: int | None = None,
    ) -> None:
        _check_composed(model, loss, params, batch, batch_size)
        self.model, self.loss, self.params, self.batch, self.batch_size = model, loss, params, batch, batch_size

    def linear_map(self, batch: Any) -> Callable[[PyTree], PyTree]:
        """The map v ↦ Jᵀ (A (J v))."""
        inputs, targets = batch
        outputs, push = jax.linearize(lambda params: self.model(params, inputs), self.params)
        pull = jax.linear_transpose(push, self.params)
        curve = jax.linearize(lambda f: jax.grad(self.loss)(f, targets), outputs)[1]
        return lambda vector: pull(curve(push(vector)))[0]


class ResidualOperator(AbstractCurvatureOperator):
    """R = H - G, computed as the Hessian of θ ↦ ⟨∂ℓ/∂f, f(θ)⟩ with ∂ℓ/∂f held fixed: no difference of nearly equal products.

    Arguments and errors as [`GaussNewtonOperator`][gradatim.numerics.GaussNewtonOperator].

    >>> model, loss = (lambda w, x: x * w**2), (lambda f, y: ((f - y) ** 2).mean() / 2)
    >>> operator = ResidualOperator(model, loss, jnp.array(1.0), (jnp.ones(2), jnp.zeros(2)))
    >>> print(operator.mv(jnp.array(1.0)))
    2.0
    """

    model: Callable[[PyTree, Any], PyTree]
    loss: Callable[[PyTree, Any], Float[Array, ""]]
    params: PyTree
    batch: Any
    batch_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        model: Callable[[PyTree, Any], PyTree],
        loss: Callable[[PyTree, Any], Float[Array, ""]],
        params: PyTree,
        batch: Any,
        *,
        batch_size: int | None = None,
    ) -> None:
        _check_composed(model, loss, params, batch, batch_size)
        self.model, self.loss, self.params, self.batch, self.batch_size = model, loss, params, batch, batch_size

    def linear_map(self, batch: Any) -> Callable[[PyTree], PyTree]:
        """The map v ↦ d/dε ∇⟨∂ℓ/∂f, f(θ + ε v)⟩."""
        inputs, targets = batch
        slope = jax.grad(self.loss)(self.model(self.params, inputs), targets)

        def paired(params: PyTree) -> Float[Array, ""]:
            products = jax.tree.map(lambda a, b: jnp.sum(a * b), slope, self.model(params, inputs))
            return jax.tree.reduce(jnp.add, products)

        return jax.linearize(jax.grad(paired), self.params)[1]


def dense_matrix(operator: lx.AbstractLinearOperator, *, max_size: int = 6000, chunk: int = 64) -> Float[Array, "n n"]:
    """The matrix of an operator over any pytree, column by column, `chunk` columns at a time.

    **Raises:** `ValueError` for an operator larger than `max_size` (6000² float64 numbers are 288 MB, their eigenvalues minutes).

    >>> print(dense_matrix(lx.DiagonalLinearOperator(jnp.array([1.0, 2.0]))))
    [[1. 0.]
     [0. 2.]]
    """
    size = operator.in_size()
    if size > max_size:
        raise ValueError(f"operator must have at most max_size={max_size} columns to be made dense, got {size}; use lanczos")
    return _dense(operator, chunk=chunk)


@eqx.filter_jit
def _dense(operator: lx.AbstractLinearOperator, *, chunk: int) -> Float[Array, "n n"]:
    linear = lx.linearise(operator)
    flat, unravel = ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), operator.in_structure()))
    identity = jnp.eye(flat.size, dtype=flat.dtype)

    def column(unit: Float[Array, " n"]) -> Float[Array, " n"]:
        return ravel_pytree(linear.mv(unravel(unit)))[0]

    # A few columns at once need no loop, and no second program for those that are left over after whole chunks.
    return (jax.vmap(column)(identity) if flat.size <= chunk else jax.lax.map(column, identity, batch_size=chunk)).T


def _check_params(params: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not eqx.is_inexact_array(leaf):
            what = getattr(leaf, "dtype", type(leaf).__name__)
            name = jax.tree_util.keystr(path) or "itself"
            raise TypeError(
                f"params must hold floating-point arrays only, got {what} at {name}; "
                "split the model with eqx.partition(model, eqx.is_inexact_array)"
            )


def _check_batch(batch: Any, batch_size: int | None) -> None:
    if batch_size is None:
        return
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    _n_examples(batch)


def _n_examples(batch: Any) -> int:
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(batch)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(f"batch must hold arrays with one number of examples along axis 0, got {sorted(lengths)}")
    return lengths.pop()[0]


def _check_scalar(value: Any) -> None:
    shape = getattr(value, "shape", None)
    if shape != ():
        raise ValueError(f"loss must return a scalar (the mean over the batch), got {value if shape is None else f'shape {shape}'}")


def _check_composed(model: Callable, loss: Callable, params: PyTree, batch: Any, batch_size: int | None) -> None:
    _check_params(params)
    if not (isinstance(batch, tuple) and len(batch) == 2):
        raise ValueError(f"batch must be a pair (inputs, targets), got {type(batch).__name__}")
    _check_batch(batch, batch_size)
    inputs, targets = batch
    _check_scalar(jax.eval_shape(lambda p: loss(model(p, inputs), targets), params))


@lx.linearise.register(AbstractCurvatureOperator)
def _(operator: AbstractCurvatureOperator) -> lx.AbstractLinearOperator:
    return lx.FunctionLinearOperator(operator.product(), operator.in_structure(), lx.symmetric_tag)


@lx.materialise.register(AbstractCurvatureOperator)
def _(operator: AbstractCurvatureOperator) -> lx.AbstractLinearOperator:
    return lx.materialise(lx.linearise(operator))


@lx.diagonal.register(AbstractCurvatureOperator)
def _(operator: AbstractCurvatureOperator) -> Array:
    return jnp.diagonal(operator.as_matrix())


@lx.conj.register(AbstractCurvatureOperator)
def _(operator: AbstractCurvatureOperator) -> lx.AbstractLinearOperator:
    return operator


@lx.is_symmetric.register(AbstractCurvatureOperator)
def _(operator: AbstractCurvatureOperator) -> bool:
    return True


def _no(operator: AbstractCurvatureOperator) -> bool:
    return False


for _property in (
    lx.is_diagonal,
    lx.is_tridiagonal,
    lx.has_unit_diagonal,
    lx.is_lower_triangular,
    lx.is_upper_triangular,
    lx.is_positive_semidefinite,
    lx.is_negative_semidefinite,
):
    _property.register(AbstractCurvatureOperator)(_no)
