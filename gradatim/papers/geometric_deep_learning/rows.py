"""The rows of the table: a layer for each domain, with its symmetry, and the same layer broken on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import numpy as np

from gradatim.nets.geometric import (
    Action,
    Cloud,
    CyclicConv,
    DeepSets,
    EGNNLayer,
    GraphAttention,
    GraphConv,
    Group,
    GroupConv,
    GroupLift,
    GroupPool,
    Linear2Tensor,
    Representation,
    SetAttention,
    SetLinear,
    SetTransformerBlock,
    act_on_grid,
    act_on_maps,
    complete_graph,
    cyclic,
    dihedral,
    graph_from_edges,
    mirror,
    perceptron_messages,
    permuted,
    random_motions,
    random_permutations,
    unchanged,
)

from .config import Symmetry
from .random_weights import drawn

COMPLEMENT = np.eye(4)[::-1]
"Of the bases A, C, G and T."


@dataclass(frozen=True)
class Row:
    """A network, an input, a symmetry, and how to spoil it."""

    name: str
    symmetry: str
    net: Any
    x: Any
    elements: Group | Sequence[Any]
    act_in: Action
    act_out: Action
    spoil: Callable[[Any], Any]
    "What the broken layer does first: inputs are weighted by where they are, on the host."
    call: Callable[[Any, Any], Any] = lambda net, x: net(x)


class Turned(eqx.Module):
    """Maps of all turns after the first layer, and after the second."""

    lift: GroupLift
    conv: GroupConv

    def __call__(self, x: Any) -> Any:
        """Both."""
        lifted = self.lift(x)
        return lifted, self.conv(jax.nn.relu(lifted))


class Pooled(eqx.Module):
    """An invariant of images."""

    maps: Turned
    pool: GroupPool

    def __call__(self, x: Any) -> Any:
        """Of one."""
        return self.pool(self.maps(x)[1]).mean(axis=(0, 1))


def table_rows(config: Symmetry, random: np.random.Generator, key: jax.Array) -> list[Row]:
    """All rows but those of surfaces."""
    return [
        *_grid_rows(config, random),
        *_set_rows(config, random, key),
        *_graph_rows(config, random, key),
        _cloud_row(config, random, key),
    ]


def _grid_rows(config: Symmetry, random: np.random.Generator) -> list[Row]:
    c, side, key = config.channels, config.side, jax.random.key(0)

    def turned(group: Group) -> Turned:
        def make() -> Turned:
            return Turned(GroupLift(1, c, group=group, key=key), GroupConv(c, c, group=group, key=key))

        return drawn(make, random)

    c4, d4, z2 = cyclic(4), dihedral(4), mirror()
    maps, on_line = act_on_maps(c4), act_on_grid(z2)
    bases = Representation("complement", z2, np.stack([np.eye(4), COMPLEMENT]))
    strand = drawn(lambda: GroupLift(4, c, group=z2, channels=bases, key=key), random)
    return [
        Row(
            "circular convolution", "shifts", drawn(lambda: CyclicConv(c, c, size=3, key=key), random), random.normal(size=(8, c)),
            range(8), _roll, _roll, _by_place,
        ),
        Row(
            "group convolution, maps", "C4", turned(c4), random.normal(size=(side, side, 1)), c4, act_on_grid(c4),
            lambda g, y: tuple(maps(g, part) for part in y), _by_place,
        ),
        Row(
            "group convolution, pooled", "D4", Pooled(turned(d4), GroupPool(d4)), random.normal(size=(side + 1, side + 1, 1)), d4,
            act_on_grid(d4), unchanged, _by_place,
        ),
        Row(
            "strands of DNA", "reverse complement", strand, random.normal(size=(12, 4)), z2, lambda g, x: bases(g, on_line(g, x)),
            act_on_maps(z2), _by_place,
        ),
    ]  # fmt: skip


def _set_rows(config: Symmetry, random: np.random.Generator, key: jax.Array) -> list[Row]:
    c, n, first = config.channels, config.things, jax.random.key(0)
    orders = random_permutations(key, config.sampled, size=n)
    x = random.normal(size=(n, c))
    linear = drawn(lambda: (SetLinear(c, c, key=first), SetLinear(c, c, key=first)), random)
    weights = drawn(lambda: (eqx.nn.Linear(c, c, key=first), eqx.nn.Linear(c, c, key=first)), random)

    def two(nets: Any, x: Any) -> Any:
        return nets[1](jax.nn.relu(nets[0](x)))

    def deep(nets: Any, x: Any) -> Any:
        return DeepSets(lambda one: jax.nn.relu(nets[0](one)), nets[1])(x)

    attention = drawn(lambda: SetAttention(c, c, n_heads=2, key=first), random)
    through = drawn(lambda: SetTransformerBlock(c, n_heads=2, n_points=3, key=first), random)
    pairs = drawn(lambda: Linear2Tensor(c, c, key=first), random)
    return [
        Row("linear on sets", "permutations", linear, x, orders, _reorder, _reorder, _by_place, two),
        Row("deep sets", "permutations", weights, x, orders, _reorder, unchanged, _by_place, deep),
        # What positions are for.
        Row("attention to all", "permutations", attention, x, orders, _reorder, _reorder, lambda x: x + np.sin(np.arange(n))[:, None]),
        Row("transformer through points", "permutations", through, x, orders, _reorder, _reorder, _by_place),
        Row("linear on pairs", "permutations", pairs, random.normal(size=(n, n, c)), orders, _reorder_pairs, _reorder_pairs, _by_place),
    ]


def _graph_rows(config: Symmetry, random: np.random.Generator, key: jax.Array) -> list[Row]:
    c, n, first = config.channels, config.things, jax.random.key(0)
    orders = random_permutations(key, config.sampled, size=n)
    # A ring with chords: nobody is alone.
    chords = [tuple(random.choice(n, 2, replace=False)) for _ in range(n)]
    pairs = sorted({tuple(sorted(map(int, pair))) for pair in [*chords, *((u, (u + 1) % n) for u in range(n))]})
    graph = graph_from_edges(pairs, nodes=random.normal(size=(n, c)))
    layers = {
        "graph convolution": lambda: GraphConv(c, c, key=first),
        "graph attention": lambda: GraphAttention(c, c, n_heads=2, key=first),
        "message passing": lambda: perceptron_messages(c, c, width=4 * c, key=first),
    }

    def spoil(graph: Any) -> Any:
        return graph._replace(nodes=_by_place(graph.nodes))

    return [
        Row(name, "permutations", drawn(make, random), graph, orders, lambda order, graph: permuted(graph, order), _reorder, spoil)
        for name, make in layers.items()
    ]


def _cloud_row(config: Symmetry, random: np.random.Generator, key: jax.Array) -> Row:
    c, n = config.channels, config.things
    layer = drawn(lambda: EGNNLayer(c, c, width=8 * c, key=jax.random.key(0)), random)
    x = (complete_graph(random.normal(size=(n, c))), random.normal(size=(n, 3)))

    def spoil(x: Any) -> Any:
        graph, positions = x
        return graph._replace(nodes=graph.nodes + positions[:, :1]), positions

    return Row(
        "points of space", "E(3)", layer, x, random_motions(key, config.sampled), lambda move, x: (x[0], move(x[1])),
        lambda move, y: Cloud(y.features, move(y.positions)), spoil, lambda net, x: net(*x),
    )  # fmt: skip


def _by_place(x: Any) -> Any:
    """Weighted from zero to four along the first axis."""
    return x * np.linspace(0, 4, len(x)).reshape(-1, *(1,) * (x.ndim - 1))


def _roll(shift: int, x: Any) -> Any:
    return np.roll(x, shift, axis=0)


def _reorder(order: np.ndarray, x: Any) -> Any:
    return x[order]


def _reorder_pairs(order: np.ndarray, x: Any) -> Any:
    return x[np.ix_(order, order)]
