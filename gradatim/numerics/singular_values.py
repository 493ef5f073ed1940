"""The largest singular value of a matrix or a linear map by power iteration, started from where the last measurement ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Product = Callable[[Array], Array]
"A linear map of vectors."


class TopSingularValue(NamedTuple):
    """σ and v of [`top_singular_value`][gradatim.numerics.top_singular_value], and how far they are from a singular pair."""

    value: Float[Array, "*batch"]
    "σ = ‖W v‖, never above the largest singular value."
    vector: Float[Array, "*batch in"]
    "v, of norm 1: the start of the next measurement."
    residual: Float[Array, "*batch"]
    "‖Wᵀ u - σ v‖ for u = W v / σ: some singular value lies within this distance of σ."


def top_singular_value(w: Float[Array, "*batch out in"], *, iterations: int = 20, v0: Float[Array, ...] | None = None) -> TopSingularValue:
    """The largest singular value of each matrix, by power iteration on WᵀW (Golub and Van Loan, *Matrix Computations*, section 8.2).

        v ← WᵀW v / ‖WᵀW v‖;    σ = ‖W v‖

    The error falls as (σ₂/σ₁)²ᵏ. A matrix of noise has no gap: 20 iterations from a cold start leave σ a few per cent low, and `residual`
    says so. Between two measurements of weights in training the vector hardly turns: hand `vector` on as `v0`. The derivative is that
    of σ with v held, u vᵀ; a zero matrix has the value 0 with derivative 0.

    **Arguments:** `w`: one matrix, or a batch; `iterations` ≥ 0: products with WᵀW; `v0`: the start, by default (and where it is zero) a
    fixed draw from a normal distribution.

    **Raises:** `ValueError` for a negative number of iterations, or a `v0` of another shape.

    >>> value, vector, residual = top_singular_value(jnp.array([[3.0, 0.0], [4.0, 1.0]]))
    >>> print(f"{value:.4f} {residual:.0e}")
    5.0645 0e+00
    """
    if iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    shape = (*w.shape[:-2], w.shape[-1])
    # Fixed, so that the result depends on the matrix alone.
    cold = jnp.broadcast_to(jax.random.normal(jax.random.key(0), shape[-1:], w.dtype), shape)
    if v0 is not None and v0.shape != shape:
        raise ValueError(f"v0 must have shape {shape}, got {v0.shape}")
    held = jax.lax.stop_gradient(w)
    v = _unit(cold, cold) if v0 is None else _unit(jax.lax.stop_gradient(v0).astype(w.dtype), _unit(cold, cold))

    def transposed(u: Array) -> Array:
        return _times_transposed(held, u)

    v = _iterate(lambda v: _times(held, v), transposed, v, iterations)
    return _measure(_times(w, v), transposed, v)


def top_singular_value_of_map(
    product: Product, transposed: Product, v0: Float[Array, " in"], *, iterations: int | Int[Array, ""] = 20
) -> TopSingularValue:
    """[`top_singular_value`][gradatim.numerics.top_singular_value] of a linear map that is known by its products alone.

    An estimate from below: where a bound is needed, multiply it by a factor that the `residual` justifies. It costs
    `2 * (iterations + 1)` products.

    **Arguments:** `product(v)`: M v; `transposed(u)`: Mᵀu, both of vectors; `v0`: the start, such as the `vector` of an earlier
    measurement; zeros stand for a fixed start without a pattern; `iterations` ≥ 0, which may be traced.

    **Raises:** `ValueError` for a negative number of iterations.

    >>> w = jnp.array([[3.0, 0.0], [4.0, 1.0]])
    >>> print(f"{top_singular_value_of_map(lambda v: w @ v, lambda u: w.T @ u, jnp.zeros(2)).value:.4f}")
    5.0645
    """
    if isinstance(iterations, int) and iterations < 0:
        raise ValueError(f"iterations must be at least 0, got {iterations}")
    # Not drawn, which would be most of the program, and no singular vector that a problem is likely to have is at right angles to it.
    cold = jnp.cos(1 + jnp.arange(v0.size, dtype=v0.dtype) ** 1.5)
    v = _iterate(product, transposed, _unit(v0, _unit(cold, cold)), iterations)
    return _measure(product(v), transposed, v)


def _iterate(product: Product, transposed: Product, v: Array, iterations: Any) -> Array:
    def iterate(_: Any, v: Array) -> Array:
        # Normalised on the way, so that σ² cannot overflow.
        image = product(v)
        return _unit(transposed(_unit(image, jnp.zeros_like(image))), v)

    return jax.lax.fori_loop(0, iterations, iterate, v)


def _measure(image: Array, transposed: Product, v: Array) -> TopSingularValue:
    value = _norm(image)
    held = jax.lax.stop_gradient(image)
    residual = _norm(transposed(_unit(held, jnp.zeros_like(held))) - jax.lax.stop_gradient(value)[..., None] * v)
    return TopSingularValue(value, v, residual)


def _times(w: Array, v: Array) -> Array:
    return jnp.einsum("...oi,...i->...o", w, v)


def _times_transposed(w: Array, u: Array) -> Array:
    # Summed over the first axis as it lies: a transposed matrix would be written out, thirty times the cost of the product.
    return jnp.einsum("...oi,...o->...i", w, u)


def _norm(v: Array) -> Array:
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v), axis=-1))
    scale = jnp.where(largest > 0, largest, 1)
    square = jnp.sum((v / scale[..., None]) ** 2, axis=-1)
    # The root of a safe number: its derivative at 0 would be infinite.
    return jnp.where(largest > 0, scale * jnp.sqrt(jnp.where(largest > 0, square, 1)), 0)


def _unit(v: Array, otherwise: Array) -> Array:
    norm = _norm(v)[..., None]
    return jnp.where(norm > 0, v / jnp.where(norm > 0, norm, 1), otherwise)
