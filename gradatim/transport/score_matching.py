"""Denoising score matching: the loss that makes a network a path's score (Vincent 2011; Song et al., arXiv:2011.13456)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .probability_paths import AbstractGaussianPath
from .score_flow import Score


def denoising_score_matching(
    score: Score,
    path: AbstractGaussianPath,
    x0: Float[Array, "batch dim"],
    x1: Float[Array, "batch dim"],
    t: Float[Array, " batch"],
) -> Float[Array, ""]:
    """Mean of (m s(t, xₜ) + x₀)² over a batch and its coordinates: least for s = ∇ log pₜ, and not zero there.

    The factor m makes noise levels count alike: it is the error in the noise that a network would predict. Up to a constant this is
    E m² ‖s - ∇ log pₜ‖² = E m² ‖∇φ - ∇ log pₜ‖² + E m² ‖r‖² for the [Helmholtz parts][gradatim.transport.helmholtz_decomposition] of
    s = ∇φ + r, so that it penalises a gauge part without singling it out.

    **Arguments:** `score`: of one time and one point; `path`; `x0`: standard normal noise; `x1`: data; `t`: times below 1.

    >>> from gradatim.transport import CondOT
    >>> x0, x1, t = jnp.array([[1.0], [-1.0]]), jnp.zeros((2, 1)), jnp.array([0.2, 0.8])
    >>> path = CondOT()
    >>> print(f"{denoising_score_matching(lambda t, x: -x / path.coefficients(t).m ** 2, path, x0, x1, t):.3f}")  # one point: no doubt
    0.000
    """
    m = path.coefficients(t).m.astype(x0.dtype)
    return jnp.mean((m[:, None] * jax.vmap(score)(t, path.point(x0, x1, t)) + x0) ** 2)
