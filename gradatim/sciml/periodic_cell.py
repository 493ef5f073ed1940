"""A periodic cell of elastic materials under an average strain: fields, averaged stress and consistent tangent, by finite elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradatim.numerics.sparse import symmetric_lu

from .elastic_materials import IsotropicElastic, materials_at
from .quadratic_elements import UNIT_CELL, Assembly, Corners, QuadMesh, kinematics, structured_quads

MaterialOf = Callable[[np.ndarray, np.ndarray], np.ndarray]
MATCH = 1e-6
"Distance, over the size of the cell, within which nodes of opposite sides are partners."


class CellSolution(NamedTuple):
    """Fields of a cell; in those of `PeriodicCell.snapshots` strains come along a first axis of each."""

    average_strain: Float[np.ndarray, "*strains 3"]
    "(E₁₁, E₂₂, 2 E₁₂), with the engineering shear."
    fluctuation: Float[np.ndarray, "*strains 2 nodes"]
    "ũ = u - Ē x, periodic, zero at the first node."
    strain: Float[np.ndarray, "*strains 3 points"]
    "(ε_xx, ε_yy, ε_xy) at Gauss points, tensor components."
    stress: Float[np.ndarray, "*strains 3 points"]
    average_stress: Float[np.ndarray, "*strains 3"]
    tangent: Float[np.ndarray, "*strains 3 3"]
    "∂T̄/∂Ē, in its last column by the engineering shear."
    steps: Int[np.ndarray, "*strains"]
    "Of Newton's method."
    residual: Float[np.ndarray, "*strains"]
    "Forces that do not cancel, relative."


class PeriodicCell:
    """Small plane strains of a rectangular cell whose displacement is an average strain's plus a periodic fluctuation ũ.

        ∫ ε(δũ) : σ(Ē + ε(ũ)) = 0 for all periodic δũ,     T̄ = ⟨σ⟩,     C̄ = ∂T̄/∂Ē = ⟨C⟩ - ⟨C B⟩ K⁻¹ ∫ Bᵀ C

    Newton's method on the host, with sparse factors; the tangent of a law without an energy is not symmetric, and the two products
    of it are then not each other's transpose. Opposite sides pair by coordinate; four corners are one node, whose fluctuation is zero.
    Average strains are (E₁₁, E₂₂, 2 E₁₂), the engineering shear third; strains inside are tensor components; components are the first axis
    of fields. Units: those of the moduli, and of the nodes. JAX must be in double precision. Not for jit, vmap or grad.

    **Arguments:** `mesh`: of quadrilaterals with eight nodes and 3 × 3 Gauss points; `materials`: one, or several with `material_id`, the
    number of each element's; `tolerance`: on forces that do not cancel, over all forces. Snapshots whose spans are meant to be in
    equilibrium need 1e-10 or less; `max_steps`: of Newton's method.

    **Raises:** `ValueError` for a mesh whose opposite sides do not match, as many numbers as there are not elements, single precision; when
    solving, for strains that are not three numbers, `RuntimeError` where Newton's method does not converge.

    >>> with jax.enable_x64(True):
    ...     from gradatim.sciml import linear_elastic
    ...     cell = PeriodicCell.structured(2, materials=[linear_elastic(4.0, 3.0)])
    ...     print(cell.solve(np.array([0.1, 0.0, 0.02])).average_stress.round(6))
    [0.8  0.2  0.06]
    """

    def __init__(
        self,
        mesh: QuadMesh,
        materials: Sequence[IsotropicElastic],
        material_id: Int[np.ndarray, " elements"] | None = None,
        *,
        tolerance: float = 1e-12,
        max_steps: int = 25,
    ):
        if not jax.config.read("jax_enable_x64"):
            raise ValueError("PeriodicCell needs JAX in double precision: set JAX_ENABLE_X64=1, or enter `jax.enable_x64(True)`")
        if not 0 < tolerance <= 1e-6:
            raise ValueError(f"tolerance must lie in (0, 1e-6], got {tolerance}")
        count = len(mesh.elements)
        numbers = np.zeros(count, int) if material_id is None else np.asarray(material_id)
        if numbers.shape != (count,):
            raise ValueError(f"material_id must have one number for each of {count} elements, got shape {numbers.shape}")
        self.mesh, self.tolerance, self.max_steps = mesh, tolerance, max_steps
        found = kinematics(mesh)
        self.material_id = numbers
        self.gradient, self._weights = found.gradient, found.weights
        "Of the kinematics, (elements, 9, 3, 16)."
        self._per_element = found.weights.shape[1]
        self.weights = found.weights.ravel()
        "Of the quadrature, by Gauss point."
        self.area = float(self.weights.sum())
        self.places = found.places.reshape(-1, 2).T
        "Of the Gauss points, (2, points)."
        self.material = materials_at(materials, np.repeat(numbers, self._per_element))
        "The law of each Gauss point."
        self.partner = periodic_partners(mesh.nodes)
        "Of each node the one that stands for it and for all that are the same by periodicity."
        order = np.unique(self.partner)
        pinned = int(np.searchsorted(order, self.partner[0]))
        # The pinned node is numbered last, where the assembly leaves it out.
        number = np.arange(order.size)
        number = np.where(number < pinned, number, np.where(number == pinned, order.size - 1, number - 1))
        by_node = number[np.searchsorted(order, self.partner)]
        self._freedom_of_node = 2 * by_node[None] + np.array([[0], [1]])
        self._freedoms = np.stack([2 * by_node[mesh.elements], 2 * by_node[mesh.elements] + 1], axis=-1).reshape(count, 16)
        self._assembly = Assembly(self._freedoms, 2 * (order.size - 1))

    @classmethod
    def structured(
        cls,
        n: int,
        *,
        materials: Sequence[IsotropicElastic],
        material_id: MaterialOf | None = None,
        corners: Corners = UNIT_CELL,
        tolerance: float = 1e-12,
    ) -> PeriodicCell:
        """`n` by `n` elements on a rectangle, by default the unit square around the origin; `material_id(x, y)` of centres numbers them."""
        mesh = structured_quads(n, n, corners=corners)
        numbers = None if material_id is None else np.asarray(material_id(*mesh.centres.T)).astype(int)
        return cls(mesh, materials, numbers, tolerance=tolerance)

    def solve(self, average_strain: Float[np.ndarray, " 3"], *, start: Float[np.ndarray, "2 nodes"] | None = None) -> CellSolution:
        """Fields under one average strain; `start`: a fluctuation to begin from, by default none."""
        average_strain = np.asarray(average_strain, np.float64)
        if average_strain.shape != (3,):
            raise ValueError(f"average_strain must be (E11, E22, 2 E12), got shape {average_strain.shape}; for many use snapshots")
        free = np.zeros(self._assembly.n_free + 2)
        if start is not None:
            free[self._freedom_of_node.ravel()] = np.asarray(start).ravel()
        step = 0
        while True:
            strain = self._average(average_strain)[:, None] + self._strain_of(free)
            stress, stiffness = self._respond(strain)
            forces, residual = self._forces(stress)
            factors = symmetric_lu(self._stiffness(stiffness))
            if residual <= self.tolerance:
                break
            if step == self.max_steps:
                raise RuntimeError(
                    f"Newton's method must converge to {self.tolerance} within {step} steps, got {residual:.3g} at average strain "
                    f"{average_strain.tolist()}: start from the solution of a smaller strain"
                )
            free[: self._assembly.n_free] -= factors.solve(forces)
            step += 1
        tangent = self._condensed(stiffness, factors)
        average = stress @ self.weights / self.area
        return CellSolution(
            average_strain, free[self._freedom_of_node], strain, stress, average, tangent, np.asarray(step), np.asarray(residual)
        )

    def snapshots(self, average_strains: Float[np.ndarray, "strains 3"]) -> CellSolution:
        """Each strain's solution, stacked."""
        average_strains = np.asarray(average_strains, np.float64)
        if average_strains.ndim != 2 or average_strains.shape[1] != 3:
            raise ValueError(f"average_strains must have shape (strains, 3), got {average_strains.shape}")
        return CellSolution(*(np.stack(rows) for rows in zip(*(self.solve(strain) for strain in average_strains), strict=True)))

    def strain_of(self, fluctuation: Float[np.ndarray, "*fields 2 nodes"]) -> Float[np.ndarray, "*fields 3 points"]:
        """Strains of periodic fluctuations alone, tensor components; linear, so of modes too."""
        local = np.moveaxis(fluctuation[..., self.mesh.elements], -3, -1).reshape(*fluctuation.shape[:-2], len(self.mesh.elements), 16)
        return self._strain_of_local(local)

    def equilibrium_residual(self, stress: Float[np.ndarray, "3 points"]) -> float:
        """|∫ Bᵀ σ| against periodic test functions, over the same with all contributions made positive."""
        return self._forces(np.asarray(stress))[1]

    def _average(self, average_strain: np.ndarray) -> np.ndarray:
        return average_strain * np.array([1, 1, 0.5])

    def _strain_of(self, free: np.ndarray) -> np.ndarray:
        return self._strain_of_local(free[self._freedoms])

    def _strain_of_local(self, local: np.ndarray) -> np.ndarray:
        engineering = np.einsum("epkl,...el->...kep", self.gradient, local, optimize=True)
        engineering = engineering.reshape(*engineering.shape[:-2], -1)
        return engineering * np.array([1, 1, 0.5])[:, None]

    def _respond(self, strain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stress (3, points), and its derivative by (ε_xx, ε_yy, 2 ε_xy)."""
        stress, stiffness = (np.asarray(part) for part in _response(self.material, jnp.asarray(strain)))
        return stress, stiffness * np.array([1, 1, 0.5])[None, :, None]

    def _forces(self, stress: np.ndarray) -> tuple[np.ndarray, float]:
        weighted = (self._weights[None] * stress.reshape(3, *self._weights.shape)).transpose(1, 2, 0)
        local = np.matmul(self.gradient.reshape(len(weighted), -1, 16).transpose(0, 2, 1), weighted.reshape(len(weighted), -1, 1))[..., 0]
        forces, all_forces = self._assembly.vector(local), self._assembly.vector(np.abs(local))
        scale = float(np.linalg.norm(all_forces))
        return forces, float(np.linalg.norm(forces)) / scale if scale > 0 else 0.0

    def _stiffness(self, stiffness: np.ndarray):
        count = len(self.gradient)
        by_point = (self._weights[None, None] * stiffness.reshape(3, 3, *self._weights.shape)).transpose(2, 3, 0, 1)
        product = np.matmul(by_point, self.gradient)
        gradient = self.gradient.reshape(count, -1, 16)
        return self._assembly.matrix(np.matmul(gradient.transpose(0, 2, 1), product.reshape(count, -1, 16)))

    def _condensed(self, stiffness: np.ndarray, factors) -> np.ndarray:
        by_point = (self._weights[None, None] * stiffness.reshape(3, 3, *self._weights.shape)).transpose(2, 3, 0, 1)
        right = np.einsum("epkl,epkj->jel", self.gradient, by_point, optimize=True)
        left = np.einsum("epik,epkl->iel", by_point, self.gradient, optimize=True)
        right, left = (np.stack([self._assembly.vector(row) for row in rows]) for rows in (right, left))
        return (by_point.sum(axis=(0, 1)) - left @ factors.solve(right.T)) / self.area


@eqx.filter_jit
def _response(material: IsotropicElastic, strain: Array) -> tuple[Array, Array]:
    return material.stress(strain), material.tangent(strain)


def periodic_partners(nodes: Float[np.ndarray, "nodes 2"]) -> Int[np.ndarray, " nodes"]:
    """Of each node the number of the one that it is by periodicity: on the left of a node on the right, below one on the top.

    **Raises:** `ValueError` for nodes of opposite sides that do not pair up.
    """
    low, high = nodes.min(axis=0), nodes.max(axis=0)
    close = MATCH * float((high - low).max())
    partner = np.arange(len(nodes))
    for axis, (first, second) in enumerate((("left", "right"), ("bottom", "top"))):
        along = nodes[:, 1 - axis]
        here, there = (np.flatnonzero(abs(nodes[:, axis] - side[axis]) < close) for side in (low, high))
        here, there = here[np.argsort(along[here])], there[np.argsort(along[there])]
        if here.size != there.size or abs(along[here] - along[there]).max() > close:
            raise ValueError(f"nodes on the {first} and the {second} side must pair up, got {here.size} and {there.size} that do not")
        moved = np.arange(len(nodes))
        moved[there] = here
        partner = moved[partner]
    return partner
