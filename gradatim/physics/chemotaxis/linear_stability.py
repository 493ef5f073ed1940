"""Growth of a small wave on the uniform state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known

Numbers = Float[Array, "..."] | float


def instability_threshold(mu: Numbers, tau: Numbers, *, chi: Numbers = 1.0) -> Float[Array, ...]:
    """The mean density above which a wave of Laplacian eigenvalue -μ grows: (1 + μ)(1 + τ μ) / χ, whatever ε.

    >>> print(f"{instability_threshold(jnp.pi**2, 0.2):.3f}")
    32.325
    """
    return jnp.asarray((1 + mu) * (1 + tau * mu) / chi)


def limit_growth_rate(nbar: Numbers, mu: Numbers, *, tau: Numbers, chi: Numbers = 1.0) -> Float[Array, ...]:
    """The rate at ε = 0: -μ + χ n̄ μ / ((1 + μ)(1 + τ μ)); τ = 0 is the direct system.

    >>> print(f"{limit_growth_rate(40.0, jnp.pi**2, tau=0.2):.3f}")
    2.343
    """
    return jnp.asarray(-mu + chi * nbar * mu / ((1 + mu) * (1 + tau * mu)))


def growth_rate_slope(nbar: Numbers, mu: Numbers, *, tau: Numbers, chi: Numbers = 1.0) -> Float[Array, ...]:
    """How the rate changes with ε, at ε = 0: -λ₀ (χ n̄ μ / ((1 + μ)(1 + τ μ))) (1/(1 + μ) + 1/(1 + τ μ)); zero on the threshold.

    >>> print(f"{growth_rate_slope(40.0, jnp.pi**2, tau=0.2):.1f}")
    -12.3
    """
    gain = chi * nbar * mu / ((1 + mu) * (1 + tau * mu))
    return jnp.asarray(-limit_growth_rate(nbar, mu, tau=tau, chi=chi) * gain * (1 / (1 + mu) + 1 / (1 + tau * mu)))


def growth_rate(nbar: Numbers, mu: Numbers, *, eps: Numbers, tau: Numbers, chi: Numbers = 1.0) -> Float[Array, ...]:
    """The rate λ at which a wave of Laplacian eigenvalue -μ on n = c = w = n̄ grows (λ < 0: decays), the largest root of

        (λ + μ) (ε λ + 1 + μ) (ε λ + 1 + τ μ) = χ n̄ μ

    which for attraction is real. The equation keeps its sense at ε = 0, where it gives
    [`limit_growth_rate`][gradatim.physics.chemotaxis.limit_growth_rate].

    **Arguments:** `nbar` ≥ 0, `mu` ≥ 0, `eps` ≥ 0, `tau` ≥ 0, `chi` ≥ 0: numbers or arrays that go together (one shape, or scalars).

    **Raises:** `ValueError` for χ < 0: under repulsion the leading waves may swing, and have no such rate.

    >>> print(f"{growth_rate(40.0, jnp.pi**2, eps=0.01, tau=0.2):.3f}")
    2.228
    """
    if is_known(chi) and not (np.asarray(chi) >= 0).all():
        raise ValueError(f"chi must be at least 0 (attraction), got {chi}")
    arguments = jnp.broadcast_arrays(*(jnp.asarray(x, jnp.result_type(float)) for x in (nbar, mu, eps, tau, chi)))
    rates = jax.vmap(_leading_root)(*(x.reshape(-1) for x in arguments))
    return rates.reshape(arguments[0].shape)


def _leading_root(nbar: Array, mu: Array, eps: Array, tau: Array, chi: Array) -> Array:
    def excess(rate: Array, args: tuple[Array, ...]) -> Array:
        nbar, mu, eps, tau, chi = args
        return (rate + mu) * (eps * rate + 1 + mu) * (eps * rate + 1 + tau * mu) - chi * nbar * mu

    # No root lies above: for λ ≥ 0 the left side is at least its value at ε = 0. Beyond its largest zero the cubic is convex, so
    # that Newton's method comes down to the root without ever passing it.
    start = jnp.maximum(limit_growth_rate(nbar, mu, tau=tau, chi=chi), 0)
    tolerance = 1e2 * float(jnp.finfo(start.dtype).eps)
    solver = optx.Newton(rtol=tolerance, atol=tolerance)
    return optx.root_find(excess, solver, start, args=(nbar, mu, eps, tau, chi), max_steps=256, throw=False).value
