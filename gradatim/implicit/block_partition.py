"""A grid cut into equal blocks, each the domain of a solve of its own."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Shaped


class BlockPartition(eqx.Module):
    """Equal blocks that do not overlap: `splits` says into how many parts each of the first axes is cut.

    Which block a point belongs to is fixed by where it lies; nothing is learnt, and no point has two blocks.

    **Arguments:** `splits`: parts of each axis of the grid, at least 1; axes beyond these are left alone.

    **Raises:** `ValueError` for no axis or a number of parts below 1; when called, for an axis that the parts do not divide.

    >>> import jax.numpy as jnp
    >>> partition = BlockPartition((1, 2))
    >>> blocks = partition.split(jnp.arange(8).reshape(2, 4))
    >>> blocks[1].tolist(), partition.unsplit(blocks).tolist()
    ([[2, 3], [6, 7]], [[0, 1, 2, 3], [4, 5, 6, 7]])
    """

    splits: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, splits: tuple[int, ...]):
        if not splits or min(splits) < 1:
            raise ValueError(f"splits must hold at least one number of parts, each at least 1, got {splits}")
        self.splits = tuple(splits)

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return math.prod(self.splits)

    def block_shape(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each block of a grid."""
        if len(grid) < len(self.splits):
            raise ValueError(f"the array must have the {len(self.splits)} axes of splits {self.splits} first, got shape {grid}")
        for axis, (size, parts) in enumerate(zip(grid, self.splits, strict=False)):
            if size % parts:
                raise ValueError(f"splits {self.splits} must divide the grid: axis {axis} has {size} points, not a multiple of {parts}")
        return tuple(size // parts for size, parts in zip(grid, self.splits, strict=False))

    def split(self, x: Shaped[Array | np.ndarray, " *axes"]) -> Shaped[Array | np.ndarray, "blocks ..."]:
        """Blocks along a new first axis, in the order of the grid, the last axis of the grid fastest."""
        n = len(self.splits)
        block = self.block_shape(x.shape)
        rest = x.shape[n:]
        parted = x.reshape(*(number for pair in zip(self.splits, block, strict=True) for number in pair), *rest)
        order = (*range(0, 2 * n, 2), *range(1, 2 * n, 2), *range(2 * n, 2 * n + len(rest)))
        return parted.transpose(order).reshape(self.n_blocks, *block, *rest)

    def unsplit(self, blocks: Shaped[Array | np.ndarray, "blocks ..."]) -> Shaped[Array | np.ndarray, " *axes"]:
        """The inverse of `split`: blocks side by side, not their sum."""
        n = len(self.splits)
        if blocks.shape[0] != self.n_blocks or blocks.ndim <= n:
            raise ValueError(f"blocks must have {self.n_blocks} of them first and then {n} axes of the grid, got shape {blocks.shape}")
        block, rest = blocks.shape[1 : n + 1], blocks.shape[n + 1 :]
        parted = blocks.reshape(*self.splits, *block, *rest)
        order = (*(axis for i in range(n) for axis in (i, n + i)), *range(2 * n, 2 * n + len(rest)))
        return parted.transpose(order).reshape(*(a * b for a, b in zip(self.splits, block, strict=True)), *rest)

    def sample(self, grid: tuple[int, ...], n_points: int, *, key: PRNGKeyArray) -> Int[Array, "blocks points"]:
        """Points of every block drawn without repetition, as numbers within the flattened block.

        **Raises:** `ValueError` for more points than a block has, or fewer than 1.
        """
        available = math.prod(self.block_shape(grid[: len(self.splits)]))
        if not 1 <= n_points <= available:
            raise ValueError(f"n_points must lie in [1, {available}], the points of a block, got {n_points}")
        # Drawn flat: a draw of several axes takes many times longer to compile.
        levels = jax.random.uniform(key, (self.n_blocks * available,)).reshape(self.n_blocks, available)
        return jax.lax.top_k(levels, n_points)[1]
