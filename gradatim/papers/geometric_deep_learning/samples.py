"""Symmetry built in against symmetry taught, on turned images (C14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim import datasets
from gradatim.lab import Measure, Session, host_generator

from .config import Samples
from .training import CLIP
from .turn_networks import ARMS, started

JUDGED = 1000
"Images at which the gain is judged."
OPTIMIZER = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam())


class _State(NamedTuple):
    net: Any
    memory: Any


def turned(images: Any, turns: Any) -> Any:
    """Each image of a batch by its number of quarter turns."""
    across = images.swapaxes(1, 2)
    return jnp.select(
        [(turns == k)[:, None, None, None] for k in range(4)], [images, across[:, ::-1], images[:, ::-1, ::-1], across[:, :, ::-1]]
    )


def share_of_rate(i: Any, n_steps: Any, warm_up: Any) -> Array:
    """How much of the rate step i takes: less at first, for whole layers may end at zero, then along a cosine to nothing.

    Numbers of steps are traced, which optax's schedules do not take, so that all sizes share one program.

    >>> [round(float(share_of_rate(i, 100, 0.1)), 3) for i in (0, 4, 9, 50, 100)]
    [0.1, 0.498, 0.98, 0.5, 0.0]
    """
    return jnp.minimum((i + 1) / (warm_up * n_steps), 1) * (1 + jnp.cos(jnp.pi * i / n_steps)) / 2


# One function for all arms and sizes: what differs is in the state and in `args`.
def _step(state: _State, i: Array, args: Any) -> _State:
    rate, warm_up, n_steps, rows, turns, images, labels = args
    batch = turned(images[rows[i]], turns[i])

    def loss(net: Any) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(batch), labels[rows[i]]).mean()

    gradient = eqx.filter_grad(loss)(state.net)
    updates, memory = OPTIMIZER.update(gradient, state.memory)
    now = rate * share_of_rate(i, n_steps, warm_up).astype(rate.dtype)
    return _State(jax.tree.map(lambda p, u: p if u is None else p - now * u, state.net, updates, is_leaf=_is_none), memory)


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


def _load(config: Samples, session: Session, random: np.random.Generator) -> tuple[_Images, _Images, list[_Images]]:
    """For training, for the choice of rates and, other ones for each seed, for judging; each image turned at random."""
    parts = []
    for split, n in (("train", config.pool), ("test", config.seeds * config.test)):
        data = datasets.load(config.data, split=split, n=n, pool=config.side)
        session.uses(data.provenance)
        images = np.stack([np.rot90(image, k) for image, k in zip(data.images, random.integers(4, size=n), strict=True)])
        parts.append(_Images(jnp.asarray(images, jnp.float32), jnp.asarray(data.labels, jnp.int32)))
    pool, test = parts
    kept, own = config.held_out, [slice(seed * config.test, (seed + 1) * config.test) for seed in range(config.seeds)]
    tests = [_Images(*(part[places] for part in test)) for places in own]
    return _Images(*(part[:-kept] for part in pool)), _Images(*(part[-kept:] for part in pool)), tests


def steps_for(n: int, config: Samples) -> int:
    """Of a training on n images."""
    return max(config.steps, round(config.passes * n / config.batch_size))


def race(score: Callable[[int, int], float], n_rates: int, n_pilots: int) -> np.ndarray:
    """Scores of pilots at each rate, NaN for those that need not run: a rate is out once its worst is below the best rate's worst.

    The rate with the best worst score is the one that it would be if all had run.

    >>> race(lambda rate, pilot: [[9.0, 8.0], [7.0, 9.0]][rate][pilot], 2, 2).tolist()
    [[9.0, 8.0], [7.0, nan]]
    """
    found = np.full((n_rates, n_pilots), np.nan)
    found[:, 0] = [score(rate, 0) for rate in range(n_rates)]
    bar = -np.inf
    for rate in np.argsort(-found[:, 0], kind="stable").tolist():
        for pilot in range(1, n_pilots):
            if np.nanmin(found[rate]) < bar:
                break
            found[rate, pilot] = score(rate, pilot)
        else:
            bar = max(bar, found[rate].min())
    return found


class _Chosen(NamedTuple):
    """A training set."""

    places: np.ndarray
    "Of its images in the pool."
    n_steps: int
    rows: Array
    "Images of each step, as far as the longest training goes."
    turns: Array


def samples(config: Samples, session: Session) -> tuple[dict[str, Measure], xr.Dataset]:
    """Every network on every size, at the rate that does best by the worst of its pilots, which are not judged."""
    for name, wrong, rule in (
        ("side", config.side % 4 != 2, "twice an odd number"),
        ("channels", config.channels % 2 != 0, "even"),
        ("held_out", config.held_out + max(*config.sizes, config.rate_size) > config.pool, "what the training sets leave of the pool"),
    ):
        if wrong:
            raise ValueError(f"samples.{name} must be {rule}, got {getattr(config, name)}")
    random, random_of_pilots = (host_generator(jax.random.fold_in(session.key, number)) for number in (28, 32))
    train, held, tests = _load(config, session, random)
    n_pool, size = len(train.labels), config.batch_size
    longest = steps_for(max(*config.sizes, config.rate_size), config)

    def training_set(n: int, random: np.random.Generator) -> _Chosen:
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
        args = (jnp.asarray(rate, jnp.float32), jnp.asarray(config.warm_up), jnp.asarray(steps, jnp.int32), chosen.rows, turns, *train)
        state = _State(net, jax.tree.map(jnp.asarray, memory))
        return session.loop(_step, state, steps=steps, args=args, every=steps, label=label, on_nonfinite="keep").state.net

    def several(n: int, random: np.random.Generator) -> dict[str, list[Any]]:
        nets = {arm: [started(arm, config, random) for _ in range(n)] for arm in ARMS if arm != "augmented"}
        # The same network, taught more.
        return nets | {"augmented": nets["convolution"]}

    nets, pilots = several(config.seeds, random), several(config.pilots, random_of_pilots)
    tunings = [training_set(config.rate_size, random_of_pilots) for _ in range(config.pilots)]
    rates, by_rate = {}, np.zeros((len(ARMS), len(config.rates), config.pilots))
    for a, arm in enumerate(ARMS):

        def score(r: int, k: int, arm: str = arm) -> float:
            rate = config.rates[r]
            return float(_accuracy(trained(arm, pilots[arm][k], rate, tunings[k], f"{arm} at {rate:g}, pilot {k}"), *held))

        by_rate[a] = race(score, len(config.rates), config.pilots)
        # A rate that ruins one of them is no good rate.
        rates[arm] = config.rates[int(np.nanmin(by_rate[a], axis=1).argmax())]
    accuracy, loss, fitted = np.zeros((3, len(ARMS), len(config.sizes), config.seeds))
    errors = np.zeros(config.seeds)
    for j, n in enumerate(config.sizes):
        for seed in range(config.seeds):
            chosen = training_set(n, random)
            for a, arm in enumerate(ARMS):
                net = trained(arm, nets[arm][seed], rates[arm], chosen, f"{arm} with {n} images, seed {seed}")
                accuracy[a, j, seed] = _accuracy(net, *tests[seed])
                loss[a, j, seed], fitted[a, j, seed] = _fit(net, train.images[chosen.places], train.labels[chosen.places])
                if arm == ARMS[0]:
                    errors[seed] = _turn_error(net, tests[seed].images[:64])
    counts = {arm: sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(nets[arm][0], eqx.is_inexact_array))) for arm in ARMS}
    return _judged(config, (accuracy, loss, fitted), by_rate, rates, counts, errors, session)


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
    gains = [Measure.paired(*pair) for pair in zip(ours, augmented, strict=True)]
    # Won by the mean, by the whole interval, and by some of it.
    value, low, high = (sum(number > 0 for number in numbers) for numbers in zip(*(gain.intervals()[0] for gain in gains), strict=True))
    method = "sizes whose paired interval lies above zero, to those whose interval reaches above it"
    measures = {"C14.sizes_won": Measure(value, low, high, method)}
    if JUDGED in config.sizes:
        measures["C14.accuracy_gain"] = gains[config.sizes.index(JUDGED)]
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
            "accuracy_by_rate": (("network", "rate", "pilot"), by_rate, {"units": "%", "long_name": "on held-out images"}),
            "turn_error": ("seed", errors, {"units": "1"}),
            "parameters": ("network", [counts[arm] for arm in ARMS], {"units": "1"}),
        },
        {"network": list(ARMS), "images": list(config.sizes), "rate": list(config.rates)},
    )
    return measures, data
