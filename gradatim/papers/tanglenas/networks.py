"""The supernets for images, their data and their loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradatim import datasets
from gradatim.lab import Session
from gradatim.nets import CellSupernet, MacroSupernet

from .config import Search

NORMAL = ("sep3", "sep3", "dil3")
"Operations of the middle cell: those of the best network of the authors' table."
FLOOR = 0.1
"Of a learning rate along its cosine, over its first value."


class Images(NamedTuple):
    """Images, channels first, and their labels."""

    images: Any
    labels: Any


class Parts(NamedTuple):
    """Two halves of the training images, and the test images."""

    train: Images
    validation: Images
    test: Images


def load_parts(config: Search, session: Session) -> Parts:
    """The data, the same for every search."""
    loaded = {
        split: datasets.load(config.dataset, split=split, n=n, pool=config.pool)
        for split, n in (("train", config.n_train), ("test", config.n_test))
    }
    for one in loaded.values():
        session.uses(one.provenance)
    half = config.n_train // 2
    train, test = loaded["train"], loaded["test"]
    pieces = ((train.images[:half], train.labels[:half]), (train.images[half:], train.labels[half:]), (test.images, test.labels))
    return Parts(*(Images(jnp.asarray(images.transpose(0, 3, 1, 2)), jnp.asarray(labels)) for images, labels in pieces))


def make_net(config: Search, key: Any) -> Any:
    """The supernet of a search."""
    if config.space == "macro":
        return MacroSupernet(1, config.pool, 10, is_row_wise=True, key=key)
    sizes: dict[str, Any] = {"n_channels": config.channels, "hidden": config.hidden, "repeats": config.repeats}
    return CellSupernet(1, config.pool, 10, **sizes, normal=NORMAL, key=key)


def make_nets(config: Search, keys: Any) -> Any:
    """Several, their arrays stacked."""
    return eqx.filter_jit(lambda keys: jax.lax.map(lambda key: eqx.filter(make_net(config, key), eqx.is_array), keys))(keys)


def rest_of(config: Search) -> Any:
    """What a supernet is beside its arrays."""
    net = eqx.filter_eval_shape(lambda key: make_net(config, key), jax.random.key(0))
    return eqx.filter(net, lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))


def image_loss(net: Any, probabilities: Any, batch: Images) -> Any:
    """Mean cross-entropy."""
    logits = jax.vmap(net, (0, None))(batch.images, probabilities)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


def adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """For weights."""
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps, FLOOR))


def batches(random: np.random.Generator, n: int, size: int, steps: int) -> np.ndarray:
    """Rows of each step, a new order each time the examples are through."""
    size = min(size, n)
    per_epoch = n // size
    orders = [random.permutation(n)[: per_epoch * size] for _ in range(-(-steps // per_epoch))]
    return np.concatenate(orders).reshape(-1, size)[:steps].astype(np.int32)


@eqx.filter_jit
def accuracies(arrays: Any, rest: Any, positions: Any, data: Images) -> Any:
    """Of every network `arrays` (axis 0) as every architecture `positions` (axis 0), the share of images that are told right."""

    def of(arrays: Any) -> Any:
        net = eqx.combine(arrays, rest)

        def one(positions: Any) -> Any:
            logits = jax.vmap(net, (0, None))(data.images, net.space.one_hot(positions))
            return (logits.argmax(-1) == data.labels).astype(jnp.float32)

        return jax.lax.map(one, positions)

    return jax.lax.map(of, arrays)
