"""The feed-forward part of a transformer block."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray


def of_rows(linear: eqx.nn.Linear, x: Float[Array, "tokens n_in"]) -> Float[Array, "tokens n_out"]:
    """A linear map of every row, as the one product x Wᵀ: mapped over rows by `jax.vmap` it would come out transposed."""
    if len(x) == 1:
        # A token of one text: the matrix first, which XLA, with many texts mapped over, then multiplies by as it lies.
        return (linear.weight @ x[0])[None]
    return x @ linear.weight.T


class SwiGLU(eqx.Module):
    """Two linear maps, one the gate of the other, and a third one back (Shazeer, arXiv:2002.05202): `down(silu(gate x) * up x)`.

    **Arguments:** `width` of tokens; `hidden` units; `key`. No biases.

    **Raises:** `ValueError` if a size is below 1.

    >>> SwiGLU(8, 24, key=jax.random.key(0))(jax.numpy.ones((5, 8))).shape
    (5, 8)
    """

    gate: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray) -> None:
        for name, size in (("width", width), ("hidden", hidden)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        gate, up, down = jax.random.split(key, 3)
        self.gate = eqx.nn.Linear(width, hidden, use_bias=False, key=gate)
        self.up = eqx.nn.Linear(width, hidden, use_bias=False, key=up)
        self.down = eqx.nn.Linear(hidden, width, use_bias=False, key=down)

    def __call__(self, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
        """Each token by itself."""
        return of_rows(self.down, jax.nn.silu(of_rows(self.gate, x)) * of_rows(self.up, x))
