"""Message passing between points of space that commutes with motions (Satorras et al., arXiv:2102.09844; arXiv:2104.13478, Section 5.3)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .graph_layers import Perceptron
from .graphs import Graph, aggregate


class Cloud(NamedTuple):
    """New features and positions of all nodes."""

    features: Float[Array, "n n_out"]
    positions: Float[Array, "n dim"]


class EGNNLayer(eqx.Module):
    """Features unchanged by turns, reflections and shifts, positions that move along with them.

        m_uv = ψ(f_u, f_v, |x_u - x_v|², e_uv)
        f'_u = φ(f_u, Σ_v m_uv),     x'_u = x_u + (1/d_u) Σ_v (x_u - x_v) χ(m_uv)

    In any number of dimensions. Only squared distances enter: the distance itself has no derivative where two points meet. d_u, the number
    of neighbours, keeps steps the same size in clouds of any size; the book leaves it out.

    **Arguments:** `n_in`, `n_out`: features; `n_edge`: features of edges; `width`: hidden units, and of messages; `key`.

    >>> from gradatim.nets.geometric import complete_graph
    >>> layer = EGNNLayer(2, 4, width=8, key=jax.random.key(0))
    >>> features, positions = eqx.filter_jit(layer)(complete_graph(jnp.ones((5, 2))), jnp.arange(15.0).reshape(5, 3))
    >>> features.shape, positions.shape
    ((5, 4), (5, 3))
    """

    message: Perceptron
    update: Perceptron
    step: Perceptron

    def __init__(self, n_in: int, n_out: int, *, n_edge: int = 0, width: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 3)
        self.message = Perceptron(2 * n_in + 1 + n_edge, width, width, key=keys[0])
        self.update = Perceptron(n_in + width, width, n_out, key=keys[1])
        self.step = Perceptron(width, width, 1, key=keys[2])

    def __call__(self, graph: Graph, positions: Float[Array, "n dim"]) -> Cloud:
        """Features and positions after one round of messages along the edges."""
        u, v = graph.receivers, graph.senders
        apart = positions[u] - positions[v]
        squares = jnp.sum(apart**2, axis=1, keepdims=True)

        def message(*parts: Any) -> Array:
            return jax.nn.silu(self.message(*parts))

        messages = jax.vmap(message)(graph.nodes[u], graph.nodes[v], squares, graph.edges)
        steps = aggregate(apart * jax.vmap(self.step)(messages), graph, "mean")
        features = jax.vmap(self.update)(graph.nodes, aggregate(messages, graph, "sum"))
        return Cloud(features, positions + steps)
