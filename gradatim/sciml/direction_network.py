"""The network that proposes directions: residual convolutions on two levels of a grid
(Kaneda, Akar, Chen, Kala, Hyde and Teran, arXiv:2205.10763).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

KERNEL = 3
"Cells a side."


class GridResNet(eqx.Module):
    """From a unit vector on a grid to a direction on it:

        linear convolution, convolution, `pairs_before` residual pairs with a convolution after each           at full resolution
        mean over blocks of 2 cells a side, `pairs_below` residual pairs, repeated back, plus what was pooled   at half of it
        `pairs_above` residual pairs, a linear map of channels to one                                          at full resolution

    A convolution is 3 cells wide, padded with zeros, and rectified but for the first; a residual pair is x + conv(conv(x)). There is no
    normalisation. What a direction can depend on does not grow with the grid: about 22 cells to each side for the numbers of the authors'
    network for 64³, which are the defaults; they use (2, 5, 2) pairs for 128³. Without biases the network is positively homogeneous,
    though not odd.

    **Arguments:** `ndim`: 2 or 3; `channels`; `pairs_before`, `pairs_below`, `pairs_above`; `use_bias`: as the authors do; `key`:
    weights are uniform as in Keras (Glorot), biases zero.

    **Raises:** `ValueError` for sizes out of range, or a grid with an odd number of cells a side.

    >>> jax.eval_shape(lambda b: GridResNet(3, key=jax.random.key(0))(b), jnp.ones((4, 6, 8))).shape
    (4, 6, 8)
    """

    kernels: list[Float[Array, "_ n_in n_out"]]
    "Of the convolutions in their order, the cells of the window first."
    biases: list[Float[Array, " n_out"]] | None
    mix: Float[Array, " channels"]
    offset: Float[Array, ""] | None
    ndim: int = eqx.field(static=True)
    pairs: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self,
        ndim: int,
        *,
        channels: int = 16,
        pairs_before: int = 1,
        pairs_below: int = 3,
        pairs_above: int = 2,
        use_bias: bool = True,
        key: PRNGKeyArray,
    ) -> None:
        if ndim not in (2, 3):
            raise ValueError(f"ndim must be 2 or 3, got {ndim}")
        if channels < 1:
            raise ValueError(f"channels must be at least 1, got {channels}")
        self.ndim, self.pairs = ndim, (pairs_before, pairs_below, pairs_above)
        if min(self.pairs) < 0:
            raise ValueError(f"numbers of residual pairs must be at least 0, got {self.pairs}")
        count, window = 3 + 2 * sum(self.pairs), KERNEL**ndim
        shapes = [(window, 1 if i == 0 else channels, channels) for i in range(count)]
        bounds = [(6 / (window * (n_in + n_out))) ** 0.5 for _, n_in, n_out in shapes] + [(6 / (channels + 1)) ** 0.5]
        sizes = [int(np.prod(shape)) for shape in shapes] + [channels]
        # One draw for all weights, cut up: each shape of its own would be a program to compile.
        numbers = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1.0, 1.0)
        *kernels, self.mix = (bound * part for bound, part in zip(bounds, jnp.split(numbers, np.cumsum(sizes)[:-1]), strict=True))
        self.kernels = [part.reshape(shape) for part, shape in zip(kernels, shapes, strict=True)]
        self.biases = [jnp.zeros(channels, jnp.float32) for _ in shapes] if use_bias else None
        self.offset = jnp.zeros((), jnp.float32) if use_bias else None

    def __call__(self, b: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """The direction, in the precision of the weights, by products of matrices: for use inside a compiled loop, such as a solver's."""
        return self._evaluated(b, _shifted)

    def by_convolutions(self, b: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """The same by XLA's convolutions: on CPU faster for a batch outside any loop, such as a step of training (and its gradient three
        times), and about ten times slower inside one.
        """
        return self._evaluated(b, _convolved)

    def _evaluated(self, b: Array, convolve: Callable[[Array, Array], Array]) -> Array:
        if b.ndim != self.ndim or any(n % 2 for n in b.shape):
            raise ValueError(f"b must have {self.ndim} dimensions, each an even number of cells, got {b.shape}; batch with jax.vmap")
        convolutions = self._convolutions(convolve)
        before, below, above = self.pairs
        x = next(convolutions)(b.astype(self.mix.dtype)[..., None])
        x = jax.nn.relu(next(convolutions)(x))
        kept = jax.nn.relu(next(convolutions)(x))
        for _ in range(before):
            x = jax.nn.relu(next(convolutions)(kept)) + x
            kept = jax.nn.relu(next(convolutions)(x))
        x = _residual(_pooled(kept), convolutions, below)
        x = _residual(_repeated(x) + kept, convolutions, above)
        direction = x @ self.mix
        return direction if self.offset is None else direction + self.offset

    def _convolutions(self, convolve: Callable[[Array, Array], Array]) -> Iterator[Callable[[Array], Array]]:
        for i, kernel in enumerate(self.kernels):
            bias = 0.0 if self.biases is None else self.biases[i]
            yield lambda x, kernel=kernel, bias=bias: _offset(convolve(x, kernel), bias)


class MaskedDirection(eqx.Module):
    """A network's direction in fluid cells, and zero in solid ones, where the matrix would not see it but the direction's size would."""

    network: Callable[[Array], Array]
    is_fluid: Bool[Array, "*grid"]

    def __call__(self, r: Float[Array, "*grid"]) -> Float[Array, "*grid"]:
        """In the dtype of the residual."""
        return jnp.where(self.is_fluid, self.network(r), 0).astype(r.dtype)


def _residual(x: Array, convolutions: Iterator[Callable[[Array], Array]], pairs: int) -> Array:
    for _ in range(pairs):
        inner = jax.nn.relu(next(convolutions)(x))
        x = jax.nn.relu(next(convolutions)(inner)) + x
    return x


def _offset(x: Array, bias: Array | float) -> Array:
    return x + jnp.broadcast_to(bias, x.shape) if isinstance(bias, jax.Array) else x


def _convolved(x: Float[Array, "*grid n_in"], kernel: Float[Array, "_ n_in n_out"]) -> Float[Array, "*grid n_out"]:
    axes = "XYZ"[: x.ndim - 1]
    window = kernel.reshape(*(KERNEL for _ in axes), *kernel.shape[1:])
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return jax.lax.conv_general_dilated(x[None], window, (1,) * len(axes), "SAME", dimension_numbers=layout)[0]


def _shifted(x: Float[Array, "*grid n_in"], kernel: Float[Array, "_ n_in n_out"]) -> Float[Array, "*grid n_out"]:
    # Neighbours along the last axis side by side, one product for all places of the window along the others, and the sum of shifted
    # parts: a third of the copies of a full im2col, and a product that is wide on both sides.
    grid, (n_in, n_out) = x.shape[:-1], kernel.shape[1:]
    padded = jnp.pad(x, [(1, 1)] * len(grid) + [(0, 0)])
    columns = jnp.concatenate([padded[..., c : c + grid[-1], :] for c in range(KERNEL)], -1)
    weights = kernel.reshape(-1, KERNEL * n_in, n_out).swapaxes(0, 1).reshape(KERNEL * n_in, -1)
    parts = columns @ weights
    corners = product(range(KERNEL), repeat=len(grid) - 1)
    windows = [
        parts[(*(slice(c, c + n) for c, n in zip(corner, grid[:-1], strict=True)), slice(None), slice(k * n_out, (k + 1) * n_out))]
        for k, corner in enumerate(corners)
    ]
    return reduce(jnp.add, windows)


def _pooled(x: Float[Array, "*grid channels"]) -> Float[Array, "*half channels"]:
    halves = [size for n in x.shape[:-1] for size in (n // 2, 2)]
    return x.reshape(*halves, x.shape[-1]).mean(tuple(range(1, 2 * (x.ndim - 1), 2)))


def _repeated(x: Float[Array, "*half channels"]) -> Float[Array, "*grid channels"]:
    spread = x.reshape(*(size for n in x.shape[:-1] for size in (n, 1)), x.shape[-1])
    spread = jnp.broadcast_to(spread, (*(size for n in x.shape[:-1] for size in (n, 2)), x.shape[-1]))
    return spread.reshape(*(2 * n for n in x.shape[:-1]), x.shape[-1])
