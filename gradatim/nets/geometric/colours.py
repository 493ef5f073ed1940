"""Colour refinement: what message passing can tell apart (Weisfeiler and Leman; arXiv:2104.13478, Section 4.1 and 5.3). On the host.

    c'(u) = hash(c(u), {{c(v) : v a neighbour of u}})

until the number of colours no longer grows. Colours are shared by all graphs that are refined together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from .graphs import Graph


def colour_refinement(graphs: Sequence[Graph], *, max_steps: int | None = None) -> list[Int[np.ndarray, " n"]]:
    """Colours of the nodes of each graph, whose features are the first colours; masked nodes and edges are left out.

    Two graphs whose colours come in different numbers are different; equal numbers say nothing
    ([`are_confused`][gradatim.nets.geometric.are_confused]).

    **Arguments:** `max_steps`: by default as many as it takes.

    **Raises:** `ValueError` for no graphs.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=np.zeros((3, 1)))
    >>> colour_refinement([path])[0].tolist()
    [0, 1, 0]
    """
    if not graphs:
        raise ValueError("graphs must be at least one, got none")
    kept = [np.flatnonzero(np.asarray(graph.node_mask)) for graph in graphs]
    neighbours = [_neighbours(graph) for graph in graphs]
    first = [[tuple(np.asarray(graph.nodes)[u].tolist()) for u in nodes] for graph, nodes in zip(graphs, kept, strict=True)]

    def signature(k: int, colours: np.ndarray) -> list[Any]:
        of = dict(zip(kept[k].tolist(), colours.tolist(), strict=True))
        return [(of[u], tuple(sorted(of[v] for v in neighbours[k][u]))) for u in kept[k].tolist()]

    return _refined(first, signature, max_steps)


def are_confused(a: Graph, b: Graph) -> bool:
    """Whether colour refinement gives both graphs the same colours, each as often: then no message passing tells them apart.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> hexagon = graph_from_edges([(u, (u + 1) % 6) for u in range(6)], nodes=np.ones((6, 1)))
    >>> triangles = graph_from_edges([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)], nodes=np.ones((6, 1)))
    >>> are_confused(hexagon, triangles)
    True
    """
    return _equal(*colour_refinement([a, b]))


def are_confused_as_pairs(a: Graph, b: Graph) -> bool:
    """Whether refining the colours of pairs of nodes confuses both graphs, too: the third order of Weisfeiler and Leman.

        c'(u, v) = hash(c(u, v), {{(c(u, w), c(w, v)) : w}})

    It costs n³ a step, and still confuses strongly regular graphs of the same parameters.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> hexagon = graph_from_edges([(u, (u + 1) % 6) for u in range(6)], nodes=np.ones((6, 1)))
    >>> triangles = graph_from_edges([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)], nodes=np.ones((6, 1)))
    >>> are_confused_as_pairs(hexagon, triangles)
    False
    """
    graphs = (a, b)
    n_of = [int(np.asarray(graph.node_mask).sum()) for graph in graphs]
    first = []
    for graph, n in zip(graphs, n_of, strict=True):
        neighbours = _neighbours(graph)
        places = {u: i for i, u in enumerate(np.flatnonzero(np.asarray(graph.node_mask)).tolist())}
        kinds = np.eye(n, dtype=int)
        for u, around in neighbours.items():
            for v in around:
                kinds[places[u], places[v]] += 2
        first.append(kinds.ravel().tolist())

    def signature(k: int, colours: np.ndarray) -> list[Any]:
        c = colours.reshape(n_of[k], n_of[k])
        largest = int(colours.max()) + 1
        # One number for each pair of colours along the way, sorted to forget which way.
        ways = np.sort(c[:, :, None] * largest + c[None], axis=1)
        return [(largest, int(c[u, v]), ways[u, :, v].tobytes()) for u in range(n_of[k]) for v in range(n_of[k])]

    return _equal(*_refined(first, signature, None))


def _refined(first: list[list[Any]], signature: Callable[[int, np.ndarray], list[Any]], max_steps: int | None) -> list[np.ndarray]:
    colours = _numbered(first)
    n_colours, steps = len(np.unique(np.concatenate(colours))), 0
    while max_steps is None or steps < max_steps:
        finer = _numbered([signature(k, c) for k, c in enumerate(colours)])
        n_finer, steps = len(np.unique(np.concatenate(finer))), steps + 1
        if n_finer == n_colours:
            break
        colours, n_colours = finer, n_finer
    return colours


def _numbered(signatures: list[list[Any]]) -> list[np.ndarray]:
    numbers: dict[Any, int] = {}
    return [np.array([numbers.setdefault(one, len(numbers)) for one in part], int) for part in signatures]


def _neighbours(graph: Graph) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {int(u): [] for u in np.flatnonzero(np.asarray(graph.node_mask))}
    mask = np.asarray(graph.edge_mask)
    for u, v in zip(np.asarray(graph.receivers)[mask].tolist(), np.asarray(graph.senders)[mask].tolist(), strict=True):
        found[u].append(v)
    return found


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(np.sort(a), np.sort(b))
