"""Noise levels of a diffusion, and what a network that predicts noise, score or image says at one of them
(Ho et al., arXiv:2006.11239; Song et al., arXiv:2011.13456).

At a level an image x₁ has become x = a x₁ + m z with z ~ N(0, I). A sampler takes the levels in their order, from noise to data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from gradatim.numerics.checks import is_known

from .probability_paths import AbstractGaussianPath


class NoiseLevel(NamedTuple):
    """One level, or several along an axis."""

    a: Float[Array, "*levels"]
    "Of the image."
    m: Float[Array, "*levels"]
    "Of the noise."
    time: Float[Array, "*levels"]
    "What else a network may be told: the step of its training, a time, a standard deviation."


CLEAN = (1.0, 0.0)
"a and m of the data."


class NoiseLevels(eqx.Module):
    """Levels from noise to data: those a sampler calls its network at, and where each leads to.

    **Arguments:** `a`, `m`, `time`: of each, with m / a descending; after the last comes the clean image.

    **Raises:** `ValueError` for levels of unequal length, or none, or a ratio m / a that does not descend, where it is known.
    """

    levels: NoiseLevel

    def __init__(self, a: Float[Array, " levels"], m: Float[Array, " levels"], time: Float[Array, " levels"]) -> None:
        if not len(a) == len(m) == len(time):
            raise ValueError(f"a, m and time must hold one number for each level, got {len(a)}, {len(m)} and {len(time)}")
        if is_known(a, m):
            ratio = np.asarray(m, np.float64) / np.asarray(a, np.float64)
            if not (ratio.size and (ratio >= 0).all() and (np.diff(ratio) < 0).all()):
                raise ValueError(f"levels must descend in m / a, one of them at least, got {ratio.size} from {ratio[:1]} to {ratio[-1:]}")
        self.levels = NoiseLevel(a, m, time)

    def __len__(self) -> int:
        return len(self.levels.a)

    def after(self, *, is_last_noise_free: bool = False) -> NoiseLevel:
        """Where each level leads to: the next one, the last to the clean image (whose time is that of the last level).

        **Arguments:** `is_last_noise_free`: the last level but one, too, leads to a clean image, which the network is then given as
        if it were noisy; the authors' code does so.
        """
        a, m, time = self.levels
        a = jnp.concatenate([a[1:], jnp.ones(1, a.dtype)])
        m = jnp.concatenate([m[1:], jnp.zeros(1, m.dtype)])
        time = jnp.concatenate([time[1:], time[-1:]])
        if is_last_noise_free and len(self) > 1:
            a, m = a.at[-2].set(1), m.at[-2].set(0)
        return NoiseLevel(a, m, time)


def variance_preserving_levels(
    n_steps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02, training_steps: int = 1000
) -> NoiseLevels:
    """Levels with a² = Π (1 - βᵢ), m² = 1 - a², for β growing evenly over the training steps, every so-many-th taken.

    The last level is that of training step 0; `time` counts those steps.

    **Arguments:** `n_steps`: levels, a divisor of `training_steps`; `beta_start`, `beta_end`: 0 < β ≤ β′ < 1, the article's by default.

    **Raises:** `ValueError` for numbers out of range.

    >>> levels = variance_preserving_levels(50)
    >>> print(levels.levels.time[:2], f"{levels.levels.a[0]:.4f}", f"{levels.levels.m[-1]:.4f}")
    [980. 960.] 0.0077 0.0100
    """
    if not 1 <= n_steps <= training_steps or training_steps % n_steps:
        raise ValueError(f"n_steps must be a divisor of the {training_steps} training steps, got {n_steps}")
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"rates must obey 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")
    steps = np.arange(0, training_steps, training_steps // n_steps)[::-1]
    logs = np.cumsum(np.log1p(-np.linspace(beta_start, beta_end, training_steps)))[steps]
    # In double precision, then rounded once.
    return NoiseLevels(*(jnp.asarray(values, jnp.result_type(float)) for values in (np.exp(logs / 2), np.sqrt(-np.expm1(logs)), steps)))


def variance_exploding_levels(n_steps: int, *, sigma_min: float = 0.01, sigma_max: float = 50.0) -> NoiseLevels:
    """Levels with a = 1 and m = σ, from σ_max down to σ_min in equal ratios; `time` is σ.

    **Arguments:** `n_steps` ≥ 2; 0 < `sigma_min` < `sigma_max`, in units of the image's values.

    **Raises:** `ValueError` for numbers out of range.

    >>> print(variance_exploding_levels(3, sigma_min=0.1, sigma_max=10.0).levels.m)
    [10.   1.   0.1]
    """
    if n_steps < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"n_steps must be at least 2 and 0 < sigma_min < sigma_max, got {n_steps}, {sigma_min} and {sigma_max}")
    sigma = jnp.asarray(np.geomspace(sigma_max, sigma_min, n_steps), jnp.result_type(float))
    return NoiseLevels(jnp.ones_like(sigma), sigma, sigma)


def levels_of_path(path: AbstractGaussianPath, times: Float[Array, " levels"]) -> NoiseLevels:
    """Those of a probability path at ascending times, the first above 0 where a is 0 there; `time` is the path's.

    >>> from gradatim.transport import CondOT
    >>> print(levels_of_path(CondOT(), jnp.array([0.25, 0.5])).levels.m)
    [0.75 0.5 ]
    """
    c = path.coefficients(times)
    return NoiseLevels(c.a, c.m, times)


Predicts = Literal["noise", "score", "image"]
"What a network's output stands for."
PREDICTIONS = ("noise", "score", "image")
Model = Callable[[NoiseLevel, Any], Any]
"A function of one level and a batch of noisy images."


class Denoised(NamedTuple):
    """Both parts of a noisy batch x = a x̂₁ + m ẑ."""

    image: Inexact[Array, "*shape"]
    "x̂₁, the mean of the clean images that may be behind it (Tweedie's formula)."
    noise: Inexact[Array, "*shape"]
    "ẑ"


class Denoiser(eqx.Module):
    """A network and what it predicts: `denoiser(level, x)` gives image and noise, whichever it says.

        x̂₁ = (x - m ẑ) / a,     ẑ = -m s,     s = ∇ log p(x)

    **Arguments:** `model`: a function of a [`NoiseLevel`][gradatim.transport.NoiseLevel] and a batch; `predicts`: `"noise"`, `"score"` or
    `"image"`. At the highest levels the image from a predicted noise has an error of m / a times the noise's.

    **Raises:** `ValueError` for another word.

    >>> level = NoiseLevel(jnp.array(0.8), jnp.array(0.6), jnp.array(0.0))
    >>> image, noise = Denoiser(lambda level, x: 0.6 * x, "noise")(level, jnp.array([1.0]))  # standard normal data
    >>> print(image.round(3), noise.round(3))
    [0.8] [0.6]
    """

    model: Model
    predicts: Predicts = eqx.field(static=True)

    def __check_init__(self) -> None:
        if self.predicts not in PREDICTIONS:
            raise ValueError(f"predicts must be one of {', '.join(PREDICTIONS)}, got {self.predicts!r}")

    def __call__(self, level: NoiseLevel, x: Inexact[Array, "*shape"]) -> Denoised:
        """Image and noise of a batch at one level with m > 0."""
        a, m = level.a.astype(x.dtype), level.m.astype(x.dtype)
        found = self.model(level, x)
        if found.shape != x.shape:
            raise ValueError(f"model must keep the shape {x.shape}, got {found.shape}")
        if self.predicts == "image":
            return Denoised(found, (x - a * found) / m)
        noise = found if self.predicts == "noise" else -m * found
        return Denoised((x - m * noise) / a, noise)


def in_two_channels(model: Model) -> Model:
    """A model of complex images from one of real images with two channels at the end, real and imaginary part.

    >>> level = NoiseLevel(jnp.array(0.8), jnp.array(0.6), jnp.array(0.0))
    >>> print(in_two_channels(lambda level, x: 2 * x)(level, jnp.array([1.0 + 2.0j])))
    [2.+4.j]
    """

    def of_complex(level: NoiseLevel, x: Any) -> Any:
        found = model(level, jnp.stack([x.real, x.imag], axis=-1))
        return found[..., 0] + 1j * found[..., 1]

    return of_complex
