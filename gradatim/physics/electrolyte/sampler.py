"""Samples of linear fluctuations in time: each Fourier mode makes a step of any length exactly."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from gradatim.numerics import PeriodicGrid

from .checks import Scalar, positive
from .linear_noise import exact_step, noise_root
from .multispecies import MultispeciesElectrolyte
from .theory import DrivenElectrolyte


class Fluctuations(NamedTuple):
    """Spectra of the fields, one after another, as the grid's `forward` gives them, and the key of the noise to come."""

    spectra: Complex[Array, "n ..."]
    key: PRNGKeyArray


class FluctuationSampler(eqx.Module):
    """A step of linear fluctuations on a periodic grid, exact in distribution for any dt: `state = sampler(state)`.

        x(t + dt) = exp(-A dt) x(t) + ζ,   ⟨ζ ζᴴ⟩ = ∫₀ᵈᵗ exp(-A s) N exp(-Aᴴ s) ds

    for every mode (D. T. Gillespie, Phys. Rev. E 54, 2084 (1996)). Steps far longer than (L/2π)²/D, in which the slowest mode of a box of
    side L relaxes, give independent samples; k = 0 is conserved. No structure factor enters.

    **Arguments:** `electrolyte`, of one kind or the other; `grid` of its dimension; `dt` > 0.

    **Raises:** `ValueError` for a grid of another dimension, or dt ≤ 0.

    >>> sampler = eqx.filter_jit(FluctuationSampler)(DrivenElectrolyte(field=1.0, dim=2), PeriodicGrid((8, 8), 8.0), 1.0)
    >>> density, charge = sampler.fields(eqx.filter_jit(sampler)(sampler.initial(jax.random.key(0))))
    >>> density.shape, bool(abs(charge.mean()) < 1e-6)
    ((8, 8), True)
    """

    grid: PeriodicGrid
    propagator: Complex[Array, "n n ..."]
    root: Complex[Array, "n n ..."]

    def __init__(self, electrolyte: DrivenElectrolyte | MultispeciesElectrolyte, grid: PeriodicGrid, dt: Scalar):
        positive(dt=dt)
        if grid.dim != electrolyte.dim:
            raise ValueError(f"grid must have the electrolyte's {electrolyte.dim} dimensions, got {grid.dim}")
        k = grid.wavevectors()
        # Drift along the field is an odd derivative: at the Nyquist mode of a real field there is none.
        odd = k.at[..., electrolyte.axis].set(grid.wavevectors(odd=True)[..., electrolyte.axis])
        drift = electrolyte.drift_matrix(k)
        drift = drift.real + 1j * electrolyte.drift_matrix(odd).imag
        propagator, covariance = exact_step(drift, electrolyte.noise_matrix(k), dt)
        self.grid = grid
        # Matrices first: a step is then a few products of whole fields.
        scale = grid.n_cells / grid.volume**0.5
        self.propagator, self.root = (jnp.moveaxis(m, (-2, -1), (0, 1)) for m in (propagator, scale * noise_root(covariance)))

    def initial(self, key: PRNGKeyArray) -> Fluctuations:
        """No fluctuations at all."""
        return Fluctuations(jnp.zeros((self.root.shape[0], *self.grid.spectrum_shape), self.root.dtype), key)

    def __call__(self, state: Fluctuations) -> Fluctuations:
        """The state dt later."""
        key, now = jax.random.split(state.key)
        noise = jnp.stack([self.grid.white_noise(k, self.root.real.dtype) for k in jax.random.split(now, self.root.shape[0])])
        return Fluctuations(_apply(self.propagator, state.spectra) + _apply(self.root, noise), key)

    def fields(self, state: Fluctuations) -> Float[Array, "n ..."]:
        """The fields in space."""
        return self.grid.backward(state.spectra)


def _apply(matrix: Array, vector: Array) -> Array:
    n = vector.shape[0]
    rows = []
    for i in range(n):
        total = matrix[i, 0] * vector[0]
        for j in range(1, n):
            total = total + matrix[i, j] * vector[j]
        rows.append(total)
    return jnp.stack(rows)
