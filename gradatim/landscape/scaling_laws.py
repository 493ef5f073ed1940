"""Scaling laws of random-feature regression (Bahri et al., arXiv:2102.06701): exact losses in samples and features, and their theory.

A teacher F(x) = Σ ω_M F_M(x) over S features, ω ~ N(0, 1/S), is learned without noise from D samples, rows of Φ, by a student that knows
P combinations Pr F of the features: of all least squares that of least norm, where gradient flow from zero ends. Averaged over ω,

    L(D, P) = 1/(2S) Tr[(1 - T)ᵀ C (1 - T)],     T = Prᵀ (Φ Prᵀ)⁺ Φ,     C = E[F Fᵀ],

one formula for P < D and P > D (appendix E of the paper has one for each). Its limits are L(D) for all features, Prᵀ Pr = 1, and L(P)
for samples without end. For a symmetric root of C, samples Φ = Z C^½ and projections W, L(Z, W) = L(W, Z) exactly: the duality of the
paper, draw by draw. The 1/2 and the 1/S are the paper's: times 2S a loss is a sum of eigenvalues.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int, Real

from gradatim.numerics import fit_power_law
from gradatim.numerics.checks import is_known

RCOND = 1e-12
"Spectra of data span nine decades: a larger cut would take small directions for none."


class RandomFeatureLoss(NamedTuple):
    """A loss, and the rank of the matrix that was inverted for it: below min(D, P), samples or features repeat one another."""

    loss: Float[Array, "*sizes"]
    rank: Int[Array, "*sizes"]


class LearningCurve(NamedTuple):
    """The loss by the theory of the spectrum, and the two numbers it follows from."""

    loss: Float[Array, "*sizes"]
    kappa: Float[Array, "*sizes"]
    gamma: Float[Array, "*sizes"]


def power_law_spectrum(exponent: float | Float[Array, ""], size: int) -> Float[Array, " size"]:
    """λᵢ = i^-(1+α), i = 1 … size: the spectrum that makes a loss fall as D^-α.

    **Raises:** `ValueError` for fewer than one eigenvalue.

    >>> [f"{value:.3f}" for value in power_law_spectrum(1.0, 4)]
    ['1.000', '0.250', '0.111', '0.062']
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    return jnp.arange(1.0, size + 1) ** -(1 + jnp.asarray(exponent))


def spectral_exponent(eigenvalues: Float[Array, " size"], window: tuple[int, int]) -> Float[Array, ""]:
    """α of λᵢ ~ i^-(1+α) over ranks i from `window[0]` to `window[1]`, every octave of ranks with the same weight.

    A finite matrix cuts the tail of the spectrum: end the window at a twentieth of its size.

    **Arguments:** `eigenvalues` > 0 in the window, descending; `window`: the first and the last rank, from 1.

    **Raises:** `ValueError` for a window that is not inside the spectrum or holds fewer than four ranks.

    >>> f"{spectral_exponent(power_law_spectrum(0.5, 100), (5, 50)):.3f}"
    '0.500'
    """
    first, last = window
    if not (first >= 1 and first + 3 <= last <= eigenvalues.shape[0]):
        raise ValueError(f"window must hold at least 4 of the ranks from 1 to {eigenvalues.shape[0]}, got {window}")
    rank = jnp.arange(first, last + 1, dtype=eigenvalues.dtype)
    return -1 - fit_power_law(rank, eigenvalues[first - 1 : last], weights=1 / rank).exponent


def effective_map(features: Float[Array, "samples S"], projection: Float[Array, "P S"], *, rcond: float = RCOND) -> Float[Array, "S S"]:
    """T = Prᵀ (Φ Prᵀ)⁺ Φ: the student that learns the teacher ω from these samples is the teacher T ω.

    >>> T = effective_map(jnp.array([[3.0, 4.0]]), jnp.eye(2))
    >>> [[f"{entry:.2f}" for entry in row] for row in T.tolist()]
    [['0.36', '0.48'], ['0.48', '0.64']]
    """
    _check_columns(features, projection)
    response = features @ projection.T
    return projection.T @ jnp.linalg.pinv(response, rtol=_cut(response, rcond)) @ features


def random_feature_loss(
    covariance: Float[Array, ...],
    features: Float[Array, "samples S"],
    projection: Float[Array, "P columns"],
    n_samples: Int[Array, " sizes"] | None = None,
    n_features: Int[Array, " sizes"] | None = None,
    *,
    rcond: float = RCOND,
) -> RandomFeatureLoss:
    """L(D, P) exactly, averaged over teachers; for several sizes, of the first D samples and the first P features.

    Sizes are traced: a curve is one compiled program. No derivatives: the pseudo-inverse of a matrix with rows left out has none. Around
    D = P its mean over draws is infinite: take medians there. Losses below 1e-10 of Tr C / 2S are lost in round-off, in single
    precision those below 1e-2: compute in double.

    **Arguments:** `covariance`: C = E[F Fᵀ] ≥ 0, or its diagonal; `features`: Φ; `projection`: Pr; `n_samples`, `n_features`: D and P,
    one each for every loss (None: all rows, one loss); `rcond`: singular values of Φ Prᵀ below this share of the largest count as none.

    **Raises:** `ValueError` for shapes that do not fit, sizes that are not pairs, or sizes beyond the rows there are.

    >>> Φ, Pr = jax.random.normal(jax.random.key(0), (2, 4, 8))
    >>> found = random_feature_loss(jnp.ones(8), Φ, jnp.eye(8))
    >>> f"2S L = {16 * found.loss:.2f} = S - D, rank {found.rank}"
    '2S L = 4.00 = S - D, rank 4'
    """
    _check_columns(features, projection)
    S = _check_covariance(covariance, features)
    D, P = features.shape[0], projection.shape[0]
    if (n_samples is None) != (n_features is None):
        raise ValueError("n_samples and n_features must be given together: one pair for every loss")
    if n_samples is None or n_features is None:
        whole = random_feature_loss(covariance, features, projection, jnp.array([D]), jnp.array([P]), rcond=rcond)
        return RandomFeatureLoss(whole.loss[0], whole.rank[0])
    _check_sizes("n_samples", n_samples, D)
    _check_sizes("n_features", n_features, P)
    return _losses(covariance, features, projection, n_samples, n_features, rcond, is_long=max(D, P) > S)


def loss_of_samples(
    covariance: Float[Array, ...], features: Float[Array, "samples S"], n_samples: Int[Array, " sizes"], *, rcond: float = RCOND
) -> RandomFeatureLoss:
    """L(D) = 1/(2S) Tr[C - C Φᵀ (Φ Φᵀ)⁺ Φ]: all features are known, samples alone limit. Arguments as for `random_feature_loss`.

    >>> C = power_law_spectrum(1.0, 50)
    >>> Φ = jax.random.normal(jax.random.key(0), (10, 50)) * jnp.sqrt(C)[None]
    >>> loss = loss_of_samples(C, Φ, jnp.array([1, 10])).loss
    >>> bool(loss[0] > 3 * loss[1])
    True
    """
    _check_covariance(covariance, features)
    _check_sizes("n_samples", n_samples, features.shape[0])
    return _projected(covariance, features, n_samples, rcond, is_sample=True)


def loss_of_features(
    covariance: Float[Array, ...], projection: Float[Array, "P S"], n_features: Int[Array, " sizes"], *, rcond: float = RCOND
) -> RandomFeatureLoss:
    """L(P) = 1/(2S) Tr[C - C Prᵀ (Pr C Prᵀ)⁺ Pr C]: samples without end, features alone limit; it never rises with P.

    Arguments as for [`random_feature_loss`][gradatim.landscape.random_feature_loss].

    >>> loss_of_features(jnp.array([4.0, 1.0]), jnp.eye(2), jnp.array([1, 2])).loss.tolist()
    [0.25, 0.0]
    """
    _check_covariance(covariance, projection)
    _check_sizes("n_features", n_features, projection.shape[0])
    return _projected(covariance, projection, n_features, rcond, is_sample=False)


def spectral_learning_curve(
    spectrum: Float[Array, " size"],
    n_samples: Real[Array, "*sizes"],
    *,
    target_power: Float[Array, " size"] | None = None,
    ridge: float | Float[Array, ""] = 0.0,
) -> LearningCurve:
    """The mean loss of kernel regression on D samples from the kernel's spectrum alone (section 2.2 of the paper; replica theory).

        1 = r/κ + Σ λᵢ / (κ + D λᵢ),     γ = Σ D λᵢ² / (κ + D λᵢ)²,     loss = κ²/(1 - γ) Σ λᵢ w̄ᵢ² / (κ + D λᵢ)²

    For w̄ = 1 and r = 0 the loss is κ: 2S times the L(D) of [`loss_of_samples`][gradatim.landscape.loss_of_samples]. Its exponent is
    that of the spectrum, and its prefactor α^-1 for steep spectra, by the sum of the tail, where the paper prints α. Exact as D grows; at
    D = 20 within a per cent. With r = 0 and as many samples as eigenvalues nothing is left: loss and κ are zero. Derivatives go through
    the root by the implicit function theorem.

    **Arguments:** `spectrum` λ ≥ 0 of the kernel; `n_samples` D ≥ 0; `target_power` w̄² ≥ 0, by default 1; `ridge` r ≥ 0, added to the
    Gram matrix.

    **Raises:** `ValueError` for negative numbers or a spectrum of zeros.

    >>> with jax.enable_x64(True):
    ...     curve = spectral_learning_curve(power_law_spectrum(1.0, 200_000), jnp.array([16, 64]))
    >>> [f"{loss:.8f}" for loss in curve.loss]
    ['0.14499826', '0.03794781']
    """
    power = jnp.ones_like(spectrum) if target_power is None else target_power
    r = jnp.asarray(ridge, spectrum.dtype)
    for name, values in (("spectrum", spectrum), ("n_samples", n_samples), ("target_power", power), ("ridge", r)):
        if is_known(values) and not (np.asarray(values) >= 0).all():
            raise ValueError(f"{name} must not be negative, got a minimum of {np.asarray(values).min()}")
    if is_known(spectrum) and not np.asarray(spectrum).any():
        raise ValueError("spectrum must hold an eigenvalue above zero")
    sizes = n_samples.astype(spectrum.dtype)
    loss, kappa, gamma = _curve(spectrum, sizes.ravel(), power, r)
    return LearningCurve(loss.reshape(sizes.shape), kappa.reshape(sizes.shape), gamma.reshape(sizes.shape))


@jax.jit
def _curve(spectrum: Array, sizes: Array, power: Array, ridge: Array) -> tuple[Array, Array, Array]:
    n_positive = jnp.sum(spectrum > 0)
    least = jnp.where(spectrum > 0, spectrum, jnp.inf).min()
    eps = float(jnp.finfo(spectrum.dtype).eps)
    solver = optx.Newton(rtol=16 * eps, atol=16 * eps)

    def shortfall(kappa: Array, args: tuple[Array, Array, Array]) -> Array:
        # A parallel sum of lines in κ: concave, so that from below Newton's steps never pass the root.
        spectrum, D, ridge = args
        # A product adds up in blocks, a sum on this backend one after another.
        return 1 - 1 / (ridge / kappa + spectrum @ (1 / (kappa + D * spectrum)))

    def at(D: Array) -> tuple[Array, Array, Array]:
        has_root = (ridge > 0) | (n_positive > D)
        safe = jnp.where(has_root, D, 0.0)
        # Each term of the sum is at least its value at the least eigenvalue.
        low = jax.lax.stop_gradient(jnp.maximum(ridge, (n_positive - safe) * least) * (1 - 8 * eps))
        kappa = optx.root_find(shortfall, solver, low, (spectrum, safe, ridge), max_steps=64, throw=False).value
        shrunk = kappa + safe * spectrum
        share = spectrum / shrunk
        gamma = safe * (share @ share)
        loss = kappa**2 / (1 - gamma) * (power @ (share / shrunk))
        return jnp.where(has_root, loss, 0.0), jnp.where(has_root, kappa, 0.0), jnp.where(has_root, gamma, n_positive / jnp.maximum(D, 1.0))

    return jax.vmap(at)(sizes)


def _mask(length: int, size: Array, dtype: jnp.dtype) -> Array:
    return (jnp.arange(length) < size).astype(dtype)


def _times(rows: Array, covariance: Array) -> Array:
    return rows * covariance[None] if covariance.ndim == 1 else rows @ covariance


def _trace(covariance: Array) -> Array:
    return covariance.sum() if covariance.ndim == 1 else jnp.trace(covariance)


def _cut(matrix: Array, rcond: float) -> float:
    """Below the round-off of an entry nothing can be told from zero."""
    return max(rcond, max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps))


def _grams(covariance: Array, features: Array, projection: Array) -> tuple[Array, Array, Array, Array]:
    weighted = _times(projection, covariance)
    return features @ projection.T, features @ weighted.T, features @ features.T, projection @ weighted.T


@functools.partial(jax.jit, static_argnames=("rcond", "is_long"))
def _losses(
    covariance: Array, features: Array, projection: Array, n_samples: Array, n_features: Array, rcond: float, *, is_long: bool
) -> RandomFeatureLoss:
    (D, S), P = features.shape, projection.shape[0]

    def at(sizes: tuple[Array, Array], grams: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        response, cross, samples, students = grams
        u, s, vt = jnp.linalg.svd(response, full_matrices=False)
        # Directions left out are exact zeros.
        keep = (s > _cut(response, rcond) * s[0]) & (s > 0)
        inverse = (vt.T * jnp.where(keep, 1 / jnp.where(keep, s, 1.0), 0.0)[None]) @ u.T
        fitted = jnp.sum((inverse.T @ students @ inverse) * samples)
        return (_trace(covariance) - 2 * jnp.sum(inverse * cross.T) + fitted) / (2 * S), jnp.sum(keep)

    def masked(sizes: tuple[Array, Array]) -> tuple[Array, Array]:
        d, p = _mask(D, sizes[0], features.dtype), _mask(P, sizes[1], features.dtype)
        if is_long:
            # T depends on rows beyond S through the triangle of their QR factorisation alone.
            rows = [x if len(x) <= S else jnp.linalg.qr(x, mode="r") for x in (features * d[:, None], projection * p[:, None])]
            return at(sizes, _grams(covariance, rows[0], rows[1]))
        response, cross, samples, students = shared
        return at(sizes, (response * d[:, None] * p[None], cross * d[:, None] * p[None], samples, students))

    shared = _grams(covariance, features[:0] if is_long else features, projection[:0] if is_long else projection)
    return RandomFeatureLoss(*jax.lax.map(masked, (n_samples, n_features)))


@functools.partial(jax.jit, static_argnames=("rcond", "is_sample"))
def _projected(covariance: Array, rows: Array, sizes: Array, rcond: float, *, is_sample: bool) -> RandomFeatureLoss:
    """Tr C less what the first rows span: in C's own metric for features, plainly for samples."""
    weighted = _times(rows, covariance)
    gram, gain = (rows @ rows.T, rows @ weighted.T) if is_sample else (rows @ weighted.T, weighted @ weighted.T)

    def at(size: Array) -> tuple[Array, Array]:
        m = _mask(len(rows), size, rows.dtype)
        values, vectors = jnp.linalg.eigh(gram * m[:, None] * m[None])
        keep = (values > _cut(gram, rcond) * values[-1]) & (values > 0)
        explained = jnp.sum(vectors * (gain @ vectors), axis=0) / jnp.where(keep, values, 1.0)
        return (_trace(covariance) - jnp.sum(explained, where=keep)) / (2 * rows.shape[1]), jnp.sum(keep)

    return RandomFeatureLoss(*jax.lax.map(at, sizes))


def _check_columns(features: Array, projection: Array) -> None:
    if features.shape[1] != projection.shape[1]:
        raise ValueError(
            f"features and projection must have one column for each teacher feature, got {features.shape[1]} and {projection.shape[1]}"
        )


def _check_covariance(covariance: Array, rows: Array) -> int:
    S = rows.shape[1]
    if covariance.shape not in ((S,), (S, S)):
        raise ValueError(f"covariance must have shape ({S}, {S}), or ({S},) for its diagonal, got {covariance.shape}")
    return S


def _check_sizes(name: str, sizes: Array, most: int) -> None:
    if is_known(sizes) and not ((np.asarray(sizes) >= 1) & (np.asarray(sizes) <= most)).all():
        raise ValueError(f"{name} must lie between 1 and the {most} rows there are, got {np.asarray(sizes).tolist()}")
