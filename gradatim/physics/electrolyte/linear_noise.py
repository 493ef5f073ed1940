"""Linear systems driven by white noise: the covariance they settle into, and steps in time that are exact whatever their length.

    dx/dt = -A x + ξ,   ⟨ξ(t) ξ(t')ᴴ⟩ = N δ(t - t');   at rest   A S + S Aᴴ = N   (Lyapunov)

Systems are small and many: axes before the last two are a batch, one matrix for each Fourier mode.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from gradatim.numerics.checks import is_known

from .checks import Scalar, not_negative

_DOUBLINGS = 40
"Halvings of the step before its series is summed: |A| dt up to 10⁸ then starts from 10⁻⁴."
_TERMS = 4


def lyapunov_steady_state(drift: Complex[Array, "*modes n n"], noise: Complex[Array, ...]) -> Complex[Array, "*modes n n"]:
    """S of A S + S Aᴴ = N, as the linear system (A ⊗ 1 + 1 ⊗ A*) vec S = vec N: for few components, n² unknowns a mode.

    **Raises:** `ValueError` if the shapes are no square matrices of one size, or an eigenvalue of A has no positive real part: then nothing
    settles (the mean of a conserved quantity is such a case; leave k = 0 out).

    >>> lyapunov_steady_state(jnp.array([[2.0 + 0j]]), jnp.array([[8.0 + 0j]])).real.tolist()
    [[2.0]]
    """
    n = drift.shape[-1]
    if drift.shape[-2] != n or noise.shape != drift.shape:
        raise ValueError(f"drift and noise must be square matrices of one shape, got {drift.shape} and {noise.shape}")
    if is_known(drift):
        slowest = np.linalg.eigvals(np.asarray(drift)).real.min()
        if not slowest > 0:
            raise ValueError(f"drift must have eigenvalues with positive real parts, or nothing settles; got {slowest:.3g}")
    one = jnp.eye(n)
    # Rows of S one after another: (A S)ᵢⱼ = Σ Aᵢₖ Sₖⱼ and (S Aᴴ)ᵢⱼ = Σ Sᵢₖ A*ⱼₖ.
    operator = jnp.einsum("...ik,jl->...ijkl", drift, one) + jnp.einsum("ik,...jl->...ijkl", one, drift.conj())
    batch = drift.shape[:-2]
    solution = jnp.linalg.solve(operator.reshape(*batch, n * n, n * n), noise.reshape(*batch, n * n, 1))
    return solution.reshape(drift.shape)


def exact_step(
    drift: Complex[Array, "*modes n n"], noise: Complex[Array, "*modes n n"], dt: Scalar
) -> tuple[Complex[Array, "*modes n n"], Complex[Array, "*modes n n"]]:
    """The propagator and the covariance of the noise of one step, x(t + dt) = P x(t) + ζ:

        P = exp(-A dt),   Q = ⟨ζ ζᴴ⟩ = ∫₀ᵈᵗ exp(-A s) N exp(-Aᴴ s) ds

    From a series over dt/2⁴⁰, doubled 40 times: P - 1 → 2 (P - 1) + (P - 1)² and Q → Q + P Q Pᴴ, which only adds what is positive. No
    use is made of where the system settles, and none is needed: A may be singular.

    **Raises:** `ValueError` for a negative dt, or shapes that differ.

    >>> propagator, covariance = exact_step(jnp.array([[2.0 + 0j]]), jnp.array([[8.0 + 0j]]), 0.5)
    >>> print(f"{propagator[0, 0].real:.4f} {covariance[0, 0].real:.4f}")  # 1/e and 2 (1 - 1/e²)
    0.3679 1.7293
    """
    if drift.shape != noise.shape or drift.shape[-1] != drift.shape[-2]:
        raise ValueError(f"drift and noise must be square matrices of one shape, got {drift.shape} and {noise.shape}")
    not_negative(dt=dt)
    short = dt / 2.0**_DOUBLINGS
    power, propagator = _identity(drift), jnp.zeros_like(drift)
    for order in range(1, _TERMS + 1):
        power = power @ (-drift * short) / order
        propagator = propagator + power
    term, covariance = noise * short, noise * short
    for order in range(2, _TERMS + 1):
        # The derivative of P N Pᴴ after P N Pᴴ is -(A M + M Aᴴ).
        term = -(drift @ term + term @ _adjoint(drift)) * (short / order)
        covariance = covariance + term

    def double(_: Any, step: tuple[Array, Array]) -> tuple[Array, Array]:
        change, covariance = step
        moved = covariance + change @ covariance
        return 2 * change + change @ change, covariance + moved + moved @ _adjoint(change)

    change, covariance = jax.lax.fori_loop(0, _DOUBLINGS, double, (propagator, covariance))
    return change + _identity(drift), (covariance + _adjoint(covariance)) / 2


def noise_root(covariance: Complex[Array, "*modes n n"]) -> Complex[Array, "*modes n n"]:
    """R with R Rᴴ = Q; 0 where there is no noise."""
    strength = jnp.trace(covariance, axis1=-2, axis2=-1).real[..., None, None] / covariance.shape[-1]
    is_noisy = strength > 0
    unit = jnp.where(is_noisy, covariance / jnp.where(is_noisy, strength, 1.0), _identity(covariance))
    return jnp.where(is_noisy, jnp.sqrt(jnp.where(is_noisy, strength, 1.0)), 0.0) * jnp.linalg.cholesky(unit)


def coupled_exponential(a: Float[Array, ...], b: Float[Array, ...], g: Float[Array, ...], time: Scalar) -> tuple[Array, Array, Array]:
    """p, q, r of exp(-t [[a, i g], [i g, b]]) = [[p, i q], [i q, r]], which are real for any real a, b, g:

        p, r = e⁻ᵐᵗ (C ± δ t F),   q = -e⁻ᵐᵗ g t F,   C = cosh ωt,   F = sinh(ωt)/(ωt),   ω² = δ² - g²,   m, δ = (b ± a)/2

    Where g exceeds δ the two swing around each other, and the functions turn into cosine and sine.
    """
    mean, half_gap = (a + b) / 2, (b - a) / 2
    square = (half_gap**2 - g**2) * time**2
    close, swings = jnp.abs(square) < 1e-4, square < 0
    # Kept away from 0 on either side, so that no branch nor its derivative meets the root of 0.
    growing = jnp.sqrt(jnp.where(swings | close, 1.0, square))
    swinging = jnp.sqrt(jnp.where(swings & ~close, -square, 1.0))
    # m - ω = (a b + g²)/(m + ω), without the loss of digits where both are large.
    slow = jnp.exp(-(a * b + g**2) * time**2 / (mean * time + growing))
    decay, near = jnp.exp(-mean * time), jnp.where(close, square, 0.0)
    grown = slow * (1 + jnp.exp(-2 * growing)) / 2, -slow * jnp.expm1(-2 * growing) / (2 * growing)
    swung = decay * jnp.cos(swinging), decay * jnp.sin(swinging) / swinging
    even, odd = (jnp.where(close, decay * _series(near, parity), jnp.where(swings, swung[parity], grown[parity])) for parity in (0, 1))
    return even + half_gap * time * odd, -g * time * odd, even - half_gap * time * odd


def _series(z: Array, odd: int) -> Array:
    return 1 + z / math.factorial(2 + odd) + z**2 / math.factorial(4 + odd) + z**3 / math.factorial(6 + odd)


def _identity(like: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _adjoint(matrix: Array) -> Array:
    return jnp.swapaxes(matrix, -1, -2).conj()
