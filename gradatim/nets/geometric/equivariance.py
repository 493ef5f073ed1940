"""How far a function is from respecting a symmetry: the error of every element, for any model (arXiv:2104.13478, Section 3.1).

f(ρ(g)x) = ρ'(g) f(x)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from .groups import Action, Group, unchanged


class EquivarianceError(NamedTuple):
    """The largest error of any entry, element by element."""

    absolute: Float[np.ndarray, " elements"]
    relative: Float[np.ndarray, " elements"]
    "Over the largest entry of ρ'(g) f(x)."

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return float(self.relative.max())


def equivariance_error(
    f: Callable[[Any], Any], elements: Group | Sequence[Any], x: Any, act_in: Action, act_out: Action = unchanged
) -> EquivarianceError:
    """f(ρ(g)x) against ρ'(g) f(x), for every element of a group or of a sample of one.

    One element is not enough, nor is a model whose biases are still zero: errors of padding, strides and normalisation hide there. Try it
    again after training, and in double precision, where only round-off is left. Where an action interpolates, as turns of an image by any
    angle do, compare with the error of `act(g⁻¹, act(g, x))` against x: no model can do better.

    It runs on the host, and calls `f` once for x and once for each element: give it a compiled one.

    **Arguments:** `f`: from one pytree of arrays to another; `elements`: a group, whose elements are numbers, or any sequence, such as
    [`random_motions`][gradatim.nets.geometric.random_motions]; `x`; `act_in`, `act_out`: `act(g, x)` on what goes in and on what comes
    out, by default that of an invariant.

    **Raises:** `ValueError` for no elements, or if ρ'(g) f(x) and f(ρ(g)x) have different shapes.

    >>> from gradatim.nets.geometric import act_on_grid, cyclic
    >>> image = np.random.default_rng(0).normal(size=(5, 5))
    >>> turn = act_on_grid(cyclic(4))
    >>> equivariance_error(lambda x: x**2, cyclic(4), image, turn, turn).worst
    0.0
    >>> print(f"{equivariance_error(lambda x: x[::2], cyclic(4), image, turn, lambda g, y: y).worst:.1f}")
    0.8
    """
    outputs = [jax.device_get(f(jax.tree.map(jnp.asarray, moved))) for moved in moved_inputs(elements, x, act_in)]
    return compare_outputs(elements, outputs, act_out)


def moved_inputs(elements: Group | Sequence[Any], x: Any, act_in: Action) -> list[Any]:
    """X itself, and ρ(g)x for each element: what [`compare_outputs`][gradatim.nets.geometric.compare_outputs] wants the outputs for.

    >>> from gradatim.nets.geometric import cyclic, standard
    >>> [x.tolist() for x in moved_inputs(cyclic(2), np.array([1.0, 0.0]), standard(cyclic(2)))]
    [[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]
    """
    x = jax.tree.map(np.asarray, x)
    return [x, *(act_in(g, x) for g in _listed(elements))]


def compare_outputs(elements: Group | Sequence[Any], outputs: Sequence[Any], act_out: Action = unchanged) -> EquivarianceError:
    """The error from the outputs for x and for each ρ(g)x: the second half of
    [`equivariance_error`][gradatim.nets.geometric.equivariance_error], for outputs that come from one batched call.

    **Raises:** as there.

    >>> from gradatim.nets.geometric import act_on_grid, cyclic
    >>> turn = act_on_grid(cyclic(4))
    >>> images = np.stack(moved_inputs(cyclic(4), np.arange(9.0).reshape(3, 3), turn))
    >>> compare_outputs(cyclic(4), list(images**2), turn).worst  # all at once
    0.0
    """
    first, *rest = (jax.tree.map(np.asarray, output) for output in outputs)
    errors = []
    for g, found in zip(_listed(elements), rest, strict=True):
        expected = act_out(g, first)
        pairs = list(zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True))
        for a, b in pairs:
            if a.shape != b.shape:
                raise ValueError(f"act_out must give the shape of f's output, got {a.shape} for {b.shape} with element {g}")
        absolute = max(float(np.abs(a - b).max()) for a, b in pairs)
        scale = max(float(np.abs(a).max()) for a, _ in pairs)
        errors.append((absolute, absolute / scale if scale > 0 else absolute))
    absolute, relative = np.array(errors).T
    return EquivarianceError(absolute, relative)


def _listed(elements: Group | Sequence[Any]) -> Sequence[Any]:
    listed = range(elements.order) if isinstance(elements, Group) else elements
    if not len(listed):
        raise ValueError("elements must hold at least one, got none")
    return listed


class Motion(NamedTuple):
    """x ↦ Rx + b, of points in rows."""

    turn: Float[np.ndarray, "dim dim"]
    shift: Float[np.ndarray, " dim"]

    def __call__(self, points: Any) -> Any:
        """The points moved."""
        return points @ self.turn.T.astype(points.dtype) + self.shift[None].astype(points.dtype)


def random_motions(key: PRNGKeyArray, n: int, *, dim: int = 3, reflections: bool = True, shift: float = 1.0) -> list[Motion]:
    """A sample of E(dim), or of SE(dim) without reflections: uniform turns, every second one with a reflection, and normal shifts.

    **Arguments:** `n`: how many; `shift`: their standard deviation, 0 for turns about the origin.

    >>> [round(float(np.linalg.det(motion.turn))) for motion in random_motions(jax.random.key(0), 4)]
    [1, -1, 1, -1]
    """
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    motions = []
    for i in range(n):
        turn, upper = np.linalg.qr(random.normal(size=(dim, dim)))
        # Without the signs the factor would not be uniform.
        turn = turn * np.sign(np.diag(upper))[None]
        sign = -1.0 if reflections and i % 2 else 1.0
        turn[:, 0] *= sign * np.sign(np.linalg.det(turn))
        motions.append(Motion(turn, shift * random.normal(size=dim)))
    return motions


def random_permutations(key: PRNGKeyArray, n: int, *, size: int) -> list[np.ndarray]:
    """A sample of the permutations of `size` things: arrays p for x ↦ x[p].

    >>> [sorted(order.tolist()) for order in random_permutations(jax.random.key(0), 2, size=3)]
    [[0, 1, 2], [0, 1, 2]]
    """
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    return [random.permutation(size) for _ in range(n)]
