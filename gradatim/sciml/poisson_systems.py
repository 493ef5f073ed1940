"""Poisson matrices on boxes of two or three dimensions, with solid cells in them: a stencil that needs no matrix, and the sparse matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Bool, Float, Int8
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from scipy import sparse

Boundary = Literal["dirichlet", "neumann"]


class PoissonSystem(eqx.Module):
    """-Δ on the fluid cells of a box, by differences between neighbours:

        (A x)ᵢ = Σⱼ (xᵢ - xⱼ)/h²     over the neighbours j of i that are fluid or held at zero (x = 0 there)

    Neighbours beyond a Neumann boundary are left out (no flux), so that with no Dirichlet boundary at all constants are in the null
    space. Rows of solid cells are zero, and whatever `x` holds there is not looked at. A is symmetric and positive semidefinite.

    **Arguments:** `is_fluid`: which cells of the box are; `spacing` h, positive; `walls`: of the box; `obstacles`: the faces of solid
    cells, by default no flux, as for the pressure beside a solid.

    **Raises:** `ValueError` for another number of dimensions, no fluid, a spacing that is not positive, or a boundary that does not exist.

    >>> system = PoissonSystem(np.ones((3, 3), bool))
    >>> print(system(jnp.ones((3, 3))))
    [[2. 1. 2.]
     [1. 0. 1.]
     [2. 1. 2.]]
    """

    is_fluid: Bool[Array, "*grid"]
    neighbours: Int8[Array, "*grid"]
    "Counted for each fluid cell: the diagonal, times h²."
    spacing: float = eqx.field(static=True)

    def __init__(
        self, is_fluid: ArrayLike, *, spacing: float = 1.0, walls: Boundary = "dirichlet", obstacles: Boundary = "neumann"
    ) -> None:
        # On the host: the cells are known, and each operation on them would be a program of its own.
        fluid = np.asarray(is_fluid, bool)
        if fluid.ndim not in (2, 3):
            raise ValueError(f"is_fluid must have two or three dimensions, got {fluid.ndim}")
        if not fluid.any():
            raise ValueError("is_fluid must hold at least one fluid cell, got none")
        if not spacing > 0:
            raise ValueError(f"spacing must be positive, got {spacing}")
        for name, boundary in (("walls", walls), ("obstacles", obstacles)):
            if boundary not in ("dirichlet", "neumann"):
                raise ValueError(f"{name} must be 'dirichlet' or 'neumann', got {boundary!r}")
        counted = np.pad(fluid | (obstacles == "dirichlet"), 1, constant_values=walls == "dirichlet")
        neighbours = sum(_shifted(counted, axis, by).astype(np.int8) for axis in range(fluid.ndim) for by in (0, 2))
        self.is_fluid = jnp.asarray(fluid)
        self.neighbours = jnp.asarray(np.where(fluid, neighbours, 0).astype(np.int8))
        self.spacing = float(spacing)

    def __call__(self, x: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """A x, in the dtype of x."""
        if x.shape != self.is_fluid.shape:
            raise ValueError(f"x must have the shape of the box, {self.is_fluid.shape}, got {x.shape}; batch with jax.vmap")
        x = jnp.where(self.is_fluid, x, 0)
        padded = jnp.pad(x, 1)
        around = sum(_shifted(padded, axis, by) for axis in range(x.ndim) for by in (0, 2))
        difference = self.neighbours.astype(x.dtype) * x - around
        return jnp.where(self.is_fluid, difference / self.spacing**2, 0)

    def operator(self, dtype: jnp.dtype | type | None = None) -> lx.FunctionLinearOperator:
        """For lineax, on arrays of that dtype, by default that of a float."""
        shape = jax.ShapeDtypeStruct(self.is_fluid.shape, jax.dtypes.canonicalize_dtype(float) if dtype is None else dtype)
        # The arrays are leaves of this module already: converted, each operator would be a program of its own.
        return lx.FunctionLinearOperator(self, shape, lx.positive_semidefinite_tag, closure_convert=False)

    def as_csr(self) -> sparse.csr_array:
        """The rows and columns of fluid cells, in the order of `restrict`."""
        from scipy import sparse

        fluid, neighbours = np.asarray(self.is_fluid), np.asarray(self.neighbours)
        n = int(fluid.sum())
        number = np.full(fluid.shape, -1)
        number[fluid] = np.arange(n)
        padded = np.pad(number, 1, constant_values=-1)
        pairs = [(number[fluid], _shifted(padded, axis, by)[fluid]) for axis in range(fluid.ndim) for by in (0, 2)]
        rows, columns = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        rows, columns = rows[columns >= 0], columns[columns >= 0]
        off: Any = sparse.coo_array((np.full(rows.size, -1.0), (rows, columns)), shape=(n, n))
        return ((off + sparse.diags_array(neighbours[fluid].astype(float))) / self.spacing**2).tocsr()

    def restrict(self, x: ArrayLike) -> np.ndarray:
        """The values in fluid cells, as a vector."""
        return np.asarray(x)[np.asarray(self.is_fluid)]

    def extend(self, vector: ArrayLike) -> np.ndarray:
        """A vector of values in fluid cells, on the box, with zeros in solid cells."""
        values = np.asarray(vector)
        x = np.zeros(self.is_fluid.shape, values.dtype)
        x[np.asarray(self.is_fluid)] = values
        return x


def box_with_ball(shape: tuple[int, ...], *, radius: float = 0.15, centre: float = 0.5) -> np.ndarray:
    """Fluid cells of a box with a solid disk or ball in it; radius and centre in units of each side.

    >>> box_with_ball((4, 4), radius=0.2).astype(int).tolist()
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    places = np.meshgrid(*((np.arange(n) + 0.5) / n - centre for n in shape), indexing="ij")
    squares: Any = sum(place**2 for place in places)
    return squares > radius**2


def _shifted(padded, axis: int, by: int):
    """The inside of an array that is padded by one, moved along an axis: 0 for the cell before, 2 for the one after."""
    inside = tuple(slice(by, by + n - 2) if i == axis else slice(1, n - 1) for i, n in enumerate(padded.shape))
    return padded[inside]
