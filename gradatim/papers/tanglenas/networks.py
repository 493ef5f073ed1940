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
from gradatim.nets.search_space import Probabilities

from .config import Search

NORMAL = ("sep3", "sep3", "dil3")
"Operations of the middle cell: those of the best network of the authors' table."
MACRO_WIDTHS = ((2, 4, 8), (4, 8, 16))
"Of the two convolutions of the macro space."
MACRO_KERNELS = ((1, 3, 5), (1, 3, 5))
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


def make_net(config: Search, space: str, key: Any) -> Any:
    """The supernet of a space."""
    if space == "macro":
        return MacroSupernet(1, config.pool, 10, widths=MACRO_WIDTHS, kernels=MACRO_KERNELS, is_row_wise=True, key=key)
    sizes: dict[str, Any] = {"n_channels": config.channels, "hidden": config.hidden, "repeats": config.repeats}
    return CellSupernet(1, config.pool, 10, **sizes, normal=NORMAL, key=key)


def make_nets(config: Search, space: str, keys: Any) -> Any:
    """Several, their arrays stacked."""
    return eqx.filter_jit(lambda keys: jax.lax.map(lambda key: eqx.filter(make_net(config, space, key), eqx.is_array), keys))(keys)


def shapes_of(config: Search, space: str) -> Any:
    """A supernet of shapes, without numbers."""
    return eqx.filter_eval_shape(lambda key: make_net(config, space, key), jax.random.key(0))


def rest_of(config: Search, space: str) -> Any:
    """What a supernet is beside its arrays."""
    return eqx.filter(shapes_of(config, space), lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct))


def weight_masks(net: MacroSupernet, probabilities: Probabilities) -> list[Any]:
    """Of each layer, the probability that an architecture has each of its weights."""
    masks, before = [], None
    for i, convolution in enumerate(net.convolutions, start=1):
        width = probabilities[f"width {i}"]
        masks.append(convolution.mask(width, before, probabilities[f"kernel {i}"]))
        before = width
    return [*masks, net.readout.mask(before)]


def begun_alone(net: MacroSupernet, probabilities: Probabilities) -> MacroSupernet:
    """First weights as an architecture, of which the probabilities are certain, has them by itself: of variance one over its own inputs."""

    def weights(net: MacroSupernet) -> list[Any]:
        return [layer.weight for layer in (*net.convolutions, net.readout)]

    # Those of the supernet have one over the inputs of the largest; the first output is one of every slice.
    scaled = [
        weight * jnp.sqrt(mask[0].size / mask[0].sum()) for weight, mask in zip(weights(net), weight_masks(net, probabilities), strict=True)
    ]
    return eqx.tree_at(weights, net, scaled)


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
