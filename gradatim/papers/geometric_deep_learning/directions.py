"""C10: where curvature grows, told from the depth of furrows by networks that know directions and by one that does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PRNGKeyArray

from gradatim.lab import Between, Measure, Session, host_generator
from gradatim.nets.geometric import EdgeLogs, Mesh, log_map_edges, vertex_gradient

from .frames import FrameNetwork, without_transport
from .rates import at, chosen_by_others, in_words, on_edge
from .training import single, stacked, train_together

ARMS = ("gauge-equivariant", "isotropic", "without transport")
WITHIN = 45.0
"Degrees within which a direction counts as right: a quarter of all, by chance."
TINY = 1e-12
"Under the root of a length, whose slope at zero is else infinite."


@dataclass(frozen=True)
class Directions:
    """The direction of the gradient of curvature, learnt on one part of a surface and judged on another."""

    part: Annotated[int, Between(20, 10_000)] = 1000
    "Vertices to learn from, the frontmost, and as many to choose rates on and to judge, in the middle and rearmost."
    entries: Annotated[int, Between(1, 256)] = 4
    "Hidden entries of each order 0, 1 and 2; the isotropic network has about as many parameters that count, all of order 0."
    steps: Annotated[int, Between(1, 100_000)] = 150
    "Of Adam on the whole part."
    rates: Annotated[tuple[float, ...], Between(1e-6, 10.0)] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    "From which every network takes what is best for the other seeds in the middle."
    seeds: Annotated[int, Between(3, 100)] = 5
    "First weights and frames, shared by all networks."


class _Part(NamedTuple):
    edges: EdgeLogs
    depth: Array
    "Of the furrow at each vertex, one channel."
    direction: Array
    "Of the gradient of curvature in the frame of each vertex, a unit vector."


def part_of(edges: EdgeLogs, kept: np.ndarray) -> EdgeLogs:
    """The edges between some vertices, which are numbered anew in the order given; on the host."""
    place = np.full(edges.n_vertices, -1)
    place[kept] = np.arange(len(kept))
    receivers, senders = (place[np.asarray(ends)] for ends in (edges.receivers, edges.senders))
    inside = np.flatnonzero((receivers >= 0) & (senders >= 0))
    number = np.full(len(receivers), -1)
    number[inside] = np.arange(len(inside))
    ours, theirs, back = receivers[inside], senders[inside], number[np.asarray(edges.reverse)[inside]]
    ours, theirs, back = (jnp.asarray(part, jnp.int32) for part in (ours, theirs, back))
    return EdgeLogs(ours, theirs, back, edges.lengths[inside], edges.angles[inside], len(kept))


def make_network(arm: str, entries: int, *, key: PRNGKeyArray) -> FrameNetwork:
    """A network of an arm."""
    if arm != "isotropic":
        return FrameNetwork(entries, inputs=(0,), outputs=(1,), key=key)
    # Of two complex numbers for each pair of entries, pairs of order 0 use one real one, pairs with one such two, all others four.
    return FrameNetwork(round((40 * entries - 2) / 12), inputs=(0,), hidden=(0,), outputs=(0, 0), key=key)


def directions(
    config: Directions, mesh: Mesh, depth: np.ndarray, curvature: np.ndarray, key: PRNGKeyArray, session: Session
) -> tuple[dict[str, Measure], xr.Dataset]:
    """Every network at the rate that the other seeds are best at in the middle of the surface, judged at the rear."""
    n, part, seeds = len(mesh.vertices), config.part, config.seeds
    if 3 * part > n:
        raise ValueError(f"directions.part must be at most a third of {n} vertices, got {part}")
    random = host_generator(key)
    ranked = np.argsort(-np.asarray(mesh.vertices)[:, 1])
    front, middle, rear = ranked[:part], ranked[(n - part) // 2 :][:part], ranked[-part:]
    whole, scaled = log_map_edges(mesh), (depth - depth.mean()) / depth.std()

    def seen(kept: np.ndarray, frames: np.ndarray) -> _Part:
        edges = whole.turned(jnp.asarray(frames))
        gradient = np.asarray(vertex_gradient(edges, jnp.asarray(curvature)))
        direction = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), TINY)
        return single(_Part(part_of(edges, kept), jnp.asarray(scaled[kept, None]), jnp.asarray(direction[kept])))

    frames = random.uniform(-np.pi, np.pi, (seeds, n))
    told, held, new = (stacked([seen(kept, turn) for turn in frames]) for kept in (front, middle, rear))
    which, rates = np.tile(np.arange(seeds), len(config.rates)), np.repeat(config.rates, seeds)
    choosing, judged = np.zeros((2, len(ARMS), len(config.rates), seeds))
    for a, arm in enumerate(ARMS):

        def loss(net: FrameNetwork, data: _Part, entry: Any, arm: str = arm) -> Array:
            del entry
            return 1 - _cosines(net, data, arm).mean()

        keys = jax.random.split(jax.random.fold_in(key, 1), seeds)
        nets = stacked([single(make_network(arm, config.entries, key=one)) for one in keys])
        nets, _ = train_together(
            session, nets, loss, told, np.zeros((config.steps, seeds), np.int32), rates=rates, which=which, steps=config.steps,
            label=f"directions, {arm}",
        )  # fmt: skip
        shares = (np.asarray(_share_right(nets, jnp.asarray(which), data, arm)) for data in (held, new))
        choosing[a], judged[a] = (share.reshape(-1, seeds) for share in shares)
    choices = np.stack([chosen_by_others(rows, maximise=True) for rows in choosing])
    accuracy = np.stack([at(*rows) for rows in zip(judged, choices, strict=True)])
    edge = [arm for arm, choice in zip(ARMS, choices, strict=True) if on_edge(choice, config.rates)]
    session.note(
        f"C10: the direction in which curvature grows, told from sulcal depth, is right to {WITHIN:g}° on the rearmost {part} vertices for "
        + ", ".join(
            f"{arm} {row.mean():.1f} % (rate {in_words(choice, config.rates)})"
            for arm, row, choice in zip(ARMS, accuracy, choices, strict=True)
        )
        + f", by chance 25 %; best rate on the edge of the grid: {', '.join(edge) or 'none'}"
    )
    taken, by_rate = np.asarray(config.rates)[choices], ("network", "rate", "seed")
    data = xr.Dataset(
        {
            "accuracy": (("network", "seed"), accuracy, {"units": "%"}),
            "taken_rate": (("network", "seed"), taken, {"units": "1"}),
            "accuracy_in_the_middle": (by_rate, choosing, {"units": "%"}),
            "accuracy_at_the_rear": (by_rate, judged, {"units": "%"}),
        },
        {"network": list(ARMS), "rate": list(config.rates)},
    )
    return {"C10.direction_gain": direction_gain(choosing, judged)}, data


def direction_gain(choosing: np.ndarray, judged: np.ndarray) -> Measure:
    """How much more often than the better of its rivals the first network is right: both over network, rate and seed.

    Every seed is read at the rate that the others choose, and for the interval all is chosen again without each.
    """

    def gain(kept: np.ndarray) -> float:
        rows = [
            at(there, chosen_by_others(here, maximise=True)) for here, there in zip(choosing[..., kept], judged[..., kept], strict=True)
        ]
        return min(float((rows[0] - rival).mean()) for rival in rows[1:])

    return Measure.leave_one_out(gain, judged.shape[-1])


def _cosines(net: FrameNetwork, data: _Part, arm: str) -> Array:
    """Of the angle between the direction told and the true one, at each vertex."""
    told = net(without_transport(data.edges) if arm == "without transport" else data.edges, data.depth)
    return (told * data.direction).sum(axis=1) / jnp.sqrt((told**2).sum(axis=1) + TINY)


@eqx.filter_jit
def _share_right(nets: Any, which: Array, data: _Part, arm: str) -> Array:
    """Of directions within the angle that counts as right, in per cent, of each network."""
    arrays, others = eqx.partition(nets, eqx.is_inexact_array)

    def one(given: Any) -> Array:
        own = jax.tree.map(lambda leaf: leaf[given[1]], data)
        return 100 * (_cosines(eqx.combine(given[0], others), own, arm) > np.cos(np.radians(WITHIN))).mean()

    return jax.lax.map(one, (arrays, which))
