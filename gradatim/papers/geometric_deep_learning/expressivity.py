"""What networks on graphs can tell apart (C6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session, host_generator
from gradatim.nets.geometric import (
    GIN,
    DeepSets,
    Graph,
    GraphAttention,
    GraphConv,
    Linear2Tensor,
    MatrixProductBlock,
    adjacency,
    are_confused,
    are_confused_as_pairs,
    global_pool,
    graph_from_edges,
)

from .config import Symmetry
from .random_weights import drawn

FLAVOURS = ("convolution", "attention", "messages")
SEPARATED = 1e-5
"Relative difference from which two embeddings are different; equal ones differ by round-off in double precision."
MULTISETS = (((1.0, 1.0), (1.0,)), ((1.0, 2.0), (1.0, 1.0, 2.0, 2.0)))
"Pairs with one mean of whatever function."


def pairs_of_graphs() -> dict[str, tuple[Graph, Graph]]:
    """Four pairs of different graphs that colour refinement confuses, filled up to one size; the last is strongly regular."""
    hexagon, ring = _circle(6), _circle(10)
    cells = [(i, j) for i in range(4) for j in range(4)]
    steps = {(1, 0), (0, 1), (1, 1)}
    rook = [(a, b) for a in cells for b in cells if a < b and (a[0] == b[0] or a[1] == b[1])]
    shrikhande = [(a, ((a[0] + i) % 4, (a[1] + j) % 4)) for a in cells for i, j in steps]
    of = {
        "two triangles, hexagon": ([*_circle(3), *((u + 3, v + 3) for u, v in _circle(3))], hexagon),
        "decalin, bicyclopentyl": ([*ring, (0, 5)], [*_circle(5), *((u + 5, v + 5) for u, v in _circle(5)), (0, 5)]),
        "skips of 2, of 3": tuple([*_circle(41), *((u, (u + skip) % 41) for u in range(41))] for skip in (2, 3)),
        "rook, Shrikhande": tuple([(4 * a[0] + a[1], 4 * b[0] + b[1]) for a, b in edges] for edges in (rook, shrikhande)),
    }
    return {name: (_graph(a), _graph(b)) for name, (a, b) in of.items()}


def _circle(n: int) -> list[tuple[int, int]]:
    return [(u, (u + 1) % n) for u in range(n)]


def _graph(edges: Any) -> Graph:
    return graph_from_edges(edges, nodes=np.ones((int(np.max(edges)) + 1, 1)), n_nodes=41, n_edges=164)


def expressivity(config: Symmetry, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Random networks of every kind on every pair."""
    pairs = pairs_of_graphs()
    graphs = [graph for pair in pairs.values() for graph in pair]
    stacked = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *graphs)
    random = host_generator(jax.random.fold_in(session.key, 21))
    nets = [_networks(config.channels, random) for _ in range(config.seeds)]
    stacked_nets = jax.tree.map(lambda *leaves: jnp.stack(leaves) if eqx.is_array(leaves[0]) else leaves[0], *nets)

    @eqx.filter_jit
    def embed(nets: Any, graphs: Any) -> Any:
        def of(net: Any) -> Any:
            return jax.vmap(lambda graph: embeddings(net, graph))(graphs), sums_and_means(net)

        return eqx.filter_vmap(of)(nets)

    embedded, multisets = session.once("embeddings of graphs", lambda: jax.tree.map(np.asarray, embed(stacked_nets, stacked)))
    names = list(embedded)
    difference = np.stack([_relative(embedded[name][:, 0::2], embedded[name][:, 1::2]) for name in names])
    kinds = {name: i for i, name in enumerate(names)}
    by_messages = difference[[kinds[name] for name in FLAVOURS]]
    separated = (difference[kinds["products"]] > SEPARATED).all(axis=0)
    sums, means = (np.stack([_relative(a, b) for a, b in multisets[pool]]) for pool in ("sum", "mean"))
    confused = [(are_confused(*pair), are_confused_as_pairs(*pair)) for pair in pairs.values()]
    session.note(
        "C6: colour refinement confuses "
        + ", ".join(f"{name} ({'also' if deep else 'not'} as pairs)" for name, (flat, deep) in zip(pairs, confused, strict=True) if flat)
        + f"; linear layers on pairs without products differ by at most {difference[kinds['linear on pairs']].max():.2g}; "
        f"multisets of one mean: averages differ by at most {means.max():.2g}, sums by at least {sums.min():.2g}"
    )
    measures = {
        "C6.unseparated_difference": Measure.exact(float(by_messages.max())),
        "C6.pairs_separated_by_tuples": Measure.exact(float(separated.sum())),
        "C6.sum_separation": Measure.exact(float(sums.min())),
    }
    data = xr.Dataset(
        {
            "difference": (("network", "seed", "pair"), difference, {"units": "1", "long_name": "relative difference of embeddings"}),
            "sum_difference": (("multiset", "seed"), sums, {"units": "1"}),
            "mean_difference": (("multiset", "seed"), means, {"units": "1"}),
            "is_confused": (("pair", "order"), np.array(confused, int), {"units": "1"}),
        },
        {"network": names, "pair": list(pairs), "order": ["colours", "colours of pairs"]},
    )
    return measures, data


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a - b).max(axis=-1) / np.maximum(np.abs(a), np.abs(b)).max(axis=-1)


def _networks(c: int, random: np.random.Generator) -> Any:
    key = jax.random.key(0)
    sizes = ((1, c), (c, c))
    makers: dict[str, Callable[[], Any]] = {
        "convolution": lambda: [GraphConv(n, m, normalisation="sum", key=key) for n, m in sizes],
        "attention": lambda: [GraphAttention(n, m, key=key) for n, m in sizes],
        "messages": lambda: [GIN(n, m, width=c, key=key) for n, m in sizes],
        "linear on pairs": lambda: [Linear2Tensor(2, c, key=key), Linear2Tensor(c, c, key=key)],
        "products": lambda: [
            Linear2Tensor(2, c, key=key), MatrixProductBlock(c, c, width=c, key=key), MatrixProductBlock(c, c, width=c, key=key),
        ],
        "element": lambda: eqx.nn.MLP(1, c, c, 1, key=key),
    }  # fmt: skip
    return {name: drawn(make, random) for name, make in makers.items()}


def embeddings(nets: Any, graph: Graph) -> dict[str, Any]:
    """Of one graph by every network: sums over its nodes, or over pairs and over the diagonal."""
    found = {}
    for name in FLAVOURS:
        features = graph.nodes
        for layer in nets[name]:
            features = jax.nn.silu(layer(graph.with_nodes(features)))
        found[name] = global_pool(graph.with_nodes(features))[0]
    start = jnp.stack([adjacency(graph), jnp.diag(graph.node_mask.astype(graph.nodes.dtype))], axis=-1)
    for name in ("linear on pairs", "products"):
        x = start
        for layer in nets[name]:
            x = jnp.tanh(normalised(layer(x, graph.node_mask), graph.node_mask))
        found[name] = jnp.concatenate([x.sum(axis=(0, 1)), jnp.einsum("iic->c", x)])
    return found


def normalised(x: Any, mask: Any) -> Any:
    """Each channel with mean zero and variance four over all pairs: a function close to linear would hardly tell them apart."""
    inside = (mask[:, None] & mask[None])[..., None]
    count = inside.sum()
    centred = jnp.where(inside, x - (x.sum(axis=(0, 1)) / count)[None, None], 0)
    return 2 * centred / jnp.sqrt((centred**2).sum(axis=(0, 1)) / count + 1e-6)[None, None]


def sums_and_means(nets: Any) -> dict[str, Any]:
    """Embeddings of both multisets of each pair."""
    found = {}
    for pool in ("sum", "mean"):
        embed = DeepSets(nets["element"], lambda y: y, pool=pool)
        found[pool] = [tuple(embed(jnp.asarray(one)[:, None]) for one in pair) for pair in MULTISETS]
    return found
