"""Networks of two hidden layers on clusters and on MNIST, all repetitions of a training at once."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from gradatim import datasets
from gradatim.lab import Session, host_generator

from .config import Config

LOOKS = 40
"Points at which each loop's losses are recorded."
BETWEEN_LOOKS = 20
"Steps on small batches between two looks at the loss on all examples: a look is as dear."


class Problem(eqx.Module):
    """A network of two hidden ReLU layers and the data of each repetition, with the repetitions along axis 0."""

    inputs: Float[Array, "seeds n features"]
    labels: Int[Array, "seeds n"]
    network: PyTree
    classes: int = eqx.field(static=True)

    def outputs(self, params: PyTree, inputs: Float[Array, "n features"]) -> Float[Array, "n classes"]:
        """Logits."""
        return jax.vmap(eqx.combine(params, self.network))(inputs)

    def losses(self, params: PyTree) -> Float[Array, " seeds"]:
        """The training loss of each repetition."""
        return jax.vmap(self.loss)(params, (self.inputs, self.labels))

    def loss(self, params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        """Mean softmax cross-entropy."""
        return cross_entropy(self.outputs(params, batch[0]), batch[1])


def cross_entropy(outputs: Float[Array, "n classes"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """Mean softmax cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()


def network(features: int, classes: int, width: int) -> tuple[PyTree, PyTree]:
    """The shapes of the parameters, and the rest, of a network with two hidden ReLU layers."""
    model = eqx.filter_eval_shape(eqx.nn.MLP, features, classes, width, 2, jax.nn.relu, key=jax.random.key(0))
    return eqx.partition(model, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))


@eqx.filter_jit
def initialised(shapes: PyTree, keys: Array, *, std: float | None) -> PyTree:
    """One network for each key: normal weights and biases of one standard deviation; None: He's weights, zero biases."""

    def draw(key: PRNGKeyArray, leaf: jax.ShapeDtypeStruct) -> Array:
        if std is None and leaf.ndim == 1:
            return jnp.zeros(leaf.shape)
        return (jnp.sqrt(2 / leaf.shape[1]) if std is None else std) * _normal(key, leaf.shape)

    leaves, structure = jax.tree.flatten(shapes)

    def one(key: PRNGKeyArray) -> PyTree:
        return structure.unflatten([draw(k, leaf) for k, leaf in zip(jax.random.split(key, len(leaves)), leaves, strict=True)])

    return jax.vmap(one)(keys)


def blobs(
    key: PRNGKeyArray, *, n: int, dimensions: int, clusters: int, overlap: float | Float[Array, ""]
) -> tuple[Float[Array, "n features"], Int[Array, " n"]]:
    """Gaussian clusters of standard deviation `overlap` about centres uniform in [-10, 10]ᵈ, then each feature standardised."""
    key_centres, key_noise = jax.random.split(key)
    centres = jax.random.uniform(key_centres, (clusters * dimensions,), minval=-10, maxval=10).reshape(clusters, dimensions)
    labels = jnp.arange(n) % clusters
    inputs = centres[labels] + overlap * _normal(key_noise, (n, dimensions))
    return (inputs - inputs.mean(0, keepdims=True)) / inputs.std(0, keepdims=True), labels


# Drawn flat: the same numbers, in a program that XLA compiles many times faster than one of several axes.
def _normal(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def cluster_data(config: Config, key: PRNGKeyArray, clusters: int, overlap: float) -> tuple[Array, Array]:
    """Clusters for every repetition."""
    keys = jax.random.split(key, config.seeds)
    return _clusters(keys, jnp.asarray(overlap), config.examples, config.dimensions, clusters)


@eqx.filter_jit
def _clusters(keys: Array, overlap: Array, n: int, dimensions: int, clusters: int) -> tuple[Array, Array]:
    return jax.vmap(lambda key: blobs(key, n=n, dimensions=dimensions, clusters=clusters, overlap=overlap))(keys)


def mnist_data(session: Session, key: PRNGKeyArray, examples: int, seeds: int) -> tuple[Array, Array]:
    """MNIST at 7 x 7 pixels, another choice of images for every repetition."""
    choices = host_generator(key).integers(2**63, size=seeds).tolist()
    sets = [datasets.load("mnist-5k", n=examples, pool=7, seed=choice) for choice in choices]
    session.uses(sets[0].provenance)
    inputs = jnp.stack([jnp.asarray(one.images.reshape(examples, -1), float) for one in sets])
    return inputs, jnp.stack([jnp.asarray(one.labels) for one in sets])


def cluster_problem(config: Config, key: PRNGKeyArray, clusters: int, overlap: float) -> tuple[Problem, PyTree]:
    """Clusters and initial networks for every repetition."""
    key_data, key_initial = jax.random.split(key)
    inputs, labels = cluster_data(config, key_data, clusters, overlap)
    template, static = network(config.dimensions, clusters, config.cluster.width)
    start = initialised(template, jax.random.split(key_initial, config.seeds), std=config.cluster.initial_std)
    return Problem(inputs, labels, static, clusters), start


class Descent(eqx.Module):
    """Where gradient descent is, and where each repetition was when its loss first reached the target."""

    now: PyTree
    at_target: PyTree
    reached: Bool[Array, "*seeds"]


def descend(session: Session, problem: Problem, params: PyTree, *, steps: int, rate: float, target: float = 0.0, label: str) -> Any:
    """Full-batch gradient descent of all repetitions at once; the loop's state is a `Descent`."""
    args = (problem, jnp.asarray(rate), jnp.asarray(target))
    state = Descent(params, params, jnp.zeros(problem.labels.shape[0], bool))
    return session.loop(_full_step, state, steps=steps, args=args, every=max(steps // LOOKS, 1), watch=_watched_descent, label=label)


class Stopping(eqx.Module):
    """Where each repetition is, and whether its loss has come to the target, from where on it stays."""

    params: PyTree
    reached: Bool[Array, "*seeds"]


def descend_to(session: Session, problem: Problem, params: PyTree, *, steps: int, rate: float, target: float, label: str) -> Stopping:
    """Full-batch gradient descent of all repetitions at once, each until its loss first is at most the target."""
    args = (problem, jnp.asarray(rate), jnp.asarray(target))
    return _stop(session, _full_step_to, problem, params, steps=steps, args=args, target=target, label=label)


def descend_in_batches_to(
    session: Session,
    problem: Problem,
    params: PyTree,
    keys: Array,
    *,
    batch: int,
    steps: int,
    rate: float,
    target: float,
    label: str,
) -> Stopping:
    """Stochastic gradient descent on batches drawn with replacement, each repetition until its loss on all examples is at most the target.

    That loss is looked at every `BETWEEN_LOOKS` steps.
    """
    args = (problem, jnp.asarray(rate), jnp.asarray(target), keys, batch)
    rounds = -(-steps // BETWEEN_LOOKS)
    return _stop(session, _batch_steps_to, problem, params, steps=rounds, args=args, target=target, label=label)


def _stop(
    session: Session, step: Any, problem: Problem, params: PyTree, *, steps: int, args: tuple[Any, ...], target: float, label: str
) -> Stopping:
    state = Stopping(params, jnp.zeros(problem.labels.shape[0], bool))
    every = max(steps // LOOKS, 1)
    end = session.loop(step, state, steps=steps, args=args, every=every, watch=_watched_stopping, label=label).state
    # The last step of full batches ends unseen.
    return Stopping(end.params, end.reached | (_losses(problem, end.params) <= target))


# One function each for all loops, with the data in `args`: equal shapes are then compiled once.
def _full_step(state: Descent, i: Array, args: tuple[Problem, Array, Array]) -> Descent:
    problem, rate, target = args

    def one(now: PyTree, held: PyTree, reached: Array, inputs: Array, labels: Array) -> Descent:
        loss, gradient = jax.value_and_grad(problem.loss)(now, (inputs, labels))
        moved = jax.tree.map(lambda p, g: p - rate * g, now, gradient)
        # Until then both move together, and then the one stays for good: the loss may rise again.
        reached = reached | (loss <= target)
        return Descent(moved, jax.tree.map(lambda p, q: jnp.where(reached, p, q), held, moved), reached)

    return jax.vmap(one)(state.now, state.at_target, state.reached, problem.inputs, problem.labels)


def _watched_descent(state: Descent, args: tuple[Any, ...]) -> dict[str, Array]:
    return {"loss": args[0].losses(state.now), "held_loss": args[0].losses(state.at_target)}


def _full_step_to(state: Stopping, i: Array, args: tuple[Problem, Array, Array]) -> Stopping:
    problem, rate, target = args

    def one(now: PyTree, reached: Array, inputs: Array, labels: Array) -> Stopping:
        loss, gradient = jax.value_and_grad(problem.loss)(now, (inputs, labels))
        reached = reached | (loss <= target)
        return Stopping(jax.tree.map(lambda p, g: jnp.where(reached, p, p - rate * g), now, gradient), reached)

    # Once all are there, the steps that are left cost nothing.
    return jax.lax.cond(
        state.reached.all(), lambda: state, lambda: jax.vmap(one)(state.params, state.reached, problem.inputs, problem.labels)
    )


def _batch_steps_to(state: Stopping, i: Array, args: tuple[Problem, Array, Array, Array, int]) -> Stopping:
    problem, rate, target, keys, batch = args

    def one(now: PyTree, reached: Array, key: PRNGKeyArray, inputs: Array, labels: Array) -> Stopping:
        def moved(j: Array, params: PyTree) -> PyTree:
            rows = jax.random.randint(jax.random.fold_in(key, BETWEEN_LOOKS * i + j), (batch,), 0, labels.shape[0])
            gradient = jax.grad(problem.loss)(params, (inputs[rows], labels[rows]))
            return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

        end = jax.lax.fori_loop(0, BETWEEN_LOOKS, moved, now)
        params = jax.tree.map(lambda p, q: jnp.where(reached, p, q), now, end)
        return Stopping(params, reached | (problem.loss(params, (inputs, labels)) <= target))

    return jax.lax.cond(
        state.reached.all(), lambda: state, lambda: jax.vmap(one)(state.params, state.reached, keys, problem.inputs, problem.labels)
    )


@eqx.filter_jit
def _losses(problem: Problem, params: PyTree) -> Array:
    return problem.losses(params)


def _watched_stopping(state: Stopping, args: tuple[Any, ...]) -> dict[str, Array]:
    return {"loss": args[0].losses(state.params)}
