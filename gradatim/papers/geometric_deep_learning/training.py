"""Many small networks side by side, each with its own rate and data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from gradatim.lab import Session

CLIP = 1.0
"Largest norm of a gradient."


class _State(NamedTuple):
    arrays: Any
    memory: Any
    loss: Array


def train_together(
    session: Session,
    nets: Any,
    loss: Callable[[Any, Any, Any], Array],
    data: Any,
    entries: Any,
    *,
    rates: np.ndarray,
    which: np.ndarray,
    steps: int,
    label: str,
) -> tuple[Any, dict[str, np.ndarray]]:
    """Adam with clipped gradients and a rate that falls along a cosine: the networks afterwards, and `loss` over `step`.

    **Arguments:** `nets`: first weights, stacked over what runs share; `loss(net, data, entry)`; `data`: stacked likewise; `entries`: what
    tells steps apart, steps first and then stacked likewise; `rates`, `which`: of each run, and which of the stacked it has.
    """
    arrays, others = eqx.partition(nets, eqx.is_inexact_array)
    dtype = jax.tree.leaves(arrays)[0].dtype
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())
    arrays = jax.tree.map(lambda leaf: np.asarray(leaf)[which], arrays)
    zeros = jax.tree.map(lambda leaf: np.zeros((len(which), *leaf.shape), leaf.dtype), jax.eval_shape(optimizer.init, _one(arrays)))

    def step(state: _State, i: Array, args: Any) -> _State:
        rates, which, data, entries = args
        falling = ((1 + jnp.cos(jnp.pi * i / steps)) / 2).astype(dtype)

        def one(arrays: Any, memory: Any, rate: Array, k: Array) -> Any:
            ours, entry = jax.tree.map(lambda leaf: leaf[k], data), jax.tree.map(lambda leaf: leaf[i, k], entries)
            value, gradient = jax.value_and_grad(lambda arrays: loss(eqx.combine(arrays, others), ours, entry))(arrays)
            updates, memory = optimizer.update(gradient, memory)
            return jax.tree.map(lambda p, u: p - rate * falling * u, arrays, updates), memory, value

        # One network after another, each within the caches.
        return _State(*jax.lax.map(lambda given: one(*given), (state.arrays, state.memory, rates, which)))

    start = _State(arrays, zeros, jnp.zeros(len(which), dtype))
    args = (jnp.asarray(rates, dtype), *jax.tree.map(jnp.asarray, (which, data, entries)))
    loop = session.loop(
        step, start, steps=steps, args=args, watch=lambda state, _: {"loss": state.loss}, every=max(steps // 25, 1), label=label,
        on_nonfinite="keep",
    )  # fmt: skip
    return eqx.combine(loop.state.arrays, others), loop.history


def _one(stacked: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), stacked)


def single(tree: Any) -> Any:
    """Numbers in 32 bits, which is enough to learn with."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32)) if eqx.is_inexact_array(leaf) else leaf, tree)


def stacked(nets: list[Any]) -> Any:
    """Several networks as one whose arrays have one axis more."""

    def together(*leaves: Any) -> Any:
        return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves])) if eqx.is_array(leaves[0]) else leaves[0]

    return jax.tree.map(together, *nets)
