"""Reconstruction with the total variation as a penalty, by a primal-dual iteration
(Rudin, Osher and Fatemi, 1992; Chambolle and Pock, 2011, Algorithm 1).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from gradatim.numerics.checks import is_known

from .imaging import AbstractForward


class TotalVariation(NamedTuple):
    """The images, and how much the last step moved them."""

    x: Inexact[Array, "*batch height width"]
    last_change: Float[Array, "*batch"]
    "‖x_k - x_{k-1}‖ / ‖x_k‖"


def image_gradient(x: Inexact[Array, "*batch height width"]) -> Inexact[Array, "2 *batch height width"]:
    """Differences to the pixel below and to the right, zero at the last ones."""
    down = jnp.concatenate([jnp.diff(x, axis=-2), jnp.zeros_like(x[..., :1, :])], axis=-2)
    right = jnp.concatenate([jnp.diff(x, axis=-1), jnp.zeros_like(x[..., :1])], axis=-1)
    return jnp.stack([down, right])


def image_gradient_adjoint(q: Inexact[Array, "2 *batch height width"]) -> Inexact[Array, "*batch height width"]:
    """The transpose of [`image_gradient`][gradatim.transport.image_gradient]: less the divergence."""
    down, right = q[0].at[..., -1, :].set(0), q[1].at[..., -1].set(0)
    return jnp.roll(down, 1, axis=-2) - down + jnp.roll(right, 1, axis=-1) - right


def total_variation(x: Inexact[Array, "*batch height width"]) -> Float[Array, "*batch"]:
    """Σ |∇x| over pixels, ∇ by [`image_gradient`][gradatim.transport.image_gradient]; of complex images with moduli.

    >>> print(total_variation(jnp.array([[0.0, 1.0], [0.0, 1.0]])))
    2.0
    """
    return jnp.sum(_lengths(image_gradient(x)), axis=(-2, -1))


def tv_reconstruct(
    operator: AbstractForward,
    y: Inexact[Array, ...],
    *,
    weight: Float[Array, ...] | float,
    n_steps: int = 300,
    operator_norm: float = 1.0,
) -> TotalVariation:
    """The images of least ‖A x - y‖² / 2 + λ Σ |∇x|, real or complex as the operator takes them.

        p ← (p + σ (A x̄ - y)) / (1 + σ);   q ← q + σ ∇x̄, cut to |q| ≤ λ;   x⁺ = x - τ (Aᴴp + ∇ᵀq);   x̄ = 2 x⁺ - x;   σ = τ = 1/√(‖A‖² + 8)

    **Arguments:** `operator`: A, whose measurements of x have x's leading axes in front; `y`; `weight` λ ≥ 0, one or one for each
    image; `n_steps` ≥ 1, of which hundreds are needed; `operator_norm`: a bound of ‖A‖.

    **Raises:** `ValueError` for numbers out of range.

    >>> from gradatim.transport import Inpainting
    >>> found = tv_reconstruct(Inpainting(jnp.ones((1, 3), bool)), jnp.array([[0.0, 1.0, 1.0]]), weight=0.2)
    >>> print([f"{value:.2f}" for value in found.x[0]])  # each plateau has moved by λ over its length
    ['0.20', '0.90', '0.90']
    """
    if is_known(weight) and not np.all(np.asarray(weight) >= 0):
        raise ValueError(f"weight must be at least 0, got {weight}")
    if n_steps < 1 or not operator_norm > 0:
        raise ValueError(f"n_steps must be at least 1 and operator_norm positive, got {n_steps} and {operator_norm}")
    return _primal_dual(operator, y, jnp.asarray(weight), n_steps, operator_norm)


@eqx.filter_jit
def _primal_dual(operator: AbstractForward, y: Array, weight: Array, n_steps: int, operator_norm: float) -> TotalVariation:
    x0 = jnp.zeros_like(operator.adjoint(y))
    step = 1 / (operator_norm**2 + 8) ** 0.5
    bound = jnp.broadcast_to(weight.astype(jnp.finfo(x0.dtype).dtype), x0.shape[:-2])[..., None, None]

    def iterate(carry: tuple[Array, Array, Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array, Array, Array], None]:
        x, ahead, p, q, _before = carry
        p = (p + step * (operator(ahead) - y)) / (1 + step)
        q = q + step * image_gradient(ahead)
        size = _lengths(q)
        q = q * jnp.where(size > bound, bound / jnp.where(size > bound, size, 1), 1)[None]
        after = x - step * (operator.adjoint(p) + image_gradient_adjoint(q))
        return (after, 2 * after - x, p, q, x), None

    start = (x0, x0, jnp.zeros_like(y), image_gradient(x0), x0)
    (x, _, _, _, before), _ = jax.lax.scan(iterate, start, length=n_steps)
    size, change = (jnp.sqrt(jnp.sum(jnp.abs(u) ** 2, axis=(-2, -1))) for u in (x, x - before))
    return TotalVariation(x, change / jnp.where(size > 0, size, 1))


def _lengths(q: Inexact[Array, "2 *batch height width"]) -> Float[Array, "*batch height width"]:
    square = jnp.sum(q.real**2 + q.imag**2 if jnp.iscomplexobj(q) else q**2, axis=0)
    # The root of a safe number: its derivative at 0 would be infinite.
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
