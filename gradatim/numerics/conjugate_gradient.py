"""A few steps of conjugate gradients for many systems at once (Hestenes and Stiefel, 1952; Saad, *Iterative Methods*, Algorithm 6.18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

Operator = Callable[[Array], Array]
"A linear map of a whole batch, that sends no entry of it into another."


class ConjugateGradient(NamedTuple):
    """The last iterates, and how the residuals fell on the way there."""

    x: Inexact[Array, "*shape"]
    residual_norms: Float[Array, "steps_and_one ..."]
    "‖b - H xₖ‖ of every system, as the recursion carries it, from the start on."


def conjugate_gradient(
    operator: Operator,
    b: Inexact[Array, "*shape"],
    x0: Inexact[Array, "*shape"],
    *,
    n_steps: int,
    batch_axes: int = 0,
    tolerance: float = 1e-5,
) -> ConjugateGradient:
    """H x = b by at most `n_steps` steps from x₀, for H Hermitian and positive semi-definite and b in its range.

        r₀ = p₀ = b - H x₀;     α = ‖r‖² / ⟨p, H p⟩,   x ← x + α p,   r ← r - α H p,   p ← r + (‖r⁺‖² / ‖r‖²) p,     ⟨u, v⟩ = Σ ū v

    Iterate k is the best of x₀ + span(r₀, H r₀, …, Hᵏ⁻¹ r₀) in the norm of H; a null-space component of x₀ stays as it is. The count
    is fixed, and small: the program is a scan that can be vmapped and differentiated, through its iterates. To solve until a tolerance
    is met, or with a preconditioner, take `lineax.CG`.

    **Arguments:** `operator`: H; `b`, `x0`: real or complex; `n_steps` ≥ 0; `batch_axes`: leading axes that number systems, each of
    which has step lengths of its own; `tolerance` ≥ 0: a system whose residual has come down to this share of ‖b‖ is left alone, for
    further steps would follow round-off, without bound where H is singular.

    **Raises:** `ValueError` for shapes that differ, an operator that changes them, or a number out of range.

    >>> h = jnp.array([[2.0, 1.0], [1.0, 3.0]])
    >>> found = conjugate_gradient(lambda x: h @ x, jnp.array([3.0, 4.0]), jnp.zeros(2), n_steps=2)
    >>> print([f"{entry:.4f}" for entry in found.x], [f"{norm:.2f}" for norm in found.residual_norms])
    ['1.0000', '1.0000'] ['5.00', '0.28', '0.00']
    """
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance}")
    if b.shape != x0.shape:
        raise ValueError(f"b and x0 must have one shape, got {b.shape} and {x0.shape}")
    if not 0 <= batch_axes <= b.ndim:
        raise ValueError(f"batch_axes must lie between 0 and the {b.ndim} axes of b, got {batch_axes}")
    image = jax.eval_shape(operator, x0)
    if image.shape != x0.shape:
        raise ValueError(f"operator must keep the shape {x0.shape}, got {image.shape}")
    axes = tuple(range(batch_axes, b.ndim))

    def inner(u: Array, v: Array) -> Array:
        # Of complex numbers the conjugate: without it a direction may seem to have no length.
        return jnp.sum((jnp.conj(u) * v).real, axis=axes, keepdims=True)

    least = tolerance**2 * inner(b, b)
    # A complex map takes real vectors to complex ones.
    dtype = jnp.result_type(x0, b, *([jnp.complex64] if jnp.iscomplexobj(image) else []))
    r0 = b - operator(x0).astype(dtype)
    square0 = inner(r0, r0)

    def step(carry: tuple[Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array], Array]:
        x, r, p, square = carry
        image = operator(p).astype(p.dtype)
        curvature = inner(p, image)
        is_going = (square > least) & (curvature > 0)
        alpha = jnp.where(is_going, square / jnp.where(is_going, curvature, 1), 0)
        x, r = x + alpha * p, r - alpha * image
        after = inner(r, r)
        beta = jnp.where(is_going, after / jnp.where(is_going, square, 1), 0)
        p = jnp.where(is_going, r + beta * p, p)
        return (x, r, p, after), after

    start = (x0.astype(dtype), r0, r0, square0)
    (x, *_), squares = jax.lax.scan(step, start, length=n_steps)
    squares = jnp.concatenate([square0[None], squares]).reshape(n_steps + 1, *b.shape[:batch_axes])
    # The root of a safe number: its derivative at 0 would be infinite.
    return ConjugateGradient(x, jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0))


def hermitian_defect(operator: Operator, like: Inexact[Array, "*shape"], *, key: PRNGKeyArray) -> Float[Array, ""]:
    """|⟨u, H v⟩ - ⟨H u, v⟩| / (‖u‖ ‖H v‖) for two random vectors: round-off for a Hermitian map, of order 1/√n and more for another.

    **Arguments:** `operator`: H; `like`: an array as H takes it, whose values do not matter; `key`.

    >>> turn = jnp.array([[0.0, -1.0], [1.0, 0.0]])
    >>> bool(hermitian_defect(lambda x: turn @ x, jnp.zeros(2), key=jax.random.key(0)) > 0.1)
    True
    """
    parts = 2 if jnp.iscomplexobj(like) else 1
    real = jnp.finfo(like.dtype).dtype
    drawn = jax.random.normal(key, (2 * parts * like.size,), real).reshape(2, parts, *like.shape)
    u, v = drawn[:, 0] if parts == 1 else jax.lax.complex(drawn[:, 0], drawn[:, 1])
    image = operator(v)
    gap = jnp.sum(jnp.conj(u) * image) - jnp.sum(jnp.conj(operator(u)) * v)
    size = jnp.sqrt(jnp.sum(jnp.abs(u) ** 2) * jnp.sum(jnp.abs(image) ** 2))
    return jnp.abs(gap) / jnp.where(size > 0, size, 1)
