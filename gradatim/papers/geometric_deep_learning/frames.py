"""C10: networks between frames, and what they make of frames that are turned."""

from __future__ import annotations

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

from .random_weights import drawn

INPUTS, OUTPUTS = (0, 1), (0, 1, 2)
"Orders of a signal and its gradient, and of what is made of them."
PATCH_ANGLES = 8


class FrameNetwork(eqx.Module):
    """Two convolutions with a gate between, `entries` of each hidden order."""

    first: GaugeConv
    gate: NormGate
    last: GaugeConv

    def __init__(
        self,
        entries: int,
        *,
        inputs: tuple[int, ...] = INPUTS,
        hidden: tuple[int, ...] = OUTPUTS,
        outputs: tuple[int, ...] = OUTPUTS,
        key: PRNGKeyArray,
    ) -> None:
        between = tuple(order for order in hidden for _ in range(entries))
        first, last = jax.random.split(key)
        self.first, self.gate = GaugeConv(inputs, between, n_radial=2, key=first), NormGate(between)
        self.last = GaugeConv(between, outputs, n_radial=2, key=last)

    def __call__(
        self, edges: EdgeLogs, x: Float[Array, "vertices in_size"], *, rectified: bool = False
    ) -> Float[Array, "vertices out_size"]:
        """A field of the orders of the outputs; `rectified`: with the nonlinearity of entries that must not be."""
        hidden = self.first(edges, x)
        return self.last(edges, jnp.maximum(hidden, 0) if rectified else self.gate(hidden))


def without_transport(edges: EdgeLogs) -> EdgeLogs:
    """Edges along which fields are carried as they are, entry by entry."""
    return eqx.tree_at(lambda e: e.reverse, edges, jnp.arange(len(edges.reverse), dtype=edges.reverse.dtype))


def _relative(found: Array, expected: Array) -> float:
    ours, truth = np.asarray(found), np.asarray(expected)
    return float(np.abs(ours - truth).max() / np.abs(truth).max())


def frames_error(
    mesh: Mesh, signal: np.ndarray, entries: int, n_turns: int, key: PRNGKeyArray, session: Session
) -> tuple[dict[str, Measure], xr.Dataset]:
    """How far outputs under random turns of all frames are from outputs turned, with transport and without."""
    edges = log_map_edges(mesh)
    random = host_generator(key)
    network = drawn(lambda: FrameNetwork(entries, key=key), random)

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
    network = drawn(lambda: FrameNetwork(2, key=key), random)
    patches = [drawn(lambda p=pools: PatchConvolution(1, 2, n_angles=PATCH_ANGLES, pools=p, key=key), random) for pools in (True, False)]
    dtype = mesh.vertices.dtype
    x = jnp.asarray(random.normal(size=(n, field_size(INPUTS))), dtype)

    def outputs(edges: EdgeLogs, x: Array) -> tuple[Array, ...]:
        convolved = network.first(edges, x), network.first(without_transport(edges), x)
        return *convolved, network(edges, x), network(edges, x, rectified=True), *(patch(edges, x[:, :1]) for patch in patches)

    hidden = network.first.out_orders
    orders = (hidden, hidden, OUTPUTS, OUTPUTS, None, None)
    plain = outputs(edges, x)
    worst = np.zeros(len(orders))
    for _ in range(4):
        steps = random.integers(1, PATCH_ANGLES, n)
        # Patches know whole steps of their grid only, the others any turn.
        for frames, places in ((random.uniform(-9, 9, n), range(4)), (2 * np.pi / PATCH_ANGLES * steps, range(4, 6))):
            angles = jnp.asarray(frames, dtype)
            turned = outputs(edges.turned(angles), turn_field(x, INPUTS, angles))
            for place in places:
                field = orders[place]
                expected = plain[place] if field is None else turn_field(plain[place], field, angles)
                worst[place] = max(worst[place], _relative(turned[place], expected))
    names = ("gauge convolution, turned frames", "gauge network, turned frames", "pooled patches, turned frames")
    return {name: (float(worst[2 * i]), float(worst[2 * i + 1])) for i, name in enumerate(names)}
