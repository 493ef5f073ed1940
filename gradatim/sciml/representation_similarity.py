"""How alike two layers see the same inputs: linear centred kernel alignment (Kornblith et al., arXiv:1905.00414).

Of few inputs it is too large, by how much depends on their number; the one of batches is not (Nguyen et al., arXiv:2010.15327).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def linear_cka(first: Float[Array, "n a"], second: Float[Array, "m b"]) -> Float[Array, ""]:
    """‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) in Frobenius norms, of features centred over n inputs: 1 where both are the same.

    Neither a rotation of a layer's features, nor a shift, nor one factor for all of them changes it; a general linear map does. Smaller
    1 - CKA means closer. In single precision 1 - CKA is known to about 1e-6. NaN where a layer does not vary.

    **Raises:** `ValueError` for features of different numbers of inputs, or of fewer than two.

    >>> x = jnp.array([[1.0, 0], [0, 1], [1, 1], [2, -1]])
    >>> y = jnp.array([[1.0], [2], [0], [3]])
    >>> print(f"{linear_cka(x, y):.4f}")
    0.3278
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"both layers must be seen at the same inputs, at least 2, got {len(first)} and {len(second)}")
    x, y = first - first.mean(axis=0, keepdims=True), second - second.mean(axis=0, keepdims=True)
    return jnp.sum((x.T @ y) ** 2) / jnp.sqrt(jnp.sum((x.T @ x) ** 2) * jnp.sum((y.T @ y) ** 2))


def unbiased_hsic(first: Float[Array, "n n"], second: Float[Array, "n n"]) -> Float[Array, ""]:
    """HSIC₁, what two kernels' alignment is measured by, without bias (Song et al. 2012, JMLR 13).

        HSIC₁ = Σ_{i≠j} K̂ᵢⱼ L̂ᵢⱼ / (n (n - 3)),     K̂ᵢⱼ = Kᵢⱼ - (rᵢ + rⱼ)/(n - 2) + Σₖ rₖ/((n - 1)(n - 2)),     rᵢ = Σ_{j≠i} Kᵢⱼ

    The same number as that equation's, by the centring of Székely and Rizzo (2014, Annals of Statistics 42), which makes it an inner
    product: HSIC₁(K, K) is not negative. The mean over all subsets of n of N inputs is the value of all N.

    **Arguments:** `first`, `second`: symmetric matrices of a kernel at the same inputs; their diagonals do not matter.

    **Raises:** `ValueError` for matrices of different shapes, or of fewer than four inputs.

    >>> x = jnp.array([[0.0], [1.0], [2.0], [4.0]])
    >>> print(f"{unbiased_hsic(x @ x.T, x @ x.T):.4f}")
    4.6667
    """
    if first.shape != second.shape:
        raise ValueError(f"both kernels must be of the same inputs, got shapes {first.shape} and {second.shape}")
    return _inner(_doubly_centred(first), _doubly_centred(second))


def minibatch_cka(
    first: Float[Array, "batches n a"] | Iterable[Float[Array, "_ a"]], second: Float[Array, "batches m b"] | Iterable[Float[Array, "_ b"]]
) -> Float[Array, ""]:
    """Linear CKA of features that come in batches, each of its three terms a mean over batches without bias (arXiv:2010.15327).

        ⟨HSIC₁(XXᵀ, YYᵀ)⟩ / √(⟨HSIC₁(XXᵀ, XXᵀ)⟩ ⟨HSIC₁(YYᵀ, YYᵀ)⟩)

    What is estimated does not depend on the size of a batch; of one batch it is the unbiased CKA of its inputs. It is 1 where both layers
    are the same and about 0 where they are independent, where [`linear_cka`][gradatim.sciml.linear_cka] tends to 1 with more features than
    inputs; by chance it can be negative. NaN where a layer does not vary. Of an iterable one batch is held at a time; stacked
    batches and lists can be passed through `jax.jit`.

    **Arguments:** `first`, `second`: features of the same inputs in the same batches, of at least four inputs each.

    **Raises:** `ValueError` for batches of different numbers of inputs or fewer than four, for different numbers of batches, or none.

    >>> x = jnp.array([[1.0, 0], [0, 1], [1, 1], [2, -1]])
    >>> y = jnp.array([[1.0], [2], [0], [3]])
    >>> print(f"{minibatch_cka([x], [y]):.4f}", f"{minibatch_cka(jnp.stack([x, x + 1]), jnp.stack([x, x])):.4f}")
    -0.5766 1.0000
    """
    if isinstance(first, jax.Array | np.ndarray) and isinstance(second, jax.Array | np.ndarray):
        if first.ndim != 3 or second.ndim != 3:
            raise ValueError(f"stacked batches must have axes for batches, inputs and features, got {first.shape} and {second.shape}")
        if len(first) != len(second) or len(first) < 1:
            raise ValueError(f"both layers must have the same batches, at least 1, got {len(first)} and {len(second)}")
        cross, one, other = jnp.mean(jax.vmap(_terms)(jnp.asarray(first), jnp.asarray(second)), axis=0)
    else:
        terms: list[Float[Array, " 3"]] = []
        for x, y in zip_longest(first, second):
            if x is None or y is None:
                raise ValueError(f"both layers must have the same batches, but one ends after {len(terms)}")
            terms.append(_terms(jnp.asarray(x), jnp.asarray(y)))
        if not terms:
            raise ValueError("both layers must have the same batches, at least 1, got none")
        cross, one, other = jnp.mean(jnp.stack(terms), axis=0)
    return cross / (jnp.sqrt(one) * jnp.sqrt(other))


def _terms(first: Float[Array, "n a"], second: Float[Array, "m b"]) -> Float[Array, " 3"]:
    if len(first) != len(second):
        raise ValueError(f"both layers must be seen at the same inputs, got batches of {len(first)} and {len(second)}")
    # A shift changes nothing but the rounding: without it the Gram matrices of features far from zero would be large and nearly alike.
    shifted = (features - features.mean(axis=0, keepdims=True) for features in (first, second))
    one, other = (_doubly_centred(features @ features.T) for features in shifted)
    return jnp.stack([_inner(one, other), _inner(one, one), _inner(other, other)])


def _doubly_centred(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    n = len(kernel)
    if n < 4:
        raise ValueError(f"a batch must have at least 4 inputs, got {n}: without bias there is no value of fewer")
    off_diagonal = ~jnp.eye(n, dtype=bool)
    rows = jnp.sum(kernel, axis=1, where=off_diagonal)
    centred = kernel - (rows[:, None] + rows[None]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    return jnp.where(off_diagonal, centred, 0)


def _inner(first: Float[Array, "n n"], second: Float[Array, "n n"]) -> Float[Array, ""]:
    n = len(first)
    return jnp.sum(first * second) / (n * (n - 3))
