"""What trained networks draw: two spirals and images, by every sampler, and how far that is from what was held out."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from gradatim.datasets import load
from gradatim.lab import Session, host_generator
from gradatim.transport import (
    AbstractGeometricMotion,
    LogNormal,
    ScoreFromNoise,
    sample_dale_langevin,
    sample_multiplicative,
    sample_reverse_diffusion,
    sliced_distance,
)

from . import features
from .config import Config, Generation
from .networks import PATH, MotionNoise, NoiseNetwork, PathScore, Scale, motion_of, scale_of, train

NETWORK_OF = {
    "log": "multiplicative",
    "space": "multiplicative",
    "evenly weighted": "evenly weighted",
    "ramped": "ramped",
    "from noised data": "multiplicative",
    "additive": "additive",
}
"""Of every sampler, the arm whose networks it is given: the sign-preserving one and the one in the space itself; the former where training
weighted all noise levels alike; that with noise which comes in slowly; the first from noised training data instead of the fitted noise;
additive diffusion of the logarithm."""
SAMPLERS = tuple(NETWORK_OF)
JUDGED = ("log", "additive")
"Samplers that a claim rests on: of the others there are fewer seeds."
FRAMES = 4
"Parts of a sampler's way, after each of which some points are kept."
SHOWN = {"spirals": 2000, "images": 10}
CHUNK = 500


class Data(eqx.Module):
    """Positive points, single precision."""

    training: Float[np.ndarray, "n dim"]
    held_out: Float[np.ndarray, "n_held_out dim"]
    labels: np.ndarray | None = None
    held_out_labels: np.ndarray | None = None


def spirals(config: Config) -> Data:
    """Two arms of one and a half turns, moved to where all coordinates are positive."""

    def draw(n: int, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        angle = np.sqrt(random.uniform(size=n)) * np.radians(540)
        arm = np.stack([-np.cos(angle), np.sin(angle)], axis=1) * (angle / 2)[:, None] + random.uniform(size=(n, 2)) * 0.5
        return (arm * random.choice([-1.0, 1.0], size=(n, 1)) / 3 + 5).astype(np.float32)

    return Data(draw(config.spiral_points, 0), draw(config.spiral_points, 1))


def images(config: Config, session: Session) -> Data:
    """Intensities from one to two."""

    def part(split: str, n: int) -> tuple[np.ndarray, np.ndarray]:
        whole = load(config.data, split=split, pool=config.side)
        session.uses(whole.provenance)
        if n > len(whole):
            raise ValueError(f"n_images and n_held_out must be at most what {config.data} has, got {n} of {len(whole)} in its {split} part")
        return 1 + whole.images[:n].reshape(n, -1), whole.labels[:n]

    (training, labels), (held_out, held_out_labels) = part("train", config.n_images), part("test", config.n_held_out)
    return Data(training, held_out, labels, held_out_labels)


def run_generation(name: str, config: Config, settings: Generation, session: Session, key: jax.Array, data: Data) -> dict[str, xr.Dataset]:
    """Training, sampling and all readings of one data set."""
    key_train, key_samples = jax.random.split(key)
    networks, trees = train(name, config, settings, session, key_train, data.training, data.held_out)
    n = settings.copies * len(data.held_out)
    found = {
        sampler: session.once(
            f"{name}, {sampler}",
            lambda sampler=sampler: _draw(config, settings, sampler, networks[NETWORK_OF[sampler]], data, n, key_samples),
        )
        for sampler in SAMPLERS
    }
    shown = min(SHOWN[name], n)
    seen = None
    if data.labels is not None and data.held_out_labels is not None:
        seen = features.fit(session, data.training, data.labels, data.held_out, data.held_out_labels)
    directions = directions_of(jax.random.fold_in(key, 2), settings.seeds, settings.directions, data.held_out.shape[1])
    rows: dict[str, list[Any]] = {}
    for frames in found.values():
        ends = np.asarray(frames)[:, -1]
        distances = np.array([distance(end, data.held_out, along) for end, along in zip(ends, directions, strict=False)])
        row = {"distance": distances, **_readings(ends, data, seen)}
        for reading, value in row.items():
            rows.setdefault(reading, []).append(_padded(value, settings.seeds))
        rows.setdefault("shown", []).append(np.asarray(frames)[0, :, :shown])
    # A multiple of the held-out points, as what is drawn.
    n_floor = min(settings.copies, len(data.training) // len(data.held_out)) * len(data.held_out)
    floor = np.mean([distance(data.training[:n_floor], data.held_out, along) for along in directions])
    dims = {"shown": ("sampler", "frame", "point", "coordinate"), "nearest": ("sampler", "seed", "point_nearest")}
    tree = xr.Dataset(
        {reading: (dims.get(reading, ("sampler", "seed")), np.stack(values), {"units": "1"}) for reading, values in rows.items()},
        coords={"sampler": list(SAMPLERS), "frame": np.linspace(1, 0, FRAMES + 1)},
    )
    tree["floor"] = ((), floor, {"units": "1"})
    tree["data"] = (("point", "coordinate"), data.held_out[:shown], {"units": "1"})
    if data.held_out_labels is not None and seen is not None:
        tree["feature_floor"] = ((), features.frechet(seen.of(data.training[:n_floor]), seen.of(data.held_out)), {"units": "1"})
        tree.attrs["accuracy"] = seen.accuracy
        tree["nearest_held_out"] = ("held_out", nearest(data.held_out, data.training)[0], {"units": "1"})
        counts = np.bincount(data.held_out_labels, minlength=10)
        tree["held_out_entropy"] = ((), entropy(counts), {"units": "nat"})
    common = min(settings.beside, settings.seeds)
    means = {sampler: float(f"{values[:common].mean():.3g}") for sampler, values in zip(SAMPLERS, rows["distance"], strict=True)}
    session.note(f"Sliced distance to held-out {name}, mean over {common} seeds: {means}; of as many training points: {floor:.3g}")
    return {name: tree, **trees}


def directions_of(key: jax.Array, seeds: int, n: int, dim: int) -> Float[np.ndarray, "seeds n dim"]:
    """Random directions for each seed, the same for all samplers."""
    drawn = host_generator(key).normal(size=(seeds, n, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def distance(points: np.ndarray, held_out: np.ndarray, directions: Float[np.ndarray, "n dim"]) -> float:
    """Sliced distance along these directions; `points` are a multiple of `held_out` in number."""
    return float(sliced_distance(points, held_out, directions))


def _padded(values: np.ndarray, seeds: int) -> np.ndarray:
    """With NaN for seeds that there are not."""
    return np.concatenate([values, np.full((seeds - len(values), *values.shape[1:]), np.nan, values.dtype)])


def nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the nearest of the others, and which it is."""
    squares = (others**2).sum(axis=1)
    distances, rows = [], []
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        all_of_them = squares - 2 * part @ others.T
        rows.append(all_of_them.argmin(axis=1))
        distances.append(np.sqrt(np.maximum(all_of_them.min(axis=1) + (part**2).sum(axis=1), 0)))
    return np.concatenate(distances), np.concatenate(rows)


def entropy(counts: np.ndarray) -> float:
    """Of shares, in nat."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def _readings(ends: np.ndarray, data: Data, seen: features.Features | None) -> dict[str, np.ndarray]:
    """By seed: the share of entries outside the range of the data, errors of means and deviations; of images neighbours and features."""
    low, high = data.training.min(), data.training.max()
    outside = ((ends < low) | (ends > high)).mean(axis=(1, 2))
    beyond = (np.maximum(low - ends, 0) + np.maximum(ends - high, 0)).max(axis=(1, 2))
    mean, std = data.held_out.mean(axis=0), data.held_out.std(axis=0)
    found = {
        "outside": outside,
        "beyond": beyond,
        "mean_error": np.sqrt(((ends.mean(axis=1) - mean) ** 2).mean(axis=1)),
        "std_error": np.sqrt(((ends.std(axis=1) - std) ** 2).mean(axis=1)),
        "negative": (ends <= 0).mean(axis=(1, 2)),
    }
    if data.labels is not None and seen is not None:
        expected = seen.of(data.held_out)
        found["feature_distance"] = np.array([features.frechet(seen.of(end), expected) for end in ends])
        pairs = [nearest(end, data.training) for end in ends]
        found["nearest"] = np.stack([pair[0] for pair in pairs])
        found["class_entropy"] = np.array([entropy(np.bincount(data.labels[pair[1]], minlength=10)) for pair in pairs])
    return found


def _draw(
    config: Config, settings: Generation, sampler: str, networks: Any, data: Data, n: int, key: jax.Array
) -> Float[np.ndarray, "seed frame n dim"]:
    """Points of one sampler with each seed's network, as they are after each part of the way."""
    if sampler not in JUDGED:
        networks = jax.tree.map(lambda leaf: leaf[: settings.beside], networks)
    seeds = len(jax.tree.leaves(networks)[0])
    motion, scale = motion_of(config, NETWORK_OF[sampler]), scale_of(data.training)
    starts = _starts(sampler, motion, data, n, settings.seeds, key)[:seeds]
    kind = sampler if sampler in ("space", "additive") else "log"
    times = np.linspace(0, 1, settings.sampler_steps + 1) if sampler == "additive" else np.linspace(1, 0, settings.sampler_steps + 1)
    size = settings.sampler_steps // FRAMES
    frames, x = [starts], starts
    for k in range(FRAMES):
        keys = jax.random.split(jax.random.fold_in(key, 1 + k), settings.seeds * n).reshape(settings.seeds, n)[:seeds]
        x = _segment(networks, scale, motion, x, jnp.asarray(times[k * size : (k + 1) * size + 1], jnp.float32), keys, kind=kind)
        frames.append(x)
    found = np.stack([np.asarray(frame) for frame in frames], axis=1)
    return np.exp(np.asarray(scale.std) * found + np.asarray(scale.mean)) if sampler == "additive" else found


def _starts(sampler: str, motion: AbstractGeometricMotion, data: Data, n: int, seeds: int, key: jax.Array) -> Array:
    """Noise, the same for all samplers."""
    dim = data.training.shape[1]
    random = host_generator(jax.random.fold_in(key, FRAMES + 1))
    rows = np.stack([np.resize(random.permutation(len(data.training)), n) for _ in range(seeds)])
    noise, fitted, noised = _noise(motion, jnp.asarray(data.training[rows]), jax.random.fold_in(key, 0), shape=(seeds, n, dim))
    return {"additive": noise, "from noised data": noised}.get(sampler, fitted)


@functools.partial(jax.jit, static_argnames="shape")
def _noise(motion: AbstractGeometricMotion, points: Array, key: Array, *, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Standard normal, log-normal as fitted to each seed's noised data, and noised data."""
    noise, other = jax.random.normal(key, (2 * math.prod(shape),), jnp.float32).reshape(2, *shape)
    noised = motion.point(points, other, 1.0)
    # Fitted as the paper does, for every coordinate by itself: what coordinates have in common at the end of the motion is lost.
    prior = jax.vmap(LogNormal.fit)(noised)
    return noise, jnp.exp(prior.mean[:, None] + prior.std[:, None] * noise), noised


@functools.partial(jax.jit, static_argnames="kind")
def _segment(
    networks: NoiseNetwork, scale: Scale, motion: AbstractGeometricMotion, x: Array, times: Array, keys: Array, *, kind: str
) -> Array:
    """A part of a sampler's way, one seed after another: activations of all would fill the memory."""

    def one(network: NoiseNetwork, x: Array, key: Array) -> Array:
        if kind == "additive":
            return sample_reverse_diffusion(PathScore(network), PATH, x, times, key=key)
        score = ScoreFromNoise(MotionNoise(network, scale, motion), motion)
        if kind == "space":
            return sample_multiplicative(score, motion, x, times, key=key).x
        return sample_dale_langevin(score, motion, x, times, key=key)

    return jax.lax.map(lambda given: jax.vmap(lambda x, key: one(given[0], x, key))(given[1], given[2]), (networks, x, keys))
