"""Lines on which only some layers move: layer-wise connectivity (Adilova, Fischer and Jaggi, arXiv:2307.06966)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from gradatim.nets import count_layers

from .mode_connectivity import check_ends, check_points, is_weight, mix, points_of


class LayerLines(eqx.Module):
    """The loss while one set of layers goes from one network's to the other's, for each set and each network that holds the rest."""

    t: Float[Array, " points"]
    loss: Float[Array, "sets defaults points"]
    "Default 0: the others stay those of `start`; 1: those of `end`. At t = 0 that network is whole, at t = 1 the set is exchanged."

    @property
    def barriers(self) -> Float[Array, "sets defaults"]:
        """How far each line rises above the chord of its own two ends."""
        chord = (1 - self.t)[None, None] * self.loss[..., :1] + self.t[None, None] * self.loss[..., -1:]
        return jnp.max(self.loss - chord, axis=-1)


def layers_by_module(params: PyTree) -> PyTree[int]:
    """The layer of every floating-point array, from 1 on in the tree's order: arrays of one module (weight and bias) are one layer.

    An array that lies at the top, in no module or container, is a layer by itself. For any other division see
    [`layer_indices`][gradatim.nets.layer_indices].

    >>> net = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> [(layer.weight, layer.bias) for layer in layers_by_module(net).layers]
    [(1, 1), (2, 2)]
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    numbers: dict[str, int] = {}
    labels = []
    for path, leaf in leaves:
        module = jax.tree_util.keystr(path[:-1] or path)
        labels.append(numbers.setdefault(module, len(numbers) + 1) if is_weight(leaf) else None)
    return structure.unflatten(labels)


def interpolate_layers(start: PyTree, end: PyTree, t: Float[Array, " layers"], *, layers: PyTree[int] | None = None) -> PyTree:
    """The point (1-tₗ) aₗ + tₗ bₗ with a t of its own for each layer: zeros and ones exchange whole layers.

    **Arguments:** `start`, `end`: as for [`interpolate`][gradatim.landscape.interpolate]; `t`: one entry a layer, in order; `layers`: the
    layer of every floating-point array, 1, 2, …, by default [`layers_by_module`][gradatim.landscape.layers_by_module].

    **Raises:** `ValueError` for ends that do not fit, an array in no layer, or a `t` of another length.

    >>> a, b = [jnp.zeros(2), jnp.zeros(1)], [jnp.ones(2), jnp.ones(1)]
    >>> interpolate_layers(a, b, jnp.array([0.5, 1.0]))
    [Array([0.5, 0.5], dtype=float32), Array([1.], dtype=float32)]
    """
    check_ends(start, end)
    indices, n_layers = _indices(start, layers)
    if t.shape != (n_layers,):
        raise ValueError(f"t must hold one number for each of the {n_layers} layers, got shape {t.shape}")
    return _mixed(start, end, t, indices)


def layerwise_lines(
    loss: Callable[[PyTree], Float[Array, ""]], start: PyTree, end: PyTree, *, layers: PyTree[int] | None = None, n_points: int = 21
) -> LayerLines:
    """The loss while one layer at a time goes from one network's to the other's, into either network.

    Both networks serve as the default, for the two answers differ. In a deep linear network with a convex loss no such line has a
    barrier, whatever lies between the networks as wholes: the output is linear in any one layer. For networks that differ by a permutation
    of their units the opposite holds: a layer exchanged alone breaks what the permutation of the others would have kept.

    **Arguments:** `loss`, `start`, `end`, `n_points`: as for [`line_loss`][gradatim.landscape.line_loss]; `layers`: as for
    [`interpolate_layers`][gradatim.landscape.interpolate_layers].

    **Raises:** `ValueError` for ends that do not fit, fewer than three points, or an array in no layer.

    >>> lines = layerwise_lines(lambda w: 0.5 * (w[0] * w[1] - 1) ** 2, [jnp.array(1.0)] * 2, [jnp.array(-1.0)] * 2)
    >>> lines.loss.shape, float(lines.barriers.max())
    ((2, 2, 21), 0.0)
    """
    indices, n_layers = _indices(start, layers)
    return _lines(loss, start, end, np.eye(n_layers, dtype=bool), indices, n_points)


def cumulative_lines(
    loss: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    end: PyTree,
    *,
    layers: PyTree[int] | None = None,
    order: Sequence[int] | None = None,
    n_points: int = 21,
) -> LayerLines:
    """The loss while the first, the first two, … of the layers in `order` move together; the last set is the whole network.

    **Arguments:** `order`: every layer once, by default from the input (1) to the output; give it reversed to grow the set from the
    output. The rest as for [`layerwise_lines`][gradatim.landscape.layerwise_lines].

    **Raises:** as there, and `ValueError` for an order that is no permutation of the layers.

    >>> lines = cumulative_lines(lambda w: 0.5 * (w[0] * w[1] - 1) ** 2, [jnp.array(1.0)] * 2, [jnp.array(-1.0)] * 2)
    >>> lines.barriers[:, 0].tolist()
    [0.0, 0.5]
    """
    indices, n_layers = _indices(start, layers)
    chosen = list(range(1, n_layers + 1)) if order is None else list(order)
    if sorted(chosen) != list(range(1, n_layers + 1)):
        raise ValueError(f"order must hold each of the layers 1 to {n_layers} once, got {chosen}")
    sets = np.zeros((n_layers, n_layers), bool)
    for size in range(n_layers):
        sets[size:, chosen[size] - 1] = True
    return _lines(loss, start, end, sets, indices, n_points)


def _lines(
    loss: Callable[[PyTree], Float[Array, ""]],
    start: PyTree,
    end: PyTree,
    sets: Bool[np.ndarray, "sets layers"],
    indices: tuple[int, ...],
    n_points: int,
) -> LayerLines:
    check_points(n_points)
    check_ends(start, end)
    t = points_of(start, n_points)
    moved = jnp.asarray(sets, t.dtype)[:, None, :] * t[None, :, None]
    # Into `start` a set goes from 0 to 1 and the rest stays at 0; into `end` from 1 to 0, the rest at 1.
    coefficients = jnp.stack([moved, 1 - moved], axis=1)
    values = jax.lax.map(lambda each: loss(_mixed(start, end, each, indices)), coefficients.reshape(-1, sets.shape[1]))
    return LayerLines(t, values.reshape(coefficients.shape[:3]))


def _mixed(start: PyTree, end: PyTree, t: Array, indices: tuple[int, ...]) -> PyTree:
    of_each = iter(indices)
    return jax.tree.map(lambda a, b: mix(a, b, t[next(of_each)]) if is_weight(a) else a, start, end)


def _indices(params: PyTree, layers: PyTree[int] | None) -> tuple[tuple[int, ...], int]:
    """The layer, from 0 on, of every floating-point array in the tree's order, and how many layers there are."""
    tree = layers_by_module(params) if layers is None else layers
    n_layers = count_layers(tree)
    by_path = {jax.tree_util.keystr(path): number for path, number in jax.tree_util.tree_leaves_with_path(tree)}
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if is_weight(leaf):
            name = jax.tree_util.keystr(path)
            if name not in by_path:
                raise ValueError(f"every floating-point array must be in a layer, {name or 'the parameter'} is in none")
            found.append(by_path[name] - 1)
    return tuple(found), n_layers
