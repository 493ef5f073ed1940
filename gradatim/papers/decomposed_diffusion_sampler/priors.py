"""What is known of clean images: networks that are trained on them, and mixtures that are fitted to them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, Float

from gradatim.lab import Session, host_generator
from gradatim.nets import UNet
from gradatim.transport import Denoiser, NoiseLevel, fit_mixture

from .config import Config, Prior
from .images import PARTS, Pair, phantoms, slices

LOG_RATIO = (-0.5, 1.2)
"Mean and standard deviation, in training, of the logarithm of m / (a s), as Karras et al. have them."


class ImageNetwork(eqx.Module):
    """The mean clean image by a U-Net: that of normal pixels, all alike, and what the network adds.

        x̂₁ = μ + (a s² d + s m √v F(d/√v, log m/a)) / v,     d = x - a μ,  v = a² s² + m²        (Karras et al., arXiv:2206.00364)

    It serves preserving and exploding diffusions alike: only m/a matters.
    """

    net: Callable[[Any, Any], Any]
    mean: Float[Array, ""]
    std: Float[Array, ""]

    def __call__(self, level: NoiseLevel, x: Float[Array, "*batch height width"]) -> Float[Array, "*batch height width"]:
        """The estimates of a batch."""
        a, m = level.a.astype(x.dtype), level.m.astype(x.dtype)
        variance = (a * self.std) ** 2 + m**2
        centred = x - a * self.mean
        flat = (centred / jnp.sqrt(variance)).reshape(-1, *x.shape[-2:], 1)
        added = jax.vmap(lambda image: self.net(image, jnp.log(m / a)))(flat).reshape(x.shape)
        return self.mean + (a * self.std**2 * centred + self.std * m * jnp.sqrt(variance) * added) / variance


class Known(NamedTuple):
    """A prior, and images that it has not seen."""

    denoiser: Denoiser
    mixture: Denoiser | None
    "Beside a network."
    validation: Pair
    test: Pair


def learn(name: str, config: Config, session: Session, key: jax.Array) -> tuple[list[Known], xr.Dataset | None]:
    """As many networks, each with first weights and images of its own, and how their training went."""
    known, histories = [], []
    for i in range(config.networks):
        key_images, key_network = jax.random.split(jax.random.fold_in(key, i))
        training, validation, test = (_images(name, config, part, key_images, session) for part in PARTS)
        denoiser, other = mixture(config.prior, training.coarse), None
        if config.prior.with_network:
            network, history = train(f"{name}, {i}", config.prior, session, key_network, training.coarse, validation.coarse)
            denoiser, other = Denoiser(network, "image"), denoiser
            histories.append(history)
        known.append(Known(denoiser, other, validation, test))
    if not histories:
        return known, None
    losses = np.stack([history["loss"] for history in histories])
    return known, xr.Dataset({"loss": (("network", "step"), losses, {"units": "1"})}, {"step": histories[0]["step"]})


def _images(name: str, config: Config, part: str, key: jax.Array, session: Session) -> Pair:
    """Of one network."""
    sets = config.seeds // config.networks
    n = {"training": config.prior.images, "validation": config.validation_images, "test": sets * config.images}[part]
    if name == "heads" and config.resonance_images == "mni152":
        return slices(n, config.side, part=part, key=key, session=session)
    return phantoms(n, config.side, part=part, key=key)


def train(
    name: str, config: Prior, session: Session, key: jax.Array, images: Float[np.ndarray, "n side side"], held_out: np.ndarray
) -> tuple[ImageNetwork, dict[str, np.ndarray]]:
    """A network from noisy images, at levels spread as in that article, errors weighted as the network scales them."""
    random = host_generator(jax.random.fold_in(key, 1))
    mean, std = jnp.asarray(images.mean()), jnp.asarray(images.std())
    # By the host's generator: as many draws as there are shapes of weights would be as many programs.
    net = _initial(config, random)
    adam, step, watch = _training(config)
    args = (jnp.asarray(images), jnp.asarray(held_out), key, mean, std)
    every = max(config.steps // 20, 1)
    state = net, jax.jit(adam.init)(net)
    loop = session.loop(step, state, steps=config.steps, args=args, watch=watch, every=every, label=f"network for {name}")
    return ImageNetwork(loop.state[0], mean, std), loop.history


@functools.cache
def _training(config: Prior) -> tuple[optax.GradientTransformation, Callable[..., Any], Callable[..., Any]]:
    """Adam, its step and what is watched: the same functions, and so one program, for all networks of a size."""
    adam = optax.adam(optax.cosine_decay_schedule(config.rate, config.steps))

    def loss(net: UNet, clean: Array, logs: Array, noise: Array, mean: Array, std: Array) -> Array:
        def one(image: Array, log: Array, z: Array) -> Array:
            ratio = std * jnp.exp(log)
            a = 1 / jnp.sqrt(1 + ratio**2)
            level = NoiseLevel(a, a * ratio, log)
            found = ImageNetwork(net, mean, std)(level, (level.a * image + level.m * z)[None])[0]
            scale = level.m * std / jnp.sqrt((level.a * std) ** 2 + level.m**2)
            return jnp.mean(((found - image) / scale) ** 2)

        return jnp.mean(jax.vmap(one)(clean, logs, noise))

    def draw(key: Array, n: int, pool: Array) -> tuple[Array, Array, Array]:
        drawn = jax.random.normal(key, (n * (pool[0].size + 2),), jnp.float32)
        share = jax.scipy.special.ndtr(drawn[:n])
        rows = jnp.minimum((share * len(pool)).astype(jnp.int32), len(pool) - 1)
        logs = LOG_RATIO[0] + LOG_RATIO[1] * drawn[n : 2 * n]
        return pool[rows], logs, drawn[2 * n :].reshape(n, *pool.shape[1:])

    def step(state: Any, i: Array, args: Any) -> Any:
        net, memory = state
        data, _, key, mean, std = args
        gradient = jax.grad(loss)(net, *draw(jax.random.fold_in(key, i + 1), config.batch_size, data), mean, std)
        updates, memory = adam.update(gradient, memory, net)
        return optax.apply_updates(net, updates), memory

    def watch(state: Any, args: Any) -> dict[str, Array]:
        _, shown, key, mean, std = args
        return {"loss": loss(state[0], *draw(jax.random.fold_in(key, 0), 64, shown), mean, std)}

    return adam, step, watch


def mixture(config: Prior, images: Float[np.ndarray, "n side side"]) -> Denoiser:
    """The mixture of the same images."""
    return Denoiser(fit_mixture(images, n_components=config.components, rank=config.rank, seed=0), "image")


def _initial(config: Prior, random: np.random.Generator) -> UNet:
    """The network's own first weights, by a generator of the host."""
    shapes = eqx.filter_eval_shape(lambda key: UNet(1, widths=config.widths, key=key), jax.random.key(0))
    whole = jax.tree_util.tree_map_with_path(lambda path, leaf: _first(jax.tree_util.keystr(path), leaf, random), shapes)
    # Read-out and the second convolution of each block start from zero.
    whole = eqx.tree_at(lambda net: net.readout.weight, whole, replace_fn=jnp.zeros_like)
    return eqx.tree_at(_second_convolutions, whole, replace_fn=jnp.zeros_like)


def _second_convolutions(net: UNet) -> list[Array]:
    return [block.convolutions[1].weight for stage in (*net.down, *net.up) for block in stage]


def _first(path: str, leaf: Any, random: np.random.Generator) -> Array:
    if path.endswith("scale"):
        return jnp.ones(leaf.shape, leaf.dtype)
    if len(leaf.shape) == 1:
        return jnp.zeros(leaf.shape, leaf.dtype)
    fan_in = np.prod(leaf.shape[:-1]) / 2 if len(leaf.shape) == 4 else leaf.shape[1]
    return jnp.asarray(random.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)
