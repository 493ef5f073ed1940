"""Kolmogorov's width of a set of snapshots: how well a few modes can hold all of them."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class SnapshotWidth(eqx.Module):
    """Singular values σ of a snapshot matrix, the largest first."""

    singular_values: Float[Array, " rank"]

    @property
    def width(self) -> Float[Array, " counts"]:
        """dₙ = (Σ_{i>n} σᵢ² / Σ σᵢ²)^½ for n = 0, 1, …: the relative error that the best n modes leave in all snapshots together."""
        # Summed from the small end: the tail of a fast decay is what is asked for.
        tails = jnp.cumsum(self.singular_values[::-1] ** 2)[::-1]
        total = jnp.where(tails[0] > 0, tails[0], 1)
        return jnp.sqrt(jnp.concatenate([tails, jnp.zeros_like(tails[:1])]) / total)

    def modes(self, tolerance: float | Float[Array, ""]) -> Int[Array, ""]:
        """The fewest modes whose error is at most `tolerance`; in single precision ask for 1e-6 or more."""
        return jnp.sum(self.width > tolerance)


def snapshot_width(snapshots: Float[Array, "places times"]) -> SnapshotWidth:
    """The width of snapshots, columns of a matrix, from its singular values (proper orthogonal decomposition).

    Whether a mean over time or space is taken off beforehand is the caller's choice, and counts: a mean is a mode.

    >>> x, t = jnp.linspace(0, 6.283, 50), jnp.linspace(0, 1, 20)
    >>> int(snapshot_width(jnp.sin(x[:, None] - 5 * t[None, :])).modes(1e-4))  # a wave that travels has two modes, at any speed
    2
    """
    # Snapshots that repeat each other leave rows of R that are round-off, whose products XLA flushes to zero on the way to NaN.
    R = jnp.linalg.qr(snapshots, mode="r")
    largest = jnp.max(jnp.abs(R))
    R = jnp.where(jnp.abs(R) > jnp.finfo(R.dtype).eps * largest, R, 0)
    return SnapshotWidth(jnp.linalg.svd(R, compute_uv=False))
