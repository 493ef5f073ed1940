"""The periodic cell by scikit-fem: its Q8 elements, assembly and periodic mesh, Newton's method with SciPy's factors: seconds as JSON.

`--values` instead prints the averaged stress and the tangent.
"""

from __future__ import annotations

import argparse
import json

import cells
import numpy as np
import timing
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import splu
from skfem import Basis, BilinearForm, ElementQuadS2, ElementVector, LinearForm, MeshQuad
from skfem.helpers import sym_grad


class Cell:
    """Degrees of freedom of opposite sides are one: a matrix of zeros and ones takes those that are left to all."""

    def __init__(self) -> None:
        grid = np.linspace(-0.5, 0.5, cells.SIDE + 1)
        self.basis = Basis(MeshQuad.init_tensor(grid, grid), ElementVector(ElementQuadS2()), intorder=5)
        centres = self.basis.mesh.p[:, self.basis.mesh.t].mean(axis=1)
        fibre = cells.is_fibre(*centres)[:, None]
        self.bulk = np.where(fibre, cells.FIBRE_BULK, cells.BULK)
        self.shear = np.where(fibre, cells.FIBRE_SHEAR, cells.A1 / (2 * cells.A2))
        self.softening = np.where(fibre, 0.0, 1 / cells.A2)
        self._join()
        self.stiffness_form = BilinearForm(
            lambda u, v, w: np.einsum("ijkl...,ij...,kl...->...", w["C"], sym_grad(v), sym_grad(u), optimize=True)
        )
        self.force_form = LinearForm(lambda v, w: np.einsum("ij...,ij...->...", w["s"], sym_grad(v)))
        self.dx = self.basis.dx

    def _join(self) -> None:
        places = self.basis.doflocs
        wrapped = np.where(np.isclose(places, 0.5), -0.5, places)
        component = np.zeros(self.basis.N, int)
        component[self.basis.nodal_dofs[1]] = component[self.basis.facet_dofs[1]] = 1
        keys = np.round(np.concatenate([wrapped, component[None]]) * 1e6).astype(int)
        _, inverse = np.unique(keys, axis=1, return_inverse=True)
        self.join = csr_matrix((np.ones(self.basis.N), (np.arange(self.basis.N), inverse.ravel())))
        self.n_joined = int(inverse.max()) + 1
        corner = np.isclose(wrapped, -0.5).all(axis=0)
        self.pinned = np.unique(inverse.ravel()[corner])

    def law(self, strain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stress and stiffness of tensors (2, 2, elements, points)."""
        eye = np.eye(2)[:, :, None, None]
        trace = strain[0, 0] + strain[1, 1]
        deviator = strain - trace / 3 * eye
        n = np.sqrt((deviator**2).sum(axis=(0, 1)) + (trace / 3) ** 2 + 1e-30)
        factor = 2 * self.shear / (1 + self.softening * n)
        slope = -2 * self.shear * self.softening / (1 + self.softening * n) ** 2 / n
        stress = self.bulk * trace * eye + factor * deviator
        one = np.eye(2)
        unit = np.einsum("ij,kl->ijkl", one, one)[..., None, None]
        same = (np.einsum("ik,jl->ijkl", one, one) + np.einsum("il,jk->ijkl", one, one))[..., None, None] / 2
        stiffness = (self.bulk - factor / 3) * unit + factor * same + slope * np.einsum("ij...,kl...->ijkl...", deviator, deviator)
        return stress, stiffness

    def solve(self, average: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Averaged stress, and tangent by the engineering shear."""
        tensor = np.array([[average[0], average[2] / 2], [average[2] / 2, average[1]]])[:, :, None, None]
        free = np.setdiff1d(np.arange(self.n_joined), self.pinned)
        u = np.zeros(self.basis.N)
        while True:
            strain = tensor + sym_grad(self.basis.interpolate(u))
            stress, stiffness = self.law(strain)
            force = (self.join.T @ self.force_form.assemble(self.basis, s=stress))[free]
            matrix = (self.join.T @ self.stiffness_form.assemble(self.basis, C=stiffness) @ self.join).tocsc()[free][:, free]
            factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
            if np.linalg.norm(force) <= cells.TOLERANCE * np.abs(stress).max():
                break
            step = np.zeros(self.n_joined)
            step[free] = factors.solve(force)
            u -= self.join @ step
        modes = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 0.5], [0.5, 0]]])
        right = [self.force_form.assemble(self.basis, s=np.einsum("ijkl...,kl->ij...", stiffness, mode)) for mode in modes]
        columns = np.stack([(self.join.T @ row)[free] for row in right], axis=1)
        whole = np.einsum("aij,ijklep,bkl,ep->ab", modes, stiffness, modes, self.dx, optimize=True)
        average_stress = np.array([(stress[i, j] * self.dx).sum() for i, j in ((0, 0), (1, 1), (0, 1))])
        return average_stress, whole - columns.T @ factors.solve(columns)


def main() -> None:
    """Prints one JSON list, or the values."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--values", action="store_true")
    cell = Cell()
    stress, tangent = cell.solve(cells.STRAIN)
    if parser.parse_args().values:
        print(json.dumps([stress.tolist(), tangent.tolist()]))
        return
    seconds = timing.median(lambda: cell.solve(cells.STRAIN))
    print(
        json.dumps([{"group": cells.GROUP, "name": "scikit-fem 12.0.2", "seconds": seconds, "info": {"averaged stress": stress.tolist()}}])
    )


if __name__ == "__main__":
    main()
