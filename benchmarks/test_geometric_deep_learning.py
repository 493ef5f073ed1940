"""Group convolution, graph layers and the search for equivariant maps, beside the same work written plainly, results compared first; jraph,
e3nn-jax, torch-geometric and e2cnn in peers/jraph_geometric_deep_learning.py and peers/pyg_geometric_deep_learning.py.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import python_of
from scipy.linalg import null_space

from gradatim.nets.geometric import (
    Graph,
    GraphAttention,
    GraphConv,
    GroupConv,
    MessagePassing,
    Motion,
    act_on_irreps,
    act_on_maps,
    compare_outputs,
    cyclic,
    equivariance_error,
    graph_from_edges,
    intertwiner_basis,
    perceptron_messages,
    standard,
    symmetric,
)

PEERS_FOLDER = Path(__file__).parent / "peers"
_spec = importlib.util.spec_from_file_location("neighbours", PEERS_FOLDER / "neighbours.py")
assert _spec is not None
assert _spec.loader is not None
neighbours = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(neighbours)

AGREEMENT = 1e-4
"Sums of a few hundred products in single precision, in another order."
BATCH, SIDE, CHANNELS, FEATURES = neighbours.BATCH, neighbours.SIDE, neighbours.CHANNELS, neighbours.FEATURES


def turned_filters(weight: Any, group: Any) -> Any:
    """The filters of a group convolution, turned one by one and stacked."""
    of_output = []
    for h in range(group.order):
        of_input = [jnp.rot90(weight[group.table[group.inverse[h], k]], h) for k in range(group.order)]
        of_output.append(jnp.concatenate(of_input, axis=2))
    return jnp.concatenate(of_output, axis=3)


def plain_group_conv(conv: GroupConv, x: Any) -> Any:
    """As is found in tutorials: rotated copies and a library's convolution."""
    merged = x.reshape(*x.shape[:3], -1)
    y = jax.lax.conv_general_dilated(
        merged, turned_filters(conv.weight, conv.group), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(*x.shape[:3], conv.group.order, -1)


@pytest.mark.parametrize("name", ["gradatim", "rotated copies in jax.numpy", "ordinary convolution of as many channels"])
def test_group_convolution_with_gradient(benchmark: Any, name: str) -> None:
    benchmark.group, benchmark.param = neighbours.TURNS, name
    conv = GroupConv(CHANNELS, CHANNELS, group=cyclic(4), key=jax.random.key(0))
    x = jnp.asarray(neighbours.images())
    kernel = turned_filters(conv.weight, conv.group)

    def ordinary(kernel: Any, x: Any) -> Any:
        merged = x.reshape(*x.shape[:3], -1)
        return jax.lax.conv_general_dilated(merged, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    ways: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
        "gradatim": (lambda conv, x: jax.vmap(conv)(x), conv),
        "rotated copies in jax.numpy": (plain_group_conv, conv),
        "ordinary convolution of as many channels": (ordinary, kernel),
    }
    way, weights = ways[name]
    np.testing.assert_allclose(np.asarray(way(weights, x)).reshape(x.shape), jax.vmap(conv)(x), atol=AGREEMENT, rtol=AGREEMENT)
    f = eqx.filter_jit(eqx.filter_value_and_grad(lambda weights, x: jnp.sum(way(weights, x) ** 2)))
    jax.block_until_ready(f(weights, x))
    benchmark.pedantic(lambda: jax.block_until_ready(f(weights, x)), rounds=30, warmup_rounds=3)


def the_graph() -> Graph:
    """That of all contestants."""
    return graph_from_edges(neighbours.pairs(), nodes=neighbours.nodes())


def graph_layer(kind: str) -> Any:
    """Ours of a kind, on the weights of all contestants."""
    weights, key = {name: jnp.asarray(value) for name, value in neighbours.weights(kind).items()}, jax.random.key(0)
    if kind == neighbours.MESSAGES:
        layer = perceptron_messages(FEATURES, FEATURES, width=FEATURES, key=key)
        names = [f"{part} {place}{end}" for part in ("message", "update") for place in ("first", "last") for end in ("", " bias")]
        return eqx.tree_at(_perceptrons, layer, [weights[name] for name in names])
    make = GraphConv if kind == neighbours.CONVOLUTION else lambda n, m, key: GraphAttention(n, m, n_heads=neighbours.HEADS, key=key)
    return eqx.tree_at(lambda layer: [getattr(layer, name) for name in weights], make(FEATURES, FEATURES, key=key), [*weights.values()])


def _perceptrons(layer: MessagePassing) -> list[Any]:
    parts: Any = layer.message, layer.update
    return [leaf for part in parts for affine in (part.first, part.last) for leaf in (affine.weight, affine.bias)]


@eqx.filter_jit
@eqx.filter_value_and_grad
def layer_loss(layer: Any, graph: Graph) -> Any:
    """With its gradient in the weights; the graph is an argument, whose degrees no compiler may know beforehand."""
    return jnp.sum(layer(graph) ** 2)


@pytest.mark.parametrize("kind", [neighbours.CONVOLUTION, neighbours.ATTENTION, neighbours.MESSAGES])
def test_graph_layer_with_gradient(benchmark: Any, kind: str) -> None:
    benchmark.group, benchmark.param = kind, "gradatim"
    layer, graph = graph_layer(kind), the_graph()
    jax.block_until_ready(layer_loss(layer, graph))
    benchmark.pedantic(lambda: jax.block_until_ready(layer_loss(layer, graph)), rounds=300, warmup_rounds=30)


def test_graph_convolution_by_a_dense_matrix(benchmark: Any) -> None:
    benchmark.group, benchmark.param = neighbours.CONVOLUTION, "dense adjacency in jax.numpy"
    layer, graph = graph_layer(neighbours.CONVOLUTION), the_graph()
    n = neighbours.NODES
    dense = jnp.zeros((n, n)).at[graph.receivers, graph.senders].add(1.0) + jnp.eye(n)
    root = 1 / jnp.sqrt(dense.sum(axis=1))
    smoothing = root[:, None] * dense * root[None]

    def by_matrix(layer: GraphConv, smoothing: Any) -> Any:
        return smoothing @ graph.nodes @ layer.weight + layer.bias[None]

    np.testing.assert_allclose(layer(graph), by_matrix(layer, smoothing), atol=AGREEMENT, rtol=AGREEMENT)
    f = eqx.filter_jit(eqx.filter_value_and_grad(lambda layer, smoothing: jnp.sum(by_matrix(layer, smoothing) ** 2)))
    jax.block_until_ready(f(layer, smoothing))
    benchmark.pedantic(lambda: jax.block_until_ready(f(layer, smoothing)), rounds=300, warmup_rounds=30)


def values_of(environment: str) -> dict[str, Any]:
    """What a peer's script finds."""
    command = [python_of(environment), str(PEERS_FOLDER / f"{environment}_geometric_deep_learning.py"), "--values"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def of_jraph() -> dict[str, Any]:
    return values_of("jraph")


@pytest.fixture(scope="module")
def of_pyg() -> dict[str, Any]:
    return values_of("pyg")


@pytest.mark.parametrize("peer", ["of_jraph", "of_pyg"])
@pytest.mark.parametrize("kind", [neighbours.CONVOLUTION, neighbours.ATTENTION, neighbours.MESSAGES])
def test_graph_layers_agree(kind: str, peer: str, request: pytest.FixtureRequest) -> None:
    theirs = np.asarray(request.getfixturevalue(peer)[kind])
    np.testing.assert_allclose(eqx.filter_jit(graph_layer(kind))(the_graph()), theirs, atol=AGREEMENT, rtol=AGREEMENT)


def test_group_convolution_agrees_with_e2cnn(of_pyg: dict[str, Any]) -> None:
    # Outputs and inputs have their turns within channels; ours are the filters of the turn by nothing.
    filters = np.asarray(of_pyg["filters"], np.float32).reshape(CHANNELS, 4, CHANNELS, 4, 3, 3)
    weight = jnp.asarray(filters[:, 0].transpose(2, 3, 4, 1, 0))
    conv = eqx.tree_at(lambda conv: conv.weight, GroupConv(CHANNELS, CHANNELS, group=cyclic(4), key=jax.random.key(0)), weight)
    theirs = np.asarray(of_pyg[neighbours.TURNS]).reshape(BATCH, CHANNELS, 4, SIDE, SIDE).transpose(0, 3, 4, 2, 1)
    ours = eqx.filter_jit(lambda conv, x: jax.vmap(conv)(x))(conv, jnp.asarray(neighbours.images()))
    np.testing.assert_allclose(ours, theirs, atol=AGREEMENT, rtol=AGREEMENT)


def test_irreps_of_e3nn(of_jraph: dict[str, Any]) -> None:
    """The adapter turns e3nn-jax's spherical harmonics as they turn themselves."""
    matrices = dict(zip((turn.tobytes() for turn in neighbours.turns()), of_jraph["irreps"]["matrices"], strict=True))

    class Printed:
        def D_from_matrix(self, turn: Any) -> Any:
            return matrices[turn.tobytes()]

    motions = [Motion(turn, np.zeros(3)) for turn in neighbours.turns()]
    outputs = [np.asarray(output) for output in of_jraph["irreps"]["outputs"]]
    assert compare_outputs(motions, outputs, act_on_irreps(Printed())).worst < AGREEMENT
    # Scalars first, then the vector in the order x, y, z.
    np.testing.assert_allclose(np.asarray([*matrices.values()])[:, 2:5, 2:5], neighbours.turns(), atol=AGREEMENT)


@pytest.mark.parametrize("name", ["gradatim", "scipy.linalg.null_space, all elements"])
def test_equivariant_linear_maps(benchmark: Any, name: str) -> None:
    benchmark.group, benchmark.param = "linear maps of 4 x 4 matrices that respect permutations", name
    things = standard(symmetric(4))
    pairs = things * things

    def all_elements() -> np.ndarray:
        n = pairs.dim
        rows = [np.kron(matrix, np.eye(n)) - np.kron(np.eye(n), matrix.T) for matrix in pairs.matrices]
        return null_space(np.concatenate(rows)).T.reshape(-1, n, n)

    way = (lambda: intertwiner_basis(pairs, pairs)) if name == "gradatim" else all_elements
    ours, theirs = (basis.reshape(15, -1) for basis in (intertwiner_basis(pairs, pairs), all_elements()))
    np.testing.assert_allclose(ours.T @ ours, theirs.T @ theirs, atol=1e-9)
    benchmark.pedantic(way, rounds=5, warmup_rounds=1)


def test_equivariance_of_what_is_timed() -> None:
    conv = GroupConv(2, 2, group=cyclic(4), key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(SIDE, SIDE, 4, 2)).astype(np.float32)
    maps = act_on_maps(cyclic(4))
    plain = eqx.filter_jit(lambda x: plain_group_conv(conv, x[None])[0])
    assert equivariance_error(eqx.filter_jit(conv), cyclic(4), x, maps, maps).worst < AGREEMENT
    assert equivariance_error(plain, cyclic(4), x, maps, maps).worst < AGREEMENT
