"""The motion of one particle under a temperature gradient's force, along a magnetic field or without one, in closed form.

The component across the gradient stays. The solutions follow from arXiv:2504.14000's Eq. (54); they are not copied from the article.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from .vectors import Scalar

Values = Float[Array, "..."] | float


def parallel_velocity(start: Values, perpendicular: Values, time: Values) -> Float[Array, ...]:
    """The velocity along the gradient at low speeds, in units of v_th = √(2T/m), infinite from the blow-up on:

        dU/dτ = U² + w² - 3/2,   U(τ) = (U₀ - s T) / (1 - U₀ T),   s = 3/2 - w²
        T = tanh(√s τ) / √s for s > 0,  tan(√-s τ) / √-s for s < 0

    Particles with s > 0 and U₀ < √s come to rest at U = -√s; all others run away.

    **Arguments:** `start` U₀; `perpendicular` w ≥ 0; `time` τ = v_th t / (2 L).

    >>> print(f"{float(parallel_velocity(0.0, 0.5, 100.0)) ** 2:.3f}")  # 3/2 - 1/4
    1.250
    """
    s, start, time = _broadcast(1.5 - jnp.square(perpendicular), start, time)
    root = jnp.sqrt(jnp.where(s == 0, 1, jnp.abs(s)))
    turn = jnp.where(s < 0, root * time, 0)
    slope = jnp.where(s > 0, jnp.tanh(root * time) / root, jnp.where(s < 0, jnp.tan(turn) / root, time))
    escapes = time >= blow_up_time(start, jnp.sqrt(1.5 - s))
    below = jnp.where(escapes, 1, 1 - start * slope)
    return jnp.where(escapes, jnp.inf, (start - s * slope) / below)


def blow_up_time(start: Values, perpendicular: Values) -> Float[Array, ...]:
    """τ at which [`parallel_velocity`][gradatim.physics.plasma.parallel_velocity] becomes infinite; infinite for what never does.

    artanh(√s / U₀) / √s for s > 0 and U₀ > √s,   arctan2(√-s, U₀) / √-s for s < 0.

    >>> print(f"{blow_up_time(2.0, 0.0):.3f} {blow_up_time(1.0, 0.0)}")
    0.582 inf
    """
    s, start = _broadcast(1.5 - jnp.square(perpendicular), start)
    root = jnp.sqrt(jnp.where(s == 0, 1, jnp.abs(s)))
    outruns = start > jnp.where(s > 0, root, 0)
    safe = jnp.where(outruns, start, 1 + root)
    fast = jnp.where(outruns, jnp.where(s > 0, jnp.arctanh(jnp.where(s > 0, root / safe, 0)) / root, 1 / safe), jnp.inf)
    return jnp.where(s < 0, jnp.arctan2(root, start) / root, fast)


def relativistic_time(start: Values, end: Values, perpendicular: Values, offset: Scalar) -> Float[Array, ...]:
    """The time, in units of L/c, that the momentum along the gradient takes from `start` to `end`; infinite if it never gets there.

        du/dt = (γ - γ₀) / L:   t / L = Φ(φ_end) - Φ(φ_start),   u = γ_⊥ sinh φ,   k = γ₀ / γ_⊥,   T = tanh(φ/2)
        k < 1:  Φ = φ + 2k / √(1-k²) arctan[√((1+k)/(1-k)) T]
        k > 1:  Φ = φ + k / √(k²-1) ln|(T - T₀)/(T + T₀)|,   T₀ = √((k-1)/(k+1))

    Negative if `end` was passed before. Late growth is as e^{t/L}: no blow-up in a finite time.

    **Arguments:** `start`, `end`: u·a; `perpendicular`: |u_⊥|; `offset` ε₀ = γ₀ - 1.

    >>> print(f"{relativistic_time(0.0, 10.0, 1.0, 0.15):.2f} {relativistic_time(0.0, 10.0, 0.5, 0.15)}")
    6.05 inf
    """
    start, end, perpendicular = _broadcast(start, end, perpendicular)
    across = jnp.sqrt(1 + perpendicular**2)
    k = (1 + offset) / across
    first, last = (_potential(jnp.arcsinh(u / across), k) for u in (start, end))
    fixed = jnp.sqrt(jnp.maximum(k**2 - 1, 0)) * across
    region = [jnp.sign(u - fixed) + jnp.sign(u + fixed) for u in (start, end)]
    return jnp.where((k >= 1) & (region[0] != region[1]), jnp.inf, last - first)


def _potential(phi: Float[Array, ...], k: Float[Array, ...]) -> Float[Array, ...]:
    T = jnp.tanh(phi / 2)
    below, above = jnp.where(k < 1, k, 0.5), jnp.where(k > 1, k, 2)
    free = 2 * below / jnp.sqrt(1 - below**2) * jnp.arctan(jnp.sqrt((1 + below) / (1 - below)) * T)
    fixed = jnp.sqrt((above - 1) / (above + 1))
    trapped = above / jnp.sqrt(above**2 - 1) * jnp.log(jnp.abs((T - fixed) / (T + fixed)))
    between = -1 / jnp.where(T == 0, jnp.inf, T)
    return phi + jnp.where(k < 1, free, jnp.where(k > 1, trapped, between))


def _broadcast(*values: Values) -> list[Float[Array, ...]]:
    arrays = [jnp.asarray(value, jnp.result_type(float, value)) for value in values]
    return list(jnp.broadcast_arrays(*arrays))
