"""What needs no training: variances, the recursion of a normal number, and where updates point."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from gradatim.lab import Session, host_generator
from gradatim.transport import (
    Blur,
    Denoised,
    Denoiser,
    NoiseLevel,
    ParallelBeamCT,
    dds_sample,
    krylov_data_consistency,
    next_noisy,
    normalised,
    variance_preserving_levels,
)

from .config import Config, Exact, Prior
from .images import phantoms
from .priors import mixture

SHARES = (0.0, 0.5, 0.85, 1.0)
"Of fresh noise."
RECURSION_STEPS = 50
WIDTH = 3
"Frequencies along either axis that the images of a plane have, to either side of zero."
UPDATES = ("conjugate gradients", "gradient", "back-propagated")


def run_exact(config: Config, session: Session, key: jax.Array) -> dict[str, xr.Dataset]:
    """All of it."""
    keys = jax.random.split(key, 3)
    variance = session.once("variances", lambda: _variances(config.exact, keys[0]))
    path = session.once("recursion", _recursion)
    leak = session.once("leak", lambda: _leak(config.exact, keys[1]))
    shares, eigenvalues = session.once("tangent", lambda: _tangent(config, keys[2]))
    units = {"units": "1"}
    return {
        "variance": xr.Dataset({"ratio": ("share", variance, units)}, {"share": list(SHARES)}, {"samples": config.exact.samples}),
        "recursion": xr.Dataset({"end": ((), path[0], units), "exact": ("level", path[1], units)}),
        "leak": xr.Dataset({name: (("image", "steps"), values, units) for name, values in leak.items()}, {"steps": np.arange(1, 6)}),
        "tangent": xr.Dataset(
            {"share": (("update", "level", "image"), shares, units), "eigenvalue": (("level", "image", "direction"), eigenvalues, units)},
            {"update": list(UPDATES), "level": list(config.exact.levels)},
        ),
    }


def _variances(config: Exact, key: jax.Array) -> np.ndarray:
    """Of the noise about the scaled estimate, over the schedule's."""
    levels = variance_preserving_levels(50).levels
    level, following = (NoiseLevel(*(part[i] for part in levels)) for i in (20, 21))

    @jax.jit
    def ratio(key: Array, share: Array) -> Array:
        image, fresh = jax.random.split(key)
        both = jax.random.normal(image, (2 * config.samples,), jnp.float32).reshape(2, -1)
        moved = next_noisy(Denoised(both[0], both[1]), level, following, fresh, share)
        return jnp.var(moved - following.a * both[0]) / following.m**2

    return np.array([float(ratio(key, jnp.asarray(share, jnp.float32))) for share in SHARES])


def _noise_of_standard_normal(level: NoiseLevel, x: Any) -> Any:
    return level.m * x


def _recursion() -> tuple[float, np.ndarray]:
    """Where a standard normal number ends that starts at one, and all of its way in double precision."""
    levels = variance_preserving_levels(RECURSION_STEPS)
    denoiser = Denoiser(_noise_of_standard_normal, "noise")
    found = dds_sample(denoiser, levels, None, None, jnp.ones((1, 1)), key=jax.random.key(0), consistency=None, eta=0.0)
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[:: 1000 // RECURSION_STEPS][::-1]
    following = np.append(kept[1:], 1)
    factors = np.sqrt(following * kept) + np.sqrt((1 - following) * (1 - kept))
    return float(found.x[0, 0]), np.append(1, np.cumprod(factors))


def _leak(config: Exact, key: jax.Array) -> dict[str, np.ndarray]:
    """Share of an update's norm outside a plane, (image, steps): of low frequencies, which blurring keeps, and at random."""
    side, random = config.side, host_generator(key)
    places = np.arange(-2, 3)
    kernel = np.exp(-(places[:, None] ** 2 + places[None] ** 2) / 4)
    blur = Blur(jnp.asarray(kernel / kernel.sum(), jnp.float32), (side, side))
    frequency = np.abs(np.fft.fftfreq(side, 1 / side))
    is_low = (frequency[:, None] <= WIDTH) & (frequency[None] <= WIDTH)
    waves = np.fft.ifft2(np.fft.fft2(np.eye(side**2).reshape(-1, side, side)) * is_low).real.reshape(side**2, -1)
    rank = int(is_low.sum())
    plane = np.linalg.svd(waves)[0][:, :rank]
    tilted = np.linalg.qr(random.normal(size=(side**2, rank)))[0]

    @jax.jit
    def updates(truth: Array, estimate: Array) -> Array:
        y = blur(truth)
        return jnp.stack([krylov_data_consistency(blur, y, estimate, n_steps=steps) - estimate for steps in range(1, 6)], axis=1)

    found = {}
    for name, basis in (("contained", plane), ("tilted", tilted)):
        both = random.normal(size=(2, config.images, rank)) @ basis.T
        truth, estimate = (jnp.asarray(part.reshape(-1, side, side), jnp.float32) for part in both)
        moved = np.asarray(updates(truth, estimate), np.float64).reshape(config.images, 5, -1)
        outside = moved - moved @ basis @ basis.T
        found[name] = np.linalg.norm(outside, axis=-1) / np.linalg.norm(moved, axis=-1)
    return found


def _tangent(config: Config, key: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Squared share of each update inside the denoiser's leading directions, and its eigenvalues along them."""
    settings, side = config.exact, config.exact.side
    small = Prior(components=config.prior.components, rank=config.prior.rank)
    denoiser = mixture(small, phantoms(config.prior.images, side, part="training", key=key).coarse)
    truth = phantoms(settings.images, side, part="test", key=key).coarse
    operator = normalised(ParallelBeamCT(side, np.arange(config.views) * np.pi / config.views))
    noise = host_generator(key).normal(size=truth.shape).astype(np.float32)
    table = variance_preserving_levels(1000).levels

    @jax.jit
    def look(level: NoiseLevel, truth: Array, noise: Array) -> tuple[Array, Array]:
        def one(pair: tuple[Array, Array]) -> tuple[Array, Array]:
            image, z = pair
            x = (level.a * image + level.m * z).ravel()

            def estimate(x: Array) -> Array:
                return denoiser(level, x.reshape(1, side, side)).image.ravel()

            jacobian = level.a * jax.vmap(lambda direction: jax.jvp(estimate, (x,), (direction,))[1])(jnp.eye(side**2))
            found = estimate(x).reshape(side, side)
            gradient = operator.adjoint(operator(image - found))
            moved = krylov_data_consistency(operator, operator(image), found) - found
            return jacobian, jnp.stack([moved.ravel(), gradient.ravel(), jacobian @ gradient.ravel()])

        return jax.lax.map(one, (truth, noise))

    shares, eigenvalues = [], []
    for index in settings.levels:
        level = NoiseLevel(*(part[999 - index] for part in table))
        jacobians, moved = (np.asarray(part, np.float64) for part in look(level, jnp.asarray(truth), jnp.asarray(noise)))
        values, vectors = np.linalg.eigh((jacobians + jacobians.transpose(0, 2, 1)) / 2)
        leading = vectors[:, :, -settings.tangent_dimension :]
        inside = np.einsum("iun,inr->iur", moved, leading)
        shares.append((inside**2).sum(axis=-1).T / (moved**2).sum(axis=-1).T)
        eigenvalues.append(values[:, : -settings.tangent_dimension - 1 : -1])
    return np.stack(shares, axis=1), np.stack(eigenvalues)
