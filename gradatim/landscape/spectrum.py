"""The spectrum of a loss's Hessian: a bulk near zero, a few outliers, and how to tell them apart
(Sagun, Evci, Güney, Dauphin and Bottou, arXiv:1706.04454).

Give the operators of `gradatim.numerics`: `HessianOperator`, `GaussNewtonOperator`, `ResidualOperator`. In single precision everything
below about 1e-6 of the largest eigenvalue is round-off, small negative eigenvalues above all: use double precision to speak about those.
"""

from __future__ import annotations

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from gradatim.numerics.curvature import dense_matrix
from gradatim.numerics.marchenko_pastur import MarchenkoPastur
from gradatim.numerics.spectra import (
    Estimate,
    gaussian_density,
    lanczos,
    random_probe,
    trace_estimate,
)


class Spectrum(eqx.Module):
    """Eigenvalues and the quadrature of their density, from one set of products."""

    eigenvalues: Float[Array, " found"]
    "Largest first: all of them (dense), or the Ritz values of the first probe (Lanczos), which converge from both ends inwards."
    residuals: Float[Array, " found"]
    "An eigenvalue lies within this distance; zero for dense."
    nodes: Float[Array, "probes nodes"]
    weights: Float[Array, "probes nodes"]
    "Quadrature of the spectral density, of mass one for each probe."
    size: int = eqx.field(static=True)

    def density(self, grid: Float[Array, " points"], *, sigma: float | Float[Array, ""]) -> Estimate:
        """The density φ(x) = ⟨Σᵢ wᵢ N(x; θᵢ, σ²)⟩ over the probes, of mass one; its standard error is NaN for a single probe."""
        values = jax.vmap(lambda nodes, weights: gaussian_density(nodes, weights, grid, sigma=sigma))(self.nodes, self.weights)
        return _mean_over_probes(values)

    def moment(self, power: int) -> Estimate:
        """The moment tr Hᵖ / n; exact for each probe up to p = 2 steps - 1."""
        return _mean_over_probes(jnp.sum(self.weights * self.nodes**power, axis=1))


class Eigenpairs(eqx.Module):
    """Eigenvalues, from the end that was asked for inwards, with unit vectors of the operator's own structure along axis 0."""

    values: Float[Array, " k"]
    vectors: PyTree[Float[Array, "k ..."]]
    residuals: Float[Array, " k"]
    "‖H v - λ v‖ for each pair: an eigenvalue lies within this distance of λ."


def hessian_spectrum(
    operator: lx.AbstractLinearOperator,
    *,
    method: Literal["dense", "lanczos"] = "lanczos",
    key: PRNGKeyArray | None = None,
    steps: int = 100,
    n_probes: int = 1,
    max_size: int = 6000,
) -> Spectrum:
    """The spectrum of a symmetric operator: whole (`"dense"`), or its ends and its density (`"lanczos"`, `steps` products a probe).

    One Lanczos run serves both the extremal eigenvalues and the density (stochastic Lanczos quadrature: the weights are the squared
    *first* components of T's eigenvectors, averaged over random probes).

    **Arguments:** `operator`: over any pytree; `key`: for the probes, needed by `"lanczos"`; `steps`: products a probe, cut to the
    operator's dimension; `n_probes`: random starts; `max_size`: limit of the dense matrix.

    **Raises:** `ValueError` for a method that does not exist, a missing key, or a matrix that is too large to be made dense.

    >>> operator = lx.DiagonalLinearOperator(jnp.arange(8.0))
    >>> spectrum = hessian_spectrum(operator, key=jax.random.key(0), steps=8)
    >>> print(f"{spectrum.eigenvalues[0]:.3f}, mass {spectrum.moment(0).value:.3f}")
    7.000, mass 1.000
    """
    size = operator.in_size()
    if method == "dense":
        values = jnp.linalg.eigvalsh(dense_matrix(operator, max_size=max_size))[::-1]
        return Spectrum(values, jnp.zeros_like(values), values[None], jnp.full((1, size), 1 / size, values.dtype), size)
    if method != "lanczos":
        raise ValueError(f"method must be 'dense' or 'lanczos', got {method!r}")
    if key is None:
        raise ValueError("key must be given for method 'lanczos': its probes are random")
    _check_count("n_probes", n_probes)
    values, residuals, weights = _probe_all(operator, jax.random.split(key, n_probes), steps=min(steps, size))
    return Spectrum(values[0], residuals[0], values, weights, size)


@eqx.filter_jit
def top_eigenpairs(
    operator: lx.AbstractLinearOperator,
    k: int,
    *,
    key: PRNGKeyArray,
    steps: int = 100,
    which: Literal["largest", "smallest"] = "largest",
) -> Eigenpairs:
    """The `k` algebraically largest or smallest eigenpairs, from `steps` Lanczos products; what has not converged has a large `residuals`.

    **Raises:** `ValueError` for `k` above `steps`, `steps` above the dimension, or an end that does not exist.

    >>> operator = lx.DiagonalLinearOperator(jnp.arange(8.0))
    >>> pairs = top_eigenpairs(operator, 2, key=jax.random.key(0), steps=8)
    >>> print(" ".join(f"{value:.3f}" for value in pairs.values))
    7.000 6.000
    """
    if which not in ("largest", "smallest"):
        raise ValueError(f"which must be 'largest' or 'smallest', got {which!r}")
    if not 1 <= k <= steps:
        raise ValueError(f"k must lie between 1 and steps={steps}, got {k}")
    probe = random_probe(operator, key=key)
    unravel = ravel_pytree(probe)[1]
    krylov = lanczos(operator, probe, steps=steps)
    ritz = krylov.ritz()
    chosen = slice(0, k) if which == "largest" else slice(-1, -k - 1, -1)
    vectors = krylov.lift(ritz.vectors[:, chosen])
    return Eigenpairs(ritz.values[chosen], jax.vmap(unravel)(vectors), ritz.residuals[chosen])


def spectral_density(
    operator: lx.AbstractLinearOperator,
    grid: Float[Array, " points"],
    *,
    key: PRNGKeyArray,
    sigma: float | Float[Array, ""],
    n_probes: int = 10,
    steps: int = 100,
) -> Estimate:
    """The density of eigenvalues on a grid, smoothed by a Gaussian of width `sigma`; see
    [`hessian_spectrum`][gradatim.landscape.hessian_spectrum].

    >>> operator, grid = lx.DiagonalLinearOperator(jnp.ones(8)), jnp.linspace(0.0, 2.0, 101)
    >>> density = spectral_density(operator, grid, key=jax.random.key(0), sigma=0.1, n_probes=2, steps=1)
    >>> print(f"peak at {grid[density.value.argmax()]:.2f}, mass {density.value.sum() * 0.02:.2f}")
    peak at 1.00, mass 1.00
    """
    return hessian_spectrum(operator, key=key, steps=steps, n_probes=n_probes).density(grid, sigma=sigma)


def hessian_trace(operator: lx.AbstractLinearOperator, *, key: PRNGKeyArray, n_probes: int = 64) -> Estimate:
    """The trace of H and its standard error, from `n_probes` products (Hutchinson).

    >>> trace = hessian_trace(lx.DiagonalLinearOperator(jnp.arange(4.0)), key=jax.random.key(0))
    >>> print(f"{trace.value:.1f} ± {trace.standard_error:.1f}")
    6.0 ± 0.0
    """
    return trace_estimate(operator, key=key, n_probes=n_probes)


def count_outliers(
    eigenvalues: Float[Array, " n"],
    rule: Literal["fraction", "gap", "edge"] = "fraction",
    *,
    fraction: float = 0.1,
    n_classes: int | None = None,
    edge: float | Float[Array, ""] | None = None,
) -> Int[Array, ""]:
    """How many eigenvalues stand apart, by one of three rules; they do not agree, so report which.

    - `"fraction"`: λ > `fraction` λ₁. The count then depends on how far training has gone: compare at equal loss.
    - `"gap"`: the index of the largest ratio λᵢ/λᵢ₊₁ among the first `3 n_classes`.
    - `"edge"`: λ > `edge`, the end of the bulk: that of a null model, as [`permuted_edge`][gradatim.landscape.permuted_edge], or
      [`bulk_edge`][gradatim.landscape.bulk_edge].

    **Raises:** `ValueError` for a rule that does not exist or lacks its number.

    >>> values = jnp.array([10.0, 8.0, 0.5, 0.4, 0.3, 0.2])
    >>> [int(count_outliers(values, "gap", n_classes=2)), int(count_outliers(values, "edge", edge=0.45))]
    [2, 3]
    """
    ordered = jnp.sort(eigenvalues)[::-1]
    if rule == "fraction":
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must lie in (0, 1), got {fraction}")
        return jnp.sum((ordered > fraction * ordered[0]) & (ordered > 0))
    if rule == "gap":
        if n_classes is None:
            raise ValueError("rule 'gap' needs n_classes: it looks among the first 3 n_classes eigenvalues")
        _check_count("n_classes", n_classes)
        head = ordered[: 3 * n_classes + 1]
        # Past the last positive eigenvalue a ratio means nothing.
        positive = head[1:] > 0
        ratios = jnp.where(positive, head[:-1] / jnp.where(positive, head[1:], 1), 0)
        return jnp.where(head[0] > 0, jnp.argmax(ratios) + 1, 0)
    if rule == "edge":
        if edge is None:
            raise ValueError("rule 'edge' needs edge: the end of the bulk")
        return jnp.sum(ordered > edge)
    raise ValueError(f"rule must be 'fraction', 'gap' or 'edge', got {rule!r}")


def bulk_edge(eigenvalues: Float[Array, " m"], *, n_samples: int) -> Float[Array, ""]:
    """Where the noise of a sample covariance ends: the Marchenko–Pastur law is scaled to the median of the non-zero eigenvalues, which a
    few outliers do not move (Gavish and Donoho 2014, IEEE Transactions on Information Theory 60).

        edge = s (1 + √(M/N))²,     s = median(λ > 0) / median of the law of unit variance

    Of use for a *whitened* Gauss–Newton matrix; a bulk of unequal variances reaches further, as far as
    [`permuted_edge`][gradatim.landscape.permuted_edge].

    **Arguments:** `eigenvalues`: all M of (1/N) XᵀX; `n_samples`: N.

    >>> rows = jax.random.normal(jax.random.key(0), (1000, 200))
    >>> print(f"{bulk_edge(jnp.linalg.eigvalsh(rows.T @ rows / 1000), n_samples=1000):.1f}, exactly 2.1")
    2.1, exactly 2.1
    """
    _check_count("n_samples", n_samples)
    ordered = jnp.sort(eigenvalues)[::-1]
    law = MarchenkoPastur(n_samples / ordered.size)
    scale = jnp.median(ordered[: min(ordered.size, n_samples)]) / law.quantile((1 + law.zero_mass) / 2)
    return scale * law.support[1]


def permuted_edge(rows: Float[Array, "n m"], *, key: PRNGKeyArray) -> Float[Array, ""]:
    """The largest eigenvalue of XᵀX once every column of X is permuted by itself: its variances are kept, its correlations are not.

    What of a Gauss–Newton matrix, whose rows are gradients, lies above is more than chance makes of gradients of such sizes, be they
    ever so unequal (parallel analysis; Horn, Psychometrika 30 (1965) 179-185).

    **Arguments:** `rows`: X, scaled so that XᵀX is the matrix.

    >>> rows = jnp.tile(jax.random.normal(jax.random.key(0), (1000, 1)) / 1000**0.5, (1, 4))
    >>> print(f"{jnp.linalg.eigvalsh(rows.T @ rows)[-1]:.0f}, permuted {permuted_edge(rows, key=jax.random.key(1)):.0f}")
    4, permuted 1
    """
    permuted = jax.random.permutation(key, rows, axis=0, independent=True)
    gram = permuted @ permuted.T if rows.shape[0] < rows.shape[1] else permuted.T @ permuted
    return jnp.linalg.eigvalsh(gram)[-1]


@eqx.filter_jit
def _probe_all(operator: lx.AbstractLinearOperator, keys: Array, *, steps: int) -> tuple[Array, Array, Array]:
    linear = lx.linearise(operator)

    def one(key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        ritz = lanczos(linear, random_probe(linear, key=key), steps=steps).ritz()
        return ritz.values, ritz.residuals, ritz.weights

    return jax.lax.map(one, keys)


def _mean_over_probes(samples: Array) -> Estimate:
    n = samples.shape[0]
    error = samples.std(axis=0, ddof=1) / jnp.sqrt(n) if n > 1 else jnp.full(samples.shape[1:], jnp.nan, samples.dtype)
    return Estimate(samples.mean(axis=0), error)


def _check_count(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {number}")
