"""Cells between walls that nothing passes: boxes of one to three dimensions, and shells of a ball in any."""

from __future__ import annotations

import abc
import functools
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradatim.numerics import fourier

from .tridiagonal import solve_tridiagonal

FEW = 128
"Points along one axis up to which the matrix of cosines is faster than a real FFT (four times at 64)."


class AbstractGrid(eqx.Module):
    """Finite volumes: `shape`, the `dimension` of space, volumes of the cells, and area over distance on the faces between them."""

    shape: eqx.AbstractVar[tuple[int, ...]]
    dimension: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def volumes(self) -> np.ndarray:
        """Volume of each cell; one number where all are alike."""

    @property
    @abc.abstractmethod
    def centres(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the cells' centres along each axis."""

    @abc.abstractmethod
    def conductances(self, axis: int) -> np.ndarray:
        """Area over distance of the inner faces across an axis; one number where all are alike."""

    @abc.abstractmethod
    def solve_helmholtz(self, u: Float[Array, ...], a: Float[Array, ""] | float) -> Float[Array, ...]:
        """The v with v - a ∇²v = u and no flux through the walls, a ≥ 0: of the same integral, and positive where u is."""

    def integral(self, u: Float[Array, ...]) -> Float[Array, ""]:
        """∫ u dV."""
        return (self.weights(u) * u).sum()

    def weights(self, u: Float[Array, ...]) -> Float[Array, ...]:
        """Volumes in the precision of a field."""
        return jnp.asarray(self.volumes, u.dtype)

    def difference(self, u: Float[Array, ...], axis: int) -> Float[Array, ...]:
        """u[i + 1] - u[i] on the inner faces across an axis."""
        return jnp.diff(u, axis=axis)

    def divergence(self, currents: tuple[Float[Array, ...], ...]) -> Float[Array, ...]:
        """∇·J in each cell, from the currents (flux times area) through the inner faces across each axis."""
        total = jnp.zeros(self.shape, currents[0].dtype)
        for axis, current in enumerate(currents):
            # Nothing through the walls: the differences telescope, and the integral is zero to round-off.
            padding = [(1, 1) if i == axis else (0, 0) for i in range(len(self.shape))]
            total = total + jnp.diff(jnp.pad(current, padding), axis=axis)
        return total / self.weights(total)

    def laplacian(self, u: Float[Array, ...]) -> Float[Array, ...]:
        """∇²u with no gradient at the walls."""
        gradients = (jnp.asarray(self.conductances(axis), u.dtype) * self.difference(u, axis) for axis in range(u.ndim))
        return self.divergence(tuple(gradients))

    def dirichlet(self, u: Float[Array, ...]) -> Float[Array, ""]:
        """∫ |∇u|² dV, gradients on the faces: exactly -∫ u ∇²u dV."""
        parts = [(jnp.asarray(self.conductances(axis), u.dtype) * self.difference(u, axis) ** 2).sum() for axis in range(u.ndim)]
        return jnp.stack(parts).sum()

    def norm(self, u: Float[Array, ...]) -> Float[Array, ""]:
        """√(∫ u² dV)."""
        return jnp.sqrt(self.integral(u**2))


class Box(AbstractGrid):
    """Equal cells of a box of one to three dimensions, in which cosines are the Laplacian's eigenvectors.

    **Arguments:** `shape`: cells along each axis, at least 2; `lengths`: of the sides, 1 by default.

    **Raises:** `ValueError` for another number of axes, fewer cells, or a length that is not positive.

    >>> grid = Box((8,))
    >>> grid.solve_helmholtz(jnp.ones(8), 0.3).round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    lengths: tuple[float, ...] = eqx.field(static=True)
    dimension: int = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], lengths: tuple[float, ...] | None = None):
        if not 1 <= len(shape) <= 3 or min(shape) < 2:
            raise ValueError(f"shape must have one to three axes of at least 2 cells each, got {shape}")
        lengths = (1.0,) * len(shape) if lengths is None else lengths
        if len(lengths) != len(shape) or not min(lengths) > 0:
            raise ValueError(f"lengths must be {len(shape)} positive numbers, one an axis, got {lengths}")
        self.shape, self.lengths, self.dimension = shape, lengths, len(shape)

    @property
    def spacings(self) -> tuple[float, ...]:
        """The sides of a cell."""
        return tuple(length / n for n, length in zip(self.shape, self.lengths, strict=True))

    @property
    def volumes(self) -> np.ndarray:
        """The volume of a cell."""
        return np.asarray(math.prod(self.spacings))

    @property
    def centres(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the cells' centres along each axis."""
        return tuple(h * (np.arange(n) + 0.5) for n, h in zip(self.shape, self.spacings, strict=True))

    def conductances(self, axis: int) -> np.ndarray:
        """Area over distance of a face across an axis."""
        return np.asarray(math.prod(self.spacings) / self.spacings[axis] ** 2)

    def eigenvalues(self, dtype: np.dtype) -> Float[Array, ...]:
        """Those of -∇² on this grid, in the order of the cosine transform."""
        total = jnp.zeros(self.shape, dtype)
        for axis, (n, h) in enumerate(zip(self.shape, self.spacings, strict=True)):
            shape = [n if i == axis else 1 for i in range(len(self.shape))]
            total = total + fourier.cosine_eigenvalues(n, h).astype(dtype).reshape(shape)
        return total

    def to_modes(self, u: Float[Array, ...]) -> Float[Array, ...]:
        """Coefficients of the cosines, in the normalisation of `cosine_transform`."""
        if u.ndim == 2:
            return fourier.cosine_transform_2d(u)
        if self.shape[0] <= FEW and u.ndim == 1:
            return jnp.matmul(jnp.asarray(_cosines(self.shape[0])[0], u.dtype), u, precision="highest")
        return functools.reduce(lambda v, axis: fourier.cosine_transform(v, axis=axis), range(u.ndim), u)

    def from_modes(self, coefficients: Float[Array, ...]) -> Float[Array, ...]:
        """The field of these coefficients."""
        if coefficients.ndim == 2:
            return fourier.inverse_cosine_transform_2d(coefficients)
        if self.shape[0] <= FEW and coefficients.ndim == 1:
            return jnp.matmul(jnp.asarray(_cosines(self.shape[0])[1], coefficients.dtype), coefficients, precision="highest")
        return functools.reduce(lambda v, axis: fourier.inverse_cosine_transform(v, axis=axis), range(coefficients.ndim), coefficients)

    def solve_helmholtz(self, u: Float[Array, ...], a: Float[Array, ""] | float) -> Float[Array, ...]:
        """The v with v - a ∇²v = u and no flux through the walls, a ≥ 0."""
        return self.from_modes(self.to_modes(u) / (1 + jnp.asarray(a, u.dtype) * self.eigenvalues(u.dtype)))


class Radial(AbstractGrid):
    """Shells of a ball: fields that depend on the distance from its middle only, in any number of dimensions N.

    Faces lie at `radius` (i / cells)^grading: close together in the middle, where mass gathers. The volume of a shell is
    |S| (r₊ᴺ - r₋ᴺ) / N and the area of a face |S| rᴺ⁻¹, with |S| = 2 π^(N/2) / Γ(N/2); in one dimension that counts both sides.

    **Arguments:** `dimension` N ≥ 1; `cells` ≥ 2; `grading` ≥ 1, where 1 makes equal cells; `radius` > 0.

    **Raises:** `ValueError` outside these ranges.

    >>> print(f"{Radial(4, 16).volumes.sum():.4f}")
    4.9348
    """

    dimension: int = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    grading: float = eqx.field(static=True)
    radius: float = eqx.field(static=True)

    def __init__(self, dimension: int, cells: int, *, grading: float = 1.5, radius: float = 1.0):
        if dimension < 1:
            raise ValueError(f"dimension must be at least 1, got {dimension}")
        if cells < 2:
            raise ValueError(f"cells must be at least 2, got {cells}")
        if not grading >= 1:
            raise ValueError(f"grading must be at least 1, got {grading}")
        if not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}")
        self.dimension, self.shape, self.grading, self.radius = dimension, (cells,), grading, radius

    @property
    def faces(self) -> np.ndarray:
        """Radii of all faces, 0 and the wall among them."""
        return self.radius * (np.arange(self.shape[0] + 1) / self.shape[0]) ** self.grading

    @property
    def volumes(self) -> np.ndarray:
        """Volumes of the shells."""
        return self._sphere * np.diff(self.faces**self.dimension) / self.dimension

    @property
    def centres(self) -> tuple[np.ndarray, ...]:
        """Middles between the faces."""
        return ((self.faces[1:] + self.faces[:-1]) / 2,)

    def conductances(self, axis: int) -> np.ndarray:
        """Area over distance of the inner faces."""
        if axis != 0:
            raise ValueError(f"axis must be 0 on a radial grid, got {axis}")
        return self._sphere * self.faces[1:-1] ** (self.dimension - 1) / np.diff(self.centres[0])

    def solve_helmholtz(self, u: Float[Array, ...], a: Float[Array, ""] | float) -> Float[Array, ...]:
        """The v with v - a ∇²v = u and no flux through the wall, a ≥ 0."""
        volumes = self.weights(u)
        coupling = jnp.asarray(a, u.dtype) * jnp.asarray(self.conductances(0), u.dtype)
        diagonal = volumes + jnp.pad(coupling, (0, 1)) + jnp.pad(coupling, (1, 0))
        return solve_tridiagonal(-coupling, diagonal, -coupling, volumes * u)

    @property
    def _sphere(self) -> float:
        return 2 * math.pi ** (self.dimension / 2) / math.gamma(self.dimension / 2)


@functools.cache
def _cosines(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of `cosine_transform`, and its inverse."""
    k = np.arange(n)
    forward = 2 * np.cos(np.pi * k[:, None] * (2 * k[None, :] + 1) / (2 * n))
    inverse = forward.T / (2 * n)
    inverse[:, 0] /= 2
    return forward, inverse
