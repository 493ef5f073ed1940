"""Errors of what is read off maps whose neighbouring pixels share their noise: blocks of pixels are drawn anew, not pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class BlockBootstrap(NamedTuple):
    """How far a number strays when the map's blocks are drawn anew."""

    standard_error: Float[Array, ""]
    samples: Float[Array, " samples"]


def block_bootstrap(
    statistic: Callable[..., Float[Array, ""]],
    maps: tuple[Float[Array, "... y x"], ...],
    *,
    block: int,
    key: PRNGKeyArray,
    n_samples: int = 200,
) -> BlockBootstrap:
    """The standard error of a number that is computed from the pixels of maps, by the circular block bootstrap.

    A sample holds as many square blocks as a map does, each from anywhere in it, beyond an edge going on at the opposite one
    (D. N. Politis & J. P. Romano, in Exploring the Limits of Bootstrap, Wiley, 263 (1992)). Blocks must be longer than the noise is
    shared, a beam or two, and many must fit on the galaxy; blocks of one pixel take neighbours for independent.

    **Arguments:** `statistic`: of the maps' pixels, in no order, shapes `(*lines, pixels)`, such as the slope of
    [`radial_gradient`][gradatim.astro.radial_gradient]; the same pixels are drawn of all `maps`, whose last two axes are y and x;
    `block`: pixels a side of a block, at most that of a map; `n_samples` ≥ 2.

    **Raises:** `ValueError` for maps of different sizes, or a block or number of samples out of range.

    >>> noise = jax.random.normal(jax.random.key(0), (32, 32))
    >>> found = block_bootstrap(lambda flux: flux.mean(), (noise,), block=2, key=jax.random.key(1))
    >>> print(f"{found.standard_error:.2f} = 1/32")
    0.03 = 1/32
    """
    sizes = {part.shape[-2:] for part in maps}
    if len(sizes) != 1:
        raise ValueError(f"maps must share their last two axes, got {', '.join(map(str, sorted(sizes)))}")
    ((height, width),) = sizes
    if not 1 <= block <= min(height, width):
        raise ValueError(f"block must be between 1 and {min(height, width)}, the shorter side of the map, got {block}")
    if n_samples < 2:
        raise ValueError(f"n_samples must be at least 2, got {n_samples}")
    return _drawn(statistic, maps, block, key, n_samples)


@eqx.filter_jit
def _drawn(statistic: Callable[..., Array], maps: tuple[Array, ...], block: int, key: Array, n_samples: int) -> BlockBootstrap:
    height, width = maps[0].shape[-2:]
    n_blocks, along = -(-height * width // block**2), jnp.arange(block)

    def sample(key: Array) -> Array:
        top, left = jax.random.randint(key, (2, n_blocks, 1, 1), 0, jnp.array([height, width]).reshape(2, 1, 1, 1))
        rows, columns = (top + along.reshape(1, -1, 1)) % height, (left + along.reshape(1, 1, -1)) % width
        # What the last block holds too much stays out, so that a sample is as large as the map.
        pixels = jnp.ravel(rows * width + columns)[: height * width]
        return statistic(*(part.reshape(*part.shape[:-2], -1)[..., pixels] for part in maps))

    samples = jax.lax.map(sample, jax.random.split(key, n_samples))
    return BlockBootstrap(samples.std(ddof=1), samples)
