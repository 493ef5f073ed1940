"""Symmetry built in against symmetry taught, on turned images (C14)."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float

from gradatim import datasets
from gradatim.lab import Measure, Session, host_generator
from gradatim.nets.geometric import GroupConv, GroupLift, GroupPool, cyclic

from .config import Samples
from .random_weights import drawn
from .training import CLIP, single

JUDGED = 1000
"Images at which the gain is judged."
ARMS = ("turns built in", "augmented", "convolution", "perceptron")
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())


class TurnNetwork(eqx.Module):
    """Three convolutions over shifts and turns, and an invariant: with one turn, an ordinary convolutional network."""

    lift: GroupLift
    convolutions: list[GroupConv]
    pool: GroupPool
    readout: eqx.nn.Linear

    def __init__(self, turns: int, channels: int, *, key: Any) -> None:
        group, wide = cyclic(turns), 2 * channels
        self.lift = GroupLift(1, channels, group=group, key=key)
        # From an odd number of pixels a stride of two looks at the same ones after a turn.
        self.convolutions = [
            GroupConv(channels, wide, group=group, key=key),
            GroupConv(wide, wide, group=group, stride=2, key=key),
        ]
        self.pool = GroupPool(group, reduce="mean")
        self.readout = eqx.nn.Linear(wide, 10, key=key)

    def __call__(self, image: Float[Array, "side side 1"]) -> Float[Array, 10]:
        """Logits."""
        x = jax.nn.relu(self.lift(image))
        half = len(x) // 2
        # Blocks of an even image go to blocks when it turns.
        x = x.reshape(half, 2, half, 2, *x.shape[2:]).mean(axis=(1, 3))
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        return self.readout(self.pool(x).mean(axis=(0, 1)))


class FlatNetwork(eqx.Module):
    """One hidden layer on all pixels."""

    layers: eqx.nn.MLP

    def __call__(self, image: Float[Array, "side side 1"]) -> Float[Array, 10]:
        """Logits."""
        return self.layers(image.ravel())


class _State(NamedTuple):
    net: Any
    memory: Any


def make_network(arm: str, config: Samples) -> Any:
    """A network of an arm; all have about as many parameters."""
    key = jax.random.key(0)
    if arm == "perceptron":
        plain = eqx.filter_eval_shape(lambda: TurnNetwork(1, config.channels, key=key))
        n = sum(leaf.size for leaf in jax.tree.leaves(plain) if isinstance(leaf, jax.ShapeDtypeStruct))
        width = max(round((n - 10) / (config.side**2 + 11)), 1)
        return FlatNetwork(eqx.nn.MLP(config.side**2, 10, width, 1, key=key))
    return TurnNetwork(4, config.channels // 2, key=key) if arm == "turns built in" else TurnNetwork(1, config.channels, key=key)


def turned(images: Any, turns: Any) -> Any:
    """Each image of a batch by its number of quarter turns."""
    across = images.swapaxes(1, 2)
    return jnp.select(
        [(turns == k)[:, None, None, None] for k in range(4)], [images, across[:, ::-1], images[:, ::-1, ::-1], across[:, :, ::-1]]
    )


# One function for all arms and sizes: what differs is in the state and in `args`.
def _step(state: _State, i: Array, args: Any) -> _State:
    rate, n_steps, rows, turns, images, labels = args
    batch = turned(images[rows[i]], turns[i])

    def loss(net: Any) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(batch), labels[rows[i]]).mean()

    gradient = eqx.filter_grad(loss)(state.net)
    updates, memory = OPTIMIZER.update(gradient, state.memory)
    falling = rate * ((1 + jnp.cos(jnp.pi * i / n_steps)) / 2).astype(rate.dtype)
    return _State(jax.tree.map(lambda p, u: p if u is None else p - falling * u, state.net, updates, is_leaf=_is_none), memory)


def _is_none(leaf: Any) -> bool:
    return leaf is None


@eqx.filter_jit
def _accuracy(net: Any, images: Array, labels: Array) -> Array:
    return 100 * (jax.vmap(net)(images).argmax(axis=1) == labels).mean()


@eqx.filter_jit
def _fit(net: Any, images: Array, labels: Array) -> Array:
    """Loss and accuracy on what it was trained on, as it came."""
    logits = jax.vmap(net)(images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.stack([losses.mean(), 100 * (logits.argmax(axis=1) == labels).mean()])


@eqx.filter_jit
def _turn_error(net: Any, images: Array) -> Array:
    """How far logits are from those of turned images, relative to the largest."""
    logits = [jax.vmap(net)(turned(images, jnp.full(len(images), k))) for k in range(4)]
    return jnp.stack([jnp.abs(one - logits[0]).max() for one in logits]).max() / jnp.abs(logits[0]).max()


class _Images(NamedTuple):
    images: Array
    labels: Array


def _load(config: Samples, session: Session, random: np.random.Generator) -> tuple[_Images, _Images, _Images]:
    """For training, for the choice of rates and for judging, each image turned at random."""
    parts = []
    for split, n in (("train", config.pool), ("test", config.test)):
        data = datasets.load(config.data, split=split, n=n, pool=config.side)
        session.uses(data.provenance)
        images = np.stack([np.rot90(image, k) for image, k in zip(data.images, random.integers(4, size=n), strict=True)])
        parts.append(_Images(jnp.asarray(images, jnp.float32), jnp.asarray(data.labels, jnp.int32)))
    pool, test = parts
    kept = config.held_out
    return _Images(*(part[:-kept] for part in pool)), _Images(*(part[-kept:] for part in pool)), test


def steps_for(n: int, config: Samples) -> int:
    """Of a training on n images."""
    return max(config.steps, round(config.passes * n / config.batch_size))


class _Chosen(NamedTuple):
    """A training set."""

    places: np.ndarray
    "Of its images in the pool."
    n_steps: int
    rows: Array
    "Images of each step, as far as the longest training goes."
    turns: Array


def samples(config: Samples, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Every network on every size, at the rate that it is best at."""
    for name, wrong, rule in (
        ("side", config.side % 4 != 2, "twice an odd number"),
        ("channels", config.channels % 2 != 0, "even"),
        ("held_out", config.held_out + max(*config.sizes, config.rate_size) > config.pool, "what the training sets leave of the pool"),
    ):
        if wrong:
            raise ValueError(f"samples.{name} must be {rule}, got {getattr(config, name)}")
    random = host_generator(jax.random.fold_in(session.key, 28))
    train, held, test = _load(config, session, random)
    n_pool, size = len(train.labels), config.batch_size
    longest = steps_for(max(*config.sizes, config.rate_size), config)

    def training_set(n: int) -> _Chosen:
        """A subset of the pool, in a new order each time it is through."""
        subset, steps = random.permutation(n_pool)[:n], steps_for(n, config)
        batch = min(size, n)
        per_epoch = n // batch
        orders = [random.permutation(subset)[: per_epoch * batch] for _ in range(-(-steps // per_epoch))]
        rows = np.concatenate(orders).reshape(-1, batch)[:steps]
        # One shape, whatever the size of the set.
        rows = np.resize(rows, (longest, size))
        return _Chosen(subset, steps, jnp.asarray(rows, jnp.int32), jnp.asarray(random.integers(4, size=(longest, size)), jnp.int32))

    def trained(arm: str, net: Any, rate: float, chosen: _Chosen, label: str) -> Any:
        turns = chosen.turns if arm == "augmented" else jnp.zeros_like(chosen.turns)
        memory = OPTIMIZER.init(eqx.filter(net, eqx.is_inexact_array))
        steps = chosen.n_steps
        args = (jnp.asarray(rate, jnp.float32), jnp.asarray(steps, jnp.int32), chosen.rows, turns, *train)
        state = _State(net, jax.tree.map(jnp.asarray, memory))
        return session.loop(_step, state, steps=steps, args=args, every=steps, label=label, on_nonfinite="keep").state.net

    nets = {arm: [_started(arm, config, random) for _ in range(config.seeds + config.pilots)] for arm in ARMS if arm != "augmented"}
    # The same network, taught more.
    nets["augmented"] = nets["convolution"]
    tunings = [training_set(config.rate_size) for _ in range(config.pilots)]
    rates, by_rate = {}, np.zeros((len(ARMS), len(config.rates)))
    for a, arm in enumerate(ARMS):
        for r, rate in enumerate(config.rates):
            # A rate that ruins one of them is no good rate.
            for k, tuning in enumerate(tunings):
                net = trained(arm, nets[arm][config.seeds + k], rate, tuning, f"{arm} at {rate:g}, pilot {k}")
                by_rate[a, r] += float(_accuracy(net, *held)) / config.pilots
        rates[arm] = config.rates[int(by_rate[a].argmax())]
    accuracy, loss, fitted = np.zeros((3, len(ARMS), len(config.sizes), config.seeds))
    errors = np.zeros(config.seeds)
    for j, n in enumerate(config.sizes):
        for seed in range(config.seeds):
            chosen = training_set(n)
            for a, arm in enumerate(ARMS):
                net = trained(arm, nets[arm][seed], rates[arm], chosen, f"{arm} with {n} images, seed {seed}")
                accuracy[a, j, seed] = _accuracy(net, *test)
                loss[a, j, seed], fitted[a, j, seed] = _fit(net, train.images[chosen.places], train.labels[chosen.places])
                if arm == ARMS[0]:
                    errors[seed] = _turn_error(net, test.images[:64])
    counts = {arm: sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(nets[arm][0], eqx.is_inexact_array))) for arm in ARMS}
    return _judged(config, (accuracy, loss, fitted), by_rate, rates, counts, errors, session)


def _started(arm: str, config: Samples, random: np.random.Generator) -> Any:
    """First weights after He et al., and no biases."""
    net = single(drawn(lambda: make_network(arm, config), random))

    def scaled(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        # Weights of filters have their outputs last, those of matrices first.
        fan_in = leaf.size // leaf.shape[-1] if leaf.ndim > 2 else leaf.shape[-1]
        flat = random.normal(size=leaf.shape) * (2 / fan_in) ** 0.5 if leaf.ndim > 1 else np.zeros(leaf.shape)
        return jnp.asarray(flat.astype(np.float32))

    return jax.tree.map(scaled, net)


def _judged(
    config: Samples,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    by_rate: np.ndarray,
    rates: dict[str, float],
    counts: dict[str, int],
    errors: np.ndarray,
    session: Session,
) -> tuple[dict[str, Measure], xr.Dataset]:
    accuracy, loss, fitted = found
    ours, augmented = accuracy[0], accuracy[1]
    measures = {"C14.sizes_won": Measure.exact(float((ours.mean(axis=1) > augmented.mean(axis=1)).sum()))}
    if JUDGED in config.sizes:
        j = config.sizes.index(JUDGED)
        measures["C14.accuracy_gain"] = Measure.paired(ours[j], augmented[j])
    edges = [arm for arm in ARMS if rates[arm] in (config.rates[0], config.rates[-1])]
    session.note(
        "C14: accuracy by size, mean over seeds: "
        + "; ".join(
            f"{arm} ({counts[arm]} parameters, rate {rates[arm]:g}) " + ", ".join(f"{value:.1f}" for value in accuracy[a].mean(axis=1))
            for a, arm in enumerate(ARMS)
        )
        + f"; best rate on the edge of the grid: {', '.join(edges) or 'none'}; after training logits of turned images differ by at most "
        f"{errors.max():.1g} of the largest where turns are built in"
    )
    session.note(
        f"C14: every network takes {', '.join(str(steps_for(n, config)) for n in config.sizes)} steps, {config.passes} passes through the "
        f"training set or {config.steps} steps if that is more; loss and accuracy on the training images then, by size: "
        + "; ".join(
            f"{arm} " + ", ".join(f"{x:.2f} ({y:.0f} %)" for x, y in zip(loss[a].mean(axis=1), fitted[a].mean(axis=1), strict=True))
            for a, arm in enumerate(ARMS)
        )
    )
    data = xr.Dataset(
        {
            "accuracy": (("network", "images", "seed"), accuracy, {"units": "%"}),
            "training_loss": (("network", "images", "seed"), loss, {"units": "nat"}),
            "training_accuracy": (("network", "images", "seed"), fitted, {"units": "%"}),
            "steps": ("images", [steps_for(n, config) for n in config.sizes], {"units": "1"}),
            "accuracy_by_rate": (("network", "rate"), by_rate, {"units": "%", "long_name": "on held-out images"}),
            "turn_error": ("seed", errors, {"units": "1"}),
            "parameters": ("network", [counts[arm] for arm in ARMS], {"units": "1"}),
        },
        {"network": list(ARMS), "images": list(config.sizes), "rate": list(config.rates)},
    )
    return measures, data
