"""Convolution against richer layers where neighbours agree, and where they do not (C16)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Measure, Session, best_by_others, host_generator
from gradatim.nets.geometric import Graph, GraphAttention, GraphConv, graph_from_edges, perceptron_messages

from .config import Homophily
from .rates import at, chosen_by_others, on_edge
from .training import single, stacked, train_together

JUDGED = 0.9
"Homophily at which the claim is judged."
LAYERS = ("convolution", "attention", "messages", "no graph")


class PerNode(eqx.Module):
    """A layer that does not look at neighbours."""

    linear: eqx.nn.Linear

    def __call__(self, graph: Graph) -> Array:
        """The new features."""
        return jax.vmap(self.linear)(graph.nodes)


def network(kind: str, config: Homophily, key: Array) -> list[Any]:
    """Two layers of a kind, with the first weights that layers have of themselves."""
    sizes = ((config.features, config.width), (config.width, config.classes))
    makers = {
        "convolution": lambda n, m, key: GraphConv(n, m, key=key),
        "attention": lambda n, m, key: GraphAttention(n, m, key=key),
        "messages": lambda n, m, key: perceptron_messages(n, m, width=config.width, aggregation="mean", key=key),
        "no graph": lambda n, m, key: PerNode(eqx.nn.Linear(n, m, key=key)),
    }
    return [makers[kind](*size, one) for size, one in zip(sizes, jax.random.split(key), strict=True)]


def apply(net: list[Any], graph: Graph) -> Array:
    """Logits of all nodes."""
    return net[1](graph.with_nodes(jax.nn.relu(net[0](graph))))


def community_graph(random: np.random.Generator, config: Homophily, means: np.ndarray, level: float) -> tuple[Graph, np.ndarray]:
    """A graph with as many edges as its mean degree says, of which the share `level` joins nodes of one class; its features and classes."""
    n, k = config.nodes, config.classes
    labels = np.repeat(np.arange(k), n // k)
    members, others = np.arange(n).reshape(k, -1), n - n // k
    n_edges = n * config.degree // 2
    within = round(level * n_edges)
    edges: set[tuple[int, int]] = set()
    for count, is_within in ((within, True), (n_edges, False)):
        while len(edges) < count:
            u = int(random.integers(n))
            # Of another class: an offset that leaves one's own out.
            v = int(random.choice(members[labels[u]])) if is_within else int((n // k * (labels[u] + 1) + random.integers(others)) % n)
            if u != v:
                edges.add((min(u, v), max(u, v)))
    features = means[labels] + random.normal(size=(n, config.features))
    return single(graph_from_edges(np.array(sorted(edges)), nodes=features.astype(np.float32))), labels.astype(np.int32)


def homophily(config: Homophily, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Every kind of layer at every level, trained on one graph and judged on new ones."""
    if config.nodes % config.classes:
        raise ValueError(f"homophily.nodes must be a multiple of the classes, {config.classes}, got {config.nodes}")
    random = host_generator(jax.random.fold_in(session.key, 27))
    seeds, levels = config.seeds, config.levels

    def world() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {"graph": [], "labels": [], "is_told": [], "test": []}
        scale = config.separation * 2 / config.features**0.5
        for _ in range(seeds):
            means = scale * random.normal(size=(config.classes, config.features))
            for level in levels:
                graph, labels = community_graph(random, config, means, level)
                found["graph"].append(graph)
                found["labels"].append(labels)
                found["is_told"].append(np.isin(np.arange(config.nodes), random.permutation(config.nodes)[: config.labelled]))
                found["test"].append(_pile([community_graph(random, config, means, level)[0] for _ in range(config.test_graphs)]))
        return found

    made = world()
    graphs, tests = _pile(made["graph"]), _pile(made["test"])
    labels, is_told = np.stack(made["labels"]), np.stack(made["is_told"])
    n_worlds, n_rates = seeds * len(levels), len(config.rates)
    which = np.tile(np.arange(n_worlds), n_rates)
    rates = np.repeat(config.rates, n_worlds)
    entries = np.zeros((config.steps, n_worlds), np.int32)

    def loss(net: Any, data: Any, entry: Any) -> Array:
        del entry
        graph, labels, is_told = data
        losses = optax.softmax_cross_entropy_with_integer_labels(apply(net, graph), labels)
        return jnp.sum(losses * is_told) / is_told.sum()

    @eqx.filter_jit
    def judge(nets: Any, which: Array, graphs: Any, tests: Any, labels: Array, is_told: Array) -> Any:
        def one(given: Any) -> Any:
            arrays, k = given
            net = eqx.combine(arrays, others)
            own, new = (jax.tree.map(lambda leaf: leaf[k], some) for some in (graphs, tests))
            held = optax.softmax_cross_entropy_with_integer_labels(apply(net, own), labels[k])
            right = jax.lax.map(lambda graph: jnp.mean(apply(net, graph).argmax(axis=1) == labels[k]), new)
            return jnp.sum(held * ~is_told[k]) / (~is_told[k]).sum(), 100 * right.mean()

        arrays, others = eqx.partition(nets, eqx.is_inexact_array)
        return jax.lax.map(one, (arrays, which))

    losses, accuracies, operations = [], [], {}
    keys = jax.random.split(jax.random.fold_in(session.key, 29), seeds)
    for kind in LAYERS:
        first = [single(network(kind, config, key)) for key in keys]
        # Levels of one seed share their first weights.
        nets = stacked([net for net in first for _ in levels])
        operations[kind] = _operations(first[0], jax.tree.map(lambda leaf: leaf[0], graphs))
        nets, _ = train_together(
            session, nets, loss, (graphs, labels, is_told.astype(np.float32)), entries, rates=rates, which=which, steps=config.steps,
            label=f"nodes by {kind}",
        )  # fmt: skip
        given = (nets, jnp.asarray(which), graphs, tests, labels, is_told)
        held, right = session.once(f"nodes by {kind}, judged", lambda given=given: tuple(map(np.asarray, judge(*given))))
        losses.append(np.where(np.isfinite(held), held, np.inf).reshape(n_rates, seeds, len(levels)))
        accuracies.append(right.reshape(n_rates, seeds, len(levels)))
    return _judged(config, np.stack(losses), np.stack(accuracies), operations, session)


def _judged(
    config: Homophily, losses: np.ndarray, accuracies: np.ndarray, operations: dict[str, float], session: Session
) -> tuple[dict[str, Measure], xr.Dataset]:
    """Each seed at the rates, and beside the richer layer, that are best for the others.

    **Arguments:** `losses`, by which rates are chosen, and `accuracies`, which are judged: by layer, rate, seed and level.
    """
    choices = np.stack([chosen_by_others(held) for held in losses])
    accuracy = np.stack([at(right, choice) for right, choice in zip(accuracies, choices, strict=True)])
    j = config.levels.index(JUDGED)
    richer = best_by_others(xr.DataArray(accuracy[1:, :, j], dims=("layer", "seed")), "layer", maximise=True).values
    edge = [f"{kind} at {config.levels[i]:g}" for kind, choice in zip(LAYERS, choices, strict=True) for i in range(len(config.levels))
            if on_edge(choice[:, i], config.rates)]  # fmt: skip
    session.note(
        f"C16: accuracy on new graphs at a homophily of {JUDGED:g}: "
        + ", ".join(f"{kind} {accuracy[i, :, j].mean():.2f} %" for i, kind in enumerate(LAYERS))
        + f"; at {config.levels[0]:g}: "
        + ", ".join(f"{kind} {accuracy[i, :, 0].mean():.2f} %" for i, kind in enumerate(LAYERS))
        + f"; best rates on the edge of the grid: {', '.join(edge) or 'none'}"
    )
    cheaper = min(operations["attention"], operations["messages"])
    measures = {
        "C16.accuracy_difference": Measure.paired(accuracy[0, :, j], richer),
        "C16.operations_ratio": Measure.exact(operations["convolution"] / cheaper),
    }
    data = xr.Dataset(
        {
            "accuracy": (("layer", "seed", "homophily"), accuracy, {"units": "%"}),
            "taken_rate": (("layer", "seed", "homophily"), np.asarray(config.rates)[choices], {"units": "1"}),
            "operations": ("layer", [operations[kind] for kind in LAYERS], {"units": "1"}),
        },
        {"layer": list(LAYERS), "homophily": list(config.levels)},
    )
    return measures, data


def _pile(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def _operations(net: Any, graph: Graph) -> float:
    """Floating-point operations of the compiled network, as the compiler counts them."""
    jitted: Any = eqx.filter_jit(apply)
    compiled = jitted.lower(net, graph).compile()
    return float(compiled.compiled.cost_analysis()["flops"])
