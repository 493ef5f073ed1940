"""The loss along the straight line between two points, and the barrier on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradatim.numerics.checks import is_known

Baseline = Literal["line", "mean", "max"]
_GOLDEN = (3 - 5**0.5) / 2


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


class Barrier(eqx.Module):
    """The highest point of a line over its baseline, where it is, and the line's points."""

    height: Float[Array, ""]
    at: Float[Array, ""]
    line: Line


def interpolate(start: PyTree, end: PyTree, t: float | Float[Array, ""]) -> PyTree:
    """The point (1-t) a + t b: every floating-point array moves, and everything else must be the same at both ends.

    Running statistics (`eqx.nn.State`) are refused: those of two networks, mixed, belong to no network. Take layers that normalise within
    one example, or compute the statistics anew from data inside the loss: [`recompute_stats`][gradatim.landscape.recompute_stats].

    **Arguments:** `start`, `end`: pytrees of one structure, equinox models included; `t`: 0 gives `start`, 1 gives `end`.

    **Raises:** `ValueError` for ends of different structure or shapes, for other leaves that differ, or for running statistics.

    >>> interpolate({"steps": 3, "w": jnp.array([0.0, 2.0])}, {"steps": 3, "w": jnp.array([4.0, 2.0])}, 0.25)
    {'steps': 3, 'w': Array([1., 2.], dtype=float32)}
    """
    check_ends(start, end)
    return jax.tree.map(lambda a, b: mix(a, b, t) if is_weight(a) else a, start, end)


def line_loss(loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, *, n_points: int = 21) -> Line:
    """The loss at `n_points` equally spaced points of the line, one after another.

    A barrier found is a lower bound, for the line is only looked at in these points; [`barrier`][gradatim.landscape.barrier] looks
    closer. Two networks that differ by a permutation of units compute the same function and may still have a barrier between them.

    **Arguments:** `loss`: of the parameters alone, and without dropout; `start`, `end`: as for
    [`interpolate`][gradatim.landscape.interpolate]; `n_points`: at least 3.

    **Raises:** `ValueError` for fewer points, or for ends that do not fit.

    >>> line = line_loss(lambda w: (w**2 - 1) ** 2, jnp.array(-1.0), jnp.array(1.0))
    >>> print(f"{line.barrier:.1f}")
    1.0
    """
    check_points(n_points)
    check_ends(start, end)
    t = points_of(start, n_points)
    return Line(t, jax.lax.map(lambda s: loss(interpolate(start, end, s)), t))


def barrier(
    loss: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    end: PyTree,
    *,
    n_points: int = 21,
    baseline: Baseline = "line",
    n_refinements: int = 12,
) -> Barrier:
    """The barrier between two points: how far the loss on their straight line rises above a baseline, and where.

        height = maxₜ [l(t) - base(t)],     base = (1-t) l(0) + t l(1)  ("line"),  ½ [l(0) + l(1)]  ("mean"),  max {l(0), l(1)}  ("max")

    All three are in use, and they part where the ends differ in height: "line" is zero for a line without a bump, "mean" (the
    instability of Frankle et al., arXiv:1912.05671) is not. The best of `n_points` is followed by a golden-section search between its
    neighbours, one evaluation a step. A bump narrower than the points' distance can be missed.

    **Arguments:** `loss`, `start`, `end`, `n_points`: as for [`line_loss`][gradatim.landscape.line_loss]; `n_refinements`: steps of the
    search, each shortening the bracket to 0.62 of itself.

    **Raises:** `ValueError` for a baseline that does not exist, fewer than three points, a negative `n_refinements` or ends that do not
    fit.

    >>> found = barrier(lambda w: 0.5 * (w[0] * w[1] - 1) ** 2, jnp.ones(2), -jnp.ones(2))
    >>> print(f"{found.height:.3f} at t = {found.at:.3f}")
    0.500 at t = 0.500
    """
    if baseline not in ("line", "mean", "max"):
        raise ValueError(f"baseline must be 'line', 'mean' or 'max', got {baseline!r}")
    if n_refinements < 0:
        raise ValueError(f"n_refinements must be at least 0, got {n_refinements}")
    line = line_loss(loss, start, end, n_points=n_points)
    first, last = line.loss[0], line.loss[-1]

    def base(t: Array) -> Array:
        if baseline == "line":
            return (1 - t) * first + t * last
        return jnp.broadcast_to((first + last) / 2 if baseline == "mean" else jnp.maximum(first, last), t.shape)

    heights = line.loss - base(line.t)
    best = jnp.argmax(heights)
    neighbours = line.t[jnp.maximum(best - 1, 0)], line.t[jnp.minimum(best + 1, n_points - 1)]

    def narrow(_: Array, bracket: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        low, middle, high, height = bracket
        # Into the longer part, so that the three points stay in golden proportion.
        is_right = high - middle > middle - low
        t = jnp.where(is_right, middle + _GOLDEN * (high - middle), middle - _GOLDEN * (middle - low))
        value = loss(interpolate(start, end, t)) - base(t)
        is_better = value > height
        low = jnp.where(is_better, jnp.where(is_right, middle, low), jnp.where(is_right, low, t))
        high = jnp.where(is_better, jnp.where(is_right, high, middle), jnp.where(is_right, t, high))
        return low, jnp.where(is_better, t, middle), high, jnp.where(is_better, value, height)

    bracket = (neighbours[0], line.t[best], neighbours[1], heights[best])
    if n_refinements:
        bracket = jax.lax.fori_loop(0, n_refinements, narrow, bracket)
    return Barrier(bracket[3], bracket[1], line)


def is_weight(leaf: Any) -> bool:
    """Whether a leaf moves along a line: a floating-point array."""
    return isinstance(leaf, jax.Array | np.ndarray) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def mix(a: Array, b: Array, t: float | Float[Array, ""]) -> Array:
    """(1-t) a + t b in a's own dtype."""
    return ((1 - t) * a + t * b).astype(a.dtype)


def points_of(params: PyTree, n_points: int) -> Float[Array, " points"]:
    """Equally spaced t from 0 to 1, in the dtype of the parameters."""
    return jnp.linspace(0, 1, n_points, dtype=jnp.result_type(*filter(is_weight, jax.tree.leaves(params))))


def check_points(n_points: int) -> None:
    """Refuses a line of fewer than three points."""
    if n_points < 3:
        raise ValueError(f"n_points must be at least 3, got {n_points}")


def check_ends(start: PyTree, end: PyTree) -> None:
    """Refuses ends between which no straight line runs."""
    if jax.tree.structure(start) != jax.tree.structure(end):
        raise ValueError(f"start and end must have one structure, got {jax.tree.structure(start)} and {jax.tree.structure(end)}")
    if any(isinstance(part, eqx.nn.State) for part in jax.tree.leaves(start, is_leaf=lambda part: isinstance(part, eqx.nn.State))):
        raise ValueError("start and end must not hold running statistics (eqx.nn.State): compute them anew from data inside the loss")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(end), strict=True):
        if is_weight(a) != is_weight(b) or (is_weight(a) and jnp.shape(a) != jnp.shape(b)):
            raise ValueError(f"start and end must have the same shapes, got {_shape(a)} and {_shape(b)} at {_name(path)}")
        # What is traced cannot be looked at.
        if not is_weight(a) and is_known(a, b) and not bool(eqx.tree_equal(a, b)):
            raise ValueError(f"only floating-point arrays may differ between start and end, got {a!r} and {b!r} at {_name(path)}")


def _shape(leaf: Any) -> Any:
    return jnp.shape(leaf) if is_weight(leaf) else leaf


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the parameter"
