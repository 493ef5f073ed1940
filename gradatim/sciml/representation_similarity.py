"""How alike two layers see the same inputs: linear centred kernel alignment (Kornblith et al., arXiv:1905.00414)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def linear_cka(first: Float[Array, "n a"], second: Float[Array, "m b"]) -> Float[Array, ""]:
    """‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms, of features centred over n inputs: 1 where both are the same.

    Neither a rotation of a layer's features, nor a shift, nor one factor for all of them changes it; a general linear map does. Smaller
    1 - CKA means closer. In single precision 1 - CKA is known to about 1e-6. NaN where a layer does not vary.

    **Raises:** `ValueError` for features of different numbers of inputs, or of fewer than two.

    >>> x = jnp.array([[1.0, 0], [0, 1], [1, 1], [2, -1]])
    >>> y = jnp.array([[1.0], [2], [0], [3]])
    >>> print(f"{linear_cka(x, y):.4f}")
    0.3278
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"both layers must be seen at the same inputs, at least 2, got {len(first)} and {len(second)}")
    x, y = first - first.mean(axis=0, keepdims=True), second - second.mean(axis=0, keepdims=True)
    return jnp.sum((x.T @ y) ** 2) / jnp.sqrt(jnp.sum((x.T @ x) ** 2) * jnp.sum((y.T @ y) ** 2))
