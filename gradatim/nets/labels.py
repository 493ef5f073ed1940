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

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import PyTree

from .parameters import LINEAR, MatrixAxes, Parameter, is_parameter, parameters_of

Classify = Callable[[str, Any], Any]
Selection = Any
"""A part of the model (a sub-module or an array of it), a function from the model to such a part, or a sequence of these."""


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

    def rule(parameter: Parameter) -> str | None:
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

    >>> small, large = (eqx.filter_eval_shape(eqx.nn.MLP, 4, 2, width, 2, key=jax.random.key(0)) for width in (8, 16))
    >>> [layer.weight for layer in label_by_growth(small, large).layers]
    ['vector', 'matrix', 'output']
    """
    ours, theirs = parameters_of(small), parameters_of(large)
    _check_same_paths([p.path for p in ours], [p.path for p in theirs], "small", "large")
    growing: dict[int, tuple[int, ...]] = {}
    for before, after in zip(ours, theirs, strict=True):
        if len(before.leaf.shape) != len(after.leaf.shape) or any(a > b for a, b in zip(before.leaf.shape, after.leaf.shape, strict=True)):
            raise ValueError(f"no dimension of {before.path} may shrink or vanish, got {before.leaf.shape} and {after.leaf.shape}")
        growing[before.index] = tuple(axis for axis, n in enumerate(before.leaf.shape) if n < after.leaf.shape[axis])
    if not any(growing.values()):
        raise ValueError("small and large must differ in width, got the same shapes for every parameter")
    chosen = _readout(small, readout)
    if readout is None and not chosen:
        narrowing = [p for p in ours if p.axes is not None and growing[p.index] and set(growing[p.index]) <= set(p.axes.reduction)]
        chosen = {p.index for p in narrowing[-1:]}

    def rule(parameter: Parameter) -> str:
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

    >>> groups = norm_groups(eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0)), readout=lambda net: net.layers[-1])
    >>> [(layer.weight, layer.bias) for layer in groups.layers]
    [('hidden', 'vector'), ('embed', 'vector')]
    """
    chosen = _readout(model, readout)

    def rule(parameter: Parameter) -> str | None:
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

    def rule(parameter: Parameter) -> str | None:
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
    parameters = [p for p in parameters_of(model) if given[p.path] == label]
    for p in parameters:
        _check_rank(p, label)
    return _tree(model, {p.index: (p.axes or LINEAR.of(len(p.leaf.shape))) for p in parameters})


def layer_indices(model: PyTree, layers: Sequence[Selection]) -> PyTree[int]:
    """The layer, 1 (nearest the input) to `len(layers)`, of every parameter; None for those in none.

    **Raises:** `ValueError` if there are no layers, if one holds no parameter, or if two hold the same, with its path.

    >>> net = eqx.nn.MLP(4, 2, 8, 1, key=jax.random.key(0))
    >>> [layer.weight for layer in layer_indices(net, net.layers).layers]
    [1, 2]
    """
    if not layers:
        raise ValueError("layers must hold at least one selection, got none")
    paths = {p.index: p.path for p in parameters_of(model)}
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

    >>> count_layers({"up": 1, "down": 2, "bias": 2, "scale": None})
    2
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

    >>> check_labels({"bias": jax.numpy.zeros(3)}, {"bias": "matrix"}, ("matrix", "vector"))
    Traceback (most recent call last):
    ValueError: ['bias'] must have two axes or more to be labelled 'matrix', got shape (3,)
    """
    given = _labels_by_path(model, labels)
    for parameter in parameters_of(model):
        _check_label(parameter, given[parameter.path], allowed, matrices)


def _readout(model: PyTree, selection: Selection | None) -> set[int]:
    parameters = parameters_of(model)
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
    parts = [leaf for leaf in jax.tree.leaves(selection) if is_parameter(leaf)]
    for leaf in parts:
        if id(leaf) not in places:
            raise ValueError(f"a selection must be part of the model, got an array of shape {leaf.shape} that is not in it")
    return {index for leaf in parts for index in places[id(leaf)]}


def _label(
    model: PyTree, classify: Classify | None, rule: Callable[[Parameter], Any], *, allowed: Collection[Any], matrices: Collection[Any]
) -> PyTree:
    labels = {}
    for parameter in parameters_of(model):
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


def _check_label(parameter: Parameter, label: Any, allowed: Collection[Any], matrices: Collection[Any]) -> None:
    if label not in allowed:
        raise ValueError(f"the label of {parameter.path} must be one of {', '.join(map(str, allowed))}, got {label!r}")
    if label in matrices:
        _check_rank(parameter, label)


def _check_rank(parameter: Parameter, label: Any) -> None:
    if len(parameter.leaf.shape) < 2:
        raise ValueError(f"{parameter.path} must have two axes or more to be labelled {label!r}, got shape {parameter.leaf.shape}")


def _labels_by_path(model: PyTree, labels: PyTree) -> dict[str, Any]:
    given = {jax.tree_util.keystr(path) or "the parameter": label for path, label in jax.tree_util.tree_leaves_with_path(labels)}
    _check_same_paths([p.path for p in parameters_of(model)], list(given), "model", "labels")
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
