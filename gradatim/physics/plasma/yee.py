"""Maxwell's equations on a periodic staggered grid (K. S. Yee, IEEE Trans. Antennas Propag. 14, 302 (1966)), in one or two dimensions.

    Eₓ, Jₓ: (i+½, j)    E_y, J_y: (i, j+½)    E_z, J_z, ρ: (i, j)    Bₓ: (i, j+½)    B_y: (i+½, j)    B_z: (i+½, j+½)

In one dimension nothing depends on y, and the same formulas hold without the half steps along it.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .vectors import Scalar, Vector

Field = Float[Array, "*cells"]
_HALF_ELECTRIC = ((0,), (1,), ())
_HALF_MAGNETIC = ((1,), (0,), (0, 1))
"The axes along which each component sits half a cell further."


def curl_of_electric(E: Vector, dx: Scalar) -> Vector:
    """∇ × E, where B is."""
    return _curl(E, dx, _forward)


def curl_of_magnetic(B: Vector, dx: Scalar) -> Vector:
    """∇ × B, where E is."""
    return _curl(B, dx, _backward)


def divergence_of_electric(E: Vector, dx: Scalar) -> Field:
    """∇ · E, where ρ is."""
    return _backward(E.x, 0, dx) + _backward(E.y, 1, dx)


def divergence_of_magnetic(B: Vector, dx: Scalar) -> Field:
    """∇ · B, in the middle of the cells."""
    return _forward(B.x, 0, dx) + _forward(B.y, 1, dx)


def at_nodes(E: Vector, B: Vector) -> list[Field]:
    """The six components where ρ is: each averaged over its half steps.

    With the same weights for the density, particles on this grid exert no force on themselves, and keep their momentum.
    """
    components = zip((*E, *B), (*_HALF_ELECTRIC, *_HALF_MAGNETIC), strict=True)
    return [_averaged(field, axes) for field, axes in components]


def smooth(field: Field, passes: int) -> Field:
    """The binomial filter ¼, ½, ¼ along every axis, `passes` times: removes the grid's shortest wave, keeps all sums."""
    for _ in range(passes):
        for axis in range(field.ndim):
            field = 0.5 * field + 0.25 * (jnp.roll(field, 1, axis) + jnp.roll(field, -1, axis))
    return field


def field_of_charge(rho: Field, dx: Scalar) -> Vector:
    """The curl-free E with ∇ · E = ρ - ⟨ρ⟩ on this grid, to round-off."""
    steps = [(1 - jnp.asarray(np.exp(-2j * np.pi * np.fft.fftfreq(n)), jnp.result_type(rho, jnp.complex64))) / dx for n in rho.shape]
    shaped = [step.reshape(-1, *(1 for _ in rho.shape[1:])) if axis == 0 else step.reshape(1, -1) for axis, step in enumerate(steps)]
    squares = sum(abs(jnp.broadcast_to(step, rho.shape)) ** 2 for step in shaped)
    potential = jnp.where(squares == 0, 0, jnp.fft.fftn(rho) / jnp.where(squares == 0, 1, squares))
    parts = [jnp.fft.ifftn(jnp.broadcast_to(step, rho.shape).conj() * potential).real.astype(rho.dtype) for step in shaped]
    return Vector(*parts, *(jnp.zeros_like(rho) for _ in range(3 - rho.ndim)))


def padded(fields: list[Field]) -> list[Float[Array, " cells_with_margin"]]:
    """Flat, with one more cell of the periodic fields behind along each axis: what a particle's weights may reach without wrapping."""
    shape = fields[0].shape
    cells = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    with_margin = np.pad(cells, [(0, 1)] * len(shape), mode="wrap").ravel()
    # Looked up, not concatenated, which XLA would do anew for every particle that looks up the result.
    return [field.ravel().at[with_margin].get(mode="promise_in_bounds", wrap_negative_indices=False) for field in fields]


def folded(field: Float[Array, ...]) -> Float[Array, ...]:
    """The reverse for what was deposited: the margins are added to the cells that they stand for."""
    for axis in range(field.ndim):
        n = field.shape[axis] - 1
        inside, behind = (jax.lax.slice_in_dim(field, *ends, axis=axis) for ends in ((0, n), (n, n + 1)))
        rest = [(0, 0)] * field.ndim
        rest[axis] = (0, n - 1)
        field = inside + jnp.pad(behind, rest)
    return field


def corners(n_dimensions: int) -> list[tuple[int, ...]]:
    """The corners of a cell."""
    return list(itertools.product((0, 1), repeat=n_dimensions))


def _curl(field: Vector, dx: Scalar, slope) -> Vector:
    return Vector(
        slope(field.z, 1, dx),
        -slope(field.z, 0, dx),
        slope(field.y, 0, dx) - slope(field.x, 1, dx),
    )


def _forward(field: Field, axis: int, dx: Scalar) -> Field:
    return (jnp.roll(field, -1, axis) - field) / dx if axis < field.ndim else jnp.zeros_like(field)


def _backward(field: Field, axis: int, dx: Scalar) -> Field:
    return (field - jnp.roll(field, 1, axis)) / dx if axis < field.ndim else jnp.zeros_like(field)


def _averaged(field: Field, axes: tuple[int, ...]) -> Field:
    for axis in axes:
        if axis < field.ndim:
            field = 0.5 * (field + jnp.roll(field, 1, axis))
    return field
