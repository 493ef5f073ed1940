"""The linear theory of a symmetric strong electrolyte in a uniform field: structure factors at rest and after the field is switched on.

The setting is that of M. Mahdisoltani and R. Golestanian, arXiv:2207.00467 (2022); the formulas are the linearised Dean–Kawasaki equations
solved mode by mode (for the equations: A. Donev et al., SIAM J. Appl. Math. 79, 1082 (2019)).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from gradatim.numerics.checks import is_known

from .checks import Scalar, not_negative, positive, vectors
from .linear_noise import coupled_exponential


class StructureFactor(NamedTuple):
    """Correlations of modes, in units of 2C₀: of the density with itself, of the charge, and the imaginary part of density with charge."""

    density: Float[Array, ...]  # S_cc
    charge: Float[Array, ...]  # S_ρρ
    cross: Float[Array, ...]  # Im S_cρ, density first; the real part is 0


class DrivenElectrolyte(eqx.Module):
    """Two species of ions ±Q with equal diffusivities, driven along one axis by a uniform field, to first order in the fluctuations
    c = C⁺ + C⁻ - 2C₀ and ρ = C⁺ - C⁻:

        ∂c/∂t = D ∇²c          - D κ E ∂ₓρ + √(4 D C₀) ∇·η_c
        ∂ρ/∂t = D (∇² - κ²) ρ  - D κ E ∂ₓc + √(4 D C₀) ∇·η_ρ
        A(k) = [[k², i g], [i g, k² + κ²]],  g = κ E kₓ;  noise 4 D C₀ k² in both

    Lengths are in any unit, densities in its inverse power; κ² = 2 C₀ Q²/(ε k_B T), C₀ being the density of *one* species, and the field
    E = Q E_phys/(k_B T κ): thermal energies that an ion gains over a Debye length. (Some authors take C₀ for both species together.)

    **Arguments:** `debye_wavenumber` κ > 0; `field` E, any sign; `diffusivity` D > 0; `mean_density` C₀ > 0; `smearing` a ≥ 0: width of
    Gaussian charges, κ² → κ² exp(-a²k²), as in the simulation of particles; `dim`: 1, 2 or 3; `axis` along which the field points.

    The theory is linear: it needs many ions in a Debye volume, C₀ κ⁻ᵈ ≫ 1.

    **Raises:** `ValueError` for a number out of range.

    >>> electrolyte = DrivenElectrolyte(field=2.0, dim=2)
    >>> print("{:.4f} {:.4f} {:.4f}".format(*electrolyte.structure_factor(jnp.array([0.3, 0.2]))))
    0.4363 0.1799 0.1221
    """

    debye_wavenumber: Scalar
    field: Scalar
    diffusivity: Scalar
    mean_density: Scalar
    smearing: Scalar
    dim: int = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    def __init__(
        self,
        debye_wavenumber: Scalar = 1.0,
        field: Scalar = 0.0,
        *,
        diffusivity: Scalar = 1.0,
        mean_density: Scalar = 1.0,
        smearing: Scalar = 0.0,
        dim: int = 3,
        axis: int = 0,
    ):
        if dim not in (1, 2, 3):
            raise ValueError(f"dim must be 1, 2 or 3, got {dim}")
        if not 0 <= axis < dim:
            raise ValueError(f"axis must be at least 0 and below dim = {dim}, got {axis}")
        positive(debye_wavenumber=debye_wavenumber, diffusivity=diffusivity, mean_density=mean_density)
        not_negative(smearing=smearing)
        if is_known(field) and not math.isfinite(float(field)):
            raise ValueError(f"field must be finite, got {field}")
        self.debye_wavenumber, self.field, self.diffusivity = debye_wavenumber, field, diffusivity
        self.mean_density, self.smearing, self.dim, self.axis = mean_density, smearing, dim, axis

    def drift_matrix(self, k: Float[Array, "*modes dim"]) -> Complex[Array, "*modes 2 2"]:
        """D A(k), density before charge: d(c, ρ)/dt = -D A (c, ρ) + noise."""
        a, b, g = self._rates(k)
        rows = jnp.stack([jnp.stack([a + 0j, 1j * g], -1), jnp.stack([1j * g, b + 0j], -1)], -2)
        return self.diffusivity * rows

    def noise_matrix(self, k: Float[Array, "*modes dim"]) -> Complex[Array, "*modes 2 2"]:
        """4 D C₀ k² 1: what white noise adds to ⟨(c, ρ)ₖ (c, ρ)ₖᴴ⟩ V in a unit of time."""
        vectors("k", k, self.dim)
        strength = 4 * self.diffusivity * self.mean_density * jnp.sum(k**2, -1)
        return jnp.einsum("...,ij->...ij", strength, jnp.eye(2)) + 0j

    def structure_factor(self, k: Float[Array, "*modes dim"]) -> StructureFactor:
        """The steady state in closed form, h = (2k² + κ²)(k²(k² + κ²) + g²):

            S_cc/2C₀ = 1 - g²κ²/h,   S_ρρ/2C₀ = k²/(k² + κ²) (1 + g²κ²/h),   S_cρ/2C₀ = i k² g κ²/h

        At k = 0 the limit depends on the direction, so that there is none; both fields are conserved there, and all three are 0.
        """
        a, b, g = self._rates(k)
        # At k = 0 all is 0/0: any other wavenumber stands in, and is masked.
        is_mean = a == 0
        a, b = jnp.where(is_mean, 1.0, a), jnp.where(is_mean, 2.0, b)
        share = g**2 * (b - a) / ((a + b) * (a * b + g**2))
        cross = a * g * (b - a) / ((a + b) * (a * b + g**2))
        parts = 1 - share, a / b * (1 + share), cross
        return StructureFactor(*(jnp.where(is_mean, 0.0, part) for part in parts))

    def structure_factor_at(self, k: Float[Array, "*modes dim"], time: Scalar) -> StructureFactor:
        """The same `time` ≥ 0 after the field is switched on in an equilibrium (S_cc = 2C₀, S_ρρ = 2C₀ k²/(k² + κ²)):

            S(t) = S_∞ + exp(-D A t) (S₀ - S_∞) exp(-D Aᴴ t)

        At small k what is left decays at the rate 2D (k² + E² kₓ²).
        """
        not_negative(time=time)
        a, b, g = self._rates(k)
        steady = self.structure_factor(k)
        is_mean = a == 0
        u = jnp.where(is_mean, 0.0, 1 - steady.density)
        v = jnp.where(is_mean, 0.0, a / jnp.where(is_mean, 1.0, b)) - steady.charge
        w = -steady.cross
        p, q, r = coupled_exponential(a, b, g, self.diffusivity * time)
        density = p**2 * u + 2 * p * q * w + q**2 * v
        charge = q**2 * u - 2 * q * r * w + r**2 * v
        cross = p * r * w + q * r * v - p * q * u - q**2 * w
        return StructureFactor(steady.density + density, steady.charge + charge, steady.cross + cross)

    def _rates(self, k: Array) -> tuple[Array, Array, Array]:
        vectors("k", k, self.dim)
        square = jnp.sum(k**2, -1)
        screening = self.debye_wavenumber**2 * jnp.exp(-(self.smearing**2) * square)
        return square, square + screening, self.debye_wavenumber * self.field * k[..., self.axis]
