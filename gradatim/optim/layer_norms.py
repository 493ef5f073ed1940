"""Layers, their groups and the dual norms in which their gradients are measured: what Scion and LANTON share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from gradatim.nets import MatrixAxes
from gradatim.numerics import dual_norm, nuclear_norm, nuclear_norm_by_quadrature, nuclear_norm_by_sketch, quadrature_probes
from gradatim.numerics.polar import check_name

Groups = Any
'A tree with a label for every leaf, or a function from the parameters to one. (Not "callable": equinox modules are.)'
NUCLEAR = ("quadrature", "newton_schulz", "svd", "sketch")
NORM_OF_GROUP = {"hidden": "rms_to_rms", "embed": "sign", "vector": "rms"}
"Scion's table."
_N_AXES = {"hidden": 2, "embed": 2, "vector": 1}


class DualNorm(NamedTuple):
    """How a group's layers are measured.

    **Fields:** `measure(array, random)`: the dual norm of one layer's gradient, a scalar; `n_axes`: the axes of one layer, counted from
    the end, those before them counting layers; None: a leaf is a layer; `draw(key, shapes)`: what is random in measuring layers of these
    shapes, drawn once for all of them and handed to `measure`, so that equal layers come out equal; None: the key itself.
    """

    measure: Callable[[Array, Any], Array]
    n_axes: int | None = None
    draw: Callable[[PRNGKeyArray, list[tuple[int, ...]]], Any] | None = None


def layer_dual_norms(nuclear: str = "quadrature") -> dict[str, DualNorm]:
    """‖G‖_* for the three groups of [`norm_groups`][gradatim.nets.norm_groups].

        "hidden": √(out/in) ‖G‖_nuc        "embed": Σ abs(Gᵢⱼ)        "vector": √d ‖G‖₂

    **Arguments:** `nuclear`: `"quadrature"` with eight probes (random, within a few per cent for gradient noise, 2 % of the work of
    Newton–Schulz at 1,024), `"newton_schulz"` (0.68 to 1.14 times the truth), `"svd"` (the truth), or `"sketch"` (the sixteen
    largest singular values; far too small where they do not fall off).

    **Raises:** `ValueError` for another name.

    >>> norms = layer_dual_norms("svd")
    >>> print(f"{norms['hidden'].measure(jnp.diag(jnp.array([3.0, 4.0])), jax.random.key(0)):.3f}")
    7.000
    """
    check_name("nuclear", nuclear, NUCLEAR)

    def hidden(gradient: Array, random: Array) -> Array:
        return math.sqrt(gradient.shape[-2] / gradient.shape[-1]) * _nuclear(gradient, nuclear, random)

    norms = {group: DualNorm(lambda g, key, norm=norm: dual_norm(g, norm), _N_AXES[group]) for group, norm in NORM_OF_GROUP.items()}
    return norms | {"hidden": DualNorm(hidden, 2, _probes if nuclear == "quadrature" else None)}


def _probes(key: PRNGKeyArray, shapes: list[tuple[int, ...]]) -> Array:
    return quadrature_probes(key, max(min(shape) for shape in shapes))


def _nuclear(matrix: Inexact[Array, "m n"], nuclear: str, random: Array) -> Float[Array, ""]:
    match nuclear:
        case "quadrature":
            return nuclear_norm_by_quadrature(matrix, probes=random)
        case "sketch":
            return nuclear_norm_by_sketch(matrix, key=random)
        case "svd":
            return nuclear_norm(matrix, method="svd")
    return nuclear_norm(matrix)


@dataclass(frozen=True)
class Layer:
    """A leaf of the parameters, or several layers stacked in it."""

    path: str
    group: str
    n_axes: int | None  # of one layer
    axes: MatrixAxes | None

    def fold(self, array: Array) -> Array:
        """(layers…, axes of one layer)."""
        return array if self.axes is None else self.axes.fold(array)

    def unfold(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Back to the leaf's shape."""
        return array if self.axes is None else self.axes.unfold(array, shape)

    def stack(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what there is one of for each layer."""
        folded = jax.eval_shape(self.fold, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
        return () if self.n_axes is None else folded[: len(folded) - self.n_axes]

    def scale(self, factors: Array, array: Array) -> Array:
        """An array of the leaf's shape, each layer times its factor."""
        folded = self.fold(array)
        factors = jnp.expand_dims(factors, range(factors.ndim - folded.ndim, 0)) if folded.ndim > factors.ndim else factors
        return self.unfold((factors * folded).astype(array.dtype), array.shape)


def layers_of(tree: Any, groups: Groups, axes: Any = None, n_axes: Mapping[str, int | None] = _N_AXES) -> tuple[list[Layer | None], Any]:
    """The layers of a tree's leaves, None for those that `optax.masked` has taken out, and the structure to flatten other trees by.

    **Raises:** `ValueError`, with the path, for a leaf without a group, a group that is not in `n_axes`, or too few axes for it;
    `TypeError` for a leaf that is not floating point.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_masked)
    labels = structure.flatten_up_to(groups(tree) if callable(groups) and not isinstance(groups, eqx.Module) else groups)
    every_axes = [None] * len(found) if axes is None else structure.flatten_up_to(axes)
    layers: list[Layer | None] = []
    for (path, leaf), group, matrix_axes in zip(found, labels, every_axes, strict=True):
        if _is_masked(leaf):
            layers.append(None)
            continue
        where = f"parameter {jax.tree_util.keystr(path)}" if path else "the parameter"
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"{where} must be real or complex floating point, got {dtype}; freeze it with optax.masked or eqx.partition")
        if not isinstance(group, str) or group not in n_axes:
            raise ValueError(f"{where} must have a group, one of {', '.join(n_axes)}, got {group!r}")
        layer = Layer(where, group, n_axes[group], matrix_axes if isinstance(matrix_axes, MatrixAxes) else None)
        if jnp.ndim(leaf) < (n_axes[group] or 0):
            raise ValueError(f"{where} must have {n_axes[group]} axes or more for the norm of {group!r}, got shape {jnp.shape(leaf)}")
        layers.append(layer)
    return layers, structure


def measure(layers: list[Layer | None], norms: Mapping[str, DualNorm], gradients: list[Any], key: PRNGKeyArray) -> list[Array | None]:
    """The dual norm of each layer in each leaf, single precision or wider; None where `optax.masked` has taken a leaf out."""
    folded = [None if layer is None else _wide(layer.fold(gradient)) for layer, gradient in zip(layers, gradients, strict=True)]
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for layer, array in zip(layers, folded, strict=True):
        if layer is not None and array is not None:
            shapes.setdefault(layer.group, []).append(array.shape[array.ndim - (array.ndim if layer.n_axes is None else layer.n_axes) :])
    draws = {group: norms[group].draw for group in shapes}
    random = {group: key if draw is None else draw(key, shapes[group]) for group, draw in draws.items()}

    def one(layer: Layer, array: Array) -> Array:
        norm = norms[layer.group].measure
        for _ in range(0 if layer.n_axes is None else array.ndim - layer.n_axes):
            norm = jax.vmap(norm, in_axes=(0, None))
        return norm(array, random[layer.group])

    return [None if layer is None or array is None else one(layer, array) for layer, array in zip(layers, folded, strict=True)]


def _wide(array: Array) -> Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _is_masked(node: object) -> bool:
    return isinstance(node, optax.MaskedNode)
