"""VPIONet: a deep operator network for the displacement fluctuation of a cell, trained by its energy (arXiv:2504.07976, where it is the
baseline; DeepONet is by Lu and others, arXiv:1910.03193).
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .dense_network import DenseNetwork
from .elastic_materials import IsotropicElastic
from .equilibrium_operator import CellFields
from .operator_training import AbstractOperator
from .periodic_cell import PeriodicCell

Energy = Literal["stored", "half_product"]


class CellGeometry(eqx.Module):
    """What the energy of a nodal field takes."""

    nodes: Float[Array, "nodes 2"]
    size: Float[Array, " 2"]
    elements: Int[Array, "elements 8"]
    gradient: Float[Array, "elements per_element 3 16"]
    shares: Float[Array, " points"]
    "Of the area, by Gauss point."
    indicator: Float[Array, " nodes"]
    "1 in the last material, -1 in the first, between them where they meet."
    material: IsotropicElastic

    @classmethod
    def of(cls, cell: PeriodicCell) -> CellGeometry:
        """Of a cell."""
        nodes, elements = cell.mesh
        sides = 2.0 * cell.material_id / max(int(cell.material_id.max()), 1) - 1
        total = np.bincount(elements.ravel(), weights=np.repeat(sides, 8), minlength=len(nodes))
        count = np.bincount(elements.ravel(), minlength=len(nodes))
        # Partners share what they are next to, or the field would not be periodic.
        total, count = (np.bincount(cell.partner, weights=row, minlength=len(nodes))[cell.partner] for row in (total, count))
        arrays = (nodes, np.ptp(nodes, axis=0), elements, cell.gradient, cell.weights / cell.area, total / count)
        return cls(*(jnp.asarray(array) for array in arrays), material=cell.material)


class VariationalOperator(AbstractOperator):
    """A branch for the average strain and a trunk for the place, whose products add up to the fluctuation at the nodes.

        ũ_c(x) = s Σₖ branch_ck(Ē) trunk_ck(cos(2πx/Lₓ + φ), cos(2πy/L_y + φ), indicator),     loss = ⟨∫ W(Ē + B ũ)⟩ / |Ω|

    Periodic, as its features are, but in equilibrium only where the energy is least. Strains are those of the finite elements, so that
    its least energy is the finite-element solution's. `energy="half_product"`, ½ σ:ε as in the authors' code, is the stored energy of a
    linear law alone: for a softening one its minimum lies elsewhere.

    **Arguments:** `geometry`; `rank`: products of each component; `n_phases`: φ of each direction, learnt; `strain_limit`: strains are
    divided by it; `output_scale` s; `key`.

    **Raises:** `ValueError` for an energy that does not exist.

    >>> from gradatim.sciml import linear_elastic
    >>> with jax.enable_x64(True):
    ...     laws = [linear_elastic(4.0, 3.0), linear_elastic(8.0, 6.0)]
    ...     cell = PeriodicCell.structured(2, materials=laws, material_id=lambda x, y: x < 0)
    ...     operator = VariationalOperator(CellGeometry.of(cell), rank=2, width=4, depth=1, key=jax.random.key(0))
    ...     shapes = eqx.filter_jit(lambda model: model.shapes())(operator)
    ...     print(bool(abs(shapes - shapes[..., cell.partner]).max() < 1e-12))  # periodic before it is trained
    True
    """

    geometry: CellGeometry
    branch: DenseNetwork
    trunk: DenseNetwork
    phases: Float[Array, "2 n_phases"]
    strain_limit: float = eqx.field(static=True)
    output_scale: float = eqx.field(static=True)
    energy: Energy = eqx.field(static=True)

    def __init__(
        self,
        geometry: CellGeometry,
        *,
        rank: int = 16,
        width: int = 64,
        depth: int = 4,
        n_phases: int = 8,
        strain_limit: float = 0.04,
        output_scale: float = 1e-4,
        energy: Energy = "stored",
        key: PRNGKeyArray,
    ):
        if energy not in ("stored", "half_product"):
            raise ValueError(f"energy must be 'stored' or 'half_product', got {energy!r}")
        self.geometry, self.strain_limit, self.output_scale, self.energy = geometry, float(strain_limit), float(output_scale), energy
        one, other, last = jax.random.split(key, 3)
        self.branch = DenseNetwork(3, 2 * rank, width=width, depth=depth, key=one)
        self.trunk = DenseNetwork(2 * n_phases + 1, 2 * rank, width=width, depth=depth, activation="tanh", key=other)
        self.phases = 2 * jnp.pi * jax.random.uniform(last, (2 * n_phases,), float).reshape(2, n_phases)

    def __call__(self, average_strain: Float[Array, " 3"]) -> CellFields:
        """All fields; the only stress is the law's."""
        if average_strain.shape != (3,):
            raise ValueError(f"average_strain must be (E11, E22, 2 E12), got shape {average_strain.shape}; batch with jax.vmap")
        shapes = self.shapes()
        strain = self._strain(average_strain, self._weights(average_strain), self.strains_of(shapes))
        stress = self.geometry.material.stress(strain)
        return CellFields(jnp.einsum("ck,ckn->cn", self._weights(average_strain), shapes), strain, stress, stress)

    def average_stress(self, average_strain: Float[Array, " 3"]) -> Float[Array, " 3"]:
        """T̄."""
        return self(average_strain).stress @ self.geometry.shares

    def shapes(self) -> Float[Array, "2 rank nodes"]:
        """The trunk at the nodes, zero at the first."""
        angles = 2 * jnp.pi * self.geometry.nodes.T / self.geometry.size[:, None]
        waves = jnp.cos(angles[:, None] + self.phases[:, :, None]).reshape(-1, angles.shape[1])
        features = jnp.concatenate([waves, self.geometry.indicator[None]])
        values = jax.vmap(self.trunk, in_axes=1, out_axes=1)(features).reshape(2, -1, angles.shape[1])
        return values - values[..., :1]

    def strains_of(self, shapes: Float[Array, "2 rank nodes"]) -> Float[Array, "2 rank 3 points"]:
        """Tensor components, of each shape as either component of a displacement."""
        local = shapes[..., self.geometry.elements]
        engineering = jnp.stack(
            [jnp.einsum("epja,kea->kjep", self.geometry.gradient[..., c::2], local[c], optimize=True) for c in range(2)]
        )
        return engineering.reshape(*engineering.shape[:3], -1) * jnp.array([1, 1, 0.5])[None, None, :, None]

    def loss(self, samples: Float[Array, "strains 3"]) -> Float[Array, ""]:
        """The mean energy of the cell, in the unit of the stress."""
        strains = self.strains_of(self.shapes())

        def one(average_strain: Array) -> Array:
            strain, law = self._strain(average_strain, self._weights(average_strain), strains), self.geometry.material
            if self.energy == "stored":
                return law.energy(strain) @ self.geometry.shares
            return jnp.sum(jnp.array([0.5, 0.5, 1])[:, None] * law.stress(strain) * strain, axis=0) @ self.geometry.shares

        return jnp.mean(jax.vmap(one)(samples))

    def networks(self) -> tuple[PyTree, ...]:
        """Branch, trunk and phases."""
        return self.branch, self.trunk, self.phases

    def renewed(self, key: PRNGKeyArray) -> VariationalOperator:
        """With new networks of the same sizes."""
        biases = self.branch.biases
        return type(self)(
            self.geometry, rank=len(biases[-1]) // 2, width=len(biases[0]), depth=len(biases) - 1, n_phases=self.phases.shape[1],
            strain_limit=self.strain_limit, output_scale=self.output_scale, energy=self.energy, key=key,
        )  # fmt: skip

    def _weights(self, average_strain: Array) -> Array:
        return self.output_scale * self.branch(average_strain / self.strain_limit).reshape(2, -1)

    def _strain(self, average_strain: Array, weights: Array, strains: Array) -> Array:
        average = average_strain * jnp.array([1, 1, 0.5], average_strain.dtype)
        return average[:, None] + jnp.tensordot(weights, strains, 2)
