"""Training of many maps at once: every arm (weights of the terms of the loss) from every seed's samples, first weights and batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gradatim.lab import Session, host_generator
from gradatim.transport import (
    SQUARED_EUCLIDEAN,
    Convention,
    Cost,
    MapObjective,
    ResidualMap,
    SphereMap,
    StructuredMap,
    exact_monge_gap,
    mean_cost,
    sinkhorn_divergence,
)

from .config import Training
from .problems import Points

Build = Callable[[Any, Any, Cost], Any]
"From a network, a map to start from and the cost of the gap to the map."
ADAM = optax.scale_by_adam()
DRAWN = 200
"Points of the first seed that are kept for figures."
MOST_ROWS = 1024
"Points from which mean costs are taken."


class Weights(NamedTuple):
    """Of the terms of the loss beside the fit: an arm."""

    gap: float = 0.0
    displacement: float = 0.0
    asymmetry: float = 0.0
    fresh: float = 0.0
    "1 for batches from all points, 0 for those from the pool."


class Samples(NamedTuple):
    """What each seed trains on and is judged on: arrays of axes (seed, point, coordinate). The first points are the pool."""

    x: Points
    y: Points
    held_x: Points
    held_y: Points


def direct(network: Any, start: Any, cost: Cost) -> Any:
    """The network is the map."""
    return network


def on_sphere(network: Any, start: Any, cost: Cost) -> Any:
    """The network's value, brought to length one, is the image."""
    return SphereMap(network)


def corrected(network: Any, start: Any, cost: Cost) -> Any:
    """The network corrects a map that is not trained."""
    return ResidualMap(network, start)


def structured(network: Any, start: Any, cost: Any) -> Any:
    """The network is the gradient of a potential, from which the cost makes the map."""
    return StructuredMap(network, cost)


def _field(transport: ResidualMap | StructuredMap) -> Any:
    return transport.field


class _State(eqx.Module):
    networks: PyTree
    memory: PyTree
    missed: Int[Array, " runs"]
    "Steps with a transport problem that was not solved."
    fit: Float[Array, " runs"]
    gap: Float[Array, " runs"]


class _Task(eqx.Module):
    x: Float[Array, "seeds n dim"]
    y: Float[Array, "seeds n dim"]
    rows: Int[Array, "kinds steps seeds 2 batch"]
    weights: Float[Array, "runs 4"]
    seed_of: Int[Array, " runs"]
    fit_epsilon: Float[Array, " seeds"]
    gap_epsilon: Float[Array, " seeds"]
    starts: PyTree
    "Maps to start from, axis 0 the seed, or None."
    key: PRNGKeyArray
    rate: Float[Array, ""]
    n_steps: Float[Array, ""]
    network: Any
    "What a network holds beside its arrays."
    cost: Cost
    convention: Convention = eqx.field(static=True)
    build: Build = eqx.field(static=True)
    penalised: bool = eqx.field(static=True)

    def transport(self, arrays: PyTree, seed: Array) -> Any:
        """A run's map."""
        start = jax.tree.map(lambda leaf: leaf[seed], self.starts)
        return self.build(eqx.combine(arrays, self.network), start, self.cost)


class Trained(NamedTuple):
    """Maps after training, seen through the images of the held-out points."""

    images: np.ndarray  # (arm, seed, point, coordinate)
    divergence: np.ndarray  # (arm, seed)
    gap: np.ndarray  # (arm, seed), exact
    displacement: np.ndarray  # (arm, seed)
    missed: float  # share of steps with a transport problem that was not solved
    history: dict[str, np.ndarray]


def train(
    config: Training,
    samples: Samples,
    arms: Sequence[Weights],
    session: Session,
    key: jax.Array,
    *,
    label: str,
    build: Build = direct,
    cost: Cost = SQUARED_EUCLIDEAN,
    convention: Convention = "entropy",
    starts: PyTree = None,
    penalised: bool = False,
    judged_by: Cost | None = None,
) -> Trained:
    """Trains and judges. Arms of a seed share everything but their weights; with a map to start from, the network's last layer is zero.

    The exact gap is that of `judged_by`, or of the cost that is trained with.
    """
    key_weights, key_rows, key_probes = jax.random.split(key, 3)
    n_seeds, n, dim = samples.x.shape
    arrays, network = _networks(config, host_generator(key_weights), n_seeds, dim, is_correction=starts is not None)
    x, y, held_x, held_y = (np.asarray(part, np.float32) for part in samples)
    scales = [_scales(cost, jax.device_put(a[:MOST_ROWS]), jax.device_put(b[:MOST_ROWS])) for a, b in zip(x, y, strict=True)]
    fit_scale, gap_scale = np.asarray(scales, np.float32).T
    random = host_generator(key_rows)
    sizes = [config.pool, n] if any(arm.fresh for arm in arms) else [config.pool]
    rows = [np.stack([_batches(random, size, config) for _ in range(2 * n_seeds)], axis=1) for size in sizes]
    runs = len(arms) * n_seeds
    task = _Task(
        x=jax.device_put(x),
        y=jax.device_put(y),
        rows=jax.device_put(np.stack(rows).reshape(len(sizes), config.steps, n_seeds, 2, -1)),
        weights=jax.device_put(np.repeat(np.asarray(arms, np.float32), n_seeds, axis=0)),
        seed_of=jax.device_put(np.tile(np.arange(n_seeds, dtype=np.int32), len(arms))),
        fit_epsilon=jnp.asarray(config.fit_share * fit_scale, jnp.float32),
        gap_epsilon=jnp.asarray(config.gap_share * gap_scale, jnp.float32),
        starts=starts,
        key=key_probes,
        rate=jnp.float32(config.learning_rate),
        n_steps=jnp.float32(config.steps),
        network=network,
        cost=cost,
        convention=convention,
        build=build,
        penalised=penalised,
    )
    first = jax.tree.map(lambda leaf: np.tile(leaf, (len(arms),) + (1,) * (leaf.ndim - 1)), arrays)
    # On the host, where zeros of every shape need no program.
    zeros = [jax.tree.map(np.zeros_like, first) for _ in range(2)]
    none, missed = np.zeros(runs, np.float32), np.zeros(runs, np.int32)
    state = _State(*jax.device_put((first, optax.ScaleByAdamState(missed, *zeros), missed, none, none)))
    loop = session.loop(_step, state, steps=config.steps, args=task, watch=_watch, label=label)

    def judged() -> dict[str, np.ndarray]:
        images, divergence = (
            np.asarray(part) for part in _judged(task, loop.state.networks, jax.device_put(held_x), jax.device_put(held_y))
        )
        own = [jax.device_put(held_x[seed]) for seed in task.seed_of.tolist()]
        judge = cost if judged_by is None else judged_by
        exact = [exact_monge_gap(points, jax.device_put(moved), cost=judge) for points, moved in zip(own, images, strict=True)]
        columns = {
            "images": images,
            "divergence": divergence,
            "gap": np.array([gap.value for gap in exact]),
            "displacement": np.array([gap.displacement for gap in exact]),
        }
        return {name: column.reshape(len(arms), n_seeds, *column.shape[1:]) for name, column in columns.items()}

    found = session.once(f"{label}, judged", judged)
    missed = float(np.asarray(loop.state.missed).mean() / config.steps)
    if missed > 0:
        session.note(f"{label}: in {100 * missed:.2g} % of the steps a transport problem was not solved to 1e-3 within 500 iterations")
    return Trained(**found, missed=missed, history=loop.history)


@eqx.filter_jit
def _scales(cost: Cost, x: Array, y: Array) -> tuple[Array, Array]:
    """Mean costs within the target, of the fit, and between source and target, of the gap."""
    return mean_cost(SQUARED_EUCLIDEAN, y, y), mean_cost(cost, x, y)


def described(trained: Trained) -> dict[str, Any]:
    """What is known of trained maps, as variables of a dataset."""
    units = {"units": "1"}
    return {
        "divergence": (("arm", "seed"), trained.divergence, units),
        "gap": (("arm", "seed"), trained.gap, units),
        "displacement": (("arm", "seed"), trained.displacement, units),
        "fit_history": (("row", "arm", "seed"), trained.history["fit"].reshape(-1, *trained.gap.shape), units),
        "image": (("arm", "point", "axis"), trained.images[:, 0, :DRAWN], units),
        "gap_history": (("row", "arm", "seed"), trained.history["gap"].reshape(-1, *trained.gap.shape), units),
    }


def _networks(config: Training, random: np.random.Generator, n: int, dim: int, *, is_correction: bool) -> tuple[PyTree, Any]:
    """Arrays of n networks, with equinox's own first weights but drawn on the host, and what else a network is."""

    def make() -> eqx.nn.MLP:
        return eqx.nn.MLP(dim, dim, config.width, config.depth, activation=jax.nn.gelu, key=jax.random.key(0))

    shapes = eqx.filter_eval_shape(make)
    leaves, structure = jax.tree.flatten(eqx.filter(shapes, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct)))
    arrays: list[np.ndarray] = []
    for leaf in leaves:
        # A bias follows its weights, and has their bound.
        fan_in = leaf.shape[1] if len(leaf.shape) == 2 else arrays[-1].shape[2]
        arrays.append(random.uniform(-1, 1, (n, *leaf.shape)).astype(np.float32) / fan_in**0.5)
    if is_correction:
        arrays[-2:] = [np.zeros_like(array) for array in arrays[-2:]]
    others = eqx.filter(shapes, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))
    return structure.unflatten(arrays), others


def _batches(random: np.random.Generator, n: int, config: Training) -> np.ndarray:
    """Rows of each step, a new order each time the points are through."""
    size = min(config.batch_size, n)
    per_epoch = n // size
    n_epochs = -(-config.steps // per_epoch)
    orders = np.stack([random.permutation(n)[: per_epoch * size] for _ in range(n_epochs)])
    return orders.reshape(-1, size)[: config.steps].astype(np.int32)


# One function each for all trainings, with everything in `args`: equal shapes are compiled once.
def _step(state: _State, i: Array, task: _Task) -> _State:
    rate = task.rate * (1 + jnp.cos(jnp.pi * i / task.n_steps)) / 2

    def one(given: tuple[Any, ...]) -> tuple[Any, ...]:
        arrays, memory, missed, weights, seed = given
        rows = task.rows[weights[3].astype(jnp.int32), i, seed]
        objective = MapObjective(
            fit_epsilon=task.fit_epsilon[seed],
            gap_epsilon=task.gap_epsilon[seed],
            gap_weight=weights[0],
            displacement_weight=weights[1],
            asymmetry_weight=weights[2] if task.penalised else None,
            cost=task.cost,
            convention=task.convention,
            field=_field,
        )

        def loss_of(arrays: Any) -> Any:
            probes = jax.random.fold_in(jax.random.fold_in(task.key, i), seed)
            return objective(task.transport(arrays, seed), task.x[seed, rows[0]], task.y[seed, rows[1]], probes)

        gradient, terms = jax.grad(loss_of, has_aux=True)(arrays)
        updates, memory = ADAM.update(gradient, memory)
        arrays = jax.tree.map(lambda p, u: p - rate * u, arrays, updates)
        return arrays, memory, missed + ~terms.is_converged, terms.fit, terms.gap

    # One after another: side by side all would wait for the transport problem that takes longest.
    given = (state.networks, state.memory, state.missed, task.weights, task.seed_of)
    return _State(*jax.lax.map(one, given))


def _watch(state: _State, task: _Task) -> dict[str, Array]:
    del task
    return {"fit": state.fit, "gap": state.gap}


@eqx.filter_jit
def _judged(task: _Task, networks: PyTree, x: Array, y: Array) -> tuple[Array, Array]:
    """Of every run the images of held-out points, and their divergence from held-out points of the target."""

    def of(given: tuple[Any, Array]) -> tuple[Array, Array]:
        arrays, seed = given
        images = jax.vmap(task.transport(arrays, seed))(x[seed])
        return images, sinkhorn_divergence(images, y[seed], epsilon=task.fit_epsilon[seed]).value

    return jax.lax.map(of, (networks, task.seed_of))
