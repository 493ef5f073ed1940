"""What each parameter of a model is, before any use of it: its path, what its module says of it, and its axes as a linear map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree

from gradatim.nets import cnn

READOUT_NAMES = frozenset({"readout", "lm_head"})
"Fields whose matrices are the read-out if none is selected."
ROUTER_NAMES = frozenset({"router"})
"Fields whose matrices choose between experts."


@dataclass(frozen=True)
class MatrixAxes:
    """Which axes of an array are the inputs of a linear map (summed over) and which its outputs; all others are a batch of maps.

    The fields mean what those of `optax.contrib.MuonDimensionNumbers` do; axes may count from the end.
    """

    reduction: tuple[int, ...]
    output: tuple[int, ...]

    def of(self, ndim: int) -> MatrixAxes:
        """The same axes, counted from the front of an array of `ndim` axes.

        **Raises:** `ValueError` for an axis that the array lacks, or one that is named twice.
        """
        axes = (*self.reduction, *self.output)
        if not self.reduction or not self.output or any(not -ndim <= axis < ndim for axis in axes):
            raise ValueError(f"reduction and output axes must be axes of an array of rank {ndim}, got {self}")
        if len({axis % ndim for axis in axes}) < len(axes):
            raise ValueError(f"no axis may be named twice, got {self} for rank {ndim}")
        return MatrixAxes(tuple(axis % ndim for axis in self.reduction), tuple(axis % ndim for axis in self.output))

    def fold(self, array: Inexact[Array, ...]) -> Inexact[Array, "batch out in"]:
        """The array as a batch of matrices, outputs first."""
        order, batch, (out, into) = self._layout(array.shape)
        return array.transpose(order).reshape(batch, out, into)

    def unfold(self, matrices: Inexact[Array, "batch out in"], shape: tuple[int, ...]) -> Inexact[Array, ...]:
        """The array of that shape whose `fold` these are."""
        order, _, _ = self._layout(shape)
        return matrices.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))

    def _layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int, tuple[int, int]]:
        axes = self.of(len(shape))
        batch = [axis for axis in range(len(shape)) if axis not in axes.reduction + axes.output]
        sizes = (math.prod(shape[axis] for axis in group) for group in (axes.output, axes.reduction))
        out, into = sizes
        return (*batch, *axes.output, *axes.reduction), math.prod(shape[axis] for axis in batch), (out, into)


Kind = MatrixAxes | Literal["embedding", "router", "vector", "readout"]
"What a module says of its arrays in `parameter_kinds`."
# equinox: (out, in), and (out, in, height, width).
LINEAR = MatrixAxes((-1,), (-2,))


@dataclass(frozen=True)
class Parameter:
    """One floating-point array of a model."""

    index: int  # among all leaves of the model
    path: str
    leaf: Any
    kind: str | None  # None: no rule knows it
    axes: MatrixAxes | None  # of a linear map, counted from the front
    named_readout: bool


def parameters_of(model: PyTree) -> list[Parameter]:
    """All floating-point arrays (or shapes of such) of a model, in the order of its leaves.

    **Raises:** `ValueError`, with the path, where declared axes do not fit the array.
    """
    found = []
    for index, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(model)):
        if not is_parameter(leaf):
            continue
        name = jax.tree_util.keystr(path) or "the parameter"
        names = {getattr(key, "name", getattr(key, "key", None)) for key in path}
        kind = _kind(*_owner(model, path), leaf)
        is_matrix = isinstance(kind, MatrixAxes)
        try:
            axes = kind.of(leaf.ndim) if is_matrix and not names & ROUTER_NAMES else None
        except ValueError as error:
            raise ValueError(f"{name} of shape {leaf.shape}: {error}") from None
        is_readout = kind == "readout" or (bool(names & READOUT_NAMES) and leaf.ndim > 1 and kind != "vector")
        word = ("router" if names & ROUTER_NAMES else "matrix") if is_matrix else kind
        found.append(Parameter(index, name, leaf, "matrix" if word == "readout" else word, axes, is_readout))
    return found


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf is a floating-point array, or the shape of one."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.issubdtype(leaf.dtype, jnp.inexact)
    return eqx.is_inexact_array(leaf)


def _owner(model: PyTree, path: Sequence[Any]) -> tuple[Any, str]:
    """The innermost module on the way to a leaf, and its field on that way."""
    node, owner, field = model, None, ""
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            if isinstance(node, eqx.Module):
                owner, field = node, key.name
            node = getattr(node, key.name)
        elif isinstance(key, jax.tree_util.SequenceKey):
            node = node[key.idx]
        elif isinstance(key, jax.tree_util.DictKey):
            node = node[key.key]
        else:
            return None, ""
    return owner, field


_NORMS = (eqx.nn.LayerNorm, eqx.nn.RMSNorm, eqx.nn.GroupNorm, eqx.nn.BatchNorm, eqx.nn.PReLU, cnn.GroupNorm)


def _kind(owner: Any, field: str, leaf: Any) -> Kind | None:
    declared = getattr(type(owner), "parameter_kinds", {})
    if field in declared:
        return declared[field]
    if isinstance(owner, eqx.nn.Linear):
        return LINEAR if field == "weight" else "vector"
    if isinstance(owner, eqx.nn.Conv | eqx.nn.ConvTranspose):
        inputs = range(-owner.num_spatial_dims - 1, 0)
        return MatrixAxes(tuple(inputs), (inputs[0] - 1,)) if field == "weight" else "vector"
    if isinstance(owner, cnn.Convolution):
        return MatrixAxes((-4, -3, -2), (-1,))
    if isinstance(owner, eqx.nn.Embedding):
        return "embedding"
    if isinstance(owner, _NORMS) or leaf.ndim < 2:
        return "vector"
    return None
