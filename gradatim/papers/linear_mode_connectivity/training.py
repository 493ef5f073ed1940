"""All runs of an arm at once: two children of every fork and one network of another initialisation, for every seed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gradatim import datasets
from gradatim.lab import Session, epochs
from gradatim.landscape import displacement_angle, distance, forked_orders, interpolate

from .config import Arm, Config

CLASSES = 10
NEVER = -1.0
"An angle that there is not yet: NaN would stand for a run that diverged."


class Images(eqx.Module):
    """Training and test images as rows, the same for all runs, with pixels of zero mean and unit variance over the training images."""

    inputs: Float[Array, "n features"]
    labels: Int[Array, " n"]
    test_inputs: Float[Array, "m features"]
    test_labels: Int[Array, " m"]

    @classmethod
    def load(cls, config: Config, session: Session) -> Images:
        """From the data set of the configuration."""
        train, test = (
            datasets.load(config.data, split=split, n=n, pool=config.pool)
            for split, n in (("train", config.n_train), ("test", config.n_test))
        )
        session.uses(train.provenance)
        mean, spread = train.images.mean(), train.images.std()
        rows = [jnp.asarray(((part.images - mean) / spread).reshape(len(part), -1), jnp.float32) for part in (train, test)]
        return cls(rows[0], jnp.asarray(train.labels), rows[1], jnp.asarray(test.labels))


class Problem(eqx.Module):
    """The losses of a network with the arm's activation."""

    images: Images
    activation: str = eqx.field(static=True)

    def outputs(self, layers: tuple[eqx.nn.Linear, ...], inputs: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        """Logits of rows."""
        activation = {"relu": jax.nn.relu, "tanh": jnp.tanh}[self.activation]
        for number, layer in enumerate(layers):
            inputs = inputs @ layer.weight.T + _bias(layer)[None]
            inputs = activation(inputs) if number + 1 < len(layers) else inputs
        return inputs

    def loss(self, layers: tuple[eqx.nn.Linear, ...]) -> Float[Array, ""]:
        """Of all training images."""
        return cross_entropy(self.outputs(layers, self.images.inputs), self.images.labels)

    def loss_of(self, layers: tuple[eqx.nn.Linear, ...], rows: Int[Array, " batch"]) -> Float[Array, ""]:
        """Of a batch."""
        return cross_entropy(self.outputs(layers, self.images.inputs[rows]), self.images.labels[rows])

    def loss_of_first(self, n: int, layers: tuple[eqx.nn.Linear, ...]) -> Float[Array, ""]:
        """Of the first training images, which are as mixed as any."""
        return cross_entropy(self.outputs(layers, self.images.inputs[:n]), self.images.labels[:n])

    def test_loss(self, layers: tuple[eqx.nn.Linear, ...]) -> Float[Array, ""]:
        """Of all test images."""
        return cross_entropy(self.outputs(layers, self.images.test_inputs), self.images.test_labels)

    def accuracy(self, layers: tuple[eqx.nn.Linear, ...]) -> Float[Array, ""]:
        """Share of test images that are told right."""
        return jnp.mean(self.outputs(layers, self.images.test_inputs).argmax(axis=1) == self.images.test_labels)


def cross_entropy(outputs: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def _bias(layer: eqx.nn.Linear) -> Array:
    assert layer.bias is not None
    return layer.bias


class _State(eqx.Module):
    params: PyTree
    momentum: optax.OptState
    path: PyTree
    "The first two runs after every epoch, with the epochs along axis 0."


class _Work(eqx.Module):
    """What a stretch of training is given."""

    problem: Problem
    orders: Int[Array, "runs steps batch"]
    first: Int[Array, ""]
    "Steps done before this stretch."
    bases: PyTree
    "Parameters at each seed's forks, axes (seed, fork); where there was no fork yet, those of the start."
    forks_done: Int[Array, ""]
    seeds: int = eqx.field(static=True)
    rate: float = eqx.field(static=True)
    decay: float = eqx.field(static=True)
    steps_per_epoch: int = eqx.field(static=True)
    watched: int = eqx.field(static=True)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.sgd(self.rate, momentum=self.decay)


class Runs(NamedTuple):
    """What came of an arm: K forks, K + 1 pairs, the last of which began apart."""

    problem: Problem
    firsts: PyTree  # axes (seed, pair)
    seconds: PyTree
    bases: PyTree  # axes (seed, fork)
    path: PyTree  # axes (epoch, child): the first seed's fork at the start
    history: dict[str, np.ndarray]  # by epoch


def train(config: Config, arm: Arm, images: Images, session: Session, key: PRNGKeyArray) -> Runs:
    """Trains all runs of an arm, stretch by stretch between the forks."""
    forks, steps_per_epoch = config.fork_epochs, config.n_train // config.batch_size
    check_forks(config, arm)
    problem = Problem(images, arm.activation)
    shapes = network(config.pool**2, config.width, config.hidden_layers)
    key_initial, key_order = jax.random.split(key)
    starts = initialised(shapes, jax.random.split(key_initial, 2 * config.seeds), jnp.asarray(arm.initial_gain))
    orders = _orders(jax.random.split(key_order, 4 * config.seeds), config.n_train, config.batch_size, arm.epochs * steps_per_epoch)
    fork_steps = tuple(k * steps_per_epoch for k in forks)
    runs, all_orders = _laid_out(starts, orders, fork_steps, config.seeds)
    work = _Work(
        problem=problem,
        orders=all_orders,
        first=jnp.asarray(0, jnp.int32),
        bases=_at_fork(runs, config.seeds, len(forks)),
        forks_done=jnp.asarray(0, jnp.int32),
        seeds=config.seeds,
        rate=arm.learning_rate,
        decay=config.momentum,
        steps_per_epoch=steps_per_epoch,
        watched=min(config.watched, config.n_train),
    )
    state = _first_state(runs, work.optimizer, arm.epochs)
    rows: list[dict[str, np.ndarray]] = []
    for number, (epoch, until) in enumerate(zip(forks, (*forks[1:], arm.epochs), strict=True)):
        work = _begun(work, state.params, jnp.asarray(epoch * steps_per_epoch, jnp.int32), jnp.asarray(number, jnp.int32))
        label = f"{arm.activation}, epochs {epoch} to {until}"
        loop = session.loop(
            _step, state, steps=(until - epoch) * steps_per_epoch, args=work, every=steps_per_epoch, watch=_watch, label=label
        )
        state = loop.state
        # The last row of a stretch is the first of the next, where one fork more is under way.
        skipped = 0 if number == 0 else 1
        rows.append({name: values[skipped:] for name, values in loop.history.items() if name != "step"})
    history = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    history["angle"] = np.where(history["angle"] == NEVER, np.nan, history["angle"])
    firsts, seconds = _pairs(state.params, config.seeds, len(forks))
    return Runs(problem, firsts, seconds, work.bases, state.path, history)


@eqx.filter_jit
def _first_state(runs: PyTree, optimizer: optax.GradientTransformation, n_epochs: int) -> _State:
    path = jax.tree.map(lambda x: jnp.broadcast_to(x[:2], (n_epochs + 1, *x[:2].shape)), runs)
    return _State(runs, optimizer.init(runs), path)


def check_forks(config: Config, arm: Arm) -> None:
    """Refuses forks that do not ascend from 0, or that do not lie within the training.

    **Raises:** `ValueError`.
    """
    forks = config.fork_epochs
    if forks[0] != 0 or list(forks) != sorted(set(forks)) or forks[-1] >= arm.epochs:
        raise ValueError(f"fork_epochs must ascend from 0 and end before the {arm.epochs} epochs of training, got {forks}")


def network(features: int, width: int, hidden_layers: int) -> tuple[eqx.nn.Linear, ...]:
    """The shapes of the layers."""
    sizes = (features, *(width for _ in range(hidden_layers)), CLASSES)

    def build() -> tuple[eqx.nn.Linear, ...]:
        return tuple(eqx.nn.Linear(m, n, key=jax.random.key(0)) for m, n in pairwise(sizes))

    return eqx.filter_eval_shape(build)


@eqx.filter_jit
def initialised(shapes: PyTree, keys: Array, gain: Array) -> PyTree:
    """One network for each key: normal weights of standard deviation gain/√inputs, zero biases."""
    leaves, structure = jax.tree.flatten(shapes)

    def draw(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
        if len(shape) == 1:
            return jnp.zeros(shape)
        # Drawn flat: the same numbers, in a program that XLA compiles many times faster than one of several axes.
        return gain / math.sqrt(shape[1]) * jax.random.normal(key, (math.prod(shape),)).reshape(shape)

    def one(key: PRNGKeyArray) -> PyTree:
        return structure.unflatten([draw(k, leaf.shape) for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)])

    return jax.lax.map(one, keys)


@eqx.filter_jit
def _orders(keys: Array, n: int, batch_size: int, steps: int) -> Array:
    return jax.lax.map(lambda key: epochs(key, n, batch_size=batch_size, steps=steps), keys)


@eqx.filter_jit
def _begun(work: _Work, params: PyTree, first: Array, fork: Array) -> _Work:
    """The work of the stretch that begins with a fork, whose parameters are kept for it and, until theirs come, for those after it."""
    now = _at_fork(params, work.seeds, jax.tree.leaves(work.bases)[0].shape[1])

    def keep(old: Array, new: Array) -> Array:
        is_later = (jnp.arange(old.shape[1]) >= fork).reshape(1, -1, *(1 for _ in old.shape[2:]))
        return jnp.where(is_later, new, old)

    bases = jax.tree.map(keep, work.bases, now)
    return eqx.tree_at(lambda w: (w.first, w.bases, w.forks_done), work, (first, bases, fork + 1))


@eqx.filter_jit
def _laid_out(starts: PyTree, orders: Array, fork_steps: tuple[int, ...], seeds: int) -> tuple[PyTree, Array]:
    """First parameters and orders of all runs, seed by seed: the two children of each fork, then the one that begins apart."""
    children = 2 * len(fork_steps)
    by_seed = orders.reshape(seeds, 4, *orders.shape[1:])
    laid_out = [
        jnp.concatenate([forked_orders(trunk, branches, fork_steps).reshape(children, *trunk.shape), apart[None]])
        for trunk, branches, apart in ((one[0], one[1:3], one[3]) for one in by_seed)
    ]

    def runs_of(x: Array) -> Array:
        common, apart = x.reshape(seeds, 2, *x.shape[1:]).swapaxes(0, 1)
        copies = jnp.broadcast_to(common[:, None], (seeds, children, *x.shape[1:]))
        return jnp.concatenate([copies, apart[:, None]], axis=1).reshape(-1, *x.shape[1:])

    return jax.tree.map(runs_of, starts), jnp.concatenate(laid_out)


def _by_seed(params: PyTree, seeds: int) -> PyTree:
    return jax.tree.map(lambda x: x.reshape(seeds, -1, *x.shape[1:]), params)


@eqx.filter_jit
def _at_fork(params: PyTree, seeds: int, n_forks: int) -> PyTree:
    """The first child of every fork: until then it is the trunk."""
    return jax.tree.map(lambda x: x[:, 0 : 2 * n_forks : 2], _by_seed(params, seeds))


@eqx.filter_jit
def _pairs(params: PyTree, seeds: int, n_forks: int) -> tuple[PyTree, PyTree]:
    rows = _by_seed(params, seeds)
    first, second = _numbers(n_forks)
    return jax.tree.map(lambda x: x[:, first], rows), jax.tree.map(lambda x: x[:, second], rows)


def _numbers(n_forks: int) -> tuple[np.ndarray, np.ndarray]:
    """Which runs of a seed make pairs: both children of every fork, then the first child of the first fork and the run that began apart."""
    return np.array([*range(0, 2 * n_forks, 2), 0]), np.array([*range(1, 2 * n_forks, 2), 2 * n_forks])


# One function each for all loops, with the data in `args`: equal shapes are compiled once.
def _step(state: _State, i: Array, work: _Work) -> _State:
    now = work.first + i
    gradient = jax.vmap(jax.grad(work.problem.loss_of))(state.params, work.orders[:, now])
    updates, momentum = work.optimizer.update(gradient, state.momentum)
    params = optax.apply_updates(state.params, updates)
    # Overwritten until the epoch is over.
    epoch = 1 + now // work.steps_per_epoch
    return _State(params, momentum, jax.tree.map(lambda seen, x: seen.at[epoch].set(x[:2]), state.path, params))


def _watch(state: _State, work: _Work) -> dict[str, Array]:
    n_forks = jax.tree.leaves(work.bases)[0].shape[1]
    firsts, seconds = _pairs(state.params, work.seeds, n_forks)

    def loss(params: Any) -> Array:
        return work.problem.loss_of_first(work.watched, params)

    losses = jax.lax.map(loss, state.params).reshape(work.seeds, -1)
    middles = jax.lax.map(lambda pair: loss(interpolate(pair[0], pair[1], 0.5)), (flat(firsts), flat(seconds))).reshape(work.seeds, -1)
    first, second = _numbers(n_forks)
    angles = jax.vmap(jax.vmap(displacement_angle))(work.bases, _without_last(firsts), _without_last(seconds))
    is_apart = jnp.isfinite(angles) & (jnp.arange(n_forks) < work.forks_done)[None]
    return {
        "loss": losses,
        "middle": middles - (losses[:, first] + losses[:, second]) / 2,
        "distance": jax.vmap(jax.vmap(distance))(firsts, seconds),
        "angle": jnp.where(is_apart, angles, NEVER),
    }


def flat(pairs: PyTree) -> PyTree:
    """Seeds and pairs as one axis."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), pairs)


def _without_last(pairs: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[:, :-1], pairs)
