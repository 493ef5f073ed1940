"""Power laws with their errors, and means of correlated samples with theirs."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .checks import is_known


class PowerLaw(NamedTuple):
    """y = prefactor · x^exponent, and how far the points let the exponent stray."""

    exponent: Float[Array, "*batch"]
    prefactor: Float[Array, "*batch"]
    standard_error: Float[Array, "*batch"]  # of the exponent


def fit_power_law(
    x: Float[Array, " points"], y: Float[Array, "*batch values"], *, weights: Float[Array, " points"] | None = None
) -> PowerLaw:
    """The line through (ln x, ln y) of least squares, for each row of y.

    The standard error takes the scatter about the line for that of independent points: for modes of one simulation the scatter between
    repetitions is the honest one. A slope that drifts is no power law: look at [`local_exponents`][gradatim.numerics.local_exponents].

    **Arguments:** `x`, `y` > 0; `weights` ≥ 0, in proportion to the inverse variances of ln y, by default equal.

    **Raises:** `ValueError` for fewer than three points, numbers that are not positive, or shapes that differ.

    >>> law = fit_power_law(jnp.array([1.0, 2.0, 4.0]), jnp.array([3.0, 12.0, 48.0]))
    >>> f"{law.exponent:.4f} {law.prefactor:.4f}"
    '2.0000 3.0000'
    """
    n = x.shape[0]
    if n < 3:
        raise ValueError(f"x must hold at least 3 points, got {n}")
    if y.shape[-1] != n:
        raise ValueError(f"y must hold one value for each of the {n} points of x along its last axis, got shape {y.shape}")
    for name, values in (("x", x), ("y", y)):
        if is_known(values) and not (np.asarray(values) > 0).all():
            raise ValueError(f"{name} must be positive, got a minimum of {values.min()}")
    return _line(x, y, jnp.ones_like(x) if weights is None else weights)


# Compiled as a whole, for a fit is twenty small operations that would be compiled one by one.
@jax.jit
def _line(x: Array, y: Array, weights: Array) -> PowerLaw:
    w = weights / weights.sum()
    u, v = jnp.log(x), jnp.log(y)
    mean_u, mean_v = w @ u, v @ w
    shifted = u - mean_u
    spread = w @ shifted**2
    exponent = (v @ (w * shifted)) / spread
    residual = v - mean_v[..., None] - exponent[..., None] * jnp.broadcast_to(shifted, v.shape)
    variance = (residual**2 @ w) / (x.shape[0] - 2)
    return PowerLaw(exponent, jnp.exp(mean_v - exponent * mean_u), jnp.sqrt(variance / spread))


def local_exponents(x: Float[Array, " points"], y: Float[Array, "*batch points"]) -> Float[Array, "*batch points-1"]:
    """Slopes d ln y / d ln x between neighbouring points: constant for a power law.

    >>> local_exponents(jnp.array([1.0, 2.0, 4.0]), jnp.array([1.0, 4.0, 16.0])).tolist()
    [2.0, 2.0]
    """
    return jnp.diff(jnp.log(y), axis=-1) / jnp.broadcast_to(jnp.diff(jnp.log(x)), (*y.shape[:-1], x.shape[0] - 1))


class BlockMean(eqx.Module):
    """A running mean of correlated samples, with a standard error from the means of blocks: `mean = mean.update(sample)`.

    Blocks must be longer than the samples remember, and eight or more of them full before their scatter means much. Sums are kept about the
    running mean (B. P. Welford, Technometrics 4, 419 (1962)), so that nothing cancels; what stands in the block that is not yet full does
    not count.

    **Arguments:** `like`: an array of the samples' shape; `block`: samples in a block, at least 1 (1 for independent samples).

    >>> mean = BlockMean(jnp.zeros(()), 2)
    >>> for sample in (1.0, 3.0, 5.0, 7.0, 100.0):
    ...     mean = mean.update(jnp.asarray(sample))
    >>> float(mean.value), float(mean.standard_error)
    (4.0, 2.0)
    """

    value: Float[Array, ...]
    squares: Float[Array, ...]  # Σ over blocks of (block mean - value)²
    filling: Float[Array, ...]  # sum over the block that is not yet full
    n_blocks: Int[Array, ""]
    n_filling: Int[Array, ""]
    block: int = eqx.field(static=True)

    def __init__(self, like: Float[Array, ...], block: int = 1):
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        # Separate buffers: a loop that donates its state may donate each of them once.
        self.value, self.squares, self.filling = (jnp.zeros_like(like) for _ in range(3))
        self.n_blocks, self.n_filling = (jnp.zeros((), jnp.int32) for _ in range(2))
        self.block = block

    def update(self, sample: Float[Array, ...]) -> BlockMean:
        """With one more sample.

        **Raises:** `ValueError` for a sample of another shape.
        """
        if sample.shape != self.value.shape:
            raise ValueError(f"sample must have shape {self.value.shape}, got {sample.shape}")
        filling, n_filling = self.filling + sample, self.n_filling + 1
        is_full = n_filling == self.block
        n_blocks = self.n_blocks + is_full
        change = jnp.where(is_full, filling / self.block - self.value, 0.0)
        value = self.value + change / jnp.maximum(n_blocks, 1)
        squares = self.squares + change * (jnp.where(is_full, filling / self.block, value) - value)
        new = jnp.where(is_full, 0.0, filling), jnp.where(is_full, 0, n_filling)
        return eqx.tree_at(
            lambda m: (m.value, m.squares, m.filling, m.n_blocks, m.n_filling), self, (value, squares, new[0], n_blocks, new[1])
        )

    @property
    def standard_error(self) -> Float[Array, ...]:
        """Of the mean; infinite before the second block is full."""
        n = self.n_blocks
        return jnp.where(n > 1, jnp.sqrt(self.squares / jnp.maximum(n * (n - 1), 1)), jnp.inf)
