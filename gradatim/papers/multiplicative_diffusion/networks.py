"""Networks of the noise in a logarithm, the same for every arm, and their training."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from gradatim.lab import Session
from gradatim.transport import (
    AbstractGeometricMotion,
    GeometricBrownianMotion,
    RampedGeometricMotion,
    ScoreFromNoise,
    VariancePreserving,
    denoising_score_matching,
    multiplicative_score_matching,
)

from .config import Config, Generation

ARMS = ("multiplicative", "evenly weighted", "ramped", "additive")
"""The paper's loss; the same with all noise levels alike; that with noise which comes in slowly, as the additive path's, so that equal
steps end in small ones; and additive diffusion of the logarithm."""
JUDGED = ("multiplicative", "additive")
"Arms that a claim rests on."
RAMP = 200.0
"The last rate of variance over the first, of such noise: the additive path's."
PATH = VariancePreserving()
FREQUENCIES = (0.25, 0.5, 1.0, 2.0)
"Of the features of the noise level, per unit of the logarithm of noise over signal."
WATCHED = 2**15
"Numbers of held-out points behind a loss: with few of them rates are told apart by chance."


class NoiseNetwork(eqx.Module):
    """A multi-layer perceptron of the noise in a point of unit variance, in the precision of its weights."""

    weights: list[Float[Array, "n_in n_out"]]
    biases: list[Float[Array, " n_out"]]

    def __init__(self, dim: int, width: int, depth: int, *, key: PRNGKeyArray) -> None:
        sizes = (dim + 2 * len(FREQUENCIES), *(width for _ in range(depth)), dim)
        keys = jax.random.split(key, depth + 1)
        shapes = zip(keys, pairwise(sizes), strict=True)
        self.weights = [jax.random.normal(key, (m * n,), jnp.float32).reshape(m, n) * (2 / m) ** 0.5 for key, (m, n) in shapes]
        # What a normal density would need is there from the start: the rest begins small.
        self.weights[-1] = 0.1 * self.weights[-1]
        self.biases = [jnp.zeros(n, jnp.float32) for n in sizes[1:]]

    def __call__(self, share: Float[Array, ""], u: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The noise, whose standard deviation is this share of the point's."""
        level = jnp.log(share) - jnp.log1p(-(share**2)) / 2
        angles = level * jnp.asarray(FREQUENCIES, u.dtype)
        h = jnp.concatenate([u, jnp.cos(angles), jnp.sin(angles)])
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = jax.nn.silu(h @ weight + bias)
        return share * u + h @ self.weights[-1] + self.biases[-1]


class Scale(eqx.Module):
    """Mean and standard deviation of the data's logarithm, over all points and coordinates."""

    mean: Float[Array, ""]
    std: Float[Array, ""]


class MotionNoise(eqx.Module):
    """The network as one of the motion's noise in a point: given time and point."""

    network: NoiseNetwork
    scale: Scale
    motion: AbstractGeometricMotion

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The noise z of the motion."""
        shift, variance = (part.astype(x.dtype) for part in self.motion.log_transition(t))
        total = jnp.sqrt(self.scale.std**2 + variance)
        return self.network(jnp.sqrt(variance) / total, (jnp.log(x) - shift - self.scale.mean) / total)


class PathScore(eqx.Module):
    """The network as the score of additive diffusion of the standardised logarithm."""

    network: NoiseNetwork

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """∇ log p_t(x)."""
        m = PATH.coefficients(t).m.astype(x.dtype)
        return -self.network(m, x) / m


def loss_of(arm: str, network: NoiseNetwork, scale: Scale, motion: AbstractGeometricMotion, batch: tuple[Array, Array, Array]) -> Array:
    """Of points, noise and times of the motion, of which that of the samplers' last step is the least."""
    x, noise, t = batch
    if arm == "additive":
        return denoising_score_matching(PathScore(network), PATH, noise, (jnp.log(x) - scale.mean) / scale.std, 1 - t)
    score = ScoreFromNoise(MotionNoise(network, scale, motion), motion)
    weighting: Any = "variance" if arm == "multiplicative" else "noise"
    return multiplicative_score_matching(score, motion, x, noise, t, weighting=weighting)


def motion_of(config: Config, arm: str) -> AbstractGeometricMotion:
    """The paper's, or one whose variance at the end is the same."""
    if arm != "ramped":
        return GeometricBrownianMotion(config.sigma)
    first = config.sigma * (2 / (1 + RAMP)) ** 0.5
    return RampedGeometricMotion(first, first * RAMP**0.5)


def batch_of(key: PRNGKeyArray, data: Float[Array, "n dim"], size: int, first: float) -> tuple[Array, Array, Array]:
    """Points, noise and times, the same for every arm."""
    # One draw, for random numbers take longest to compile: uniform ones from normal ones by their law.
    normal = jax.random.normal(key, (size * (data.shape[1] + 2),), jnp.float32).reshape(size, -1)
    uniform = jax.scipy.special.ndtr(normal[:, :2])
    rows = jnp.minimum((uniform[:, 0] * len(data)).astype(jnp.int32), len(data) - 1)
    return data[rows], normal[:, 2:], first + (1 - first) * uniform[:, 1]


def scale_of(data: Float[np.ndarray, "n dim"]) -> Scale:
    """In single precision, as the networks."""
    logs = np.log(data)
    return Scale(jnp.asarray(logs.mean(), jnp.float32), jnp.asarray(logs.std(), jnp.float32))


def train(
    name: str, config: Config, settings: Generation, session: Session, key: jax.Array, data: np.ndarray, held_out: np.ndarray
) -> tuple[dict[str, NoiseNetwork], dict[str, xr.Dataset]]:
    """Networks of each arm, stacked over seeds, at the rate that is best for the arm; and their losses on held-out points.

    Arms that no claim rests on have only the first of the seeds.
    """
    # The same points, noise and times for all networks and all looks.
    key_watched, n_watched = jax.random.fold_in(key, 2), WATCHED // data.shape[1]
    watched = jax.jit(lambda points: batch_of(key_watched, points, n_watched, 1 / settings.sampler_steps))(jnp.asarray(held_out))
    points = jnp.asarray(data), watched
    networks: dict[str, NoiseNetwork] = {}
    parts: list[dict[str, xr.Dataset]] = []
    for arms, n_seeds in ((JUDGED, settings.seeds), (tuple(arm for arm in ARMS if arm not in JUDGED), settings.beside)):
        pieces = _training(arms, config, settings, data)
        found, trees = _train_arms(name, arms, n_seeds, settings, session, key, points, pieces)
        networks |= found
        parts.append(trees)
    return networks, {tree: xr.concat([part[tree] for part in parts], "arm", join="outer") for tree in parts[0]}


def _train_arms(
    name: str, arms: tuple[str, ...], n_seeds: int, settings: Generation, session: Session, key: jax.Array, points: Any, pieces: Any
) -> tuple[dict[str, NoiseNetwork], dict[str, xr.Dataset]]:
    """Of arms with as many seeds."""
    init, unravel, step, watch = pieces
    words = f"{name}, {' and '.join(arms)}"
    trees: dict[str, xr.Dataset] = {}
    rates = dict.fromkeys(arms, settings.rates[0])
    if len(settings.rates) > 1:
        # All pilots at all rates stand where otherwise seeds do, rates slowest.
        n_rates, pilots = len(settings.rates), settings.pilots
        keys = jax.random.split(jax.random.fold_in(key, 1), pilots)[np.tile(np.arange(pilots), n_rates)]
        grid = jnp.asarray([np.repeat(settings.rates, pilots)] * len(arms), jnp.float32)
        args = (*points, keys, grid, jnp.asarray(settings.pilot_steps, jnp.float32))
        common: dict[str, Any] = {"watch": watch, "on_nonfinite": "keep"}
        loop = session.loop(step, init(keys), steps=settings.pilot_steps, args=args, label=f"rates for {words}", **common)
        final = loop.history["loss"][-1].reshape(len(arms), n_rates, pilots)
        best = np.where(np.isfinite(final), final, np.inf).mean(axis=2).argmin(axis=1)
        rates = {arm: settings.rates[row] for arm, row in zip(arms, best, strict=True)}
        coordinates = {"arm": list(arms), "rate": list(settings.rates)}
        trees[f"{name}_rates"] = xr.Dataset({"loss": (("arm", "rate", "pilot"), final, {"units": "1"})}, coordinates)
        edges = [arm for arm, rate in rates.items() if rate in (min(settings.rates), max(settings.rates))]
        session.note(
            f"Learning rates for {name} by the held-out loss of {settings.pilot_steps} steps, mean of {pilots} pilots, the same grid for "
            + "all: "
            + ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
            + (f"; at an edge of the grid: {', '.join(edges)}" if edges else "")
        )
    keys = jax.random.split(jax.random.fold_in(key, 0), settings.seeds)[:n_seeds]
    grid = jnp.asarray([[rates[arm]] * len(keys) for arm in arms], jnp.float32)
    args = (*points, keys, grid, jnp.asarray(settings.steps, jnp.float32))
    loop = session.loop(step, init(keys), steps=settings.steps, args=args, watch=watch, label=f"networks for {words}")
    trees[f"{name}_training"] = xr.Dataset(
        {"loss": (("row", "arm", "seed"), loop.history["loss"], {"units": "1"})},
        {"row": loop.history["step"], "arm": list(arms), "seed": np.arange(len(keys))},
    )
    networks = jax.jit(jax.vmap(jax.vmap(unravel)))(loop.state[0])
    return {arm: jax.tree.map(lambda leaf, i=i: leaf[i], networks) for i, arm in enumerate(arms)}, trees


def _training(arms: tuple[str, ...], config: Config, settings: Generation, data: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """First state, networks from it, step and what is watched, of these arms over seeds.

    The parameters of a network are one vector, so that Adam is a handful of operations for all networks together.
    """
    motions, scale = {arm: motion_of(config, arm) for arm in arms}, scale_of(data)
    first = 1 / settings.sampler_steps
    adam: Any = optax.scale_by_adam()

    def network_of(key: Array) -> NoiseNetwork:
        return NoiseNetwork(data.shape[1], settings.width, settings.depth, key=key)

    shapes = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(network_of, jax.random.key(0)))
    unravel = ravel_pytree(shapes)[1]

    @jax.jit
    def init(keys: Array) -> Any:
        one = jax.vmap(lambda key: ravel_pytree(network_of(jax.random.fold_in(key, 0)))[0])(keys)
        # The same weights for all arms.
        parameters = jnp.stack([one] * len(arms))
        return parameters, adam.init(parameters)

    def losses(parameters: Array, batch: Any) -> Array:
        """Of one seed, arm by arm."""
        return jnp.stack([loss_of(arm, unravel(row), scale, motions[arm], batch) for arm, row in zip(arms, parameters, strict=True)])

    def step(state: Any, i: Array, args: Any) -> Any:
        data, _, keys, rates, horizon = args
        parameters, memory = state

        def gradient(parameters: Array, key: Array) -> Array:
            batch = batch_of(jax.random.fold_in(key, i + 1), data, settings.batch_size, first)
            return jax.grad(lambda parameters: losses(parameters, batch).sum())(parameters)

        updates, memory = adam.update(jax.vmap(gradient, (1, 0), 1)(parameters, keys), memory)
        factor = -rates * (1 + jnp.cos(jnp.pi * i / horizon).astype(rates.dtype)) / 2
        return parameters + factor[..., None] * updates, memory

    def watch(state: Any, args: Any) -> dict[str, Array]:
        return {"loss": jax.vmap(lambda parameters: losses(parameters, args[1]), 1, 1)(state[0])}

    return init, unravel, step, watch
