"""Message passing between points of space that commutes with motions (Satorras et al., arXiv:2102.09844; arXiv:2104.13478, Section 5.3).

Tensors of higher order are e3nn-jax's; [`act_on_irreps`][gradatim.nets.geometric.act_on_irreps] and
[`irreps_of`][gradatim.nets.geometric.irreps_of] bring its networks before the measures of symmetry of this library.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .equivariance import Motion
from .graph_layers import Perceptron
from .graphs import Graph, aggregate
from .groups import Action, Group, Representation


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


@runtime_checkable
class Irreps(Protocol):
    """What is asked of `e3nn_jax.Irreps`, or of anything like it: the matrix D(R) of each orthogonal matrix R of space."""

    def D_from_matrix(self, R: Any, /) -> Any:
        """D(R)."""
        ...


def act_on_irreps(irreps: Irreps) -> Action:
    """How a [`Motion`][gradatim.nets.geometric.equivariance.Motion] acts on the arrays of e3nn-jax: by D(R) on the last axis, shifts not
    at all.

    With it [`equivariance_error`][gradatim.nets.geometric.equivariance_error] tries a network of e3nn-jax, as the function from one array
    to another: `lambda x: network(e3nn_jax.IrrepsArray(irreps, x)).array`.

    **Arguments:** `irreps`: as `e3nn_jax.Irreps("2x0e + 1o")`, which this library does not install.

    >>> class Vectors:  # e3nn_jax.Irreps("1o")
    ...     D_from_matrix = staticmethod(lambda R: R)
    >>> act_on_irreps(Vectors())(Motion(np.diag([1.0, -1.0, 1.0]), np.ones(3)), np.array([1.0, 2.0, 3.0])).tolist()
    [1.0, -2.0, 3.0]
    """

    def act(motion: Motion, x: Any) -> Any:
        return x @ np.asarray(irreps.D_from_matrix(motion.turn), x.dtype).T

    return act


def irreps_of(group: Group, irreps: Irreps) -> Representation:
    """The same for the elements of a finite group of space alone, such as the symmetries of a cube: a representation of that group.

    **Raises:** `ValueError` for a group of another dimension, or matrices that do not multiply as its elements.

    >>> from gradatim.nets.geometric import intertwiner_basis, octahedral
    >>> class Vectors:  # e3nn_jax.Irreps("1o")
    ...     D_from_matrix = staticmethod(lambda R: R)
    >>> vectors = irreps_of(octahedral(), Vectors())
    >>> len(intertwiner_basis(vectors, vectors))  # multiples of the identity
    1
    """
    if group.dim != 3:
        raise ValueError(f"group must act on space, of dimension 3, got {group.name} of dimension {group.dim}")
    # Single precision's round-off, which e3nn has by default, is within what a representation may be off by.
    return Representation(str(irreps), group, np.stack([np.asarray(irreps.D_from_matrix(R), np.float64) for R in group.matrices]))
