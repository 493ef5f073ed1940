"""Three flavours of layers on graphs, each a case of the next (arXiv:2104.13478, Section 5.3).

    convolution         h_u = φ(x_u, ⊕_v c_uv ψ(x_v))            c_uv from the graph alone
    attention           h_u = φ(x_u, ⊕_v a(x_u, x_v) ψ(x_v))     a a softmax over neighbours
    message passing     h_u = φ(x_u, ⊕_v ψ(x_u, x_v, e_uv))

None of them tells apart what colour refinement confuses, however its weights are chosen
([`colour_refinement`][gradatim.nets.geometric.colour_refinement]). Each layer takes a [`Graph`][gradatim.nets.geometric.Graph] and
returns the new features of its nodes, without a non-linearity on top; rows of masked nodes mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .graphs import AGGREGATIONS, Aggregation, Graph, aggregate, degrees, edge_softmax, with_self_loops
from .weights import uniform

Normalisation = Literal["symmetric", "mean", "sum"]
Score = Literal["additive", "dot"]


class GraphConv(eqx.Module):
    """A convolution on a graph with loops at all nodes (Kipf and Welling, arXiv:1609.02907): h_u = b + Σ_v c_uv W x_v.

    The cheapest layer, and as good as any where neighbours agree. c_uv is 1/√(d_u d_v), 1/d_u or 1, where d counts the loop.

    **Arguments:** `n_in`, `n_out`: channels; `normalisation`: `"symmetric"`, `"mean"` or `"sum"`; `key`.

    **Raises:** `ValueError` for another normalisation.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=jnp.eye(3))
    >>> layer = GraphConv(3, 1, normalisation="mean", key=jax.random.key(0))
    >>> means = eqx.tree_at(lambda layer: layer.weight, layer, jnp.array([[0.0], [6.0], [0.0]]))  # how much of node 1 each one sees
    >>> means(path)[:, 0].round().tolist()
    [3.0, 2.0, 3.0]
    """

    weight: Float[Array, "n_in n_out"]
    bias: Float[Array, " n_out"]
    normalisation: Normalisation = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, normalisation: Normalisation = "symmetric", key: PRNGKeyArray) -> None:
        if normalisation not in ("symmetric", "mean", "sum"):
            raise ValueError(f"normalisation must be 'symmetric', 'mean' or 'sum', got {normalisation!r}")
        self.weight, self.bias = uniform(key, (n_in, n_out), fan_in=n_in), jnp.zeros(n_out)
        self.normalisation = normalisation

    def __call__(self, graph: Graph) -> Float[Array, "n n_out"]:
        """The new features."""
        graph = with_self_loops(graph._replace(edges=None))
        degree = jnp.maximum(degrees(graph), 1).astype(graph.nodes.dtype)[:, None]
        # Weights first: fewer numbers travel along edges if channels get fewer, and never more than come in or go out.
        narrow = self.weight.shape[0] > self.weight.shape[1]
        values = graph.nodes @ self.weight if narrow else graph.nodes
        if self.normalisation == "symmetric":
            values = values * jax.lax.rsqrt(degree)
        total = aggregate(values[graph.senders], graph, "sum")
        if self.normalisation != "sum":
            total = total * (jax.lax.rsqrt(degree) if self.normalisation == "symmetric" else 1 / degree)
        return (total if narrow else total @ self.weight) + self.bias[None]


class GraphAttention(eqx.Module):
    """Attention to neighbours and oneself, with one or several heads side by side (Veličković et al., arXiv:1710.10903).

        h_u = b + Σ_v a_uv W x_v,     a_uv = softmax_v s(x_u, x_v)
        s = LeakyReLU(p·W x_u + q·W x_v) ("additive"),   or   (Q x_u)·(K x_v)/√d ("dot")

    On a complete graph "dot" is a transformer's attention. With p = q = 0, or Q = 0, it is a convolution with means.

    **Arguments:** `n_in`, `n_out`: channels, of all heads together; `n_heads`: a divisor of `n_out`; `score`; `key`.

    **Raises:** `ValueError` for another score, or heads that do not divide the channels.

    >>> from gradatim.nets.geometric import complete_graph
    >>> layer = GraphAttention(2, 6, n_heads=3, score="dot", key=jax.random.key(0))
    >>> eqx.filter_jit(layer)(complete_graph(jnp.ones((4, 2)))).shape
    (4, 6)
    """

    weight: Float[Array, "n_in heads d"]
    receiving: Float[Array, "a heads d"]
    "p, or Q."
    sending: Float[Array, "a heads d"]
    "q, or K."
    bias: Float[Array, " n_out"]
    score: Score = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, n_heads: int = 1, score: Score = "additive", key: PRNGKeyArray) -> None:
        if score not in ("additive", "dot"):
            raise ValueError(f"score must be 'additive' or 'dot', got {score!r}")
        if n_heads < 1 or n_out % n_heads:
            raise ValueError(f"n_heads must divide the channels that come out, {n_out}, got {n_heads}")
        keys, d = jax.random.split(key, 3), n_out // n_heads
        shape, fan_in = ((1, n_heads, d), d) if score == "additive" else ((n_in, n_heads, d), n_in)
        self.weight = uniform(keys[0], (n_in, n_heads, d), fan_in=n_in)
        self.receiving, self.sending = (uniform(k, shape, fan_in=fan_in) for k in keys[1:])
        self.bias, self.score = jnp.zeros(n_out), score

    def __call__(self, graph: Graph) -> Float[Array, "n n_out"]:
        """The new features."""
        graph = with_self_loops(graph._replace(edges=None))
        values = jnp.einsum("nc,chd->nhd", graph.nodes, self.weight)
        if self.score == "additive":
            receiving, sending = (jnp.einsum("nhd,hd->nh", values, p[0]) for p in (self.receiving, self.sending))
            scores = jax.nn.leaky_relu(receiving[graph.receivers] + sending[graph.senders], 0.2)
        else:
            queries, keys = (jnp.einsum("nc,chd->nhd", graph.nodes, p) for p in (self.receiving, self.sending))
            scores = jnp.einsum("ehd,ehd->eh", queries[graph.receivers], keys[graph.senders]) / queries.shape[-1] ** 0.5
        messages = edge_softmax(scores, graph)[..., None] * values[graph.senders]
        return aggregate(messages.reshape(len(messages), -1), graph, "sum") + self.bias[None]


class MessagePassing(eqx.Module):
    """Any function of both ends of an edge (Gilmer et al., arXiv:1704.01212): h_u = φ(x_u, ⊕_v ψ(x_u, x_v, e_uv)).

    **Arguments:** `message`: ψ of one edge, of the receiver's and the sender's features and those of the edge, or None; `update`: φ of one
    node; `aggregation`: `"sum"`, `"mean"` or `"max"`. [`perceptron_messages`][gradatim.nets.geometric.perceptron_messages] makes the
    usual one.

    **Raises:** `ValueError` for another aggregation.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=jnp.array([[0.0], [3.0], [1.0]]))
    >>> steepest = MessagePassing(lambda x, y, edge: y - x, lambda x, m: m, aggregation="max")  # the largest rise to a neighbour
    >>> steepest(path)[:, 0].tolist()
    [3.0, -2.0, 2.0]
    """

    message: Callable[[Any, Any, Any], Array]
    update: Callable[[Any, Array], Array]
    aggregation: Aggregation = eqx.field(static=True)

    def __init__(
        self, message: Callable[[Any, Any, Any], Array], update: Callable[[Any, Array], Array], *, aggregation: Aggregation = "sum"
    ) -> None:
        if aggregation not in AGGREGATIONS:
            raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {aggregation!r}")
        self.message, self.update, self.aggregation = message, update, aggregation

    def __call__(self, graph: Graph) -> Float[Array, "n n_out"]:
        """The new features."""
        messages = jax.vmap(self.message)(graph.nodes[graph.receivers], graph.nodes[graph.senders], graph.edges)
        return jax.vmap(self.update)(graph.nodes, aggregate(messages, graph, self.aggregation))


class Perceptron(eqx.Module):
    """Affine, ReLU, affine, of several vectors side by side, of which any may be None."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear

    def __init__(self, n_in: int, width: int, n_out: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(n_in, width, key=keys[0]), eqx.nn.Linear(width, n_out, key=keys[1])

    def __call__(self, *parts: Any) -> Float[Array, " n_out"]:
        """The output for one set of vectors."""
        return self.last(jax.nn.relu(self.first(jnp.concatenate([part for part in parts if part is not None]))))


def perceptron_messages(
    n_in: int, n_out: int, *, n_edge: int = 0, width: int, aggregation: Aggregation = "sum", key: PRNGKeyArray
) -> MessagePassing:
    """[`MessagePassing`][gradatim.nets.geometric.MessagePassing] with `width` hidden units in ψ and in φ, and messages as wide.

    >>> from gradatim.nets.geometric import complete_graph
    >>> layer = perceptron_messages(2, 5, width=8, key=jax.random.key(0))
    >>> eqx.filter_jit(layer)(complete_graph(jnp.ones((4, 2)))).shape
    (4, 5)
    """
    keys = jax.random.split(key)
    message = Perceptron(2 * n_in + n_edge, width, width, key=keys[0])
    return MessagePassing(message, Perceptron(n_in + width, width, n_out, key=keys[1]), aggregation=aggregation)


class GIN(eqx.Module):
    """As strong as colour refinement, whose step it makes with an injective perceptron (Xu et al., arXiv:1810.00826):

        h_u = perceptron((1 + ε) x_u + Σ_v x_v)

    **Arguments:** `n_in`, `n_out`: channels; `width`: hidden units; `key`.

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> path = graph_from_edges([(0, 1), (1, 2)], nodes=jnp.ones((3, 1)))
    >>> end, middle, other_end = eqx.filter_jit(GIN(1, 2, width=8, key=jax.random.key(0)))(path)
    >>> bool((end == other_end).all()), bool((end == middle).all())
    (True, False)
    """

    perceptron: Perceptron
    epsilon: Float[Array, ""]

    def __init__(self, n_in: int, n_out: int, *, width: int, key: PRNGKeyArray) -> None:
        self.perceptron, self.epsilon = Perceptron(n_in, width, n_out, key=key), jnp.zeros(())

    def __call__(self, graph: Graph) -> Float[Array, "n n_out"]:
        """The new features."""
        total = aggregate(graph.nodes[graph.senders], graph, "sum")
        return jax.vmap(self.perceptron)((1 + self.epsilon) * graph.nodes + total)


class ChebConv(eqx.Module):
    """A polynomial of the Laplacian (Defferrard et al., arXiv:1606.09375): h = b + Σ_k T_k(L̃) x W_k,  L̃ = 2L/λ - 1.

    It reaches `degree` steps far, and no farther. L is 1 - D^-½ A D^-½, whose spectrum ends at λ ≤ 2.

    **Arguments:** `n_in`, `n_out`: channels; `degree`: at least 0; `largest`: λ: the polynomials explode if the spectrum goes beyond it;
    2 is always safe; `key`.

    **Raises:** `ValueError` for a negative degree, or a λ outside (0, 2].

    >>> from gradatim.nets.geometric import graph_from_edges
    >>> path = graph_from_edges([(0, 1), (1, 2), (2, 3)], nodes=jnp.eye(4)[:, :1])  # a signal at node 0 alone
    >>> (eqx.filter_jit(ChebConv(1, 1, degree=2, key=jax.random.key(0)))(path)[:, 0] != 0).tolist()
    [True, True, True, False]
    """

    weight: Float[Array, "terms n_in n_out"]
    bias: Float[Array, " n_out"]
    largest: float = eqx.field(static=True)

    def __init__(self, n_in: int, n_out: int, *, degree: int, largest: float = 2.0, key: PRNGKeyArray) -> None:
        if degree < 0:
            raise ValueError(f"degree must be at least 0, got {degree}")
        if not 0 < largest <= 2:
            raise ValueError(f"largest must lie in (0, 2], where the spectrum ends, got {largest}")
        self.weight = uniform(key, (degree + 1, n_in, n_out), fan_in=(degree + 1) * n_in)
        self.bias, self.largest = jnp.zeros(n_out), largest

    def __call__(self, graph: Graph) -> Float[Array, "n n_out"]:
        """The new features."""
        degree = degrees(graph)[:, None]
        root = jnp.where(degree > 0, jax.lax.rsqrt(jnp.maximum(degree, 1).astype(graph.nodes.dtype)), 0)

        def scaled(x: Array) -> Array:
            smoothed = root * aggregate((root * x)[graph.senders], graph, "sum")
            return 2 / self.largest * (jnp.where(degree > 0, x, 0) - smoothed) - x

        terms = [graph.nodes, scaled(graph.nodes)][: len(self.weight)]
        while len(terms) < len(self.weight):
            terms.append(2 * scaled(terms[-1]) - terms[-2])
        return jnp.einsum("knc,kco->no", jnp.stack(terms), self.weight) + self.bias[None]
