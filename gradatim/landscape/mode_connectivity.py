"""The loss along the straight line between two points, and the barrier on it."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Line(eqx.Module):
    """l(t) = L((1-t) a + t b)."""

    t: Float[Array, " points"]
    loss: Float[Array, " points"]

    @property
    def barrier(self) -> Float[Array, ""]:
        """maxₜ [l(t) - (1-t) l(0) - t l(1)]: zero where the line never rises above the chord of its ends."""
        return jnp.max(self.loss - ((1 - self.t) * self.loss[0] + self.t * self.loss[-1]))

    @property
    def crest(self) -> Float[Array, ""]:
        """maxₜ l(t) less the larger end: zero where nothing has to be climbed."""
        return jnp.max(self.loss) - jnp.maximum(self.loss[0], self.loss[-1])


def line_loss(loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, *, n_points: int = 21) -> Line:
    """The loss at `n_points` equally spaced points of the line, one after another.

    A barrier found is a lower bound, for the line is only looked at in these points. Two networks that differ by a permutation of units
    compute the same function and may still have a barrier between them.

    **Arguments:** `loss`: of the parameters alone; `start`, `end`: pytrees of arrays of one structure; `n_points`: at least 3.

    **Raises:** `ValueError` for fewer points, or for ends of different structure or shapes.

    >>> line = line_loss(lambda w: (w**2 - 1) ** 2, jnp.array(-1.0), jnp.array(1.0))
    >>> print(f"{line.barrier:.1f}")
    1.0
    """
    if n_points < 3:
        raise ValueError(f"n_points must be at least 3, got {n_points}")
    if jax.tree.structure(start) != jax.tree.structure(end):
        raise ValueError(f"start and end must have one structure, got {jax.tree.structure(start)} and {jax.tree.structure(end)}")
    for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(f"start and end must have the same shapes, got {jnp.shape(a)} and {jnp.shape(b)}")
    t = jnp.linspace(0, 1, n_points, dtype=jnp.result_type(*jax.tree.leaves(start)))
    values = jax.lax.map(lambda s: loss(jax.tree.map(lambda a, b: (1 - s) * a + s * b, start, end)), t)
    return Line(t, values)
