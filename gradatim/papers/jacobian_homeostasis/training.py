"""All training: the arms and learning rates of a group are lanes of one compiled loop, and so are the seeds.

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
class Group:
    """Arms that share wiring, optimiser and grid of rates, and so one compiled loop."""

    name: str
    wiring: str
    optimizer: str
    rates: tuple[float, ...]
    arms: tuple[Arm, ...]

    @property
    def is_homeostatic(self) -> bool:
        """Whether any arm has the loss: else no step computes it."""
        return any(arm.homeostasis for arm in self.arms)


ANGLES = (0.0, 45.0, 90.0)


def groups(config: Training) -> tuple[Group, Group, Group]:
    """Equilibrium propagation beside backpropagation by angle; with and without the loss from two angles; and the loop."""
    both = [Arm(f"{name} {angle:g}", angle, name == "RBP") for name in ("RBP", "EP") for angle in ANGLES]
    chain, loop = config.chain_coefficient, config.loop_coefficient
    settings = [(angle, words, c) for angle in (0.0, 90.0) for words, c in (("without", 0.0), ("with", chain))]
    with_loss = [Arm(f"{angle:g}, {words}", angle, homeostasis=c) for angle, words, c in settings]
    looped = [Arm("without", None), Arm("with", None, homeostasis=loop), Arm("decay", None, decay=loop)]
    return (
        Group("angles", "chain", "sgd", config.sgd_rates, tuple(both)),
        Group("homeostasis", "chain", "adamw", config.adam_rates, tuple(with_loss)),
        Group("loop", "loop", "sgd", config.sgd_rates, tuple(looped)),
    )


class Lane(NamedTuple):
    """The numbers of a run."""

    rate: Array
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
    keys: PRNGKeyArray
    lanes: Lane
    config: Training = eqx.field(static=True)
    optimizer: str = eqx.field(static=True)
    is_homeostatic: bool = eqx.field(static=True)
    is_decayed: bool = eqx.field(static=True)

    def descent(self, rate: Any) -> optax.GradientTransformation:
        """The group's optimiser; AdamW decays the weights by optax's default of 1e-4."""
        return optax.sgd(rate, MOMENTUM) if self.optimizer == "sgd" else optax.adamw(rate)

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
        if self.is_homeostatic:
            # The field is linear in the activities, so that all images have one Jacobian: the probes of all are drawn for the first.
            first = jax.tree.map(lambda r: r[0], found.activity)
            value += lane.homeostasis * homeostatic_loss(network, x[0], first, key, n_probes=c.n_probes * c.batch_size)
        if self.is_decayed:
            n_units = sum(b.size for b in network.biases.values())
            value += lane.decay * sum(jnp.sum(network.weights[c] ** 2) for c in network.unpaired()) / n_units
        return value


class State(eqx.Module):
    """Networks and memories of the optimiser, axes (seed, lane)."""

    networks: LayeredNetwork
    memory: Any


def train(config: Training, group: Group, images: Images, session: Session, key: PRNGKeyArray) -> tuple[xr.Dataset, LayeredNetwork]:
    """Trains a group: curves over (arm, rate, seed, epoch), and the last networks, axes (seed, arm, rate)."""
    per_epoch = config.n_train // config.batch_size
    steps = config.epochs * per_epoch
    key_first, key_order, key_probe = jax.random.split(key, 3)
    # Arms slowest; all lanes of a seed share its first weights, images and probes.
    lanes = [(arm, rate) for arm in group.arms for rate in group.rates]
    numbers = Lane(
        jnp.asarray([rate for _, rate in lanes], jnp.float32),
        jnp.asarray([arm.is_adjoint for arm, _ in lanes]),
        jnp.asarray([arm.homeostasis for arm, _ in lanes], jnp.float32),
        jnp.asarray([arm.decay for arm, _ in lanes], jnp.float32),
    )
    work = Work(
        images, orders(jax.random.split(key_order, config.seeds), config.n_train, config.batch_size, steps),
        jax.random.split(key_probe, config.seeds), numbers, config, group.optimizer, group.is_homeostatic,
        any(arm.decay for arm in group.arms),
    )  # fmt: skip
    degrees = jnp.asarray([arm.degrees or 0.0 for arm, _ in lanes], jnp.float32)
    state = first_state(work, jax.random.split(key_first, config.seeds), degrees, group.wiring)
    loop = session.loop(step, state, steps=steps, args=work, every=per_epoch, watch=watch, label=group.name, on_nonfinite="keep")
    shape = (config.epochs + 1, config.seeds, len(group.arms), len(group.rates))
    units = {"accuracy": "%", "angle": "degrees"}
    variables: dict[str, Any] = {}
    for name, values in loop.history.items():
        if name != "step":
            rows = np.moveaxis(values.reshape(*shape, *values.shape[3:]), (2, 3, 1, 0), (0, 1, 2, 3))
            dims = ("arm", "rate", "seed", "epoch", *(("connection",) if name == "cosine" else ()))
            variables[name] = (dims, rows.astype(np.float64), {"units": units.get(name, "1")})
    coordinates = {
        "arm": [arm.name for arm in group.arms], "rate": list(group.rates), "seed": np.arange(config.seeds),
        "epoch": np.arange(config.epochs + 1), "connection": list(FORWARD),
    }  # fmt: skip
    networks = jax.tree.map(lambda w: w.reshape(config.seeds, len(group.arms), len(group.rates), *w.shape[2:]), loop.state.networks)
    return xr.Dataset(variables, coordinates), networks


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
    memory = jax.vmap(jax.vmap(lambda network, rate: work.descent(rate).init(network)), in_axes=(0, None))(networks, work.lanes.rate)
    return State(networks, memory)


def step(state: State, i: Array, work: Work) -> State:
    """One batch of every seed."""

    def of_seed(inputs: Any) -> State:
        networks, memory, rows, key = inputs
        x, y = work.images.inputs[rows], work.images.labels[rows]

        def of_lane(inputs: Any) -> State:
            network, memory, lane = inputs
            gradient = jax.grad(work.loss)(network, x, y, key, lane)
            updates, memory = work.descent(lane.rate).update(gradient, memory, network)
            return State(optax.apply_updates(network, updates), memory)

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
        return {
            "accuracy": 100 * jnp.mean((labels == images.test_labels).astype(jnp.float32)),
            "residual": residuals.max(),
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
