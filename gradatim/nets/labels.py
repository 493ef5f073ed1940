"""The role of every parameter of a model: which are matrices, vectors and read-outs, in which layer, under which norm.

Each function returns a tree of the model's structure with a label for every floating-point array and None elsewhere, as
`eqx.filter(model, eqx.is_inexact_array)` has it. The rules know equinox's layers and the house's own. A module of yours says what its
bare arrays are in a class attribute:

    class Experts(eqx.Module):
        parameter_kinds: ClassVar = {"up": MatrixAxes((-1,), (-2,)), "router": "router"}
        up: Float[Array, "expert hidden width"]
        router: Float[Array, "expert width"]

and what is said at the call, by `classify` or a selection, goes before every rule. Nothing is guessed: an array of two axes or more that
no rule knows is an error that names its path.

optax takes a callable for a function of the parameters, and equinox modules are often callable: hand a tree of labels over as
`optax.multi_transform(transforms, lambda _: labels)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradatim.nets import cnn

Classify = Callable[[str, Any], Any]
Selection = Any
"""A part of the model (a sub-module or an array of it), a function from the model to such a part, or a sequence of these."""

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

    def fold(self, array: Float[Array, ...]) -> Float[Array, "batch out in"]:
        """The array as a batch of matrices, outputs first."""
        order, batch, (out, into) = self._layout(array.shape)
        return array.transpose(order).reshape(batch, out, into)

    def unfold(self, matrices: Float[Array, "batch out in"], shape: tuple[int, ...]) -> Float[Array, ...]:
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
_LINEAR = MatrixAxes((-1,), (-2,))


def label_parameters(
    model: PyTree, classify: Classify | None = None, *, readout: Selection | None = None
) -> PyTree[Literal["matrix", "vector", "output"]]:
    """Matrix, vector or output: the label of every parameter, by the module that holds it.

    Weights of linear maps and convolutions are matrices; embeddings, norms, biases and routers vectors. A layer whose input has a fixed
    size (pixels, the first layer of an MLP) is a matrix by this rule, though only one of its dimensions grows with the width:
    [`label_by_growth`][gradatim.nets.label_by_growth] sees that.

    **Arguments:** `classify(path, array)`: a label, or None to leave it to the rules; `readout`: what is labelled "output" (`()` for
    nothing), by default the matrices in a field called `readout` or `lm_head`.

    **Raises:** `ValueError`, with the path, for an array without a role, a label that there is not, or a "matrix" with fewer than two
    axes.

    >>> labels = label_parameters(eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0)), readout=lambda net: net.layers[-1])
    >>> [(layer.weight, layer.bias) for layer in labels.layers]
    [('matrix', 'vector'), ('output', 'vector')]
    """
    chosen = _readout(model, readout)

    def rule(parameter: _Parameter) -> str | None:
        if parameter.index in chosen:
            return "output"
        return "matrix" if parameter.axes is not None else parameter.kind and "vector"

    return _label(model, classify, rule, allowed=("matrix", "vector", "output"), matrices=("matrix",))


def label_by_growth(
    small: PyTree, large: PyTree, *, classify: Classify | None = None, readout: Selection | None = None
) -> PyTree[Literal["matrix", "vector", "output"]]:
    """The labels of [`label_parameters`][gradatim.nets.label_parameters] from one model built at two widths, by what grows.

    Two dimensions that grow make a matrix, one or none a vector (Yang et al., *Tensor Programs V*, arXiv:2203.03466, and the base shapes
    of their package `mup`). The read-out is what is selected in `small`; else what a field called `readout` or `lm_head` holds; else
    the last linear map whose inputs grow and whose outputs do not. With tied embeddings there is none.

    **Arguments:** `small`, `large`: shapes are enough (`eqx.filter_eval_shape`); `classify`, `readout`: as there.

    **Raises:** `ValueError`, with the path, if the models differ in more than width, or a dimension shrinks, or none grows.
    """
    parameters, others = _parameters(small), _parameters(large)
    _check_same_paths([p.path for p in parameters], [p.path for p in others], "small", "large")
    growing: dict[int, tuple[int, ...]] = {}
    for before, after in zip(parameters, others, strict=True):
        if len(before.leaf.shape) != len(after.leaf.shape) or any(a > b for a, b in zip(before.leaf.shape, after.leaf.shape, strict=True)):
            raise ValueError(f"no dimension of {before.path} may shrink or vanish, got {before.leaf.shape} and {after.leaf.shape}")
        growing[before.index] = tuple(axis for axis, n in enumerate(before.leaf.shape) if n < after.leaf.shape[axis])
    if not any(growing.values()):
        raise ValueError("small and large must differ in width, got the same shapes for every parameter")
    chosen = _readout(small, readout)
    if readout is None and not chosen:
        narrowing = [p for p in parameters if p.axes is not None and growing[p.index] and set(growing[p.index]) <= set(p.axes.reduction)]
        chosen = {p.index for p in narrowing[-1:]}

    def rule(parameter: _Parameter) -> str:
        if parameter.index in chosen:
            return "output"
        return "matrix" if len(growing[parameter.index]) > 1 else "vector"

    return _label(small, classify, rule, allowed=("matrix", "vector", "output"), matrices=("matrix",))


def norm_groups(
    model: PyTree, *, classify: Classify | None = None, readout: Selection | None = None
) -> PyTree[Literal["hidden", "embed", "vector"]]:
    """The norm under which each parameter is measured: the table of Scion (Pethick et al., arXiv:2502.07529), which LANTON takes over.

    "hidden": linear maps and convolutions (spectral norm); "embed": embeddings, the read-out and routers (largest entry); "vector":
    norms and biases (root mean square).

    **Arguments:** `classify`, `readout`: as in [`label_parameters`][gradatim.nets.label_parameters], with these three labels.

    **Raises:** `ValueError`, with the path, for an array without a role, a label that there is not, or a "hidden" one with fewer than
    two axes.
    """
    chosen = _readout(model, readout)

    def rule(parameter: _Parameter) -> str | None:
        if parameter.index in chosen or parameter.kind in ("embedding", "router"):
            return "embed"
        return "hidden" if parameter.axes is not None else parameter.kind

    return _label(model, classify, rule, allowed=("hidden", "embed", "vector"), matrices=("hidden",))


def muon_roles(model: PyTree, *, classify: Classify | None = None, readout: Selection | None = None) -> PyTree[Literal["muon", "adam"]]:
    """Which parameters Muon orthogonalises: linear maps and convolutions; embeddings, read-out, routers, norms and biases go to Adam.

    Their orientation, batch axes of stacked layers and experts included, is in [`matrix_axes`][gradatim.nets.matrix_axes].

    **Arguments:** `classify`, `readout`: as in [`label_parameters`][gradatim.nets.label_parameters], with these two labels.

    **Raises:** `ValueError`, with the path, for an array without a role, a label that there is not, or "muon" with fewer than two axes.

    >>> roles = muon_roles(eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0)), readout=lambda net: net.layers[-1])
    >>> [(layer.weight, layer.bias) for layer in roles.layers]
    [('muon', 'adam'), ('adam', 'adam')]
    """
    chosen = _readout(model, readout)

    def rule(parameter: _Parameter) -> str | None:
        if parameter.axes is not None and parameter.index not in chosen:
            return "muon"
        return parameter.kind and "adam"

    return _label(model, classify, rule, allowed=("muon", "adam"), matrices=("muon",))


def matrix_axes(model: PyTree, labels: PyTree, label: str) -> PyTree[MatrixAxes]:
    """Inputs and outputs of every array with that label, counted from the front; None for all others.

    What the holding module says, and else (…, out, in) as in equinox: two axes at the end, a batch before them.

    **Raises:** `ValueError`, with the path, if the labels do not fit the model, or one with that label has fewer than two axes.

    >>> model = eqx.nn.Conv2d(3, 8, 3, key=jax.random.key(0))
    >>> matrix_axes(model, muon_roles(model), "muon").weight
    MatrixAxes(reduction=(1, 2, 3), output=(0,))
    """
    given = _labels_by_path(model, labels)
    parameters = [p for p in _parameters(model) if given[p.path] == label]
    for p in parameters:
        _check_rank(p, label)
    return _tree(model, {p.index: (p.axes or _LINEAR.of(len(p.leaf.shape))) for p in parameters})


def layer_indices(model: PyTree, layers: Sequence[Selection]) -> PyTree[int]:
    """The layer, 1 (nearest the input) to `len(layers)`, of every parameter; None for those in none.

    **Raises:** `ValueError` if there are no layers, if one holds no parameter, or if two hold the same, with its path.

    >>> net = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> [layer.weight for layer in layer_indices(net, net.layers).layers]
    [1, 2]
    """
    if not layers:
        raise ValueError("layers must hold at least one selection, got none")
    paths = {p.index: p.path for p in _parameters(model)}
    numbers: dict[int, int] = {}
    for number, selection in enumerate(layers, 1):
        selected = _selected(model, selection) & paths.keys()
        if not selected:
            raise ValueError(f"every layer must hold parameters, layer {number} of {len(layers)} holds none")
        for index in selected:
            if index in numbers:
                raise ValueError(f"a parameter must be in one layer, {paths[index]} is in {numbers[index]} and {number}")
            numbers[index] = number
    return _tree(model, numbers)


def count_layers(indices: PyTree) -> int:
    """The number of layers in a tree as [`layer_indices`][gradatim.nets.layer_indices] gives it.

    **Raises:** `ValueError` unless the indices are the integers 1, 2, … without a gap.
    """
    found: set[int] = set()
    for path, index in jax.tree_util.tree_leaves_with_path(indices):
        if isinstance(index, bool) or not isinstance(index, int) or index < 1:
            raise ValueError(f"layer indices must be integers from 1 on, got {index!r} at {jax.tree_util.keystr(path)}")
        found.add(index)
    if not found:
        raise ValueError("layer indices must hold at least one layer, got none")
    gaps = set(range(1, max(found) + 1)) - found
    if gaps:
        raise ValueError(f"layer indices must not leave a gap, got no parameter in layer {min(gaps)} of {max(found)}")
    return max(found)


def check_labels(model: PyTree, labels: PyTree, allowed: Collection[Any], *, matrices: Collection[Any] = ("matrix",)) -> None:
    """Checks that every parameter has a label, that no other leaf has one, that all are allowed and fit the array.

    **Arguments:** `model`: any tree; `labels`: a tree of its structure; `allowed`: labels that may occur; `matrices`: those among them
    that need two axes or more.

    **Raises:** `ValueError`, with the path of the first leaf that is wrong.
    """
    given = _labels_by_path(model, labels)
    for parameter in _parameters(model):
        _check_label(parameter, given[parameter.path], allowed, matrices)


@dataclass(frozen=True)
class _Parameter:
    index: int  # among all leaves of the model
    path: str
    leaf: Any
    kind: str | None  # None: no rule knows it
    axes: MatrixAxes | None  # of a linear map, counted from the front
    named_readout: bool


def _parameters(model: PyTree) -> list[_Parameter]:
    found = []
    for index, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(model)):
        if not _is_parameter(leaf):
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
        found.append(_Parameter(index, name, leaf, "matrix" if word == "readout" else word, axes, is_readout))
    return found


def _is_parameter(leaf: Any) -> bool:
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
        return _LINEAR if field == "weight" else "vector"
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


def _readout(model: PyTree, selection: Selection | None) -> set[int]:
    parameters = _parameters(model)
    if selection is None:
        return {p.index for p in parameters if p.named_readout}
    selected = _selected(model, selection)
    chosen = {p.index for p in parameters if p.index in selected and p.leaf.ndim > 1 and p.kind != "vector"}
    if not chosen and not _is_empty(selection):
        raise ValueError("readout must select a parameter with two axes or more, got a selection without one")
    return chosen


def _is_empty(selection: Selection) -> bool:
    return isinstance(selection, tuple | list) and not selection


class _Leaf:
    def __init__(self, index: int) -> None:
        self.index = index


def _selected(model: PyTree, selection: Selection) -> set[int]:
    """Indices, among all leaves of the model, of what is selected."""
    if isinstance(selection, tuple | list):
        return set().union(*(_selected(model, part) for part in selection))
    leaves, structure = jax.tree.flatten(model)
    if callable(selection) and not isinstance(selection, eqx.Module):
        numbered = structure.unflatten([_Leaf(index) for index in range(len(leaves))])
        picked = jax.tree.leaves(selection(numbered))
        if not all(isinstance(leaf, _Leaf) for leaf in picked):
            raise ValueError("a selection must return parts of the model it is given, got something else among them")
        return {leaf.index for leaf in picked}
    places: dict[int, list[int]] = {}
    for index, leaf in enumerate(leaves):
        places.setdefault(id(leaf), []).append(index)
    parts = [leaf for leaf in jax.tree.leaves(selection) if _is_parameter(leaf)]
    for leaf in parts:
        if id(leaf) not in places:
            raise ValueError(f"a selection must be part of the model, got an array of shape {leaf.shape} that is not in it")
    return {index for leaf in parts for index in places[id(leaf)]}


def _label(
    model: PyTree, classify: Classify | None, rule: Callable[[_Parameter], Any], *, allowed: Collection[Any], matrices: Collection[Any]
) -> PyTree:
    labels = {}
    for parameter in _parameters(model):
        label = None if classify is None else classify(parameter.path, parameter.leaf)
        label = rule(parameter) if label is None else label
        if label is None:
            raise ValueError(
                f"no rule gives {parameter.path} of shape {parameter.leaf.shape} a role: declare it in the parameter_kinds "
                "of its module, or label it with classify"
            )
        _check_label(parameter, label, allowed, matrices)
        labels[parameter.index] = label
    return _tree(model, labels)


def _check_label(parameter: _Parameter, label: Any, allowed: Collection[Any], matrices: Collection[Any]) -> None:
    if label not in allowed:
        raise ValueError(f"the label of {parameter.path} must be one of {', '.join(map(str, allowed))}, got {label!r}")
    if label in matrices:
        _check_rank(parameter, label)


def _check_rank(parameter: _Parameter, label: Any) -> None:
    if len(parameter.leaf.shape) < 2:
        raise ValueError(f"{parameter.path} must have two axes or more to be labelled {label!r}, got shape {parameter.leaf.shape}")


def _labels_by_path(model: PyTree, labels: PyTree) -> dict[str, Any]:
    given = {jax.tree_util.keystr(path) or "the parameter": label for path, label in jax.tree_util.tree_leaves_with_path(labels)}
    _check_same_paths([p.path for p in _parameters(model)], list(given), "model", "labels")
    return given


def _check_same_paths(ours: list[str], theirs: list[str], name: str, other: str) -> None:
    for path in ours:
        if path not in theirs:
            raise ValueError(f"{name} and {other} must have one structure, {path} is missing in {other}")
    for path in theirs:
        if path not in ours:
            raise ValueError(f"{name} and {other} must have one structure, {path} of {other} is no parameter of {name}")


def _tree(model: PyTree, labels: dict[int, Any]) -> PyTree:
    leaves, structure = jax.tree.flatten(model)
    return structure.unflatten([labels.get(index) for index in range(len(leaves))])
