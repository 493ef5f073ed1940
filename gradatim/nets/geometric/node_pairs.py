"""Layers on pairs of nodes: all linear maps of matrices that respect permutations, and products of matrices
(arXiv:2104.13478, Section 4.1; Maron et al., arXiv:1812.09902 and arXiv:1905.11136).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .weights import uniform

N_GENERATORS = 15
"Ways to part the set of four indices: the Bell number of 4."


class Linear2Tensor(eqx.Module):
    """Every linear map from matrices to matrices with F(PXPᵀ) = P F(X) Pᵀ: fifteen generators, and two of the bias.

    Two keep entries (X, Xᵀ); nine put the diagonal, the means of rows or those of columns onto rows, columns or the diagonal; four put the
    mean of all entries, or of the diagonal, everywhere or onto the diagonal. Sums are divided by how many they are of, so that weights mean
    the same for graphs of any size. Networks of these and pointwise functions distinguish what colour refinement does, and no more.

    **Arguments:** `n_in`, `n_out`: channels; `key`.

    >>> layer = eqx.filter_jit(Linear2Tensor(1, 1, key=jax.random.key(0)))
    >>> x, order = jnp.arange(9.0).reshape(3, 3, 1), jnp.array([2, 0, 1])
    >>> bool(jnp.allclose(layer(x[order][:, order]), layer(x)[order][:, order], atol=1e-5))
    True
    """

    weight: Float[Array, "generators n_in n_out"]
    bias: Float[Array, "2 n_out"]

    def __init__(self, n_in: int, n_out: int, *, key: PRNGKeyArray) -> None:
        self.weight = uniform(key, (N_GENERATORS, n_in, n_out), fan_in=N_GENERATORS * n_in)
        self.bias = jnp.zeros((2, n_out))

    def __call__(self, x: Float[Array, "n n n_in"], mask: Bool[Array, " n"] | None = None) -> Float[Array, "n n n_out"]:
        """The matrix mapped; rows and columns outside `mask` count for nothing and are zero afterwards."""
        n = len(x)
        mask = jnp.ones(n, bool) if mask is None else mask
        inside = (mask[:, None] & mask[None])[..., None]
        x = jnp.where(inside, x, 0)
        count = jnp.maximum(mask.sum(), 1).astype(x.dtype)
        diagonal = jnp.einsum("iic->ic", x)
        vectors = jnp.stack([diagonal, x.sum(axis=1) / count, x.sum(axis=0) / count])
        numbers = jnp.stack([x.sum(axis=(0, 1)) / count**2, diagonal.sum(axis=0) / count])
        w = self.weight
        # Each group of three: onto rows, onto columns, onto the diagonal.
        rows, columns, on_diagonal = jnp.einsum("tnc,tkco->kno", vectors, w[2:11].reshape(3, 3, *w.shape[1:]))
        everywhere, more = jnp.einsum("tc,tkco->ko", numbers, w[11:15].reshape(2, 2, *w.shape[1:])) + self.bias
        y = jnp.einsum("ijc,co->ijo", x, w[0]) + jnp.einsum("jic,co->ijo", x, w[1])
        y = y + rows[:, None] + columns[None] + everywhere[None, None]
        y = y + jnp.eye(n, dtype=x.dtype)[..., None] * (on_diagonal + more[None])[:, None]
        return jnp.where(inside, y, 0)


class MatrixProductBlock(eqx.Module):
    """Products of matrices, channel by channel, beside the matrices themselves: Y = [X, M₁(X) M₂(X)/n] W + b, Mᵢ(X) = SiLU(X Vᵢ).

    Counting paths of length two lifts the bound: with these between pointwise layers a network reaches the third order of colour
    refinement, and n³ operations a channel are the price.

    **Arguments:** `n_in`, `n_out`: channels; `width`: of the products; `key`.

    >>> eqx.filter_jit(MatrixProductBlock(1, 4, width=8, key=jax.random.key(0)))(jnp.ones((5, 5, 1))).shape
    (5, 5, 4)
    """

    factors: Float[Array, "2 n_in width"]
    weight: Float[Array, "n_in_and_width n_out"]
    bias: Float[Array, " n_out"]

    def __init__(self, n_in: int, n_out: int, *, width: int, key: PRNGKeyArray) -> None:
        keys = jax.random.split(key)
        self.factors = uniform(keys[0], (2, n_in, width), fan_in=n_in)
        self.weight = uniform(keys[1], (n_in + width, n_out), fan_in=n_in + width)
        self.bias = jnp.zeros(n_out)

    def __call__(self, x: Float[Array, "n n n_in"], mask: Bool[Array, " n"] | None = None) -> Float[Array, "n n n_out"]:
        """The matrix mapped; rows and columns outside `mask` count for nothing and are zero afterwards."""
        mask = jnp.ones(len(x), bool) if mask is None else mask
        inside = (mask[:, None] & mask[None])[..., None]
        x = jnp.where(inside, x, 0)
        left, right = (jax.nn.silu(jnp.einsum("ijc,cw->wij", x, factor)) for factor in self.factors)
        products = (left @ right).transpose(1, 2, 0) / jnp.maximum(mask.sum(), 1).astype(x.dtype)
        y = jnp.concatenate([x, products], axis=-1) @ self.weight + self.bias[None, None]
        return jnp.where(inside, y, 0)
