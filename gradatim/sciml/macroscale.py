"""A structure on the large scale, whose material is any function from strains to stresses and tangents: solved cells, or an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradatim.numerics.sparse import symmetric_lu

from .equilibrium_operator import EquilibriumOperator
from .periodic_cell import PeriodicCell
from .quadratic_elements import Assembly, Corners, QuadMesh, kinematics

Constitutive = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
COOK: Corners = ((0.0, 0.0), (48.0, 44.0), (48.0, 60.0), (0.0, 44.0))
"Corners of Cook's membrane (1974), in mm: clamped on the left, sheared on the right."


class MacroSolution(NamedTuple):
    """Of a structure in equilibrium."""

    displacement: Float[np.ndarray, "2 nodes"]
    strain: Float[np.ndarray, "points 3"]
    "(E₁₁, E₂₂, 2 E₁₂) at Gauss points."
    stress: Float[np.ndarray, "points 3"]
    reaction: Float[np.ndarray, "2 nodes"]
    "Forces for a unit of thickness where displacements are prescribed, zero elsewhere."
    steps: int
    residual: float
    "Forces that do not cancel, relative."


def solve_macro(
    mesh: QuadMesh,
    constitutive: Constitutive,
    *,
    is_fixed: Bool[np.ndarray, "2 nodes"],
    values: Float[np.ndarray, "2 nodes"],
    tolerance: float = 1e-8,
    max_steps: int = 25,
) -> MacroSolution:
    """Newton's method in small plane strains, with the tangents as they come: sparse factors that need no symmetry. On the host.

    **Arguments:** `mesh`: eight nodes an element, which has 2 × 2 Gauss points; `constitutive`: (points, 3) strains (E₁₁, E₂₂, 2 E₁₂) to
    (points, 3) stresses and (points, 3, 3) tangents, called once a step for all points; `is_fixed`, `values`: displacements that are
    prescribed; `tolerance`: on forces that do not cancel, over all forces.

    **Raises:** `ValueError` for shapes that do not fit, or no displacement fixed; `RuntimeError` where the method does not converge.

    >>> from gradatim.sciml import structured_quads
    >>> mesh = structured_quads(2, 2)
    >>> law = lambda strains: (2 * strains, np.tile(2 * np.eye(3), (len(strains), 1, 1)))
    >>> is_fixed, values = clamped_and_sheared(mesh, 0.1)
    >>> reaction = solve_macro(mesh, law, is_fixed=is_fixed, values=values).reaction
    >>> print(f"{abs(reaction.sum()):.6f}")
    0.000000
    """
    count = len(mesh.nodes)
    for name, array in (("is_fixed", is_fixed), ("values", values)):
        if array.shape != (2, count):
            raise ValueError(f"{name} must have shape {(2, count)}, got {array.shape}")
    if not is_fixed.any():
        raise ValueError("is_fixed must hold at least one displacement: a structure that floats has no solution")
    found = kinematics(mesh, n_gauss=2)
    gradient, weights = found.gradient, found.weights
    # Free displacements first.
    order = np.argsort(is_fixed.ravel(), kind="stable")
    number = np.empty(2 * count, int)
    number[order] = np.arange(2 * count)
    number = number.reshape(2, count)
    freedoms = np.stack([number[0][mesh.elements], number[1][mesh.elements]], axis=-1).reshape(len(mesh.elements), 16)
    n_free = int((~is_fixed).sum())
    inner, whole = Assembly(freedoms, n_free), Assembly(freedoms, 2 * count)
    all_values, prescribed = np.zeros(2 * count), np.where(is_fixed, values, 0.0).ravel()[order]
    step = 0
    while True:
        strain = np.einsum("epkl,el->epk", gradient, all_values[freedoms])
        stress, tangent = constitutive(strain.reshape(-1, 3))
        by_point = weights[..., None] * np.asarray(stress).reshape(strain.shape)
        local = np.einsum("epkl,epk->el", gradient, by_point)
        forces, scale = whole.vector(local), float(np.linalg.norm(whole.vector(np.abs(local))))
        residual = float(np.linalg.norm(forces[:n_free])) / scale if scale > 0 else 0.0
        if residual <= tolerance and step:
            break
        if step == max_steps or not np.isfinite(residual):
            raise RuntimeError(
                f"Newton's method must converge to {tolerance} within {max_steps} steps, got {residual:.3g} after {step}: "
                "prescribe smaller displacements first"
            )
        stiffness = weights[..., None, None] * np.asarray(tangent).reshape(*strain.shape, 3)
        by_element = np.einsum("epkl,epkj,epjm->elm", gradient, stiffness, gradient, optimize=True)
        # The first step prescribes, and lets all of the structure follow: pulled at its edge alone it would be strained far beyond its law.
        pull = np.where(np.arange(2 * count) < n_free, 0.0, prescribed - all_values)
        pulled = forces[:n_free] + inner.vector(np.einsum("elm,em->el", by_element, pull[freedoms]))
        all_values += pull
        all_values[:n_free] -= symmetric_lu(inner.matrix(by_element)).solve(pulled)
        step += 1
    displacement = all_values[number]
    reaction = np.where(is_fixed, forces[number], 0.0)
    return MacroSolution(displacement, strain.reshape(-1, 3), np.asarray(stress).reshape(-1, 3), reaction, step, residual)


class CellConstitutive:
    """A solved cell at every point, each begun from its last fluctuation: finite elements on both scales (FE²).

    `solves` counts the cells' solutions.

    >>> from gradatim.sciml import linear_elastic
    >>> with jax.enable_x64(True):
    ...     law = CellConstitutive(PeriodicCell.structured(1, materials=[linear_elastic(4.0, 3.0)]))
    ...     print(law(np.array([[0.1, 0.0, 0.02], [0.0, 0.0, 0.0]]))[0][0].round(6), law.solves)
    [0.8  0.2  0.06] 2
    """

    def __init__(self, cell: PeriodicCell):
        self.cell, self.solves = cell, 0
        self._starts: list[np.ndarray] | None = None

    def __call__(self, strains: Float[np.ndarray, "points 3"]) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3 3"]]:
        """Stresses and consistent tangents."""
        starts = self._starts or [None] * len(strains)
        found = [self.cell.solve(strain, start=start) for strain, start in zip(strains, starts, strict=True)]
        self._starts = [one.fluctuation for one in found]
        self.solves += len(found)
        return np.stack([one.average_stress for one in found]), np.stack([one.tangent for one in found])


class OperatorConstitutive:
    """An operator at every point, in one compiled call.

    `reach`: the largest component of the last strains over the operator's limit. Above 1 it extrapolates, and a warning says so; while
    Newton's method is on its way that may pass, at its end stresses are not to be trusted.

    >>> from gradatim.sciml import ModalBasis, linear_elastic
    >>> with jax.enable_x64(True):
    ...     cell = PeriodicCell.structured(1, materials=[linear_elastic(4.0, 3.0)])
    ...     basis = ModalBasis.from_snapshots(cell, cell.snapshots(0.01 * np.eye(3)), 2)
    ...     law = OperatorConstitutive(EquilibriumOperator(basis, strain_limit=0.04, width=4, depth=1, key=jax.random.key(0)))
    ...     print(law(np.array([[0.02, 0.0, 0.0]]))[1].shape, law.reach)
    (1, 3, 3) 0.5
    """

    def __init__(self, operator: EquilibriumOperator):
        self.operator, self.reach = operator, 0.0

    def __call__(self, strains: Float[np.ndarray, "points 3"]) -> tuple[Float[np.ndarray, "points 3"], Float[np.ndarray, "points 3 3"]]:
        """Stresses, and tangents by differentiation."""
        on_device = jnp.asarray(strains)
        self.reach = self.operator.reach(on_device)
        self.operator.warn_beyond(self.reach)
        stress, tangent = stresses_and_tangents(self.operator, on_device)
        return np.asarray(stress), np.asarray(tangent)


@eqx.filter_jit
def stresses_and_tangents(
    operator: EquilibriumOperator, strains: Float[Array, "points 3"]
) -> tuple[Float[Array, "points 3"], Float[Array, "points 3 3"]]:
    """T̄ and C̄ of many average strains."""
    return jax.vmap(operator.stress_and_tangent)(strains)


def clamped_and_sheared(mesh: QuadMesh, height: float) -> tuple[Bool[np.ndarray, "2 nodes"], Float[np.ndarray, "2 nodes"]]:
    """What is fixed and how: nothing moves on the left side, the right one rises by `height` and is free along x."""
    x = mesh.nodes[:, 0]
    is_left, is_right = np.isclose(x, x.min()), np.isclose(x, x.max())
    is_fixed = np.stack([is_left, is_left | is_right])
    return is_fixed, np.stack([np.zeros_like(x), np.where(is_right, height, 0.0)])
