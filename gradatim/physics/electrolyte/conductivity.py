"""The conductivity of a strong electrolyte in a field of any strength, in three dimensions: Onsager's relaxation and Wien's effect."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .checks import Scalar, positive

_NODES, _WEIGHTS = ((array + shift) / 2 for array, shift in zip(np.polynomial.legendre.leggauss(256), (1.0, 0.0), strict=True))


def conductivity_correction(field: Float[Array, ""] | float, *, debye_wavenumber: Scalar = 1.0, bjerrum_length: Scalar) -> Float[Array, ""]:
    """Δ in the mean current σ₀ E (1 - Δ): how much the ions' clouds, left behind, hold them back.

        Δ = (4π l_B/(κ E)) ∫ d³k/(2π)³ (kₓ/k²) Im S_cρ/2C₀ = (l_B κ/2) ∫₀¹ μ² dμ / (1/√2 + √(1 + E²μ²))

    Weak field: (1 - 1/√2) l_B κ/3 (L. Onsager, Phys. Z. 28, 277 (1927)); strong: l_B κ/(4E) → 0, the cloud has no time to form (Wien).
    Hydrodynamic interactions, Onsager's other half, are not in this theory.

    **Arguments:** `field` E as in [`DrivenElectrolyte`][gradatim.physics.electrolyte.DrivenElectrolyte]; `debye_wavenumber` κ > 0;
    `bjerrum_length` l_B = Q²/(4π ε k_B T) > 0, with l_B κ ≪ 1.

    >>> print(f"{float(conductivity_correction(0.0, bjerrum_length=1.0)):.5f}")
    0.09763
    """
    positive(debye_wavenumber=debye_wavenumber, bjerrum_length=bjerrum_length)
    mu = jnp.asarray(_NODES, jnp.result_type(float))
    cloud = mu**2 / (math.sqrt(0.5) + jnp.sqrt(1 + field**2 * mu**2))
    return bjerrum_length * debye_wavenumber / 2 * jnp.sum(jnp.asarray(_WEIGHTS, mu.dtype) * cloud)
