"""Between particles and grid with linear weights: fields to particles, and currents back so that charge is conserved.

The current is that of T. Umeda, Y. Omura, T. Tominaga and H. Matsumoto, Comput. Phys. Commun. 156, 73 (2003): each path is cut where it
leaves its cell, and each piece deposited in its own; what leaves a node is what the faces around it carry, to round-off.
Positions are counted in cells. Indices point into arrays with a margin of one cell behind, so that a particle's weights need not wrap.
"""

from __future__ import annotations

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .vectors import Vector
from .yee import Field, corners, folded, padded

Position = tuple[Float[Array, " particles"], ...]
_INSIDE = {"mode": "promise_in_bounds", "wrap_negative_indices": False}
_OFFSETS = (0, 1, 0, 1, 2, 0, 1, 2)
"From the lowest cell of a path on a line: the faces that it may cross, and twice the nodes on which it may weigh."


def gather(fields: list[Field], position: Position) -> list[Float[Array, " particles"]]:
    """Each field, given at the nodes, at the particles."""
    index, weights = _corner_weights(position, fields[0].shape)
    found = []
    for flat in padded(fields):
        parts = (flat.at[i].get(**_INSIDE) * weight for i, weight in zip(index, weights, strict=True))
        found.append(functools.reduce(operator.add, parts))
    return found


def density(position: Position, shape: tuple[int, ...]) -> Field:
    """Particles per cell at the nodes."""
    index, weights = _corner_weights(position, shape)
    return _summed(zip(index, weights, strict=True), shape, position[0].dtype)


def current(before: Position, after: Position, velocity: Vector, shape: tuple[int, ...]) -> Vector:
    """Cells travelled through each face of the grid, and (for directions without a grid) the sum of velocities at the nodes.

    **Arguments:** `before`, `after`: less than one cell apart, `after` not wrapped around the edges; `velocity`: in units of c.
    """
    return _current_1d(before[0], after[0], velocity, shape) if len(shape) == 1 else _current_2d(before, after, velocity, shape)


def _current_1d(x0, x1, velocity: Vector, shape: tuple[int, ...]) -> Vector:
    lowest = jnp.floor(jnp.minimum(x0, x1))
    begin, end, middle, vy, vz = (part[:, None] for part in (x0 - lowest, x1 - lowest, 0.5 * (x0 + x1) - lowest, velocity.y, velocity.z))
    # All that a particle leaves stands in one row, which one scatter adds to a row of sums: six scatters of numbers take six times as long.
    offset = jnp.asarray(_OFFSETS, x0.dtype)[None, :]
    column = jnp.arange(len(_OFFSETS))[None, :]
    through = jnp.clip(end - offset, 0, 1) - jnp.clip(begin - offset, 0, 1)
    weight = jnp.maximum(1 - jnp.abs(middle - offset), 0)
    row = jnp.where(column < 2, through, jnp.where(column < 5, vy, vz) * weight)
    sums = jnp.zeros((*shape, len(_OFFSETS)), x0.dtype).at[_index((lowest,), shape)].add(row, **_INSIDE).T
    parts = [jnp.roll(part, offset) for part, offset in zip(sums, _OFFSETS, strict=True)]
    return Vector(*(functools.reduce(operator.add, parts[one:end]) for one, end in ((0, 2), (2, 5), (5, 8))))


def _current_2d(before: Position, after: Position, velocity: Vector, shape: tuple[int, ...]) -> Vector:
    (x0, y0), (x1, y1) = before, after
    i0, i1, xr = _relay(x0, x1)
    j0, j1, yr = _relay(y0, y1)
    stride = shape[1] + 1
    jx, jy = [], []
    for i, j, (xa, ya), (xb, yb) in ((i0, j0, (x0, y0), (xr, yr)), (i1, j1, (xr, yr), (x1, y1))):
        index = _index((i, j), shape)
        along_x, along_y = xb - xa, yb - ya
        weight_x, weight_y = 0.5 * (xa + xb) - i, 0.5 * (ya + yb) - j
        jx += [(index, along_x * (1 - weight_y)), (index + 1, along_x * weight_y)]
        jy += [(index, along_y * (1 - weight_x)), (index + stride, along_y * weight_x)]
    index, weights = _corner_weights((0.5 * (x0 + x1), 0.5 * (y0 + y1)), shape)
    jz = [(i, velocity.z * w) for i, w in zip(index, weights, strict=True)]
    return Vector(*(_summed(parts, shape, x0.dtype) for parts in (jx, jy, jz)))


def _relay(x0, x1):
    """The cells at both ends of a path, and where it is cut: at the face between them, or half way if they are one."""
    first, last = jnp.floor(x0), jnp.floor(x1)
    return first, last, jnp.minimum(jnp.minimum(first, last) + 1, jnp.maximum(jnp.maximum(first, last), 0.5 * (x0 + x1)))


def _index(cell: Position, shape: tuple[int, ...]):
    """Into the flat array with a margin."""
    # The remainder also tells XLA's CPU compiler to keep the indices: what is cheaper it computes anew, unvectorised, for each look-up.
    whole = [jax.lax.rem(part.astype(jnp.int32) + n, jnp.int32(n)) for part, n in zip(cell, shape, strict=True)]
    return whole[0] if len(shape) == 1 else whole[0] * (shape[1] + 1) + whole[1]


def _corner_weights(position: Position, shape: tuple[int, ...]):
    cell = tuple(jnp.floor(part) for part in position)
    base = _index(cell, shape)
    inside = [part - whole for part, whole in zip(position, cell, strict=True)]
    strides = (1,) if len(shape) == 1 else (shape[1] + 1, 1)
    index, weights = [], []
    for corner in corners(len(shape)):
        weight = 1.0
        for far, part in zip(corner, inside, strict=True):
            weight = weight * (part if far else 1 - part)
        index.append(base + sum(far * stride for far, stride in zip(corner, strides, strict=True)))
        weights.append(weight)
    return index, weights


def _summed(parts, shape: tuple[int, ...], dtype) -> Field:
    with_margin = tuple(n + 1 for n in shape)
    flat = jnp.zeros(math.prod(with_margin), dtype)
    for index, value in parts:
        flat = flat.at[index].add(value, **_INSIDE)
    return folded(flat.reshape(with_margin))
