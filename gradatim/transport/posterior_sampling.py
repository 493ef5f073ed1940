"""Older ways to reconstruct with a diffusion model: the misfit's derivative through the network, and Langevin steps in thousands
(Chung et al., arXiv:2209.14687; Song et al., arXiv:2011.13456 and 2111.08005; Chung and Ye, arXiv:2110.05243).

They take what [`dds_sample`][gradatim.transport.dds_sample] takes. Projecting on the measurement by the pseudo-inverse is that sampler with
[`RangeNullSpace`][gradatim.transport.RangeNullSpace].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .imaging import AbstractForward
from .inverse_problems import Dispatch, Reconstruction, next_noisy, over_levels, relative_misfit, standard_normal
from .noise_levels import Denoised, Denoiser, NoiseLevel, NoiseLevels


def dps_sample(
    denoiser: Denoiser,
    levels: NoiseLevels,
    operator: AbstractForward,
    y: Inexact[Array, ...],
    x: Inexact[Array, "*batch height width"],
    *,
    key: PRNGKeyArray,
    step_size: Float[Array, ...] | float,
    dispatch: Dispatch = "step",
) -> Reconstruction:
    """Diffusion posterior sampling: an ancestral step, less ζ ∇ₓ ‖y - A x̂₁(x)‖ through the network (arXiv:2209.14687, Algorithm 1).

    **Arguments:** `step_size` ζ ≥ 0, one or one for each image, to be tuned: the best depends on operator, noise and the number of
    levels; the others as for [`dds_sample`][gradatim.transport.dds_sample].

    **Raises:** `ValueError` for measurements that do not fit the images, or a negative step.

    >>> from gradatim.transport import Denoiser, Inpainting, variance_preserving_levels
    >>> seen = Inpainting(jnp.ones((1, 1), bool), has_complex_images=True)
    >>> denoiser, y = Denoiser(lambda level, x: level.m * x, "noise"), jnp.array([[3.0 + 4.0j]])
    >>> found = dps_sample(denoiser, variance_preserving_levels(1), seen, y, 0 * y, key=jax.random.key(0), step_size=1.0)
    >>> print(f"{found.x[0, 0]:.2f}")  # one level, and a step of length 1 towards the datum
    0.60+0.80j
    """
    _check(operator, y, x)
    if is_known(step_size) and not np.all(np.asarray(step_size) >= 0):
        raise ValueError(f"step_size must be at least 0, got {step_size}")
    steps = jnp.broadcast_to(jnp.asarray(step_size, _real_of(x)), x.shape[:-2])
    carry, misfits = over_levels(_dps_step, x, levels.levels, levels.after(), key, (denoiser, operator, y, steps), dispatch)
    return Reconstruction(carry, misfits)


def misfit_gradient(
    denoiser: Denoiser, operator: AbstractForward, y: Inexact[Array, ...], level: NoiseLevel, x: Inexact[Array, "*batch height width"]
) -> tuple[Inexact[Array, "*batch height width"], Denoised]:
    """∇ₓ ‖y - A x̂₁(x)‖ of each image through the network, and what the network said. Zero where the estimate fits exactly.

    Of complex images the direction in which the misfit grows fastest, ∂/∂Re x + i ∂/∂Im x.

    >>> from gradatim.transport import Denoiser, Inpainting
    >>> level = NoiseLevel(jnp.array(1.0), jnp.array(0.5), jnp.array(0.0))
    >>> seen = Inpainting(jnp.ones((1, 1), bool), has_complex_images=True)
    >>> y = jnp.array([[3.0 + 4.0j]])
    >>> print(f"{misfit_gradient(Denoiser(lambda level, x: x, 'image'), seen, y, level, 0 * y)[0][0, 0]:.2f}")
    -0.60-0.80j
    """

    def total(x: Array) -> tuple[Array, Denoised]:
        found = denoiser(level, x)
        gap = jnp.abs(y - operator(found.image)) ** 2
        square = jnp.sum(gap, axis=tuple(range(x.ndim - 2, gap.ndim)))
        return jnp.sum(jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)), found

    gradient, found = jax.grad(total, has_aux=True)(x)
    # JAX's is the conjugate of the steepest direction; of real images the conjugate is the image.
    return jnp.conj(gradient), found


def _dps_step(x: Any, level: NoiseLevel, following: NoiseLevel, key: PRNGKeyArray, given: Any) -> tuple[Any, Array]:
    denoiser, operator, y, steps = given
    gradient, found = misfit_gradient(denoiser, operator, y, level, x)
    moved = next_noisy(found, level, following, key, jnp.ones((), _real_of(x)), "ddim")
    return moved - steps[..., None, None] * gradient, relative_misfit(operator, y, found.image)


def predictor_corrector_sample(
    denoiser: Denoiser,
    levels: NoiseLevels,
    operator: AbstractForward,
    y: Inexact[Array, ...],
    x: Inexact[Array, "*batch height width"],
    *,
    key: PRNGKeyArray,
    data_step: float = 1.0,
    signal_to_noise: float = 0.16,
    dispatch: Dispatch = "step",
) -> Reconstruction:
    """Two calls of the network a level: a Langevin step there, and a step back along the diffusion, each followed by one towards the data.

        x ← x + ε s + √(2ε) z,   ε = 2 (r ‖z‖ / ‖s‖)²;     x ← x + (σ² - σ′²) s + √(σ² - σ′²) z;     x ← x + λ Aᴴ(y - A x) after either

    **Arguments:** `levels`: with a = 1, a thousand or two of them; `data_step` λ in (0, 2 / ‖A‖²); `signal_to_noise` r > 0; the rest as for
    [`dds_sample`][gradatim.transport.dds_sample].

    **Raises:** `ValueError` for levels with a ≠ 1, measurements that do not fit, or numbers out of range.

    >>> from gradatim.transport import Denoiser, Inpainting, variance_exploding_levels
    >>> unit = Denoiser(lambda level, x: -x / (1 + level.m**2), "score")  # standard normal images
    >>> seen, y = Inpainting(jnp.ones((1, 1), bool)), jnp.array([[2.0]])
    >>> found = predictor_corrector_sample(unit, variance_exploding_levels(3), seen, y, 50 * y, key=jax.random.key(0))
    >>> print(f"{found.x[0, 0]:.2f}")  # all of the image is seen
    2.00
    """
    _check(operator, y, x)
    if is_known(levels.levels.a) and not (np.asarray(levels.levels.a) == 1).all():
        raise ValueError("levels must have a = 1, as variance_exploding_levels gives them")
    if not (data_step > 0 and signal_to_noise > 0):
        raise ValueError(f"data_step and signal_to_noise must be positive, got {data_step} and {signal_to_noise}")
    numbers = jnp.asarray([data_step, signal_to_noise], _real_of(x))
    carry, misfits = over_levels(_pair, x, levels.levels, levels.after(), key, (denoiser, operator, y, numbers), dispatch)
    return Reconstruction(carry, misfits)


def _pair(x: Any, level: NoiseLevel, following: NoiseLevel, key: PRNGKeyArray, given: Any) -> tuple[Any, Array]:
    denoiser, operator, y, numbers = given
    draws = standard_normal(key, jnp.stack([x, x]))

    def norms(u: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.abs(u) ** 2, axis=(-2, -1), keepdims=True))

    def to_data(x: Array) -> Array:
        return x + numbers[0] * operator.adjoint(y - operator(x))

    m, m_next = level.m.astype(_real_of(x)), following.m.astype(_real_of(x))
    score = -denoiser(level, x).noise / m
    size = norms(score)
    epsilon = 2 * (numbers[1] * norms(draws[0]) / jnp.where(size > 0, size, 1)) ** 2
    x = to_data(x + epsilon * score + jnp.sqrt(2 * epsilon) * draws[0])
    variance = m**2 - m_next**2
    score = -denoiser(level, x).noise / m
    x = to_data(x + variance * score + jnp.sqrt(variance) * draws[1])
    return x, relative_misfit(operator, y, x)


def _real_of(x: Inexact[Array, "*batch height width"]) -> Any:
    return jnp.finfo(x.dtype).dtype


def _check(operator: AbstractForward, y: Inexact[Array, ...], x: Inexact[Array, "*batch height width"]) -> None:
    expected = jax.eval_shape(operator, x).shape
    if y.shape != expected:
        raise ValueError(f"y must have shape {expected} for images of shape {x.shape}, got {y.shape}")
