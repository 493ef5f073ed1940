"""Stepping a state with snapshots, compiled as one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def rollout(step: Callable[[Any], Any], state: PyTree, *, n_steps: int, every: int = 1) -> PyTree:
    """The states after 0, every, 2 every, …, n_steps steps, stacked along a new first axis.

    Under differentiation only the snapshots are kept; the steps between two of them are done again on the way back, so memory grows with
    `n_steps / every + every`, least at every ≈ √n_steps.

    **Raises:** `ValueError` if `every` does not divide `n_steps`.

    >>> rollout(lambda x: 2 * x, jnp.array(1.0), n_steps=4, every=2).tolist()
    [1.0, 4.0, 16.0]
    """
    if every < 1 or n_steps < 1 or n_steps % every:
        raise ValueError(f"every must divide n_steps, got {every} and {n_steps}")

    @jax.checkpoint
    def between(state: PyTree, _: None) -> tuple[PyTree, PyTree]:
        state, _ = jax.lax.scan(lambda s, _: (step(s), None), state, length=every)
        return state, state

    _, later = jax.lax.scan(between, state, length=n_steps // every)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), state, later)
