"""Runs that share their first steps and then part: spawning (Frankle et al., arXiv:1912.05671), and the geometry of the two ways.

A fork needs no copy of anything. Of two runs from one state, the one that meets the same batches as another up to step k is that other
run, its momentum and its schedule included; where its batches change, it forks. All forks of all seeds can so be one batch of runs
(`forked_orders`), or the trunk be run once (`fork_training`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradatim.numerics.checks import is_known

from .mode_connectivity import check_ends, is_weight


class Forks(eqx.Module):
    """States where runs part, and where each of them ends."""

    starts: PyTree
    "With a leading axis of forks."
    ends: PyTree
    "With leading axes of forks and children."


def forked_orders(trunk: Array, branches: Array, fork_steps: Sequence[int]) -> Array:
    """What every child meets at every step: the trunk's entries before its fork, from there on those of its branch.

    Children of one number share their branch, whatever their fork, so that forks are compared on the same batches.

    **Arguments:** `trunk`: rows of a batch, or a key, for each of the `steps` steps, along axis 0; `branches`: the same, shape
    `(children, steps, …)`; `fork_steps`: each in [0, steps], the number of steps on the trunk.

    **Returns:** shape `(forks, children, steps, …)`.

    **Raises:** `ValueError` for a fork that lies outside, shapes that do not fit, or two branches that are the same: their ends would be,
    too, at a distance of zero.

    >>> forked_orders(jnp.zeros(4, int), jnp.array([[1, 1, 1, 1], [2, 2, 2, 2]]), [1, 3]).tolist()
    [[[0, 1, 1, 1], [0, 2, 2, 2]], [[0, 0, 0, 1], [0, 0, 0, 2]]]
    """
    _check_orders(trunk, branches, fork_steps)
    return _orders(trunk, branches, jnp.asarray(list(fork_steps), jnp.int32))


def fork_training(step: Callable[[Any, Any], Any], state: PyTree, trunk: Array, branches: Array, fork_steps: Sequence[int]) -> Forks:
    """Trains a trunk once, and from each fork on its children, side by side, each fork after the one before.

    **Arguments:** `step(state, entry)`: the state after one more batch; `state`: at step 0, with all that training carries on (parameters,
    momentum, the count behind a schedule), every leaf an array; `trunk`, `branches`, `fork_steps`: as for
    [`forked_orders`][gradatim.landscape.forked_orders], fork steps ascending.

    **Raises:** `ValueError` as there, or for fork steps that do not ascend.

    >>> forks = fork_training(lambda w, rate: w - rate * w, jnp.array(1.0), jnp.array([0.5, 0.5]), jnp.array([[0.5, 0.0], [0.5, 1.0]]), [1])
    >>> forks.starts.tolist(), forks.ends.tolist()
    ([0.5], [[0.5, 0.0]])
    """
    if list(fork_steps) != sorted(set(fork_steps)):
        raise ValueError(f"fork steps must ascend, got {list(fork_steps)}")
    _check_orders(trunk, branches, fork_steps)
    return _trained(step, state, trunk, branches, jnp.asarray(list(fork_steps), jnp.int32))


def _check_orders(trunk: Array, branches: Array, fork_steps: Sequence[int]) -> None:
    steps = len(trunk)
    if branches.shape[1:] != trunk.shape:
        raise ValueError(f"branches must have shape (children, {', '.join(map(str, trunk.shape))}), got {branches.shape}")
    for k in fork_steps:
        if not 0 <= k <= steps:
            raise ValueError(f"every fork step must lie in [0, {steps}], the number of steps, got {k}")
    if is_known(branches):
        for i in range(len(branches)):
            for j in range(i):
                if bool((branches[i] == branches[j]).all()):
                    raise ValueError(f"branches must differ, or their ends coincide; {j} and {i} are the same")


@jax.jit
def _orders(trunk: Array, branches: Array, fork_steps: Array) -> Array:
    def one(k: Array) -> Array:
        is_before = (jnp.arange(len(trunk)) < k).reshape(1, -1, *(1 for _ in trunk.shape[1:]))
        return jnp.where(is_before, trunk[None], branches)

    return jax.vmap(one)(fork_steps)


# The bounds are traced and the stretches between forks one scan, so that the step is compiled twice: on the trunk, and on the branches.
@eqx.filter_jit
def _trained(step: Callable[[Any, Any], Any], state: PyTree, trunk: Array, branches: Array, fork_steps: Array) -> Forks:
    def stretch(carry: tuple[PyTree, Array], stop: Array) -> tuple[tuple[PyTree, Array], PyTree]:
        state, done = carry
        state = jax.lax.fori_loop(done, stop, lambda i, state: step(state, trunk[i]), state)
        return (state, stop), state

    def child(branch: Array, start: PyTree, first: Array) -> PyTree:
        return jax.lax.fori_loop(first, len(trunk), lambda i, state: step(state, branch[i]), start)

    _, starts = jax.lax.scan(stretch, (state, jnp.zeros((), jnp.int32)), fork_steps)
    ends = jax.lax.map(lambda each: jax.vmap(child, (0, None, None))(branches, *each), (starts, fork_steps))
    return Forks(starts, ends)


def displacement_norms(base: PyTree, first: PyTree, second: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """|a - base| and |b - base|: how far two runs have come.

    >>> norms = displacement_norms(jnp.zeros(2), jnp.array([3.0, 4.0]), jnp.array([0.0, 2.0]))
    >>> [float(norm) for norm in norms]
    [5.0, 2.0]
    """
    return distance(base, first), distance(base, second)


def distance(first: PyTree, second: PyTree) -> Float[Array, ""]:
    """|a - b| over all floating-point arrays.

    >>> float(distance({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}))
    5.0
    """
    check_ends(first, second)
    return _norm(_displacement(first, second))


def displacement_angle(base: PyTree, first: PyTree, second: PyTree) -> Float[Array, ""]:
    """The angle at `base` between the ways to two points, in degrees.

        cos φ = ⟨a - base, b - base⟩ / (|a - base| |b - base|),     computed as  tan φ/2 = |u - v| / |u + v|  of the unit vectors u, v

    Say which base: seen from the initialisation two children of a late fork seem to go the same way, from their fork they need not. NaN
    (with a warning, outside of compiled code) where one of them has not left the base. Equal directions have no derivative.

    **Arguments:** pytrees of one structure.

    >>> float(displacement_angle(jnp.zeros(2), jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])))
    90.0
    """
    check_ends(base, first)
    check_ends(base, second)
    angle = _angle(_displacement(base, first), _displacement(base, second))
    if is_known(angle) and bool(jnp.isnan(angle)):
        warnings.warn("the angle is undefined: one of the two points is the base itself, or not finite", RuntimeWarning, stacklevel=2)
    return angle


# Of the unit vectors: the arc cosine loses half the digits of a small angle, and has to be clipped.
@jax.jit
def _angle(u: list[Array], v: list[Array]) -> Array:
    a, b = _norm(u), _norm(v)
    is_defined = (a > 0) & (b > 0)
    apart = [x / jnp.where(is_defined, a, 1) - y / jnp.where(is_defined, b, 1) for x, y in zip(u, v, strict=True)]
    along = [x / jnp.where(is_defined, a, 1) + y / jnp.where(is_defined, b, 1) for x, y in zip(u, v, strict=True)]
    return jnp.where(is_defined, jnp.rad2deg(2 * jnp.arctan2(_norm(apart), _norm(along))), jnp.nan)


def _displacement(base: PyTree, point: PyTree) -> list[Array]:
    return [b - a for a, b in zip(jax.tree.leaves(base), jax.tree.leaves(point), strict=True) if is_weight(a)]


def _norm(leaves: list[Array]) -> Array:
    return jnp.sqrt(jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in leaves])))
