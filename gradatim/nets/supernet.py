"""Networks that hold all architectures of a space: one of cells with mixed operations on their edges, one of widths and kernels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .entangled import EntangledLinear, drawn_at_once
from .entangled_conv import EntangledConv, Mixing
from .search_space import Choice, Probabilities, SearchSpace

KERNELS = (3, 5)
"Of the operations on an edge: both kernels of a kind are entangled."
KINDS = ("sep", "dil")
"Separable: depthwise and pointwise, twice if not said otherwise; dilated: once, every second pixel."
OPERATIONS = ("sep3", "sep5", "dil3", "dil5")
EDGES = ("input to first", "input to second", "first to second")


def normalised(x: Float[Array, "channels height width"], n_groups: int, eps: float = 1e-5) -> Float[Array, "channels height width"]:
    """Groups of channels brought to mean 0 and variance 1 over space, without scale or shift (Wu & He, arXiv:1803.08494)."""
    groups = x.reshape(n_groups, -1)
    centred = groups - groups.mean(1, keepdims=True)
    return (centred * jax.lax.rsqrt((centred**2).mean(1, keepdims=True) + eps)).reshape(x.shape)


class SeparableGroup(eqx.Module):
    """ReLU, depthwise and pointwise convolution, normalisation, some times over; all depthwise kernels are mixed by one distribution."""

    depthwise: tuple[EntangledConv, ...]
    pointwise: tuple[EntangledConv, ...]
    n_groups: int = eqx.field(static=True)

    def __init__(
        self,
        n_channels: int,
        kernels: Sequence[int],
        *,
        repeats: int,
        stride: int,
        dilation: int,
        n_groups: int,
        mixing: Mixing = "weights",
        key: PRNGKeyArray,
    ) -> None:
        keys = jax.random.split(key, (repeats, 2))
        self.depthwise = tuple(
            EntangledConv(
                (n_channels,),
                (1,),
                kernels,
                stride=stride if i == 0 else 1,
                dilation=dilation,
                is_depthwise=True,
                has_bias=False,
                is_row_wise=True,
                mixing=mixing,
                key=keys[i, 0],
            )
            for i in range(repeats)
        )
        self.pointwise = tuple(EntangledConv((n_channels,), (n_channels,), (1,), has_bias=False, key=keys[i, 1]) for i in range(repeats))
        self.n_groups = n_groups

    def __call__(
        self, x: Float[Array, "channels height width"], p_kernel: Float[Array, " kernels"]
    ) -> Float[Array, "channels rows columns"]:
        """The image through the mixed kernels."""
        p = p_kernel if len(self.depthwise[0].kernel_options) > 1 else None
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            x = normalised(pointwise(depthwise(jax.nn.relu(x), p_kernel=p)), self.n_groups)
        return x

    def subnet(self, option: int) -> eqx.nn.Sequential:
        """The plain layers of one kernel, their weights sliced."""
        parts: list[Any] = []
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            parts += [eqx.nn.Lambda(jax.nn.relu), depthwise.subnet(kernel=option), pointwise.subnet(), _normalisation(self.n_groups)]
        return eqx.nn.Sequential(parts)


class MixedOperation(eqx.Module):
    """One of several operations, in groups that own their weights; within a group the options are entangled.

        y = Σ_g P_g op_g(x; {pᵢ / P_g}),   P_g = Σ { pᵢ : i in group g }

    The authors' code has y = Σ_g op_g(x; {pᵢ}) (`has_shares=False`). Where a normalisation ends the operation, as here, that forgets how
    likely a group is, so that nothing tells the search which group to prefer: a share P_g in front of it does. Both are the same
    where p is certain, and a group of probability 0 gives 0.

    **Arguments:** `groups`: `op(x, p)` with p over the group's options; `counts`: how many options each group has; `has_shares`: may be a
    traced bool; `mixing`: `"outputs"` runs each option by itself and mixes what they give, the other way to build a supernet.

    >>> edge = MixedOperation([lambda x, p: x, lambda x, p: (p[0] + 3 * p[1]) * x], (1, 2))
    >>> float(edge(jnp.ones((1, 1, 1)), jnp.array([0.5, 0.25, 0.25]))[0, 0, 0])
    1.5
    """

    groups: tuple[Any, ...]
    has_shares: Any
    counts: tuple[int, ...] = eqx.field(static=True)
    mixing: Mixing = eqx.field(static=True)

    def __init__(self, groups: Sequence[Any], counts: Sequence[int], *, has_shares: Any = True, mixing: Mixing = "weights") -> None:
        if len(groups) != len(counts) or not groups:
            raise ValueError(f"counts must have an entry for each of the {len(groups)} groups, at least one, got {tuple(counts)}")
        self.groups, self.counts, self.has_shares, self.mixing = tuple(groups), tuple(counts), has_shares, mixing

    def __call__(
        self, x: Float[Array, "channels height width"], probabilities: Float[Array, " options"]
    ) -> Float[Array, "channels rows columns"]:
        """The mixed result."""
        if probabilities.shape != (sum(self.counts),):
            raise ValueError(f"probabilities must have shape ({sum(self.counts)},), got {probabilities.shape}")
        total, end = jnp.zeros(()), 0
        for group, count in zip(self.groups, self.counts, strict=True):
            start, end = end, end + count
            p = probabilities[start:end]
            if self.mixing == "outputs":
                for share, certain in zip(p, jnp.eye(count), strict=True):
                    total = total + share * group(x, certain)
                continue
            share = p.sum()
            is_positive = share > 0
            # Even odds in a group that is off: its result does not count, but its derivative by P_g does.
            within = jnp.where(is_positive, p / jnp.where(is_positive, share, 1.0), 1 / count)
            within, share = jnp.where(self.has_shares, within, p), jnp.where(self.has_shares, share, 1.0)
            total = total + share * group(x, within)
        return total

    def subnet(self, option: int) -> Any:
        """The plain operation at one position among all options."""
        for group, count in zip(self.groups, self.counts, strict=True):
            if option < count:
                return group.subnet(option)
            option -= count
        raise ValueError(f"option must lie below the {sum(self.counts)} of the operation, got {option + sum(self.counts)}")


class Cell(eqx.Module):
    """Two nodes behind a preprocessing: the first is fed by the input, the second by both; the output has the channels of both."""

    preprocess: EntangledConv
    edges: tuple[MixedOperation, ...]
    n_groups: int = eqx.field(static=True)

    def __init__(
        self,
        n_in: int,
        n_channels: int,
        operations: Sequence[str] | None,
        *,
        stride: int,
        n_groups: int,
        repeats: int = 2,
        has_shares: Any = True,
        mixing: Mixing = "weights",
        key: PRNGKeyArray,
    ) -> None:
        keys = jax.random.split(key, (4, 2))
        self.preprocess = EntangledConv((n_channels,), (n_in,), (1,), has_bias=False, key=keys[3, 0])
        edges = []
        for i in range(3):
            kinds = KINDS if operations is None else (operations[i][:3],)
            kernels = KERNELS if operations is None else (int(operations[i][3]),)
            groups = [
                SeparableGroup(
                    n_channels,
                    kernels,
                    repeats=repeats if kind == "sep" else 1,
                    # Only what comes from outside the cell is made smaller.
                    stride=stride if i < 2 else 1,
                    dilation=1 if kind == "sep" else 2,
                    n_groups=n_groups,
                    mixing="weights",
                    key=keys[i, j],
                )
                for j, kind in enumerate(kinds)
            ]
            edges.append(MixedOperation(groups, [len(kernels)] * len(groups), has_shares=has_shares, mixing=mixing))
        self.edges, self.n_groups = tuple(edges), n_groups

    def __call__(
        self, x: Float[Array, "channels height width"], probabilities: Sequence[Float[Array, " options"]]
    ) -> Float[Array, "twice rows columns"]:
        """Both nodes, one after the other."""
        x = normalised(self.preprocess(jax.nn.relu(x)), self.n_groups)
        return _wired(x, [functools.partial(edge, probabilities=p) for edge, p in zip(self.edges, probabilities, strict=True)])

    def subnet(self, options: Sequence[int]) -> PlainCell:
        """The cell with one operation an edge."""
        edges = tuple(edge.subnet(option) for edge, option in zip(self.edges, options, strict=True))
        start = eqx.nn.Sequential([eqx.nn.Lambda(jax.nn.relu), self.preprocess.subnet(), _normalisation(self.n_groups)])
        return PlainCell(start, edges)


class PlainCell(eqx.Module):
    """A cell of plain layers."""

    preprocess: eqx.nn.Sequential
    edges: tuple[Any, ...]

    def __call__(self, x: Float[Array, "channels height width"], *, key: PRNGKeyArray | None = None) -> Float[Array, "twice rows columns"]:
        """Both nodes, one after the other."""
        del key
        return _wired(self.preprocess(x), self.edges)


def _wired(x: Array, edges: Sequence[Callable[[Array], Array]]) -> Array:
    first = edges[0](x)
    return jnp.concatenate([first, edges[1](x) + edges[2](first)])


def _normalisation(n_groups: int) -> eqx.nn.Lambda:
    return eqx.nn.Lambda(functools.partial(normalised, n_groups=n_groups))


class CellSupernet(eqx.Module):
    """Three cells, of which the first and the last halve the image, then pooling and two linear layers (the toy cell space).

    The operations of both reducing cells are one set of three choices among [`OPERATIONS`][gradatim.nets.OPERATIONS], those of the
    cell between them are another, unless they are given. Normalisation is by groups of channels of one image and there is no dropout,
    where the authors normalise batches and drop.

    **Arguments:** `n_in`: channels of the image, and its `side`; `n_classes`; `n_channels`: of a node in the first two cells, twice as many
    in the last; `hidden`: units before the last layer; `normal`: operations of the middle cell's edges, or None to search them;
    `n_groups`: of each normalisation; `repeats`: how often a separable operation is run over; `has_shares`, `mixing`: of
    [`MixedOperation`][gradatim.nets.MixedOperation]; `key`.

    >>> net = CellSupernet(1, 8, 10, n_channels=4, hidden=16, normal=("sep3", "sep3", "dil3"), n_groups=2, key=jax.random.key(0))
    >>> net.space.n_architectures, eqx.filter_eval_shape(net, jnp.zeros((1, 8, 8)), net.space.one_hot(jnp.zeros(3, int))).shape
    (64, (10,))
    >>> net.n_parameters((0, 0, 0)) < net.n_parameters((1, 1, 1))
    True
    """

    cells: tuple[Cell, ...]
    hidden: EntangledLinear
    readout: EntangledLinear
    space: SearchSpace = eqx.field(static=True)

    def __init__(
        self,
        n_in: int,
        side: int,
        n_classes: int,
        *,
        n_channels: int = 8,
        hidden: int = 64,
        normal: Sequence[str] | None = None,
        n_groups: int = 4,
        repeats: int = 2,
        has_shares: Any = True,
        mixing: Mixing = "weights",
        key: PRNGKeyArray,
    ) -> None:
        if normal is not None and (len(normal) != 3 or not set(normal) <= set(OPERATIONS)):
            raise ValueError(f"normal must be three of {', '.join(OPERATIONS)}, got {tuple(normal)}")
        if n_channels % n_groups:
            raise ValueError(f"n_groups must divide n_channels, {n_channels}, got {n_groups}")
        n = n_channels
        pooled = (side + 3) // 4 // 2
        if pooled < 1:
            raise ValueError(f"side must be at least 5 pixels, got {side}")

        def make(key: PRNGKeyArray) -> tuple[Any, ...]:
            keys = jax.random.split(key, 5)
            common: dict[str, Any] = {"n_groups": n_groups, "repeats": repeats, "has_shares": has_shares, "mixing": mixing}
            cells = (
                Cell(n_in, n, None, stride=2, key=keys[0], **common),
                Cell(2 * n, n, normal, stride=1, key=keys[1], **common),
                Cell(2 * n, 2 * n, None, stride=2, key=keys[2], **common),
            )
            linears = EntangledLinear([(hidden, 4 * n * pooled**2)], key=keys[3]), EntangledLinear([(n_classes, hidden)], key=keys[4])
            return cells, *linears

        self.cells, self.hidden, self.readout = drawn_at_once(make, key)
        choices = [Choice(f"reduce, {edge}", OPERATIONS) for edge in EDGES]
        if normal is None:
            choices += [Choice(f"normal, {edge}", OPERATIONS) for edge in EDGES]
        self.space = SearchSpace(tuple(choices))

    def __call__(self, image: Float[Array, "channels side side"], probabilities: Probabilities) -> Float[Array, " classes"]:
        """The logits of one image."""
        reduce = [probabilities[f"reduce, {edge}"] for edge in EDGES]
        fixed = jnp.ones(1)
        normal = [probabilities.get(f"normal, {edge}", fixed) for edge in EDGES]
        for cell, given in zip(self.cells, (reduce, normal, reduce), strict=True):
            image = cell(image, given)
        return self.readout(jax.nn.relu(self.hidden(_halved(image).reshape(-1))))

    def n_parameters(self, positions: Sequence[int]) -> int:
        """Of the network of an architecture alone, biases included."""
        return _size(eqx.filter_eval_shape(lambda net: net.subnet(positions), self))

    def subnet(self, positions: Sequence[int]) -> eqx.nn.Sequential:
        """The network of an architecture, of plain layers with sliced weights: `subnet(image)`."""
        self.space.decode(positions)
        reduce, normal = tuple(positions[:3]), tuple(positions[3:]) or (0, 0, 0)
        cells = [cell.subnet(options) for cell, options in zip(self.cells, (reduce, normal, reduce), strict=True)]
        end = [eqx.nn.Lambda(_halved), eqx.nn.Lambda(jnp.ravel), self.hidden.subnet(0), eqx.nn.Lambda(jax.nn.relu), self.readout.subnet(0)]
        return eqx.nn.Sequential([*cells, *end])


class MacroSupernet(eqx.Module):
    """Convolutions of searchable width and kernel, each followed by ReLU and pooling by two, and a linear layer (a small macro space).

    Layer l's outputs and layer l+1's inputs are one choice, and use one distribution.

    **Arguments:** `n_in`: channels of the image, and its `side`; `n_classes`; `widths`: options of each layer; `kernels`: of each
    layer, odd; `mixing`, `is_row_wise`: of [`EntangledConv`][gradatim.nets.EntangledConv]; `key`.

    >>> net = MacroSupernet(1, 8, 10, widths=((2, 4), (4, 8)), kernels=((1, 3), (3, 5)), key=jax.random.key(0))
    >>> net.space.n_architectures, net.n_parameters((0, 0, 0, 0)), net.n_parameters((1, 1, 1, 1))
    (16, 250, 1178)
    """

    convolutions: tuple[EntangledConv, ...]
    readout: EntangledLinear
    space: SearchSpace = eqx.field(static=True)

    def __init__(
        self,
        n_in: int,
        side: int,
        n_classes: int,
        *,
        widths: Sequence[Sequence[int]] = ((2, 4, 8), (4, 8, 16)),
        kernels: Sequence[Sequence[int]] = ((1, 3, 5), (1, 3, 5)),
        mixing: Mixing = "weights",
        is_row_wise: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        if len(widths) != len(kernels) or not widths:
            raise ValueError(f"widths and kernels must have an entry for each layer, got {len(widths)} and {len(kernels)}")
        area = (side // 2 ** len(widths)) ** 2
        if not area:
            raise ValueError(f"side must be at least {2 ** len(widths)} pixels, got {side}")

        def make(key: PRNGKeyArray) -> tuple[Any, ...]:
            keys = jax.random.split(key, len(widths) + 1)
            before = [(n_in,), *widths[:-1]]
            convolutions = tuple(
                EntangledConv(out, n, kernel, mixing=mixing, is_row_wise=is_row_wise, key=k)
                for out, n, kernel, k in zip(widths, before, kernels, keys[:-1], strict=True)
            )
            return convolutions, EntangledLinear([(n_classes, n * area) for n in widths[-1]], key=keys[-1])

        self.convolutions, self.readout = drawn_at_once(make, key)
        choices = []
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True), start=1):
            choices += [Choice(f"width {i}", tuple(width)), Choice(f"kernel {i}", tuple(kernel))]
        self.space = SearchSpace(tuple(choices))

    def __call__(self, image: Float[Array, "channels side side"], probabilities: Probabilities) -> Float[Array, " classes"]:
        """The logits of one image."""
        before = None
        for i, convolution in enumerate(self.convolutions, start=1):
            width = probabilities[f"width {i}"]
            image = _halved(jax.nn.relu(convolution(image, width, before, probabilities[f"kernel {i}"])))
            before = width
        return self.readout(image.reshape(-1), before)

    def n_parameters(self, positions: Sequence[int]) -> int:
        """Of the network of an architecture alone, biases included."""
        return _size(eqx.filter_eval_shape(lambda net: net._layers(positions), self))

    def subnet(self, positions: Sequence[int]) -> eqx.nn.Sequential:
        """The network of an architecture, of plain layers with sliced weights: `subnet(image)`."""
        *convolutions, readout = self._layers(positions)
        parts: list[Any] = []
        for convolution in convolutions:
            parts += [convolution, eqx.nn.Lambda(jax.nn.relu), eqx.nn.Lambda(_halved)]
        return eqx.nn.Sequential([*parts, eqx.nn.Lambda(jnp.ravel), readout])

    def _layers(self, positions: Sequence[int]) -> list[Any]:
        self.space.decode(positions)
        layers, before = [], -1
        for i, convolution in enumerate(self.convolutions):
            layers.append(convolution.subnet(positions[2 * i], before, positions[2 * i + 1]))
            before = positions[2 * i]
        return [*layers, self.readout.subnet(before)]


def _size(layers: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(layers) if hasattr(leaf, "shape"))


def _halved(x: Float[Array, "channels height width"]) -> Float[Array, "channels rows columns"]:
    n, m = x.shape[1] // 2, x.shape[2] // 2
    return x[:, : 2 * n, : 2 * m].reshape(len(x), n, 2, m, 2).max((2, 4))
