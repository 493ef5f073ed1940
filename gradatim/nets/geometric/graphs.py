"""Graphs as padded arrays, sums over neighbours, and Laplacians (arXiv:2104.13478, Section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Aggregation = Literal["sum", "mean", "max"]
AGGREGATIONS = ("sum", "mean", "max")


class Graph(NamedTuple):
    """One graph, or several in one, their arrays filled up with rows that masks leave out; field names are those of jraph."""

    nodes: Float[Array, "n channels"]
    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]
    "An undirected edge is in both directions."
    edges: Float[Array, "edges edge_channels"] | None
    node_mask: Bool[Array, " n"]
    edge_mask: Bool[Array, " edges"]
    graph_id: Int[Array, " n"]
    "Of which graph a node is part."

    def with_nodes(self, nodes: Float[Array, "n other"]) -> Graph:
        """The same graph with other features."""
        return self._replace(nodes=nodes)


def graph_from_edges(
    pairs: Any, *, nodes: Any, edges: Any = None, directed: bool = False, n_nodes: int | None = None, n_edges: int | None = None
) -> Graph:
    """A graph from its edges, on the host.

    **Arguments:** `pairs`: `(edges, 2)`, senders and receivers; `nodes`: features; `edges`: features of edges; `directed`: otherwise each
    pair, with its features, is put in both directions; `n_nodes`, `n_edges`: the lengths to fill up to, edges counted in both directions:
    graphs of one size share a compiled program.

    **Raises:** `ValueError` for a node that does not exist, or a length that is too small.

    >>> triangle = graph_from_edges([(0, 1), (1, 2), (2, 0)], nodes=np.ones((3, 1)), n_nodes=5, n_edges=8)
    >>> int(triangle.node_mask.sum()), int(triangle.edge_mask.sum())
    (3, 6)
    """
    nodes = np.asarray(nodes)
    pairs = np.asarray(pairs, np.int32).reshape(-1, 2)
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < len(nodes)):
        raise ValueError(f"edges must join nodes between 0 and {len(nodes) - 1}, got {pairs.min()} and {pairs.max()}")
    features = None if edges is None else np.asarray(edges)
    if features is not None and len(features) != len(pairs):
        raise ValueError(f"edges must have features for each of {len(pairs)} pairs, got {len(features)}")
    if not directed:
        pairs = np.concatenate([pairs, pairs[:, ::-1]])
        features = None if features is None else np.concatenate([features, features])
    n = len(nodes) if n_nodes is None else n_nodes
    m = len(pairs) if n_edges is None else n_edges
    if n < len(nodes) or m < len(pairs):
        raise ValueError(f"n_nodes and n_edges must be at least {len(nodes)} and {len(pairs)}, got {n} and {m}")
    padded = np.zeros((m, 2), np.int32)
    padded[: len(pairs)] = pairs
    return _on_device(
        nodes=_filled(nodes, n),
        senders=padded[:, 0],
        receivers=padded[:, 1],
        edges=None if features is None else _filled(features, m),
        node_mask=np.arange(n) < len(nodes),
        edge_mask=np.arange(m) < len(pairs),
        graph_id=np.zeros(n, np.int32),
    )


def complete_graph(nodes: Any) -> Graph:
    """All pairs of different nodes, in both directions.

    >>> degrees(complete_graph(np.ones((4, 1)))).tolist()
    [3, 3, 3, 3]
    """
    n = len(nodes)
    pairs = [(u, v) for u in range(n) for v in range(u)]
    return graph_from_edges(np.array(pairs).reshape(-1, 2), nodes=nodes)


def joined(graphs: Sequence[Graph]) -> Graph:
    """Several graphs as one, without edges between them, told apart by `graph_id`; on the host.

    **Raises:** `ValueError` for none, or where only some have features of edges.

    >>> edge = graph_from_edges([(0, 1)], nodes=np.ones((2, 1)))
    >>> both = joined([edge, edge])
    >>> both.graph_id.tolist(), both.senders.tolist()
    ([0, 0, 1, 1], [0, 1, 2, 3])
    """
    if not graphs or len({graph.edges is None for graph in graphs}) != 1:
        raise ValueError("graphs must be at least one, and all or none with features of edges")
    starts = np.cumsum([0, *(len(graph.nodes) for graph in graphs)])
    ids = np.cumsum([0, *(int(np.max(graph.graph_id)) + 1 for graph in graphs)])

    def all_of(name: str, offsets: Any = None) -> Any:
        parts = [np.asarray(getattr(graph, name)) for graph in graphs]
        return np.concatenate(parts if offsets is None else [part + k for part, k in zip(parts, offsets, strict=False)])

    return _on_device(
        nodes=all_of("nodes"),
        senders=all_of("senders", starts),
        receivers=all_of("receivers", starts),
        edges=None if graphs[0].edges is None else all_of("edges"),
        node_mask=all_of("node_mask"),
        edge_mask=all_of("edge_mask"),
        graph_id=all_of("graph_id", ids),
    )


def permuted(graph: Graph, order: Int[np.ndarray, " n"]) -> Graph:
    """The same graph with its nodes in another order: node i of the new one was `order[i]`; on the host.

    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=np.array([[5.0], [6.0], [7.0]]))
    >>> turned = permuted(path, np.array([1, 2, 0]))
    >>> turned.nodes[:, 0].tolist(), degrees(turned).tolist()
    ([6.0, 7.0, 5.0], [2, 1, 1])
    """
    place = np.argsort(order)
    return _on_device(
        nodes=np.asarray(graph.nodes)[order],
        senders=place[np.asarray(graph.senders)].astype(np.int32),
        receivers=place[np.asarray(graph.receivers)].astype(np.int32),
        edges=graph.edges,
        node_mask=np.asarray(graph.node_mask)[order],
        edge_mask=graph.edge_mask,
        graph_id=np.asarray(graph.graph_id)[order],
    )


def aggregate(messages: Float[Array, "edges channels"], graph: Graph, how: Aggregation) -> Float[Array, "n channels"]:
    """Sum, mean or maximum of the messages that each node receives; zero where it receives none.

    **Raises:** `ValueError` for another word.

    >>> path = graph_from_edges([(0, 1), (2, 1)], nodes=np.zeros((3, 1)), directed=True)
    >>> [aggregate(jnp.array([[1.0], [5.0]]), path, how)[1, 0].item() for how in ("sum", "mean", "max")]
    [6.0, 3.0, 5.0]
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {how!r}")
    n, mask = len(graph.nodes), graph.edge_mask[:, None]
    if how == "max":
        # Not -inf: its difference to itself would spoil gradients.
        lowest = jnp.finfo(messages.dtype).min
        most = jax.ops.segment_max(jnp.where(mask, messages, lowest), graph.receivers, n)
        return jnp.where(degrees(graph)[:, None] > 0, most, 0)
    total = jax.ops.segment_sum(jnp.where(mask, messages, 0), graph.receivers, n)
    return total if how == "sum" else total / jnp.maximum(degrees(graph), 1)[:, None].astype(messages.dtype)


def edge_softmax(scores: Float[Array, "edges heads"], graph: Graph) -> Float[Array, "edges heads"]:
    """Positive weights of edges that sum to one at every node that receives any, zero on edges that are masked.

    >>> path = graph_from_edges([(0, 1), (2, 1)], nodes=np.zeros((3, 1)), directed=True)
    >>> edge_softmax(jnp.zeros((2, 1)), path)[:, 0].tolist()
    [0.5, 0.5]
    """
    n, mask = len(graph.nodes), graph.edge_mask[:, None]
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    # Shifted by the largest, without which large scores overflow; it has no share in the derivative.
    largest = jax.lax.stop_gradient(jax.ops.segment_max(scores, graph.receivers, n))
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, scores - largest[graph.receivers], 0)), 0)
    total = jax.ops.segment_sum(weights, graph.receivers, n)
    return weights / jnp.where(total > 0, total, 1)[graph.receivers]


def degrees(graph: Graph) -> Int[Array, " n"]:
    """How many messages each node receives.

    >>> degrees(graph_from_edges([(0, 1), (1, 2)], nodes=np.ones((3, 1)))).tolist()
    [1, 2, 1]
    """
    return jax.ops.segment_sum(graph.edge_mask.astype(jnp.int32), graph.receivers, len(graph.nodes))


def with_self_loops(graph: Graph) -> Graph:
    """Each node its own neighbour too, the loops behind the edges that there are.

    **Raises:** `ValueError` for a graph whose edges have features, for loops have none.

    >>> degrees(with_self_loops(graph_from_edges([(0, 1), (1, 2)], nodes=np.ones((3, 1))))).tolist()
    [2, 3, 2]
    """
    if graph.edges is not None:
        raise ValueError("a graph whose edges have features gets no loops, for these would have none")
    loops = jnp.arange(len(graph.nodes), dtype=graph.senders.dtype)
    return graph._replace(
        senders=jnp.concatenate([graph.senders, loops]),
        receivers=jnp.concatenate([graph.receivers, loops]),
        edge_mask=jnp.concatenate([graph.edge_mask, graph.node_mask]),
    )


def global_pool(graph: Graph, how: Aggregation = "sum", *, n_graphs: int = 1) -> Float[Array, "n_graphs channels"]:
    """Sum, mean or maximum over the nodes of each graph; zero for one without nodes.

    >>> edge, node = graph_from_edges([(0, 1)], nodes=np.ones((2, 1))), graph_from_edges([], nodes=np.ones((1, 1)))
    >>> global_pool(joined([edge, node]), "sum", n_graphs=2)[:, 0].tolist()
    [2.0, 1.0]
    """
    members = graph._replace(nodes=jnp.zeros((n_graphs, 0)), receivers=graph.graph_id, edge_mask=graph.node_mask)
    return aggregate(graph.nodes, members, how)


def adjacency(graph: Graph) -> Float[Array, "n n"]:
    """A_uv: how many edges go from v to u.

    >>> adjacency(graph_from_edges([(0, 1), (1, 2)], nodes=np.ones((3, 1), np.float32))).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    n = len(graph.nodes)
    return jnp.zeros((n, n), graph.nodes.dtype).at[graph.receivers, graph.senders].add(graph.edge_mask.astype(graph.nodes.dtype))


def laplacian(graph: Graph, kind: Literal["combinatorial", "symmetric", "random walk"] = "combinatorial") -> Float[Array, "n n"]:
    """D - A, or 1 - D^-½ A D^-½, or 1 - D⁻¹A, of an undirected graph; nodes without edges have rows of zeros.

    **Raises:** `ValueError` for another kind.

    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=np.ones((3, 1), np.float32))
    >>> laplacian(path).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]]
    """
    if kind not in ("combinatorial", "symmetric", "random walk"):
        raise ValueError(f"kind must be 'combinatorial', 'symmetric' or 'random walk', got {kind!r}")
    A = adjacency(graph)
    degree = A.sum(axis=1)
    if kind == "combinatorial":
        return jnp.diag(degree) - A
    inverse = jnp.where(degree > 0, 1 / jnp.where(degree > 0, degree, 1), 0)
    left, right = (inverse, jnp.ones_like(inverse)) if kind == "random walk" else (jnp.sqrt(inverse), jnp.sqrt(inverse))
    return jnp.diag((degree > 0).astype(A.dtype)) - left[:, None] * A * right[None]


class Eigenmaps(NamedTuple):
    """Eigenvalues in ascending order, and eigenvectors in columns: their signs, and bases of equal eigenvalues, are arbitrary."""

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]


def laplacian_eigenmaps(graph: Graph, k: int, kind: Literal["combinatorial", "symmetric"] = "symmetric") -> Eigenmaps:
    """The k smoothest eigenvectors of a Laplacian, as positions of the nodes.

    **Raises:** `ValueError` for k above the number of nodes.

    >>> ring = graph_from_edges([(u, (u + 1) % 12) for u in range(12)], nodes=np.ones((12, 1), np.float32))
    >>> print(", ".join(f"{abs(value):.2f}" for value in laplacian_eigenmaps(ring, 4, "combinatorial").values))  # 2 - 2 cos(2πk/12)
    0.00, 0.27, 0.27, 1.00
    """
    if not 1 <= k <= len(graph.nodes):
        raise ValueError(f"k must lie between 1 and the number of nodes, {len(graph.nodes)}, got {k}")
    values, vectors = jnp.linalg.eigh(laplacian(graph, kind))
    return Eigenmaps(values[:k], vectors[:, :k])


def random_walk_pe(graph: Graph, steps: int) -> Float[Array, "n steps"]:
    """How likely a walk along edges is back after 1 to `steps` steps, as positions of the nodes: the diagonals of (D⁻¹A)ᵏ.

    Unlike eigenvectors they have no signs to choose. Nodes without edges have zeros (Dwivedi et al., arXiv:2110.07875).

    **Raises:** `ValueError` for no steps.

    >>> triangle = graph_from_edges([(0, 1), (1, 2), (2, 0)], nodes=np.ones((3, 1)))
    >>> random_walk_pe(triangle, 3)[0].tolist()
    [0.0, 0.5, 0.25]
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    A = adjacency(graph)
    walk = A / jnp.maximum(A.sum(axis=1, keepdims=True), 1)
    powers = [walk]
    while len(powers) < steps:
        powers.append(powers[-1] @ walk)
    return jnp.stack([jnp.diagonal(power) for power in powers], axis=1)


def ring_encoding(n: int, frequencies: Sequence[int]) -> Float[np.ndarray, "n channels"]:
    """cos(2πku/n) and sin(2πku/n) for each k: sinusoidal positions, eigenvectors of a ring's Laplacian to 2 - 2 cos(2πk/n).

    >>> (ring_encoding(4, [1]).round(3) + 0.0).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    angles = 2 * np.pi * np.arange(n)[:, None] * np.asarray(frequencies)[None] / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(n, -1)


def _on_device(**arrays: Any) -> Graph:
    on_device: dict[str, Any] = {name: None if array is None else jnp.asarray(array) for name, array in arrays.items()}
    return Graph(**on_device)


def _filled(rows: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([rows, np.zeros((n - len(rows), *rows.shape[1:]), rows.dtype)])
