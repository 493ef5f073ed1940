"""Graph layers of jraph 0.0.6.dev0, on the weights of ours: seconds as JSON; `--values` prints what they give, and what e3nn-jax 0.21.0
makes of turned points.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Callable
from typing import Any

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import jraph
import neighbours
import numpy as np
import timing

NAME = f"jraph {importlib.metadata.version('jraph')}"


def convolution(weights: Any, graph: jraph.GraphsTuple) -> Any:
    """Kipf and Welling's."""
    layer = jraph.GraphConvolution(lambda nodes: nodes @ weights["weight"], add_self_edges=True)
    return layer(graph).nodes + weights["bias"]


def attention(weights: Any, graph: jraph.GraphsTuple) -> Any:
    """Veličković's, on a graph whose loops it wants given."""

    def logits(sent: Any, received: Any, edges: Any) -> Any:
        del edges
        scores = (sent * weights["sending"]).sum(axis=-1, keepdims=True) + (received * weights["receiving"]).sum(axis=-1, keepdims=True)
        return jax.nn.leaky_relu(scores, 0.2)

    loops = jnp.arange(neighbours.NODES)
    whole = graph._replace(senders=jnp.concatenate([graph.senders, loops]), receivers=jnp.concatenate([graph.receivers, loops]))
    query = lambda nodes: jnp.einsum("nc,chd->nhd", nodes, weights["weight"])  # noqa: E731
    return jraph.GAT(query, logits, lambda nodes: nodes.reshape(len(nodes), -1))(whole).nodes + weights["bias"]


def messages(weights: Any, graph: jraph.GraphsTuple) -> Any:
    """Perceptrons of both ends, summed."""

    def perceptron(part: str, *inputs: Any) -> Any:
        hidden = jax.nn.relu(jnp.concatenate(inputs, axis=-1) @ weights[f"{part} first"].T + weights[f"{part} first bias"])
        return hidden @ weights[f"{part} last"].T + weights[f"{part} last bias"]

    layer = jraph.InteractionNetwork(
        lambda edges, sent, received: perceptron("message", received, sent),
        lambda nodes, received: perceptron("update", nodes, received),
    )
    return layer(graph).nodes


LAYERS: dict[str, Callable[[Any, Any], Any]] = {
    neighbours.CONVOLUTION: convolution,
    neighbours.ATTENTION: attention,
    neighbours.MESSAGES: messages,
}


def irreps() -> dict[str, Any]:
    """Harmonics of points, moved points among them, and the matrices by which they should have turned."""
    kinds = e3nn.Irreps(neighbours.IRREPS)
    turns = neighbours.turns().astype(np.float32)
    places = [neighbours.points(), *(neighbours.points() @ turn.T for turn in neighbours.turns())]
    harmonics = [e3nn.spherical_harmonics(kinds, jnp.asarray(x, jnp.float32), normalize=False).array for x in places]
    return {"matrices": [kinds.D_from_matrix(turn) for turn in turns], "outputs": harmonics}


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    senders, receivers = jnp.asarray(neighbours.both_ways(), jnp.int32)
    graph = jraph.GraphsTuple(
        nodes=jnp.asarray(neighbours.nodes()),
        edges=None,
        senders=senders,
        receivers=receivers,
        globals=None,
        n_node=jnp.array([neighbours.NODES]),
        n_edge=jnp.array([len(senders)]),
    )
    if parser.parse_args().values:
        found = {group: layer(neighbours.weights(group), graph) for group, layer in LAYERS.items()}
        print(json.dumps(jax.tree.map(lambda part: np.asarray(part).tolist(), found | {"irreps": irreps()})))
        return
    rows = []
    for group, layer in LAYERS.items():
        weights = jax.tree.map(jnp.asarray, neighbours.weights(group))
        f = jax.jit(jax.value_and_grad(lambda weights, graph, layer=layer: jnp.sum(layer(weights, graph) ** 2)))
        jax.block_until_ready(f(weights, graph))
        seconds = timing.median(lambda f=f, weights=weights: jax.block_until_ready(f(weights, graph)))
        rows.append({"group": group, "name": NAME, "seconds": seconds, "info": {"jax": jax.__version__}})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
