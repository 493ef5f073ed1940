"""The smallest task with a sublayer: a Markov chain of tokens, learnt by an embedding, two square matrices and a read-out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.nets import label_by_growth
from gradatim.optim import adamw_by_label, scaled_spectrum, sublayer_gain

FRACTIONS = tuple(k / 16 for k in range(17))
"Ranks, over the number of singular values, at which spectra are compared."
MATRICES = ("up", "down")


class Chain(NamedTuple):
    """A Markov chain in which every token has few successors."""

    frequencies: Float[Array, " tokens"]
    "How often each token is what is given: Zipf's law, 1/rank."
    successors: Int[Array, "tokens successors"]
    probabilities: Float[Array, "tokens successors"]
    token_steps: Float[Array, " tokens-1"]
    "Cumulative frequencies, without the last, which rounding may leave below a number drawn; for the draw of a token."
    successor_steps: Float[Array, "tokens successors-1"]

    @property
    def entropy(self) -> Float[Array, ""]:
        """The least loss there is, nats a token."""
        return -jnp.sum(self.frequencies[:, None] * self.probabilities * jnp.log(self.probabilities))


def make_chain(vocabulary: int, n_successors: int, *, key: PRNGKeyArray) -> Chain:
    """Successors drawn without repetition, their probabilities by a softmax of normal numbers."""
    which, how_likely = jax.random.split(key)
    frequencies = 1 / jnp.arange(1.0, vocabulary + 1)
    frequencies /= frequencies.sum()
    successors = jax.vmap(lambda k: jax.random.choice(k, vocabulary, (n_successors,), replace=False))(jax.random.split(which, vocabulary))
    probabilities = jax.nn.softmax(jax.random.normal(how_likely, (vocabulary, n_successors)))
    steps = jnp.cumsum(frequencies)[:-1], jnp.cumsum(probabilities, axis=1)[:, :-1]
    return Chain(frequencies, successors, probabilities, *steps)


def draw_batch(chain: Chain, batch_size: int, *, key: PRNGKeyArray) -> tuple[Int[Array, " batch"], Int[Array, " batch"]]:
    """Tokens, and one that follows each."""
    first, second = jax.random.uniform(key, (2, batch_size))
    tokens = jnp.sum(first[:, None] > chain.token_steps[None], axis=1)
    rank = jnp.sum(second[:, None] > chain.successor_steps[tokens], axis=1)
    return tokens, chain.successors[tokens, rank]


class TwoLayerNetwork(eqx.Module):
    """Logits of the next token: read-out of norm(x + down relu(up norm(x))) over the width, x the token's embedding.

    First weights of the matrices have the deviation 1/√width, of embedding and read-out 1.
    """

    embedding: eqx.nn.Embedding
    norm: eqx.nn.RMSNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    last_norm: eqx.nn.RMSNorm
    readout: eqx.nn.Linear
    width: int = eqx.field(static=True)

    def __init__(self, vocabulary: int, width: int, *, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key, 4)
        self.embedding = eqx.nn.Embedding(weight=_normal(keys[0], vocabulary, width))
        self.norm, self.last_norm = (eqx.nn.RMSNorm(width, use_bias=False) for _ in range(2))
        self.up = _linear(width, width, 1 / math.sqrt(width), key=keys[1])
        self.down = _linear(width, width, 1 / math.sqrt(width), key=keys[2])
        self.readout = _linear(width, vocabulary, 1.0, key=keys[3])
        self.width = width

    def sublayer(self, normalised: Float[Array, " width"]) -> Float[Array, " width"]:
        """What is added to the residual stream."""
        return self.down(jax.nn.relu(self.up(normalised)))

    def __call__(self, tokens: Int[Array, " batch"]) -> Float[Array, "batch tokens"]:
        """The logits after each token, as products of whole batches: mapped over tokens they would come out transposed."""
        x = self.embedding.weight[tokens]
        units = jax.nn.relu(jax.vmap(self.norm)(x) @ self.up.weight.T)
        x = x + units @ self.down.weight.T
        return jax.vmap(self.last_norm)(x) @ self.readout.weight.T / self.width


def _linear(n_in: int, n_out: int, deviation: float, *, key: PRNGKeyArray) -> eqx.nn.Linear:
    layer = eqx.nn.Linear(n_in, n_out, use_bias=False, key=key)
    return eqx.tree_at(lambda layer: layer.weight, layer, deviation * _normal(key, n_out, n_in))


# Drawn flat: the same numbers, in a program that XLA compiles many times faster than one of two axes.
def _normal(key: PRNGKeyArray, n_rows: int, n_columns: int) -> Array:
    return jax.random.normal(key, (n_rows * n_columns,)).reshape(n_rows, n_columns)


class Training(NamedTuple):
    """Network and optimiser."""

    network: TwoLayerNetwork
    optimizer: Any
    done: Int[Array, ""]
    "Steps so far."


class Task(NamedTuple):
    """What stays the same in a run: the chain, `(learning rate, decay)` of matrices and of all else, a key."""

    chain: Chain
    matrix: Float[Array, " rate_and_decay"]
    vector: Float[Array, " rate_and_decay"]
    key: PRNGKeyArray


class Trainer:
    """Trains networks of one width, many at once: rates, chains and keys are arguments, with a first axis over the runs.

    **Arguments:** `vocabulary`, `width`; `batch_size`: tokens a step, fresh ones; `b1`, `b2`: of AdamW.
    """

    def __init__(self, vocabulary: int, width: int, *, batch_size: int, b1: float, b2: float) -> None:
        self.vocabulary, self.width, self.batch_size, self.b1, self.b2 = vocabulary, width, batch_size, b1, b2
        shapes = [eqx.filter_eval_shape(TwoLayerNetwork, vocabulary, d, key=jax.random.key(0)) for d in (width, 2 * width)]
        self.labels = label_by_growth(*shapes)

    def begin(self, tasks: Task) -> Training:
        """First weights, and the optimisers' states."""
        return eqx.filter_jit(self._begin)(tasks)

    def _begin(self, tasks: Task) -> Training:
        def one(task: Task) -> Training:
            network = TwoLayerNetwork(self.vocabulary, self.width, key=jax.random.fold_in(task.key, 0))
            optimizer = self._optimizer(task).init(eqx.filter(network, eqx.is_inexact_array))
            return Training(network, optimizer, jnp.zeros((), jnp.int32))

        return eqx.filter_vmap(one)(tasks)

    def step(self, states: Training, i: Any, tasks: Task) -> Training:
        """One step on fresh tokens."""
        del i  # a run is made of several loops

        def one(state: Training, task: Task) -> Training:
            batch = draw_batch(task.chain, self.batch_size, key=jax.random.fold_in(jax.random.fold_in(task.key, 1), state.done))
            gradient = eqx.filter_grad(_loss)(state.network, *batch)
            updates, optimizer = self._optimizer(task).update(gradient, state.optimizer, eqx.filter(state.network, eqx.is_inexact_array))
            return Training(eqx.apply_updates(state.network, updates), optimizer, state.done + 1)

        return eqx.filter_vmap(one)(states, tasks)

    def _optimizer(self, task: Task) -> optax.GradientTransformation:
        vector = (task.vector[0], task.vector[1])
        classes = {"matrix": (task.matrix[0], task.matrix[1]), "vector": vector, "output": vector}
        return adamw_by_label(classes, self.labels, b1=self.b1, b2=self.b2)


def _loss(network: TwoLayerNetwork, tokens: Array, following: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(network(tokens), following).mean()


def expected_loss(network: Callable[[Array], Array], chain: Chain) -> Float[Array, ""]:
    """The loss over all pairs of tokens that the chain knows, exactly."""
    logits = network(jnp.arange(len(chain.frequencies)))
    there = jnp.take_along_axis(jax.nn.log_softmax(logits), chain.successors, axis=1)
    return -jnp.sum(chain.frequencies[:, None] * chain.probabilities * there)


def final_losses(states: Training, tasks: Task) -> dict[str, Array]:
    """What is watched where only the loss counts."""
    return {"loss": eqx.filter_vmap(lambda state, task: expected_loss(state.network, task.chain))(states, tasks)}


def readings(states: Training, tasks: Task) -> dict[str, Array]:
    """Loss, spectra of the two matrices, and gains: of each matrix, and of the sublayer, on the inputs that they see."""
    return eqx.filter_vmap(_readings)(states, tasks)


def _readings(state: Training, task: Task) -> dict[str, Array]:
    net = state.network
    # Tokens at even quantiles of their frequencies: the chain's own weights, without a draw.
    n = len(task.chain.frequencies)
    tokens = jnp.searchsorted(task.chain.token_steps, (jnp.arange(n) + 0.5) / n)
    normalised = jax.vmap(lambda token: net.norm(net.embedding(token)))(tokens)
    hidden = jax.nn.relu(jax.vmap(net.up)(normalised))
    weights = jnp.stack([net.up.weight, net.down.weight])
    return {
        "loss": expected_loss(net, task.chain),
        "top": jnp.linalg.svdvals(weights)[:, 0],
        "spectrum": scaled_spectrum(weights, jnp.asarray(FRACTIONS)),
        "rms": jnp.sqrt(jnp.mean(weights**2, axis=(1, 2))),
        "gain": jnp.stack([sublayer_gain(net.up, normalised), sublayer_gain(net.down, hidden)]),
        "sublayer_gain": sublayer_gain(net.sublayer, normalised),
    }
