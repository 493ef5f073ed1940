"""C10: networks between frames, and what they make of frames that are turned."""

from __future__ import annotations

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Measure, Session, host_generator
from gradatim.nets.geometric import (
    EdgeLogs,
    GaugeConv,
    Mesh,
    NormGate,
    PatchConvolution,
    field_size,
    log_map_edges,
    turn_field,
    vertex_gradient,
)

INPUTS, OUTPUTS = (0, 1), (0, 1, 2)
"Orders of a signal and its gradient, and of what is made of them."
PATCH_ANGLES = 8


class FrameNetwork(eqx.Module):
    """Three convolutions with gates between, random weights and biases."""

    layers: tuple[GaugeConv, ...]
    gates: tuple[NormGate, ...]

    def __init__(self, entries: int, *, key: PRNGKeyArray) -> None:
        hidden = tuple(order for order in OUTPUTS for _ in range(entries))
        orders = (INPUTS, hidden, hidden, OUTPUTS)
        layers = []
        for i, (n_in, n_out) in enumerate(pairwise(orders)):
            layer = GaugeConv(n_in, n_out, n_radial=2, key=jax.random.fold_in(key, i))
            # A first bias is zero, which would hide one that turns.
            bias = jnp.asarray(host_generator(jax.random.fold_in(key, 10 + i)).normal(size=layer.bias.shape), layer.bias.dtype)
            layers.append(eqx.tree_at(lambda module: module.bias, layer, bias))
        self.layers, self.gates = tuple(layers), (NormGate(hidden), NormGate(hidden))

    def __call__(self, edges: EdgeLogs, x: Float[Array, "vertices 3"], *, rectified: bool = False) -> Float[Array, "vertices 5"]:
        """A field of orders 0, 1 and 2; `rectified`: with the nonlinearity of entries that must not be."""
        for layer, gate in zip(self.layers, self.gates, strict=False):
            x = layer(edges, x)
            x = jax.nn.relu(x) if rectified else gate(x)
        return self.layers[-1](edges, x)


def without_transport(edges: EdgeLogs) -> EdgeLogs:
    """Edges along which fields are carried as they are, entry by entry."""
    return eqx.tree_at(lambda e: e.reverse, edges, jnp.arange(len(edges.reverse), dtype=edges.reverse.dtype))


def _relative(found: Array, expected: Array) -> float:
    return float(jnp.abs(found - expected).max() / jnp.abs(expected).max())


def frames_error(
    mesh: Mesh, signal: np.ndarray, entries: int, n_turns: int, key: PRNGKeyArray, session: Session
) -> tuple[dict[str, Measure], xr.Dataset]:
    """How far outputs under random turns of all frames are from outputs turned, with transport and without."""
    edges = log_map_edges(mesh)
    network = FrameNetwork(entries, key=key)
    random = host_generator(jax.random.fold_in(key, 1))

    x = jnp.asarray((signal - signal.mean()) / signal.std())
    size = np.linalg.norm(vertex_gradient(edges, x), axis=1).std()

    # Layer by layer: each is one program for all turns.
    def field(edges: EdgeLogs) -> Array:
        return network(edges, jnp.concatenate([x[:, None], vertex_gradient(edges, x) / size], axis=1))

    turns = [jnp.asarray(random.uniform(-np.pi, np.pi, len(signal))) for _ in range(n_turns)]
    errors = {}
    for name, change in (("with transport", lambda e: e), ("without transport", without_transport)):
        plain = field(change(edges))
        turned = [field(change(edges.turned(frames))) for frames in turns]
        errors[name] = [_relative(one, turn_field(plain, OUTPUTS, frames)) for one, frames in zip(turned, turns, strict=True)]
    largest = {name: max(row) for name, row in errors.items()}
    session.note(
        f"C10: outputs of orders {OUTPUTS} under {n_turns} random turns of all frames are off by {largest['with transport']:.1e}, without "
        f"transport by {largest['without transport']:.2g}"
    )
    data = xr.Dataset({"gauge_error": (("carried", "turn"), np.array([*errors.values()]), {"units": "1"})}, {"carried": list(errors)})
    return {"C10.gauge_error": Measure.exact(largest["with transport"])}, data


def frame_rows(mesh: Mesh, random: np.random.Generator, key: PRNGKeyArray) -> dict[str, tuple[float, float]]:
    """Convolution, a network and patches under turns of frames; broken without transport, with rectified vectors, and unpooled."""
    edges, n = log_map_edges(mesh), len(mesh.vertices)
    network = FrameNetwork(2, key=key)
    patches = [PatchConvolution(1, 2, n_angles=PATCH_ANGLES, pools=pools, key=key) for pools in (True, False)]
    dtype = mesh.vertices.dtype
    x = jnp.asarray(random.normal(size=(n, field_size(INPUTS))), dtype)

    def outputs(edges: EdgeLogs, x: Array) -> tuple[Array, ...]:
        first = network.layers[0]
        convolved = first(edges, x), first(without_transport(edges), x)
        return *convolved, network(edges, x), network(edges, x, rectified=True), *(patch(edges, x[:, :1]) for patch in patches)

    hidden = network.layers[0].out_orders
    orders = (hidden, hidden, OUTPUTS, OUTPUTS, (0, 0), (0, 0))
    plain = outputs(edges, x)
    worst = np.zeros(len(orders))
    for _ in range(4):
        steps = random.integers(1, PATCH_ANGLES, n)
        # Patches know whole steps of their grid only, the others any turn.
        for frames, places in ((random.uniform(-9, 9, n), range(4)), (2 * np.pi / PATCH_ANGLES * steps, range(4, 6))):
            angles = jnp.asarray(frames, dtype)
            turned = outputs(edges.turned(angles), turn_field(x, INPUTS, angles))
            for place in places:
                worst[place] = max(worst[place], _relative(turned[place], turn_field(plain[place], orders[place], angles)))
    names = ("gauge convolution, turned frames", "gauge network, turned frames", "pooled patches, turned frames")
    return {name: (float(worst[2 * i]), float(worst[2 * i + 1])) for i, name in enumerate(names)}
