"""The measurements: one coil, several coils, few projections, and volumes seen from a quarter turn."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from gradatim.lab import host_generator
from gradatim.transport import (
    AbstractForward,
    CartesianMRI,
    Denoiser,
    ParallelBeamCT,
    Scaled,
    cartesian_mask,
    coil_sensitivities,
    normalised,
)

from .config import Config
from .images import Pair, seed_of

NAMES = ("one coil", "coils", "projections", "volumes")


class Task(NamedTuple):
    """Images, what is measured of them, and what one network knows of clean ones. All images stand along one axis, set after set."""

    name: str
    operator: AbstractForward
    denoiser: Denoiser
    truth: Float[np.ndarray, "n side side"]
    y: Inexact[Array, ...]
    y_fine: Inexact[Array, ...] | None
    "Of the same images, measured on a grid twice as fine."
    validation: Float[np.ndarray, "n_validation side side"]
    y_validation: Inexact[Array, ...]


def resonance(config: Config, name: str, denoiser: Denoiser, test: Pair, validation: Pair, *, key: jax.Array) -> Task:
    """One coil without noise, or several with it."""
    mask = cartesian_mask(config.side, config.acceleration, seed=seed_of(host_generator(key)))
    many = name == "coils"
    coils = coil_sensitivities(config.side, config.coils) if many else np.ones((1, config.side, config.side), np.complex64)
    operator = CartesianMRI(jnp.asarray(mask), jnp.asarray(coils))
    # Of values that span 2, half of the variance in either part of a complex number.
    std = 2 * config.noise / np.sqrt(2) if many else 0.0
    noise = jax.random.normal(key, (2 * (len(test.coarse) + len(validation.coarse)) * len(coils) * config.side**2,), jnp.float32)
    parts = std * noise.reshape(2, -1, *operator.sensitivities.shape)
    noise = jax.lax.complex(parts[0], parts[1]) * operator.mask.astype(jnp.float32)[None, None]
    y, y_validation = (measure(operator, pair.coarse) for pair in (test, validation))
    fine = _fine_spectra(config, test.fine, many=many) * mask
    # The field of view is -1 where nothing is, on either grid alike.
    flat = np.asarray(measure(operator, np.ones((1, config.side, config.side), np.float32)))
    y_fine = jnp.asarray(fine - flat, jnp.complex64) + noise[: len(test.coarse)]
    ours, others = noise[: len(test.coarse)], noise[len(test.coarse) :]
    return Task(name, operator, denoiser, test.coarse, y + ours, y_fine, validation.coarse, y_validation + others)


def projections(config: Config, denoiser: Denoiser, test: Pair, validation: Pair) -> Task:
    """A few views over half a turn, without noise."""
    operator, twice = _few_views(config.side, config.views)
    y, y_validation = (measure(operator, pair.coarse) for pair in (test, validation))
    y_fine = measure(twice, test.fine)
    return Task("projections", operator, denoiser, test.coarse, y, y_fine, validation.coarse, y_validation)


def quarter_turn(config: Config, denoiser: Denoiser, test: np.ndarray, validation: np.ndarray) -> Task:
    """Volumes, slice by slice, from views over a quarter turn."""
    operator = _quarter(config.side, config.limited_views)
    flat, flat_validation = (volumes.reshape(-1, config.side, config.side) for volumes in (test, validation))
    return Task("volumes", operator, denoiser, flat, measure(operator, flat), None, flat_validation, measure(operator, flat_validation))


@functools.cache
def _few_views(side: int, views: int) -> tuple[Scaled, Scaled]:
    """One scanner for all networks, of coarse images and of fine ones."""
    angles = np.arange(views) * np.pi / views
    plain = ParallelBeamCT(side, angles)
    operator = normalised(plain)
    twice = ParallelBeamCT(2 * side, angles, n_detectors=plain.matrix.shape[1], pixel=0.5)
    return operator, Scaled(twice, operator.factor)


@functools.cache
def _quarter(side: int, views: int) -> Scaled:
    return normalised(ParallelBeamCT(side, np.arange(views) * np.pi / 2 / views))


@jax.jit
def _measured(operator: AbstractForward, images: Array) -> Array:
    return operator(images)


def measure(operator: AbstractForward, images: np.ndarray) -> Array:
    """Measurements of images."""
    return _measured(operator, jnp.asarray(images, jnp.float32))


def _fine_spectra(config: Config, images: np.ndarray, *, many: bool) -> np.ndarray:
    """The lowest frequencies of images between 0 and 1 on the fine grid, twice: in the coarse grid's units, about its pixels' centres."""
    side, fine = config.side, 2 * config.side
    coils = coil_sensitivities(fine, config.coils) if many else np.ones((1, fine, fine), np.complex64)
    spectra = np.fft.fft2(coils[None] * (images[:, None] + 1), norm="ortho")
    frequency = np.rint(np.fft.fftfreq(side, 1 / side)).astype(int)
    low = spectra[..., frequency[:, None], frequency[None, :]] / 2
    shift = np.exp(1j * np.pi * (frequency[:, None] + frequency[None, :]) / fine)
    return low * shift
