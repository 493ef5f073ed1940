"""All training: the arms, learning rates and seeds of networks that are wired alike are lanes of one compiled loop.

Within a step lanes go one after another: each settles in its own time, none waits for the slowest, and its weights stay in the cache; as
one batch they take half as long again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim import datasets
from gradatim.implicit import (
    AbstractResponse,
    ForwardResponse,
    LayeredNetwork,
    RecurrentAdjoint,
    activities,
    chain_connections,
    equilibrium_propagation,
    homeostatic_loss,
    loop_connections,
    relax,
    set_weight_angle,
    weight_symmetry,
)
from gradatim.lab import Session, epochs

from .config import Training

CLASSES = 10
FORWARD = ("in->l1", "l1->l2", "l2->out")
"The connections whose gradients are compared, layer by layer."
MOMENTUM = 0.9
SETTLED = 1e-2
"Largest move of a unit in the last step of a free phase, in single precision, above which a network swings on."
CONVERGED = 1e-5
"Of the responses that are compared, relative, and of the free phases before them."


class Images(eqx.Module):
    """Training and test images as rows, with pixels of zero mean and unit variance over the training images."""

    inputs: Float[Array, "n features"]
    labels: Int[Array, " n"]
    test_inputs: Float[Array, "m features"]
    test_labels: Int[Array, " m"]

    @classmethod
    def load(cls, config: Training, session: Session) -> Images:
        """From the data set of the configuration, in single precision."""
        train, test = (
            datasets.load(config.data, split=split, n=n, pool=config.pool)
            for split, n in (("train", config.n_train), ("test", config.n_test))
        )
        session.uses(train.provenance)
        mean, spread = train.images.mean(), train.images.std()
        rows = [jnp.asarray(((part.images - mean) / spread).reshape(len(part), -1), jnp.float32) for part in (train, test)]
        return cls(rows[0], jnp.asarray(train.labels), rows[1], jnp.asarray(test.labels))


@dataclass(frozen=True)
class Arm:
    """What is trained, and how its gradient is found."""

    name: str
    degrees: float | None = 90.0
    "Angle of the backward weights at the start, None for a loop, which has none."
    is_adjoint: bool = False
    "Recurrent backpropagation instead of equilibrium propagation."
    homeostasis: float = 0.0
    "Coefficient of the homeostatic loss."
    decay: float = 0.0
    "Coefficient of the sum of the squared weights between layers over the number of units."


@dataclass(frozen=True)
class Family:
    """Arms that are compared with one another, by one optimiser on one grid of rates."""

    optimizer: str
    rates: tuple[float, ...]
    arms: tuple[Arm, ...]

    @property
    def lanes(self) -> list[tuple[Arm, float]]:
        """Every arm at every rate, arms slowest."""
        return [(arm, rate) for arm in self.arms for rate in self.rates]


ANGLES = (0.0, 45.0, 90.0)


def families(config: Training) -> dict[str, dict[str, Family]]:
    """By wiring: equilibrium propagation beside backpropagation by angle, with and without the loss from two angles; and the loop."""
    both = [Arm(f"{name} {angle:g}", angle, name == "RBP") for name in ("RBP", "EP") for angle in ANGLES]
    chain, loop = config.chain_coefficient, config.loop_coefficient
    settings = [(angle, words, c) for angle in (0.0, 90.0) for words, c in (("without", 0.0), ("with", chain))]
    with_loss = [Arm(f"{angle:g}, {words}", angle, homeostasis=c) for angle, words, c in settings]
    looped = [Arm("without", None), Arm("with", None, homeostasis=loop), Arm("decay", None, decay=loop)]
    return {
        "chain": {
            "angles": Family("sgd", config.sgd_rates, tuple(both)),
            "homeostasis": Family("adamw", config.adam_rates, tuple(with_loss)),
        },
        "loop": {"loop": Family("sgd", config.sgd_rates, tuple(looped))},
    }


class Lane(NamedTuple):
    """The numbers of a run. Lanes go one after another, so that of two branches only the one that a lane takes is computed."""

    rate: Array
    is_adam: Array
    is_adjoint: Array
    homeostasis: Array
    decay: Array


class Chosen(AbstractResponse):
    """The response or the adjoint, as a lane says: both take the same few steps."""

    is_adjoint: Array
    steps: int = eqx.field(static=True)

    def __call__(self, network: Any, drive: Any, target: Any, state: Any) -> Any:
        """As the lane says."""
        ways = (RecurrentAdjoint(self.steps), ForwardResponse(self.steps))
        return jax.lax.cond(self.is_adjoint, *ways, network, drive, target, state)


class Work(eqx.Module):
    """What a loop is given."""

    images: Images
    orders: Int[Array, "seeds steps batch"]
    keys: Array
    lanes: Lane
    config: Training = eqx.field(static=True)

    def descents(self, rate: Any) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
        """With momentum, and AdamW with optax's default decay of 1e-4; the rate falls to zero along a cosine."""
        schedule = optax.cosine_decay_schedule(rate, self.orders.shape[1])
        return optax.sgd(schedule, MOMENTUM), optax.adamw(schedule)

    def loss(
        self, network: LayeredNetwork, x: Float[Array, "batch features"], y: Int[Array, " batch"], key: PRNGKeyArray, lane: Lane
    ) -> Float[Array, ""]:
        """Of a batch; the gradient is the lane's estimate."""
        c = self.config
        response = Chosen(lane.is_adjoint, c.response_steps)
        found = jax.vmap(lambda x, y: equilibrium_propagation(network, x, y, response=response, steps=c.free_steps, tolerance=c.tolerance))(
            x, y
        )
        value = found.loss.mean()
        # The field is linear in the activities, so that all images have one Jacobian: the probes of all are drawn for the first.
        first = jax.tree.map(lambda r: r[0], found.activity)

        def homeostasis() -> Array:
            return lane.homeostasis * homeostatic_loss(network, x[0], first, key, n_probes=c.n_probes * c.batch_size)

        value += jax.lax.cond(lane.homeostasis > 0, homeostasis, lambda: jnp.zeros((), value.dtype))
        if alone := network.unpaired():
            n_units = sum(b.size for b in network.biases.values())
            value += lane.decay * sum(jnp.sum(network.weights[name] ** 2) for name in alone) / n_units
        return value


class State(eqx.Module):
    """Networks and memories of both optimisers, axes (seed, lane)."""

    networks: LayeredNetwork
    memory: Any


def train(
    config: Training, wiring: str, images: Images, session: Session, key: PRNGKeyArray
) -> tuple[dict[str, xr.Dataset], dict[str, LayeredNetwork]]:
    """Trains all families of a wiring: curves over (arm, rate, seed, epoch), and the last networks on the host, axes (seed, arm, rate)."""
    per_epoch = config.n_train // config.batch_size
    steps = config.epochs * per_epoch
    key_first, key_order, key_probe = jax.random.split(key, 3)
    members = families(config)[wiring]
    # All lanes of a seed share its first weights, images and probes.
    lanes = [(family, arm, rate) for family in members.values() for arm, rate in family.lanes]
    numbers = Lane(
        jnp.asarray([rate for _, _, rate in lanes], jnp.float32),
        jnp.asarray([family.optimizer == "adamw" for family, _, _ in lanes]),
        jnp.asarray([arm.is_adjoint for _, arm, _ in lanes]),
        jnp.asarray([arm.homeostasis for _, arm, _ in lanes], jnp.float32),
        jnp.asarray([arm.decay for _, arm, _ in lanes], jnp.float32),
    )
    rows = orders(jax.random.split(key_order, config.seeds), config.n_train, config.batch_size, steps)
    work = Work(images, rows, jax.random.split(key_probe, config.seeds), numbers, config)
    degrees = jnp.asarray([arm.degrees or 0.0 for _, arm, _ in lanes], jnp.float32)
    state = first_state(work, jax.random.split(key_first, config.seeds), degrees, wiring)
    loop = session.loop(step, state, steps=steps, args=work, every=per_epoch, watch=watch, label=wiring, on_nonfinite="keep")
    last = jax.tree.map(np.asarray, loop.state.networks)
    curves, networks, start = {}, {}, 0
    for name, family in members.items():
        mine = slice(start, start := start + len(family.lanes))
        shape = (len(family.arms), len(family.rates))
        history = {what: values[:, :, mine] for what, values in loop.history.items() if what != "step"}
        curves[name] = as_dataset(history, family, config.seeds)

        def of_family(w: np.ndarray, mine: slice = mine, shape: tuple[int, int] = shape) -> np.ndarray:
            return w[:, mine].reshape(len(w), *shape, *w.shape[2:])

        networks[name] = jax.tree.map(of_family, last)
    return curves, networks


def as_dataset(history: dict[str, np.ndarray], family: Family, n_seeds: int) -> xr.Dataset:
    """What was watched, axes (epoch, seed, lane), by arm and rate."""
    units = {"accuracy": "%", "unsettled": "%", "angle": "degrees"}
    variables: dict[str, Any] = {}
    for name, values in history.items():
        shaped = values.reshape(len(values), n_seeds, len(family.arms), len(family.rates), *values.shape[3:])
        dims = ("arm", "rate", "seed", "epoch", *(("connection",) if name == "cosine" else ()))
        variables[name] = (dims, np.moveaxis(shaped, (2, 3, 1, 0), (0, 1, 2, 3)).astype(np.float64), {"units": units.get(name, "1")})
    n_epochs = len(history["accuracy"])
    coordinates = {
        "arm": [arm.name for arm in family.arms], "rate": list(family.rates), "seed": np.arange(n_seeds), "epoch": np.arange(n_epochs),
        "connection": list(FORWARD),
    }  # fmt: skip
    return xr.Dataset(variables, coordinates)


@eqx.filter_jit
def orders(keys: Array, n: int, batch_size: int, steps: int) -> Array:
    """Rows of every batch, for each seed."""
    return jax.lax.map(lambda key: epochs(key, n, batch_size=batch_size, steps=steps), keys)


@eqx.filter_jit
def first_state(work: Work, keys: Array, degrees: Array, wiring: str) -> State:
    """Before the first step, in single precision."""
    c = work.config
    sizes = {"in": c.pool**2, "l1": c.width, "l2": c.width, "out": CLASSES}
    connections = {"chain": chain_connections, "loop": loop_connections}[wiring](sizes)

    def of_seed(key: PRNGKeyArray) -> LayeredNetwork:
        network = LayeredNetwork(sizes, connections, classes=CLASSES, gain=c.gain, key=key, dtype=jnp.float32)
        if wiring == "loop":
            return jax.tree.map(lambda w: jnp.broadcast_to(w, (len(degrees), *w.shape)), network)
        return eqx.filter_vmap(set_weight_angle, in_axes=(None, 0))(network, degrees)

    networks = jax.lax.map(of_seed, keys)

    def memories(network: Any, rate: Array) -> Any:
        return tuple(descent.init(network) for descent in work.descents(rate))

    memory = jax.vmap(jax.vmap(memories), in_axes=(0, None))(networks, work.lanes.rate)
    return State(networks, memory)


def step(state: State, i: Array, work: Work) -> State:
    """One batch of every seed."""

    def of_seed(inputs: Any) -> State:
        networks, memory, rows, key = inputs
        x, y = work.images.inputs[rows], work.images.labels[rows]

        def of_lane(inputs: Any) -> State:
            network, memory, lane = inputs
            gradient: Any = jax.grad(work.loss)(network, x, y, key, lane)
            momentum, adam = work.descents(lane.rate)

            def with_adam() -> Any:
                updates, after = adam.update(gradient, memory[1], network)
                return updates, (memory[0], after)

            def with_momentum() -> Any:
                updates, after = momentum.update(gradient, memory[0], network)
                return updates, (after, memory[1])

            updates, memory = jax.lax.cond(lane.is_adam, with_adam, with_momentum)
            after: Any = optax.apply_updates(network, updates)
            return State(after, memory)

        return jax.lax.map(of_lane, (networks, memory, work.lanes))

    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(work.keys, i)
    return jax.lax.map(of_seed, (state.networks, state.memory, work.orders[:, i], keys))


def watch(state: State, work: Work) -> dict[str, Array]:
    """Accuracy, symmetry, and how far the estimated gradient points along the true one, axes (seed, lane)."""
    c, images = work.config, work.images

    def of_network(network: LayeredNetwork) -> dict[str, Array]:
        def label(x: Array) -> tuple[Array, Array]:
            found = relax(network, network.drive(x), steps=c.free_steps, tolerance=c.tolerance)
            return network.predict(activities(network, found.state)).argmax(), found.residual

        labels, residuals = jax.vmap(label)(images.test_inputs)
        symmetry = weight_symmetry(network)
        pairs = network.reciprocal_pairs()
        wide = jnp.sqrt(sum((jnp.sum((network.weights[w] - network.weights[b].T) ** 2) for w, b in pairs), jnp.zeros((), jnp.float32)))
        near = jnp.sqrt(sum((jnp.sum((network.weights[w] + network.weights[b].T) ** 2) for w, b in pairs), jnp.zeros((), jnp.float32)))
        settled = residuals <= SETTLED
        return {
            # Of an image for which a network swings on, it has no answer.
            "accuracy": 100 * jnp.mean((settled & (labels == images.test_labels)).astype(jnp.float32)),
            "compared_residual": residuals[: c.watched].max(),
            "unsettled": 100 * jnp.mean((~settled).astype(jnp.float32)),
            "score": symmetry.score,
            "antisymmetric": symmetry.antisymmetric,
            "angle": jnp.rad2deg(2 * jnp.arctan2(wide, near)),
            "cosine": cosines(network, images.test_inputs[: c.watched], images.test_labels[: c.watched], c.free_steps),
        }

    return jax.lax.map(lambda networks: jax.lax.map(of_network, networks), state.networks)


def cosines(network: LayeredNetwork, x: Array, y: Array, steps: int) -> Float[Array, " connection"]:
    """Of estimated and true gradient of the mean loss, for each forward connection."""

    def gradient(response: AbstractResponse) -> LayeredNetwork:
        def loss(network: LayeredNetwork) -> Array:
            return jax.vmap(lambda x, y: equilibrium_propagation(network, x, y, response=response, steps=steps, tolerance=CONVERGED).loss)(
                x, y
            ).mean()

        return jax.grad(loss)(network)

    estimated, true = (gradient(way(steps, CONVERGED)) for way in (ForwardResponse, RecurrentAdjoint))
    pairs = [(estimated.weights[c], true.weights[c]) for c in FORWARD]
    return jnp.stack([jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b) + 1e-30) for a, b in pairs])
