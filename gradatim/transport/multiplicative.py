"""Multiplicative diffusion: geometric Brownian motion run backwards by steps that multiply (arXiv:2510.02730).

    in the space itself:    dX = [μ - 2σ² - σ² h(t, X)] X dt + σ X dW          (run backwards in time)
    in the logarithm:       dY = [μ - σ²/2 - σ² (h(t, exp Y) + 1)] dt + σ dW,     h = x ∘ ∇ log p_t(x)

The second, stepped by Euler and Maruyama, is the Dale–Langevin sampler: a sign is never changed, as by Dale's law for synapses.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .geometric_motion import AbstractGeometricMotion, Number, check_positive
from .multiplicative_score import PointScore


class MultiplicativeEnd(eqx.Module):
    """Where a sampler in the space itself ends."""

    x: Float[Array, "*shape"]
    crossings: Int[Array, ""]
    "How often a coordinate changed its sign."


class _Levels(NamedTuple):
    t: Float[Array, " steps"]
    drift: Float[Array, " steps"]  # ∫μ over the step
    variance: Float[Array, " steps"]  # ∫σ² over the step
    loudness: Float[Array, " steps"]  # of the noise, 1 in theory


def dale_langevin_step(
    x: Float[Array, "*shape"], score: Float[Array, "*shape"], noise: Float[Array, "*shape"], drift: Number, variance: Number
) -> Float[Array, "*shape"]:
    """One step back in time by x ∘ exp(δσ² h - δ(μ - 3σ²/2) + √δ σ z): Euler–Maruyama of the logarithm.

    An exponentiated gradient step with noise, whose gradient is that of -log p_Y along y = log x: it is -(h + 1).

    **Arguments:** `x`; `score`: h at x and at the time that the step starts from; `noise`: standard normal; `drift`: δμ; `variance`: δσ².

    >>> step = dale_langevin_step(jnp.array(2.0), jnp.array(-1.0), jnp.array(0.0), 0.32, 0.64)
    >>> print(step)  # at the median nothing moves, but by noise
    2.0
    """
    return x * jnp.exp(_log_step(score, noise, jnp.asarray(drift, x.dtype), jnp.asarray(variance, x.dtype)))


def multiplicative_step(
    x: Float[Array, "*shape"], score: Float[Array, "*shape"], noise: Float[Array, "*shape"], drift: Number, variance: Number
) -> Float[Array, "*shape"]:
    """One step back in time by x ∘ (1 + 2δσ² - δμ + δσ² h + √δ σ z): Euler–Maruyama in the space itself.

    The factor is negative, and x crosses zero, with a probability that vanishes fast with the step.

    **Arguments:** as for [`dale_langevin_step`][gradatim.transport.dale_langevin_step].

    >>> print(f"{multiplicative_step(jnp.array(2.0), jnp.array(-1.0), jnp.array(0.0), 0.32, 0.64):.2f}")  # 2 (1 + 1.28 - 0.32 - 0.64)
    2.64
    """
    drift, variance = jnp.asarray(drift, x.dtype), jnp.asarray(variance, x.dtype)
    return x * (1 + 2 * variance - drift + variance * score + jnp.sqrt(variance) * noise)


def sample_dale_langevin(
    score: PointScore,
    motion: AbstractGeometricMotion,
    x: Float[Array, "*shape"],
    times: Float[Array, " times"],
    *,
    key: PRNGKeyArray,
    repeats: int = 1,
    step_factor: float = 1.0,
    anneal: float = 1.0,
    denoise_steps: int = 0,
) -> Float[Array, "*shape"]:
    """The sign-preserving sampler from noise to data; one point, batch with `jax.vmap`.

    The logarithm is what is carried along, so that small values keep their digits. The last four arguments are habits of the authors' code
    and not of the theory: with any of them changed the result has another distribution, as a rule too narrow.

    **Arguments:** `score`: x ∘ ∇ log p_t(x), asked at all times but the last; `motion`; `x`: of the noise
    ([`LogNormal`][gradatim.transport.LogNormal] fitted to noised data), positive; `times`: descending, from the noise to the data, as
    `jnp.linspace(1, 0, 201)`; `key`: of this point's own noise; `repeats` ≥ 1: steps at every level; `step_factor` > 0: of their length;
    `anneal` in (0, 1]: the k-th step's noise is multiplied by its k-th power; `denoise_steps` ≥ 0: steps without noise at the last level.

    **Raises:** `ValueError` for arguments outside, or for an x that is not positive or times that do not descend; a traced x is an error at
    run time.

    >>> from gradatim.transport import GeometricBrownianMotion, LogNormal, LogNormalScore
    >>> motion, data = GeometricBrownianMotion(0.8), LogNormal(jnp.zeros(1000), 0.24 * jnp.ones(1000))
    >>> noise = data.after(motion, 1.0).sample(jax.random.key(0))
    >>> x = sample_dale_langevin(LogNormalScore(motion, data), motion, noise, jnp.linspace(1, 0, 101), key=jax.random.key(1))
    >>> print(f"{jnp.log(noise).std():.1f} {jnp.log(x).std():.2f}")  # √0.0609 in a hundred steps, 0.24 in many
    0.8 0.25
    """
    x = check_positive("x", x)
    # Half precision would keep two or three digits of a logarithm, and lose small steps.
    y = jnp.log(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    levels = _levels(motion, times, y.dtype, repeats, step_factor, anneal, denoise_steps)

    def step(y: Float[Array, "*shape"], given: tuple[_Levels, Int[Array, ""]]) -> tuple[Float[Array, "*shape"], None]:
        level, i = given
        noise = level.loudness * _noise(key, i, y)
        found = score(level.t, jnp.exp(y).astype(x.dtype)).astype(y.dtype)
        return y + _log_step(found, noise, level.drift, level.variance), None

    return jnp.exp(jax.lax.scan(step, y, (levels, jnp.arange(levels.t.size)))[0]).astype(x.dtype)


def sample_multiplicative(
    score: PointScore,
    motion: AbstractGeometricMotion,
    x: Float[Array, "*shape"],
    times: Float[Array, " times"],
    *,
    key: PRNGKeyArray,
    repeats: int = 1,
    step_factor: float = 1.0,
    anneal: float = 1.0,
    denoise_steps: int = 0,
) -> MultiplicativeEnd:
    """The sampler of the space itself from noise to data, which may cross zero; one point, batch with `jax.vmap`.

    Beyond zero the score is that at |x|: the motion is the same on either side.

    **Arguments, raises:** as for [`sample_dale_langevin`][gradatim.transport.sample_dale_langevin].

    >>> from gradatim.transport import GeometricBrownianMotion, LogNormal, LogNormalScore
    >>> motion, data = GeometricBrownianMotion(0.8), LogNormal(jnp.zeros(10), 0.24 * jnp.ones(10))
    >>> noise = data.after(motion, 1.0).sample(jax.random.key(0))
    >>> end = sample_multiplicative(LogNormalScore(motion, data), motion, noise, jnp.linspace(1, 0, 101), key=jax.random.key(1))
    >>> print(end.crossings)  # of zero, which small steps hardly ever take
    0
    """
    x = check_positive("x", x)
    levels = _levels(motion, times, x.dtype, repeats, step_factor, anneal, denoise_steps)

    def step(state: MultiplicativeEnd, given: tuple[_Levels, Int[Array, ""]]) -> tuple[MultiplicativeEnd, None]:
        level, i = given
        noise = level.loudness * _noise(key, i, state.x)
        x = multiplicative_step(state.x, score(level.t, jnp.abs(state.x)), noise, level.drift, level.variance)
        return MultiplicativeEnd(x, state.crossings + jnp.sum(x * state.x < 0, dtype=jnp.int32)), None

    return jax.lax.scan(step, MultiplicativeEnd(x, jnp.zeros((), jnp.int32)), (levels, jnp.arange(levels.t.size)))[0]


class MultiplicativeFlow(eqx.Module):
    """The same marginals without noise: a velocity of the logarithm, for [`sample_flow`][gradatim.transport.sample_flow] and its kin.

        dY/dt = μ - σ²/2 - (σ²/2) (h(t, exp Y) + 1),     t = T - s (T - ε)

    Called with s from 0 (noise) to 1 (data) and a logarithm; exponentiate at the end.

    **Arguments:** `score`: x ∘ ∇ log p_t(x); `motion`: its end is T; `last`: ε ≥ 0, where the flow stops short of the data.

    **Raises:** `ValueError` for a last time outside [0, T).

    >>> from gradatim.transport import GeometricBrownianMotion, LogNormal, LogNormalScore
    >>> motion, data = GeometricBrownianMotion(0.8), LogNormal(jnp.zeros(1), 0.6 * jnp.ones(1))
    >>> flow = MultiplicativeFlow(LogNormalScore(motion, data), motion)
    >>> print(f"{flow(jnp.array(0.0), jnp.ones(1))[0]:.3f}")  # the deviation √(0.36 + 0.64 t) shrinks at half of 0.64
    -0.320
    """

    score: PointScore
    motion: AbstractGeometricMotion
    last: float = 0.0

    def __check_init__(self) -> None:
        if not 0 <= self.last < self.motion.end:
            raise ValueError(f"last must lie in [0, {self.motion.end}), got {self.last}")

    def __call__(self, s: Float[Array, ""], y: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """dY/ds."""
        span = self.motion.end - self.last
        t = self.motion.end - s * span
        drift, variance = (part.astype(y.dtype) for part in self.motion.rates(t))
        return span * (variance / 2 * (self.score(t, jnp.exp(y)) + 1) - (drift - variance / 2))


def _log_step(score: Array, noise: Array, drift: Array, variance: Array) -> Array:
    return variance * score - (drift - 1.5 * variance) + jnp.sqrt(variance) * noise


def _noise(key: PRNGKeyArray, i: Int[Array, ""], like: Array) -> Array:
    # Step by step, as the noise of all steps would fill the memory, and flat, as several axes compile many times slower.
    return jax.random.normal(jax.random.fold_in(key, i), (like.size,), like.dtype).reshape(like.shape)


def _levels(
    motion: AbstractGeometricMotion, times: Array, dtype: jnp.dtype, repeats: int, step_factor: float, anneal: float, denoise_steps: int
) -> _Levels:
    if repeats < 1 or denoise_steps < 0:
        raise ValueError(f"repeats must be at least 1 and denoise_steps at least 0, got {repeats} and {denoise_steps}")
    if not step_factor > 0:
        raise ValueError(f"step_factor must be positive, got {step_factor}")
    if not 0 < anneal <= 1:
        raise ValueError(f"anneal must lie in (0, 1], got {anneal}")
    if is_known(times) and not (np.asarray(times).size >= 2 and np.all(np.diff(np.asarray(times)) < 0)):
        raise ValueError(f"times must descend, two of them at least, got {np.asarray(times).size} from {times[0]} to {times[-1]}")
    drift, variance = (-step_factor * jnp.diff(part) for part in motion.integrals(times))
    parts = [jnp.repeat(part, repeats) for part in (times[:-1], drift, variance)]
    loudness = anneal ** jnp.arange(parts[0].size)
    if denoise_steps:
        parts = [jnp.concatenate([part, jnp.repeat(part[-1:], denoise_steps)]) for part in parts]
        loudness = jnp.concatenate([loudness, jnp.zeros(denoise_steps, loudness.dtype)])
    t, drift, variance = parts
    return _Levels(t, drift.astype(dtype), variance.astype(dtype), loudness.astype(dtype))
