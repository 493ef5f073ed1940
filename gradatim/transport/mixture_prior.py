"""A mixture of normal densities, each flat in most directions, as a prior whose denoiser is known in closed form
(Tipping and Bishop, "Mixtures of probabilistic principal component analysers", 1999).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .noise_levels import NoiseLevel


class MixturePrior(eqx.Module):
    """p(x) = Σ wₖ N(x; μₖ, Uₖ diag(λₖ) Uₖᵀ + s² I): `prior(level, x)` is the mean clean image behind each noisy one.

        x̂₁ = Σ rₖ [μₖ + a Cₖ (a² Cₖ + m² I)⁻¹ (x - a μₖ)],     rₖ ∝ wₖ N(x; a μₖ, a² Cₖ + m² I)

    One component of full rank is a normal density. Give it to a [`Denoiser`][gradatim.transport.Denoiser] that predicts the image.

    **Arguments:** `weights`: positive; `means`, images; `axes`: orthonormal rows; `variances` λ ≥ 0 along them; `floor` s² ≥ 0 in all
    directions; with `floor` 0 the data lie in subspaces.

    >>> prior = MixturePrior(jnp.array([0.5, 0.5]), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 0, 1)), jnp.zeros((2, 0)), jnp.array(0.0))
    >>> level = NoiseLevel(jnp.array(0.8), jnp.array(0.6), jnp.array(0.0))
    >>> print(f"{eqx.filter_jit(prior)(level, jnp.array([[0.45]]))[0, 0]:.4f}")  # two points: tanh(a x / m²)
    0.7616
    """

    weights: Float[Array, " components"]
    means: Float[Array, "components ..."]
    axes: Float[Array, "components rank ..."]
    variances: Float[Array, "components rank"]
    floor: Float[Array, ""]

    def __call__(self, level: NoiseLevel, x: Float[Array, ...]) -> Float[Array, ...]:
        """The denoised images, along any leading axes."""
        a, m = level.a.astype(x.dtype), level.m.astype(x.dtype)
        n = self.means[0].size
        means, axes = self.means.reshape(len(self.means), n), self.axes.reshape(*self.variances.shape, n)
        # Not by squares of x and of the means apart: at low noise their difference would be round-off.
        offsets = x.reshape(-1, 1, n) - a * means[None]
        along = jnp.einsum("krn,bkn->bkr", axes, offsets)
        flat = a**2 * self.floor + m**2
        raised = a**2 * (self.variances + self.floor) + m**2
        outside = jnp.sum(offsets**2, axis=-1) - jnp.sum(along**2, axis=-1)
        square = jnp.maximum(outside, 0) / flat + jnp.sum(along**2 / raised[None], axis=-1)
        volume = jnp.sum(jnp.log(raised), axis=-1) + (n - self.variances.shape[1]) * jnp.log(flat)
        shares = jax.nn.softmax(jnp.log(self.weights)[None] - (square + volume[None]) / 2, axis=1)
        base = a * self.floor / flat
        gain = a * (self.variances + self.floor) / raised - base
        mean = shares @ means + base * jnp.einsum("bk,bkn->bn", shares, offsets)
        return (mean + jnp.einsum("bkr,krn->bn", shares[..., None] * gain[None] * along, axes)).reshape(x.shape)


def fit_mixture(images: Float[np.ndarray, "n ..."], *, n_components: int, rank: int, seed: int, iterations: int = 20) -> MixturePrior:
    """A mixture from images: groups about their means (Lloyd), and the principal axes of each.

    Variances are shrunk no further; s² is the mean of those left out, over all groups, at least 1e-5 of the images' whole variance.

    **Arguments:** `images`; `n_components` ≥ 1; `rank` ≥ 0, below the number of pixels: axes of each; `seed` of the first means;
    `iterations` ≥ 1 of Lloyd's.

    **Raises:** `ValueError` for fewer images than components, or a rank or a number of iterations out of range.

    >>> prior = fit_mixture(np.array([[0.0], [1.0], [8.0], [9.0]]), n_components=2, rank=0, seed=0)
    >>> print(sorted(prior.means.ravel().tolist()), f"{prior.floor:.2f}")  # two groups, and the variance within
    [0.5, 8.5] 0.25
    """
    n, pixels = len(images), images[0].size
    if not 1 <= n_components <= n:
        raise ValueError(f"n_components must lie between 1 and the {n} images, got {n_components}")
    if not 0 <= rank < pixels:
        raise ValueError(f"rank must be at least 0 and below the {pixels} pixels, got {rank}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    x = images.reshape(n, pixels).astype(np.float64)
    means = x[np.random.default_rng(seed).permutation(n)[:n_components]]
    group = np.zeros(n, int)
    for _ in range(iterations):
        group = ((means**2).sum(axis=1)[None] - 2 * x @ means.T).argmin(axis=1)
        # A group that has lost its images stays where it was.
        means = np.stack([x[group == k].mean(axis=0) if (group == k).any() else means[k] for k in range(n_components)])
    axes, variances, counts, rest = np.zeros((n_components, rank, pixels)), np.zeros((n_components, rank)), np.zeros(n_components), 0.0
    for k in range(n_components):
        members = x[group == k] - means[k]
        counts[k] = len(members)
        if not len(members):
            axes[k] = np.eye(rank, pixels)
            continue
        _, scale, rows = np.linalg.svd(members, full_matrices=False)
        found = min(rank, len(rows))
        axes[k, :found], variances[k, :found] = rows[:found], scale[:found] ** 2 / len(members)
        if found < rank:
            # No variance along them: any that are orthonormal to the others.
            axes[k, found:] = np.linalg.qr(np.concatenate([rows[:found], np.eye(rank - found, pixels)]).T)[0].T[found:]
        rest += (scale[found:] ** 2).sum()
    floor = max(rest / (n * (pixels - rank)), 1e-5 * x.var(axis=0).mean())
    weights = np.maximum(counts, 1e-3) / np.maximum(counts, 1e-3).sum()
    shape = images.shape[1:]
    arrays = (weights, means.reshape(-1, *shape), axes.reshape(n_components, rank, *shape), np.maximum(variances - floor, 0), floor)
    return MixturePrior(*(jnp.asarray(array, jnp.result_type(float)) for array in arrays))
