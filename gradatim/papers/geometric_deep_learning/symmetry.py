"""What holds to rounding: the table of symmetries, circulants, counts of generators, group convolution, the nesting of graph layers
(C1 to C5, and C7).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gradatim.lab import Measure, Session, host_generator
from gradatim.nets.geometric import (
    Cloud,
    GraphAttention,
    GraphConv,
    Group,
    MessagePassing,
    SetAttention,
    circulant,
    compare_outputs,
    complete_graph,
    cyclic,
    global_pool,
    graph_from_edges,
    intertwiner_basis,
    laplacian,
    moved_inputs,
    regular,
    ring_encoding,
    standard,
    symmetric,
    trivial,
    with_self_loops,
)

from .config import Symmetry
from .random_weights import drawn
from .rows import Row, table_rows

RING = 12
"Places of the ring whose linear maps and Laplacian are looked at."


def symmetry(config: Symmetry, session: Session, extra: dict[str, tuple[float, float]]) -> tuple[dict[str, Measure], xr.Dataset]:
    """All of it; `extra` rows of the table hold the error of a layer and of its broken form."""
    key, key_rows = jax.random.split(session.key)
    random = host_generator(key)
    rows = table_rows(config, random, key_rows)
    parts = _nesting_parts(config, random)
    inputs = [moved_inputs(row.elements, row.x, row.act_in) for row in rows]
    stacks = [_stacked([*some, *map(row.spoil, some)]) for row, some in zip(rows, inputs, strict=True)]

    # One program for the whole table.
    @eqx.filter_jit
    def evaluate(nets: Any, stacks: Any, parts: Any) -> Any:
        outputs = [jax.vmap(eqx.Partial(row.call, net))(stack) for row, net, stack in zip(rows, nets, stacks, strict=True)]
        return outputs, _nested(parts)

    found, nested = session.once("table of symmetries", lambda: _listed(evaluate([row.net for row in rows], stacks, parts)))
    outputs = [_halves(row, output) for row, output in zip(rows, found, strict=True)]
    errors = {
        row.name: (compare_outputs(row.elements, whole, row.act_out).worst, compare_outputs(row.elements, broken, row.act_out).worst)
        for row, (whole, broken) in zip(rows, outputs, strict=True)
    }
    measures, table = _table(rows, errors, extra)
    measures |= _circulants(random, session)
    counts, dims = _generators()
    measures |= counts
    by_name = {row.name: (row, whole) for row, (whole, _) in zip(rows, outputs, strict=True)}
    measures |= _group_convolution(by_name["group convolution, maps"], errors)
    measures |= _nesting(nested, errors, session)
    measures |= _motions(by_name["points of space"], session)
    return measures, table.assign(generators=dims)


def _stacked(inputs: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *inputs)


def _listed(tree: Any) -> Any:
    """Tuples of any kind as lists, which is what a record keeps."""
    if isinstance(tree, tuple | list):
        return [_listed(part) for part in tree]
    return np.asarray(tree)


def _halves(row: Row, found: Any) -> tuple[list[Any], list[Any]]:
    """Outputs one by one, for the inputs as they are and for the spoilt ones."""
    n = len(jax.tree.leaves(found)[0])
    outputs = [_typed(row, jax.tree.map(lambda leaf, i=i: leaf[i], found)) for i in range(n)]
    return outputs[: n // 2], outputs[n // 2 :]


def _typed(row: Row, output: Any) -> Any:
    if row.symmetry == "E(3)":
        return Cloud(*output)
    return tuple(output) if isinstance(output, list) else output


def _table(
    rows: list[Row], errors: dict[str, tuple[float, float]], extra: dict[str, tuple[float, float]]
) -> tuple[dict[str, Measure], xr.Dataset]:
    everything = errors | extra
    whole, broken = np.array(list(everything.values())).T
    measures = {
        "C1.equivariance_error": Measure.exact(float(whole.max())),
        "C1.broken_layer_error": Measure.exact(float(broken.min())),
    }
    groups = {row.name: row.symmetry for row in rows} | {name: name.rpartition(", ")[2] for name in extra}
    table = xr.Dataset(
        {
            "error": ("row", whole, {"units": "1", "long_name": "largest relative error over all elements"}),
            "broken_error": ("row", broken, {"units": "1", "long_name": "the same, broken on purpose"}),
            "symmetry": ("row", [groups[name] for name in everything], {"units": "1"}),
        },
        coords={"row": list(everything)},
    )
    return measures, table


def _circulants(random: np.random.Generator, session: Session) -> dict[str, Measure]:
    a, b, shift = (circulant(t) for t in (random.normal(size=RING), random.normal(size=RING), np.eye(RING)[1]))
    commutators = [np.abs(p @ q - q @ p).max() / np.abs(p @ q).max() for p, q in ((a, b), (a, shift), (b, shift))]
    fourier = np.fft.fft(np.eye(RING)) / RING**0.5

    def off_diagonal(matrix: np.ndarray) -> float:
        transformed = np.abs(fourier @ matrix @ fourier.conj().T)
        return float((transformed - np.diag(np.diag(transformed))).max() / transformed.max())

    session.note(f"C2: off the diagonal of a random matrix in the Fourier basis: {off_diagonal(random.normal(size=(RING, RING))):.2g}")
    basis = intertwiner_basis(regular(cyclic(RING)), regular(cyclic(RING)))
    circulants = np.stack([circulant(row) for row in np.eye(RING)])
    rank = np.linalg.matrix_rank(np.concatenate([basis, circulants]).reshape(-1, RING**2))
    return {
        "C2.commutator": Measure.exact(float(max(commutators))),
        "C2.off_diagonal": Measure.exact(max(off_diagonal(a), off_diagonal(b))),
        # What both span together: a circulant outside the null space would count too.
        "C2.surplus_dimensions": Measure.exact(float(max(len(basis), rank) - RING)),
    }


def _generators() -> tuple[dict[str, Measure], xr.DataArray]:
    sizes = (2, 3, 4, 5)
    kinds = ("set to set", "matrix to matrix", "matrix to set", "matrix to number")
    found = np.zeros((len(kinds), len(sizes)))
    for j, n in enumerate(sizes):
        things = standard(symmetric(n))
        matrices = things * things
        pairs = ((things, things), (matrices, matrices), (matrices, things), (matrices, trivial(things.group)))
        found[:, j] = [len(intertwiner_basis(*pair)) for pair in pairs]

    def farthest(values: np.ndarray, expected: float) -> Measure:
        return Measure.exact(float(values[np.abs(values - expected).argmax()]))

    measures = {"C3.set_generators": farthest(found[0], 2), "C3.matrix_generators": farthest(found[1, 2:], 15)}
    counts = xr.DataArray(found, {"maps": list(kinds), "elements": list(sizes)}, ("maps", "elements"), attrs={"units": "1"})
    return measures, counts


def _group_convolution(row_and_output: tuple[Row, list[Any]], errors: dict[str, tuple[float, float]]) -> dict[str, Measure]:
    row, (first, *_) = row_and_output
    lifted, convolved = first
    net, group = row.net, row.net.lift.group
    by_sum = direct_lift(row.x, np.asarray(net.lift.weight), group.matrices) + np.asarray(net.lift.bias)
    twice = direct_conv(np.maximum(lifted, 0), np.asarray(net.conv.weight), group) + np.asarray(net.conv.bias)
    off = max(np.abs(a - b).max() / np.abs(b).max() for a, b in ((lifted, by_sum), (convolved, twice)))
    turned = max(error for name, (error, _) in errors.items() if name.startswith("group convolution"))
    return {"C4.turned_input_error": Measure.exact(turned), "C4.direct_sum_error": Measure.exact(float(off))}


def direct_lift(x: np.ndarray, t: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """(x*t)(u, h) = Σ_v x_v t(h⁻¹(v-u)), term by term."""
    side, half = len(x), len(t) // 2
    y = np.zeros((side, side, len(matrices), t.shape[-1]))
    for h, matrix in enumerate(matrices):
        for w in np.ndindex(len(t), len(t)):
            step = np.rint(matrix @ np.subtract(w, half)).astype(int)
            for u in np.ndindex(side, side):
                v = (u[0] + step[0], u[1] + step[1])
                if min(v) >= 0 and max(v) < side:
                    y[(*u, h)] += x[v] @ t[w]
    return y


def direct_conv(x: np.ndarray, t: np.ndarray, group: Group) -> np.ndarray:
    """(x*t)(u, h) = Σ_h' Σ_v x(v, h') t(h⁻¹h', h⁻¹(v-u)), as sums over every incoming map."""
    y = np.zeros((*x.shape[:2], group.order, t.shape[-1]))
    for h in range(group.order):
        for incoming in range(group.order):
            relative = group.table[group.inverse[h], incoming]
            y[:, :, h] += direct_lift(x[:, :, incoming], t[relative], group.matrices[h : h + 1])[:, :, 0]
    return y


def _nesting_parts(config: Symmetry, random: np.random.Generator) -> Any:
    c, n, key = config.channels, config.things, jax.random.key(0)
    pairs = [(u, v) for u in range(n) for v in range(u) if (u - v) in (1, n - 1) or random.random() < 0.2]
    nodes = random.normal(size=(n, c))
    return {
        "graph": graph_from_edges(pairs, nodes=nodes),
        "whole": complete_graph(nodes),
        "apart": graph_from_edges(np.zeros((0, 2)), nodes=nodes, n_edges=1),
        "ring": graph_from_edges([(u, (u + 1) % RING) for u in range(RING)], nodes=np.zeros((RING, 1))),
        "attention": drawn(lambda: GraphAttention(c, c, n_heads=1, key=key), random),
        "dot": drawn(lambda: GraphAttention(c, c, n_heads=2, score="dot", key=key), random),
    }


def _nested(parts: Any) -> Any:
    """Pairs of outputs that must be equal, and the Laplacian of the ring."""
    graph, attention, dot = parts["graph"], parts["attention"], parts["dot"]
    weight, p, q = attention.weight[:, 0], attention.receiving[0, 0], attention.sending[0, 0]
    even = eqx.tree_at(lambda net: (net.receiving, net.sending), attention, replace_fn=jnp.zeros_like)
    conv = GraphConv(*weight.shape, normalisation="mean", key=jax.random.key(0))
    conv = eqx.tree_at(lambda net: (net.weight, net.bias), conv, (weight, attention.bias))

    def message(receiver: Any, sender: Any, edge: Any) -> Any:
        del edge
        score = jnp.exp(jax.nn.leaky_relu(p @ (receiver @ weight) + q @ (sender @ weight), 0.2))
        return jnp.concatenate([score * (sender @ weight), score[None]])

    passing = MessagePassing(message, lambda own, total: total[:-1] / total[-1] + attention.bias)
    whole = SetAttention(*weight.shape, n_heads=2, key=jax.random.key(0))
    whole = eqx.tree_at(lambda net: (net.query, net.key, net.value, net.bias), whole, (dot.receiving, dot.sending, dot.weight, dot.bias))
    apart = parts["apart"]
    pooled = global_pool(apart.with_nodes(conv(apart)))[0]
    elements = jax.vmap(lambda x: x @ weight + attention.bias)(apart.nodes).sum(axis=0)
    pairs = [
        (conv(graph), even(graph)),
        (attention(graph), passing(with_self_loops(graph))),
        (pooled, elements),
        (dot(parts["whole"]), whole(parts["whole"].nodes)),
    ]
    return pairs, laplacian(parts["ring"])


def _nesting(nested: Any, errors: dict[str, tuple[float, float]], session: Session) -> dict[str, Measure]:
    pairs, ring = nested
    off = [float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs]
    frequencies = np.arange(1, RING // 2)
    encoding = ring_encoding(RING, frequencies.tolist())
    values = np.repeat(2 - 2 * np.cos(2 * np.pi * frequencies / RING), 2)
    residual = np.abs(ring @ encoding - encoding * values[None]).max()
    whole, broken = errors["attention to all"]
    session.note(
        "C5: convolution as attention, attention as messages, deep sets as convolution, a transformer as attention differ by "
        + ", ".join(f"{value:.1g}" for value in off)
        + f"; attention with positions differs by {broken:.2g} under permutations"
    )
    return {
        "C5.nesting_error": Measure.exact(max(off)),
        "C5.attention_permutation_error": Measure.exact(whole),
        "C5.encoding_residual": Measure.exact(float(residual)),
    }


def _motions(row_and_output: tuple[Row, list[Any]], session: Session) -> dict[str, Measure]:
    row, clouds = row_and_output
    moved = compare_outputs(row.elements, [cloud.positions for cloud in clouds], lambda move, y: move(y))
    kept = compare_outputs(row.elements, [cloud.features for cloud in clouds])
    session.note(f"C7: {len(clouds) - 1} motions, every second one with a reflection")
    return {"C7.coordinate_error": Measure.exact(moved.worst), "C7.feature_error": Measure.exact(kept.worst)}
