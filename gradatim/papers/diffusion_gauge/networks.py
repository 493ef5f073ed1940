"""Denoisers of a rolled sheet and of a sphere: their data, and their training as free fields and as gradients."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float, PRNGKeyArray
from sklearn.datasets import make_swiss_roll

from gradatim.lab import Session, host_generator
from gradatim.transport import FreeScore, GradientScore, denoising_score_matching

from .config import Config, Learned
from .fields import LAST, PATH, flat_normal, one_by_one

KINDS = ("free", "gradient")
MODELS = {"free": FreeScore, "gradient": GradientScore}
SURFACES = ("rolled sheet", "sphere")
WATCHED = 2048
"Held-out points behind a loss."


class Denoiser(eqx.Module):
    """A multi-layer perceptron of time and place with smooth activations, in the precision of its weights."""

    weights: list[Float[Array, "n_in n_out"]]
    biases: list[Float[Array, " n_out"]]
    last: Float[Array, "dim n_in"]
    "Stored by output: XLA is slow to make the gradient of a matrix of few columns."

    def __init__(self, dim: int, width: int, depth: int, *, key: PRNGKeyArray) -> None:
        sizes = (dim + 2, *(width for _ in range(depth)), dim)
        keys = jax.random.split(key, depth + 1)
        shapes = zip(keys, pairwise(sizes), strict=True)
        *self.weights, last = [jax.random.normal(key, (m * n,), jnp.float32).reshape(m, n) * (2 / m) ** 0.5 for key, (m, n) in shapes]
        self.last = last.T
        self.biases = [jnp.zeros(n, jnp.float32) for n in sizes[1:]]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The clean point that is expected behind a noisy one."""
        left = (1 - t).astype(x.dtype)
        # Noise levels along a root and a logarithm: near the data they differ by ratios.
        h = jnp.concatenate([x, jnp.stack([jnp.sqrt(left), jnp.log(left) / 4])])
        for weight, bias in zip(self.weights, self.biases[:-1], strict=True):
            h = jax.nn.silu(h @ weight + bias)
        return self.last @ h + self.biases[-1]


def surfaces(n: int, dim: int, key: PRNGKeyArray) -> Float[np.ndarray, "surface n dim"]:
    """Points of both, each coordinate of unit variance in three dimensions, then turned at random into `dim`."""
    random = host_generator(key)
    roll = make_swiss_roll(n, random_state=int(random.integers(2**31)))[0]
    sphere = random.normal(size=(n, 3))
    sphere *= 3**0.5 / np.linalg.norm(sphere, axis=1)[:, None]
    flat = np.stack([(roll - roll.mean(axis=0)) / roll.std(axis=0), sphere])
    # The turn is the same for every draw of points.
    turn = np.linalg.qr(np.random.default_rng(dim).normal(size=(dim, dim)))[0] if dim > 3 else np.eye(3)
    return (np.pad(flat, ((0, 0), (0, 0), (0, dim - 3))) @ turn.T).astype(np.float32)


def data_sets(settings: Learned, key: PRNGKeyArray) -> dict[int, Float[np.ndarray, "surface seed n dim"]]:
    """By dimension: every network draws its own points, so that a spread over seeds holds that of the data."""
    keys = {dim: jax.random.split(jax.random.fold_in(key, dim), settings.seeds) for dim in settings.dims}
    return {dim: np.stack([surfaces(settings.points, dim, each) for each in keys[dim]], axis=1) for dim in settings.dims}


def batch_of(key: PRNGKeyArray, data: Float[Array, "n dim"], size: int) -> tuple[Array, Array, Array]:
    """Noise, data and times, 1 - t by its logarithm: each noise level counts as much as any other, the last ones before the data too."""
    key_noise, key_rows, key_times = jax.random.split(key, 3)
    noise = flat_normal(key_noise, size, data.shape[1], dtype=jnp.float32)
    rows = jax.random.randint(key_rows, (size,), 0, len(data))
    left = LAST ** jax.random.uniform(key_times, (size,), jnp.float32)
    return noise, data[rows], 1 - left


def train(
    config: Config, session: Session, key: jax.Array, data: dict[int, np.ndarray]
) -> tuple[dict[int, dict[str, Denoiser]], dict[str, xr.Dataset]]:
    """Networks by dimension and kind, over (surface, seed), and their losses; rates are chosen in the first dimension."""
    settings = config.learned
    networks: dict[int, dict[str, Denoiser]] = {}
    trees: dict[str, xr.Dataset] = {}
    rates = dict.fromkeys(KINDS, settings.rates[0])
    for dim in settings.dims:
        key_watched, key_pilot = (jax.random.fold_in(key, 1_000_001 + i) for i in range(2))
        held_out = jnp.asarray(surfaces(WATCHED, dim, jax.random.fold_in(key_watched, dim)))
        init, step, watch = _training(config, dim)
        if dim == settings.dims[0] and len(settings.rates) > 1:
            # One seed and draw of points, which no judged network has, at all rates: they stand where otherwise seeds do.
            keys = jnp.stack([jax.random.fold_in(key, 1_000_000)] * len(settings.rates))
            grid = jnp.asarray([settings.rates] * len(KINDS), jnp.float32)
            points = jnp.stack([jnp.asarray(surfaces(settings.points, dim, key_pilot))] * len(settings.rates), axis=1)
            args = (points, held_out, keys, grid, jnp.asarray(settings.pilot_steps, jnp.float32))
            loop = session.loop(
                step,
                init(keys),
                steps=settings.pilot_steps,
                args=args,
                watch=watch,
                label=f"rates in {dim} dimensions",
                on_nonfinite="keep",
            )
            final = loop.history["loss"][-1].mean(axis=1)
            best = np.where(np.isfinite(final), final, np.inf).argmin(axis=1)
            rates = {kind: settings.rates[row] for kind, row in zip(KINDS, best, strict=True)}
            trees["rates"] = xr.Dataset(
                {"loss": (("kind", "rate"), final, {"units": "1"})}, {"kind": list(KINDS), "rate": list(settings.rates)}
            )
            _note_rates(session, rates, settings.rates)
        keys = jax.random.split(jax.random.fold_in(key, dim), settings.seeds)
        grid = jnp.asarray([[rates[kind]] * settings.seeds for kind in KINDS], jnp.float32)
        args = (jnp.asarray(data[dim]), held_out, keys, grid, jnp.asarray(settings.steps, jnp.float32))
        loop = session.loop(step, init(keys), steps=settings.steps, args=args, watch=watch, label=f"score matching in {dim} dimensions")
        networks[dim] = loop.state[0]
        trees[f"training_{dim}"] = xr.Dataset(
            {"loss": (("row", "kind", "surface", "seed"), loop.history["loss"], {"units": "1"})},
            {"row": loop.history["step"], "kind": list(KINDS), "surface": list(SURFACES)},
        )
    return networks, trees


def _training(config: Config, dim: int) -> tuple[Any, Any, Any]:
    """First state, step and what is watched, of both kinds over (surface, seed)."""
    settings = config.learned
    adam = optax.scale_by_adam()

    @jax.jit
    def init(keys: Array) -> Any:
        one = jax.vmap(lambda key: Denoiser(dim, settings.width, settings.depth, key=jax.random.fold_in(key, 0)))(keys)
        # The same weights for both surfaces and both kinds.
        both = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(SURFACES)), one)
        memory = jax.vmap(jax.vmap(adam.init))(both)
        return dict.fromkeys(KINDS, both), dict.fromkeys(KINDS, memory)

    def loss(network: Denoiser, kind: str, batch: tuple[Array, Array, Array]) -> Array:
        return denoising_score_matching(MODELS[kind](network, PATH), PATH, *batch)

    def losses(given: tuple[dict[str, Denoiser], tuple[Array, Array, Array]]) -> Array:
        networks, batch = given
        return jnp.stack([loss(networks[kind], kind, batch) for kind in KINDS])

    def gradients(given: tuple[dict[str, Denoiser], tuple[Array, Array, Array]]) -> dict[str, Denoiser]:
        networks, batch = given
        return {kind: jax.grad(loss)(networks[kind], kind, batch) for kind in KINDS}

    def step(state: Any, i: Array, args: Any) -> Any:
        data, _, keys, rates, horizon = args
        decay = (1 + jnp.cos(jnp.pi * i / horizon)) / 2

        def draw(key: Array, data: Array) -> tuple[Array, Array, Array]:
            return batch_of(jax.random.fold_in(key, i + 1), data, settings.batch_size)

        def move(network: Any, memory: Any, gradient: Any, rate: Array) -> Any:
            updates, memory = adam.update(gradient, memory)
            scale = (-rate * decay).astype(jnp.float32)
            return optax.apply_updates(network, jax.tree.map(lambda u: scale * u, updates)), memory

        networks, memories = state
        found = one_by_one(gradients, (networks, jax.vmap(jax.vmap(draw), (None, 0))(keys, data)))
        moves = jax.vmap(jax.vmap(move), (0, 0, 0, None))
        after = {kind: moves(networks[kind], memories[kind], found[kind], rate) for kind, rate in zip(KINDS, rates, strict=True)}
        return {kind: pair[0] for kind, pair in after.items()}, {kind: pair[1] for kind, pair in after.items()}

    def watch(state: Any, args: Any) -> dict[str, Array]:
        _, held_out, keys, *_ = args
        # The same noise and times for all networks and all looks.
        batches = jax.vmap(lambda data: batch_of(jax.random.key(0), data, WATCHED))(held_out)
        found = one_by_one(losses, (state[0], jax.tree.map(lambda leaf: jnp.stack([leaf] * len(keys), axis=1), batches)))
        return {"loss": jnp.moveaxis(found, -1, 0)}

    return init, step, watch


def _note_rates(session: Session, rates: dict[str, float], grid: tuple[float, ...]) -> None:
    edges = [kind for kind, rate in rates.items() if rate in (min(grid), max(grid))]
    session.note(
        "Learning rates by the held-out loss of short runs, the same grid for both kinds: "
        + ", ".join(f"{kind} {rate:g}" for kind, rate in rates.items())
        + f" of {', '.join(f'{rate:g}' for rate in grid)}"
        + (f"; at an edge of the grid for the {' and the '.join(edges)} network" if edges else "")
    )
