"""Decomposed diffusion sampling: an estimate of the clean image, fitted to a measurement, and the noise of the next level
(Chung, Lee and Ye, arXiv:2303.05754).

At every level of noise, from x = a x₁ + m z on,

    x̂₁, ẑ = denoiser(x);     x̂₁ ← x̂₁ fitted to y = A x₁ + noise;     x ← a′ x̂₁ + m′ (η z + √(1 - η²) ẑ),     z ~ N(0, I)

Nothing is differentiated through the network: where clean images lie near a plane that holds the Krylov space of AᴴA, conjugate gradients
from x̂₁ do not leave it. The end is an image that fits the data and that the network finds likely, no sample of a posterior: its spread over
keys is no uncertainty. For standard normal data seen with unit noise at y = 2 the sampler goes to 2, where the posterior's mean is 1.

The formulas are those of the abstract and of the authors' code. Of the latter these are left out: one step length for a whole batch, inner
products of complex images without conjugates, a complex measurement added to both channels of an image, a back-projection that is not the
operator's adjoint, and a noise-free last step but one (which `is_last_noise_free` gives).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .data_consistency import AbstractConsistency
from .imaging import AbstractForward
from .noise_levels import Denoised, Denoiser, NoiseLevel, NoiseLevels

NoiseRule = Literal["split", "ddim"]
"How much of the next level's noise is fresh."
NOISE_RULES = ("split", "ddim")
Dispatch = Literal["step", "scan"]
"Whether levels go to the device one by one, or as one program."
DISPATCHES = ("step", "scan")


class Reconstruction(NamedTuple):
    """The last images, and how well the estimates fitted on the way."""

    x: Inexact[Array, "*batch height width"]
    misfits: Float[Array, "levels ..."]
    "‖y - A x̂₁‖ / ‖y‖ of each image's (or volume's) estimate, after it was fitted."


def dds_sample(
    denoiser: Denoiser,
    levels: NoiseLevels,
    operator: AbstractForward | None,
    y: Inexact[Array, ...] | None,
    x: Inexact[Array, "*batch height width"],
    *,
    key: PRNGKeyArray,
    consistency: AbstractConsistency | None,
    eta: Float[Array, ""] | float = 0.85,
    noise_rule: NoiseRule = "split",
    is_last_noise_free: bool = False,
    dispatch: Dispatch = "step",
) -> Reconstruction:
    """Reconstructs images from measurements, at one call of the network a level.

    **Arguments:** `denoiser`; `levels`: 20 to 100 of them; `operator` and `y`: A and its measurements of all images (None, as
    `consistency`, for samples without data); `x`: the start, m z + a x₁ of the first level, which is noise for all one knows of the image;
    `key`: of fresh noise; `consistency`: [`Krylov`][gradatim.transport.Krylov] for clean data,
    [`Proximal`][gradatim.transport.Proximal] for noisy, [`AcrossSlices`][gradatim.transport.AcrossSlices] for volumes,
    [`RangeNullSpace`][gradatim.transport.RangeNullSpace] is the older way; `eta` η in [0, 1]: 0 makes the end a function of x, at 1 with
    `"split"` the network's noise is not used; `noise_rule`: `"split"`, the authors', has η as the share of fresh noise at all levels,
    `"ddim"` η √(1 - (m′ a)² / (m a′)²), at η = 1 that of an exact reverse step; `is_last_noise_free`: as in the authors' code;
    `dispatch`: `"step"` is right for networks with convolutions, which XLA runs ten times slower inside a loop on a CPU, and cannot be
    compiled as part of another function; `"scan"` for others.

    **Raises:** `ValueError` for an η outside [0, 1], unknown words, an operator without a measurement, or measurements that do not fit.

    >>> from gradatim.transport import Denoiser, variance_preserving_levels
    >>> standard_normal = Denoiser(lambda level, x: level.m * x, "noise")
    >>> levels = variance_preserving_levels(50)
    >>> found = dds_sample(standard_normal, levels, None, None, jnp.ones((1, 1)), key=jax.random.key(0), consistency=None, eta=0.0)
    >>> print(f"{found.x[0, 0]:.6f}")  # 1 for infinitely many levels
    0.964079
    """
    check_eta(eta)
    if noise_rule not in NOISE_RULES:
        raise ValueError(f"noise_rule must be one of {', '.join(NOISE_RULES)}, got {noise_rule!r}")
    if len({operator is None, y is None, consistency is None}) > 1:
        raise ValueError("operator, y and consistency must be given together, or none of them")
    if operator is not None and y is not None:
        expected = jax.eval_shape(operator, x).shape
        if y.shape != expected:
            raise ValueError(f"y must have shape {expected} for images of shape {x.shape}, got {y.shape}")
    if is_last_noise_free and len(levels) < 2:
        raise ValueError(f"is_last_noise_free needs two levels at least, got {len(levels)}")
    state = None if consistency is None else consistency.init(x)
    given = (denoiser, operator, y, consistency, jnp.asarray(eta, jnp.finfo(x.dtype).dtype), noise_rule)
    after = levels.after(is_last_noise_free=is_last_noise_free)
    (x, _), misfits = over_levels(_dds_step, (x, state), levels.levels, after, key, given, dispatch)
    return Reconstruction(x, misfits)


def _dds_step(carry: Any, level: NoiseLevel, following: NoiseLevel, key: PRNGKeyArray, given: Any) -> tuple[Any, Array]:
    denoiser, operator, y, consistency, eta, noise_rule = given
    x, state = carry
    found = denoiser(level, x)
    image, misfit = found.image, jnp.zeros(x.shape[:-2], eta.dtype)
    if operator is not None:
        image, state = consistency(operator, y, image, state)
        misfit = relative_misfit(operator, y, image)
    return (next_noisy(Denoised(image, found.noise), level, following, key, eta, noise_rule), state), misfit


def next_noisy(
    found: Denoised, level: NoiseLevel, following: NoiseLevel, key: PRNGKeyArray, eta: Float[Array, ""], noise_rule: NoiseRule = "split"
) -> Inexact[Array, "*shape"]:
    """a′ x̂₁ + m′ (c z + √(1 - c²) ẑ): the estimate at the next level, with a share c of fresh noise.

    The noise has variance m′² for every c, where ẑ has variance 1.

    **Arguments:** `found`: estimate and noise; `level`, `following`: where they are from and where they go; `key` of z; `eta` and
    `noise_rule`: see [`dds_sample`][gradatim.transport.dds_sample].

    >>> level, following = (NoiseLevel(*map(jnp.array, numbers)) for numbers in ((0.6, 0.8, 1.0), (0.8, 0.6, 0.0)))
    >>> found = Denoised(jnp.array([2.0]), jnp.array([1.0]))
    >>> print(f"{next_noisy(found, level, following, jax.random.key(0), jnp.array(0.0))[0]:.2f}")  # 0.8 · 2 + 0.6 · 1
    2.20
    """
    real = jnp.finfo(found.image.dtype).dtype
    a, m, a_next, m_next = (number.astype(real) for number in (level.a, level.m, following.a, following.m))
    share = eta.astype(real)
    if noise_rule == "ddim":
        # An exact step back from ratio r to r' has the variance r'² (1 - r'²/r²), over r'².
        ratio = m_next * a / (m * a_next)
        share = share * jnp.sqrt(jnp.maximum(1 - ratio**2, 0))
    fresh = standard_normal(key, found.image)
    return a_next * found.image + m_next * (share * fresh + jnp.sqrt(1 - share**2) * found.noise)


def standard_normal(key: PRNGKeyArray, like: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    """Noise of unit variance in every real number of an array, complex ones having two."""
    # Drawn flat: XLA compiles draws with several axes many times slower.
    real = jnp.finfo(like.dtype).dtype
    if not jnp.iscomplexobj(like):
        return jax.random.normal(key, (like.size,), real).reshape(like.shape)
    parts = jax.random.normal(key, (2 * like.size,), real).reshape(2, *like.shape)
    return jax.lax.complex(parts[0], parts[1])


def relative_misfit(operator: AbstractForward, y: Inexact[Array, ...], x: Inexact[Array, "*batch height width"]) -> Float[Array, "*batch"]:
    """‖y - A x‖ / ‖y‖ of each image.

    >>> from gradatim.transport import Inpainting
    >>> print(relative_misfit(Inpainting(jnp.array([[True, False]])), jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 5.0]])))
    0.5
    """
    axes = tuple(range(x.ndim - 2, y.ndim))
    size = jnp.sqrt(jnp.sum(jnp.abs(y) ** 2, axis=axes))
    return jnp.sqrt(jnp.sum(jnp.abs(y - operator(x)) ** 2, axis=axes)) / jnp.where(size > 0, size, 1)


Step = Callable[[Any, NoiseLevel, NoiseLevel, PRNGKeyArray, Any], tuple[Any, Array]]
"What is carried on, a level, the one it leads to, a key, and all that stays the same."


def over_levels(
    step: Step, carry: Any, levels: NoiseLevel, after: NoiseLevel, key: PRNGKeyArray, given: Any, dispatch: Dispatch
) -> tuple[Any, Array]:
    """Takes a step at every level, each with a key of its own, and stacks what the steps tell.

    **Arguments:** `step`: a function that outlives the call, for which one program is remembered; `given`: what it is told at every level,
    whose arrays are arguments of that program; the others as for [`dds_sample`][gradatim.transport.dds_sample].
    """
    if dispatch not in DISPATCHES:
        raise ValueError(f"dispatch must be one of {', '.join(DISPATCHES)}, got {dispatch!r}")
    count = len(levels.a)

    def body(carry: Any, row: Any) -> tuple[Any, Array]:
        i, level, following = row
        return _at(step, carry, i, level, following, key, given)

    if dispatch == "scan":
        return jax.lax.scan(body, carry, (jnp.arange(count, dtype=jnp.int32), levels, after))
    # Numbers of the host as arguments: one program, whatever the number of levels.
    rows = [[np.asarray(values) for values in part] for part in (levels, after)]
    told = []
    for i in range(count):
        level, following = (NoiseLevel(*(values[i] for values in part)) for part in rows)
        carry, one = _at_compiled(step, carry, np.int32(i), level, following, key, given)
        told.append(one)
    return carry, jnp.stack(told)


def _at(step: Step, carry: Any, i: Any, level: NoiseLevel, following: NoiseLevel, key: PRNGKeyArray, given: Any) -> tuple[Any, Array]:
    return step(carry, level, following, jax.random.fold_in(key, i), given)


_at_compiled = eqx.filter_jit(_at)


def check_eta(eta: Float[Array, ""] | float) -> None:
    """Refuses a share outside [0, 1], where it is known."""
    if is_known(eta) and not 0 <= float(eta) <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
