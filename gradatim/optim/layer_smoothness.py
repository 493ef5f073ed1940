"""How smooth a loss is in each layer: what the best marginals of Drop-Muon (arXiv:2510.02239) are made of, measured along a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradatim.nets.labels import count_layers
from gradatim.numerics import primal_norm
from gradatim.optim.drop_muon import layer_numbers
from gradatim.optim.layer_norms import NORM_OF_GROUP, Groups, layer_dual_norms, layers_of, measure


def layer_smoothness(
    loss: Callable[..., Array], params: Any, step: Any, layers: PyTree[int], *args: Any, groups: Groups, axes: Any = None
) -> Float[Array, " layers"]:
    """Lᵢ of every layer, by how much its gradient changes when the layer alone takes its part Zᵢ of a step.

        Lᵢ ≈ ‖∂ᵢf(X + Zᵢ) - ∂ᵢf(X)‖_* / ‖Zᵢ‖

    From below: a constant of smoothness is the largest of all points and steps. Take the largest along a training, each with the
    update of the optimiser as `step` on one batch, for [`optimal_marginals`][gradatim.optim.optimal_marginals]. The norms are those of
    [`scion`][gradatim.optim.scion], exact; of several arrays in one layer ‖Zᵢ‖ is the largest, and so the dual norm the sum. One gradient
    for each layer, and one more.

    **Arguments:** `loss(params, *args)`: a scalar; `params`: a model, whose floating-point arrays are meant; `step`: a tree like these;
    `layers`: as in [`drop_layers`][gradatim.optim.drop_layers]; `groups`, `axes`: as in [`scion`][gradatim.optim.scion].

    **Raises:** `ValueError` for layers with a gap or without any, or a leaf without a group or with too few axes for it; at run time, for a
    layer that does not move.

    >>> loss = lambda w: (w["first"] ** 2).sum() + (3 * w["second"] ** 2).sum()
    >>> w, layers = {"first": jnp.ones(4), "second": jnp.ones(4)}, {"first": 1, "second": 2}
    >>> print(layer_smoothness(loss, w, w, layers, groups={"first": "vector", "second": "vector"}))
    [ 8. 24.]
    """
    arrays, static = eqx.partition(params, eqx.is_inexact_array)
    numbers = layer_numbers(layers, arrays)
    found, structure = layers_of(arrays, groups, axes)
    norms, key = layer_dual_norms("svd"), jax.random.key(0)  # used by random estimates of a norm alone

    def gradient(arrays: Any) -> Any:
        return jax.grad(lambda arrays: loss(eqx.combine(arrays, static), *args))(arrays)

    before, moves = gradient(arrays), structure.flatten_up_to(step)
    constants = []
    for number in range(1, count_layers(layers) + 1):
        moved = jax.tree.map(lambda x, z, n, number=number: x + z if n == number else x, arrays, step, numbers)
        change = structure.flatten_up_to(jax.tree.map(jnp.subtract, gradient(moved), before))
        every = zip(found, change, moves, structure.flatten_up_to(numbers), strict=True)
        mine = [(layer, g, z) for layer, g, z, n in every if n == number and layer is not None]
        duals = measure([layer for layer, *_ in mine], norms, [g for _, g, _ in mine], key)
        primals = [primal_norm(layer.fold(z), NORM_OF_GROUP[layer.group]).max() for layer, _, z in mine]
        length = jnp.stack(primals).max()
        length = eqx.error_if(length, length == 0, f"step must move every layer, layer {number} stays where it is")
        constants.append(jnp.stack([dual.sum() for dual in duals if dual is not None]).sum() / length)
    return jnp.stack(constants)
