"""Cheap estimates of the nuclear norm ‖M‖_nuc = Σ σᵢ of a large matrix, by a few products with thin blocks.

| by                                                                   | work, n × n       | error                             |
| ---                                                                  | ---               | ---                               |
| [`nuclear_norm`][gradatim.numerics.nuclear_norm], `"svd"`            | about 20 n³       | round-off                         |
| the same, `"newton_schulz"`                                          | 30 n³             | 0.68 to 1.14 times                |
| [quadrature][gradatim.numerics.nuclear_norm_by_quadrature]           | 180 n² (8 probes) | √(2/(probes × effective rank))    |
| [sketch][gradatim.numerics.nuclear_norm_by_sketch]                   | 6 n² rank         | never above; exact up to the rank |

The effective rank is (‖M‖_nuc/‖M‖_F)², between 1 and the rank: 0.72 n for independent entries.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray


def nuclear_norm_by_quadrature(
    matrix: Inexact[Array, "*batch m n"], *, key: PRNGKeyArray, n_probes: int = 8, n_steps: int = 6
) -> Float[Array, "*batch"]:
    """Stochastic Lanczos quadrature: ‖M‖_nuc = tr (M Mᵀ)^½ = E[zᵀ (M Mᵀ)^½ z], z uniform on {-1, 1}ᵐ on the shorter side.

    Golub and Kahan's bidiagonalisation M ≈ V B Wᵀ from v₁ = z/√m gives zᵀ (M Mᵀ)^½ z ≈ m (Bᵀ B)^½₁₁. With the root's alternating
    derivatives Gauss's rule lies above the integral, and that of Gauss and Radau with a node at zero, which is B without its last
    entry, below it: their mean is within a tenth for spectra from flat to 1/i. The same key gives all matrices of a batch the
    same probes, so that equal matrices have equal estimates. With as many probes as rows the probes are the unit vectors.

    **A matrix of low rank needs more probes**: the relative standard deviation is √(2/(`n_probes` × effective rank)).

    **Arguments:** `matrix`: the leading axes are a batch; `key`: of the probes; `n_probes`, `n_steps`: at least 1.

    **Raises:** `ValueError` for fewer than one probe or step.

    >>> print(f"{nuclear_norm_by_quadrature(2 * jnp.eye(100), key=jax.random.key(0)):.1f}")
    200.0

    Source: Ubaru, Chen and Saad, *Fast estimation of tr(f(A)) via stochastic Lanczos quadrature*, SIAM J. Matrix Anal. Appl. 38 (2017).
    """
    for name, number in {"n_probes": n_probes, "n_steps": n_steps}.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    x = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    # Products with the longer side inside; the probes live on the shorter one.
    x = jnp.swapaxes(x, -1, -2) if x.shape[-2] > x.shape[-1] else x
    n_rows = x.shape[-2]
    if n_rows <= n_probes:
        probes = jnp.eye(n_rows, dtype=x.dtype)
    else:
        probes = jax.random.rademacher(key, (n_probes, n_rows), x.dtype) / jnp.sqrt(jnp.asarray(n_rows, x.dtype))
    return jnp.vectorize(partial(_quadrature, n_steps=min(n_steps, n_rows)), excluded=(1,), signature="(m,n)->()")(x, probes)


def nuclear_norm_by_sketch(matrix: Inexact[Array, "*batch m n"], *, key: PRNGKeyArray, rank: int = 16) -> Float[Array, "*batch"]:
    """Σ σᵢ(Qᵀ M), where Q spans the image of `rank` random directions: never above ‖M‖_nuc, and equal to it up to that rank.

    For a matrix whose singular values do not fall off it is far too small, by a factor of about rank/n.

    **Arguments:** `matrix`: the leading axes are a batch; `key`: of the directions; `rank`: at least 1.

    **Raises:** `ValueError` for a rank below 1.

    Source: Halko, Martinsson and Tropp, *Finding structure with randomness*, SIAM Review 53 (2011), algorithm 4.1.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    x = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    rank = min(rank, *x.shape[-2:])
    directions = jax.random.normal(key, (x.shape[-1], rank), x.dtype)
    image, _ = jnp.linalg.qr(x @ directions)
    return jnp.linalg.svd(jnp.swapaxes(image, -1, -2).conj() @ x, compute_uv=False).sum(-1)


def _quadrature(matrix: Inexact[Array, "m n"], probes: Inexact[Array, "probes m"], n_steps: int) -> Float[Array, ""]:
    n_rows = matrix.shape[0]
    length = jnp.sqrt(jnp.real(matrix.conj() * matrix).sum())
    # Blocks of rows, and the length divided out of them rather than of the matrix: no pass over the matrix but the products.
    scale = jnp.where(length == 0, 1.0, 1 / jnp.where(length == 0, 1.0, length))
    v, w, beta = probes, jnp.zeros((len(probes), matrix.shape[1]), matrix.dtype), jnp.zeros(len(probes), length.dtype)
    diagonal, beside = [], []
    for step in range(n_steps):
        w, alpha = _unit(scale * (v @ matrix.conj()) - beta[:, None] * w)
        diagonal.append(alpha)
        if step < n_steps - 1:
            v, beta = _unit(scale * (w @ matrix.T) - alpha[:, None] * v)
            beside.append(beta)
    gauss = jnp.stack(diagonal)
    # Gauss–Radau with its node at zero: the last diagonal entry left out.
    both = jnp.stack([gauss, gauss.at[-1].set(0.0)], axis=1)
    return length * n_rows * _root_at_start(both, jnp.stack(beside)[:, None] if beside else gauss[:0, None]).mean()


def _root_at_start(
    diagonal: Float[Array, "steps rules probes"], beside: Float[Array, "steps_less_one one probes"]
) -> Float[Array, "rules probes"]:
    """(Bᵀ B)^½₁₁ of upper bidiagonal matrices with diagonal a and b beside it, entry by entry.

    √t = (2/π) ∫ t/(t + u²) du, by the trapezoidal rule in log u, whose error is exp(-π²/h), and t/(t + s) at T = Bᵀ B from the
    continued fraction of its resolvent, e ← s + a² e/(e + b²) from the last row to the second: positive throughout, so nothing cancels.
    Eigenvalues of matrices this small take ten times as long.
    """
    eps = float(jnp.finfo(diagonal.dtype).eps)
    digits = -math.log(eps)
    step = math.pi**2 / digits
    reach = math.ceil((digits + 2) / step)
    first = diagonal[0]
    # In units of a₁, of the size of the result.
    unit = jnp.where(first == 0, 1.0, first)
    u = jnp.exp(step * jnp.arange(-reach, reach + 1, dtype=diagonal.dtype)).reshape(-1, *(1,) * first.ndim)
    squares, neighbours = (diagonal / unit[None]) ** 2, (beside / unit[None]) ** 2
    shift = u**2
    tail = jnp.ones_like(shift)
    for k in range(len(diagonal) - 1, 0, -1):
        e = shift + squares[k][None] * tail
        tail = e / (e + neighbours[k - 1][None])
    share = squares[0][None] * tail
    return unit * (2 * step / math.pi) * (u * share / (shift + share)).sum(0)


def _unit(rows: Inexact[Array, "probes k"]) -> tuple[Inexact[Array, "probes k"], Float[Array, " probes"]]:
    # An exhausted space leaves a zero row, which no later step leaves.
    length = jnp.sqrt(jnp.real(rows.conj() * rows).sum(-1))
    return rows / jnp.where(length == 0, 1.0, length)[:, None], length
