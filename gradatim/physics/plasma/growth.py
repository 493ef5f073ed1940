"""How fast a temperature gradient makes the heat flux grow, at any temperature, before waves or collisions set in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.laguerre import laggauss

from .forces import TemperatureGradientForce
from .loading import check_temperature
from .vectors import Scalar, Vector, kinetic_energy, velocity

_NODES = 48
"Of Gauss's rules in both directions: 1e-10 at θ = 0.3."


def heat_flux_growth(theta: Scalar, *, is_neutral: bool = True) -> Float[Array, ""]:
    """dq/dη of particles whose momenta u are Gaussian, q in n T v_th, η = v_th t / L: 5/4 for θ ≪ 1, half of it at θ = 0.1.

        dq/dt = ⟨∂[(γ-1) v]/∂u · (F + E)⟩,   F = (γ - ⟨γ⟩)/L,   E from ⟨∂v/∂u · (F + E)⟩ = 0

    by quadrature. **Arguments:** `theta` θ > 0; `is_neutral`: whether an electric field E holds the mean current at zero, as in a plasma;
    for particles alone E = 0 and the flux grows more slowly at relativistic temperatures.

    >>> print(f"{float(heat_flux_growth(1e-4)):.2f} {float(heat_flux_growth(0.1)):.2f} {float(heat_flux_growth(0.3)):.2f}")
    1.25 0.62 0.30
    """
    check_temperature(theta)
    (x, weight_x), (s, weight_s) = hermegauss(_NODES), laggauss(_NODES)
    along, across = (jnp.asarray(part, jnp.result_type(float)) for part in np.meshgrid(x, np.sqrt(2 * s), indexing="ij"))
    weight = jnp.asarray(np.outer(weight_x, weight_s) / weight_x.sum() / weight_s.sum(), along.dtype)
    u = Vector(jnp.sqrt(theta) * along, jnp.sqrt(theta) * across, jnp.zeros_like(along))
    offset = (weight * kinetic_energy(u)).sum()
    force = TemperatureGradientForce(1.0, (1.0, 0.0, 0.0), theta, offset)(u)
    unit = Vector(jnp.ones_like(along), jnp.zeros_like(along), jnp.zeros_like(along))

    def moments_of(u: Vector) -> tuple[Array, Array]:
        v = velocity(u).x
        return v, kinetic_energy(u) * v

    (drift, flux), (drift_of_field, flux_of_field) = (
        [(weight * part).sum() for part in jax.jvp(moments_of, (u,), (push,))[1]] for push in (force, unit)
    )
    field = -drift / drift_of_field if is_neutral else 0.0
    return (flux + field * flux_of_field) / (2 * theta**2)
