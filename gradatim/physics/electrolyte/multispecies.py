"""The linear theory of any mixture of ions in a uniform field, of unequal charges, diffusivities and densities."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from gradatim.numerics.checks import is_known

from .checks import Scalar, not_negative, positive, vectors
from .linear_noise import lyapunov_steady_state

_NEUTRAL = 1e-6
"Net charge over the sum of its parts that passes for round-off in single precision."


class MultispeciesElectrolyte(eqx.Module):
    """N species of ions with charges zᵢQ, to first order in the fluctuations nᵢ of their densities n̄ᵢ:

        ∂nᵢ/∂t = Dᵢ [∇²nᵢ - zᵢ κE ∂ₓnᵢ - zᵢ n̄ᵢ ℓ Σⱼ zⱼ nⱼ] + √(2 Dᵢ n̄ᵢ) ∇·ηᵢ,   κ² = ℓ Σᵢ zᵢ² n̄ᵢ,   ℓ = Q²/(ε k_B T)

    [`DrivenElectrolyte`][gradatim.physics.electrolyte.DrivenElectrolyte] is the case z = (1, -1) with equal D and n̄; E and κ are as there,
    E for an ion of charge Q.

    **Arguments:** `charges` zᵢ; `densities` n̄ᵢ > 0, Σ zᵢ n̄ᵢ = 0; `diffusivities` Dᵢ > 0; `debye_wavenumber` κ > 0; `field` E;
    `smearing` a ≥ 0; `dim` and `axis` as there.

    **Raises:** `ValueError` for charges that do not sum to neutral, for fewer than two species, or for a number out of range.

    >>> salt = MultispeciesElectrolyte(jnp.array([2.0, -1.0]), jnp.array([1.0, 2.0]), jnp.array([0.7, 2.0]), field=1.0, dim=1)
    >>> correlations = salt.structure_factor(jnp.array([0.1]))
    >>> print(f"{float(salt.charge_structure_factor(jnp.array([0.1]))):.4f}")  # screened although driven: of order k²
    0.0979
    """

    charges: Float[Array, " species"]
    densities: Float[Array, " species"]
    diffusivities: Float[Array, " species"]
    debye_wavenumber: Scalar
    field: Scalar
    smearing: Scalar
    dim: int = eqx.field(static=True)
    axis: int = eqx.field(static=True)

    def __init__(
        self,
        charges: Float[Array, " species"],
        densities: Float[Array, ...],
        diffusivities: Float[Array, ...],
        *,
        debye_wavenumber: Scalar = 1.0,
        field: Scalar = 0.0,
        smearing: Scalar = 0.0,
        dim: int = 3,
        axis: int = 0,
    ):
        if dim not in (1, 2, 3) or not 0 <= axis < dim:
            raise ValueError(f"dim must be 1, 2 or 3, and axis at least 0 and below it, got {dim} and {axis}")
        if charges.size < 2 or not charges.shape == densities.shape == diffusivities.shape:
            raise ValueError(
                "charges, densities and diffusivities must hold one number for each of at least 2 species, "
                f"got shapes {charges.shape}, {densities.shape} and {diffusivities.shape}"
            )
        positive(debye_wavenumber=debye_wavenumber)
        not_negative(smearing=smearing)
        for name, values in (("densities", densities), ("diffusivities", diffusivities)):
            if is_known(values) and not (np.asarray(values) > 0).all():
                raise ValueError(f"{name} must be positive, got {np.asarray(values).tolist()}")
        if is_known(charges) and is_known(densities):
            carried = np.asarray(charges) * np.asarray(densities)
            net, parts = float(carried.sum()), float(np.abs(carried).sum())
            if not abs(net) <= _NEUTRAL * parts or parts == 0:
                raise ValueError(f"charges must sum to neutral, Σ charges · densities = 0, got {net:g} of {parts:g}")
        self.charges, self.densities, self.diffusivities = charges, densities, diffusivities
        self.debye_wavenumber, self.field, self.smearing, self.dim, self.axis = debye_wavenumber, field, smearing, dim, axis

    def drift_matrix(self, k: Float[Array, "*modes dim"]) -> Complex[Array, "*modes species species"]:
        """A(k): dn/dt = -A n + noise."""
        vectors("k", k, self.dim)
        square = jnp.sum(k**2, -1)
        z = self.charges
        screening = self.debye_wavenumber**2 * jnp.exp(-(self.smearing**2) * square) / jnp.sum(z**2 * self.densities)
        drift = self.debye_wavenumber * self.field * jnp.einsum("...,i->...i", k[..., self.axis], z)
        own = jnp.einsum("...i,ij->...ij", square[..., None] + 1j * drift, jnp.eye(z.size))
        others = jnp.einsum("...,i,j->...ij", screening, z * self.densities, z)
        return jnp.einsum("i,...ij->...ij", self.diffusivities, own + others)

    def noise_matrix(self, k: Float[Array, "*modes dim"]) -> Complex[Array, "*modes species species"]:
        """2 Dᵢ n̄ᵢ k² δᵢⱼ."""
        vectors("k", k, self.dim)
        strength = jnp.diag(2 * self.diffusivities * self.densities)
        return jnp.einsum("...,ij->...ij", jnp.sum(k**2, -1), strength) + 0j

    def structure_factor(self, k: Float[Array, "*modes dim"]) -> Complex[Array, "*modes species species"]:
        """Sᵢⱼ(k) = V ⟨nᵢ nⱼ*⟩ at rest, from the Lyapunov equation; 0 at k = 0, where numbers are conserved."""
        is_mean = (jnp.sum(k**2, -1) == 0)[..., None, None]
        drift = self.drift_matrix(k)
        # Anything that settles stands in for the matrix at k = 0.
        drift = jnp.where(is_mean, jnp.broadcast_to(jnp.eye(self.charges.size), drift.shape), drift)
        return lyapunov_steady_state(drift, self.noise_matrix(k))

    def charge_structure_factor(self, k: Float[Array, "*modes dim"]) -> Float[Array, "*modes"]:
        """Σᵢⱼ zᵢ zⱼ Sᵢⱼ: of order k² at small k, driven or not."""
        return jnp.einsum("i,...ij,j->...", self.charges, self.structure_factor(k), self.charges).real
