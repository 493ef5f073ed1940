"""Local rules of plasticity: Hebb, Oja, reward-modulated Hebbian learning, eligibility traces."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from gradatim.numerics.checks import is_known


def hebbian(pre: Float[Array, " in"], post: Float[Array, " out"]) -> Float[Array, "out in"]:
    """Hebb's change ΔW = y xᵀ: what fires together wires together, and grows without end, as e^(η λ₁ t) along the main direction.

    >>> import jax.numpy as jnp
    >>> print(hebbian(jnp.array([1.0, 2.0]), jnp.array([3.0])))
    [[3. 6.]]
    """
    return post[:, None] * pre[None, :]


def oja(weights: Float[Array, "out in"], pre: Float[Array, " in"], post: Float[Array, " out"]) -> Float[Array, "out in"]:
    """Oja's change ΔW = y xᵀ - y yᵀ W: Hebb's with a decay that ends at the leading unit eigenvector of ⟨x xᵀ⟩, or, for several units, in
    its leading subspace.

    >>> import jax.numpy as jnp
    >>> pre = jnp.array([1.0, 0.0])
    >>> print(oja(jnp.array([[1.0, 0.0]]), pre, jnp.array([1.0])))
    [[0. 0.]]

    Source: Oja, J. Math. Biology 15 (1982) 267-273.
    """
    return hebbian(pre, post) - post[:, None] * (post @ weights)[None, :]


def reward_modulated_hebbian(
    pre: Float[Array, " in"], noise: Float[Array, " out"], reward: Any, baseline: Any = 0.0
) -> Float[Array, "out in"]:
    """The three-factor change ΔW = (R - R̄) ξ xᵀ of a unit that fired by ξ more than it was driven to: uphill in R.

    Its mean is σ² ∂E[R]/∂W where ξ has variance σ²: a one-point zeroth-order estimate, made of the synapse's input, the unit's own
    noise and one scalar for all. A `baseline` that does not know the noise leaves the mean as it is.

    >>> import jax.numpy as jnp
    >>> change = reward_modulated_hebbian(jnp.array([1.0, 2.0]), jnp.array([0.5]), reward=1.0, baseline=0.8)
    >>> print([f"{c:.1f}" for c in change[0]])
    ['0.1', '0.2']

    Source: Legenstein, Chase, Schwartz and Maass, J. Neuroscience 30 (2010) 8400-8410.
    """
    return (reward - baseline) * hebbian(pre, noise)


def eligibility_trace(
    trace: Float[Array, "out in"], pre: Float[Array, " in"], post: Float[Array, " out"], *, decay: Any
) -> Float[Array, "out in"]:
    """E ← γ e + y xᵀ: what a synapse did lately, waiting for a reward that comes late; ΔW = M e with the modulator M.

    **Arguments:** `decay` γ in [0, 1): e^(-dt/τ) for a trace of time constant τ.

    **Raises:** `ValueError` for a decay out of its range.

    >>> import jax.numpy as jnp
    >>> print(eligibility_trace(jnp.array([[1.0, 0.0]]), jnp.array([1.0, 2.0]), jnp.array([3.0]), decay=0.5))
    [[3.5 6. ]]
    """
    if is_known(decay) and not 0 <= float(decay) < 1:
        raise ValueError(f"decay must lie in [0, 1), got {decay}")
    return decay * trace + hebbian(pre, post)
