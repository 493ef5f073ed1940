"""EquiNO: coefficients of stress and displacement modes from an average strain, in equilibrium and periodic whatever they are
(Eivazi and others, arXiv:2504.07976).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from gradatim.numerics.checks import is_known

from .dense_network import DenseNetwork
from .elastic_materials import IsotropicElastic
from .operator_training import AbstractOperator
from .periodic_cell import CellSolution, PeriodicCell
from .proper_orthogonal import pod

RESIDUAL = 1e-10
"Of snapshots, at most: what modes inherit, times the spread of singular values."


class CellFields(NamedTuple):
    """What an operator says of a cell."""

    fluctuation: Float[Array, "2 nodes"]
    strain: Float[Array, "3 points"]
    "(ε_xx, ε_yy, ε_xy), the average with the fluctuation's."
    material_stress: Float[Array, "3 points"]
    "What the law makes of that strain: not in equilibrium."
    stress: Float[Array, "3 points"]
    "Of the modes: in equilibrium."


class ModalBasis(eqx.Module):
    """Modes of solved cells, and what goes with them.

    >>> from gradatim.sciml import linear_elastic
    >>> with jax.enable_x64(True):
    ...     laws = [linear_elastic(4.0, 3.0), linear_elastic(8.0, 6.0)]
    ...     cell = PeriodicCell.structured(2, materials=laws, material_id=lambda x, y: x < 0)
    ...     snapshots = cell.snapshots(0.01 * np.eye(3))
    ...     basis = ModalBasis.from_snapshots(cell, snapshots, 2)
    ...     worst = max(cell.equilibrium_residual(np.asarray(mode)) for mode in basis.stress)
    >>> basis.rank, worst < 1e-10
    (2, True)
    """

    fluctuation: Float[Array, "rank 2 nodes"]
    strain: Float[Array, "rank 3 points"]
    "Of the fluctuation modes, tensor components; its average over the cell is zero."
    stress: Float[Array, "rank 3 points"]
    average_stress: Float[Array, "rank 3"]
    "Of the whole cell, also where points have been left out."
    fluctuation_scale: Float[Array, " 2"]
    "Mean and standard deviation of all coefficients of the snapshots."
    stress_scale: Float[Array, " 2"]
    material: IsotropicElastic

    @classmethod
    def from_snapshots(cls, cell: PeriodicCell, snapshots: CellSolution, rank: int) -> ModalBasis:
        """`rank` modes of fluctuations and of stresses, no mean taken off.

        **Raises:** `ValueError` for more modes than snapshots, and for snapshots with a residual above 1e-10: no sum of their modes
        would be in equilibrium.
        """
        worst = float(np.max(snapshots.residual))
        if not worst <= RESIDUAL:
            raise ValueError(
                f"snapshots must be solved to a residual of {RESIDUAL:g} or less, got {worst:.3g}: lower the tolerance of the cell"
            )
        fluctuation, stress = pod(snapshots.fluctuation, rank), pod(snapshots.stress, rank)
        scales = [np.array([found.coefficients.mean(), found.coefficients.std()]) for found in (fluctuation, stress)]
        arrays = (fluctuation.modes, cell.strain_of(fluctuation.modes), stress.modes, stress.modes @ cell.weights / cell.area, *scales)
        return cls(*(jnp.asarray(array) for array in arrays), material=cell.material)

    @property
    def rank(self) -> int:
        """Of either kind."""
        return len(self.stress)

    def at_points(self, points: Int[np.ndarray, " count"]) -> ModalBasis:
        """With Gauss points of these numbers only; averages stay those of the whole cell."""
        material = jax.tree.map(lambda modulus: modulus[points], self.material)
        parts = lambda basis: (basis.strain, basis.stress, basis.material)  # noqa: E731
        return eqx.tree_at(parts, self, (self.strain[..., points], self.stress[..., points], material))

    def magic_points(self, count: int) -> Int[np.ndarray, " count"]:
        """Gauss points whose values tell the modes apart best: the first pivots of a QR factorisation with a column for each point,
        in which stand all components of all stress and strain modes, either kind scaled to the same norm (Q-DEIM, Drmač and Gugercin,
        arXiv:1505.00370, with points in the place of entries).

        **Raises:** `ValueError` unless 1 ≤ count ≤ the rows, six for each mode, and the points there are.
        """
        kinds = [np.asarray(modes).reshape(-1, modes.shape[-1]) for modes in (self.stress, self.strain)]
        rows = np.concatenate([kind / max(np.linalg.norm(kind), np.finfo(float).tiny) for kind in kinds])
        if not 1 <= count <= min(rows.shape):
            raise ValueError(f"count must lie in [1, {min(rows.shape)}] for {self.rank} modes, got {count}")
        from scipy.linalg import qr

        return np.sort(cast(Any, qr(rows, mode="r", pivoting=True))[1][:count])


class EquilibriumOperator(AbstractOperator):
    """Two networks from an average strain to coefficients, and modes of solved cells, each in equilibrium and periodic, so all sums are.

        ũ = Σ bᵤ φᵤ,     ε = Ē + Σ bᵤ B φᵤ,     σ = Σ b_σ φ_σ,     T̄ = Σ b_σ ⟨φ_σ⟩,     C̄ = ∂T̄/∂Ē
        loss = ⟨(σ_law(ε) - σ)²⟩ over strains, points and components: no labels, no weights

    Average strains are (E₁₁, E₂₂, 2 E₁₂), the engineering shear third. C̄ is the derivative of a network: not symmetric, which a
    solver must allow for. At no strain a small stress is left, unless `is_anchored`, which takes the networks' outputs there off.
    Networks know nothing beyond the box of strains that they are trained in: a strain beyond it that is not traced warns, with the factor.

    Deviation from the authors' code: the component is the first axis of fields, not the last.

    **Arguments:** `basis`: of snapshots converged to 1e-10 or better, by `from_snapshots` of
    [`ModalBasis`][gradatim.sciml.ModalBasis]: equilibrium is theirs; `strain_limit`: strains are divided by it, and lie within it component
    by component; `width`, `depth`: of the networks, by default the authors'; `key`. Batches: `jax.vmap`.

    **Raises:** `ValueError` for a limit that is not positive, strains that are not three.

    >>> from gradatim.sciml import linear_elastic
    >>> with jax.enable_x64(True):
    ...     laws = [linear_elastic(4.0, 3.0), linear_elastic(8.0, 6.0)]
    ...     cell = PeriodicCell.structured(2, materials=laws, material_id=lambda x, y: x < 0)
    ...     snapshots = cell.snapshots(0.01 * np.eye(3))
    ...     basis = ModalBasis.from_snapshots(cell, snapshots, 2)
    ...     operator = EquilibriumOperator(basis, width=4, depth=1, is_anchored=True, key=jax.random.key(0))
    ...     print(float(abs(operator.average_stress(jnp.zeros(3))).max()))
    0.0
    """

    basis: ModalBasis
    fluctuation_network: DenseNetwork
    stress_network: DenseNetwork
    strain_limit: float = eqx.field(static=True)
    is_anchored: bool = eqx.field(static=True)

    def __init__(
        self,
        basis: ModalBasis,
        *,
        strain_limit: float = 0.04,
        width: int = 64,
        depth: int = 4,
        is_anchored: bool = False,
        key: PRNGKeyArray,
    ):
        if not strain_limit > 0:
            raise ValueError(f"strain_limit must be positive, got {strain_limit}")
        self.basis, self.strain_limit, self.is_anchored = basis, float(strain_limit), is_anchored
        one, other = jax.random.split(key)
        self.fluctuation_network = DenseNetwork(3, basis.rank, width=width, depth=depth, key=one)
        self.stress_network = DenseNetwork(3, basis.rank, width=width, depth=depth, key=other)

    def __call__(self, average_strain: Float[Array, " 3"]) -> CellFields:
        """All fields."""
        self._check(average_strain)
        for_fluctuation, for_stress = self.coefficients(average_strain)
        return self.fields_of(average_strain, for_fluctuation, for_stress)

    def fields_of(
        self, average_strain: Float[Array, " 3"], for_fluctuation: Float[Array, " rank"], for_stress: Float[Array, " rank"]
    ) -> CellFields:
        """Fields of given coefficients."""
        strain = self._strain(average_strain, for_fluctuation)
        fluctuation = jnp.tensordot(for_fluctuation, self.basis.fluctuation, 1)
        return CellFields(fluctuation, strain, self.basis.material.stress(strain), jnp.tensordot(for_stress, self.basis.stress, 1))

    def coefficients(self, average_strain: Float[Array, " 3"]) -> tuple[Float[Array, " rank"], Float[Array, " rank"]]:
        """bᵤ and b_σ."""
        return self._of(self.fluctuation_network, self.basis.fluctuation_scale, average_strain), self._for_stress(average_strain)

    def average_stress(self, average_strain: Float[Array, " 3"]) -> Float[Array, " 3"]:
        """T̄, without any field."""
        self._check(average_strain)
        return self._for_stress(average_strain) @ self.basis.average_stress

    def stress_and_tangent(self, average_strain: Float[Array, " 3"]) -> tuple[Float[Array, " 3"], Float[Array, "3 3"]]:
        """T̄ and C̄ = ∂T̄/∂Ē, by forward differentiation."""
        self._check(average_strain)
        stress, push = jax.linearize(self.average_stress, average_strain)
        return stress, jax.vmap(push, out_axes=1)(jnp.eye(3, dtype=average_strain.dtype))

    def consistency_loss(self, average_strains: Float[Array, "strains 3"]) -> Float[Array, ""]:
        """The mean square of what the law and the modes disagree by, in the unit of the stress squared."""
        if average_strains.ndim != 2:
            raise ValueError(f"average_strains must have shape (strains, 3), got {average_strains.shape}")

        def one(average_strain: Array) -> Array:
            for_fluctuation, for_stress = self.coefficients(average_strain)
            law = self.basis.material.stress(self._strain(average_strain, for_fluctuation))
            return jnp.mean((law - jnp.tensordot(for_stress, self.basis.stress, 1)) ** 2)

        return jnp.mean(jax.vmap(one)(average_strains))

    def loss(self, samples: Float[Array, "strains 3"]) -> Float[Array, ""]:
        """The consistency loss: what it is trained for, without labels."""
        return self.consistency_loss(samples)

    def at_points(self, points: Int[np.ndarray, " count"]) -> EquilibriumOperator:
        """The same with fields, and so a loss, at Gauss points of these numbers only; T̄ stays."""
        return eqx.tree_at(lambda model: model.basis, self, self.basis.at_points(points))

    def reach(self, average_strains: Float[Array, "strains 3"]) -> float:
        """The largest component over the limit: above 1 the networks extrapolate."""
        return self._reach(average_strains)

    def warn_beyond(self, reach: float) -> None:
        """Says by which factor strains lie beyond the limit, where they do."""
        if reach > 1:
            warnings.warn(f"average strains lie beyond strain_limit {self.strain_limit:g} by a factor of {reach:.3g}", stacklevel=3)

    def networks(self) -> tuple[eqx.Module, ...]:
        """Of fluctuation and stress."""
        return self.fluctuation_network, self.stress_network

    def renewed(self, key: PRNGKeyArray) -> EquilibriumOperator:
        """With new networks of the same sizes."""
        old = self.stress_network
        return type(self)(
            self.basis, strain_limit=self.strain_limit, width=len(old.biases[0]), depth=len(old.biases) - 1,
            is_anchored=self.is_anchored, key=key,
        )  # fmt: skip

    def _check(self, average_strain: Any) -> None:
        if average_strain.shape != (3,):
            raise ValueError(f"average_strain must be (E11, E22, 2 E12), got shape {average_strain.shape}; batch with jax.vmap")
        if is_known(average_strain):
            self.warn_beyond(self._reach(average_strain))

    def _reach(self, strains: Any) -> float:
        # By numpy, which looks at known numbers in a traced function as well.
        return float(np.abs(np.asarray(strains)).max() / self.strain_limit)

    def _strain(self, average_strain: Array, for_fluctuation: Array) -> Array:
        average = average_strain * jnp.array([1, 1, 0.5], average_strain.dtype)
        return average[:, None] + jnp.tensordot(for_fluctuation, self.basis.strain, 1)

    def _for_stress(self, average_strain: Array) -> Array:
        return self._of(self.stress_network, self.basis.stress_scale, average_strain)

    def _of(self, network: DenseNetwork, scale: Array, average_strain: Array) -> Array:
        mean, deviation = scale
        if self.is_anchored:
            return deviation * (network(average_strain / self.strain_limit) - network(jnp.zeros_like(average_strain)))
        return deviation * network(average_strain / self.strain_limit) + mean


class ModalSamples(NamedTuple):
    """Labelled strains: coefficients of solved cells."""

    average_strain: Float[Array, "strains 3"]
    for_fluctuation: Float[Array, "strains rank"]
    for_stress: Float[Array, "strains rank"]

    @classmethod
    def of(cls, basis: ModalBasis, snapshots: CellSolution) -> ModalSamples:
        """Exact projections."""
        arrays = (
            snapshots.average_strain,
            np.tensordot(snapshots.fluctuation, np.asarray(basis.fluctuation), ((1, 2), (1, 2))),
            np.tensordot(snapshots.stress, np.asarray(basis.stress), ((1, 2), (1, 2))),
        )
        return cls(*(jnp.asarray(array) for array in arrays))


class ModalRegression(AbstractOperator):
    """The same modes and networks, fitted to the coefficients of solved cells: what labels alone can do.

        loss = ⟨(bᵤ - bᵤ*)²⟩ / s.d.(bᵤ)² + ⟨(b_σ - b_σ*)²⟩ / s.d.(b_σ)²,     b* = ⟨snapshot, mode⟩

    `loss` takes [`ModalSamples`][gradatim.sciml.ModalSamples].

    >>> from gradatim.sciml import linear_elastic
    >>> with jax.enable_x64(True):
    ...     laws = [linear_elastic(4.0, 3.0), linear_elastic(8.0, 6.0)]
    ...     cell = PeriodicCell.structured(2, materials=laws, material_id=lambda x, y: x < 0)
    ...     snapshots = cell.snapshots(0.01 * np.eye(3))
    ...     basis = ModalBasis.from_snapshots(cell, snapshots, 2)
    ...     regression = ModalRegression(EquilibriumOperator(basis, width=4, depth=1, key=jax.random.key(0)))
    ...     print(bool(eqx.filter_jit(lambda model, samples: model.loss(samples))(regression, ModalSamples.of(basis, snapshots)) > 0))
    True
    """

    operator: EquilibriumOperator

    def loss(self, samples: ModalSamples) -> Float[Array, ""]:
        """Of coefficients, in units of their spread."""
        found = jax.vmap(self.operator.coefficients)(samples.average_strain)
        basis = self.operator.basis
        squares = [
            jnp.mean((one - other) ** 2) / scale[1] ** 2
            for one, other, scale in zip(found, samples[1:], (basis.fluctuation_scale, basis.stress_scale), strict=True)
        ]
        return squares[0] + squares[1]

    def networks(self) -> tuple[eqx.Module, ...]:
        """Of fluctuation and stress."""
        return self.operator.networks()

    def renewed(self, key: PRNGKeyArray) -> ModalRegression:
        """With new networks of the same sizes."""
        return type(self)(self.operator.renewed(key))
