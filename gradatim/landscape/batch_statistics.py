"""Running statistics of batch normalisation, computed anew at a point that no training has come through."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def recompute_stats(model: PyTree, state: eqx.nn.State, inputs: Array) -> eqx.nn.State:
    """A state in which every `eqx.nn.BatchNorm` holds mean and variance of its own inputs over `inputs`, and nothing of before.

    What two trained networks keep as running statistics belongs to no network on the line between them: it is too wide or too narrow
    there, and the barrier that this makes is not one of the weights. The layers are run once as in training, all inputs as one batch, so
    that each sees what the layers before it give once they are normalised.

    **Arguments:** `model(x, state)`: of one example, as `eqx.nn.make_with_state` made it, interpolated since; `state`: of any network of
    this form; what no batch normalisation keeps in it is taken over as the pass leaves it; `inputs`: examples along the first axis, as
    many as memory holds.

    **Raises:** `ValueError` for a model without batch normalisation, or layers that name their batch differently.

    >>> norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, "batch", mode="batch")
    >>> state = recompute_stats(norm, state, jnp.array([[1.0], [3.0]]))
    >>> output, _ = eqx.nn.inference_mode(norm)(jnp.array([3.0]), state)
    >>> print(f"{output[0]:.2f}")
    1.00
    """
    names = {layer.axis_name for layer in _layers(model)}
    if len(names) != 1:
        raise ValueError(f"model must hold batch normalisations over one axis, got the names {sorted(map(str, names))}")
    return _passed(model, state, inputs, names.pop())


@eqx.filter_jit
def _passed(model: PyTree, state: eqx.nn.State, inputs: Array, axis_name: Any) -> eqx.nn.State:
    for layer in _layers(model):
        # As before the first batch: its statistics then count alone.
        if layer.batch_counter is not None and layer.batch_state_index is not None:
            state = state.set(layer.batch_counter, jnp.zeros_like(state.get(layer.batch_counter)))
            state = state.set(layer.batch_state_index, jax.tree.map(jnp.zeros_like, state.get(layer.batch_state_index)))
        if layer.ema_first_time_index is not None:
            state = state.set(layer.ema_first_time_index, jnp.array(True))
    training = jax.tree.map(lambda part: eqx.nn.inference_mode(part, value=False) if _is_norm(part) else part, model, is_leaf=_is_norm)
    _, state = jax.vmap(training, in_axes=(0, None), out_axes=(0, None), axis_name=axis_name)(inputs, state)
    return state


def _layers(model: PyTree) -> list[eqx.nn.BatchNorm]:
    return [part for part in jax.tree.leaves(model, is_leaf=_is_norm) if _is_norm(part)]


def _is_norm(part: Any) -> bool:
    return isinstance(part, eqx.nn.BatchNorm)
