"""Isotropic elastic laws in plane strain, linear and softening, for many points at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradatim.numerics.checks import is_known

Norm = Literal["plane_strain", "in_plane"]
TINY = 1e-30
"Under the root of the norm, whose slope at zero strain would not be finite."
SMALL = 1e-2
"Below which the energy, a difference of nearly equal terms, is summed as a series."


class IsotropicElastic(eqx.Module):
    """A law whose shear stiffness falls with the size of the deviator, and whose bulk modulus does not.

        σ = K tr ε I + 2 G dev ε / (1 + κ n),     n = ‖dev ε‖,     dev ε = ε - tr ε / 3 I

    Strains are (ε_xx, ε_yy, ε_xy), tensor components, of which a third is half the engineering shear; stresses (σ_xx, σ_yy, σ_xy), which
    do the work ε_xx σ_xx + ε_yy σ_yy + 2 ε_xy σ_xy. The component is the first axis, points follow; a law of one point has scalars, one of
    many points an array for each. [`linear_elastic`][gradatim.sciml.linear_elastic], κ = 0, and
    [`ramberg_like_elastic`][gradatim.sciml.ramberg_like_elastic] make laws, [`materials_at`][gradatim.sciml.materials_at] one of many.

    **Arguments:** `bulk` K and `shear` G, positive, in the unit of the stress; `softening` κ ≥ 0; `norm`: n of all components, the one out
    of the plane, -tr ε/3, too (`"plane_strain"`), or without it (`"in_plane"`), as some codes have it: then no energy exists, and
    the tangent is not symmetric.

    **Raises:** `ValueError` for moduli out of range or a norm that does not exist.
    """

    bulk: Float[Array, " *points"]
    shear: Float[Array, " *points"]
    softening: Float[Array, " *points"]
    norm: Norm = eqx.field(static=True)

    def __init__(self, bulk: Any, shear: Any, softening: Any = 0.0, *, norm: Norm = "plane_strain"):
        if norm not in ("plane_strain", "in_plane"):
            raise ValueError(f"norm must be 'plane_strain' or 'in_plane', got {norm!r}")
        for name, modulus, least in (("bulk", bulk, None), ("shear", shear, None), ("softening", softening, 0.0)):
            if is_known(modulus):
                lowest = float(np.asarray(modulus).min())
                if not (lowest > 0 if least is None else lowest >= 0):
                    raise ValueError(f"{name} must be {'positive' if least is None else 'at least 0'}, got {lowest}")
        self.bulk, self.shear, self.softening = (jnp.asarray(modulus, float) for modulus in (bulk, shear, softening))
        self.norm = norm

    def stress(self, strain: Float[Array, " 3 *points"]) -> Float[Array, " 3 *points"]:
        """σ of each point."""
        third, deviator, n = self._parts(strain)
        factor = 2 * self.shear / (1 + self.softening * n)
        pressure = 3 * self.bulk * third
        return jnp.stack([pressure + factor * deviator[0], pressure + factor * deviator[1], factor * deviator[2]])

    def tangent(self, strain: Float[Array, " 3 *points"]) -> Float[Array, "3 3 *points"]:
        """∂σᵢ/∂εⱼ in tensor components: half its last column belongs to the engineering shear."""
        columns = [jax.jvp(self.stress, (strain,), (jnp.zeros_like(strain).at[j].set(1),))[1] for j in range(3)]
        return jnp.stack(columns, axis=1)

    def energy(self, strain: Float[Array, " 3 *points"]) -> Float[Array, " *points"]:
        """The stored energy, whose slope the stress is: W = K (tr ε)²/2 + 2 G (n/κ - ln(1 + κ n)/κ²), G n² for κ = 0.

        **Raises:** `ValueError` for the in-plane norm.
        """
        if self.norm == "in_plane":
            raise ValueError("a law with norm 'in_plane' has no stored energy: use norm 'plane_strain'")
        third, _, n = self._parts(strain)
        x = self.softening * n
        is_small = x < SMALL
        kappa = jnp.where(self.softening > 0, self.softening, 1)
        far = jnp.where(is_small, SMALL, x)
        # ∫ n/(1 + κ n) dn
        series = n**2 * (1 / 2 - x / 3 + x**2 / 4 - x**3 / 5 + x**4 / 6 - x**5 / 7)
        return 4.5 * self.bulk * third**2 + 2 * self.shear * jnp.where(is_small, series, (far - jnp.log1p(far)) / kappa**2)

    def _parts(self, strain: Array) -> tuple[Array, tuple[Array, Array, Array], Array]:
        """A third of the trace, the deviator and n."""
        xx, yy, xy = strain
        third = (xx + yy) / 3
        d_xx, d_yy = xx - third, yy - third
        squares = d_xx**2 + d_yy**2 + 2 * xy**2
        if self.norm == "plane_strain":
            squares = squares + third**2
        return third, (d_xx, d_yy, xy), jnp.sqrt(squares + TINY)


def linear_elastic(bulk: float, shear: float) -> IsotropicElastic:
    """σ = K tr ε I + 2 G dev ε.

    >>> stress = linear_elastic(2.0, 1.5).stress(jnp.array([0.1, 0.0, 0.0]))
    >>> print(f"{stress[0]:.3f} {stress[1]:.3f}")
    0.400 0.100
    """
    return IsotropicElastic(bulk, shear)


def ramberg_like_elastic(bulk: float, a1: float, a2: float, *, norm: Norm = "plane_strain") -> IsotropicElastic:
    """σ = K tr ε I + α₁ / (α₂ + ‖dev ε‖) dev ε: the deviatoric stress tends to α₁ (arXiv:2504.07976).

    **Arguments:** `a1` α₁, a stress, and `a2` α₂, a strain, both positive; `norm`: see
    [`IsotropicElastic`][gradatim.sciml.IsotropicElastic], the authors' code has `"in_plane"`.

    **Raises:** `ValueError` unless both are positive.

    >>> law = ramberg_like_elastic(4780.0, 50.0, 0.06)
    >>> print(f"{law.stress(jnp.array([0.0, 0.0, 0.02]))[2]:.3f}")
    11.327
    """
    for name, constant in (("a1", a1), ("a2", a2)):
        if not constant > 0:
            raise ValueError(f"{name} must be positive, got {constant}")
    return IsotropicElastic(bulk, a1 / (2 * a2), 1 / a2, norm=norm)


def materials_at(materials: Sequence[IsotropicElastic], material_id: Int[np.ndarray, " points"]) -> IsotropicElastic:
    """One law of many points, each of which has that of its number; nothing branches on it later.

    **Raises:** `ValueError` for a number without a material, or for softening materials of different norms.

    >>> materials_at([linear_elastic(1.0, 1.0), linear_elastic(5.0, 2.0)], np.array([0, 1, 1])).bulk.tolist()
    [1.0, 5.0, 5.0]
    """
    if material_id.size and not 0 <= material_id.min() <= material_id.max() < len(materials):
        raise ValueError(f"material_id must lie in [0, {len(materials)}), got {material_id.min()} to {material_id.max()}")
    norms: set[Norm] = {material.norm for material in materials if float(material.softening) > 0}
    if len(norms) > 1:
        raise ValueError(f"materials must share one norm, got {sorted(norms)}")
    bulk, shear, softening = (
        np.array([float(getattr(material, name)) for material in materials])[material_id] for name in ("bulk", "shear", "softening")
    )
    norm: Norm = norms.pop() if norms else "plane_strain"
    return IsotropicElastic(bulk, shear, softening, norm=norm)
