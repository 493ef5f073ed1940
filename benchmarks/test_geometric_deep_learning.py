"""Group convolution, graph layers and the search for equivariant maps, beside the same work written plainly, results compared first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import null_space

from gradatim.nets.geometric import (
    GraphConv,
    GroupConv,
    cyclic,
    equivariance_error,
    graph_from_edges,
    intertwiner_basis,
    standard,
    symmetric,
)

AGREEMENT = 1e-4
"Sums of a few hundred products in single precision, in another order."
BATCH, SIDE, CHANNELS = 32, 14, 8
NODES, DEGREE, FEATURES = 2000, 10, 32


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
    benchmark.group, benchmark.param = f"group convolution over C4, {BATCH} images of {SIDE} x {SIDE}, {CHANNELS} channels a turn", name
    conv = GroupConv(CHANNELS, CHANNELS, group=cyclic(4), key=jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIDE, SIDE, 4, CHANNELS)), jnp.float32)
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


@pytest.mark.parametrize("name", ["gradatim", "dense adjacency in jax.numpy"])
def test_graph_convolution_with_gradient(benchmark: Any, name: str) -> None:
    benchmark.group, benchmark.param = f"graph convolution, {NODES} nodes, {NODES * DEGREE} edges, {FEATURES} channels", name
    random = np.random.default_rng(0)
    graph = graph_from_edges(random.integers(NODES, size=(NODES * DEGREE // 2, 2)), nodes=random.normal(size=(NODES, FEATURES)))
    layer = GraphConv(FEATURES, FEATURES, key=jax.random.key(0))
    dense = jnp.zeros((NODES, NODES)).at[graph.receivers, graph.senders].add(1.0) + jnp.eye(NODES)
    root = 1 / jnp.sqrt(dense.sum(axis=1))
    smoothing = root[:, None] * dense * root[None]

    def by_matrix(layer: GraphConv, nodes: Any) -> Any:
        return smoothing @ nodes @ layer.weight + layer.bias[None]

    ways = {"gradatim": lambda layer, nodes: layer(graph.with_nodes(nodes)), "dense adjacency in jax.numpy": by_matrix}
    way = ways[name]
    np.testing.assert_allclose(way(layer, graph.nodes), by_matrix(layer, graph.nodes), atol=AGREEMENT, rtol=AGREEMENT)
    f = eqx.filter_jit(eqx.filter_value_and_grad(lambda layer, nodes: jnp.sum(way(layer, nodes) ** 2)))
    jax.block_until_ready(f(layer, graph.nodes))
    benchmark.pedantic(lambda: jax.block_until_ready(f(layer, graph.nodes)), rounds=30, warmup_rounds=3)


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
    from gradatim.nets.geometric import act_on_maps

    conv = GroupConv(2, 2, group=cyclic(4), key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(SIDE, SIDE, 4, 2)).astype(np.float32)
    maps = act_on_maps(cyclic(4))
    plain = eqx.filter_jit(lambda x: plain_group_conv(conv, x[None])[0])
    assert equivariance_error(eqx.filter_jit(conv), cyclic(4), x, maps, maps).worst < AGREEMENT
    assert equivariance_error(plain, cyclic(4), x, maps, maps).worst < AGREEMENT
