"""Flow matching: the loss that makes a network a path's velocity, and the exact velocity of a finite data set
(Lipman et al., arXiv:2210.02747).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .kinetic_energy import Velocity
from .probability_paths import AbstractGaussianPath


def flow_matching_loss(
    velocity: Velocity,
    path: AbstractGaussianPath,
    x0: Float[Array, "batch dim"],
    x1: Float[Array, "batch dim"],
    t: Float[Array, " batch"],
) -> Float[Array, ""]:
    """Mean of (v(t, xₜ) - (a′ x₁ + m′ x₀))² over a batch and its coordinates; least for the marginal velocity, and not zero there.

    The network sees xₜ and t, never x₁ or x₀: a good loss of one that does means nothing.

    **Arguments:** `velocity`: of one time and one point; `x0`: standard normal noise; `x1`: data; `t`: uniform in [0, 1].

    >>> from gradatim.transport import CondOT
    >>> x0, x1, t = jnp.zeros((2, 1)), jnp.array([[1.0], [-1.0]]), jnp.array([0.2, 0.8])
    >>> print(flow_matching_loss(lambda t, x: jnp.zeros_like(x), CondOT(), x0, x1, t))
    1.0
    """
    predicted = jax.vmap(velocity)(t, path.point(x0, x1, t))
    return jnp.mean((predicted - path.conditional_velocity(x0, x1, t)) ** 2)


class EmpiricalVelocity(eqx.Module):
    """The exact marginal velocity of a finite data set: `EmpiricalVelocity(path, data)(t, x)` for one time t < 1 and one point.

        x̂₁ = Σᵢ wᵢ xᵢ,   w = softmaxᵢ(-‖x - a xᵢ‖² / (2 m²)),     u = a′ x̂₁ + m′ (x - a x̂₁) / m

    What a network without error would learn, and no more: its flow ends at the data points themselves.

    >>> from gradatim.transport import CondOT
    >>> velocity = EmpiricalVelocity(CondOT(), jnp.array([[-1.0], [1.0]]))
    >>> print(f"{velocity(jnp.array(0.5), jnp.array([0.5]))[0]:.4f}")  # 2 (tanh 1 - 1/2)
    0.5232
    """

    path: AbstractGaussianPath
    data: Float[Array, "n dim"]

    def __call__(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The velocity at one time and one point."""
        return self.path.velocity_from_denoiser(x, self.denoised(t, x), t)

    def denoised(self, t: Float[Array, ""], x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """x̂₁ = E[x₁ | xₜ = x]."""
        c = self.path.coefficients(t)
        a, m = c.a.astype(x.dtype), c.m.astype(x.dtype)
        logits = (a * (x @ self.data.T) - a**2 * jnp.sum(self.data**2, axis=1) / 2) / m**2
        return jax.nn.softmax(logits) @ self.data
