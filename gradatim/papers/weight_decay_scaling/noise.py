"""Square matrices that AdamW moves by noise alone: where their weights and largest singular values settle."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Session
from gradatim.optim import adamw_by_label, steady_state_rms

from .config import Config


class _Walk(NamedTuple):
    weights: Array
    optimizer: Any
    square: Array  # mean square of the weights, summed over the measured steps


def walk_by_noise(config: Config, session: Session) -> xr.Dataset:
    """Levels over their theory, by `(width, decay, seed)`: root mean square over √(η/2λ), top singular value over 2 √d times it."""
    noise = config.noise
    shape = (len(noise.widths), len(noise.decays), config.n_seeds)
    rms, top = np.zeros(shape), np.zeros(shape)

    def step(state: _Walk, i: Any, args: Any) -> _Walk:
        keys, decay, measured_from = args

        def one(state: _Walk, key: Any) -> _Walk:
            gradient = jax.random.normal(jax.random.fold_in(key, i), state.weights.shape)
            updates, optimizer = _optimizer(config, decay).update(gradient, state.optimizer, state.weights)
            weights: Any = optax.apply_updates(state.weights, updates)
            return _Walk(weights, optimizer, state.square + jnp.where(i >= measured_from, jnp.mean(weights**2), 0.0))

        return jax.vmap(one)(state, keys)

    for w, width in enumerate(noise.widths):
        for k, decay in enumerate(noise.decays):
            steps = round(noise.relaxations / (noise.rate * decay))
            keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(session.key, width), k), config.n_seeds)
            start = jnp.zeros((config.n_seeds, width, width))
            state = _Walk(start, jax.vmap(_optimizer(config, decay).init)(start), jnp.zeros(config.n_seeds))
            # The decay is an argument, so that all share a program.
            args = (keys, jnp.asarray(decay), jnp.asarray(steps - steps // 2))
            end = session.loop(step, state, steps=steps, args=args, every=steps, label=f"noise {width} decay {decay:g}").state
            level = np.sqrt(np.asarray(end.square) / (steps // 2))
            rms[w, k] = level / steady_state_rms(noise.rate, decay)
            top[w, k] = np.linalg.svd(end.weights, compute_uv=False)[:, 0] / (2 * math.sqrt(width) * level)
    dims = ("width", "decay", "seed")
    # σ/√(η/λ) = √(2 d) times both ratios.
    level = np.sqrt(2 * np.asarray(noise.widths))[:, None, None] * rms * top
    return xr.Dataset(
        {"rms_ratio": (dims, rms), "top_ratio": (dims, top), "top": (dims, level)},
        {"width": list(noise.widths), "decay": list(noise.decays), "seed": np.arange(config.n_seeds)},
    )


def _optimizer(config: Config, decay: Any) -> optax.GradientTransformation:
    return adamw_by_label({"matrix": (config.noise.rate, decay)}, lambda _: "matrix", b1=config.b1, b2=config.b2)
